//! Whether what is recorded, what the registry holds and what runs are the same.

use ecr_fake::{Image, ImageSpec};
use serde_json::{Value, json};

use crate::docs::fits;
use crate::support::emulator::Emulator;
use crate::support::prism::GitHub;
use crate::support::project::{BY_REPOSITORY, BY_TAG, default_host};
use crate::support::released::Released;
use crate::support::runner::{Run, Step};
use crate::support::workloads::Account;

struct Shop {
    released: Released,
    account: Account,
}

impl std::ops::Deref for Shop {
    type Target = Released;

    fn deref(&self) -> &Released {
        &self.released
    }
}

impl Shop {
    fn new(template: &str, repositories: &[&str]) -> Shop {
        Shop { released: Released::new(template, repositories), account: Account::start() }
    }

    /// `shop/api` with 1.0.0 and then 1.1.0 in prod.
    fn released() -> (Shop, Image, Image) {
        let shop = Shop::new(BY_TAG, &["shop/api"]);
        let old = shop.release("1.0.0", 1, &["test", "prod"]);
        let new = shop.release("1.1.0", 2, &["test", "prod"]);
        (shop, old, new)
    }

    fn status(&self, to: &str) -> Step {
        self.account.at(self.step(self.project.promote(to), "")).input("mode", "status")
    }

    /// The status of the only image in an environment.
    fn of(&self, to: &str, code: i32) -> Value {
        let run = self.status(to).run().exits(code);
        let status = read(&run);
        let image = &status["images"][0];
        assert_eq!((&image["environment"], status["images"].as_array().unwrap().len()), (&json!(to), 1));
        image.clone()
    }
}

fn read(run: &Run) -> Value {
    let status = run.json("status");
    fits(&status, "promote-status");
    status
}

fn image(name: &str) -> String {
    format!("{}/{name}", default_host())
}

fn of(entries: &Value, member: &str) -> Vec<Value> {
    entries.as_array().unwrap().iter().map(|entry| entry[member].clone()).collect()
}

fn reasons(image: &Value) -> String {
    let reasons: Vec<&str> =
        image["reasons"].as_array().unwrap().iter().map(|reason| reason.as_str().unwrap()).collect();
    reasons.join("\n")
}

#[test]
fn all_that_runs_is_what_is_recorded() {
    let (shop, _, new) = Shop::released();
    let prod = image("shop/api:prod-1.1.0");
    shop.account.define("shop:7", &["nginx:1", &prod]);
    shop.account.define("job:2", &[&format!("{}@{}", image("shop/api"), new.root.digest)]);
    shop.account.define("idle:1", &[&prod]);
    shop.account.define("other:1", &["nginx:1", &image("shop/other:prod-1.0.0")]);
    let other = format!("sha256:{}", "7".repeat(64));
    shop.account.serve("a", "shop", "shop:7", &[&[&other, &new.root.digest], &[&other, &new.root.digest]]);
    shop.account.serve("b", "idle", "idle:1", &[]);
    shop.account.run("b", "job:2", &[&new.root.digest]);
    // Lambda runs the image of one platform.
    let platform = format!("{}@{}", image("shop/api"), new.children[0].digest);
    shop.account.function("worker", &prod, &platform);
    shop.account.function("foreign", &image("shop/other:prod-1.0.0"), &platform);
    let before = shop.ecr.snapshot();
    shop.ecr.clear_log();
    let run = shop.status("").run().exits(0);
    let status = read(&run);
    assert_eq!((&status["drift"], status.get("unread")), (&json!(false), None));
    let images = &status["images"];
    assert_eq!(of(images, "environment"), ["dev", "test", "prod"]);
    assert_eq!(of(images, "state"), ["in-step"; 3]);
    assert_eq!(of(images, "digest"), [json!(new.root.digest), json!(new.root.digest), json!(new.root.digest)]);
    let prod_row = &images[2];
    assert_eq!((&prod_row["reference"], &prod_row["record"]["version"]), (&json!(prod), &json!("1.1.0")));
    assert_eq!(prod_row["record"]["by"], "prod-operator");
    let runs = &prod_row["runs"];
    assert_eq!(of(runs, "kind"), ["function", "service", "service", "task"]);
    assert_eq!(of(runs, "name"), ["worker", "a/shop", "b/idle", "b/job:2"]);
    assert_eq!(of(runs, "state"), ["in-step"; 4]);
    // The pinned image belongs to each environment that has it.
    assert_eq!(of(&images[0]["runs"], "name"), ["b/job:2"]);
    let text = status["text"].as_str().unwrap();
    assert!(run.summary.contains(text) && text.contains("function worker"), "{}", run.summary);
    assert!(run.log.lines.join("\n").contains("prod-operator"), "{:?}", run.log.lines);
    // Nothing in it changes from run to run, and nothing was written.
    assert_eq!(shop.status("").run().exits(0).output("status"), run.output("status"));
    assert!(shop.ecr.writes().is_empty(), "{}", shop.ecr.table());
    assert_eq!(shop.ecr.snapshot(), before);
}

#[test]
fn a_tag_that_somebody_else_moved() {
    let (shop, old, new) = Shop::released();
    let other = Image::new(9);
    shop.ecr.default_registry().push("shop/api", &["prod-1.1.0"], &other);
    let prod = shop.of("prod", 1);
    assert_eq!((&prod["state"], &prod["digest"]), (&json!("moved"), &json!(other.root.digest)));
    // The record is that of the digest before, which test still has.
    assert_eq!((&prod["record"]["version"], &prod["record"]["digest"]), (&json!("1.1.0"), &json!(new.root.digest)));
    assert!(reasons(&prod).contains("its record of 1.1.0 says"), "{prod}");
    assert_eq!(shop.of("test", 0)["state"], "in-step");
    // What was pushed beside promote has no record anywhere.
    shop.ecr.default_registry().tag("shop/api", "test-9.0.0", &old.root.digest);
    let test = shop.of("test", 1);
    assert_eq!((&test["state"], &test["record"]["version"]), (&json!("moved"), &json!("1.1.0")));
    assert!(reasons(&test).contains("`test-9.0.0` is") && reasons(&test).contains("no record names"), "{test}");
}

#[test]
fn a_moving_tag_that_was_moved_is_found_by_what_runs() {
    let template = BY_REPOSITORY.replace("${Name}:${DeploymentVersion}", "${Name}:stable");
    let shop = Shop::new(&template, &["dev/shop/api", "test/shop/api"]);
    let first = shop.release("1.0.0", 1, &["test"]);
    let other = Image::new(9);
    shop.ecr.default_registry().push("test/shop/api", &["stable"], &other);
    // Without a record within reach, nobody knows.
    let test = shop.of("test", 1);
    assert_eq!((&test["state"], test.get("record")), (&json!("unknown"), None));
    assert!(reasons(&test).contains("`stable` has no record"), "{test}");
    let stable = image("test/shop/api:stable");
    shop.account.define("shop:1", &[&stable]);
    shop.account.serve("a", "shop", "shop:1", &[&[&first.root.digest]]);
    let test = shop.of("test", 1);
    assert_eq!((&test["state"], &test["record"]["digest"]), (&json!("moved"), &json!(first.root.digest)));
    assert_eq!(of(&test["runs"], "state"), ["in-step"]);
}

#[test]
fn something_runs_an_older_image() {
    let (shop, old, new) = Shop::released();
    shop.account.define("shop:6", &[&image("shop/api:prod-1.0.0")]);
    shop.account.define("shop:7", &[&image("shop/api:prod-1.1.0")]);
    shop.account.serve("a", "shop", "shop:6", &[&[&old.root.digest]]);
    let prod = shop.of("prod", 1);
    assert_eq!(prod["state"], "not-deployed");
    assert_eq!(of(&prod["runs"], "name"), ["a/shop", "shop:7"]);
    assert_eq!(of(&prod["runs"], "version"), ["1.0.0", "1.1.0"]);
    assert!(reasons(&prod).contains("service `a/shop` (container `c0`) runs 1.0.0"), "{prod}");
    // The other environments are told apart by the tag.
    assert_eq!(shop.of("test", 0)["runs"], json!([]));
    shop.account.serve("a", "shop", "shop:7", &[&[&new.root.digest]]);
    assert_eq!(shop.of("prod", 0)["state"], "in-step");
    // A rollback makes the older image the recorded one.
    shop.step(shop.project.promote("prod"), "1.0.0").input("mode", "rollback").run().exits(0);
    let prod = shop.of("prod", 1);
    assert_eq!((&prod["state"], &prod["record"]["version"]), (&json!("not-deployed"), &json!("1.0.0")));
}

#[test]
fn a_deployment_that_is_not_complete_is_told() {
    let (shop, old, new) = Shop::released();
    let prod = image("shop/api:prod-1.1.0");
    shop.account.define("shop:6", &[&image("shop/api:prod-1.0.0")]);
    shop.account.define("shop:7", &[&prod]);
    shop.account.serve("a", "shop", "shop:6", &[&[&old.root.digest]]);
    for (state, rollout, told) in [
        ("IN_PROGRESS", "in-progress", "runs 1.0.0 (a), and a deployment is in progress"),
        ("FAILED", "failed", "runs 1.0.0 (a), and its last deployment has failed"),
    ] {
        shop.account.deploy("a", "shop", "shop:7", state, &[&new.root.digest]);
        let row = shop.of("prod", 1);
        assert_eq!(row["state"], "not-deployed");
        let short = &old.root.digest["sha256:".len()..][..12];
        assert!(reasons(&row).contains(&told.replace("(a)", &format!("({short})"))), "{row}");
        assert_eq!(of(&row["runs"], "name"), ["a/shop", "a/shop"]);
        assert_eq!(of(&row["runs"], "version"), ["1.0.0", "1.1.0"]);
        assert_eq!(of(&row["runs"], "rollout"), [rollout; 2]);
    }
    // The deployment has resolved the tag to a digest, which the tag has no longer.
    shop.account.deploy("a", "shop", "shop:7", "IN_PROGRESS", &[&Image::new(9).root.digest]);
    let row = shop.of("prod", 1);
    assert_eq!(row["state"], "untagged");
    assert!(of(&row["runs"], "digest").contains(&json!(Image::new(9).root.digest)), "{row}");
}

#[test]
fn the_versions_that_aliases_point_to_run() {
    let (shop, old, new) = Shop::released();
    let repository = image("shop/api");
    let of_image =
        |tag: &str, image: &Image| (format!("{repository}:{tag}"), format!("{repository}@{}", image.root.digest));
    let (newest, resolved) = of_image("prod-1.1.0", &new);
    shop.account.function("worker", &newest, &resolved);
    shop.account.alias("worker", "latest", "$LATEST", &newest, &resolved);
    assert_eq!(of(&shop.of("prod", 0)["runs"], "name"), ["worker"]);
    let (older, resolved) = of_image("prod-1.0.0", &old);
    shop.account.alias("worker", "live", "3", &older, &resolved);
    let row = shop.of("prod", 1);
    assert_eq!(row["state"], "not-deployed");
    assert_eq!(of(&row["runs"], "name"), ["worker", "worker:live"]);
    assert!(reasons(&row).contains("function `worker:live` runs 1.0.0"), "{row}");
}

#[test]
fn without_an_alias_the_newest_published_version_runs() {
    let (shop, old, new) = Shop::released();
    let publish = |version: &str, tag: &str, image: &Image| {
        let repository = self::image("shop/api");
        let resolved = format!("{repository}@{}", image.root.digest);
        shop.account.version("worker", version, &format!("{repository}:{tag}"), &resolved);
    };
    let prod = image("shop/api:prod-1.1.0");
    shop.account.function("worker", &prod, &format!("{}@{}", image("shop/api"), new.root.digest));
    // Numbers are not compared as text, and older versions do not count.
    publish("9", "prod-1.0.0", &old);
    publish("10", "prod-1.1.0", &new);
    assert_eq!(of(&shop.of("prod", 0)["runs"], "name"), ["worker", "worker:10"]);
    publish("11", "prod-1.0.0", &old);
    let row = shop.of("prod", 1);
    assert_eq!(row["state"], "not-deployed");
    assert!(reasons(&row).contains("function `worker:11` runs 1.0.0"), "{row}");
    // Callers use the alias.
    let resolved = format!("{}@{}", image("shop/api"), new.root.digest);
    shop.account.alias("worker", "live", "10", &prod, &resolved);
    assert_eq!(of(&shop.of("prod", 0)["runs"], "name"), ["worker", "worker:live"]);
}

#[test]
fn the_versions_that_endpoints_of_agents_serve_run() {
    let (shop, old, new) = Shop::released();
    let (newest, older) = (image("shop/api:prod-1.1.0"), image("shop/api:prod-1.0.0"));
    shop.account.runtime("coder", &["code"]);
    shop.account.runtime("foreign", &[&image("shop/other:prod-1.0.0")]);
    // An older version that no endpoint serves does not run.
    shop.account.runtime("agent", &[&older, &newest]);
    let row = shop.of("prod", 0);
    let runs = &row["runs"];
    assert_eq!((of(runs, "kind"), of(runs, "name")), (vec![json!("agent-runtime")], vec![json!("agent")]));
    assert_eq!(of(runs, "digest"), [json!(new.root.digest)]);
    shop.account.endpoint("agent", "live", "1", "2");
    let row = shop.of("prod", 1);
    assert_eq!(row["state"], "not-deployed");
    assert_eq!(of(&row["runs"], "name"), ["agent", "agent/live", "agent/live"]);
    assert_eq!(of(&row["runs"], "version"), ["1.1.0", "1.0.0", "1.1.0"]);
    let short = &old.root.digest["sha256:".len()..][..12];
    let told = format!("agent-runtime `agent/live` runs 1.0.0 ({short}), and a deployment is in progress");
    assert!(reasons(&row).contains(&told), "{row}");
    shop.account.deny("bedrock-agentcore:GetAgentRuntime");
    let unread = read(&shop.status("prod").run().exits(1))["unread"][0].as_str().unwrap().to_owned();
    insta::assert_snapshot!(unread, @"Bedrock AgentCore runtimes cannot be read: bedrock-agentcore:GetAgentRuntime on version 2 of runtime agent was denied: no policy allows it");
}

#[test]
fn a_region_without_an_endpoint_of_agentcore_runs_no_agents() {
    let (shop, _, _) = Shop::released();
    // Nothing listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let status = |region: &str| {
        let step = shop.status("prod").input("target-region", region);
        let step = step.input("registry", &default_host());
        step.env("AWS_ENDPOINT_URL_BEDROCK_AGENTCORE_CONTROL", format!("http://{closed}"))
    };
    let unread = read(&status("us-east-1").run().exits(1))["unread"].clone();
    insta::assert_snapshot!(unread[0].as_str().unwrap(), @"Bedrock AgentCore runtimes cannot be read: bedrock-agentcore:ListAgentRuntimes: no answer");
    shop.account.moves_to("mx-central-1");
    assert_eq!(read(&status("mx-central-1").run().exits(0)).get("unread"), None);
}

#[test]
fn a_base_image_that_was_replaced_is_told_and_is_no_drift() {
    let shop = Shop::new(BY_TAG, &["shop/api", "base/nginx"]);
    let registry = shop.ecr.default_registry();
    let base = Image::new(50);
    registry.push("base/nginx", &["1.27"], &base);
    let release = |version: &str, seed: u64, digest: &str, name: &str| {
        let mut built = Image::new(seed);
        let mut root: Value = serde_json::from_slice(&built.root.bytes).unwrap();
        root["annotations"] =
            json!({"org.opencontainers.image.base.name": name, "org.opencontainers.image.base.digest": digest});
        built.root.bytes = root.to_string().into();
        built.root.digest = oci::Digest::of(&built.root.bytes).to_string();
        let _ = std::fs::remove_dir_all(shop.project.layout());
        shop.project.built("Api", &built);
        shop.step(shop.project.publish(), version).run().exits(0);
    };
    let name = image("base/nginx:1.27");
    // The digest of the index, or of one platform in it.
    release("1.0.0", 1, &base.root.digest, &name);
    let expected = json!({"name": name, "digest": base.root.digest, "state": "current"});
    assert_eq!(shop.of("dev", 0)["base"], expected);
    release("1.1.0", 2, &base.children[0].digest, &name);
    assert_eq!(
        (&shop.of("dev", 0)["base"]["state"], &shop.of("dev", 0)["state"]),
        (&json!("current"), &json!("in-step"))
    );
    registry.push("base/nginx", &["1.27"], &Image::new(51));
    let run = shop.status("dev").run().exits(0);
    let status = read(&run);
    let row = &status["images"][0];
    assert_eq!(
        (&status["drift"], &row["state"], &row["base"]["state"]),
        (&json!(false), &json!("base-outdated"), &json!("outdated"))
    );
    let told = format!("its base image `{name}` has been replaced since the build");
    assert!(reasons(row).contains(&told) && run.log.messages("warning")[0].contains(&told), "{row}");
    assert!(run.log.messages("error").is_empty(), "{}", run.log.raw);
    // A name that cannot be read is not known.
    release("1.2.0", 3, &base.root.digest, &image("base/missing:1"));
    let row = shop.of("dev", 0);
    assert_eq!((&row["state"], &row["base"]["state"]), (&json!("in-step"), &json!("unknown")));
}

#[test]
fn something_runs_what_no_tag_points_to() {
    let (shop, _, new) = Shop::released();
    let stranger = format!("sha256:{}", "7".repeat(64));
    let prod = image("shop/api:prod-1.1.0");
    shop.account.define("shop:7", &[&prod]);
    shop.account.serve("a", "shop", "shop:7", &[&[&stranger], &[&new.root.digest]]);
    let row = shop.of("prod", 1);
    assert_eq!(row["state"], "untagged");
    for run in row["runs"].as_array().unwrap() {
        let state = if run["digest"] == stranger { "untagged" } else { "in-step" };
        assert_eq!(run["state"], state, "{run}");
    }
    assert_eq!(row["runs"].as_array().unwrap().len(), 2);
    assert!(reasons(&row).contains("which no tag of prod points to"), "{row}");
    // A tag that does not exist.
    shop.account.serve("a", "shop", "shop:7", &[&[&new.root.digest]]);
    shop.account.define("next:1", &[&image("shop/api:prod-3.0.0")]);
    let row = shop.of("prod", 1);
    assert_eq!(row["state"], "untagged");
    assert!(reasons(&row).contains("shop/api:prod-3.0.0`, which does not exist"), "{row}");
}

#[test]
fn what_cannot_be_read_is_unknown_and_told_once() {
    let (shop, _, _) = Shop::released();
    shop.account.deny("ecs:ListClusters");
    let run = shop.status("").run().exits(1);
    let status = read(&run);
    assert_eq!(of(&status["images"], "state"), ["unknown"; 3]);
    insta::assert_snapshot!(status["unread"][0].as_str().unwrap(), @"ECS services and tasks cannot be read: ecs:ListClusters on region us-east-1 was denied: no policy allows it");
    let errors = run.log.messages("error");
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("allow ecs:ListClusters in the role's policy"), "{errors:?}");
    // The other kinds were asked all the same.
    assert!(
        shop.account
            .calls()
            .is_superset(&["ecs:ListTaskDefinitionFamilies", "lambda:ListFunctions"].map(str::to_owned).into())
    );
    shop.account.deny("ecs:ListTaskDefinitionFamilies");
    shop.account.deny("lambda:ListFunctions");
    shop.account.deny("bedrock-agentcore:ListAgentRuntimes");
    // What is known to be wrong is said all the same.
    shop.ecr.default_registry().push("shop/api", &["prod-1.1.0"], &Image::new(9));
    let status = read(&shop.status("").run().exits(1));
    assert_eq!(of(&status["images"], "state"), ["unknown", "unknown", "moved"]);
    assert_eq!(status["unread"].as_array().unwrap().len(), 4);
}

#[test]
fn the_policy_in_the_docs_is_what_is_called() {
    let (shop, _, new) = Shop::released();
    let prod = image("shop/api:prod-1.1.0");
    shop.account.define("shop:7", &[&prod]);
    shop.account.define("idle:1", &[&prod]);
    shop.account.serve("a", "shop", "shop:7", &[&[&new.root.digest]]);
    let resolved = format!("{}@{}", image("shop/api"), new.root.digest);
    shop.account.function("worker", &prod, &resolved);
    shop.account.version("worker", "1", &prod, &resolved);
    shop.account.deploy("a", "shop", "idle:1", "IN_PROGRESS", &[&new.root.digest]);
    shop.account.runtime("agent", &[&prod]);
    shop.of("prod", 0);
    let policy: Value = serde_json::from_str(include_str!("../docs/policies/status.json")).unwrap();
    let statements = policy["Statement"].as_array().unwrap().iter();
    let actions = statements.flat_map(|statement| match &statement["Action"] {
        Value::String(action) => vec![action.clone()],
        actions => actions.as_array().unwrap().iter().map(|action| action.as_str().unwrap().to_owned()).collect(),
    });
    let services = ["ecs:", "lambda:", "bedrock-agentcore:"];
    let workloads = actions.filter(|action| services.iter().any(|service| action.starts_with(service)));
    assert_eq!(workloads.collect::<std::collections::BTreeSet<_>>(), shop.account.calls());
}

#[test]
fn a_comment_has_the_table() {
    let (shop, old, _) = Shop::released();
    shop.account.define("shop:6", &[&image("shop/api:prod-1.0.0")]);
    shop.account.serve("a", "shop", "shop:6", &[&[&old.root.digest]]);
    let github = GitHub::start();
    let event = shop.project.folder().join("event.json");
    std::fs::write(&event, r#"{"pull_request": {"number": 7}}"#).unwrap();
    let step = shop.status("prod").env("GITHUB_EVENT_NAME", "pull_request").env("GITHUB_EVENT_PATH", &event);
    github.with(step).input("comment", "true").run().exits(1);
    let exchanges = github.take_valid();
    let comment = exchanges.last().unwrap().body["body"].as_str().unwrap();
    for part in ["<!-- image-lifecycle:status prod -->", "Status of prod", "not-deployed", "runs 1.0.0"] {
        assert!(comment.contains(part), "{part}: {comment}");
    }
}

#[test]
fn the_text_stays_the_same_until_something_changes() {
    let (shop, old, new) = Shop::released();
    shop.account.define("shop:6", &[&image("shop/api:prod-1.0.0"), &image("shop/api:prod-1.0.0")]);
    shop.account.define("shop:7", &[&image("shop/api:prod-1.1.0")]);
    let old_tasks: &[&[&str]] = &[&[&old.root.digest, &old.root.digest], &[&old.root.digest, &old.root.digest]];
    shop.account.serve("a", "shop", "shop:6", old_tasks);
    shop.account.serve("b", "shop", "shop:6", old_tasks);
    let text = || read(&shop.status("").run().exits(1))["text"].as_str().unwrap().to_owned();
    let before = text();
    // Neither another run, nor the order or number of the tasks makes a difference.
    shop.account.serve("a", "shop", "shop:6", &old_tasks[..1]);
    let step =
        shop.status("").inputs(&[("concurrency", "1")]).env("GITHUB_RUN_ID", "43").env("GITHUB_ACTOR", "somebody");
    assert_eq!(read(&step.run().exits(1))["text"], before.as_str());
    assert_eq!(before.matches("runs 1.0.0").count(), 4, "{before}");
    shop.account.serve("a", "shop", "shop:7", &[&[&new.root.digest]]);
    let after = text();
    assert!(after != before && after.matches("runs 1.0.0").count() == 2, "{after}");
}

#[test]
fn emulators_run_what_was_promoted() {
    let shop = Shop::new(BY_TAG, &["shop/api"]);
    let platforms = vec!["linux/amd64".into()];
    let built = Image::of(&ImageSpec { platforms, seed: 1, ..ImageSpec::default() });
    shop.project.built("Api", &built);
    shop.step(shop.project.publish(), "1.0.0").run().exits(0);
    shop.step(shop.project.promote("test"), "1.0.0").run().exits(0);
    let (moto, ministack) = (Emulator::moto(), Emulator::ministack());
    let test = image("shop/api:test-1.0.0");
    let definition = json!({"family": "shop", "containerDefinitions": [{"name": "api", "image": test, "memory": 64}]});
    moto.ecs("RegisterTaskDefinition", &definition);
    moto.ecs("CreateCluster", &json!({"clusterName": "a"}));
    moto.ecs(
        "CreateService",
        &json!({"cluster": "a", "serviceName": "api", "taskDefinition": "shop", "desiredCount": 0}),
    );
    let pinned = format!("{}@{}", image("shop/api"), built.root.digest);
    let function = json!({"FunctionName": "worker", "PackageType": "Image", "Code": {"ImageUri": pinned},
        "Role": "arn:aws:iam::000000000000:role/worker"});
    ministack.post("/2015-03-31/functions", "Content-Type: application/json\r\n", &function.to_string());
    moto.create_agent_runtime(&json!({"agentRuntimeName": "agent", "roleArn": "arn:aws:iam::123456789012:role/agent",
        "agentRuntimeArtifact": {"containerConfiguration": {"containerUri": test}},
        "networkConfiguration": {"networkMode": "PUBLIC"}}));
    let status = shop.step(shop.project.promote("test"), "").input("mode", "status");
    let status = status.env("AWS_ENDPOINT_URL_ECS", moto.url()).env("AWS_ENDPOINT_URL_LAMBDA", ministack.url());
    let status = status.env("AWS_ENDPOINT_URL_BEDROCK_AGENTCORE_CONTROL", moto.url());
    let status = read(&status.run().exits(0));
    let runs = &status["images"][0]["runs"];
    assert_eq!(of(runs, "name"), ["agent", "worker", "a/api"]);
    assert_eq!(of(runs, "digest"), [json!(built.root.digest), json!(built.root.digest), json!(built.root.digest)]);
}
