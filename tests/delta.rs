//! What a promotion changes in an environment: shown before it happens, from digests and evidence, and never guessed.

use ecr_fake::{ACCESS_KEY, ACCOUNT, Config, Ecr, Image, ImageSpec, Policy, REGION, RepositorySettings, User};
use lifecycle::evidence::scan::Severity;
use serde_json::{Value, json};

use crate::support::evidence::Evidence;
use crate::support::gates::detail;
use crate::support::prism::GitHub;
use crate::support::project::{BY_TAG, Project, aws, default_host, set_registry};
use crate::support::runner::{Action, Run, Step};
use crate::support::workloads::Account;

/// The access key of a user who can only read.
const READER: &str = "AKIAREADER";

struct Shop {
    ecr: Ecr,
    project: Project,
}

/// The evidence of a version.
struct Build<'a> {
    packages: &'a [(&'a str, &'a str)],
    found: &'a [(&'a str, Severity)],
}

const OLD: Build<'_> =
    Build { packages: &[("openssl", "3.0.1"), ("zlib", "1.2")], found: &[("CVE-1", Severity::High)] };
const NEW: Build<'_> =
    Build { packages: &[("openssl", "3.0.2"), ("curl", "8.0")], found: &[("CVE-2", Severity::Critical)] };

impl Shop {
    fn new() -> Shop {
        // Enough to read, and no more.
        let reader = User::new(READER, ACCOUNT).policy(Policy::only(&[
            "ssm:GetParameter",
            "ecr:GetAuthorizationToken",
            "ecr:BatchGetImage",
            "ecr:GetDownloadUrlForLayer",
            "ecr:ListImages",
        ]));
        let ecr = Ecr::start(Config { users: vec![User::new(ACCESS_KEY, ACCOUNT), reader], ..Config::default() });
        set_registry(&ecr);
        ecr.default_registry().create("shop/api", RepositorySettings::default());
        Shop { ecr, project: Project::new(BY_TAG) }
    }

    /// Puts an image with its evidence into the layout.
    fn build(&self, seed: u64, build: &Build<'_>) -> Image {
        let image = Image::of(&ImageSpec { platforms: vec!["linux/amd64".into()], seed, ..ImageSpec::default() });
        let _ = std::fs::remove_dir_all(self.project.layout());
        self.project.built("Api", &image);
        let layout = self.project.layout();
        let evidence = Evidence::of(&layout, &image);
        evidence.sbom_of(build.packages);
        evidence.scan(0, build.found, 60);
        evidence.provenance("https://github.com/shop/backend");
        image
    }

    fn step(&self, step: Step, version: &str) -> Step {
        aws(step, &self.ecr).inputs(&[("version", version), ("images", "Api")])
    }

    /// Takes a build to an environment.
    fn release(&self, version: &str, seed: u64, build: &Build<'_>, ladder: &[&str]) -> Image {
        let image = self.build(seed, build);
        self.step(self.project.publish(), version).run().exits(0);
        for to in ladder {
            self.step(self.project.promote(to), version).run().exits(0);
        }
        image
    }

    fn promote(&self, to: &str, version: &str) -> Step {
        self.step(self.project.promote(to), version)
    }
}

fn delta(run: &Run) -> Value {
    let deltas = run.json("delta");
    let [delta] = deltas.as_array().unwrap().as_slice() else { panic!("{deltas}") };
    delta.clone()
}

#[test]
fn a_promotion_tells_what_it_changes() {
    let shop = Shop::new();
    let old = shop.release("1.0.0", 1, &OLD, &["test"]);
    let new = shop.release("1.1.0", 2, &NEW, &[]);
    let before = shop.ecr.snapshot();
    let planned = shop.promote("test", "1.1.0").input("dry-run", "true").run().exits(0);
    assert_eq!(shop.ecr.snapshot(), before);
    let told = delta(&planned);
    let commit = "0123456789abcdef0123456789abcdef01234567";
    assert_eq!(told["from"], json!({"digest": old.root.digest, "version": "1.0.0", "commit": commit}));
    assert_eq!(told["to"], json!({"digest": new.root.digest, "version": "1.1.0", "commit": commit}));
    assert_eq!(told["missing"], json!([]));
    let platform = &told["platforms"]["linux/amd64"];
    assert_eq!(
        platform["packages"],
        json!({
            "added": [{"name": "curl", "version": "8.0"}],
            "removed": [{"name": "zlib", "version": "1.2"}],
            "changed": [{"name": "openssl", "from": "3.0.1", "to": "3.0.2"}],
        })
    );
    assert_eq!(
        platform["vulnerabilities"],
        json!({
            "introduced": [{"id": "CVE-2", "severity": "critical", "package": "openssl"}],
            "resolved": [{"id": "CVE-1", "severity": "high", "package": "openssl"}],
        })
    );
    assert_eq!(told["deployedBy"], json!(["Task (template.yaml:15:18)"]));
    for part in
        ["What changes in test", "1 added, 1 removed, 1 changed", "1 critical, −1 high", "CVE-2 (critical) in openssl"]
    {
        assert!(planned.summary.contains(part), "{part}: {}", planned.summary);
    }
    // The promotion itself shows the same. An image that the environment already has changes nothing.
    let done = shop.promote("test", "1.1.0").run().exits(0);
    assert_eq!(delta(&done), told);
    assert_eq!(shop.promote("test", "1.1.0").run().exits(0).json("delta"), json!([]));
    assert_eq!(shop.promote("prod", "1.0.0").input("delta", "false").run().exits(0).output("delta"), "");
}

#[test]
fn an_environment_without_an_image_gets_everything_and_one_without_records_is_not_known() {
    let shop = Shop::new();
    shop.release("1.0.0", 1, &OLD, &[]);
    let told = delta(&shop.promote("test", "1.0.0").input("dry-run", "true").run().exits(0));
    assert_eq!(
        (&told["from"], told["platforms"]["linux/amd64"]["packages"]["added"].as_array().unwrap().len()),
        (&Value::Null, 2)
    );

    let foreign = Image::new(9);
    shop.ecr.default_registry().push("shop/api", &["test-0.9.0"], &foreign);
    let run = shop.promote("test", "1.0.0").input("dry-run", "true").run().exits(0);
    assert_eq!(run.json("delta"), json!([]));
    assert!(run.summary.contains("it is not known what test has now: its tags have no records"), "{}", run.summary);
    let run = shop.promote("test", "1.0.0").input("require", "no-new=low").run().exits(1);
    assert!(
        detail(&run, "no-new=low").contains("needs to know which image test has now"),
        "{}",
        detail(&run, "no-new=low")
    );
}

#[test]
fn evidence_that_is_missing_is_said() {
    let shop = Shop::new();
    let image = Image::of(&ImageSpec { platforms: vec!["linux/amd64".into()], seed: 1, ..ImageSpec::default() });
    shop.project.built("Api", &image);
    shop.step(shop.project.publish(), "1.0.0").run().exits(0);
    shop.promote("test", "1.0.0").run().exits(0);
    shop.release("1.1.0", 2, &NEW, &[]);
    let run = shop.promote("test", "1.1.0").input("dry-run", "true").run().exits(0);
    let told = delta(&run);
    let missing: Vec<&str> = told["missing"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert_eq!(
        missing,
        [
            "the packages of linux/amd64 of the current image are not known: it has no SBOM",
            "the vulnerabilities of linux/amd64 of the current image are not known: it has no scan",
            "the commit of the current image is not known",
        ]
    );
    assert_eq!(told["platforms"]["linux/amd64"].get("packages"), None);
    assert!(run.summary.contains("it has no SBOM"), "{}", run.summary);
    let run = shop.promote("test", "1.1.0").input("require", "no-new=low").run().exits(1);
    assert!(
        detail(&run, "no-new=low").contains("needs the scan of the image that test has now"),
        "{}",
        detail(&run, "no-new=low")
    );
}

#[test]
fn new_vulnerabilities_block_and_known_ones_do_not() {
    let shop = Shop::new();
    shop.release("1.0.0", 1, &OLD, &["test"]);
    shop.release("1.1.0", 2, &NEW, &[]);
    let run = shop.promote("test", "1.1.0").input("require", "no-new=high").run().exits(1);
    insta::assert_snapshot!(detail(&run, "no-new=high"), @"it introduces 1 vulnerability of severity high or worse that test does not have (CVE-2): fix or waive them, and build again");
    // A vulnerability that was there before is not new, whatever its severity.
    let same = Build { packages: OLD.packages, found: &[("CVE-1", Severity::High), ("CVE-9", Severity::Low)] };
    shop.release("1.2.0", 3, &same, &[]);
    let run = shop.promote("test", "1.2.0").input("require", "no-new=medium").run().exits(0);
    insta::assert_snapshot!(detail(&run, "no-new=medium"), @"it introduces no vulnerability of severity medium or worse that test does not have");
    shop.promote("test", "1.2.0").input("require", "no-new=low").run().exits(0);
}

#[test]
fn a_pull_request_sees_what_its_build_would_change() {
    let shop = Shop::new();
    let old = shop.release("1.0.0", 1, &OLD, &["test"]);
    let new = shop.build(2, &NEW);
    let github = GitHub::start();
    let event = shop.project.folder().join("event.json");
    std::fs::write(&event, r#"{"pull_request": {"number": 7}}"#).unwrap();
    let before = shop.ecr.snapshot();
    let preview = |to: &str| {
        let step = Step::new(Action::Promote, shop.project.folder())
            .envs(shop.ecr.environment(READER, REGION))
            .input("registry-endpoints", &shop.ecr.registry_endpoints())
            .env("GITHUB_EVENT_NAME", "pull_request")
            .env("GITHUB_EVENT_PATH", &event);
        let layout = shop.project.layout();
        github.with(step).inputs(&[
            ("mode", "preview"),
            ("to", to),
            ("images", "Api"),
            ("comment", "true"),
            ("layout", layout.to_str().unwrap()),
        ])
    };
    let run = preview("test").run().exits(0);
    let told = delta(&run);
    assert_eq!((&told["from"]["digest"], &told["from"]["version"]), (&json!(old.root.digest), &json!("1.0.0")));
    assert_eq!((&told["to"]["digest"], told["to"].get("version")), (&json!(new.root.digest), None));
    let exchanges = github.take_valid();
    let comment = exchanges.last().unwrap().body["body"].as_str().unwrap();
    for part in ["<!-- image-lifecycle:preview test -->", "What would change in test", "CVE-2"] {
        assert!(comment.contains(part), "{part}: {comment}");
    }
    // In an environment without images, everything is new.
    assert_eq!(delta(&preview("prod").run().exits(0))["from"], Value::Null);
    // Between environments, with a version.
    let run = preview("prod").inputs(&[("version", "1.0.0")]).run().exits(0);
    assert_eq!(delta(&run)["to"]["digest"], json!(old.root.digest));
    assert_eq!(shop.ecr.snapshot(), before);
    let run = preview("test").input("layout", "nowhere").run().exits(2);
    assert!(run.error().contains("there is no OCI layout in"), "{}", run.error());
}

#[test]
fn a_lifecycle_policy_that_takes_a_live_image_blocks() {
    let shop = Shop::new();
    shop.release("1.0.0", 1, &OLD, &["test"]);
    let account = Account::start();
    let promote = || account.at(shop.promote("prod", "1.0.0").input("require", "retained"));
    let policy = |text: &str| {
        shop.ecr.default_registry().change("shop/api", |repository| {
            repository.settings.lifecycle_policy = Some(text.to_owned());
        });
    };
    let rule = |priority: u32, pattern: &str, count: u32| {
        format!(
            r#"{{"rulePriority": {priority}, "selection": {{"tagStatus": "tagged", "tagPatternList": ["{pattern}"],
                "countType": "imageCountMoreThan", "countNumber": {count}}}, "action": {{"type": "expire"}}}}"#
        )
    };
    policy(&format!(r#"{{"rules": [{}]}}"#, rule(1, "dev-*", 10)));
    let before = shop.ecr.snapshot();
    let run = promote().run().exits(1);
    insta::assert_snapshot!(detail(&run, "retained"), @"needs `prod-1.0.0` to stay in `shop/api`, but rule 1 of the lifecycle policy deletes it after 10 more pushes, although prod holds it (it also has the tag `dev-1.0.0`, and a rule acts on the whole image): before the other rules, add one for `prod-*` that keeps enough images");
    policy(
        r#"{"rules": [{"rulePriority": 1, "selection": {"tagStatus": "any", "countType": "sinceFullMoon",
        "countNumber": 1}, "action": {"type": "expire"}}]}"#,
    );
    let run = promote().run().exits(1);
    insta::assert_snapshot!(detail(&run, "retained"), @"needs to understand the lifecycle policy of `shop/api`, but rule 1 of the lifecycle policy has the unknown count type `sinceFullMoon`: take `retained` out of `require`");
    policy(&format!(r#"{{"rules": [{}, {}]}}"#, rule(1, "prod-*", 5), rule(2, "dev-*", 10)));
    let run = promote().run().exits(0);
    insta::assert_snapshot!(detail(&run, "retained"), @"no rule of the lifecycle policy removes it or the 2 images before it");
    assert_ne!(shop.ecr.snapshot(), before);
    shop.ecr.default_registry().change("shop/api", |repository| repository.settings.lifecycle_policy = None);
    let run = promote().run().exits(0);
    insta::assert_snapshot!(detail(&run, "retained"), @"the repository has no lifecycle policy");
}

#[test]
fn a_lifecycle_policy_that_takes_what_runs_blocks() {
    let shop = Shop::new();
    let account = Account::start();
    let images: Vec<Image> =
        (0..5).map(|minor| shop.release(&format!("1.{minor}.0"), minor, &OLD, &["test", "prod"])).collect();
    shop.release("1.5.0", 5, &OLD, &["test"]);
    let promote = || account.at(shop.promote("prod", "1.5.0").inputs(&[("require", "retained"), ("dry-run", "true")]));
    let policy = |tags: &str, count: u32| {
        let text = format!(
            r#"{{"rules": [{{"rulePriority": 1, "selection": {{{tags}, "countType": "imageCountMoreThan",
                "countNumber": {count}}}, "action": {{"type": "expire"}}}}]}}"#
        );
        shop.ecr.default_registry().change("shop/api", |repository| {
            repository.settings.lifecycle_policy = Some(text.clone());
        });
    };
    policy(r#""tagStatus": "tagged", "tagPatternList": ["prod-*"]"#, 4);
    let run = promote().run().exits(0);
    insta::assert_snapshot!(detail(&run, "retained"), @"no rule of the lifecycle policy removes it or the 2 images before it");
    // A service still runs an image that is too old to be rolled back to.
    let repository = format!("{}/shop/api", default_host());
    account.define("shop:1", &[&format!("{repository}:prod-1.0.0")]);
    account.define("shop-dev:1", &[&format!("{repository}:dev-1.0.0")]);
    account.serve("a", "shop", "shop:1", &[&[&images[0].root.digest]]);
    let run = promote().run().exits(1);
    insta::assert_snapshot!(detail(&run, "retained"), @"needs `prod-1.0.0` to stay in `shop/api`, but rule 1 of the lifecycle policy deletes it within a day, although service `a/shop` holds it: before the other rules, add one for `prod-*` that keeps enough images");
    account.serve("a", "shop", "shop:1", &[]);
    account.define("shop:2", &[&format!("{repository}:prod-1.4.0")]);
    account.serve("a", "shop", "shop:2", &[&[&images[4].root.digest]]);
    // A function runs the image of one platform, which stays with its index.
    let index = Image::new(97);
    shop.ecr.default_registry().push("shop/api", &["prod-0.9.0"], &index);
    let run_by_function = |digest: &str| {
        account.function("worker", &format!("{repository}:prod-0.9.0"), &format!("{repository}@{digest}"));
    };
    run_by_function(&index.children[0].digest);
    let run = promote().run().exits(0);
    insta::assert_snapshot!(detail(&run, "retained"), @"no rule of the lifecycle policy removes it, the 2 images before it, or what 2 workloads run in the account");
    policy(r#""tagStatus": "untagged""#, 1);
    promote().run().exits(0);
    // One without any tag may belong to the environment.
    let stranger = Image::new(99);
    shop.ecr.default_registry().push("shop/api", &[], &stranger);
    shop.ecr.default_registry().push("shop/api", &[], &Image::new(98));
    let pinned = format!("{repository}@{}", stranger.root.digest);
    account.function("worker", &pinned, &pinned);
    let run = promote().run().exits(1);
    let told = detail(&run, "retained");
    assert!(told.contains("although function `worker` holds it: deploy an image that prod holds"), "{told}");
    // What may not be read is said.
    for action in [
        "ecs:ListClusters",
        "ecs:ListTaskDefinitionFamilies",
        "lambda:ListFunctions",
        "bedrock-agentcore:ListAgentRuntimes",
    ] {
        account.deny(action);
    }
    let run = promote().run().exits(0);
    insta::assert_snapshot!(detail(&run, "retained"), @"no rule of the lifecycle policy removes it or the 2 images before it; not known: ECS services and tasks (ecs:ListClusters on region us-east-1 was denied: no policy allows it), ECS task definitions (ecs:ListTaskDefinitionFamilies on region us-east-1 was denied: no policy allows it), Lambda functions (lambda:ListFunctions on region us-east-1 was denied: no policy allows it), Bedrock AgentCore runtimes (bedrock-agentcore:ListAgentRuntimes on region us-east-1 was denied: no policy allows it)");
}
