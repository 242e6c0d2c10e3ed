//! Both builders use the base images that the Dockerfile names.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::bases::base;
use crate::support::build::{BUSYBOX, STATEMENT, leaves_nothing, template};
use crate::support::engine::{Engine, ImageStore};
use crate::support::project::Project;
use crate::support::registry::DockerRegistry;
use crate::support::runner::{Run, Step};
use crate::support::tools::{printed, program};

/// A checkout with one image, for one platform.
fn project(dockerfile: &str, platform: &str) -> Project {
    let project = Project::new(&template(&format!("Api: {{imageName: shop/api, platforms: [{platform}]}}")));
    project.write("Dockerfile", dockerfile);
    project.write("hello.txt", "hello\n");
    project.commit();
    project
}

/// Returns a step for each builder.
fn both(project: &Project, engine: &Engine) -> [Step; 2] {
    [project.build(), engine.give(project.build().input("builder", "buildx"))]
}

/// Returns the dependencies in the action's own provenance, by name.
fn dependencies(project: &Project) -> Vec<(String, String)> {
    let statements = project.built_layout().evidence("Api", STATEMENT);
    let ours =
        statements.iter().find(|statement| statement["predicateType"] == "https://slsa.dev/provenance/v1").unwrap();
    let list = ours["predicate"]["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    list.iter()
        .skip(1)
        .map(|entry| (text(&entry["uri"]), format!("sha256:{}", text(&entry["digest"]["sha256"]))))
        .collect()
}

/// Returns the variable that distinguishes base images.
fn mark(project: &Project) -> String {
    let config = project.built_layout().config("Api");
    let variables = config["config"]["Env"].as_array().unwrap().iter().filter_map(Value::as_str);
    variables.filter_map(|variable| variable.strip_prefix("MARK=")).collect()
}

fn push(layout: &Path, name: &str, registry: &DockerRegistry, repository: &str) {
    let source = format!("oci:{}:{name}", layout.display());
    let target = format!("docker://{}/{repository}", registry.host());
    let mut copy = program("skopeo");
    printed(copy.args(["--insecure-policy", "copy", "--all", "--dest-tls-verify=false", &source, &target]));
}

/// Writes a configuration that allows a registry without TLS, and more lines.
fn configured(project: &Project, registry: &DockerRegistry, more: &str) -> std::path::PathBuf {
    let file = project.folder().join("registries.conf");
    fs::write(&file, format!("{more}\n[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.host())).unwrap();
    file
}

#[test]
fn base_images_are_substituted_in_every_spelling() {
    let engine = Engine::start(ImageStore::Containerd);
    let bases = tempfile::tempdir().unwrap();
    let folder = bases.path();
    let busybox = base(&folder.join("library/busybox"), "1.37", &[("amd64", "hub")]);
    let uv = base(&folder.join("uv"), "0.9", &[("amd64", "uv")]);
    let rules = format!("docker.io/library/=oci:{0}/library/\nghcr.io/x/=oci:{0}/", folder.display());
    for from in [
        "busybox:1.37",
        "docker.io/busybox:1.37",
        "index.docker.io/library/busybox:1.37",
        "\"busybox:1.37\"",
        "busy\\\nbox:1.37",
        "${B:-busybox}:1.37",
        "busybox@DIGEST",
    ] {
        let from = from.replace("DIGEST", &busybox[0]);
        let text = format!(
            "FROM {from} AS one\nRUN --mount=type=bind,from=ghcr.io/x/uv:0.9,source=/bin/busybox,target=/bin/other \
             /bin/other --help > /dev/null; echo it > /made\nCOPY --from=docker.io/library/busybox:1.37 /bin/busybox /copied\n"
        );
        for number in [0, 1] {
            let text = if number == 1 { text.replace("RUN ", "RUN --network=none ") } else { text.clone() };
            let project = project(&text, "linux/amd64");
            let step = both(&project, &engine).into_iter().nth(number).unwrap();
            let run = step.input("base-images", &rules).run().exits(0);
            leaves_nothing(&run);
            assert_eq!(mark(&project), "hub", "{from}");
            let used = dependencies(&project);
            assert!(used.contains(&("ghcr.io/x/uv:0.9".to_owned(), uv[0].clone())), "{used:?}");
            assert!(used.iter().filter(|(_, digest)| *digest == busybox[0]).count() >= 1, "{from}: {used:?}");
        }
    }
}

#[test]
fn a_build_argument_names_the_image_to_copy_from() {
    let text = format!(
        "ARG T={BUSYBOX}\nFROM scratch\nARG T\nCOPY --from=${{T}} /bin/busybox /x\nCOPY --from=\"$T\" /bin/busybox /y\n"
    );
    let project = project(&text, "linux/amd64");
    let run = project.build().run().exits(0);
    leaves_nothing(&run);
    assert_eq!(dependencies(&project).len(), 1);
}

#[test]
fn a_stage_for_the_build_platform_gets_its_base_image() {
    let engine = Engine::start(ImageStore::Containerd);
    let bases = tempfile::tempdir().unwrap();
    let digests = base(&bases.path().join("go"), "1", &[("amd64", "made-by-the-build-platform"), ("arm64", "target")]);
    let registry = DockerRegistry::start();
    push(&bases.path().join("go"), "1", &registry, "hub/go:1");
    for platform in ["$BUILDPLATFORM", "linux/amd64"] {
        let text = format!(
            "FROM --platform={platform} x.example/go:1 AS build\nRUN NETWORK echo \"$MARK\" > /mark\n\
             FROM x.example/go:1\nCOPY --from=build /mark /mark-of-$TARGETARCH\n"
        );
        for to in [format!("oci:{}/", bases.path().display()), format!("{}/hub/", registry.host())] {
            for number in [0, 1] {
                let project = project(&text.replace("NETWORK", ["", "--network=none"][number]), "linux/arm64");
                let configuration = configured(&project, &registry, "");
                let step = both(&project, &engine).into_iter().nth(number).unwrap();
                let step = step.env("CONTAINERS_REGISTRIES_CONF", &configuration);
                let run = step.input("base-images", &format!("x.example/={to}")).run().exits(0);
                let layout = project.built_layout();
                assert_eq!(layout.config("Api")["architecture"], "arm64");
                assert_eq!(mark(&project), "target");
                assert_eq!(layout.blobs_with("made-by-the-build-platform\n").len(), 1, "{}", run.log.raw);
                let used = dependencies(&project);
                assert_eq!(used, [("x.example/go:1".to_owned(), digests[2].clone())], "{to}");
            }
        }
    }
}

#[test]
fn a_base_image_for_another_platform_is_refused() {
    let engine = Engine::start(ImageStore::Containerd);
    let bases = tempfile::tempdir().unwrap();
    let layout = bases.path().join("base");
    base(&layout, "amd64", &[("amd64", "a")]);
    let both_platforms = base(&layout, "both", &[("amd64", "a"), ("arm64", "b")]);
    let registry = DockerRegistry::start();
    for name in ["amd64", "both"] {
        push(&layout, name, &registry, &format!("hub/base:{name}"));
    }
    let child = format!("x.example/base@{}", both_platforms[0]);
    for (text, place) in [
        ("# x\nFROM x.example/base:amd64\nCOPY hello.txt /\n".to_owned(), "Dockerfile:2:6"),
        (format!("FROM {child}\nCOPY hello.txt /\n"), "Dockerfile:1:6"),
        ("FROM scratch\nCOPY --from=x.example/base:amd64 /bin/busybox /\n".to_owned(), "Dockerfile:2:13"),
    ] {
        for to in [format!("oci:{}/", bases.path().display()), format!("{}/hub/", registry.host())] {
            let project = project(&text, "linux/arm64");
            let configuration = configured(&project, &registry, "");
            for step in both(&project, &engine) {
                let step = step.env("CONTAINERS_REGISTRIES_CONF", &configuration);
                let run = step.input("base-images", &format!("x.example/={to}")).run();
                assert!(matches!(run.code, Some(1 | 2)), "{to}: {}", run.log.raw);
                assert!(run.error().starts_with(place), "{}", run.error());
                assert!(run.error().contains("linux/amd64") || run.error().contains("linux/arm64"), "{}", run.error());
                assert!(["", "{}"].contains(&run.output("digests")));
            }
        }
    }
    let of_stage =
        project("FROM --platform=linux/amd64 x.example/base:both AS a\nFROM a\nCOPY hello.txt /\n", "linux/arm64");
    let run = of_stage.build().input("base-images", &format!("x.example/=oci:{}/", bases.path().display())).run();
    insta::assert_snapshot!(run.exits(2).error(), @"Dockerfile:1:29: the last stage has `--platform=linux/amd64`, but the image is built for linux/arm64 (hint: copy its files into a stage without `--platform=`)");
    // A platform in the Dockerfile itself is intended.
    let project = project(
        "FROM --platform=linux/amd64 x.example/base:amd64 AS a\nFROM scratch\nCOPY --from=a /bin/busybox /\n",
        "linux/arm64",
    );
    project.build().input("base-images", &format!("x.example/=oci:{}/", bases.path().display())).run().exits(0);
}

#[test]
fn the_original_registry_is_not_contacted() {
    let bases = tempfile::tempdir().unwrap();
    let registry = DockerRegistry::start();
    base(&bases.path().join("other"), "1", &[("amd64", "original")]);
    let digests = base(&bases.path().join("x/app"), "1", &[("amd64", "substitute")]);
    push(&bases.path().join("other"), "1", &registry, "x/app:1");
    let engine = Engine::start(ImageStore::Containerd);
    let project = project(&format!("FROM {}/x/app:1\nCOPY hello.txt /\n", registry.host()), "linux/amd64");
    let configuration = configured(&project, &registry, "");
    for step in both(&project, &engine) {
        let step = step.env("CONTAINERS_REGISTRIES_CONF", &configuration).input("pull", "true");
        step.input("base-images", &format!("{}/=oci:{}/", registry.host(), bases.path().display())).run().exits(0);
        assert_eq!(mark(&project), "substitute");
        assert_eq!(dependencies(&project)[0].1, digests[0]);
    }
}

#[test]
fn short_names_resolve_to_docker_hub() {
    let bases = tempfile::tempdir().unwrap();
    let (hub, other) = (DockerRegistry::start(), DockerRegistry::start());
    base(&bases.path().join("hub"), "1", &[("amd64", "hub")]);
    base(&bases.path().join("other"), "1", &[("amd64", "other")]);
    push(&bases.path().join("hub"), "1", &hub, "someorg/app:1");
    push(&bases.path().join("other"), "1", &other, "someorg/app:1");
    let project = project("FROM someorg/app:1\nCOPY hello.txt /\n", "linux/amd64");
    let more = format!(
        "unqualified-search-registries = [\"{1}\", \"docker.io\"]\nshort-name-mode = \"permissive\"\n\
         [[registry]]\nprefix = \"docker.io\"\nlocation = \"{0}\"\ninsecure = true\n[aliases]\n\"someorg/app\" = \"{1}/someorg/app\"\n\
         [[registry]]\nlocation = \"{1}\"\ninsecure = true\n",
        hub.host(),
        other.host()
    );
    let configuration = configured(&project, &hub, &more);
    project.build().env("CONTAINERS_REGISTRIES_CONF", &configuration).run().exits(0);
    assert_eq!(mark(&project), "hub");
}

/// Eight images with one base image are built in parallel, and each gets the base image.
#[test]
fn images_with_a_shared_base_are_built_in_parallel() {
    let bases = tempfile::tempdir().unwrap();
    base(&bases.path().join("base"), "1", &[("amd64", "a")]);
    let mapping: String =
        (0..8).map(|n| format!("I{n}: {{imageName: shop/i{n}, platforms: [linux/amd64]}}\n")).collect();
    let project = Project::new(&template(&mapping));
    project
        .write("Dockerfile", "FROM x.example/base:1\nCOPY hello.txt /\nCOPY --from=x.example/base:1 /bin/busybox /b\n");
    project.write("hello.txt", "hello\n");
    let step = || -> Run {
        let step = project.build().input("concurrency", "8");
        step.input("base-images", &format!("x.example/=oci:{}/", bases.path().display())).run()
    };
    for _ in 0..2 {
        let run = step().exits(0);
        leaves_nothing(&run);
        assert_eq!(run.of_images("status"), ["built"; 8]);
    }
}

#[test]
fn base_images_with_the_same_files_are_distinguished() {
    // With the same layers and history, buildah's cache would confuse them.
    let bases = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        base(&bases.path().join(name), "1", &[("amd64", name)]);
    }
    let project = project(
        "FROM x.example/a:1 AS a\nCOPY hello.txt /\nFROM x.example/b:1\nCOPY hello.txt /\nCOPY --from=a /hello.txt /other\n",
        "linux/amd64",
    );
    project.build().input("base-images", &format!("x.example/=oci:{}/", bases.path().display())).run().exits(0);
    assert_eq!(mark(&project), "b");
}
