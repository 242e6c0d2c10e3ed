//! Tags beside the one of the reference: what they may be, and which way they move.

use ecr_fake::{Config, Ecr, Image, RepositorySettings};

use crate::support::project::{BY_TAG, Project, aws, set_registry};
use crate::support::runner::{Run, Step};

struct Shop {
    ecr: Ecr,
    project: Project,
}

impl Shop {
    fn new() -> Shop {
        let ecr = Ecr::start(Config::default());
        set_registry(&ecr);
        ecr.default_registry().create("shop/api", RepositorySettings::default());
        Shop { ecr, project: Project::new(BY_TAG) }
    }

    fn step(&self, step: Step) -> Step {
        aws(step, &self.ecr).input("images", "Api").input("extra-tags", "latest")
    }

    /// Publishes a version, and says which digest `latest` holds then.
    fn publish(&self, version: &str, seed: u64) -> (Run, Image) {
        let image = Image::new(seed);
        let _ = std::fs::remove_dir_all(self.project.layout());
        self.project.built("Api", &image);
        (self.step(self.project.publish()).input("version", version).run().exits(0), image)
    }

    fn latest(&self) -> String {
        self.ecr.default_registry().resolve("shop/api", "latest").unwrap()
    }
}

#[test]
fn a_pre_release_moves_latest_only_where_no_release_has_it() {
    let shop = Shop::new();
    let (_, first) = shop.publish("2.0.0-rc.1", 1);
    assert_eq!(shop.latest(), first.root.digest);
    let (_, second) = shop.publish("2.0.0-rc.2", 2);
    assert_eq!(shop.latest(), second.root.digest);
    let (_, release) = shop.publish("2.1.0", 3);
    let (run, next) = shop.publish("2.2.0-rc.1", 4);
    assert_eq!(shop.latest(), release.root.digest);
    assert_eq!(run.json("images")[0].get("extraTags"), None);
    let notices = run.log.messages("notice");
    let told = "shop/api:latest` holds version 2.1.0, and 2.2.0-rc.1 is a pre-release: it stays where it is";
    assert!(notices.len() == 1 && notices[0].ends_with(told), "{notices:?}");
    // An older release does not take it back either.
    let (run, _) = shop.publish("1.9.9", 5);
    assert_eq!(shop.latest(), release.root.digest);
    let notices = run.log.messages("notice");
    assert!(
        notices[0].ends_with("holds version 2.1.0, and would go back to 1.9.9: it stays where it is"),
        "{notices:?}"
    );
    let (_, newer) = shop.publish("2.2.0", 6);
    assert_eq!(shop.latest(), newer.root.digest);
    // Promotions keep to it, too: `{environment}` moves with every version, `latest` does not.
    let promote = |version: &str| {
        let step = aws(shop.project.promote("test"), &shop.ecr).input("images", "Api").input("version", version);
        step.input("extra-tags", "latest\n{environment}").run().exits(0)
    };
    let run = promote("2.2.0-rc.1");
    assert_eq!(shop.latest(), newer.root.digest);
    assert_eq!(run.json("images")[0]["extraTags"], serde_json::json!(["test"]));
    assert_eq!(shop.ecr.default_registry().resolve("shop/api", "test"), Some(next.root.digest));
}

#[test]
fn a_tag_with_the_version_in_it_never_moves() {
    let shop = Shop::new();
    let (_, first) = shop.publish("1.0.0", 1);
    let tagged = |on_conflict: &str| {
        let step = shop.step(shop.project.publish()).input("extra-tags", "{version}").input("on-conflict", on_conflict);
        step.run()
    };
    let held = || shop.ecr.default_registry().resolve("shop/api", "1.0.0");
    tagged("fail").exits(0);
    let other = Image::new(2);
    shop.ecr.default_registry().push("shop/api", &["1.0.0"], &other);
    let error = tagged("fail").exits(1).error().to_owned();
    assert!(error.contains(&other.root.digest) && error.contains(&first.root.digest), "{error}");
    let run = tagged("keep").exits(0);
    assert!(run.log.messages("notice")[0].contains("shop/api:1.0.0` keeps "), "{}", run.log.raw);
    assert_eq!((held(), run.json("images")[0].get("extraTags")), (Some(other.root.digest), None));
}

#[test]
fn what_makes_no_tag_is_a_mistake_before_anything_is_asked() {
    let shop = Shop::new();
    shop.project.built("Api", &Image::new(1));
    let said = |step: Step, pattern: &str| {
        let run = shop.step(step).input("extra-tags", pattern).env("GITHUB_SHA", "").run().exits(2);
        run.error().to_owned()
    };
    let mut errors = Vec::new();
    for step in [|project: &Project| project.publish(), |project: &Project| project.promote("test")] {
        let patterns = ["bad tag", "{branch}-{version}", "sha-{sha}"];
        errors.push(patterns.map(|pattern| said(step(&shop.project), pattern)));
    }
    insta::assert_snapshot!(errors[0][0], @"input `extra-tags`: `bad tag` is not a tag (hint: letters, digits, `_`, `.` and `-`; {environment}, {version}, {image}, {sha}, {short-sha}, {run-number} and {digest} are filled in)");
    insta::assert_snapshot!(errors[0][1], @"input `extra-tags`: `{branch}` in `{branch}-{version}` is not a placeholder (hint: the placeholders are {environment}, {version}, {image}, {sha}, {short-sha}, {run-number} and {digest})");
    insta::assert_snapshot!(errors[0][2], @"input `extra-tags`: `sha-{sha}` needs a commit, and GITHUB_SHA names none");
    assert_eq!(errors[0], errors[1], "publish and promote say the same");
    assert!(shop.ecr.data_plane().is_empty(), "{}", shop.ecr.table());
}
