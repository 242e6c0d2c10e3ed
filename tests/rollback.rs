//! Going back: only on request, only to what was there, and written down as that.

use ecr_fake::{Config, Ecr, Image};
use serde_json::{Value, json};

use crate::support::project::{BY_TAG, Project, aws, named, set_registry};
use crate::support::runner::{Run, Step};

/// An environment has one name for all versions.
const FLOATING: &str = "${RepositoryPrefix}/${Name}:${Environment}";

struct Shop {
    ecr: Ecr,
    project: Project,
}

impl Shop {
    fn new(template: &str) -> Shop {
        let ecr = Ecr::start(Config::default());
        set_registry(&ecr);
        Shop { ecr, project: Project::new(template) }
    }

    /// A version in dev, as publish leaves it.
    fn publish(&self, version: &str, seed: u64) -> Image {
        let image = Image::new(seed);
        self.ecr.default_registry().create("shop/api", Default::default());
        let _ = std::fs::remove_dir_all(self.project.layout());
        self.project.built("Api", &image);
        let step = self.project.publish().input("version", version).input("images", "Api");
        aws(step, &self.ecr).run().exits(0);
        image
    }

    fn promote(&self, version: &str, to: &str) -> Step {
        aws(self.project.promote(to), &self.ecr).input("version", version).input("images", "Api")
    }

    /// A version in dev and in test.
    fn release(&self, version: &str, seed: u64) -> Image {
        let image = self.publish(version, seed);
        self.promote(version, "test").input("extra-tags", "{environment}").run().exits(0);
        image
    }

    fn tag(&self, tag: &str) -> Option<String> {
        self.ecr.default_registry().resolve("shop/api", tag)
    }

    /// The records of an image in an environment, in the order of their pushes.
    fn records(&self, image: &Image, environment: &str) -> Vec<Value> {
        let registry = self.ecr.default_registry();
        let repository = registry.repository("shop/api").unwrap();
        let records = registry.referrers("shop/api", &image.root.digest).into_iter().map(|referrer| {
            let manifest = &repository.manifests[referrer["digest"].as_str().unwrap()];
            let layer = manifest.json["layers"][0]["digest"].as_str().unwrap();
            let statement: Value = serde_json::from_slice(&repository.blobs[layer].bytes().unwrap()).unwrap();
            statement["predicate"].clone()
        });
        records.filter(|record| record["environment"] == environment).collect()
    }

    fn kinds(&self, image: &Image, environment: &str) -> Vec<Value> {
        self.records(image, environment).into_iter().map(|record| record["kind"].clone()).collect()
    }
}

#[track_caller]
fn current(shop: &Shop) -> (String, String) {
    let run =
        aws(shop.project.promote("test"), &shop.ecr).inputs(&[("version", ""), ("mode", "history"), ("images", "Api")]);
    let images = run.run().exits(0).json("images");
    let text = |name: &str| images[0][name].as_str().unwrap_or_default().to_owned();
    (text("version"), text("digest"))
}

#[test]
fn a_rollback_makes_the_older_version_current_and_is_recorded_as_one() {
    let shop = Shop::new(BY_TAG);
    let old = shop.release("1.0.0", 1);
    let new = shop.release("1.1.0", 2);
    assert_eq!(current(&shop), ("1.1.0".to_owned(), new.root.digest.clone()));
    assert_eq!(shop.tag("test"), Some(new.root.digest.clone()));
    let back = || {
        shop.promote("1.0.0", "test").inputs(&[
            ("mode", "rollback"),
            ("extra-tags", "{environment}"),
            ("require", "forward"),
        ])
    };
    let run = back().run().exits(0);
    assert_eq!(run.of_images("status"), ["promoted"]);
    assert_eq!(run.of_images("previousDigest"), std::slice::from_ref(&new.root.digest));
    assert_eq!(run.json("images")[0]["gates"][0]["detail"], "this is a rollback of test from 1.1.0 to 1.0.0");
    assert_eq!(current(&shop), ("1.0.0".to_owned(), old.root.digest.clone()));
    assert_eq!(shop.tag("test"), Some(old.root.digest.clone()));
    assert_eq!(shop.kinds(&old, "test"), ["promote", "rollback"]);
    let record = &shop.records(&old, "test")[1];
    assert_eq!((&record["replaced"], &record["version"]), (&json!(new.root.digest), &json!("1.0.0")));
    // Each version that was there is named once.
    let error = shop.promote("0.9.0", "test").input("mode", "rollback").run().exits(1).error().to_owned();
    assert!(error.contains("test has records of 1.0.0, 1.1.0)"), "{error}");
    // A second time it writes nothing.
    let before = shop.ecr.snapshot();
    shop.ecr.clear_log();
    assert_eq!(back().run().exits(0).of_images("status"), ["unchanged"]);
    assert!(shop.ecr.writes().is_empty(), "{}", shop.ecr.table());
    assert_eq!(shop.ecr.snapshot(), before);
    // Forward again needs a reason.
    let run =
        shop.promote("1.1.0", "test").input("extra-tags", "{environment}").input("lift-hold", "fixed").run().exits(0);
    assert_eq!(run.of_images("status"), ["promoted"]);
    assert_eq!(current(&shop), ("1.1.0".to_owned(), new.root.digest.clone()));
    assert_eq!(shop.tag("test"), Some(new.root.digest.clone()));
    assert_eq!(shop.kinds(&new, "test"), ["promote", "promote"]);
}

#[test]
fn only_what_was_there_comes_back() {
    let shop = Shop::new(BY_TAG);
    shop.release("1.0.0", 1);
    let never = shop.publish("0.9.0", 2);
    shop.ecr.clear_log();
    let refused = |version: &str, hint: &str| {
        let error = shop.promote(version, "test").input("mode", "rollback").run().exits(1).error().to_owned();
        assert!(
            error.contains(&format!("image `Api` can't go back to {version}: no record says that it was in test")),
            "{error}"
        );
        assert!(error.contains(hint), "{error}");
    };
    refused("0.9.0", "test has records of 1.0.0");
    // A tag alone says nothing: somebody else may have set it.
    shop.ecr.default_registry().tag("shop/api", "test-0.9.0", &never.root.digest);
    refused("0.9.0", "test has records of 1.0.0");
    assert!(shop.ecr.writes().is_empty(), "{}", shop.ecr.table());
}

#[test]
fn a_version_is_found_below_many_others() {
    use ecr_fake::Snapshot;
    let shop = Shop::new(BY_TAG);
    let old = shop.release("1.0.0", 1);
    let registry = shop.ecr.default_registry();
    let newer = Image::new(2);
    registry.push("shop/api", &[], &newer);
    let add = |minor: std::ops::Range<u32>| {
        minor.for_each(|minor| registry.tag("shop/api", &format!("test-2.{minor}.0"), &newer.root.digest));
    };
    add(0..105);
    let before = shop.ecr.snapshot();
    let again = || shop.promote("1.0.0", "test");
    assert_eq!(again().run().exits(0).of_images("status"), ["unchanged"]);
    assert_eq!(again().input("mode", "rollback").run().exits(0).of_images("status"), ["unchanged"]);
    let history = again().inputs(&[("version", ""), ("mode", "history")]).run().exits(0);
    assert!(history.log.messages("notice")[0].contains("6 lower versions of `Api` in test are not shown"));
    // With so many that one may be current of which nobody knows, nothing goes back.
    add(105..1000);
    let error = again().input("mode", "rollback").run().exits(1).error().to_owned();
    assert!(error.contains("has 1001 versions in test, but at most 1000 are looked at"), "{error}");
    assert_eq!(again().run().exits(0).of_images("status"), ["unchanged"]);
    let manifests = |snapshot: &Snapshot| snapshot.0.values().map(|held| held.manifests.clone()).collect::<Vec<_>>();
    assert_eq!(manifests(&shop.ecr.snapshot()), manifests(&before));
    assert_eq!(shop.kinds(&old, "test"), ["promote"]);
}

#[test]
fn an_older_version_is_promoted_beside_and_moves_no_floating_tag() {
    let shop = Shop::new(BY_TAG);
    let new = shop.release("1.1.0", 1);
    let fix = shop.publish("1.0.1", 2);
    let run = shop.promote("1.0.1", "test").input("extra-tags", "{environment}").run().exits(0);
    assert_eq!(shop.tag("test-1.0.1"), Some(fix.root.digest.clone()));
    assert_eq!(shop.tag("test"), Some(new.root.digest.clone()));
    let notices = run.log.messages("notice");
    assert!(
        notices[0].contains("shop/api:test` holds version 1.1.0, and would go back to 1.0.1: it stays where it is"),
        "{notices:?}"
    );
    let tags = &run.json("plan")["images"][0]["tags"];
    assert_eq!(tags[1], json!({"tag": "test", "current": new.root.digest, "kept": true}));
}

#[test]
fn a_promotion_of_what_was_there_is_no_rollback() {
    let shop = Shop::new(BY_TAG);
    shop.release("1.0.0", 1);
    let new = shop.release("1.1.0", 2);
    let before = shop.ecr.snapshot();
    let run: Run = shop.promote("1.0.0", "test").input("extra-tags", "{environment}").run().exits(0);
    assert_eq!(run.of_images("status"), ["unchanged"]);
    assert_eq!(shop.ecr.snapshot(), before);
    let warnings = run.log.messages("warning");
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(warning.contains("image `Api`: test has held 1.1.0 since 20"), "{warning}");
    let end = "1.0.0 was there earlier, so nothing is recorded: set `mode: rollback` to go back to it";
    assert!(warning.ends_with(end) && run.summary.contains("1.0.0 was there earlier"), "{warning} {}", run.summary);
    assert_eq!(current(&shop), ("1.1.0".to_owned(), new.root.digest));
    // Of the current version there is nothing to say.
    let run = shop.promote("1.1.0", "test").input("extra-tags", "{environment}").run().exits(0);
    assert!(run.log.messages("warning").is_empty(), "{}", run.log.raw);
}

#[test]
fn a_name_without_a_version_goes_back_on_request_alone() {
    let shop = Shop::new(&named(FLOATING));
    let in_dev = |seed: u64| {
        let image = Image::new(seed);
        shop.ecr.default_registry().push("shop/api", &["dev"], &image);
        image
    };
    let old = in_dev(1);
    shop.promote("1.0.0", "test").run().exits(0);
    let new = in_dev(2);
    shop.promote("1.1.0", "test").run().exits(0);
    assert_eq!(current(&shop), ("1.1.0".to_owned(), new.root.digest.clone()));
    // The next build reaches dev and gets an older number.
    in_dev(3);
    let error = shop.promote("1.0.5", "test").run().exits(1).error().to_owned();
    assert!(error.contains("shop/api:test` holds version 1.1.0, and would go back to 1.0.5"), "{error}");
    assert!(error.contains("set `mode: rollback`"), "{error}");
    shop.promote("1.0.5", "test").input("mode", "rollback").run().exits(1);
    let run = shop.promote("1.0.0", "test").input("mode", "rollback").run().exits(0);
    assert_eq!(run.of_images("previousDigest"), std::slice::from_ref(&new.root.digest));
    assert_eq!(shop.tag("test"), Some(old.root.digest.clone()));
    assert_eq!(shop.kinds(&old, "test"), ["promote", "rollback"]);
    assert_eq!(current(&shop), ("1.0.0".to_owned(), old.root.digest));
}

#[test]
fn what_publish_replaced_can_come_back() {
    let shop = Shop::new(&named(FLOATING));
    let old = shop.publish("1.0.0", 1);
    shop.publish("1.1.0", 2);
    let run = shop.promote("1.0.0", "dev").input("mode", "rollback").run().exits(0);
    assert_eq!((run.of_images("status"), shop.tag("dev")), (vec!["promoted".into()], Some(old.root.digest.clone())));
    assert_eq!(shop.kinds(&old, "dev"), ["publish", "rollback"]);
}

#[test]
fn a_name_without_a_version_is_promoted_as_the_version_that_it_holds() {
    let shop = Shop::new(&named(FLOATING));
    let image = shop.publish("1.0.0", 1);
    let before = shop.ecr.snapshot();
    let error = shop.promote("9.9.9", "test").run().exits(1).error().to_owned();
    assert!(
        error.contains("shop/api:dev` has held version 1.0.0 since 20") && error.contains(", not 9.9.9"),
        "{error}"
    );
    assert_eq!(shop.ecr.snapshot(), before);
    // One image can be two versions: the newest counts.
    let step = shop.project.publish().input("version", "1.1.0").input("images", "Api");
    aws(step, &shop.ecr).run().exits(0);
    assert!(shop.promote("1.0.0", "test").run().exits(1).error().contains("has held version 1.1.0"));
    shop.promote("1.1.0", "test").run().exits(0);
    assert_eq!(shop.tag("test"), Some(image.root.digest));
}

#[test]
fn an_older_version_begins_no_tag_that_moves() {
    let shop = Shop::new(BY_TAG);
    shop.publish("1.1.0", 1);
    shop.promote("1.1.0", "test").run().exits(0);
    let fix = shop.publish("1.0.1", 2);
    let run = shop.promote("1.0.1", "test").input("extra-tags", "{environment}\nfix-{version}").run().exits(0);
    assert_eq!((shop.tag("test"), shop.tag("fix-1.0.1")), (None, Some(fix.root.digest)));
    let told = "shop/api:test` is not written: test holds 1.1.0, and this is 1.0.1";
    assert!(run.log.messages("notice")[0].ends_with(told) && run.summary.contains("is not written"), "{}", run.log.raw);
    assert_eq!(run.json("images")[0]["extraTags"], json!(["fix-1.0.1"]));
}

/// The hold in the output `images` of a history of test.
fn hold(shop: &Shop) -> Value {
    let step = shop.promote("", "test").input("mode", "history");
    step.run().exits(0).json("images")[0]["hold"].clone()
}

#[test]
fn a_rollback_leaves_a_hold_until_a_promotion_gives_the_reason_to_lift_it() {
    let shop = Shop::new(BY_TAG);
    let old = shop.release("1.0.0", 1);
    let new = shop.release("1.1.0", 2);
    let none = shop.promote("1.1.0", "test").input("lift-hold", "no reason").run().exits(0);
    assert_eq!(none.log.messages("notice"), ["`lift-hold` has no effect: there is no hold on test"]);
    let run = shop.promote("1.0.0", "test").input("mode", "rollback").run().exits(0);
    let left = "this rollback leaves a hold on test: the next promotion has to give a reason in `lift-hold`";
    assert!(run.log.messages("notice")[0].contains(left) && run.summary.contains("leaves a hold"), "{}", run.log.raw);
    let held = hold(&shop);
    let since = held["since"].as_str().unwrap().to_owned();
    let url = "https://github.com/shop/backend/actions/runs/42/attempts/1";
    let expected = json!({"version": "1.0.0", "replaced": "1.1.0", "since": since, "by": "octocat", "run": url});
    assert_eq!(held, expected);

    let fixed = shop.publish("1.2.0", 3);
    let before = shop.ecr.snapshot();
    shop.ecr.clear_log();
    let sentence = format!(
        "test is on hold, because octocat rolled test back from 1.1.0 to 1.0.0 at {since} ({url}): promote with the reason \
         in `lift-hold` once the cause is fixed"
    );
    // Neither a dry run nor an override passes, and neither does the version that was rolled back.
    for (version, input, value) in
        [("1.2.0", "dry-run", "true"), ("1.2.0", "override", "in a hurry"), ("1.1.0", "summary", "true")]
    {
        let run = shop.promote(version, "test").input("require", "forward").input(input, value).run().exits(1);
        let gates = run.json("images")[0]["gates"].clone();
        assert_eq!(gates[0], json!({"name": "hold", "status": "blocked", "detail": sentence}));
        assert_eq!(run.json("images")[0]["hold"], expected);
        assert!(run.error().contains(&format!("image `Api` is blocked: hold: {sentence}")), "{}", run.error());
        assert!(run.summary.contains("is on hold"), "{}", run.summary);
    }
    // The version that the environment has is not blocked, and lifts nothing.
    let same = shop.promote("1.0.0", "test").input("lift-hold", "it is fine").run().exits(0);
    assert_eq!(same.of_images("status"), ["unchanged"]);
    let stays = "`lift-hold` has no effect: this run changes nothing in test, so the hold there stays";
    assert_eq!(same.log.messages("notice"), [stays]);
    assert!(shop.ecr.writes().is_empty(), "{}", shop.ecr.table());
    assert_eq!(shop.ecr.snapshot(), before);
    // Another rollback is not blocked, and leaves its own hold.
    let again = shop.promote("1.1.0", "test").inputs(&[("mode", "rollback"), ("lift-hold", "x")]).run().exits(0);
    assert!(again.log.messages("notice").contains(&"`lift-hold` has no effect: no hold stops a rollback"));
    assert_eq!((&hold(&shop)["version"], &hold(&shop)["replaced"]), (&json!("1.1.0"), &json!("1.0.0")));

    let lift = || shop.promote("1.2.0", "test").input("lift-hold", "INC-7 is fixed");
    let planned = lift().input("dry-run", "true").run().exits(0);
    assert_eq!(planned.json("plan")["liftHold"], "INC-7 is fixed");
    let run = lift().run().exits(0);
    assert_eq!(run.of_images("status"), ["promoted"]);
    assert_eq!(run.json("images")[0]["hold"]["lifted"], "INC-7 is fixed");
    assert!(run.summary.contains("the hold is lifted: INC"), "{}", run.summary);
    assert!(run.log.messages("notice").is_empty(), "{}", run.log.raw);
    let record = &shop.records(&fixed, "test")[0];
    assert_eq!((&record["liftedHold"], &record["gates"][0]["name"]), (&json!("INC-7 is fixed"), &json!("hold")));
    assert_eq!(record["override"], Value::Null);
    assert_eq!(hold(&shop), Value::Null);
    let history = shop.promote("", "test").input("mode", "history").run().exits(0);
    assert!(history.summary.contains("current, lifted the hold: INC"), "{}", history.summary);
    assert_eq!(shop.kinds(&old, "test"), ["promote", "rollback"]);
    assert_eq!(shop.kinds(&new, "test"), ["promote", "rollback"]);
}

#[test]
fn a_hold_of_a_moving_tag_is_found_and_one_without_a_record_does_not_exist() {
    let shop = Shop::new(&named(FLOATING));
    for (version, seed) in [("1.0.0", 1), ("1.1.0", 2)] {
        shop.publish(version, seed);
        shop.promote(version, "test").run().exits(0);
    }
    let back = shop.promote("1.0.0", "test").inputs(&[("mode", "rollback"), ("record", "false")]).run().exits(0);
    let none = "this rollback is not recorded (`record: false`), so it leaves no hold on test";
    assert!(back.log.messages("warning")[0].contains(none), "{}", back.log.raw);
    shop.promote("1.1.0", "test").run().exits(0);
    shop.promote("1.0.0", "test").input("mode", "rollback").run().exits(0);
    let error = shop.promote("1.1.0", "test").run().exits(1).error().to_owned();
    assert!(error.contains("test is on hold, because octocat rolled test back from 1.1.0 to 1.0.0 at "), "{error}");
    let run = shop.promote("1.1.0", "test").inputs(&[("lift-hold", "fixed"), ("record", "false")]).run().exits(0);
    let unrecorded =
        "with `record: false`, no record says that the hold is lifted: it may still stop the next promotion to test";
    assert_eq!(run.log.messages("notice"), [unrecorded]);
    assert_eq!(hold(&shop), Value::Null);
}

#[test]
fn records_that_cannot_be_read_may_contain_a_hold() {
    let shop = Shop::new(BY_TAG);
    shop.release("1.0.0", 1);
    let new = shop.publish("1.1.0", 2);
    shop.ecr.on(|entry| entry.kind == ecr_fake::http::RequestKind::Tags, 1, u64::MAX, ecr_fake::Hook::status(403));
    let before = shop.ecr.snapshot();
    let error = shop.promote("1.1.0", "test").run().exits(1).error().to_owned();
    assert!(
        error.contains("hold: needs the records of test, because a rollback may have left a hold there"),
        "{error}"
    );
    assert!(error.ends_with("or give the reason to promote without them in `lift-hold`"), "{error}");
    assert_eq!(shop.ecr.snapshot(), before);
    shop.promote("1.1.0", "test").input("lift-hold", "the role cannot list tags").run().exits(0);
    assert_eq!(shop.records(&new, "test")[0]["liftedHold"], "the role cannot list tags");
    // The version that the environment already has is not blocked.
    shop.promote("1.0.0", "test").run().exits(0);
}

/// What the history of test says about the images before the current one.
fn targets(shop: &Shop) -> Value {
    let run = shop.promote("", "test").input("mode", "history").run().exits(0);
    crate::docs::fits(&run.json("images"), "promote-history");
    run.json("images")[0]["rollback"].clone()
}

#[test]
fn an_archived_image_cannot_come_back_before_it_is_restored() {
    let shop = Shop::new(BY_TAG);
    let old = shop.release("1.0.0", 1);
    let new = shop.release("1.1.0", 2);
    let of = |version: &str, digest: &str, state: &str| json!({"version": version, "digest": digest, "state": state});
    assert_eq!(targets(&shop), json!([of("1.0.0", &old.root.digest, "available")]));
    shop.ecr.default_registry().archive("shop/api", &old.root.digest);
    let before = shop.ecr.snapshot();
    shop.ecr.clear_log();
    let error = shop.promote("1.0.0", "test").input("mode", "rollback").run().exits(1).error().to_owned();
    assert!(
        error.contains("image `Api` can't go back to 1.0.0: ") && error.contains("test-1.0.0` is archived"),
        "{error}"
    );
    let restore = "aws ecr update-image-storage-class --target-storage-class STANDARD --repository-name shop/api --image-id imageTag=test-1.0.0";
    assert!(error.contains(restore), "{error}");
    assert_eq!(targets(&shop), json!([of("1.0.0", &old.root.digest, "archived")]));
    assert!(shop.ecr.writes().is_empty(), "{}", shop.ecr.table());
    assert_eq!(shop.ecr.snapshot(), before);
    // It stops no promotion to a higher version, whose dry run says what is left to roll back to.
    let next = shop.publish("1.2.0", 3);
    let forward = || shop.promote("1.2.0", "test").input("require", "forward");
    let planned = forward().input("dry-run", "true").run().exits(0);
    let said = "image `Api`: after this, test can be rolled back to 1.1.0, but not to 1.0.0 (archived)";
    let notices = planned.log.messages("notice");
    assert!(notices.len() == 1 && notices[0].ends_with(said), "{notices:?}");
    assert!(planned.summary.contains("but not to 1.0.0"), "{}", planned.summary);
    assert!(forward().run().exits(0).log.messages("notice").is_empty());
    assert_eq!(current(&shop), ("1.2.0".to_owned(), next.root.digest));
    let left = [of("1.1.0", &new.root.digest, "available"), of("1.0.0", &old.root.digest, "archived")];
    assert_eq!(targets(&shop), json!(left));
    // Of an archived version that is higher, nobody knows whether the environment has it.
    shop.ecr.default_registry().archive("shop/api", &shop.tag("test-1.2.0").unwrap());
    let error = shop.promote("1.1.0", "test").input("require", "forward").run().exits(1).error().to_owned();
    assert!(error.contains("test-1.2.0"), "{error}");
}

#[test]
fn a_deleted_image_is_named_beforehand() {
    let shop = Shop::new(BY_TAG);
    let old = shop.release("1.0.0", 1);
    shop.release("1.1.0", 2);
    shop.ecr.default_registry().change("shop/api", |repository| {
        repository.tags.retain(|_, digest| *digest != old.root.digest);
        repository.manifests.remove(&old.root.digest);
    });
    shop.ecr.clear_log();
    assert_eq!(targets(&shop), json!([{"digest": old.root.digest, "state": "deleted"}]));
    let run = shop.promote("", "test").input("mode", "history").run().exits(0);
    let short = &old.root.digest["sha256:".len()..][..12];
    let said = format!("Api: test cannot be rolled back to {short} (deleted)");
    assert!(
        run.log.lines.contains(&said) && run.summary.contains("- Api: test cannot be rolled back to "),
        "{}",
        run.log.raw
    );
    let error = shop.promote("1.0.0", "test").input("mode", "rollback").run().exits(1).error().to_owned();
    let why =
        "no record says that it was in test, and there is no tag `test-1.0.0`, which a lifecycle rule may have deleted";
    assert!(error.contains(why) && error.contains("test has records of 1.1.0"), "{error}");
    assert!(shop.ecr.writes().is_empty(), "{}", shop.ecr.table());
}

#[test]
fn a_moving_tag_cannot_go_back_to_what_was_deleted() {
    let shop = Shop::new(&named(FLOATING));
    let images = [("1.0.0", 1), ("1.1.0", 2), ("1.2.0", 3)].map(|(version, seed)| {
        let image = shop.publish(version, seed);
        shop.promote(version, "test").run().exits(0);
        image
    });
    let registry = shop.ecr.default_registry();
    registry.change("shop/api", |repository| {
        repository.manifests.remove(&images[1].root.digest);
    });
    let back = |version: &str| shop.promote(version, "test").input("mode", "rollback");
    let error = back("1.1.0").run().exits(1).error().to_owned();
    let gone = format!("image `Api` can't go back to 1.1.0: {} is no longer in the registry", images[1].root.digest);
    assert!(error.contains(&gone), "{error}");
    assert!(error.contains("test can be rolled back to 1.0.0, but not to 1.1.0 (deleted)"), "{error}");
    registry.archive("shop/api", &images[0].root.digest);
    let error = back("1.0.0").run().exits(1).error().to_owned();
    assert!(error.contains("is archived") && error.contains("update-image-storage-class"), "{error}");
}
