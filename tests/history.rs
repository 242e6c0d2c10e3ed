//! What is in an environment, since when, by whom: from the registry alone.

use ecr_fake::{ACCESS_KEY, ACCOUNT, Config, Ecr, Image, Policy, REGION, User};
use serde_json::{Value, json};

use crate::support::project::{BY_REPOSITORY, BY_TAG, Project, set_registry};
use crate::support::released::Released;
use crate::support::runner::Step;

fn history(shop: &Released, to: &str) -> Step {
    shop.step(shop.project.promote(to), "").input("mode", "history")
}

fn of(entries: &Value, member: &str) -> Vec<Value> {
    entries.as_array().unwrap().iter().map(|entry| entry[member].clone()).collect()
}

#[test]
fn who_put_what_where_and_when() {
    let shop = Released::new(BY_TAG, &["shop/api"]);
    let old = shop.release("1.0.0", 1, &["test", "prod"]);
    let new = shop.release("1.1.0", 2, &["test", "prod"]);
    shop.release("1.2.0", 3, &["test"]);
    // A tag that nobody has recorded is no part of it.
    shop.ecr.default_registry().tag("shop/api", "prod-9.0.0", &old.root.digest);
    let before = shop.ecr.snapshot();
    shop.ecr.clear_log();
    let run = history(&shop, "prod").run().exits(0);
    let past = &run.json("images")[0];
    assert_eq!((&past["name"], &past["environment"]), (&json!("Api"), &json!("prod")));
    assert_eq!((&past["version"], &past["digest"]), (&json!("1.1.0"), &json!(new.root.digest)));
    assert_eq!((&past["by"], &past["since"]), (&json!("prod-operator"), &past["history"][0]["time"]));
    assert_eq!(of(&past["history"], "version"), ["1.1.0", "1.0.0"]);
    assert_eq!(of(&past["history"], "replaced"), [json!(old.root.digest), Value::Null]);
    assert_eq!(of(&past["history"], "run"), ["https://github.com/shop/backend/actions/runs/42/attempts/1"; 2]);
    assert_eq!(run.json("digests"), json!({"Api": new.root.digest}));
    assert_eq!(run.output("version"), "");
    for text in [&run.summary, &run.log.lines.join("\n")] {
        assert!(text.contains("1.1.0") && text.contains("prod-operator") && text.contains("current"), "{text}");
    }
    assert!(shop.ecr.writes().is_empty(), "{}", shop.ecr.table());
    assert_eq!(shop.ecr.snapshot(), before);
}

#[test]
fn without_an_environment_it_is_all_of_them() {
    let shop = Released::new(BY_REPOSITORY, &["dev/shop/api", "test/shop/api", "prod/shop/api"]);
    shop.release("1.0.0", 1, &["test"]);
    shop.release("1.1.0", 2, &[]);
    let run = history(&shop, "").run().exits(0);
    let images = run.json("images");
    assert_eq!(of(&images, "environment"), ["dev", "test", "prod"]);
    assert_eq!(of(&images, "version"), [json!("1.1.0"), json!("1.0.0"), Value::Null]);
    assert_eq!(of(&images[0]["history"], "kind"), ["publish", "publish"]);
    assert_eq!(run.output("digests"), "");
}

#[test]
fn that_it_could_not_look_is_not_nothing() {
    let blind = Policy::all().deny(&["ecr:ListImages", "ecr:DescribeImages", "ecr:DescribeRepositories"]);
    let ecr = Ecr::start(Config { users: vec![User::new(ACCESS_KEY, ACCOUNT).policy(blind)], ..Config::default() });
    set_registry(&ecr);
    let image = Image::new(1);
    ecr.registry(ACCOUNT, REGION).push("shop/api", &["dev-1.0.0"], &image);
    let project = Project::new(BY_TAG);
    let shop = Released { ecr, project };
    let run = history(&shop, "test").run().exits(1);
    assert!(run.error().contains("cannot read the history of image `Api` in test"), "{}", run.error());
    // Without the list, it is not known whether a rollback left a hold.
    let forward = shop.step(shop.project.promote("test"), "1.0.0").input("require", "forward").run().exits(1);
    assert!(
        forward.error().contains("forward: needs the version that test has, which cannot be read ("),
        "{}",
        forward.error()
    );
    let promote = || shop.step(shop.project.promote("test"), "1.0.0");
    let error = promote().run().exits(1).error().to_owned();
    assert!(
        error.contains("hold: needs the records of test, because a rollback may have left a hold there"),
        "{error}"
    );
    promote().inputs(&[("record", "false"), ("dry-run", "true")]).run().exits(0);
    promote().input("lift-hold", "the first version").run().exits(0);
    assert_eq!(shop.ecr.default_registry().resolve("shop/api", "test-1.0.0"), Some(image.root.digest));
}
