//! Only what changed is built, and the rest gets the new version's name from the release that it is taken from.

use std::process::Command;

use crate::support::build::{SCRATCH, leaves_nothing, template};
use crate::support::project::Project;
use crate::support::runner::{Run, Step};
use crate::support::tools::{json, printed, program};

/// Two images, released as 1.0.0 into a store on disk.
fn released() -> (Project, tempfile::TempDir) {
    let store = tempfile::tempdir().unwrap();
    let project = Project::new(&template(
        "Api: {imageName: shop/api, context: api, platforms: [linux/amd64]}
         Web: {imageName: shop/web, context: web, platforms: [linux/amd64]}",
    ));
    for image in ["api", "web"] {
        project.write(&format!("{image}/Dockerfile"), SCRATCH);
        project.write(&format!("{image}/hello.txt"), image);
        project.write(&format!("{image}/.dockerignore"), "*.md\n");
    }
    project.commit();
    let git = ["-C", project.folder().to_str().unwrap(), "tag", "v1.0.0"];
    printed(Command::new("git").args(git).env_clear().env("PATH", "/usr/bin:/bin"));
    in_store(project.build(), &store).run().exits(0);
    in_store(project.publish(), &store).run().exits(0);
    (project, store)
}

fn in_store(step: Step, store: &tempfile::TempDir) -> Step {
    step.input("registry", &format!("oci:{}", store.path().display()))
}

fn build(project: &Project, store: &tempfile::TempDir) -> Run {
    let run = in_store(project.build(), store).input("since", "1.0.0").run().exits(0);
    leaves_nothing(&run);
    run
}

fn digest(store: &tempfile::TempDir, repository: &str, tag: &str) -> serde_json::Value {
    let image = format!("oci:{}/{repository}:{tag}", store.path().display());
    json(program("skopeo").args(["inspect", &image]))["Digest"].clone()
}

fn names(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn what_has_not_changed_is_taken_from_its_release() {
    let (project, store) = released();
    project.write("web/hello.txt", "another");
    project.write("api/notes.md", "what .dockerignore leaves out");
    project.write("README.md", "what is in no context");
    let dry = in_store(project.build(), &store).inputs(&[("since", "1.0.0"), ("dry-run", "true")]).run().exits(0);
    assert_eq!(dry.of_images("status"), ["reused", "planned"]);
    let planned = dry.summary.lines().find(|line| line.starts_with("| Web |")).unwrap();
    assert!(planned.ends_with("| planned |  |  |") && !planned.contains("| 0"), "{planned}");
    let run = build(&project, &store);
    assert_eq!(run.of_images("status"), ["reused", "built"]);
    let step = in_store(project.publish(), &store).input("version", "1.1.0");
    assert_eq!(step.run().exits(0).of_images("status"), ["created", "created"]);
    assert_eq!(digest(&store, "shop/api", "dev-1.1.0"), digest(&store, "shop/api", "dev-1.0.0"));
    assert_ne!(digest(&store, "shop/web", "dev-1.1.0"), digest(&store, "shop/web", "dev-1.0.0"));
}

#[test]
fn a_new_file_and_another_entry_in_the_mapping_are_changes() {
    let (project, store) = released();
    project.write("api/new.txt", "not in git yet");
    let changed = template(
        "Api: {imageName: shop/api, context: api, platforms: [linux/amd64]}
         Web: {imageName: shop/web, context: web, platforms: [linux/amd64], buildArgs: [A=1]}",
    );
    project.write("template.yaml", &changed);
    assert_eq!(build(&project, &store).of_images("status"), ["built", "built"]);
}

#[test]
fn a_tag_that_looks_like_an_option_is_a_tag() {
    let (project, store) = released();
    let tag = "--output=written-1.0.0";
    let git = ["-C", project.folder().to_str().unwrap(), "update-ref", &format!("refs/tags/{tag}"), "HEAD"];
    printed(Command::new("git").args(git).env_clear().env("PATH", "/usr/bin:/bin"));
    let run = in_store(project.build(), &store).input("since", tag).run().exits(0);
    assert_eq!(run.of_images("status"), ["reused", "reused"]);
    let written = |name: &str| name.starts_with("written-1.0.0");
    assert!(!names(project.folder()).iter().any(|name| written(name)));
}

#[test]
fn a_release_that_is_not_there_is_built_and_a_tag_that_is_not_there_is_named() {
    let (project, _) = released();
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(build(&project, &empty).of_images("status"), ["built", "built"]);
    let run = in_store(project.build(), &empty).input("since", "2.0.0").run().exits(2);
    assert!(run.error().contains("there is no git tag `2.0.0` or `v2.0.0`"), "{}", run.error());
    assert!(run.error().contains("fetch-depth: 0"), "{}", run.error());
}

#[test]
fn platforms_that_were_built_in_jobs_of_their_own_become_one_index() {
    let store = tempfile::tempdir().unwrap();
    let project = Project::new(&template("Api: {imageName: shop/api}"));
    project.write("Dockerfile", SCRATCH);
    project.write("hello.txt", "hello\n");
    project.commit();
    let layouts = ["linux/amd64", "linux/arm64"].map(|platform| {
        let layout = store.path().join(platform.replace('/', "-"));
        let step = project.build().input("platforms", platform).input("layout", layout.to_str().unwrap());
        step.run().exits(0);
        layout.display().to_string()
    });
    let step = in_store(project.publish(), &store).input("layout", &layouts.join("\n"));
    let run = step.run().exits(0);
    let image = format!("oci:{}/shop/api:dev-1.0.0", store.path().display());
    let index = json(program("skopeo").args(["inspect", "--raw", &image]));
    let platforms: Vec<_> =
        index["manifests"].as_array().unwrap().iter().map(|m| m["platform"]["architecture"].clone()).collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    assert_eq!(run.of_images("status"), ["created"]);
    let again = in_store(project.publish(), &store).input("layout", &layouts.join("\n")).run().exits(0);
    assert_eq!(again.of_images("status"), ["unchanged"]);
}
