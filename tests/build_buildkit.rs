//! Builds with BuildKit: the same results as with buildah, and BuildKit's attestations as referrers.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::support::build::{
    BUSYBOX, INDEX, LINT, MANIFEST, SCRATCH, STATEMENT, base_images, leaves_nothing, one, path, processes_with, script,
    template, wait_for,
};
use crate::support::engine::{Engine, ImageStore};
use crate::support::project::Project;
use crate::support::registry::DockerRegistry;
use crate::support::runner::Step;
use crate::support::tools::{json, printed, program, tools};

const BUILDKIT_PROVENANCE: &str = "https://slsa.dev/provenance/v0.2";
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// Builds with the engine's builder.
fn build(project: &Project, engine: &Engine) -> Step {
    engine.give(project.build().input("builder", "auto"))
}

/// Returns the digest of the stand-in base image.
fn busybox() -> Value {
    let layout = format!("oci:{}/bases/busybox:1.37", tools().folder.display());
    json(program("skopeo").args(["inspect", &layout]))["Digest"].clone()
}

fn predicates(statements: &[Value]) -> BTreeSet<&str> {
    statements.iter().map(|statement| statement["predicateType"].as_str().unwrap()).collect()
}

#[test]
fn attestations_become_referrers() {
    let engine = Engine::start(ImageStore::Containerd);
    let dockerfile = format!("FROM {BUSYBOX}\nCOPY hello.txt /\nRUN --network=none cat /hello.txt > /made\n");
    let digests = [("auto", "false"), ("buildx", "true")].map(|(builder, no_cache)| {
        let project = one(&dockerfile);
        let step = build(&project, &engine).inputs(&[("builder", builder), ("no-cache", no_cache), ("lint", "error")]);
        let run = step.run().exits(0);
        leaves_nothing(&run);
        assert!(run.log.raw.contains("1 image with buildx "), "{}", run.log.raw);

        let layout = project.built_layout();
        let manifest = layout.raw("Api");
        assert_eq!(manifest["mediaType"], MANIFEST);
        assert_eq!(manifest["annotations"]["org.opencontainers.image.base.name"], BUSYBOX);
        assert_eq!(manifest["annotations"]["org.opencontainers.image.base.digest"], busybox());
        let labels = &layout.inspect("Api")["Labels"];
        assert_eq!(labels["org.opencontainers.image.title"], "shop/api");
        assert_eq!(layout.names(), ["Api"]);
        assert_eq!(layout.referrers("Api"), [LINT, STATEMENT, STATEMENT].map(str::to_owned));
        assert_eq!(layout.blobs_with("attestation-manifest"), [""; 0]);
        assert_eq!(layout.blobs().into_keys().collect::<BTreeSet<_>>(), layout.reachable());

        let statements = layout.evidence("Api", STATEMENT);
        assert_eq!(predicates(&statements), BTreeSet::from([BUILDKIT_PROVENANCE, PROVENANCE]));
        let digest = run.json("digests")["Api"].as_str().unwrap().to_owned();
        for statement in &statements {
            assert_eq!(statement["subject"][0]["digest"]["sha256"], digest.trim_start_matches("sha256:"));
        }
        digest
    });
    assert_eq!(digests[0], digests[1], "two builds of a commit, in folders with files of other ages");
}

#[test]
fn each_platform_has_its_provenance() {
    let engine = Engine::start(ImageStore::Containerd);
    let project = Project::new(&template("Api: {imageName: shop/api}"));
    project.write("Dockerfile", SCRATCH);
    project.write("hello.txt", "hello\n");
    project.commit();
    let run = build(&project, &engine).input("platforms", "linux/arm64,linux/amd64").run().exits(0);
    let layout = project.built_layout();
    let index = layout.raw("Api");
    assert_eq!(index["mediaType"], INDEX);
    let children = index["manifests"].as_array().unwrap();
    let architectures: Vec<&Value> = children.iter().map(|child| &child["platform"]["architecture"]).collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
    assert_eq!(predicates(&layout.evidence("Api", STATEMENT)), BTreeSet::from([PROVENANCE]));
    for child in children {
        let digest = child["digest"].as_str().unwrap();
        let statements = layout.evidence(digest, STATEMENT);
        assert_eq!(predicates(&statements), BTreeSet::from([BUILDKIT_PROVENANCE]));
        assert_eq!(statements[0]["subject"][0]["digest"]["sha256"], digest.trim_start_matches("sha256:"));
        assert_eq!(statements[0]["subject"][0]["name"], "shop/api");
        assert!(child["annotations"].get("org.opencontainers.image.base.name").is_none());
    }
    assert_eq!(run.json("images")[0]["mediaType"], INDEX);
    assert_eq!(layout.blobs().into_keys().collect::<BTreeSet<_>>(), layout.reachable());

    // Without provenance, the image has no referrers.
    let run = build(&project, &engine).inputs(&[("platforms", "linux/amd64"), ("provenance", "false")]).run().exits(0);
    assert_eq!(layout.referrers("Api"), [""; 0]);
    assert_eq!(layout.inspect("Api")["Digest"], run.json("digests")["Api"]);
}

#[test]
fn secrets_and_registry_base_images_are_used() {
    let (engine, registry) = (Engine::start(ImageStore::Containerd), DockerRegistry::start());
    let source = format!("oci:{}/bases/busybox:1.37", tools().folder.display());
    let target = format!("docker://{}/mirror/busybox:1.37", registry.host());
    printed(program("skopeo").args(["--insecure-policy", "copy", "--dest-tls-verify=false", &source, &target]));
    let secret = "of the variable";
    let hash = oci::Digest::of(secret.as_bytes());
    let project = one(&format!(
        "FROM {BUSYBOX}\nRUN --network=none --mount=type=secret,id=token echo '{}  /run/secrets/token' | sha256sum -c && env > /env\n",
        hash.hex()
    ));
    let mirror = format!("base.example/library/={}/mirror/", registry.host());
    let both = |step: Step| {
        let step = step.env("TOKEN", secret).inputs(&[("secrets", "token=env:TOKEN"), ("base-images", &mirror)]);
        let run = step.run().exits(0);
        leaves_nothing(&run);
        assert!(!run.log.raw.contains(secret));
        let layout = project.built_layout();
        assert_eq!(layout.blobs_with(secret), [""; 0]);
        assert_eq!(layout.raw("Api")["annotations"]["org.opencontainers.image.base.name"], BUSYBOX);
        assert_eq!(layout.raw("Api")["annotations"]["org.opencontainers.image.base.digest"], busybox());
    };
    both(build(&project, &engine));
    // buildah refuses plain HTTP unless it is configured.
    let configuration = project.folder().join("registries.conf");
    fs::write(&configuration, format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.host())).unwrap();
    project.write(
        "Dockerfile",
        &fs::read_to_string(project.folder().join("Dockerfile")).unwrap().replace("--network=none ", ""),
    );
    both(project.build().env("CONTAINERS_REGISTRIES_CONF", &configuration));
}

#[test]
fn base_images_may_be_pinned_to_a_digest() {
    let (engine, registry) = (Engine::start(ImageStore::Containerd), DockerRegistry::start());
    let bases = tools().folder.join("bases/busybox");
    let target = format!("docker://{}/mirror/busybox:other", registry.host());
    let source = format!("oci:{}:1.37", bases.display());
    printed(program("skopeo").args(["--insecure-policy", "copy", "--dest-tls-verify=false", &source, &target]));
    let pinned = format!("{BUSYBOX}@{}", busybox().as_str().unwrap());
    let unnamed = pinned.replace(":1.37@", "@");
    let project = one(&format!(
        "ARG VERSION=1.37\nFROM {} AS made\nCOPY hello.txt /\nFROM {unnamed} AS next\nCOPY --from=made /hello.txt /\n\
         COPY --from={pinned} /bin/busybox /copied\nFROM next\n",
        pinned.replace("1.37", "$VERSION"),
    ));
    fs::create_dir(project.folder().join("_all")).unwrap();
    printed(
        program("skopeo")
            .args(["--insecure-policy", "copy", &source])
            .arg(format!("oci:{}:busybox-1.37", project.folder().join("_all").display())),
    );
    let configuration = project.folder().join("registries.conf");
    fs::write(&configuration, format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.host())).unwrap();
    for from in [
        format!("base.example/library/={}/mirror/", registry.host()),
        base_images("base.example/library/"),
        "base.example/library/busybox:=oci:_all:busybox-\nbase.example/library/busybox@=oci:_all@".to_owned(),
        format!("{pinned}={0}/mirror/busybox:other\n{unnamed}={0}/mirror/busybox:other", registry.host()),
    ] {
        for step in [build(&project, &engine), project.build().env("CONTAINERS_REGISTRIES_CONF", &configuration)] {
            let run = step.input("base-images", &from).run().exits(0);
            leaves_nothing(&run);
            let layout = project.built_layout();
            let annotations = &layout.raw("Api")["annotations"];
            assert_eq!(annotations["org.opencontainers.image.base.name"], unnamed, "{from}");
            assert_eq!(annotations["org.opencontainers.image.base.digest"], busybox(), "{from}");
            let statements = layout.evidence("Api", STATEMENT);
            let ours = statements.iter().find(|statement| statement["predicateType"] == PROVENANCE).unwrap();
            assert!(ours.to_string().contains(&pinned), "{from}: {ours}");
        }
    }
}

#[test]
fn caches_are_written_and_used() {
    let (engine, registry) = (Engine::start(ImageStore::Containerd), DockerRegistry::start());
    let project = one(&format!("FROM {BUSYBOX}\nRUN --network=none echo it 'is run'\n"));
    for cache in ["local:cache".to_owned(), format!("registry:{}/cache:api", registry.host())] {
        let run = build(&project, &engine).input("cache", &cache).input("no-cache", "true").run().exits(0);
        assert!(run.log.raw.contains("it is run"), "{}", run.log.raw);
        engine.docker(&["builder", "prune", "--all", "--force"]);
        let run = build(&project, &engine).input("cache", &cache).run().exits(0);
        leaves_nothing(&run);
        assert!(!run.log.raw.contains("it is run"), "{}", run.log.raw);
    }
    assert!(project.folder().join("cache/Api/index.json").is_file(), "a folder of the project");
    let of_registry = format!("docker://{}/cache:api", registry.host());
    let raw = json(program("skopeo").args(["inspect", "--raw", "--tls-verify=false", &of_registry]));
    assert_eq!(raw["mediaType"], MANIFEST, "an image manifest, which is all that ECR takes");
}

/// BuildKit replaces a cache as a whole: images that write the same one would leave that of the last of them.
#[test]
fn each_image_of_a_run_has_its_own_cache() {
    let (engine, registry) = (Engine::start(ImageStore::Containerd), DockerRegistry::start());
    let project = Project::new(&template(
        "Api: {imageName: shop/api, platforms: [linux/amd64]}\nWeb: {imageName: shop/web, platforms: [linux/amd64], dockerfile: Web}",
    ));
    for (file, name) in [("Dockerfile", "api"), ("Web", "web")] {
        project.write(file, &format!("FROM {BUSYBOX}\nRUN --network=none echo {name} 'is run'\n"));
    }
    project.commit();
    let cached = |cache: &str| build(&project, &engine).input("cache", cache);
    let shared = format!("registry:{}/cache:main", registry.host());
    let run = cached(&shared).run().exits(2);
    assert_eq!(
        run.error(),
        format!(
            "input `cache`: `{shared}` is one cache for 2 images, and each of them would overwrite it \
             (hint: give each image its own: `{shared}-{{image}}`)"
        )
    );
    let service = [("ACTIONS_RUNTIME_TOKEN", "t"), ("ACTIONS_RESULTS_URL", "http://127.0.0.1:1/")];
    let of_github = service.iter().fold(cached("to=gha,scope=main"), |step, (name, value)| step.env(name, value));
    let run = of_github.run().exits(2);
    assert!(run.error().ends_with("(hint: give each image its own: `gha,scope=main-{image}`)"), "{}", run.error());
    let run = cached(&format!("registry:{}/cache", registry.host())).run().exits(2);
    assert!(run.error().ends_with("/cache:{image}`)"), "{}", run.error());
    // One image may use it, and several may read it.
    cached(&shared).input("images", "Api").run().exits(0);
    cached(&format!("from={shared}")).run().exits(0);

    let own = format!("{shared}-{{image}}");
    let ran = |log: &str| ["api is run", "web is run"].map(|line| log.contains(line));
    let run = cached(&own).input("no-cache", "true").run().exits(0);
    assert_eq!(ran(&run.log.raw), [true, true], "{}", run.log.raw);
    engine.docker(&["builder", "prune", "--all", "--force"]);
    let run = cached(&own).run().exits(0);
    assert_eq!(ran(&run.log.raw), [false, false], "{}", run.log.raw);
    let tags = json(program("skopeo").args([
        "list-tags",
        "--tls-verify=false",
        &format!("docker://{}/cache", registry.host()),
    ]));
    let tags: BTreeSet<&str> = tags["Tags"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(tags, BTreeSet::from(["main", "main-api", "main-web"]));
}

#[test]
fn a_missing_builder_is_an_error() {
    let project = one(SCRATCH);
    let empty = tempfile::tempdir().unwrap();
    for (builder, message) in [
        ("auto", "no builder: there is no Docker with buildx, and there is no buildah"),
        ("buildx", "`docker buildx` cannot be used: there is no Docker with buildx"),
        ("buildah", "`buildah` is not on PATH"),
    ] {
        let run = project.build().input("builder", builder).env("PATH", empty.path()).run().exits(1);
        leaves_nothing(&run);
        assert!(run.error().contains(message), "{}", run.error());
        assert!(run.error().contains("docker/setup-buildx-action"), "{}", run.error());
        assert!(run.error().contains("apt-get install --yes buildah"), "{}", run.error());
        assert_eq!(run.output("verdict"), "fail");
    }
    // A `docker` with useless output is no builder either.
    script(empty.path(), "docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1");
    let path = format!("{}:{}", empty.path().display(), path());
    let run = project.build().input("builder", "auto").env("PATH", path).run().exits(0);
    assert!(run.log.raw.contains("1 image with buildah "), "{}", run.log.raw);
}

#[test]
fn cancelling_also_ends_the_build_in_the_engine() {
    let engine = Engine::start(ImageStore::Containerd);
    let marker = format!("37{:07}", std::process::id());
    let project = one(&format!("FROM {BUSYBOX}\nRUN --network=none sleep {marker}; sleep {marker}\n"));
    let running = build(&project, &engine).input("base-images", &base_images("base.example/library/")).start();
    wait_for(|| !processes_with(&marker).is_empty());
    running.signal("TERM");
    let run = running.finish().exits(1);
    leaves_nothing(&run);
    assert_eq!(run.of_images("status"), ["failed"]);
    wait_for(|| processes_with(&marker).is_empty());
}
