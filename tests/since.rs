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
    release(&project, project.build(), &store);
    (project, store)
}

/// One image, in a folder of its own.
const API: &str = "Api: {imageName: shop/api, context: api, platforms: [linux/amd64]}";

/// The same image for two platforms.
const BOTH: &str = "Api: {imageName: shop/api, context: api, platforms: [linux/amd64, linux/arm64]}";

/// Releases what is in the checkout as 1.0.0.
fn release(project: &Project, build: Step, store: &tempfile::TempDir) {
    project.commit();
    let git = ["-C", project.folder().to_str().unwrap(), "tag", "v1.0.0"];
    printed(Command::new("git").args(git).env_clear().env("PATH", "/usr/bin:/bin"));
    in_store(build, store).run().exits(0);
    in_store(project.publish(), store).run().exits(0);
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
    assert_eq!(planned, "| Web | linux/amd64 |  | planned |");
    let run = build(&project, &store);
    assert_eq!(run.of_images("status"), ["reused", "built"]);
    let step = in_store(project.publish(), &store).input("version", "1.1.0");
    assert_eq!(step.run().exits(0).of_images("status"), ["created", "created"]);
    assert_eq!(digest(&store, "shop/api", "dev-1.1.0"), digest(&store, "shop/api", "dev-1.0.0"));
    assert_ne!(digest(&store, "shop/web", "dev-1.1.0"), digest(&store, "shop/web", "dev-1.0.0"));
}

/// The compressed size of an image in the layout for one platform, in bytes.
fn size(project: &Project, image: &str, architecture: &str) -> u64 {
    let layout = project.built_layout();
    let root = layout.raw(image);
    let manifest = match root["manifests"].as_array() {
        Some(entries) => {
            let entry = entries.iter().find(|entry| entry["platform"]["architecture"] == architecture).unwrap();
            serde_json::from_slice(&layout.blob(entry["digest"].as_str().unwrap())).unwrap()
        }
        None => root,
    };
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().chain([&manifest["config"]]).map(|blob| blob["size"].as_u64().unwrap()).sum()
}

/// Returns the cell of the column `Size` in the row of an image.
fn size_cell(run: &Run, image: &str) -> String {
    let row = |first: &str| {
        let row = run.summary.lines().find(|line| line.starts_with(&format!("| {first} |"))).unwrap();
        row.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    };
    let column = row("Image").iter().position(|name| name == "Size").unwrap();
    row(image).swap_remove(column)
}

#[test]
fn the_size_of_what_is_built_is_compared_with_the_release() {
    let format = |bytes: u64| humansize::format_size(bytes, humansize::BINARY);
    let (project, store) = released();
    let before = size(&project, "Web", "amd64");
    // It does not get smaller when it is compressed.
    let digests = (0..200).map(|number: u32| oci::Digest::of(&number.to_le_bytes()).to_string());
    project.write("web/hello.txt", &digests.collect::<String>());
    let run = build(&project, &store);
    let now = run.json("images")[1]["size"].as_u64().unwrap();
    assert!(now > before + 5000, "{now} {before}");
    let change = format!("+{}", format(now - before));
    assert_eq!(size_cell(&run, "Web"), format!("{} ({change})", format(now)));
    let reference = format!("oci:{}/shop/web:dev-1.0.0", store.path().display());
    let fact = format!("- {}; compared with <code>{reference}</code>: {change}\n", format(now));
    assert!(run.summary.contains(&fact), "{}", run.summary);
    // The reused image is the release.
    assert_eq!(run.summary.matches("compared with").count(), 1, "{}", run.summary);

    // A platform that the release lacks cannot be compared, and neither can a release that is not there.
    let step = || in_store(project.build(), &store).inputs(&[("since", "1.0.0"), ("images", "Web")]);
    let more = step().input("platforms", "linux/amd64,linux/arm64").run().exits(0);
    let missing = step().input("environment", "prod").run().exits(0);
    for run in [more, missing] {
        assert_eq!(size_cell(&run, "Web"), format(run.json("images")[0]["size"].as_u64().unwrap()));
        assert!(!run.summary.contains("compared with"), "{}", run.summary);
    }
}

/// A job that builds one of the platforms compares it with the same platform of the release.
#[test]
fn the_size_of_one_platform_is_compared_with_that_platform() {
    let (project, store) = (Project::new(&template(BOTH)), tempfile::tempdir().unwrap());
    project.write("api/Dockerfile", SCRATCH);
    project.write("api/hello.txt", &"hello\n".repeat(1000));
    release(&project, project.build(), &store);
    let before = size(&project, "Api", "arm64");
    project.write("api/hello.txt", "");
    let step = in_store(project.build(), &store).inputs(&[("since", "1.0.0"), ("platforms", "linux/arm64")]);
    let run = step.run().exits(0);
    let now = run.json("images")[0]["size"].as_u64().unwrap();
    let less = humansize::format_size(before - now, humansize::BINARY);
    assert!(size_cell(&run, "Api").ends_with(&format!(" (−{less})")), "{} {less}", size_cell(&run, "Api"));
}

/// The paths of a nested template's mapping are relative to that template.
#[test]
fn an_image_of_a_nested_template_is_taken_from_its_release() {
    let store = tempfile::tempdir().unwrap();
    let nesting = "Resources:\n  Shop:\n    Type: AWS::CloudFormation::Stack\n    Properties: {TemplateURL: shop/template.yaml}\n";
    let project = Project::new(&format!("{}{nesting}", template(API)));
    project
        .write("shop/template.yaml", &template("Web: {imageName: shop/web, context: web, platforms: [linux/amd64]}"));
    for folder in ["api", "shop/web"] {
        project.write(&format!("{folder}/Dockerfile"), SCRATCH);
        project.write(&format!("{folder}/hello.txt"), folder);
    }
    release(&project, project.build(), &store);
    let run = build(&project, &store);
    assert_eq!(run.of_images("status"), ["reused", "reused"], "{}", run.log.raw);
    project.write("shop/web/hello.txt", "new");
    assert_eq!(build(&project, &store).of_images("status"), ["reused", "built"]);
    project.write("shop/web/hello.txt", "shop/web");
    let elsewhere = template("Web: {imageName: shop/web, context: ./../shop/web, platforms: [linux/amd64]}");
    project.write("shop/template.yaml", &elsewhere);
    assert_eq!(build(&project, &store).of_images("status"), ["reused", "reused"]);
}

/// What was decided, and why, stands in the summary.
#[test]
fn the_latest_release_is_that_of_the_environments_records() {
    let (project, store) = released();
    let latest = |environment: &str| {
        let step = in_store(project.build(), &store).input("since", "latest").input("environment", environment);
        step.run().exits(0)
    };
    let run = latest("dev");
    assert_eq!(run.of_images("status"), ["reused", "reused"], "{}", run.log.raw);
    assert!(run.summary.contains("unchanged since v1.0.0, so"), "{}", run.summary);
    // Another environment has held nothing.
    let run = latest("prod");
    assert_eq!(run.of_images("status"), ["built", "built"], "{}", run.log.raw);
    assert!(run.summary.contains("has no record of a version in prod"), "{}", run.summary);
    // A newer release of one of the images, whose tag has a prefix.
    project.write("api/hello.txt", "second");
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-C", project.folder().to_str().unwrap(), "-c", "user.name=t", "-c", "user.email=t@example.com"]);
        printed(git.args(arguments).env_clear().env("PATH", "/usr/bin:/bin"));
    };
    git(&["commit", "--quiet", "--all", "--message=second"]);
    git(&["tag", "shop-v1.1.0"]);
    in_store(project.build(), &store).input("images", "Api").run().exits(0);
    in_store(project.publish(), &store).input("version", "1.1.0").input("images", "Api").run().exits(0);
    let run = latest("dev");
    assert_eq!(run.of_images("status"), ["reused", "reused"], "{}", run.log.raw);
    assert!(run.summary.contains("unchanged since shop-v1.1.0"), "{}", run.summary);
    assert!(run.summary.contains("unchanged since v1.0.0"), "{}", run.summary);
    project.write("api/hello.txt", "third");
    let run = latest("dev");
    assert_eq!(run.of_images("status"), ["built", "reused"], "{}", run.log.raw);
    assert!(run.summary.contains("<code>api/hello.txt</code> has changed since shop-v1.1.0"), "{}", run.summary);
    // A tag that is not there cannot be compared with.
    git(&["tag", "--delete", "shop-v1.1.0"]);
    let run = latest("dev");
    assert_eq!(run.of_images("status"), ["built", "reused"], "{}", run.log.raw);
    assert!(run.summary.contains("there is no single git tag of version 1.1.0"), "{}", run.summary);
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
fn what_is_left_out_of_a_context_is_always_part_of_it() {
    let (project, store) = released();
    project.write("api/.dockerignore", "*.md\n.dockerignore\n");
    std::fs::remove_file(project.folder().join("web/.dockerignore")).unwrap();
    assert_eq!(build(&project, &store).of_images("status"), ["built", "built"]);
    // One beside a Dockerfile that lies outside the context.
    let images = "Api: {imageName: shop/api, dockerfile: docker/Dockerfile, context: api, platforms: [linux/amd64]}";
    let (project, store) = (Project::new(&template(images)), tempfile::tempdir().unwrap());
    project.write("docker/Dockerfile", SCRATCH);
    project.write("api/hello.txt", "api");
    release(&project, project.build(), &store);
    project.write("docker/notes.txt", "neither the Dockerfile nor the context");
    assert_eq!(build(&project, &store).of_images("status"), ["reused"]);
    project.write("docker/Dockerfile.dockerignore", "*.md\n");
    assert_eq!(build(&project, &store).of_images("status"), ["built"]);
}

#[test]
fn other_platforms_than_were_released_are_built() {
    let (project, store) = released();
    let platforms = |step: Step| {
        let run = in_store(step, &store).input("since", "1.0.0").run().exits(0);
        (run.of_images("status"), run.json("images")[0]["platforms"].clone())
    };
    let built = |platforms: &[&str]| (vec!["built".to_owned(); 2], serde_json::json!(platforms));
    assert_eq!(platforms(project.build().input("platforms", "linux/arm64")), built(&["linux/arm64"]));
    let both = ["linux/amd64", "linux/arm64"];
    assert_eq!(platforms(project.build().input("platforms", &both.join(","))), built(&both));
    let again = platforms(project.build().input("platforms", "linux/amd64"));
    assert_eq!(again, (vec!["reused".to_owned(); 2], serde_json::json!(["linux/amd64"])));
}

#[test]
fn other_build_arguments_than_at_the_release_are_a_change() {
    let (project, store) = released();
    let status = |project: &Project, store: &tempfile::TempDir, args: &str| {
        let step =
            in_store(project.build(), store).inputs(&[("since", "1.0.0"), ("images", "Api"), ("build-args", args)]);
        step.run().exits(0).of_images("status")[0].clone()
    };
    assert_eq!(status(&project, &store, "A=777"), "built");
    assert_eq!(status(&project, &store, ""), "reused");
    // And the other way round.
    let (project, store) = (Project::new(&template(API)), tempfile::tempdir().unwrap());
    project.write("api/Dockerfile", SCRATCH);
    project.write("api/hello.txt", "api");
    release(&project, project.build().input("build-args", "A=777"), &store);
    assert_eq!(status(&project, &store, "A=777"), "reused");
    assert_eq!(status(&project, &store, "A=778"), "built");
    assert_eq!(status(&project, &store, ""), "built");
    // Of a release that does not say it, those of the mapping alone are known.
    let (project, store) = (Project::new(&template(API)), tempfile::tempdir().unwrap());
    project.write("api/Dockerfile", SCRATCH);
    project.write("api/hello.txt", "api");
    release(&project, project.build().input("provenance", "false"), &store);
    assert_eq!(status(&project, &store, ""), "reused");
    assert_eq!(status(&project, &store, "A=1"), "built");
}

#[test]
fn contexts_that_a_release_does_not_tell_are_a_change() {
    let (project, store) = released();
    project.write("docs/page.txt", "a page");
    let step = in_store(project.build(), &store).inputs(&[("since", "1.0.0"), ("build-contexts", "docs=docs")]);
    let run = step.run().exits(0);
    assert_eq!(run.of_images("status"), ["built", "built"]);
    assert!(run.log.raw.contains("Api: `build-contexts` of v1.0.0 is not known, so it is built"), "{}", run.log.raw);
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

/// The images of functions that a loop over a parameter makes are those of the release's template with the same values.
#[test]
fn functions_of_a_loop_are_compared_with_their_release() {
    let store = tempfile::tempdir().unwrap();
    let project = Project::new(
        "Transform: [AWS::LanguageExtensions, AWS::Serverless-2016-10-31]
Parameters:
  Kinds: {Type: CommaDelimitedList}
Resources:
  Fn::ForEach::Loop:
    - Kind
    - !Ref Kinds
    - ${Kind}Function:
        Type: AWS::Serverless::Function
        Metadata: {DockerContext: './${Kind}'}
        Properties: {PackageType: Image, Architectures: [x86_64], ImageUri: !Sub 'registry.invalid/${Kind}function:1.0.0'}
",
    );
    for kind in ["orders", "bills"] {
        project.write(&format!("{kind}/Dockerfile"), SCRATCH);
        project.write(&format!("{kind}/hello.txt"), kind);
    }
    project.commit();
    let git = ["-C", project.folder().to_str().unwrap(), "tag", "v1.0.0"];
    printed(Command::new("git").args(git).env_clear().env("PATH", "/usr/bin:/bin"));
    let given = ("parameters", "Kinds=orders,bills");
    in_store(project.build().inputs(&[given]), &store).run().exits(0);
    in_store(project.publish().inputs(&[given]), &store).run().exits(0);
    let run = in_store(project.build().inputs(&[given, ("since", "1.0.0")]), &store).run().exits(0);
    assert_eq!(run.of_images("status"), ["reused", "reused"], "{}", run.log.raw);
    project.write("orders/hello.txt", "more");
    project.commit();
    let run = in_store(project.build().inputs(&[given, ("since", "1.0.0")]), &store).run().exits(0);
    assert_eq!(run.of_images("status"), ["reused", "built"], "{}", run.log.raw);
}
