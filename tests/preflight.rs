//! A dry run looks at what would make the run fail, or undo it later, and names all of it at once.

use ecr_fake::http::RequestKind;
use ecr_fake::{
    ACCESS_KEY, ACCOUNT, Config, Ecr, Image, ImageTagMutability, Policy, REGION, RepositorySettings, Role, User,
};
use serde_json::{Value, json};

use crate::support::project::{BY_REPOSITORY, BY_TAG, Project, aws, creation_template, default_host, set_registry};
use crate::support::runner::{Run, Step};

const OTHER_ACCOUNT: &str = "444455556666";
const OTHER_REGION: &str = "eu-west-1";
const ARN: &str = "arn:aws:ecr:us-east-1:111122223333:repository/shop/api";

/// What a role needs that may read everything, and write nothing.
const READ: [&str; 9] = [
    "ecr:Get*",
    "ecr:Batch*",
    "ecr:Describe*",
    "ecr:List*",
    "ecr:StartLifecyclePolicyPreview",
    "iam:*",
    "servicequotas:*",
    "ssm:*",
    "sts:*",
];

const WRITE: [&str; 4] = ["ecr:PutImage", "ecr:InitiateLayerUpload", "ecr:UploadLayerPart", "ecr:CompleteLayerUpload"];

/// An image that was built, and a fake whose default user may do what the policy allows.
fn shop(policy: Policy, config: Config) -> (Ecr, Project, Image) {
    let users = vec![User::new(ACCESS_KEY, ACCOUNT).policy(policy)];
    let ecr = Ecr::start(Config { users, ..config });
    set_registry(&ecr);
    let project = Project::new(BY_TAG);
    let image = Image::new(1);
    project.built("Api", &image);
    (ecr, project, image)
}

/// [`shop`] with a repository.
fn with_repository(policy: Policy) -> (Ecr, Project, Image) {
    let shop = shop(policy, Config::default());
    shop.0.default_registry().create("shop/api", RepositorySettings::default());
    shop
}

fn publish(project: &Project, ecr: &Ecr) -> Step {
    aws(project.publish(), ecr).inputs(&[("images", "Api"), ("dry-run", "true")])
}

fn promote(project: &Project, ecr: &Ecr) -> Step {
    aws(project.promote("test"), ecr).inputs(&[("images", "Api"), ("dry-run", "true")])
}

fn only(statements: &[&[&str]]) -> Policy {
    Policy::only(&statements.concat())
}

/// The checks of a kind, as the output has them.
fn checks(run: &Run, check: &str) -> Vec<Value> {
    let all = run.json("checks");
    all.as_array().unwrap().iter().filter(|found| found["check"] == check).cloned().collect()
}

/// The only check of a kind with a status.
fn single(run: &Run, check: &str, status: &str) -> Value {
    let found: Vec<Value> = checks(run, check).into_iter().filter(|found| found["status"] == status).collect();
    assert_eq!(found.len(), 1, "{check} {status}: {}", run.output("checks"));
    found[0].clone()
}

/// All checks that have a status.
fn of_status(run: &Run, status: &str) -> Vec<Value> {
    let all = run.json("checks");
    all.as_array().unwrap().iter().filter(|found| found["status"] == status).cloned().collect()
}

fn detail(check: &Value) -> &str {
    check["detail"].as_str().unwrap()
}

fn remedy(check: &Value) -> &str {
    check["remedy"].as_str().unwrap_or_default()
}

fn api(ecr: &Ecr, action: &str) -> usize {
    ecr.count(RequestKind::api(action))
}

#[test]
fn what_is_in_order_passes_and_says_how_that_is_known() {
    let (ecr, project, _) = with_repository(Policy::all());
    let run = publish(&project, &ecr).run().exits(0);
    for status in ["failed", "unknown", "warning"] {
        assert_eq!(of_status(&run, status), Vec::<Value>::new());
    }
    let identity = single(&run, "identity", "passed");
    assert_eq!(detail(&identity), "the credentials are those of `arn:aws:iam::111122223333:user/ci`");
    assert_eq!(identity["subject"], "111122223333/us-east-1");
    let details: Vec<String> = checks(&run, "permissions").iter().map(|check| detail(check).to_owned()).collect();
    assert_eq!(
        details,
        [
            "Token: ecr:GetAuthorizationToken: allowed by simulation",
            "ForeseeConflicts: ecr:DescribeImages, ecr:DescribeRepositories: allowed by simulation",
            "WriteImages: ecr:BatchCheckLayerAvailability, ecr:BatchGetImage, ecr:CompleteLayerUpload, \
             ecr:GetDownloadUrlForLayer, ecr:InitiateLayerUpload, ecr:ListImages, ecr:PutImage, ecr:UploadLayerPart: \
             allowed by simulation",
        ]
    );
    assert_eq!(detail(&single(&run, "repository", "passed")), "it exists; tags can be moved; encrypted by AES256");
    assert_eq!(detail(&single(&run, "retention", "passed")), "it has no lifecycle policy");
    assert!(detail(&single(&run, "quota", "passed")).starts_with("it holds 0 images, artifacts included"));
    assert!(detail(&single(&run, "scanning", "note")).starts_with("basic scanning, and no rule matches"));
    assert!(run.summary.contains("#### Checks") && run.log.raw.contains("allowed by simulation"));
    assert!(ecr.writes().is_empty(), "{}", ecr.table());
    // The run itself asks for none of this.
    ecr.clear_log();
    let run = aws(project.publish(), &ecr).input("images", "Api").run().exits(0);
    assert_eq!(run.output("checks"), "");
    for action in ["SimulatePrincipalPolicy", "DescribeRegistry", "GetSigningConfiguration", "GetServiceQuota"] {
        assert_eq!(api(&ecr, action), 0, "{action}");
    }
}

#[test]
fn a_missing_action_is_named_with_the_statement_that_allows_it() {
    let (ecr, project, _) = with_repository(only(&[&READ, &WRITE[1..]]));
    let run = publish(&project, &ecr).run().exits(1);
    let failed = single(&run, "permissions", "failed");
    assert_eq!(detail(&failed), "WriteImages: ecr:PutImage: no policy allows it, by simulation");
    let statement = json!({"Sid": "WriteImages", "Effect": "Allow", "Action": "ecr:PutImage", "Resource": ARN});
    assert_eq!(failed["statement"], statement);
    assert_eq!(remedy(&failed), "add the statement `WriteImages`");
    assert_eq!(
        run.error(),
        "permissions of shop/api: WriteImages: ecr:PutImage: no policy allows it, by simulation (hint: add the statement `WriteImages`)"
    );
    assert!(run.summary.contains("Publish of 1.0.0 to dev would fail"), "{}", run.summary);
    assert!(run.summary.contains(r#""Action": "ecr:PutImage""#), "{}", run.summary);
    assert!(run.log.raw.contains(r#""Action": "ecr:PutImage""#));
    assert!(ecr.writes().is_empty(), "{}", ecr.table());
    // With this statement, the run succeeds.
    let allowed = format!("{} {}", statement["Action"].as_str().unwrap(), statement["Resource"].as_str().unwrap());
    let (ecr, project, _) = with_repository(only(&[&READ, &WRITE[1..], &[&allowed]]));
    publish(&project, &ecr).run().exits(0);
    aws(project.publish(), &ecr).input("images", "Api").run().exits(0);
}

#[test]
fn an_action_that_this_run_does_without_is_only_a_note() {
    // In one repository, and without a record, nothing is uploaded.
    let (ecr, project, image) = with_repository(only(&[&READ, &WRITE[..1]]));
    ecr.default_registry().push("shop/api", &["dev-1.0.0"], &image);
    let bare = |step: Step| step.inputs(&[("evidence", "none"), ("record", "false")]);
    let run = bare(promote(&project, &ecr)).run().exits(0);
    let note = single(&run, "permissions", "note");
    assert!(detail(&note).ends_with("the run as planned succeeds without it"), "{note}");
    assert_eq!(note["statement"]["Action"].as_array().unwrap().len(), 3);
    // With a record, it is.
    let run = promote(&project, &ecr).run().exits(1);
    assert_eq!(single(&run, "permissions", "failed")["statement"], note["statement"]);
}

#[test]
fn an_explicit_deny_is_not_remedied_by_a_statement() {
    let (ecr, project, _) = with_repository(Policy::all().deny(&["ecr:PutImage"]));
    let run = publish(&project, &ecr).run().exits(1);
    let failed = single(&run, "permissions", "failed");
    assert_eq!(detail(&failed), "WriteImages: ecr:PutImage: a policy denies it, by simulation");
    assert_eq!(failed.get("statement"), None);
    assert!(remedy(&failed).contains("\"Effect\": \"Deny\""), "{failed}");
}

#[test]
fn the_policy_of_the_repository_may_allow_what_that_of_the_identity_does_not() {
    let policy = r#"{"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "ecr:PutImage"}]}"#;
    let (ecr, project, _) = with_repository(only(&[&READ, &WRITE[1..]]));
    ecr.default_registry().change("shop/api", |repository| {
        repository.settings.repository_policy = Some(policy.to_owned());
    });
    let run = publish(&project, &ecr).run().exits(0);
    let unknown = single(&run, "permissions", "unknown");
    assert!(detail(&unknown).ends_with("but that of the repository may"), "{unknown}");
}

#[test]
fn without_simulation_calls_that_change_nothing_show_what_is_allowed() {
    let read: Vec<&str> = READ.into_iter().filter(|action| *action != "iam:*").collect();
    let (ecr, project, _) = with_repository(only(&[&read, &WRITE]));
    let run = publish(&project, &ecr).run().exits(0);
    let unknown = single(&run, "permissions", "unknown");
    assert!(
        detail(&unknown).starts_with(
            "WriteImages: ecr:CompleteLayerUpload, ecr:InitiateLayerUpload, ecr:PutImage, ecr:UploadLayerPart: \
             iam:SimulatePrincipalPolicy on arn:aws:iam::111122223333:user/ci was denied"
        ),
        "{unknown}"
    );
    assert_eq!(
        unknown["statement"],
        json!({
            "Sid": "Simulate",
            "Effect": "Allow",
            "Action": ["iam:GetRole", "iam:SimulatePrincipalPolicy"],
            "Resource": "arn:aws:iam::111122223333:user/ci",
        })
    );
    let passed: Vec<Value> =
        checks(&run, "permissions").into_iter().filter(|check| check["status"] == "passed").collect();
    assert!(passed.iter().all(|check| detail(check).ends_with("allowed, as a call that finds nothing shows")));
    assert!(passed.iter().any(|check| detail(check).contains("ecr:BatchCheckLayerAvailability, ecr:BatchGetImage")));
    assert!(ecr.writes().is_empty(), "{}", ecr.table());
    // What such a call is denied is missing.
    let denied: Vec<&str> = read.into_iter().filter(|action| *action != "ecr:List*").collect();
    let (ecr, project, _) = with_repository(only(&[&denied, &WRITE]));
    let run = publish(&project, &ecr).run().exits(0);
    let note = single(&run, "permissions", "note");
    assert!(detail(&note).starts_with("WriteImages: ecr:ListImages: denied: no policy of the identity"), "{note}");
}

#[test]
fn a_session_of_a_role_with_a_path_is_simulated() {
    let role = |policy: Policy| {
        let role = Role::new(ACCOUNT, "publisher").path("/ci/").policy(policy);
        Role { web_identity: Some("token".into()), ..role }
    };
    let run = |policy: Policy| {
        let ecr = Ecr::start(Config { roles: vec![role(policy)], ..Config::default() });
        set_registry(&ecr);
        ecr.default_registry().create("shop/api", RepositorySettings::default());
        let project = Project::new(BY_TAG);
        project.built("Api", &Image::new(1));
        let token = project.folder().join("token");
        std::fs::write(&token, "token").unwrap();
        let environment = ecr.environment(ACCESS_KEY, REGION);
        let environment = environment.into_iter().filter(|(name, _)| !name.contains("KEY"));
        let step = Step::new(crate::support::runner::Action::Publish, project.folder()).envs(environment);
        let step = step
            .env("AWS_WEB_IDENTITY_TOKEN_FILE", &token)
            .env("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/ci/publisher")
            .env("AWS_ROLE_SESSION_NAME", "run-1");
        let step = step.inputs(&[("version", "1.0.0"), ("layout", project.layout().to_str().unwrap())]);
        let step = step.inputs(&[("images", "Api"), ("dry-run", "true")]);
        (step.input("registry-endpoints", &ecr.registry_endpoints()).run(), ecr)
    };
    let (passed, ecr) = run(Policy::all());
    let passed = passed.exits(0);
    assert_eq!(of_status(&passed, "unknown"), Vec::<Value>::new());
    assert!(detail(&single(&passed, "identity", "passed")).contains(":assumed-role/publisher/run-1"));
    assert_ne!(api(&ecr, "GetRole"), 0);
    let (failed, _) = run(only(&[&READ, &WRITE[1..]]));
    let failed = failed.exits(1);
    assert!(detail(&single(&failed, "permissions", "failed")).contains("ecr:PutImage"));
}

#[test]
fn credentials_of_another_account_are_named() {
    let users = vec![User::new(ACCESS_KEY, OTHER_ACCOUNT)];
    let ecr = Ecr::start(Config { users, ..Config::default() });
    ecr.default_registry().create("shop/api", RepositorySettings::default());
    let project = Project::new(BY_TAG);
    project.built("Api", &Image::new(1));
    let step = || publish(&project, &ecr).input("registry", &default_host());
    let run = step().run().exits(1);
    let identity = single(&run, "identity", "warning");
    assert!(
        detail(&identity).ends_with("in account 444455556666, but the registry belongs to account 111122223333"),
        "{identity}"
    );
    let failed = single(&run, "permissions", "failed");
    assert!(detail(&failed).contains("ecr:BatchGetImage: denied: the policy of the repository does not allow it"));
    assert!(remedy(&failed).contains(r#""Principal":{"AWS":"arn:aws:iam::444455556666:root"}"#), "{failed}");
    // Settings of the registry are those of its own account.
    assert!(detail(&single(&run, "replication", "unknown")).contains("only credentials of account 111122223333"));
    assert_eq!(api(&ecr, "DescribeRegistry"), 0);
    // If the repository lets the account in, the reads are known to be allowed, and the writes are not.
    ecr.default_registry().change("shop/api", |repository| {
        repository.settings.repository_policy =
            Some(format!(r#"{{"Statement": [{{"Principal": "{OTHER_ACCOUNT}"}}]}}"#));
    });
    let run = step().run().exits(0);
    assert!(detail(&single(&run, "permissions", "unknown")).contains("the repository belongs to another account"));
}

#[test]
fn an_immutable_tag_and_a_missing_action_are_named_together() {
    let (ecr, project, _) = shop(only(&[&READ, &WRITE[1..]]), Config::default());
    let settings = RepositorySettings {
        image_tag_mutability: ImageTagMutability::ImmutableWithExclusion,
        exclusion_filters: vec!["dev-*".into()],
        ..RepositorySettings::default()
    };
    ecr.default_registry().create("shop/api", settings);
    ecr.default_registry().push("shop/api", &["latest"], &Image::new(9));
    let run = publish(&project, &ecr).input("extra-tags", "latest").run().exits(1);
    let image = single(&run, "image", "failed");
    assert!(detail(&image).contains(":latest` is immutable and holds sha256:"), "{image}");
    assert_eq!(remedy(&image), "exclude the tag from the repository's immutability, or leave it out");
    assert_eq!(
        detail(&single(&run, "repository", "passed")),
        "it exists; tags are immutable, except dev-*; encrypted by AES256"
    );
    assert!(detail(&single(&run, "permissions", "failed")).contains("ecr:PutImage"));
    assert_eq!(run.log.messages("error").len(), 2, "{:?}", run.log.messages("error"));
}

#[test]
fn a_missing_repository_fails_unless_the_run_or_a_template_creates_it() {
    let (ecr, project, _) = shop(Policy::all(), Config::default());
    let run = publish(&project, &ecr).run().exits(1);
    let failed = single(&run, "repository", "failed");
    assert_eq!(detail(&failed), "it does not exist in 111122223333/us-east-1");
    assert!(remedy(&failed).ends_with("aws ecr create-repository --region us-east-1 --repository-name shop/api"));
    // The image has failed for the same reason, which is not said twice.
    assert_eq!(checks(&run, "image"), Vec::<Value>::new());
    let run = publish(&project, &ecr).input("create-repositories", "missing").run().exits(0);
    assert!(detail(&single(&run, "repository", "passed")).ends_with("this run creates it"));
    assert!(
        checks(&run, "permissions")
            .iter()
            .any(|check| detail(check) == "CreateRepositories: ecr:CreateRepository: allowed by simulation")
    );
    let templates = Config { repository_creation_templates: vec![creation_template("shop")], ..Config::default() };
    let (ecr, project, _) = shop(Policy::all(), templates);
    let run = publish(&project, &ecr).input("create-repositories", "template").run().exits(0);
    assert!(detail(&single(&run, "repository", "passed")).contains("the creation template `shop` creates it"));
    let templates = Config { repository_creation_templates: vec![creation_template("other")], ..Config::default() };
    let (ecr, project, _) = shop(Policy::all(), templates);
    let run = publish(&project, &ecr).input("create-repositories", "template").run().exits(1);
    let failed = single(&run, "repository", "failed");
    assert!(detail(&failed).ends_with("(prefixes: other)"), "{failed}");
    assert!(remedy(&failed).ends_with("--applied-for CREATE_ON_PUSH --prefix shop"), "{failed}");
    // A role that may not create it.
    let (ecr, project, _) = shop(only(&[&READ, &WRITE]), Config::default());
    let run = publish(&project, &ecr).input("create-repositories", "missing").run().exits(1);
    let failed = single(&run, "permissions", "failed");
    assert_eq!(failed["statement"]["Action"], "ecr:CreateRepository", "{failed}");
}

#[test]
fn the_key_of_a_repository_that_is_created_needs_a_permission() {
    let key = "arn:aws:kms:us-east-1:111122223333:key/1";
    let settings = format!("encryption: KMS\nkmsKey: {key}\n");
    let run = |policy: Policy, settings: &str| {
        let (ecr, project, _) = shop(policy, Config::default());
        let step = publish(&project, &ecr).input("create-repositories", "missing");
        step.input("repository-settings", settings).run()
    };
    assert!(detail(&single(&run(Policy::all(), &settings).exits(0), "encryption", "passed")).contains(key));
    let create = only(&[&READ, &WRITE, &["ecr:CreateRepository"]]);
    let unknown = single(&run(create.clone(), &settings).exits(0), "encryption", "unknown");
    assert!(detail(&unknown).ends_with("but that of the key may"), "{unknown}");
    assert_eq!(
        unknown["statement"],
        json!({
            "Sid": "EncryptWithOwnKey",
            "Effect": "Allow",
            "Action": ["kms:CreateGrant", "kms:DescribeKey", "kms:RetireGrant"],
            "Resource": key,
        })
    );
    single(&run(Policy::all().deny(&["kms:CreateGrant"]), &settings).exits(1), "encryption", "failed");
    single(&run(create, "encryption: KMS\nkmsKey: alias/shop\n").exits(0), "encryption", "unknown");
}

#[test]
fn replication_that_deletes_is_a_warning_on_either_side() {
    let rule = |account: &str, region: &str, deletes: bool| {
        json!({"rules": [{
            "destinations": [{"registryId": account, "region": region}],
            "repositoryFilters": [{"filter": "shop", "filterType": "PREFIX_MATCH"}],
            "deleteReplication": {"enabled": deletes},
        }]})
    };
    let registries = vec![(ACCOUNT.into(), REGION.into()), (ACCOUNT.into(), OTHER_REGION.into())];
    let (ecr, project, image) = shop(Policy::all(), Config { registries, ..Config::default() });
    let (here, there) = (ecr.default_registry(), ecr.registry(ACCOUNT, OTHER_REGION));
    here.push("shop/api", &["dev-1.0.0"], &image);
    there.create("shop/api", RepositorySettings::default());
    here.settings(|settings| settings.replication = rule(ACCOUNT, OTHER_REGION, true));
    let step = || promote(&project, &ecr).input("target-registry", &there.host());
    let run = step().run().exits(0);
    let warning = single(&run, "replication", "warning");
    assert_eq!((&warning["side"], &warning["subject"]), (&json!("source"), &json!("shop/api")));
    assert!(detail(&warning).contains("copies deletions to 111122223333/eu-west-1"), "{warning}");
    assert!(run.log.messages("warning").iter().any(|message| message.starts_with("replication of shop/api: ")));
    // The other way round, what is promoted is deleted elsewhere.
    here.settings(|settings| settings.replication = rule(ACCOUNT, OTHER_REGION, false));
    there.settings(|settings| settings.replication = rule(OTHER_ACCOUNT, REGION, true));
    let warning = single(&step().run().exits(0), "replication", "warning");
    assert_eq!(warning["side"], "target");
    assert!(detail(&warning).ends_with("is deleted in 444455556666/us-east-1 too"), "{warning}");
    there.settings(|settings| settings.replication = rule(OTHER_ACCOUNT, REGION, false));
    let run = step().run().exits(0);
    assert_eq!(of_status(&run, "warning"), Vec::<Value>::new());
}

#[test]
fn a_rule_that_deletes_what_an_environment_holds_is_a_warning() {
    let policy = |priority: u64, pattern: &str, count: u64| {
        json!({"rules": [{"rulePriority": priority, "selection": {"tagStatus": "tagged", "tagPatternList": [pattern],
            "countType": "imageCountMoreThan", "countNumber": count}, "action": {"type": "expire"}}]})
        .to_string()
    };
    let (ecr, project, image) = shop(only(&[&READ, &WRITE]), Config::default());
    let registry = ecr.default_registry();
    registry.push("shop/api", &["dev-1.0.0"], &image);
    registry.change("shop/api", |repository| repository.settings.lifecycle_policy = Some(policy(1, "dev-*", 5)));
    let run = promote(&project, &ecr).run().exits(0);
    let warning = single(&run, "retention", "warning");
    assert!(
        detail(&warning).starts_with("`test-1.0.0`: rule 1 of the lifecycle policy deletes it after 5 more pushes"),
        "{warning}"
    );
    assert!(remedy(&warning).contains("`test-*`"), "{warning}");
    // What the run would write is not in the preview.
    let preview = single(&run, "retention-preview", "note");
    insta::assert_snapshot!(detail(&preview), @"ECR's own preview removes 0 images now; nothing was compared: no image is known that test holds");
    // ECR's preview is in progress at first.
    assert_eq!(api(&ecr, "GetLifecyclePolicyPreview"), 2);
    // A rule that keeps enough images is no hazard.
    registry.change("shop/api", |repository| repository.settings.lifecycle_policy = Some(policy(1, "test-*", 5)));
    let run = promote(&project, &ecr).run().exits(0);
    assert_eq!(of_status(&run, "warning"), Vec::<Value>::new());
    // Publish does not read what the environment holds, and does not say that it is kept.
    let run = publish(&project, &ecr).run();
    assert_eq!(
        detail(&single(&run, "retention", "passed")),
        "no rule of its lifecycle policy removes the image of this run"
    );
    insta::assert_snapshot!(detail(&single(&run, "retention-preview", "note")), @"ECR's own preview removes 0 images now; nothing was compared: publish does not read what dev holds");
    // Without the preview, that is what is unknown.
    let read: Vec<&str> = READ.into_iter().filter(|action| !action.contains("Preview")).collect();
    let (ecr, project, image) = shop(only(&[&read, &WRITE]), Config::default());
    ecr.default_registry().push("shop/api", &["dev-1.0.0"], &image);
    ecr.default_registry()
        .change("shop/api", |repository| repository.settings.lifecycle_policy = Some(policy(1, "dev-*", 5)));
    let run = promote(&project, &ecr).run().exits(0);
    let unknown = single(&run, "retention-preview", "unknown");
    let both = json!(["ecr:GetLifecyclePolicyPreview", "ecr:StartLifecyclePolicyPreview"]);
    assert_eq!((&unknown["statement"]["Action"], &unknown["statement"]["Resource"]), (&both, &json!(ARN)));
}

#[test]
fn a_preview_of_ecr_that_differs_is_a_warning() {
    let rule = json!({"rulePriority": 1, "action": {"type": "expire"}, "selection": {"tagStatus": "tagged",
        "tagPatternList": ["test-*"], "countType": "imageCountMoreThan", "countNumber": 5}});
    let (ecr, project, image) = shop(only(&[&READ, &WRITE]), Config::default());
    let registry = ecr.default_registry();
    registry.push("shop/api", &["dev-1.0.0"], &image);
    let policy = json!({"rules": [rule]}).to_string();
    registry.change("shop/api", |repository| repository.settings.lifecycle_policy = Some(policy));
    aws(project.promote("test"), &ecr).input("images", "Api").run().exits(0);
    let preview = single(&promote(&project, &ecr).run().exits(0), "retention-preview", "passed");
    assert_eq!(detail(&preview), "ECR's own preview removes 0 images, and agrees on what test holds");
    registry.change("shop/api", |repository| {
        repository.previewed = Some(vec![(image.root.digest.clone(), 1)]);
    });
    let run = promote(&project, &ecr).run().exits(0);
    let preview = single(&run, "retention-preview", "warning");
    insta::assert_snapshot!(detail(&preview), @"`test-1.0.0`: in ECR's own preview rule 1 removes it now, and by the rules that ECR documents no rule removes it now");
    assert!(remedy(&preview).starts_with("compare the policy with ECR's console"), "{preview}");
    assert!(run.log.messages("warning").iter().any(|message| message.contains("in ECR's own preview rule 1")));
}

#[test]
fn a_registry_that_signs_needs_a_permission_of_whoever_pushes() {
    let profile = "arn:aws:signer:us-east-1:111122223333:/signing-profiles/shop";
    let configure = |ecr: &Ecr| {
        let filters = json!([{"filter": "shop/*", "filterType": "WILDCARD_MATCH"}]);
        let rules = json!({"rules": [{"signingProfileArn": profile, "repositoryFilters": filters}]});
        ecr.default_registry().settings(|settings| settings.signing = Some(rules));
    };
    let (ecr, project, _) = with_repository(only(&[&READ, &WRITE]));
    configure(&ecr);
    let warning = single(&publish(&project, &ecr).run().exits(0), "managed-signing", "warning");
    assert!(detail(&warning).ends_with("the images stay unsigned"), "{warning}");
    assert_eq!(
        warning["statement"],
        json!({"Sid": "ManagedSigning", "Effect": "Allow", "Action": "signer:SignPayload", "Resource": profile})
    );
    let (ecr, project, _) = with_repository(only(&[&READ, &WRITE, &["signer:SignPayload"]]));
    configure(&ecr);
    let passed = single(&publish(&project, &ecr).run().exits(0), "managed-signing", "passed");
    assert!(detail(&passed).ends_with("which the identity may use, by simulation"), "{passed}");
}

#[test]
fn a_repository_without_room_fails_before_a_byte_is_sent() {
    let (ecr, project, image) = with_repository(Policy::all());
    let registry = ecr.default_registry();
    registry.push("shop/api", &["dev-0.9.0"], &Image::new(7));
    // Two platforms, their index, and the record; and three that are there.
    let quota = |images: usize| registry.settings(|settings| settings.images_quota = images);
    quota(6);
    let failed = single(&publish(&project, &ecr).run().exits(1), "quota", "failed");
    let said = "it holds 3 images, artifacts included, and this run adds 4; the quota is 6";
    assert_eq!(detail(&failed), said);
    assert!(remedy(&failed).contains("request-service-quota-increase"), "{failed}");
    quota(7);
    single(&publish(&project, &ecr).run().exits(0), "quota", "warning");
    // And that is so.
    quota(6);
    aws(project.publish(), &ecr).input("images", "Api").run().exits(1);
    assert_eq!(registry.resolve("shop/api", "dev-1.0.0"), None);
    quota(7);
    aws(project.publish(), &ecr).input("images", "Api").run().exits(0);
    assert_eq!(registry.resolve("shop/api", "dev-1.0.0"), Some(image.root.digest));
}

#[test]
fn scans_matter_to_a_gate_that_reads_them() {
    let (ecr, project, image) = with_repository(Policy::all());
    ecr.default_registry().push("shop/api", &["dev-1.0.0"], &image);
    let step = || promote(&project, &ecr).input("require", "ecr-scan=high");
    let run = step().run().exits(1);
    assert!(detail(&single(&run, "scanning", "warning")).contains("does not scan the images on push"));
    ecr.default_registry().settings(|settings| {
        let filters = json!([{"filter": "shop/*", "filterType": "WILDCARD"}]);
        settings.scanning =
            json!({"scanType": "ENHANCED", "rules": [{"scanFrequency": "CONTINUOUS_SCAN", "repositoryFilters": filters}]});
    });
    assert_eq!(detail(&single(&step().run().exits(1), "scanning", "passed")), "enhanced scanning, continuously");
}

#[test]
fn blobs_that_are_not_mounted_are_a_note() {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    let registry = ecr.default_registry();
    registry.push("dev/shop/api", &["1.0.0"], &Image::new(1));
    registry.create("test/shop/api", RepositorySettings::default());
    let project = Project::new(BY_REPOSITORY);
    let step = || aws(project.promote("test"), &ecr).input("dry-run", "true");
    let note = single(&step().run().exits(0), "mounting", "note");
    assert!(remedy(&note).ends_with("--name BLOB_MOUNTING --value ENABLED"), "{note}");
    ecr.quirks(|quirks| quirks.mounting = true);
    single(&step().run().exits(0), "mounting", "passed");
    registry.change("test/shop/api", |repository| {
        repository.settings.encryption =
            json!({"encryptionType": "KMS", "kmsKey": "arn:aws:kms:us-east-1:111122223333:key/1"});
    });
    let run = step().run().exits(0);
    assert!(detail(&single(&run, "mounting", "note")).ends_with("differs: dev/shop/api and test/shop/api"));
    let target = checks(&run, "repository");
    assert!(detail(&target[0]).ends_with("encrypted by KMS with the key `arn:aws:kms:us-east-1:111122223333:key/1`"));
}

#[test]
fn settings_that_cannot_be_read_are_unknown_with_what_to_grant() {
    let read =
        ["ecr:Batch*", "ecr:GetAuthorizationToken", "ecr:GetDownloadUrlForLayer", "ecr:ListImages", "ssm:*", "iam:*"];
    let (ecr, project, _) = with_repository(only(&[&read, &WRITE]));
    let run = publish(&project, &ecr).run().exits(0);
    let unknown = of_status(&run, "unknown");
    let names: Vec<&str> = unknown.iter().map(|check| check["check"].as_str().unwrap()).collect();
    assert_eq!(names, ["managed-signing", "scanning", "replication", "repository"]);
    assert_eq!(unknown[1]["statement"]["Action"], "ecr:GetRegistryScanningConfiguration");
    assert_eq!(unknown[3]["statement"]["Resource"], ARN);
    // One policy has all of them.
    let (_, block) = run.summary.split_once("```json\n").unwrap();
    let policy: Value = serde_json::from_str(block.split_once("\n```").unwrap().0).unwrap();
    let sids: Vec<&str> =
        policy["Statement"].as_array().unwrap().iter().map(|statement| statement["Sid"].as_str().unwrap()).collect();
    assert_eq!(sids, ["ReadRegistrySettings", "ForeseeConflicts"]);
}

#[test]
fn many_images_of_one_registry_are_asked_about_once() {
    let counts = |images: &[&str]| {
        let (ecr, project, image) = with_repository(Policy::all());
        for name in ["shop/api", "shop/web"] {
            ecr.default_registry().push(name, &["dev-1.0.0"], &image);
        }
        let run = aws(project.promote("test"), &ecr).inputs(&[("images", &images.join(",")), ("dry-run", "true")]);
        run.run().exits(0);
        let of_registry = [
            "SimulatePrincipalPolicy",
            "DescribeRegistry",
            "GetRegistryScanningConfiguration",
            "GetSigningConfiguration",
            "GetServiceQuota",
        ];
        of_registry.map(|action| api(&ecr, action))
    };
    let one = counts(&["Api"]);
    assert_eq!(one, [2, 1, 1, 1, 1]);
    assert_eq!(counts(&["Api", "Web"]), one);
}

#[test]
fn a_registry_that_is_not_in_ecr_has_no_checks() {
    let project = Project::new(BY_TAG);
    project.built("Api", &Image::new(1));
    let run = project.publish().inputs(&[("images", "Api"), ("dry-run", "true"), ("registry", "oci:store")]);
    assert_eq!(run.run().exits(0).json("checks"), json!([]));
}
