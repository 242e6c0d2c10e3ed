//! Repositories that are missing: refused, made with settings, or left to the registry's own templates.

use ecr_fake::http::RequestKind;
use ecr_fake::{
    ACCESS_KEY, ACCOUNT, Config, Ecr, Hook, Image, ImageTagMutability, Policy, REGION, RepositorySettings, User,
};

use crate::support::project::{BY_REPOSITORY, BY_TAG, Project, aws, creation_template, set_registry};
use crate::support::runner::Step;

const OTHER_REGION: &str = "eu-west-1";

fn shop(config: Config) -> (Ecr, Project, Image) {
    let ecr = Ecr::start(config);
    set_registry(&ecr);
    let project = Project::new(BY_TAG);
    let image = Image::new(1);
    project.built("Api", &image);
    (ecr, project, image)
}

fn publish(project: &Project, ecr: &Ecr) -> Step {
    aws(project.publish(), ecr).input("images", "Api")
}

#[test]
fn a_missing_repository_is_named_with_the_command_that_makes_it() {
    let (ecr, project, _) = shop(Config::default());
    let run = publish(&project, &ecr).run().exits(1);
    let error = run.error();
    assert!(error.contains("repository `shop/api` does not exist in 111122223333/us-east-1"), "{error}");
    assert!(error.contains("aws ecr create-repository --region us-east-1 --repository-name shop/api"), "{error}");
    assert!(ecr.writes().is_empty(), "{}", ecr.table());
    assert_eq!(ecr.count(RequestKind::api("CreateRepository")), 0);
}

#[test]
fn a_missing_repository_is_made_as_the_settings_say() {
    let (ecr, project, image) = shop(Config::default());
    std::fs::write(project.folder().join("lifecycle.json"), r#"{"rules":[]}"#).unwrap();
    let settings = "mutability: IMMUTABLE_WITH_EXCLUSION\nexclusionFilters: [latest]\nscanOnPush: true\n\
                    lifecyclePolicy: lifecycle.json\ntags:\n  team: shop\n";
    let step = || {
        publish(&project, &ecr).inputs(&[
            ("create-repositories", "missing"),
            ("repository-settings", settings),
            ("extra-tags", "latest"),
        ])
    };
    step().run().exits(0);
    let repository = ecr.default_registry().repository("shop/api").unwrap();
    assert_eq!(repository.settings.image_tag_mutability, ImageTagMutability::ImmutableWithExclusion);
    assert_eq!(repository.settings.exclusion_filters, ["latest"]);
    assert!(repository.settings.scan_on_push);
    assert_eq!(repository.settings.lifecycle_policy.as_deref(), Some(r#"{"rules":[]}"#));
    assert_eq!(repository.settings.tags, [("team".to_owned(), "shop".to_owned())]);
    assert_eq!(ecr.default_registry().resolve("shop/api", "dev-1.0.0"), Some(image.root.digest.clone()));
    let run = step().run().exits(0);
    assert_eq!(run.of_images("status"), ["unchanged"]);
    assert_eq!(ecr.count(RequestKind::api("CreateRepository")), 1);
}

#[test]
fn a_safe_lifecycle_policy_is_made_for_the_names() {
    let (ecr, project, _) = shop(Config::default());
    let settings = [("create-repositories", "missing"), ("repository-settings", "lifecycle: safe")];
    publish(&project, &ecr).inputs(&settings).run().exits(0);
    let policy = ecr.default_registry().repository("shop/api").unwrap().settings.lifecycle_policy.unwrap();
    let policy: serde_json::Value = serde_json::from_str(&policy).unwrap();
    let rules = policy["rules"].as_array().unwrap();
    assert_eq!((rules.len(), &rules[0]["selection"]["tagStatus"]), (1, &"untagged".into()));
    let promote = aws(project.promote("test"), &ecr).input("images", "Api").input("require", "retained").run();
    assert_eq!(promote.exits(0).of_images("status"), ["promoted"]);
}

#[test]
fn no_lifecycle_policy_is_safe_for_a_name_that_moves() {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    let project = Project::new(&BY_TAG.replace("${Environment}-${DeploymentVersion}", "${Environment}"));
    project.built("Api", &Image::new(1));
    let settings = [("create-repositories", "missing"), ("repository-settings", "lifecycle: safe")];
    let run = publish(&project, &ecr).inputs(&settings).run().exits(1);
    assert!(run.error().contains("no lifecycle policy is safe for image `Api`"), "{}", run.error());
    assert!(run.error().contains("put the version into the tag"), "{}", run.error());
    assert_eq!(ecr.count(RequestKind::api("CreateRepository")), 0);
    // A repository that exists keeps its policy.
    ecr.default_registry().create("shop/api", RepositorySettings::default());
    publish(&project, &ecr).inputs(&settings).run().exits(0);
}

#[test]
fn a_template_of_the_registry_makes_it_or_is_missed_before_a_byte_is_sent() {
    let (ecr, project, image) =
        shop(Config { repository_creation_templates: vec![creation_template("shop")], ..Config::default() });
    publish(&project, &ecr).input("create-repositories", "template").run().exits(0);
    assert_eq!(ecr.default_registry().resolve("shop/api", "dev-1.0.0"), Some(image.root.digest));

    let (ecr, project, _) =
        shop(Config { repository_creation_templates: vec![creation_template("other")], ..Config::default() });
    let run = publish(&project, &ecr).input("create-repositories", "template").run().exits(1);
    assert!(run.error().contains("(prefixes: other)"), "{}", run.error());
    assert!(ecr.writes().is_empty(), "{}", ecr.table());
}

#[test]
fn settings_that_are_wrong_are_an_input_error() {
    let (ecr, project, _) = shop(Config::default());
    let run = publish(&project, &ecr).input("repository-settings", "mutability: SOMETIMES").run().exits(2);
    assert!(run.error().contains("`SOMETIMES` is not accepted"), "{}", run.error());
    assert!(ecr.log().is_empty(), "{}", ecr.table());
}

#[test]
fn promote_makes_what_the_other_registry_lacks() {
    let registries = vec![(ACCOUNT.into(), REGION.into()), (ACCOUNT.into(), OTHER_REGION.into())];
    let (ecr, project, mut image) = shop(Config { registries, ..Config::default() });
    let provenance = image.attach(&image.root.digest.clone(), "application/vnd.in-toto+json", b"{}");
    ecr.default_registry().push("shop/api", &["dev-1.0.0"], &image);
    let other = ecr.registry(ACCOUNT, OTHER_REGION);
    let step = || aws(project.promote("test"), &ecr).input("images", "Api").input("target-registry", &other.host());
    let run = step().run().exits(1);
    assert!(run.error().contains("does not exist in 111122223333/eu-west-1"), "{}", run.error());
    assert!(ecr.writes().is_empty(), "{}", ecr.table());
    step().input("create-repositories", "missing").run().exits(0);
    assert_eq!(other.resolve("shop/api", "test-1.0.0"), Some(image.root.digest));
    other.whole("shop/api", &provenance).unwrap();
}

#[test]
fn a_repository_that_is_missing_hides_no_evidence() {
    for create in ["missing", "template"] {
        let ecr =
            Ecr::start(Config { repository_creation_templates: vec![creation_template("ROOT")], ..Config::default() });
        set_registry(&ecr);
        let project = Project::new(BY_REPOSITORY);
        let mut image = Image::new(1);
        let (root, platform) = (image.root.digest.clone(), image.children[0].digest.clone());
        let attached = [&root, &platform].map(|on| image.attach(on, "application/vnd.in-toto+json", b"{}"));
        let registry = ecr.default_registry();
        registry.push("dev/shop/api", &["1.0.0"], &image);
        let run = aws(project.promote("test"), &ecr).input("create-repositories", create).run().exits(0);
        assert_eq!(run.of_images("status"), ["promoted"]);
        for referrer in &attached {
            registry.whole("test/shop/api", referrer).unwrap();
        }
        // With the record.
        assert_eq!(registry.referrers("test/shop/api", &root).len(), 2, "{}", ecr.table());
    }
}

const POLICIES: &str = "lifecyclePolicy: lifecycle.json\nrepositoryPolicy: repository.json\n";

/// A run that makes a repository with both policies.
fn with_policies(project: &Project, ecr: &Ecr) -> Step {
    std::fs::write(project.folder().join("lifecycle.json"), r#"{"rules":[]}"#).unwrap();
    std::fs::write(project.folder().join("repository.json"), r#"{"Version":"2012-10-17","Statement":[]}"#).unwrap();
    publish(project, ecr).inputs(&[("create-repositories", "missing"), ("repository-settings", POLICIES)])
}

#[test]
fn a_repository_whose_making_was_not_confirmed_gets_its_policies() {
    let (ecr, project, _) = shop(Config::default());
    ecr.on_kind(RequestKind::api("CreateRepository"), 1, Hook::after(|| {}));
    with_policies(&project, &ecr).run().exits(0);
    assert_eq!(ecr.count(RequestKind::api("CreateRepository")), 2, "{}", ecr.table());
    let settings = ecr.default_registry().repository("shop/api").unwrap().settings;
    assert!(settings.lifecycle_policy.is_some() && settings.repository_policy.is_some(), "{settings:?}");
}

#[test]
fn a_repository_that_is_left_without_a_policy_is_named() {
    let policy = Policy::all().deny(&["ecr:PutLifecyclePolicy"]);
    let users = vec![User::new(ACCESS_KEY, ACCOUNT).policy(policy)];
    let (ecr, project, _) = shop(Config { users, ..Config::default() });
    let error = with_policies(&project, &ecr).run().exits(1).error().to_owned();
    for part in [
        "repository `shop/api` was made in 111122223333/us-east-1, without its lifecycle policy",
        "allow ecr:PutLifecyclePolicy in the role's policy, then delete it",
        "aws ecr delete-repository --region us-east-1 --repository-name shop/api",
    ] {
        assert!(error.contains(part), "{error}");
    }
    // What one policy lacks is no reason to leave the other away.
    let settings = ecr.default_registry().repository("shop/api").unwrap().settings;
    assert!(settings.lifecycle_policy.is_none() && settings.repository_policy.is_some(), "{settings:?}");
}

#[test]
fn a_policy_outside_the_checkout_is_not_read() {
    let (ecr, project, _) = shop(Config::default());
    let elsewhere = tempfile::tempdir().unwrap();
    let policy = elsewhere.path().join("policy.json");
    std::fs::write(&policy, "{}").unwrap();
    std::os::unix::fs::symlink(&policy, project.folder().join("link.json")).unwrap();
    let run = |path: &str, code: i32| {
        let settings = format!("lifecyclePolicy: {path}");
        let step = publish(&project, &ecr).inputs(&[("create-repositories", "missing"), ("dry-run", "true")]);
        step.input("repository-settings", &settings).run().exits(code)
    };
    let error = run("link.json", 2).error().to_owned();
    assert!(error.contains("it lies outside the checkout"), "{error}");
    run(policy.to_str().unwrap(), 0);
}
