//! What a deployment of the template would find: images on the platforms that run them, and references beside those that
//! a run writes.

use ecr_fake::http::RequestKind;
use ecr_fake::{Config, Ecr, Hook, Image, ImageSpec};

use crate::support::project::{BY_TAG, Project, aws, bare, default_host, named, set_registry};
use crate::support::runner::Step;

/// An image, another of the same registry that is in no mapping, one that is pinned, and one from elsewhere.
fn sidecars() -> String {
    named("${RepositoryPrefix}/${Name}:${Environment}-${DeploymentVersion}")
        + r"        - Name: router
          Image: !Sub ${RepositoryPrefix}/shop/router:${Environment}
        - Name: pinned
          Image: !Sub ${RepositoryPrefix}/shop/router@sha256:0000000000000000000000000000000000000000000000000000000000000000
        - Name: collector
          Image: registry.invalid/collector:1
"
}

/// [`BY_TAG`] on a runtime that is written down.
fn on(architecture: &str) -> String {
    let runtime = format!(
        "    Properties:\n      RuntimePlatform: {{CpuArchitecture: {architecture}, OperatingSystemFamily: LINUX}}\n"
    );
    BY_TAG.replacen("    Properties:\n", &runtime, 1)
}

fn of_platforms(platforms: &[&str], seed: u64) -> Image {
    let platforms = platforms.iter().map(ToString::to_string).collect();
    Image::of(&ImageSpec { platforms, seed, ..ImageSpec::default() })
}

fn shop(template: &str, api: &Image) -> (Ecr, Project) {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    ecr.default_registry().push("shop/api", &["dev-1.0.0"], api);
    ecr.default_registry().push("shop/web", &["dev-1.0.0"], &of_platforms(&["linux/amd64", "linux/arm64"], 9));
    let project = Project::new(template);
    project.built("Api", api);
    (ecr, project)
}

fn publish(ecr: &Ecr, project: &Project) -> Step {
    aws(project.publish(), ecr).input("images", "Api")
}

fn promote(ecr: &Ecr, project: &Project) -> Step {
    aws(project.promote("test"), ecr)
}

#[test]
fn what_the_template_deploys_beside_the_run_is_looked_for() {
    let api = of_platforms(&["linux/amd64"], 1);
    let (ecr, project) = shop(&sidecars(), &api);
    let host = default_host();
    let router =
        format!("template.yaml:18:18: a deployment would not find `{host}/shop/router:dev`, which `Task` deploys");
    let pinned = format!(
        "template.yaml:20:18: a deployment would not find `{host}/shop/router@sha256:{}`, which `Task` deploys",
        "0".repeat(64)
    );
    let run = publish(&ecr, &project).run().exits(0);
    assert_eq!(run.log.messages("warning"), [router.clone(), pinned.clone()]);
    assert!(run.summary.contains("What a deployment of 1.0.0 to dev misses"), "{}", run.summary);
    let item = format!("would not find <code>{host}/shop/router:dev</code>, which <code>Task</code> deploys\n");
    assert!(run.summary.contains(&item), "{}", run.summary);
    assert!(!run.summary.contains("&#96;"), "{}", run.summary);
    // A dry run of promote tells it of the environment that it is about, before anything is there.
    let run = promote(&ecr, &project).input("dry-run", "true").run().exits(0);
    assert_eq!(run.log.messages("warning"), [router.replace("router:dev", "router:test"), pinned.clone()]);
    assert!(ecr.writes().iter().all(|write| write.repository == "shop/api"), "{}", ecr.table());
    // What is there is not missed, and nothing is asked of other registries.
    ecr.default_registry().push("shop/router", &["test"], &api);
    let run = promote(&ecr, &project).run().exits(0);
    assert_eq!(run.log.messages("warning"), [pinned]);
    assert!(!run.log.raw.contains("registry.invalid"), "{}", run.log.raw);
    // That it can't be told is not that it is there.
    ecr.on(|entry| entry.repository == "shop/router" && entry.reference == "test", 1, 100, Hook::status(403));
    let run = promote(&ecr, &project).run().exits(0);
    let unknown =
        format!("template.yaml:18:18: a deployment may not find `{host}/shop/router:test`, which `Task` deploys: ");
    assert!(run.log.messages("warning")[0].starts_with(&unknown), "{}", run.log.raw);
}

#[test]
fn images_of_another_run_are_looked_for_in_a_dry_run() {
    let api = of_platforms(&["linux/amd64"], 1);
    let (ecr, project) = shop(BY_TAG, &api);
    let run = promote(&ecr, &project).inputs(&[("images", "Api"), ("dry-run", "true")]).run().exits(0);
    let missed = format!(
        "template.yaml:19:18: a deployment would not find `{}/shop/web:test-1.0.0`, which `Task` deploys",
        default_host()
    );
    assert_eq!(run.log.messages("warning"), [missed]);
    let run = promote(&ecr, &project).input("images", "Api").run().exits(0);
    assert_eq!(run.log.annotations.len(), 0, "{}", run.log.raw);
    let run = promote(&ecr, &project).run().exits(0);
    assert_eq!(run.log.annotations.len(), 0, "{}", run.log.raw);
}

#[test]
fn a_registry_that_stands_in_does_not_stand_in_for_others() {
    let template = sidecars().replace("${RepositoryPrefix}/shop/router:", "${Sidecars}/shop/router:");
    let template =
        template.replacen("Parameters:\n", "Parameters:\n  Sidecars: {Type: String, Default: mirror.invalid}\n", 1);
    let api = of_platforms(&["linux/amd64"], 1);
    let (ecr, project) = shop(&template, &api);
    let store = format!("oci:{}", project.folder().join("store").display());
    let run = publish(&ecr, &project).input("registry", &store).run().exits(0);
    let pinned = format!(
        "template.yaml:21:18: a deployment would not find `{store}/shop/router@sha256:{}`, which `Task` deploys",
        "0".repeat(64)
    );
    assert_eq!(run.log.messages("warning"), [pinned]);
}

#[test]
fn an_image_that_would_not_run_is_not_written() {
    for (platforms, architecture, runs) in [
        (&["linux/amd64"][..], "ARM64", false),
        (&["linux/amd64", "linux/arm64"][..], "ARM64", true),
        (&["linux/arm64"][..], "ARM64", true),
        (&["linux/amd64", "linux/arm/v7"][..], "ARM64", false),
    ] {
        let api = of_platforms(platforms, 1);
        let (ecr, project) = shop(&on(architecture), &api);
        let why = |image: &str| {
            format!("template.yaml:13:42: {image}: it has {}; `Task` runs on linux/arm64", platforms.join(", "))
        };
        let before = ecr.snapshot();
        let run = promote(&ecr, &project).input("images", "Api").run().exits(i32::from(!runs));
        assert_eq!(run.of_images("status"), [if runs { "promoted" } else { "failed" }]);
        if !runs {
            assert_eq!(run.error(), why("image `Api` would not run in test"));
            assert_eq!(ecr.snapshot(), before);
        }
        let run = publish(&ecr, &project).input("version", "2.0.0").run().exits(i32::from(!runs));
        assert_eq!(run.of_images("status"), [if runs { "created" } else { "failed" }]);
        if !runs {
            assert_eq!(run.error(), why("image `Api` would not run"));
            assert_eq!(ecr.snapshot(), before);
        }
    }
}

#[test]
fn a_platform_is_looked_up_only_where_that_is_no_request_too_many() {
    let api = of_platforms(&["linux/amd64"], 1);
    let (ecr, project) = shop(&on("ARM64"), &api);
    ecr.clear_log();
    let run = bare(promote(&ecr, &project)).input("images", "Api").run().exits(0);
    assert_eq!(run.of_images("status"), ["promoted"]);
    assert_eq!(ecr.count(RequestKind::GetBlob), 0, "{}", ecr.table());
    // A gate says it itself.
    let run = promote(&ecr, &project).inputs(&[("images", "Api"), ("require", "platforms")]).run().exits(1);
    assert_eq!(run.of_images("status"), ["blocked"]);
    let run = promote(&ecr, &project)
        .inputs(&[("images", "Api"), ("require", "platforms"), ("override", "it is emulated")])
        .run()
        .exits(0);
    assert!(run.log.raw.contains("it is emulated"), "{}", run.log.raw);
}
