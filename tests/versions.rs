//! What a name says of its version: whether it may move, and which versions an environment has had.

use crate::support::project::{Project, named};
use crate::support::runner::{Run, Step};
use ecr_fake::Image;

/// The version in another spelling: `dev-1-2-3`.
const SPELT: &str = "${RepositoryPrefix}/${Name}:${Environment}-${Spelt}";

struct Shop {
    project: Project,
    store: tempfile::TempDir,
}

impl Shop {
    fn new(template: &str) -> Shop {
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
    fn publish(&self, version: &str, seed: u64) -> Step {
        let _ = std::fs::remove_dir_all(self.project.layout());
        self.project.built("Api", &Image::new(seed));
        self.on_disk(self.project.publish(), version)
    }

    fn promote(&self, version: &str) -> Step {
        self.on_disk(self.project.promote("test"), version)
    }

    fn history(&self) -> Step {
        self.on_disk(self.project.promote("test"), "").input("history", "true")
    }
}

fn digest(seed: u64) -> String {
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
    assert!(detail.starts_with("it can't be decided what is in test: ") && detail.contains(APART), "{detail}");
    let error = shop.promote("1.0.0").input("rollback", "true").run().exits(1).error().to_owned();
    assert!(error.contains("it can't be decided what was in test: ") && error.contains(APART), "{error}");
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
    assert!(shop.promote("0.1.0").input("rollback", "true").run().exits(0).of_images("previousDigest") == [digest(3)]);
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
    assert!(detail.ends_with("can't be told apart: the name depends on a condition on the version"), "{detail}");
}
