//! Builds with buildah: the content of the layout, and that nothing is left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::build::{
    BUSYBOX, INDEX, LINT, Layout, MANIFEST, SCRATCH, STATEMENT, base_images, leaves_nothing, one, path, processes_with,
    template, wait_for,
};
use crate::support::project::Project;
use crate::support::registry::DockerRegistry;
use crate::support::tools::{json, program};

/// A template whose two images publish would refuse: a parameter that no input sets, and the same name twice.
const REFUSED: &str = "\
Parameters:
  Stage: {Type: String}
  Registry: {Type: AWS::SSM::Parameter::Value<String>, Default: /registry}
Mappings:
  ImageBuildConfiguration:
    Api: {imageName: shop/api, platforms: [linux/amd64]}
    One: {imageName: shop/same, platforms: [linux/amd64]}
    Two: {imageName: shop/same, platforms: [linux/amd64]}
Resources:
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties:
      ContainerDefinitions:
        - {Name: a, Image: !Sub \"${Registry}/shop/api:${Stage}-1\"}
";

/// A checkout with the exemplar's template and images.
fn exemplar() -> Project {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("exemplar");
    let project = Project::new(&fs::read_to_string(source.join("template.yaml")).unwrap());
    let files = ["busybox/Dockerfile", "busybox/smoke-test.sh", "nginx/Dockerfile", "nginx/nginx.conf"];
    let pages = fs::read_dir(source.join("images/nginx/html")).unwrap();
    let pages = pages.map(|page| format!("nginx/html/{}", page.unwrap().file_name().display()));
    for file in files.map(str::to_owned).into_iter().chain(pages) {
        let path = format!("images/{file}");
        project.write(&path, &fs::read_to_string(source.join(&path)).unwrap());
    }
    project.commit();
    project
}

const DOCKER_HUB: &str = "111122223333.dkr.ecr.us-east-1.amazonaws.com/dockerhub/library/";

#[test]
fn other_tools_read_the_layout_of_the_exemplar() {
    let project = exemplar();
    let step = project.build().input("base-images", &base_images(DOCKER_HUB)).input("version", "v1.2.3");
    let run = step.input("lint", "error").run().exits(0);
    leaves_nothing(&run);
    assert_eq!(run.output("verdict"), "pass");
    assert_eq!(run.of_images("name"), ["BusyBoxService", "NginxService"]);
    assert_eq!(run.of_images("status"), ["built", "built"]);

    let layout = project.built_layout();
    assert_eq!(layout.names(), ["BusyBoxService", "NginxService"]);
    for (key, name, base) in [
        ("BusyBoxService", "exemplar-busybox", "busybox:1.37"),
        ("NginxService", "exemplar-nginx", "nginx:1.27-alpine"),
    ] {
        let inspected = layout.inspect(key);
        assert_eq!(inspected["Digest"], run.json("digests")[key]);
        assert_eq!((&inspected["Os"], &inspected["Architecture"]), (&"linux".into(), &"amd64".into()));
        let label = |label: &str| inspected["Labels"][format!("org.opencontainers.image.{label}")].clone();
        assert_eq!(label("title"), name);
        assert_eq!(label("version"), "1.2.3");
        assert_eq!(label("source"), "https://github.com/shop/backend");
        assert_eq!(label("revision"), "0123456789abcdef0123456789abcdef01234567");
        assert_eq!(label("created"), "2023-11-14T22:13:20Z");

        let manifest = layout.raw(key);
        assert_eq!(manifest["mediaType"], MANIFEST, "one platform is a manifest, not an index");
        let annotation = |name: &str| manifest["annotations"][format!("org.opencontainers.image.base.{name}")].clone();
        assert_eq!(annotation("name"), format!("{DOCKER_HUB}{base}"));
        let (folder, tag) = base.split_once(':').unwrap();
        let stand_in = crate::support::tools::tools().folder.join("bases").join(folder);
        let source = json(program("skopeo").arg("inspect").arg(format!("oci:{}:{tag}", stand_in.display())));
        assert_eq!(annotation("digest"), source["Digest"]);
        assert_eq!(layout.referrers(key), [LINT, STATEMENT].map(str::to_owned));
    }
    let nothing_else: BTreeSet<String> = layout.blobs().into_keys().collect();
    assert_eq!(nothing_else, layout.reachable());
    assert!(run.summary.contains("| BusyBoxService |"), "{}", run.summary);
    assert_eq!(run.json("matrix")["include"][0]["images"], "BusyBoxService");
}

#[test]
fn two_builds_of_a_commit_have_the_same_digest() {
    let dockerfile =
        format!("FROM {BUSYBOX}\nCOPY hello.txt /\nRUN date +%N > /etc/motd && rm /etc/motd && touch /made\n");
    let digests = [one(&dockerfile), one(&dockerfile)].map(|project| {
        let run = project.build().run().exits(0);
        run.output("digests").to_owned()
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn building_again_replaces_the_image_and_its_evidence() {
    let project = one(SCRATCH);
    project.build().run().exits(0);
    project.write("hello.txt", "other\n");
    let run = project.build().run().exits(0);
    let layout = project.built_layout();
    assert_eq!(layout.names(), ["Api"]);
    assert_eq!(layout.inspect("Api")["Digest"], run.json("digests")["Api"]);
    assert_eq!(layout.referrers("Api"), [STATEMENT]);
    assert_eq!(layout.roots().len(), 2);
}

#[test]
fn a_multi_platform_index_lists_platforms_only() {
    let project = Project::new(&template("Api: {imageName: shop/api, platforms: [linux/arm64, linux/amd64]}"));
    project.write("Dockerfile", SCRATCH);
    project.write("hello.txt", "hello\n");
    let run = project.build().run().exits(0);
    leaves_nothing(&run);
    let layout = project.built_layout();
    let index = layout.raw("Api");
    assert_eq!(index["mediaType"], INDEX);
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64"]);
    assert_eq!(run.json("images")[0]["platforms"], serde_json::json!(["linux/amd64", "linux/arm64"]));
    assert_eq!(layout.referrers("Api"), [STATEMENT]);
    // Both platforms have the same layer.
    let layers: BTreeSet<String> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|child| {
            let manifest: Value = serde_json::from_slice(&layout.blob(child["digest"].as_str().unwrap())).unwrap();
            manifest["layers"][0]["digest"].to_string()
        })
        .collect();
    assert_eq!(layers.len(), 1);
}

#[test]
fn images_are_sorted_by_name() {
    let project = Project::new(&template("Web: {imageName: shop/web}\nApi: {imageName: shop/api}"));
    project.write("Dockerfile", SCRATCH);
    project.write("hello.txt", "hello\n");
    project.write("other/Dockerfile", "FROM scratch\nLABEL a=b\n");
    project.write("other/template.yaml", &template("Tool: {imageName: shop/tool}\nBatch: {imageName: shop/batch}"));
    let run = project.build().input("template", "template.yaml\nother/template.yaml").run().exits(0);
    let names = ["Api", "Batch", "Tool", "Web"];
    assert_eq!(run.of_images("name"), names);
    let matrix = run.json("matrix")["include"].as_array().unwrap().clone();
    assert_eq!(matrix.iter().map(|entry| entry["images"].as_str().unwrap()).collect::<Vec<_>>(), names);
    let rows = run.summary.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    assert_eq!(rows.filter(|name| names.contains(name)).collect::<Vec<_>>(), names);
}

fn platforms(index: &Value) -> Vec<String> {
    let children = index["manifests"].as_array().unwrap().iter();
    let text = |child: &Value| {
        let part = |name: &str| child["platform"][name].as_str().unwrap().to_owned();
        format!("{}/{}", part("os"), part("architecture"))
    };
    children.map(text).collect()
}

#[test]
fn build_arguments_target_labels_and_annotations_are_applied() {
    let images =
        "Api: {imageName: shop/api, platforms: [linux/amd64], target: second, buildArgs: [B=mapping, C=mapping]}";
    let project = Project::new(&template(images));
    project.write("Dockerfile", concat!(
        "FROM scratch AS first\nARG A=file\nARG B=file\nARG C=file\nLABEL args=$A-$B-$C stage=first\nCOPY hello.txt /\n",
        "FROM first AS second\nLABEL stage=second\nFROM first\nLABEL stage=third\n",
    ));
    project.write("hello.txt", "hello\n");
    let run = project.build().inputs(&[
        ("build-args", "C=input\n"),
        ("labels", "team=shop=1\norg.opencontainers.image.title=Mine"),
        ("annotations", "note=a, \"b\" c"),
    ]);
    run.run().exits(0);
    let layout = project.built_layout();
    let labels = &layout.inspect("Api")["Labels"];
    assert_eq!((&labels["args"], &labels["stage"]), (&"file-mapping-input".into(), &"second".into()));
    assert_eq!((&labels["team"], &labels["org.opencontainers.image.title"]), (&"shop=1".into(), &"Mine".into()));
    assert_eq!(layout.raw("Api")["annotations"]["note"], "a, \"b\" c");
}

#[test]
fn secrets_reach_only_the_build() {
    // The Dockerfile contains only hashes of the secrets.
    let hash = |secret: &str| oci::Digest::of(secret.as_bytes()).hex().to_owned();
    let (variable, file) = ("of the variable", "of the file");
    let dockerfile = format!(
        "FROM {BUSYBOX}\nRUN --mount=type=secret,id=token --mount=type=secret,id=file,target=/file \
         echo '{}  /run/secrets/token' | sha256sum -c && echo '{}  /file' | sha256sum -c && env > /environment && sleep 1\n",
        hash(variable),
        hash(file)
    );
    let project = one(&dockerfile);
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), file).unwrap();
    let secrets = format!("token=env:TOKEN\nfile=file:{}", outside.path().display());
    let run = project.build().env("TOKEN", variable).input("secrets", &secrets).run().exits(0);
    leaves_nothing(&run);
    assert!(run.log.raw.contains("/run/secrets/token: OK"), "{}", run.log.raw);
    for secret in [variable, file] {
        assert!(!run.log.raw.contains(secret), "{}", run.log.raw);
        assert_eq!(project.built_layout().blobs_with(secret), [""; 0]);
        assert!(run.outputs.values().chain([&run.summary]).all(|value| !value.contains(secret)));
    }
    // The search does find a text that is in a layer.
    assert_eq!(project.built_layout().blobs_with("PATH=/usr/local/sbin").len(), 2);
}

#[test]
fn a_failing_step_is_reported_with_its_output() {
    let project = one(&format!(
        "FROM {BUSYBOX}\nRUN echo a first line && echo the disk is on fire >&2 && sleep 1 && exit 7\nRUN echo next\n"
    ));
    let run = project.build().run().exits(1);
    leaves_nothing(&run);
    assert_eq!(run.output("verdict"), "fail");
    assert_eq!(run.of_images("status"), ["failed"]);
    assert_eq!(run.output("digests"), "{}");
    assert_eq!(run.log.groups, ["build Api (Dockerfile)"]);
    assert!(run.log.lines.iter().any(|line| line == "the disk is on fire"), "{}", run.log.raw);
    assert!(
        run.error().starts_with("Dockerfile:2:1: image `Api` could not be built: `RUN echo a first"),
        "{}",
        run.error()
    );
    // Two streams, so in either order.
    let (_, output) = run.error().split_once(" failed: ").unwrap();
    let mut lines: Vec<&str> = output.split(" | ").collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a first line", "the disk is on fire"]);
    assert_eq!(project.built_layout().names(), [""; 0]);
}

#[test]
fn a_missing_file_is_named() {
    let run = one("FROM scratch\nCOPY app/missing.txt /run.sh\n").build().run().exits(1);
    assert!(run.error().contains("app/missing.txt\": no such file or directory"), "{}", run.error());
}

#[test]
fn what_publish_would_refuse_is_a_warning() {
    let project = Project::new(REFUSED);
    project.write("Dockerfile", SCRATCH);
    project.write("hello.txt", "hello\n");
    project.commit();
    let warnings = |inputs: &[(&str, &str)]| {
        let run = project.build().input("dry-run", "true").inputs(inputs).run().exits(0);
        let lines = run.log.lines.into_iter();
        lines.filter(|line| line.contains("needs the parameter") || line.contains("the same name")).collect::<Vec<_>>()
    };
    let all = warnings(&[]);
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all[0].contains("image `Api` needs the parameter `Stage`"), "{all:?}");
    assert!(all[0].contains("give them `parameters: Stage={environment}`"), "{all:?}");
    assert!(all[1].contains("images `One` and `Two` have the same name"), "{all:?}");
    assert_eq!(warnings(&[("parameters", "Stage={environment}"), ("images", "Api")]), [""; 0]);
}

#[test]
fn an_image_without_the_time_of_a_commit_is_a_warning() {
    let project = Project::new(&template("Api: {imageName: shop/api, platforms: [linux/amd64]}"));
    project.write("Dockerfile", SCRATCH);
    project.write("hello.txt", "hello\n");
    let said = |text: &str| {
        let run = project.build().run().exits(0);
        [run.log.messages("warning"), run.log.messages("notice")].concat().iter().any(|line| line.contains(text))
    };
    project.write(".gitignore", "layout*\n");
    let unknown = "the images get the current time, so another build of this commit has other digests: ";
    assert!(said(&format!("{unknown}not a git repository")));
    project.commit();
    assert!(!said("the images get"));
    project.write("hello.txt", "hello again\n");
    assert!(said("the checkout has 1 file with other content: `hello.txt`"));
    project.commit();
    // Another user owns the checkout, as in a container job.
    let chown = |user: u32| std::os::unix::fs::chown(project.folder(), Some(user), None).unwrap();
    chown(65534);
    assert!(said("git config --global --add safe.directory "));
    chown(0);
    // A machine with all programs but git.
    let folder = tempfile::tempdir().unwrap();
    for entry in std::env::split_paths(&path()).filter_map(|folder| fs::read_dir(folder).ok()).flatten() {
        let program = entry.unwrap();
        if program.file_name() != "git" {
            std::os::unix::fs::symlink(program.path(), folder.path().join(program.file_name())).ok();
        }
    }
    let run = project.build().env("PATH", folder.path().display().to_string()).run().exits(0);
    assert!(run.log.messages("warning").iter().any(|line| line.contains("install git before the checkout")));
}

#[test]
fn no_image_is_named_if_one_fails() {
    let project = Project::new(&template(
        "Api: {imageName: shop/api, dockerfile: api/Dockerfile}\nWeb: {imageName: shop/web, dockerfile: web/Dockerfile}",
    ));
    project.write("api/Dockerfile", SCRATCH);
    project.write("web/Dockerfile", "FROM scratch\nCOPY absent /\n");
    project.write("hello.txt", "hello\n");
    let run = project.build().run().exits(1);
    assert_eq!(run.of_images("status"), ["built", "failed"]);
    assert_eq!(project.built_layout().names(), [""; 0]);
    // Without a name there is no evidence either.
    assert!(project.built_layout().roots().is_empty());
    // The other image on its own.
    project.build().input("images", "shop/api").run().exits(0);
    assert_eq!(project.built_layout().names(), ["Api"]);
}

#[test]
fn a_layout_has_the_evidence_of_its_images_and_each_piece_once() {
    let project = Project::new(&template(
        "Api: {imageName: shop/api, dockerfile: api/Dockerfile, context: .}\nWeb: {imageName: shop/web, dockerfile: web/Dockerfile, context: .}",
    ));
    project.write("api/Dockerfile", SCRATCH);
    project.write("web/Dockerfile", "FROM scratch\nCOPY absent /\n");
    project.write("hello.txt", "hello\n");
    project.commit();
    let build = || project.build();
    let layout = project.built_layout();
    // One that fails, two that replace each other, and one of a single image.
    build().run().exits(1);
    project.write("web/Dockerfile", "FROM scratch\nCOPY hello.txt /web\n");
    for images in ["", "", "Web"] {
        build().input("images", images).run().exits(0);
        for name in ["Api", "Web"] {
            assert_eq!(layout.referrers(name), [STATEMENT], "{images}: {:?}", layout.roots());
        }
        assert_eq!(layout.roots().len(), 4, "{:?}", layout.roots());
    }
    // Two at the same time: whichever names its images last has its evidence there.
    let (one, other) = (build().start(), build().start());
    one.finish().exits(0);
    other.finish().exits(0);
    assert_eq!(layout.names(), ["Api", "Web"]);
    assert_eq!(layout.roots().len(), 4, "{:?}", layout.roots());
}

#[test]
fn a_dry_run_prints_commands_and_builds_nothing() {
    let project = one(&format!("FROM {BUSYBOX}\nRUN exit 1\n"));
    let run = project.build().inputs(&[("dry-run", "true"), ("build-args", "WORDS=two words"), ("version", "1.0.0")]);
    let run = run.env("TOKEN", "hidden").input("secrets", "token=env:TOKEN").run().exits(0);
    leaves_nothing(&run);
    assert_eq!(run.of_images("status"), ["planned"]);
    assert_eq!(run.output("verdict"), "pass");
    let line = run.log.lines.iter().find(|line| line.contains("build --isolation")).expect("the command line");
    for part in ["'WORDS=two words'", "--platform linux/amd64", "--secret id=token,env=TOKEN", "version=1.0.0"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!run.log.raw.contains("hidden"));
    assert!(!project.layout().exists());
    assert!(run.summary.contains("| Image | Platforms | Status |\n"), "{}", run.summary);
}

#[test]
fn publish_keeps_the_digests_of_the_build() {
    let project = exemplar();
    let registry = DockerRegistry::start();
    project.build().input("base-images", &base_images(DOCKER_HUB)).input("lint", "error").run().exits(0);
    let publish = project.publish().inputs(&[("registry", &registry.host()), ("images", "BusyBoxService")]);
    let publish = publish.input("registry-endpoints", &format!("{}={}", registry.host(), registry.url()));
    let run = publish.run().exits(0);
    let reference = format!("{}/exemplar-busybox:dev-1.0.0", registry.host());
    assert_eq!(run.output("references").trim(), reference);
    let inspected = json(program("skopeo").args(["inspect", "--tls-verify=false", &format!("docker://{reference}")]));
    let layout = project.built_layout();
    assert_eq!(inspected["Digest"], layout.inspect("BusyBoxService")["Digest"]);
    let pulled = tempfile::tempdir().unwrap();
    let target = format!("dir:{}", pulled.path().display());
    let source = format!("docker://{reference}");
    let mut copy = program("skopeo");
    crate::support::tools::printed(copy.args([
        "--insecure-policy",
        "copy",
        "--src-tls-verify=false",
        &source,
        &target,
    ]));
    let manifest: Value = serde_json::from_slice(&fs::read(pulled.path().join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest, layout.raw("BusyBoxService"));
}

/// A temporary folder with a path like `/tmp`, from which buildah can derive names.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Temporary {
        let path = std::env::temp_dir().join(format!("build-test-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Temporary(path)
    }

    fn entries(&self) -> Vec<String> {
        fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().display().to_string()).collect()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn no_temporary_files_are_left() {
    for (name, code, dockerfile) in [
        ("success", 0, format!("FROM {BUSYBOX}\nRUN echo x > /x\n")),
        ("failure", 1, format!("FROM {BUSYBOX}\nRUN echo x > /x\nRUN exit 1\n")),
        ("mistake", 2, "FROM base.example/library/busybox:no-such-tag\n".to_owned()),
    ] {
        let (project, temporary) = (one(&dockerfile), Temporary::new(name));
        let step = project.build().env("TMPDIR", &temporary.0);
        let place = step.temporary();
        let run = step.run();
        assert_eq!(run.code, Some(code), "{name}: {}", run.log.raw);
        leaves_nothing(&run);
        assert_eq!(temporary.entries(), [""; 0], "{name}");
        assert!(!fs::read_to_string("/proc/mounts").unwrap().contains(place.to_str().unwrap()), "{name}");
    }
}

#[test]
fn paths_with_special_characters_are_built() {
    // buildah derives names from paths, and refuses these.
    let project = Project::new(&template(
        "Api: {imageName: shop/api, dockerfile: 'My Images/_api/Dockerfile', context: 'My Images'}",
    ));
    project.write("My Images/_api/Dockerfile", &format!("FROM {BUSYBOX}\r\nCOPY hello.txt \\\r\n  /\r\n"));
    project.write("My Images/hello.txt", "hello\n");
    let temporary = tempfile::Builder::new().prefix("_Temp ").tempdir().unwrap();
    let layout = project.folder().join("My Layouts/_temp");
    let step = project.build().env("TMPDIR", temporary.path()).input("layout", layout.to_str().unwrap());
    let run = step.run().exits(0);
    leaves_nothing(&run);
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    assert_eq!(Layout { path: layout }.names(), ["Api"]);
}

#[test]
fn a_cancelled_build_leaves_no_processes() {
    for signal in ["INT", "TERM"] {
        // A number that is no argument of any other process.
        let marker = format!("36{:07}{}", std::process::id(), signal.len());
        let project =
            one(&format!("FROM {BUSYBOX}\nRUN echo x > /x\nRUN echo y > /y; sleep {marker}; sleep {marker}\n"));
        let temporary = Temporary::new(&format!("cancelled-{}", signal.to_lowercase()));
        let step = project.build().env("TMPDIR", &temporary.0);
        let place = step.temporary();
        let running = step.start();
        wait_for(|| !processes_with(&marker).is_empty());
        running.signal(signal);
        let run = running.finish().exits(1);
        assert_eq!(processes_with(&marker), [""; 0], "{signal}");
        leaves_nothing(&run);
        assert_eq!(temporary.entries(), [""; 0], "{signal}");
        assert!(!fs::read_to_string("/proc/mounts").unwrap().contains(place.to_str().unwrap()), "{signal}");
        assert_eq!(run.output("verdict"), "fail");
        assert_eq!(run.of_images("status"), ["failed"]);
        assert!(run.log.messages("error").iter().any(|message| message.contains("was cancelled")), "{}", run.log.raw);
        assert_eq!(project.built_layout().names(), [""; 0]);
    }
}
