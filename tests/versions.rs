//! What a name says of its version: whether it may move, and which versions an environment has had.

use crate::support::build::{SCRATCH, one};
use crate::support::project::{Project, named};
use crate::support::runner::{Action, Run, Step};
use ecr_fake::Image;

/// The version in another spelling: `dev-1-2-3`.
/// How the sentence about a lower version ends.
const BACK: &str = ": promote a newer version, or set `mode: rollback` to go back";

const SPELT: &str = "${RepositoryPrefix}/${Name}:${Environment}-${Spelt}";

pub(crate) struct Shop {
    pub(crate) project: Project,
    pub(crate) store: tempfile::TempDir,
}

impl Shop {
    pub(crate) fn new(template: &str) -> Shop {
        Shop { project: Project::new(template), store: tempfile::tempdir().unwrap() }
    }

    fn spelt() -> Shop {
        let variables = "Spelt: !Join [\"-\", !Split [\".\", !Ref DeploymentVersion]]\n              Name:";
        Shop::new(&named(SPELT).replace("Name: !FindInMap", &format!("{variables} !FindInMap")))
    }

    fn on_disk(&self, step: Step, version: &str) -> Step {
        step.input("registry", &format!("oci:{}", self.store.path().display())).input("version", version)
    }

    /// publish of a version from a build of its own.
    pub(crate) fn publish(&self, version: &str, seed: u64) -> Step {
        let _ = std::fs::remove_dir_all(self.project.layout());
        self.project.built("Api", &Image::new(seed));
        self.on_disk(self.project.publish(), version)
    }

    pub(crate) fn promote(&self, version: &str) -> Step {
        self.on_disk(self.project.promote("test"), version)
    }

    fn history(&self) -> Step {
        self.on_disk(self.project.promote("test"), "").input("mode", "history")
    }
}

pub(crate) fn digest(seed: u64) -> String {
    Image::new(seed).root.digest.clone()
}

fn gate(run: &Run) -> String {
    run.json("images")[0]["gates"][0]["detail"].as_str().unwrap().to_owned()
}

const APART: &str = "can't be told apart: the name contains the version in another spelling, or only a part of it";

#[test]
fn a_version_in_another_spelling_is_never_overwritten() {
    let shop = Shop::spelt();
    let run = shop.publish("1.2.3", 1).run().exits(0);
    assert!(run.of_images("reference")[0].ends_with("/shop/api:dev-1-2-3"), "{}", run.output("images"));
    let error = shop.publish("1.2.3", 2).run().exits(1).error().to_owned();
    assert!(error.contains(&format!("exists with another digest: {}", digest(1))), "{error}");
    let run = shop.publish("1.2.3", 2).input("on-conflict", "keep").run().exits(0);
    assert_eq!(run.of_images("status"), ["unchanged"]);
    // The same in the target of a promotion, where the image is another because of what was there before.
    shop.promote("1.2.3").run().exits(0);
    let other = Shop { store: tempfile::tempdir().unwrap(), ..Shop::spelt() };
    other.publish("1.2.3", 2).run().exits(0);
    let from = format!("oci:{}", other.store.path().display());
    let to = format!("oci:{}", shop.store.path().display());
    let step = shop.project.promote("test").inputs(&[
        ("version", "1.2.3"),
        ("source-registry", &from),
        ("target-registry", &to),
    ]);
    let error = step.run().exits(1).error().to_owned();
    assert!(error.contains(&format!("shop/api:test-1-2-3` exists with another digest: {}", digest(1))), "{error}");
}

#[test]
fn where_versions_cannot_be_told_apart_that_is_said() {
    let shop = Shop::spelt();
    for (version, seed) in [("1.1.0", 1), ("1.0.0", 2)] {
        shop.publish(version, seed).run().exits(0);
    }
    let of_digest = |seed: u64| [digest(seed)];
    let run = shop.promote("1.1.0").input("extra-tags", "{environment}").run().exits(0);
    assert_eq!(
        (run.of_images("status"), run.of_images("digest")),
        (vec!["promoted".to_owned()], of_digest(1).to_vec())
    );
    // A second time nothing is left to be done.
    let run = shop.promote("1.1.0").input("extra-tags", "{environment}").run().exits(0);
    assert_eq!(run.of_images("status"), ["unchanged"]);
    // What moves is kept from going back by the records alone.
    let run = shop.promote("1.0.0").input("extra-tags", "{environment}").run().exits(0);
    let notices = run.log.messages("notice");
    assert!(
        notices[0].contains("holds version 1.1.0, and would go back to 1.0.0: it stays where it is"),
        "{notices:?}"
    );
    shop.publish("1.2.0", 3).run().exits(0);
    let run = shop.promote("1.2.0").input("require", "forward").run().exits(1);
    let detail = gate(&run);
    assert!(
        detail.starts_with("needs the version that test has, which cannot be read (") && detail.contains(APART),
        "{detail}"
    );
    let error = shop.promote("1.0.0").input("mode", "rollback").run().exits(1).error().to_owned();
    assert!(error.contains("cannot read which versions were in test: ") && error.contains(APART), "{error}");
    let run = shop.history().run().exits(1);
    let error = run.error();
    assert!(error.contains("cannot read the history of image `Api` in test: ") && error.contains(APART), "{error}");
    assert!(error.contains("hint: put the whole version into the tag, as in `{environment}-{version}`"), "{error}");
    assert!(run.json("images")[0]["error"].as_str().unwrap().contains(APART), "{}", run.output("images"));
}

#[test]
fn a_name_that_only_looks_like_a_version_moves() {
    let template = named("${RepositoryPrefix}/${Name}:${Environment}");
    let shop = Shop::new(&template.replace("imageName: shop/api", "imageName: shop/jdk-10.1.0"));
    shop.publish("0.0.9", 1).run().exits(0);
    let run = shop.publish("0.1.0", 2).run().exits(0);
    assert_eq!(run.of_images("previousDigest"), [digest(1)]);
    assert!(run.of_images("reference")[0].ends_with("/shop/jdk-10.1.0:dev"), "{}", run.output("images"));
    shop.promote("0.1.0").run().exits(0);
    shop.publish("0.2.0", 3).run().exits(0);
    let run = shop.promote("0.2.0").input("require", "forward").run().exits(0);
    assert_eq!(gate(&run), "test has 0.1.0, and 0.2.0 is not lower");
    assert_eq!(shop.history().run().exits(0).of_images("version"), ["0.2.0"]);
    assert!(shop.promote("0.1.0").input("mode", "rollback").run().exits(0).of_images("previousDigest") == [digest(3)]);
}

#[test]
fn a_version_that_an_input_writes_out_is_the_version() {
    let by_parameter = named("${RepositoryPrefix}/${Name}:${Tag}");
    let shop = Shop::new(&by_parameter.replace("Mappings:", "  Tag: {Type: String}\nMappings:"));
    for value in ["{environment}-{version}", "dev-1.2.3"] {
        let publish = |seed: u64| shop.publish("1.2.3", seed).input("parameters", &format!("Tag={value}"));
        publish(1).run().exits(0);
        let error = publish(2).run().exits(1).error().to_owned();
        assert!(error.contains("dev-1.2.3` exists with another digest"), "{value}: {error}");
    }
    let moving = Shop::new(&named("${RepositoryPrefix}/${Name}:${Environment}"));
    let publish = |seed: u64| moving.publish("1.2.3", seed).input("extra-tags", "v1.2.3");
    publish(1).run().exits(0);
    let error = publish(2).run().exits(1).error().to_owned();
    assert!(error.contains("shop/api:v1.2.3` exists with another digest"), "{error}");
}

#[test]
fn a_version_that_the_template_writes_out_is_not_overwritten() {
    let shop = Shop::new(&named("${RepositoryPrefix}/${Name}:dev-1.2.3"));
    shop.publish("1.2.3", 1).run().exits(0);
    let error = shop.publish("1.2.3", 2).run().exits(1).error().to_owned();
    assert!(error.contains("dev-1.2.3` exists with another digest"), "{error}");
}

#[test]
fn a_condition_on_the_version_blocks_what_has_to_know_the_others() {
    let template = named("${RepositoryPrefix}/${Name}:${Environment}${Kind}");
    let kind = "Kind: !If [IsRelease, \"\", -next]\n              Name: !FindInMap";
    let parts = "!Select [1, !Split [\"-\", !Sub \"${DeploymentVersion}-release\"]]";
    let condition = format!("Conditions:\n  IsRelease: !Equals [{parts}, release]\nResources:");
    let template = template.replace("Name: !FindInMap", kind).replace("Resources:", &condition);
    let shop = Shop::new(&template);
    shop.publish("1.0.0", 1).run().exits(0);
    // A tag that moves from version to version still does.
    let run = shop.publish("1.1.0", 2).run().exits(0);
    assert_eq!(run.of_images("previousDigest"), [digest(1)]);
    let run = shop.publish("1.2.0-rc.1", 3).run().exits(0);
    assert!(run.of_images("reference")[0].ends_with("/shop/api:dev-next"), "{}", run.output("images"));
    shop.promote("1.1.0").run().exits(0);
    shop.publish("1.0.1", 4).run().exits(0);
    let error = shop.promote("1.0.1").run().exits(1).error().to_owned();
    assert!(error.contains("shop/api:test` holds version 1.1.0, and would go back to 1.0.1"), "{error}");
    let run = shop.promote("1.2.0-rc.1").input("require", "forward").run().exits(1);
    let detail = gate(&run);
    assert!(
        detail.contains("can't be told apart: the name depends on a condition on the version): take `forward` out"),
        "{detail}"
    );
}

/// Each version has a tag of its own in each environment.
pub(crate) fn by_tag() -> Shop {
    Shop::new(&named("${RepositoryPrefix}/${Name}:${Environment}-${DeploymentVersion}"))
}

/// One tag for each environment, which moves from version to version.
fn moving() -> Shop {
    Shop::new(&named("${RepositoryPrefix}/${Name}:${Environment}"))
}

impl Shop {
    /// An image that no resource deploys, named by the input `reference`.
    pub(crate) fn undeployed() -> Shop {
        let template = named("x");
        Shop::new(&template[..template.find("Resources:").unwrap()])
    }

    fn promote_to(&self, to: &str, version: &str) -> Step {
        self.on_disk(self.project.promote(to), version)
    }

    /// The tags of the repository in the store, each with its digest.
    pub(crate) fn tags(&self) -> std::collections::BTreeMap<String, String> {
        let index = std::fs::read(self.store.path().join("shop/api/index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        let tag = |manifest: &serde_json::Value| {
            let tag = manifest["annotations"]["org.opencontainers.image.ref.name"].as_str()?;
            Some((tag.to_owned(), manifest["digest"].as_str()?.to_owned()))
        };
        index["manifests"].as_array().unwrap().iter().filter_map(tag).collect()
    }

    fn versions_of(&self, to: &str) -> Vec<String> {
        let run = self.on_disk(self.project.promote(to), "").input("mode", "history").run().exits(0);
        let history = run.json("images")[0]["history"].as_array().unwrap().clone();
        history.iter().map(|record| record["version"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn commits_go_up_the_ladder_in_the_order_of_their_records() {
    for shop in [by_tag(), moving()] {
        let is_moving = shop.promote("x").input("dry-run", "true").run().error().contains("api:dev`");
        let forward = |to: &str, version: &str| shop.promote_to(to, version).input("require", "forward");
        let run = shop.publish("9f2c0de", 1).run().exits(0);
        assert_eq!(run.output("version"), "9f2c0de");
        // By its text the first commit is the highest, and the older one arrives in test after the newer one.
        shop.publish("1abcdef", 2).run().exits(0);
        let run = forward("test", "1abcdef").run().exits(0);
        assert_eq!(gate(&run), "test has no recorded version yet");
        if !is_moving {
            let run = forward("test", "9f2c0de").run().exits(1);
            assert_eq!(gate(&run), format!("test has 1abcdef, and 9f2c0de is older{BACK}"));
        }
        shop.publish("0c0ffee", 3).run().exits(0);
        let run = forward("test", "0c0ffee").run().exits(0);
        assert_eq!(gate(&run), "test has 1abcdef, and 0c0ffee is not older");
        forward("prod", "0c0ffee").run().exits(0);
        assert_eq!(shop.versions_of("test"), ["0c0ffee", "1abcdef"]);
        assert_eq!(shop.versions_of("prod"), ["0c0ffee"]);
        // Back to what was there, and to nothing else.
        let run = shop.promote("1abcdef").input("mode", "rollback").run().exits(0);
        assert_eq!((run.of_images("status"), run.of_images("digest")), (vec!["promoted".into()], vec![digest(2)]));
        assert_eq!(shop.versions_of("test"), ["1abcdef", "0c0ffee", "1abcdef"]);
        let error = shop.promote("9f2c0de").input("mode", "rollback").run().exits(1).error().to_owned();
        assert!(error.contains("test has records of 1abcdef, 0c0ffee)"), "{error}");
        // Forward again: the version of dev is newer than the one that test went back to.
        let run = forward("test", "0c0ffee").input("lift-hold", "fixed").run().exits(0);
        let sentence = crate::support::gates::detail(&run, "forward");
        assert_eq!(sentence, "test has 1abcdef, and 0c0ffee is not older");
    }
}

#[test]
fn a_build_is_labelled_with_its_commit() {
    let project = one(SCRATCH);
    let run = project.build().inputs(&[("version", "4f2c0de"), ("lint", "off"), ("scan", "off")]).run().exits(0);
    assert_eq!(run.of_images("status"), ["built"]);
    let label = &project.built_layout().inspect("Api")["Labels"]["org.opencontainers.image.version"];
    assert_eq!(label, "4f2c0de");
    let store = tempfile::tempdir().unwrap();
    let registry = format!("oci:{}", store.path().display());
    let publish = |version: &str| {
        let layout = project.layout();
        let step = Step::new(Action::Publish, project.folder()).input("layout", layout.to_str().unwrap());
        step.inputs(&[("registry", &registry), ("version", version)]).run().exits(0)
    };
    assert_eq!(publish("4f2c0de").log.messages("warning"), [""; 0]);
    let run = publish("9abcdef");
    let told = "it is published as 9abcdef, but its label `org.opencontainers.image.version` says 4f2c0de";
    assert!(run.log.messages("warning")[0].contains(told), "{}", run.log.raw);
}

#[test]
fn tags_that_move_go_forward_with_commits() {
    let shop = by_tag();
    let publish = |version: &str, seed: u64| shop.publish(version, seed).input("extra-tags", "latest\nmain");
    publish("9f2c0de", 1).run().exits(0);
    let run = publish("1abcdef", 2).run().exits(0);
    assert!(run.log.messages("notice").is_empty(), "{}", run.log.raw);
    assert_eq!((&shop.tags()["latest"], &shop.tags()["main"]), (&digest(2), &digest(2)));
    // The pipeline of the older commit runs again.
    let run = publish("9f2c0de", 1).run().exits(0);
    let notices = run.log.messages("notice");
    let told = "holds version 1abcdef, and would go back to 9f2c0de: it stays where it is";
    assert!(notices.len() == 2 && notices.iter().all(|notice| notice.ends_with(told)), "{notices:?}");
    assert!(run.summary.contains("it stays where it is"), "{}", run.summary);
    assert_eq!((&shop.tags()["latest"], &shop.tags()["main"]), (&digest(2), &digest(2)));
    let promote = |version: &str| shop.promote(version).input("extra-tags", "{environment}").run().exits(0);
    promote("1abcdef");
    let run = promote("9f2c0de");
    assert!(run.log.messages("notice")[0].ends_with(told), "{}", run.log.raw);
    assert_eq!((&shop.tags()["test"], &shop.tags()["test-9f2c0de"]), (&digest(2), &digest(1)));
    // In a rollback it goes back.
    publish("9f2c0de", 1).run().exits(0);
    let step = shop.promote("9f2c0de").inputs(&[("extra-tags", "{environment}"), ("mode", "rollback")]);
    step.run().exits(0);
    assert_eq!(shop.tags()["test"], digest(1));
}

#[test]
fn a_moving_name_does_not_go_back_to_an_older_commit() {
    let shop = moving();
    shop.publish("9f2c0de", 1).run().exits(0);
    shop.promote("9f2c0de").run().exits(0);
    shop.publish("1abcdef", 2).run().exits(0);
    shop.promote("1abcdef").run().exits(0);
    // dev goes back, and its version must not reach test by a promotion.
    shop.promote_to("dev", "9f2c0de").input("mode", "rollback").run().exits(0);
    let error = shop.promote("9f2c0de").run().exits(1).error().to_owned();
    assert!(error.contains("shop/api:test` holds version 1abcdef, and would go back to 9f2c0de"), "{error}");
    let run = shop.promote("9f2c0de").input("on-conflict", "keep").run().exits(0);
    assert_eq!((run.of_images("status"), &shop.tags()["test"]), (vec!["unchanged".to_owned()], &digest(2)));
}

#[test]
fn commits_and_releases_are_ordered_by_time() {
    let shop = by_tag();
    let forward = |version: &str| shop.promote(version).input("require", "forward");
    shop.publish("1.0.0", 1).run().exits(0);
    shop.publish("4f2c0de", 2).run().exits(0);
    shop.publish("1.1.0", 3).run().exits(0);
    assert_eq!(gate(&forward("4f2c0de").run().exits(0)), "test has no recorded version yet");
    assert_eq!(gate(&forward("1.0.0").run().exits(1)), format!("test has 4f2c0de, and 1.0.0 is older{BACK}"));
    assert_eq!(gate(&forward("1.1.0").run().exits(0)), "test has 4f2c0de, and 1.1.0 is not older");
    assert_eq!(gate(&forward("1.0.0").run().exits(1)), format!("test has 1.1.0, and 1.0.0 is lower{BACK}"));
    assert_eq!(gate(&forward("4f2c0de").run().exits(1)), format!("test has 1.1.0, and 4f2c0de is older{BACK}"));
    // A fix of an older release is lower than it, however late it comes.
    shop.publish("1.0.1", 4).run().exits(0);
    assert_eq!(gate(&forward("1.0.1").run().exits(1)), format!("test has 1.1.0, and 1.0.1 is lower{BACK}"));
    assert_eq!(shop.versions_of("test"), ["1.1.0", "4f2c0de"]);
}

#[test]
fn run_numbers_and_dates_are_versions_too() {
    let shop = by_tag();
    for (version, seed) in [("9", 1), ("10", 2), ("2026-11-27", 3), ("2026.01.05", 4), ("v1", 5), ("orders-v1.2.3", 6)]
    {
        let run = shop.publish(version, seed).run().exits(0);
        assert!(
            run.of_images("reference")[0].ends_with(&format!("shop/api:dev-{version}")),
            "{}",
            run.output("images")
        );
        let run = shop.promote(version).input("require", "forward").run().exits(0);
        assert_eq!(run.of_images("status"), ["promoted"], "{version}");
    }
    assert_eq!(shop.versions_of("test"), ["orders-v1.2.3", "v1", "2026.01.05", "2026-11-27", "10", "9"]);
    let error = shop.publish("10", 7).run().exits(1).error().to_owned();
    assert!(error.contains("shop/api:dev-10` exists with another digest"), "{error}");
}

#[test]
fn without_a_record_it_is_said_that_the_order_is_unknown() {
    let shop = moving();
    let publish = |version: &str, seed: u64| shop.publish(version, seed).input("record", "false");
    publish("9f2c0de", 1).run().exits(0);
    shop.promote("9f2c0de").run().exits(0);
    publish("1abcdef", 2).run().exits(0);
    let run = shop.promote("1abcdef").input("require", "forward").run().exits(1);
    let told = "needs a newer version than 9f2c0de, which test has, but 9f2c0de or 1abcdef has no record: publish both with `record: true`, or use semantic versions";
    assert_eq!(gate(&run), told);
    let run = shop.promote("1abcdef").run().exits(0);
    let notices = run.log.messages("notice");
    let told = "shop/api:test` moves from version 9f2c0de to 1abcdef, and which one is newer can't be told: not both have a record";
    assert!(notices.iter().any(|notice| notice.ends_with(told)), "{notices:?}");
    // Where every version has a tag, one without a record may be of a version.
    let shop = by_tag();
    shop.publish("9f2c0de", 1).run().exits(0);
    shop.promote("9f2c0de").inputs(&[("record", "false"), ("evidence", "none")]).run().exits(0);
    shop.publish("1abcdef", 2).run().exits(0);
    let run = shop.promote("1abcdef").input("require", "forward").run().exits(1);
    assert_eq!(
        gate(&run),
        "needs the version that test has, but its tag `test-9f2c0de` has no record: promote what the tag has with `record: true`, or delete the tag"
    );
}

#[test]
fn tags_that_are_no_versions_do_not_count_as_such() {
    // The environment's tags are all that there are in its repository.
    let shop = Shop::new(&named("${RepositoryPrefix}/${Environment}/${Name}:${DeploymentVersion}"));
    let tags = "latest\nsha-{short-sha}\n{environment}";
    let step = |step: Step| step.input("extra-tags", tags);
    for (version, seed) in [("9f2c0de", 1), ("1abcdef", 2)] {
        step(shop.publish(version, seed)).run().exits(0);
        let run = step(shop.promote(version)).input("require", "forward").run().exits(0);
        assert_eq!(run.of_images("status"), ["promoted"]);
    }
    assert_eq!(shop.versions_of("test"), ["1abcdef", "9f2c0de"]);
    assert_eq!(
        gate(&step(shop.promote("9f2c0de")).input("require", "forward").run().exits(1)),
        format!("test has 1abcdef, and 9f2c0de is older{BACK}")
    );
    // An environment whose name begins with that of another one.
    let shop = by_tag();
    let ladder = |step: Step| step.inputs(&[("environments", "dev,test-eu,test"), ("require", "forward")]);
    shop.publish("9f2c0de", 1).run().exits(0);
    for to in ["test-eu", "test"] {
        let template = std::fs::read_to_string(shop.project.folder().join("template.yaml")).unwrap();
        assert!(!template.contains("AllowedValues"), "{template}");
        assert_eq!(
            gate(&ladder(shop.promote_to(to, "9f2c0de")).run().exits(0)),
            format!("{to} has no recorded version yet")
        );
    }
}

#[test]
fn a_commit_in_the_reference_stands_for_the_version() {
    let shop = Shop::undeployed();
    let reference = |step: Step| step.input("reference", "{registry}/{image}:{sha}");
    let commit = |digit: char| digit.to_string().repeat(40);
    let step = |step: Step, digit: char| reference(step).env("GITHUB_SHA", commit(digit));
    for version in ["4f2c0de", "1.0.0"] {
        let shop = Shop::undeployed();
        let run = reference(shop.publish(version, 1)).run().exits(0);
        assert!(run.of_images("reference")[0].ends_with("shop/api:0123456789abcdef0123456789abcdef01234567"));
        let error = reference(shop.publish(version, 2)).run().exits(1).error().to_owned();
        assert!(error.contains("exists with another digest"), "{error}");
        // Another version of the same commit does not overwrite it either.
        let error = reference(shop.publish("1.0.1", 2)).run().exits(1).error().to_owned();
        assert!(error.contains("exists with another digest"), "{error}");
    }
    for (digit, version, seed) in [('f', "1.0.0", 1), ('a', "1.1.0", 2)] {
        step(shop.publish(version, seed), digit).run().exits(0);
        let run = step(shop.promote(version), digit).input("require", "forward").run().exits(0);
        assert_eq!(run.of_images("status"), ["promoted"]);
    }
    let run = step(shop.promote("1.0.0"), 'f').input("require", "forward").run().exits(1);
    assert_eq!(gate(&run), format!("test has 1.1.0, and 1.0.0 is lower{BACK}"));
    step(shop.promote("1.0.0"), 'f').input("mode", "rollback").run().exits(0);
    let run = step(shop.history(), 'f').run().exits(0);
    assert_eq!(run.of_images("version"), ["1.0.0"]);
    // A commit that is the version as well is nothing else than `{version}`.
    let shop = Shop::undeployed();
    let sha = |step: Step, sha: &str| {
        step.input("reference", "{registry}/{image}:{environment}-{short-sha}").env("GITHUB_SHA", sha)
    };
    for (sha_of_run, seed) in [("9f2c0de000", 1), ("1abcdef000", 2)] {
        sha(shop.publish(&sha_of_run[..7], seed), sha_of_run).run().exits(0);
        sha(shop.promote(&sha_of_run[..7]), sha_of_run).input("require", "forward").run().exits(0);
    }
    let run = sha(shop.promote("9f2c0de"), "9f2c0de000").input("require", "forward").run().exits(1);
    assert_eq!(gate(&run), format!("test has 1abcdef, and 9f2c0de is older{BACK}"));
}
