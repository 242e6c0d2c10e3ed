//! Both builders build the same image from a Dockerfile: configuration, files and exit code.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::Value;

use crate::support::build::{BUSYBOX, Layout, template};
use crate::support::engine::{Engine, ImageStore};
use crate::support::project::Project;

/// Replaces `RUN`: containers of the tests' Docker Engine have no network.
const RUN: &str = "RUN";

/// Dockerfiles by name. `B` stands for the base image.
const DOCKERFILES: [(&str, &str); 32] = [
    ("copy", "FROM B\nCOPY hello.txt /\n"),
    ("copy-folder", "FROM B\nCOPY dir /target/\n"),
    ("copy-several", "FROM B\nCOPY hello.txt dir/a.txt /several/\n"),
    ("copy-wildcard", "FROM B\nCOPY dir/*.txt /w/\n"),
    ("copy-owner", "FROM B\nCOPY --chown=65534:0 hello.txt /\n"),
    ("copy-owner-name", "FROM B\nCOPY --chown=nobody:nogroup hello.txt /\n"),
    ("copy-mode", "FROM B\nCOPY --chmod=750 hello.txt /\n"),
    ("copy-links", "FROM B\nCOPY links /links\n"),
    ("add-archive", "FROM B\nADD archive.tar /unpacked\n"),
    ("add-file", "FROM B\nADD hello.txt /\n"),
    ("ignored", "FROM B\nCOPY . /all\n"),
    ("run", "FROM B\nRUN echo a > /a && mkdir -p /x/y && chmod 711 /x && ln -s /a /x/link\n"),
    ("run-exec", "FROM B\nRUN [\"/bin/sh\", \"-c\", \"echo $0 > /a\"]\n"),
    ("run-user", "FROM B\nRUN mkdir /w && chown 65534 /w\nUSER nobody\nWORKDIR /w\nRUN id -u > made\n"),
    ("run-delete", "FROM B\nRUN echo a > /a && echo b > /b\nRUN rm /a\n"),
    ("run-fails", "FROM B\nRUN exit 7\n"),
    ("run-missing-file", "FROM B\nCOPY absent /\n"),
    ("shell", "FROM B\nSHELL [\"/bin/sh\", \"-e\", \"-c\"]\nRUN true; echo a > /a\nCMD echo hi\n"),
    ("shell-fails", "FROM B\nSHELL [\"/bin/sh\", \"-e\", \"-c\"]\nRUN false; echo a > /a\n"),
    ("healthcheck", "FROM B\nHEALTHCHECK --interval=5s --timeout=2s --start-period=1s --retries=4 CMD [\"true\"]\n"),
    ("healthcheck-none", "FROM B\nHEALTHCHECK NONE\n"),
    ("onbuild", "FROM B\nONBUILD RUN true\nONBUILD COPY a b\n"),
    ("ports-volumes", "FROM B\nEXPOSE 80 443/tcp 53/udp\nVOLUME [\"/data\", \"/more\"]\nSTOPSIGNAL 9\n"),
    ("labels", "FROM B\nLABEL a=b c=\"d e\" f='g'\nLABEL a=h\nMAINTAINER somebody\n"),
    (
        "environment",
        "FROM B\nENV A=1 B=\"two words\"\nENV C three words\nENV D=$A-${B} E=${X:-none}\nRUN env | grep -v HOSTNAME | sort > /env\n",
    ),
    ("arguments", "ARG G=global\nFROM B\nARG G\nARG L=local\nENV V=$G-$L\nRUN echo $G $L $TARGETARCH > /args\n"),
    ("entrypoint", "FROM B\nCMD [\"first\"]\nENTRYPOINT [\"/bin/sh\", \"-c\"]\nCMD [\"second\"]\n"),
    ("entrypoint-resets", "FROM B\nENTRYPOINT top\n"),
    ("workdir", "FROM B\nWORKDIR /a/b\nWORKDIR c\nCOPY hello.txt .\nUSER 65534:65534\n"),
    (
        "stages",
        "FROM B AS one\nRUN echo x > /x\nFROM one AS two\nRUN echo y > /y\nFROM B\nCOPY --from=two /x /y /from/\nCOPY --from=0 /x /zero\n",
    ),
    (
        "mounts",
        "FROM B AS one\nRUN echo x > /x\nFROM B\nRUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --mount=from=one,source=/x,target=/m cat /m > /got; echo > /c/a\n",
    ),
    ("scratch", "FROM scratch\nCOPY hello.txt /\nCMD [\"/hello\"]\n"),
];

/// Members that may differ, and why.
const ACCEPTED: [(&str, &str); 5] = [
    ("created", "BuildKit 0.13 keeps the base image's own time; both label the image with the commit's"),
    ("etc/hostname", MOUNT_POINT),
    ("etc/hosts", MOUNT_POINT),
    ("etc/resolv.conf", MOUNT_POINT),
    ("run", MOUNT_POINT),
];

/// The container runtime mounts its own file there.
const MOUNT_POINT: &str = "buildah leaves an empty file where it mounted one for `RUN`, if the base image has none";

/// An image, or the exit code of its build.
#[derive(Debug, PartialEq)]
struct Result {
    code: Option<i32>,
    config: BTreeMap<String, Value>,
    files: BTreeMap<String, String>,
    history: Vec<bool>,
}

fn project(text: &str) -> Project {
    let project = Project::new(&template("Api: {imageName: shop/api, platforms: [linux/amd64]}"));
    project.write("Dockerfile", &text.replace("FROM B", &format!("FROM {BUSYBOX}")));
    project.write(".dockerignore", "# comment\n.git\nlayout*\n*.log\n!keep.log\nignored/**\n!ignored/kept.txt\n");
    for (path, text) in [
        ("hello.txt", "hello\n"),
        ("dir/a.txt", "a\n"),
        ("dir/sub/b.txt", "b\n"),
        ("a.log", "log\n"),
        ("keep.log", "log\n"),
        ("ignored/a.txt", "a\n"),
        ("ignored/kept.txt", "a\n"),
        ("links/real", "r\n"),
    ] {
        project.write(path, text);
    }
    std::os::unix::fs::symlink("real", project.folder().join("links/link")).unwrap();
    let mut archive = tar::Builder::new(std::fs::File::create(project.folder().join("archive.tar")).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o640);
    header.set_uid(5);
    header.set_gid(6);
    archive.append_data(&mut header, "in/side", &b"x\n"[..]).unwrap();
    archive.finish().unwrap();
    project.commit();
    project
}

fn built(text: &str, engine: Option<&Engine>) -> Result {
    let project = project(text);
    let step = project.build().input("build-args", "");
    let step = match engine {
        Some(engine) => engine.give(step.input("builder", "buildx")),
        None => step,
    };
    let run = step.run();
    if run.code != Some(0) {
        return Result { code: run.code, config: BTreeMap::new(), files: BTreeMap::new(), history: Vec::new() };
    }
    let layout = project.built_layout();
    let config = layout.config("Api");
    let mut members: BTreeMap<String, Value> = BTreeMap::new();
    for (name, value) in config.as_object().unwrap() {
        if !["config", "rootfs", "history"].contains(&name.as_str()) {
            members.insert(name.clone(), value.clone());
        }
    }
    for (name, value) in config["config"].as_object().unwrap() {
        members.insert(format!("config.{name}"), value.clone());
    }
    let history = config["history"].as_array().unwrap();
    let layers = history.iter().filter(|entry| entry["empty_layer"] != true).count();
    assert_eq!(layers, config["rootfs"]["diff_ids"].as_array().unwrap().len(), "{config}");
    Result { code: run.code, config: members, files: files(&layout), history: Vec::new() }
}

/// Returns path, type, mode, owner and content of every file.
fn files(layout: &Layout) -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let manifest = layout.raw("Api");
    for layer in manifest["layers"].as_array().unwrap() {
        let bytes = layout.blob(layer["digest"].as_str().unwrap());
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let path = path.trim_start_matches("./").trim_end_matches('/').to_owned();
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if let Some(gone) = name.strip_prefix(".wh.") {
                let gone = format!("{folder}/{gone}").trim_start_matches('/').to_owned();
                files.retain(|path, _| *path != gone && !path.starts_with(&format!("{gone}/")));
                continue;
            }
            let header = entry.header().clone();
            let link = entry.link_name().unwrap().map(|link| link.display().to_string()).unwrap_or_default();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let told = format!(
                "{:?} {:o} {}:{} {link} {}",
                header.entry_type(),
                header.mode().unwrap() & 0o7777,
                header.uid().unwrap(),
                header.gid().unwrap(),
                oci::Digest::of(&content)
            );
            files.insert(path, told);
        }
    }
    files.remove("");
    files
}

#[test]
fn both_builders_build_the_same_image() {
    let engine = Engine::start(ImageStore::Containerd);
    let mut differences = Vec::new();
    for (name, text) in DOCKERFILES {
        let by_buildah = built(text, None);
        let by_buildkit = built(
            &text.replace(RUN, "RUN --network=none").replace("ONBUILD RUN --network=none", "ONBUILD RUN"),
            Some(&engine),
        );
        let mut differ = |what: &str, buildkit: &dyn std::fmt::Debug, buildah: &dyn std::fmt::Debug| {
            let is_accepted =
                ACCEPTED.iter().any(|(accepted, _)| *accepted == what || *accepted == format!("{name} {what}"));
            if !is_accepted {
                differences.push(format!("{name}: {what}: BuildKit {buildkit:?}, buildah {buildah:?}"));
            }
        };
        if by_buildkit.code != by_buildah.code {
            differ("exit code", &by_buildkit.code, &by_buildah.code);
            continue;
        }
        let names = |a: &BTreeMap<String, Value>, b: &BTreeMap<String, Value>| {
            a.keys().chain(b.keys()).cloned().collect::<std::collections::BTreeSet<_>>()
        };
        for field in names(&by_buildkit.config, &by_buildah.config) {
            let (a, b) = (by_buildkit.config.get(&field), by_buildah.config.get(&field));
            if a != b {
                differ(&field, &a, &b);
            }
        }
        let paths: std::collections::BTreeSet<&String> =
            by_buildkit.files.keys().chain(by_buildah.files.keys()).collect();
        for path in paths {
            let (a, b) = (by_buildkit.files.get(path), by_buildah.files.get(path));
            if a != b {
                differ(path, &a, &b);
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
