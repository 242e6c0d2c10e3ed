//! Builds with Docker's own BuildKit and the classic image store, as on hosted runners: images are exported with
//! `docker save`. If that is not enough, a builder is created.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::build::{
    Agent, BUSYBOX, INDEX, MANIFEST, SCRATCH, STATEMENT, base_images, leaves_nothing, one, path, processes_with,
    script, template, wait_for,
};
use crate::support::engine::{Engine, ImageStore};
use crate::support::project::Project;
use crate::support::registry::DockerRegistry;
use crate::support::runner::{Run, Step};
use crate::support::tools::{json, printed, program, tools};

const GZIP_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Builds with the builder that `builder: auto` chooses.
fn build(project: &Project, engine: &Engine) -> Step {
    engine.give(project.build().input("builder", "auto"))
}

/// Asserts that nothing of the run is left in the runner's temporary folder or in Docker.
#[track_caller]
fn leaves_no_image(run: &Run, engine: &Engine) {
    leaves_nothing(run);
    assert_eq!(engine.docker(&["image", "ls", "--all", "--quiet"]), "", "{}", run.log.raw);
}

/// Returns the stand-in base image as skopeo prints it.
fn busybox() -> Value {
    json(program("skopeo").arg("inspect").arg(format!("oci:{}/bases/busybox:1.37", tools().folder.display())))
}

#[test]
fn the_classic_store_exports_an_image() {
    let engine = Engine::start(ImageStore::Classic);
    let dockerfile = format!(
        "FROM {BUSYBOX}\nSHELL [\"/bin/sh\", \"-e\", \"-c\"]\nCOPY hello.txt /\n\
         RUN --network=none cat /hello.txt > /made; touch /dated\nHEALTHCHECK --interval=5s CMD true\n\
         ONBUILD RUN true\nSTOPSIGNAL SIGQUIT\nUSER nobody\n"
    );
    let digests = ["false", "true"].map(|no_cache| {
        // The files of each project have different times.
        let project = one(&dockerfile);
        let run = build(&project, &engine).input("no-cache", no_cache).run().exits(0);
        leaves_no_image(&run, &engine);
        let version = engine.docker(&["version", "--format", "{{.Server.Version}}"]);
        let chosen = format!(
            "(Docker {}): Docker's own BuildKit: the classic image store exports no OCI layout",
            version.trim()
        );
        for told in [&run.log.raw, &run.summary] {
            assert!(told.replace("&#39;", "'").contains(&chosen), "{told}");
        }
        assert!(run.log.raw.contains("1 image with buildx "), "{}", run.log.raw);
        let layout = project.built_layout();
        let (manifest, config) = (layout.raw("Api"), layout.config("Api"));
        assert_eq!(manifest["mediaType"], MANIFEST);
        let layers = manifest["layers"].as_array().unwrap();
        assert!(layers.iter().all(|layer| layer["mediaType"] == GZIP_LAYER), "{manifest}");
        assert_eq!(layers[0]["digest"], busybox()["Layers"][0], "the base image's own layer");
        assert_eq!(manifest["annotations"]["org.opencontainers.image.base.name"], BUSYBOX);
        assert_eq!(manifest["annotations"]["org.opencontainers.image.base.digest"], busybox()["Digest"]);
        let of = &config["config"];
        assert_eq!(of["Healthcheck"]["Test"], json!(["CMD-SHELL", "true"]));
        assert_eq!(of["Shell"], json!(["/bin/sh", "-e", "-c"]));
        assert_eq!(of["OnBuild"], json!(["RUN true"]));
        assert_eq!((&of["StopSignal"], &of["User"]), (&json!("SIGQUIT"), &json!("nobody")));
        assert_eq!(of["Labels"]["org.opencontainers.image.title"], "shop/api");
        assert_eq!(config["created"], "2023-11-14T22:13:20Z", "the commit's time");
        // Another program reads every layer and checks it against the configuration.
        let copied = project.folder().join("copied.tar");
        printed(
            program("skopeo")
                .args(["--insecure-policy", "copy"])
                .arg(format!("oci:{}:Api", project.layout().display()))
                .arg(format!("docker-archive:{}:a:b", copied.display())),
        );
        assert_eq!(layout.blobs().into_keys().collect::<BTreeSet<_>>(), layout.reachable());
        assert_eq!(layout.evidence("Api", STATEMENT).len(), 1, "our own statement");
        run.json("digests")["Api"].clone()
    });
    assert_eq!(digests[0], digests[1], "two builds of a commit");
}

#[test]
fn both_image_stores_yield_the_same_configuration() {
    let engines = [ImageStore::Classic, ImageStore::Containerd].map(Engine::start);
    let ran = format!(
        "FROM {BUSYBOX} AS made\nRUN --network=none echo 'a <b> & c' > /made\nFROM {BUSYBOX}\nARG A=1\nENV A=$A\n\
         COPY --from=made --chown=65534 /made /made\nWORKDIR /w\nRUN --network=none --mount=type=cache,target=/c true && mkdir x\n\
         HEALTHCHECK CMD [\"a\", \"&\"]\nEXPOSE 80\nVOLUME /v\nENTRYPOINT [\"/bin/sh\"]\n"
    );
    let copied = format!("FROM {BUSYBOX}\nCOPY hello.txt /\nCOPY --chmod=755 hello.txt /other\nLABEL a=\"<&>\"\n");
    for (dockerfile, same_layers) in [(ran.as_str(), false), (&copied, true), (SCRATCH, true)] {
        let project = one(dockerfile);
        let mut configs = engines.each_ref().map(|engine| {
            build(&project, engine).run().exits(0);
            project.built_layout().config("Api")
        });
        for config in &mut configs {
            // Some versions of BuildKit keep the base image's time here.
            config.as_object_mut().unwrap().remove("created");
            if !same_layers {
                let ids = config["rootfs"]["diff_ids"].as_array_mut().unwrap();
                *ids = vec![ids[0].clone(), json!(ids.len())];
            }
        }
        assert_eq!(configs[0], configs[1], "{dockerfile}");
    }
}

#[test]
fn platforms_are_built_one_at_a_time() {
    let engine = Engine::start(ImageStore::Classic);
    let project = Project::new(&template("Api: {imageName: shop/api}\nOther: {imageName: shop/other}"));
    project.write("Dockerfile", &format!("FROM scratch AS base\n{SCRATCH}"));
    project.write("hello.txt", "hello\n");
    project.commit();
    let run = build(&project, &engine).input("platforms", "linux/arm64,linux/amd64").run().exits(0);
    leaves_no_image(&run, &engine);
    let layout = project.built_layout();
    for name in ["Api", "Other"] {
        let index = layout.raw(name);
        assert_eq!(index["mediaType"], INDEX);
        let children = index["manifests"].as_array().unwrap();
        let architectures: Vec<&Value> = children.iter().map(|child| &child["platform"]["architecture"]).collect();
        assert_eq!(architectures, ["amd64", "arm64"]);
    }
    assert_eq!(layout.blobs().into_keys().collect::<BTreeSet<_>>(), layout.reachable());
}

#[test]
fn secrets_and_registry_base_images_are_used() {
    let (engine, registry) = (Engine::start(ImageStore::Classic), DockerRegistry::start());
    let source = format!("oci:{}/bases/busybox:1.37", tools().folder.display());
    let target = format!("docker://{}/mirror/busybox:1.37", registry.host());
    printed(program("skopeo").args(["--insecure-policy", "copy", "--dest-tls-verify=false", &source, &target]));
    let secret = "of the variable";
    let hash = oci::Digest::of(secret.as_bytes());
    let project = one(&format!(
        "FROM {BUSYBOX}\nRUN --network=none --mount=type=secret,id=token echo '{}  /run/secrets/token' | sha256sum -c\n\
         FROM base.example/library/busybox:1.37\nCOPY hello.txt /\n",
        hash.hex()
    ));
    for pull in ["false", "true"] {
        let step =
            build(&project, &engine).env("TOKEN", secret).inputs(&[("secrets", "token=env:TOKEN"), ("pull", pull)]);
        let run =
            step.input("base-images", &format!("base.example/library/={}/mirror/", registry.host())).run().exits(0);
        leaves_no_image(&run, &engine);
        assert!(!run.log.raw.contains(secret));
        let layout = project.built_layout();
        assert_eq!(layout.blobs_with(secret), [""; 0]);
        assert_eq!(layout.raw("Api")["annotations"]["org.opencontainers.image.base.digest"], busybox()["Digest"]);
    }
    // An image that Docker already has is used, and its digest is recorded.
    engine.docker(&["pull", "--quiet", &format!("{}/mirror/busybox:1.37", registry.host())]);
    let local = one(&format!("FROM {}/mirror/busybox:1.37\nCOPY hello.txt /\n", registry.host()));
    build(&local, &engine).run().exits(0);
    let annotations = &local.built_layout().raw("Api")["annotations"];
    assert_eq!(annotations["org.opencontainers.image.base.digest"], busybox()["Digest"]);
}

#[test]
fn failed_and_killed_runs_leave_no_images() {
    let engine = Engine::start(ImageStore::Classic);
    let project = one(&format!("FROM {BUSYBOX}\nRUN --network=none echo why; exit 3\n"));
    let run = build(&project, &engine).run().exits(1);
    leaves_no_image(&run, &engine);
    assert!(run.error().contains("image `Api` could not be built"), "{}", run.error());

    let marker = format!("38{:07}", std::process::id());
    project.write("Dockerfile", &format!("FROM {BUSYBOX}\nRUN --network=none sleep {marker}; sleep {marker}\n"));
    let running = build(&project, &engine).start();
    wait_for(|| !processes_with(&marker).is_empty());
    running.signal("TERM");
    let run = running.finish().exits(1);
    leaves_no_image(&run, &engine);
    wait_for(|| processes_with(&marker).is_empty());

    // At any moment: an image may be being exported, tagged or saved.
    project
        .write("Dockerfile", &format!("FROM {BUSYBOX}\nRUN --network=none head -c 30000000 /dev/urandom > /large\n"));
    for delay in [300, 700, 1000, 1300, 1600, 2000] {
        let running = build(&project, &engine).input("no-cache", "true").start();
        std::thread::sleep(Duration::from_millis(delay));
        running.signal("TERM");
        let run = running.finish();
        leaves_no_image(&run, &engine);
    }

    // Tags of a killed run are removed by a later run, but not those of a run that may still be active.
    let load = project.folder().join("base.tar");
    let source = format!("oci:{}/bases/busybox:1.37", tools().folder.display());
    let archive = format!("docker-archive:{}:localhost/image-lifecycle/build:1700000000-a-b", load.display());
    printed(program("skopeo").args(["--insecure-policy", "copy", &source, &archive]));
    engine.docker(&["load", "--quiet", "--input", load.to_str().unwrap()]);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let running = format!("localhost/image-lifecycle/base:{now}-a-b");
    engine.docker(&["tag", "localhost/image-lifecycle/build:1700000000-a-b", &running]);
    project.write("Dockerfile", SCRATCH);
    build(&project, &engine).run().exits(0);
    assert_eq!(engine.docker(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]).trim(), running);
}

#[test]
fn a_builder_is_created_if_docker_is_not_enough() {
    let engine = Engine::start(ImageStore::Classic);
    let project = one(&format!("FROM {BUSYBOX}\nRUN true\n"));
    let foreign = Project::new(&template("Api: {imageName: shop/api, platforms: [linux/s390x]}"));
    foreign.write("Dockerfile", "FROM scratch AS one\nCOPY hello.txt /\nRUN [\"/hello.txt\"]\n");
    foreign.write("hello.txt", "hello\n");
    foreign.commit();
    for (project, input, value, why) in [
        (&project, "cache", "to=local:cache", "`cache` names a cache to write, which Docker's own BuildKit cannot do"),
        (&project, "provenance", "mode=max", "`provenance: mode=max` requires BuildKit's own statement"),
        (
            &project,
            "allow",
            "security.insecure",
            "`allow` names security.insecure, which the Docker daemon does not grant",
        ),
        (
            &foreign,
            "builder",
            "auto",
            "linux/s390x, which Docker does not emulate here, and Dockerfile:3 runs a program",
        ),
        (&project, "builder", "buildx", "the current builder, `default` (driver docker), cannot export an OCI layout"),
    ] {
        let step = build(project, &engine).inputs(&[("buildkit-image", "127.0.0.1:1/buildkit"), (input, value)]);
        let run = step.run().exits(1);
        leaves_nothing(&run);
        let error = run.error();
        assert!(error.contains(why), "{error}");
        assert!(error.contains("created for this run from 127.0.0.1:1/buildkit"), "{error}");
        assert!(error.contains("cannot create a builder from 127.0.0.1:1/buildkit"), "{error}");
        assert!(error.contains("docker/setup-buildx-action"), "{error}");
        assert_eq!(run.output("verdict"), "fail");
        assert!(!engine.docker(&["buildx", "ls"]).contains("image-lifecycle-"));
        assert_eq!(engine.docker(&["ps", "--all", "--quiet"]), "");
        // A dry run creates nothing.
        let step = build(project, &engine).inputs(&[("dry-run", "true"), (input, value)]);
        let run = step.run().exits(0);
        assert!(run.log.raw.contains(why), "{}", run.log.raw);
    }
    // From a mirror or a layout: Docker gets as far as starting the image, which is no BuildKit.
    let bases = format!("127.0.0.1:1/=oci:{}/bases/", tools().folder.display());
    let step =
        build(&project, &engine).inputs(&[("builder", "buildx"), ("buildkit-image", "127.0.0.1:1/busybox:1.37")]);
    let run = step.input("base-images", &bases).run().exits(1);
    assert!(
        run.log.raw.contains("from 127.0.0.1:1/busybox:1.37, taken from localhost/image-lifecycle/buildkit:"),
        "{}",
        run.log.raw
    );
    assert_eq!(engine.docker(&["ps", "--all", "--quiet"]), "");
    leaves_no_image(&run, &engine);
    let mirror = ("base-images", "docker.io/moby/=127.0.0.1:2/hub/");
    let step = build(&project, &engine).inputs(&[("builder", "buildx"), ("buildkit-image", "moby/buildkit:x"), mirror]);
    let run = step.run().exits(1);
    assert!(run.log.raw.contains("from moby/buildkit:x, taken from 127.0.0.1:2/hub/buildkit:x"), "{}", run.log.raw);
}

#[test]
fn an_old_docker_is_not_enough() {
    let folder = tempfile::tempdir().unwrap();
    let answers = "case \"$*\" in\n'buildx version') echo github.com/docker/buildx v0.11.2 1;;\n\
                   'buildx inspect') printf 'Name: default\\nDriver: docker\\nPlatforms: linux/amd64\\n';;\n\
                   info*) echo '{\"ServerVersion\":\"24.0.9\",\"OSType\":\"linux\",\"Architecture\":\"x86_64\",\"DriverStatus\":[]}';;\n\
                   *) echo no such image >&2; exit 1;;\nesac";
    script(folder.path(), "docker", answers);
    let project = one(SCRATCH);
    let path = format!("{}:{}", folder.path().display(), path());
    let run = project.build().input("builder", "auto").env("PATH", path).run().exits(1);
    let why = "Docker is 24.0.9, and `docker save` writes an OCI layout only from 25.0 on: cannot create a builder from moby/buildkit:buildx-stable-1";
    assert!(run.error().contains(why), "{}", run.error());
    assert!(run.error().contains("no such image"), "{}", run.error());
}

#[test]
fn a_builder_is_chosen_by_name() {
    let engines = [ImageStore::Classic, ImageStore::Containerd].map(Engine::start);
    let project = one(SCRATCH);
    let of = |engine: &Engine, name: &str| build(&project, engine).input("builder", &format!("buildx:{name}")).run();
    let run = of(&engines[1], "default").exits(0);
    assert!(run.log.raw.contains("the input `builder` asks for `default` (driver docker)"), "{}", run.log.raw);
    let run = of(&engines[0], "default").exits(1);
    assert!(run.error().contains("it is Docker's own with the classic image store, which cannot export an OCI layout"));
    let run = of(&engines[1], "remote-1").exits(1);
    assert!(
        run.error()
            .contains("input `builder`: builder `remote-1` cannot be used: buildx knows no builder of this name"),
        "{}",
        run.error()
    );
    // A builder with a remote driver is named on every command line.
    engines[1].docker(&["buildx", "create", "--name", "remote-2", "--driver", "remote", "tcp://127.0.0.1:1"]);
    let run =
        build(&project, &engines[1]).inputs(&[("builder", "buildx:remote-2"), ("dry-run", "true")]).run().exits(0);
    assert!(run.log.raw.contains("docker buildx build --progress=plain --builder remote-2 "), "{}", run.log.raw);
    assert!(run.log.raw.contains("asks for `remote-2` (driver remote)"), "{}", run.log.raw);
    engines[1].docker(&["buildx", "rm", "--force", "remote-2"]);
}

#[test]
fn build_options_reach_the_builder() {
    let stores = [ImageStore::Classic, ImageStore::Containerd];
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let _agent = Agent::start(&socket);
    for store in stores {
        let engine = Engine::start(store);
        let project = one(&format!(
            "FROM {BUSYBOX} AS cached\nRUN cat /proc/sys/kernel/random/uuid > /now\nFROM scratch AS other\nFROM named\n\
             RUN grep -q '^10.1.2.3.*db' /etc/hosts && grep -q '^::7.*six' /etc/hosts\n\
             RUN test $(ulimit -n) = 77\n\
             RUN test \"$(df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2)\" = 3072\n\
             RUN --mount=type=ssh test -S \"$SSH_AUTH_SOCK\"\n\
             RUN test \"$(ls /sys/class/net)\" = lo\n\
             COPY --from=cached /now /now\nCOPY --from=docs page.txt /\n"
        ));
        project.write("docs/page.txt", "a page\n");
        let step = || {
            build(&project, &engine).env("SSH_AUTH_SOCK", &socket).inputs(&[
                ("ssh", "default"),
                ("network", "none"),
                ("add-hosts", "db:10.1.2.3\nsix=[::7]"),
                ("shm-size", "3m"),
                ("ulimit", "nofile=77:88"),
                ("allow", "network.host"),
                ("build-contexts", &format!("docs=docs\nnamed=docker-image://{BUSYBOX}")),
            ])
        };
        let run = step().run().exits(0);
        leaves_nothing(&run);
        let layout = project.built_layout();
        assert_eq!(layout.blobs_with("a page").len(), 1);
        let annotations = &layout.raw("Api")["annotations"];
        assert_eq!(annotations["org.opencontainers.image.base.name"], BUSYBOX, "what the name stands for");
        assert_eq!(annotations["org.opencontainers.image.base.digest"], busybox()["Digest"]);
        let digest = |run: Run| run.json("digests")["Api"].clone();
        let first = digest(run);
        assert_eq!(digest(step().run().exits(0)), first, "all of it cached");
        assert_ne!(digest(step().input("no-cache-filters", "cached").run().exits(0)), first, "that stage is not");
    }
}

#[test]
fn built_images_are_loaded_into_docker() {
    for store in [ImageStore::Classic, ImageStore::Containerd] {
        let engine = Engine::start(store);
        let project = one(&format!("FROM {BUSYBOX}\nCOPY hello.txt /\nCMD [\"cat\", \"/hello.txt\"]\n"));
        let run = build(&project, &engine).inputs(&[("load", "true"), ("version", "1.2.3")]).run().exits(0);
        leaves_nothing(&run);
        assert_eq!(run.json("loaded"), json!({"Api": "shop/api:1.2.3"}));
        assert_eq!(run.of_images("loaded"), ["shop/api:1.2.3"]);
        assert_eq!(engine.docker(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]).trim(), "shop/api:1.2.3");
        let printed = engine.docker(&["run", "--rm", "--network=none", "shop/api:1.2.3"]);
        assert_eq!(printed, "hello\n");
        // Also with buildah, and without a version.
        let run = engine.give(project.build()).input("load", "true").run().exits(0);
        assert_eq!(run.json("loaded"), json!({"Api": "shop/api:build"}));
        // An image that failed is not loaded.
        project.write("Dockerfile", &format!("FROM {BUSYBOX}\nRUN false\n"));
        let run = build(&project, &engine).inputs(&[("load", "true"), ("version", "1.2.4")]).run().exits(1);
        assert_eq!(run.json("loaded"), json!({}));
        assert!(!engine.docker(&["image", "ls"]).contains("1.2.4"));
        project.write("Dockerfile", SCRATCH);
        let run = build(&project, &engine).inputs(&[("load", "true"), ("platforms", "linux/arm64,linux/s390x")]).run();
        assert!(run.exits(2).error().contains(
            "input `load`: image `Api` is built for linux/arm64, linux/s390x, and Docker here runs linux/amd64"
        ));
    }
    let project = one(SCRATCH);
    let run = project.build().input("load", "true").env("DOCKER_HOST", "unix:///nonexistent").run().exits(2);
    assert!(run.error().contains("input `load`: Docker does not answer, so no image can be loaded into it"));
}

#[test]
fn images_with_a_shared_base_are_built_in_parallel() {
    let engine = Engine::start(ImageStore::Classic);
    let keys: Vec<String> = (0..8)
        .map(|number| format!("Api{number}: {{imageName: shop/api{number}, platforms: [linux/amd64]}}"))
        .collect();
    let project = Project::new(&template(&keys.join("\n")));
    project.write("Dockerfile", &format!("FROM {BUSYBOX}\nCOPY hello.txt /\n"));
    project.write("hello.txt", "hello\n");
    project.commit();
    let step = build(&project, &engine)
        .inputs(&[("concurrency", "8"), ("base-images", &base_images("base.example/library/"))]);
    let run = step.run().exits(0);
    leaves_no_image(&run, &engine);
    assert_eq!(run.json("digests").as_object().unwrap().len(), 8);
    let layout = project.built_layout();
    assert_eq!(layout.blobs().into_keys().collect::<BTreeSet<_>>(), layout.reachable());
}
