//! The Dockerfile is read once, within the checkout. Unsupported and failing instructions are reported at their line.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use crate::support::bases::{base, with_config};
use crate::support::build::{
    BUSYBOX, Layout, SCRATCH, base_images, leaves_nothing, one, processes_with, template, wait_for,
};
use crate::support::engine::{Engine, ImageStore};
use crate::support::project::Project;
use crate::support::tools::SYSTEM_PATH;

#[test]
fn shell_is_applied_and_kept_in_the_image() {
    let project = one(&format!("FROM {BUSYBOX}\nSHELL [\"/bin/sh\",\"-e\",\"-c\"]\nRUN false; echo \"not reached\"\n"));
    let run = project.build().run().exits(1);
    assert!(run.error().starts_with("Dockerfile:3:1: "), "{}", run.error());
    project.write(
        "Dockerfile",
        &format!(
            "FROM {BUSYBOX}\nHEALTHCHECK --interval=5s --timeout=3s --retries=2 CMD true\nONBUILD RUN true\n\
             SHELL [\"/bin/sh\",\"-e\",\"-c\"]\nSTOPSIGNAL SIGINT\n"
        ),
    );
    project.build().run().exits(0);
    let config = project.built_layout().config("Api")["config"].clone();
    assert_eq!(config["Shell"], serde_json::json!(["/bin/sh", "-e", "-c"]));
    assert_eq!(config["OnBuild"], serde_json::json!(["RUN true"]));
    assert_eq!(config["StopSignal"], "SIGINT");
    assert_eq!(config["Healthcheck"]["Test"], serde_json::json!(["CMD-SHELL", "true"]));
    assert_eq!(config["Healthcheck"]["Retries"], 2);
    assert!(config.get("Hostname").is_none(), "{config}");
}

#[test]
fn a_failing_step_is_reported_at_its_line() {
    let engine = Engine::start(ImageStore::Containerd);
    let text = format!(
        "FROM {BUSYBOX} AS first\nRUN NETWORK true\n\nFROM {BUSYBOX}\n# why\nRUN NETWORK echo one >&2 && \\\n  # because\n  echo the disk is on fire >&2 && \\\n  exit 3\nRUN true\n"
    );
    for number in [0, 1] {
        let project = one(&text.replace("NETWORK", ["", "--network=none"][number]));
        let step = project.build();
        let step = if number == 1 { engine.give(step.input("builder", "buildx")) } else { step };
        let run = step.run().exits(1);
        assert!(run.error().starts_with("Dockerfile:6:1: image `Api` could not be built: `RUN "), "{}", run.error());
        assert!(run.error().contains("one | the disk is on fire"), "{}", run.error());
        assert!(!run.log.raw.contains("build args were not consumed"), "{}", run.log.raw);
    }
}

#[test]
fn paths_with_special_characters_are_built() {
    let engine = Engine::start(ImageStore::Containerd);
    for name in ["x,etc", "quo\"te'", "co:lon", "Dockerfile.in", "at@x", "new\nline", "sp ace"] {
        let scalar = serde_json::json!(name);
        let project = Project::new(&template(&format!(
            "Api: {{imageName: shop/api, platforms: [linux/amd64], dockerfile: {scalar}, context: {}}}",
            serde_json::json!(format!("dir {name}"))
        )));
        project.write(name, &format!("#include \"/etc/passwd\"\nFROM {BUSYBOX}\nCOPY hello.txt /\n"));
        project.write(&format!("{name}.dockerignore"), "secret.txt\n");
        project.write(&format!("dir {name}/hello.txt"), "hello\n");
        project.write(&format!("dir {name}/secret.txt"), "hidden words\n");
        for buildx in [false, true] {
            let step = project.build().input("lint", "error");
            let step = if buildx { engine.give(step.input("builder", "buildx")) } else { step };
            let run = step.run().exits(0);
            leaves_nothing(&run);
            assert!(!run.log.raw.contains("root:x:0:0"), "{}", run.log.raw);
        }
    }
}

#[test]
fn a_path_with_a_comma_is_one_file() {
    let project = Project::new(&template(
        "Api: {imageName: shop/api, platforms: [linux/amd64], dockerfile: 'api/x,/etc/passwd'}",
    ));
    project.write("hello.txt", "hello\n");
    let run = project.build().run().exits(2);
    assert!(run.error().contains("there is no Dockerfile `api/x,/etc/passwd`"), "{}", run.error());
    // The file exists under exactly this name.
    project.write("api/x,/etc/passwd", SCRATCH);
    let run = project.build().run().exits(0);
    assert!(!run.log.raw.contains("root:x:0:0"), "{}", run.log.raw);
}

#[test]
fn runner_folders_may_have_any_name() {
    let engine = Engine::start(ImageStore::Containerd);
    for name in ["com,ma", "quo\"te'", "co:lon", "at@x", "new\nline"] {
        let outside = tempfile::tempdir().unwrap();
        let (workspace, temporary) = (outside.path().join(name), outside.path().join(format!("temp {name}")));
        fs::create_dir_all(workspace.join("bases")).unwrap();
        fs::create_dir(&temporary).unwrap();
        let text = template("Api: {imageName: shop/api, platforms: [linux/amd64]}");
        fs::write(workspace.join("template.yaml"), text.trim_start()).unwrap();
        fs::write(workspace.join("Dockerfile"), "FROM x.example/base:1\nCOPY hello.txt /\n").unwrap();
        fs::write(workspace.join("hello.txt"), "hello\n").unwrap();
        base(&workspace.join("bases/base"), "1", &[("amd64", "a")]);
        let other = one(SCRATCH);
        for buildx in [false, true] {
            let step = other.build().env("GITHUB_WORKSPACE", &workspace).env("RUNNER_TEMP", &temporary);
            let step = step.input("layout", "").input("base-images", "x.example/=oci:bases/");
            let step = if buildx { engine.give(step.input("builder", "buildx")) } else { step };
            step.run().exits(0);
            let layout = Layout { path: temporary.join("container-images") };
            assert_eq!(layout.names(), ["Api"], "{name:?}");
            let left: Vec<PathBuf> = fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(left.len(), 2, "{left:?}");
        }
    }
}

#[test]
fn files_outside_the_checkout_are_not_read() {
    let project = one(&format!("FROM {BUSYBOX}\nRUN --mount=type=bind,source=link,target=/m cat /m/hostname\n"));
    symlink("/etc", project.folder().join("link")).unwrap();
    let run = project.build().run().exits(2);
    insta::assert_snapshot!(run.error(), @"Dockerfile:2:5: `link` leads out of the context, so it cannot be mounted");
    // Neither is an ignore file.
    project.write("Dockerfile", SCRATCH);
    symlink("/etc/hostname", project.folder().join(".dockerignore")).unwrap();
    let run = project.build().run().exits(2);
    insta::assert_snapshot!(run.error(), @"cannot read .dockerignore: it lies outside the checkout");
}

/// The buildah of Debian's stable release, version 1.28, does not support these instructions.
#[test]
fn unsupported_instructions_are_refused_at_their_line() {
    let refused = |instruction: &str| {
        let project = one(&format!("FROM {BUSYBOX}\n# x\n{instruction}\n"));
        let run = project.build().env("PATH", SYSTEM_PATH).run().exits(2);
        leaves_nothing(&run);
        run.error().to_owned()
    };
    let mut told = String::new();
    for instruction in [
        "RUN <<E\necho a\nE",
        "COPY <<E /x\na\nE",
        "RUN --network=none true",
        "RUN --security=insecure true",
        "RUN --device=a true",
        "RUN --mount=type=cache,target=/c,sharing=private true",
        "RUN --mount=type=bind,target=/c,rw true",
        "COPY --link hello.txt /",
        "COPY --parents hello.txt /",
        "COPY --exclude=a hello.txt /",
        "COPY --chmod=u+x hello.txt /",
        "ADD --checksum=sha256:aa hello.txt /",
        "ADD --keep-git-dir=true hello.txt /",
        "ADD https://git.example/a.git /x",
        "HEALTHCHECK --start-interval=5s CMD true",
        "VOLUME /d\nRUN true",
        "LABEL a=${A%b}",
    ] {
        let error = refused(instruction);
        let error = error.strip_prefix("Dockerfile:").unwrap();
        told.push_str(error.split(" (hint: ").next().unwrap());
        told.push('\n');
    }
    insta::assert_snapshot!(told, @r"
    3:1: buildah 1.28.2, which builds here, does not support heredocs: buildah 1.33 or BuildKit is needed
    3:1: buildah 1.28.2, which builds here, does not support heredocs: buildah 1.33 or BuildKit is needed
    3:5: buildah 1.28.2, which builds here, does not support `RUN --network=none`: BuildKit is needed
    3:5: buildah 1.28.2, which builds here, does not support `RUN --security=insecure`: BuildKit is needed
    3:5: buildah 1.28.2, which builds here, does not support `RUN --device=a`: BuildKit is needed
    3:5: buildah 1.28.2, which builds here, does not support `RUN --mount=type=cache,sharing=private`: BuildKit is needed
    3:5: buildah 1.28.2, which builds here, does not support `RUN --mount=type=bind,rw`: buildah 1.39 or BuildKit is needed
    3:6: buildah 1.28.2, which builds here, does not support `COPY --link`: buildah 1.41 or BuildKit is needed
    3:6: buildah 1.28.2, which builds here, does not support `COPY --parents`: buildah 1.40 or BuildKit is needed
    3:6: buildah 1.28.2, which builds here, does not support `COPY --exclude`: buildah 1.38 or BuildKit is needed
    3:6: buildah 1.28.2, which builds here, does not support `COPY --chmod=u+x`: BuildKit is needed
    3:5: buildah 1.28.2, which builds here, does not support `ADD --checksum`: buildah 1.33 or BuildKit is needed
    3:5: buildah 1.28.2, which builds here, does not support `ADD --keep-git-dir`: BuildKit is needed
    3:1: buildah 1.28.2, which builds here, does not support `ADD https://git.example/a.git`: buildah 1.38 or BuildKit is needed
    3:13: buildah 1.28.2, which builds here, does not support `--start-interval`: buildah 1.37 or BuildKit is needed
    4:1: buildah 1.28.2, which builds here, does not support `RUN` after `VOLUME`, whose files it would lose: buildah 1.37 or BuildKit is needed
    3:1: buildah 1.28.2, which builds here, does not support patterns in variables: buildah 1.44 or BuildKit is needed
    ");
    // In a stage that is not built, it is accepted.
    let project = one(&format!("FROM {BUSYBOX} AS other\nRUN --network=none true\nFROM {BUSYBOX}\nCOPY hello.txt /\n"));
    project.build().env("PATH", SYSTEM_PATH).run().exits(0);
    let project = one("FROM x.example/base:1\nCOPY hello.txt /\n");
    let bases = tempfile::tempdir().unwrap();
    let triggers = serde_json::json!({"OnBuild": ["COPY --from=alpine / /"]});
    with_config(&bases.path().join("base"), "1", &[("amd64", "a")], &triggers);
    let run = project.build().input("base-images", &format!("x.example/=oci:{}/", bases.path().display())).run();
    assert!(run.error().starts_with("Dockerfile:1:6: "), "{}", run.error());
    assert!(run.error().contains("`ONBUILD COPY --from=alpine / /`"), "{}", run.error());
}

#[test]
fn every_form_of_instruction_is_built() {
    let text = concat!(
        "# escape=`\n\u{20}# comment\nARG NAME=busybox `\n  VERSION='1.37'\n\nfrom --platform=linux/amd64 base.example/library/${NAME}`\n",
        "# comment\n:${VERSION%-x} as Base\nrun echo `\n  # comment\n  one > /one\n",
        "FROM Base\nCOPY --from=Base /one /two\nCOPY --from=0 /one /three\nONBUILD COPY --from=never.example/x /a /b\n",
    );
    let project = one(text);
    project.build().run().exits(0);
    let layout = project.built_layout();
    assert_eq!(layout.config("Api")["config"]["OnBuild"], serde_json::json!(["COPY --from=never.example/x /a /b"]));
    assert_eq!(layout.raw("Api")["annotations"]["org.opencontainers.image.base.name"], BUSYBOX);
    let project = one(&format!("\u{feff}FROM {BUSYBOX}\r\nCOPY hello.txt \\\r\n /\r\n"));
    project.build().input("base-images", &base_images("base.example/library/")).run().exits(0);
}

/// Like on a hosted runner, the user is not root.
#[test]
fn a_rootless_build_leaves_nothing_when_it_is_cancelled() {
    let marker = format!("38{:07}", std::process::id());
    let bases = tempfile::tempdir().unwrap();
    base(&bases.path().join("base"), "1", &[("amd64", "a")]);
    fs::set_permissions(bases.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let project = one(&format!(
        "FROM x.example/base:1\nRUN mkdir -m 700 /d && echo a > /d/a && chown -R 5:5 /d\nRUN echo b > /d/b; sleep {marker}; sleep {marker}\n"
    ));
    let rules = format!("x.example/=oci:{}/", bases.path().display());
    let step = project.build().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").input("base-images", &rules);
    let step = step.unprivileged(true);
    let temporary = step.temporary();
    let running = step.start();
    wait_for(|| !processes_with(&marker).is_empty());
    running.signal("TERM");
    let run = running.finish().exits(1);
    assert_eq!(processes_with(&marker), [""; 0]);
    assert_eq!(
        run.left.iter().filter(|left| left.starts_with("temp/")).collect::<Vec<_>>(),
        [""; 0],
        "{}",
        run.log.raw
    );
    assert!(!fs::read_to_string("/proc/mounts").unwrap().contains(temporary.to_str().unwrap()));
    // A build that finishes leaves nothing either.
    project.write("Dockerfile", "FROM x.example/base:1\nRUN mkdir -m 700 /d && chown 5:5 /d\n");
    let step = project.build().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").input("base-images", &rules);
    let run = step.unprivileged(true).run().exits(0);
    assert_eq!(
        run.left.iter().filter(|left| left.starts_with("temp/")).collect::<Vec<_>>(),
        [""; 0],
        "{}",
        run.log.raw
    );
    // Without subordinate ids, the hint says what is missing.
    let step = project.build().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").input("base-images", &rules);
    let run = step.unprivileged(false).run().exits(1);
    let hint = "(hint: this user has no range of ids in /etc/subuid and /etc/subgid: sudo usermod --add-subuids \
                100000-165535 --add-subgids 100000-165535 \"$USER\")";
    let error = run.error();
    assert!(
        error.starts_with("Dockerfile:2:1: image `Api` could not be built: `RUN") && error.ends_with(hint),
        "{error}"
    );
}
