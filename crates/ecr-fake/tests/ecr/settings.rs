//! What decides over images before and after a push: the registry's settings, lifecycle previews, quotas, and policies
//! of identities.

use ecr_fake::{ACCESS_KEY, ACCOUNT, Config, Ecr, Image, ImageSpec, Policy, REGION, Role, User};
use serde_json::{Value, json};

use crate::control::{api_as, ecr_api, element, exception, signed, sts};
use crate::{basic, call};

#[test]
fn the_settings_of_a_registry_are_checked_and_kept() {
    let ecr = Ecr::start(Config::default());
    let replication = |deletes: Value| {
        json!({"replicationConfiguration": {"rules": [{
            "destinations": [{"region": "eu-west-1", "registryId": "444455556666"}],
            "repositoryFilters": [{"filter": "shop", "filterType": "PREFIX_MATCH"}],
            "deleteReplication": deletes,
        }]}})
    };
    let invalid = ecr_api(&ecr, "PutReplicationConfiguration", replication(json!(true)));
    assert_eq!(exception(&invalid), "ValidationException");
    assert_eq!(ecr_api(&ecr, "PutReplicationConfiguration", replication(json!({"enabled": true}))).status, 200);
    let rules = ecr_api(&ecr, "DescribeRegistry", json!({})).json()["replicationConfiguration"]["rules"].clone();
    assert_eq!(rules[0]["deleteReplication"], json!({"enabled": true}));
    // Continuous scans are enhanced ones.
    let scanning = |kind: &str| {
        let filters = json!([{"filter": "shop/*", "filterType": "WILDCARD"}]);
        json!({"scanType": kind, "rules": [{"scanFrequency": "CONTINUOUS_SCAN", "repositoryFilters": filters}]})
    };
    let invalid = ecr_api(&ecr, "PutRegistryScanningConfiguration", scanning("BASIC"));
    assert_eq!(exception(&invalid), "InvalidParameterException");
    assert_eq!(ecr_api(&ecr, "PutRegistryScanningConfiguration", scanning("ENHANCED")).status, 200);
    let kept = ecr_api(&ecr, "GetRegistryScanningConfiguration", json!({})).json();
    assert_eq!(kept["scanningConfiguration"]["scanType"], "ENHANCED");
    let missing = ecr_api(&ecr, "GetSigningConfiguration", json!({}));
    assert_eq!(exception(&missing), "SigningConfigurationNotFoundException");
    let profile = "arn:aws:signer:us-east-1:111122223333:/signing-profiles/shop";
    let signing = json!({"signingConfiguration": {"rules": [{"signingProfileArn": profile}]}});
    assert_eq!(ecr_api(&ecr, "PutSigningConfiguration", signing).status, 200);
    let kept = ecr_api(&ecr, "GetSigningConfiguration", json!({})).json();
    assert_eq!(kept["signingConfiguration"]["rules"][0]["signingProfileArn"], profile);
}

#[test]
fn a_preview_takes_time_and_follows_the_rules_of_priorities() {
    let ecr = Ecr::start(Config::default());
    let registry = ecr.default_registry();
    let single = |seed| Image::of(&ImageSpec { seed, platforms: vec!["linux/amd64".into()], ..ImageSpec::default() });
    let mut images = Vec::new();
    for (seed, tags) in [(1, vec!["dev-1", "prod-1"]), (2, vec!["dev-2"]), (3, vec!["dev-3"])] {
        let mut image = single(seed);
        image.attach(&image.root.digest.clone(), "application/sarif+json", &[seed as u8]);
        registry.push("shop/api", &tags, &image);
        registry.set_pushed_at("shop/api", &image.root.digest, 1_700_000_000.0 + seed as f64);
        images.push(image.root.digest);
    }
    let repository = || json!({"repositoryName": "shop/api"});
    let get = || ecr_api(&ecr, "GetLifecyclePolicyPreview", repository());
    assert_eq!(exception(&get()), "LifecyclePolicyPreviewNotFoundException");
    let start = |rules: Value| {
        let mut input = repository();
        if !rules.is_null() {
            input["lifecyclePolicyText"] = json!({"rules": rules}).to_string().into();
        }
        ecr_api(&ecr, "StartLifecyclePolicyPreview", input)
    };
    assert_eq!(exception(&start(Value::Null)), "LifecyclePolicyNotFoundException");
    let rule = |priority: u64, pattern: &str, count: u64| {
        json!({"rulePriority": priority, "action": {"type": "expire"}, "selection": {"tagStatus": "tagged",
            "tagPatternList": [pattern], "countType": "imageCountMoreThan", "countNumber": count}})
    };
    let removed = |rules: Value| -> Vec<(String, u64)> {
        assert_eq!(start(rules).json()["status"], "IN_PROGRESS");
        assert_eq!(get().json()["status"], "IN_PROGRESS");
        let preview = get().json();
        assert_eq!(preview["status"], "COMPLETE");
        let results = preview["previewResults"].as_array().unwrap().iter();
        let results = results.map(|result| {
            (result["imageDigest"].as_str().unwrap().to_owned(), result["appliedRulePriority"].as_u64().unwrap())
        });
        results.collect()
    };
    // The oldest, although prod has it. Referrers are not counted.
    assert_eq!(removed(json!([rule(1, "dev-*", 2)])), [(images[0].clone(), 1)]);
    // A rule of higher priority that fits the image protects it.
    assert_eq!(removed(json!([rule(2, "dev-*", 1), rule(1, "prod-*", 5)])), [(images[1].clone(), 2)]);
    let age = json!([{"rulePriority": 1, "action": {"type": "expire"}, "selection": {"tagStatus": "any",
        "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 30}}]);
    assert_eq!(removed(age).len(), 3);
    assert_eq!(start(json!([rule(1, "dev-*", 2)])).status, 200);
    let again = start(json!([rule(1, "dev-*", 2)]));
    assert_eq!(exception(&again), "LifecyclePolicyPreviewInProgressException");
}

#[test]
fn policies_are_simulated_for_users_and_roles() {
    let limited = Policy::only(&["ecr:*", "iam:*"]).deny(&["ecr:PutImage arn:aws:ecr:*:*:repository/prod/*"]);
    let roles = vec![Role::new(ACCOUNT, "ci").path("/team/").policy(limited)];
    let users = vec![User::new(ACCESS_KEY, ACCOUNT), User::new("AKIADENIED", ACCOUNT).policy(Policy::only(&["ecr:*"]))];
    let ecr = Ecr::start(Config { roles, users, ..Config::default() });
    let ask = |key: &str, form: &str| sts(&ecr, Some(&signed(key, "us-east-1", "iam")), None, form);
    let simulate = |key: &str, source: &str| {
        ask(
            key,
            &format!(
                "Action=SimulatePrincipalPolicy&Version=2010-05-08&PolicySourceArn={source}&ActionNames.member.1=ecr:PutImage\
                 &ActionNames.member.2=s3:GetObject&ResourceArns.member.1=arn:aws:ecr:us-east-1:111122223333:repository/dev/api\
                 &ResourceArns.member.2=arn:aws:ecr:us-east-1:111122223333:repository/prod/api"
            ),
        )
    };
    let missing = simulate(ACCESS_KEY, "arn:aws:iam::111122223333:role/ci");
    assert_eq!((missing.status, element(&missing.text(), "Code")), (404, "NoSuchEntity"));
    let role = ask(ACCESS_KEY, "Action=GetRole&RoleName=ci").text();
    assert_eq!(element(&role, "Arn"), "arn:aws:iam::111122223333:role/team/ci");
    let simulated = simulate(ACCESS_KEY, element(&role, "Arn")).text();
    let decisions: Vec<&str> =
        simulated.split("<EvalResourceDecision>").skip(1).map(|rest| rest.split('<').next().unwrap()).collect();
    assert_eq!(decisions, ["allowed", "explicitDeny", "implicitDeny", "implicitDeny"]);
    assert_eq!(element(&simulated, "IsTruncated"), "false");
    let session = simulate(ACCESS_KEY, "arn:aws:sts::111122223333:assumed-role/ci/run");
    assert_eq!(element(&session.text(), "Code"), "InvalidInput");
    let denied = simulate("AKIADENIED", "arn:aws:iam::111122223333:user/ci");
    assert_eq!((denied.status, element(&denied.text(), "Code")), (403, "AccessDenied"));
    ecr.quirks(|quirks| quirks.page = 1);
    let first = simulate(ACCESS_KEY, element(&role, "Arn")).text();
    assert_eq!((element(&first, "IsTruncated"), element(&first, "Marker")), ("true", "1"));
}

#[test]
fn artifacts_count_towards_the_quota_of_a_repository() {
    let ecr = Ecr::start(Config::default());
    let registry = ecr.default_registry();
    let mut image = Image::new(1);
    image.attach(&image.root.digest.clone(), "application/sarif+json", b"{}");
    registry.push("shop/api", &["a"], &image);
    registry.settings(|settings| settings.images_quota = 4);
    let quota = json!({"ServiceCode": "ecr", "QuotaCode": "L-03A36CE1"});
    let quota = api_as(&ecr, ACCESS_KEY, "ServiceQuotasV20190624.GetServiceQuota", &quota).json();
    assert_eq!(quota["Quota"]["Value"], json!(4.0));
    let authorization = basic(&registry.password(ACCESS_KEY));
    let put = |image: &Image, tag: &str| {
        let headers = [("authorization", authorization.as_str()), ("content-type", image.root.media_type.as_str())];
        call(registry.url(), "PUT", &format!("/v2/shop/api/manifests/{tag}"), &headers, &image.root.bytes)
    };
    // What is there gets another tag; anything new is refused without a reason.
    assert_eq!(put(&image, "b").status, 201);
    let refused = put(&Image::new(2), "c");
    assert_eq!((refused.status, refused.body.len()), (403, 0));
}

#[test]
fn layers_that_do_not_exist_are_told() {
    let ecr = Ecr::start(Config::default());
    let registry = ecr.registry(ACCOUNT, REGION);
    registry.push("shop/api", &["a"], &Image::new(1));
    let digest = registry.put_blob("shop/api", "layer");
    let none = format!("sha256:{}", "0".repeat(64));
    let input = json!({"repositoryName": "shop/api", "layerDigests": [digest, none]});
    let layers = ecr_api(&ecr, "BatchCheckLayerAvailability", input).json()["layers"].clone();
    assert_eq!([&layers[0]["layerAvailability"], &layers[1]["layerAvailability"]], ["AVAILABLE", "UNAVAILABLE"]);
    let missing = ecr_api(&ecr, "GetDownloadUrlForLayer", json!({"repositoryName": "shop/api", "layerDigest": none}));
    assert_eq!(exception(&missing), "LayersNotFoundException");
}
