//! Publishing and promoting against an AWS that others wrote: what the fake of these tests and the actions agree on may
//! be wrong in both.

use ecr_fake::{Image, ImageSpec};
use serde_json::json;

use crate::support::emulator::Emulator;
use crate::support::project::{BY_TAG, Project, bare};
use crate::support::registry::DockerRegistry;
use crate::support::runner::Step;
use crate::support::tools::{json, program};

/// An account that moto reaches by a role.
const ACCOUNT: &str = "111122223333";

const SETTINGS: &str = "mutability: IMMUTABLE_WITH_EXCLUSION
exclusionFilters: [latest, 'dev-*']
scanOnPush: true
encryption: KMS
kmsKey: alias/images
lifecyclePolicy: lifecycle.json
repositoryPolicy: policy.json
tags: {team: shop}
";

fn built() -> (Project, Image) {
    let project = Project::new(BY_TAG);
    let image = Image::of(&ImageSpec { layers: 2, ..ImageSpec::default() });
    project.built("Api", &image);
    let policy = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": ["ecr:BatchGetImage"],
    }]});
    let expiry = json!({"rules": [{
        "rulePriority": 1, "action": {"type": "expire"},
        "selection": {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 14},
    }]});
    std::fs::write(project.folder().join("policy.json"), policy.to_string()).unwrap();
    std::fs::write(project.folder().join("lifecycle.json"), expiry.to_string()).unwrap();
    (project, image)
}

/// moto has no data plane: that is a real registry's.
fn at(moto: &Emulator, registry: &DockerRegistry, account: &str, step: Step) -> Step {
    let endpoint = format!("{}={}", moto.registry(account), registry.url());
    moto.aws(step).input("images", "Api").input("registry-endpoints", &endpoint)
}

#[test]
fn moto_has_the_repository_as_the_settings_say_in_the_account_of_the_role() {
    let (moto, registry) = (Emulator::moto(), DockerRegistry::start());
    let (project, image) = built();
    moto.set_parameter(ACCOUNT, "/account/ecr/main/registry", &moto.registry(ACCOUNT));
    let role = format!("arn:aws:iam::{ACCOUNT}:role/publisher");
    let publish = |allowed: &str| {
        at(&moto, &registry, ACCOUNT, project.publish()).inputs(&[
            ("role-to-assume", &role),
            ("allowed-account-ids", allowed),
            ("create-repositories", "missing"),
            ("repository-settings", SETTINGS),
            ("extra-tags", "latest"),
        ])
    };
    let run = publish("123456789012").run().exits(2);
    assert!(run.error().contains("is of no account in `allowed-account-ids`"), "{}", run.error());
    let run = publish(ACCOUNT).run().exits(0);
    assert_eq!((run.of_images("status"), run.of_images("digest")), (vec!["created".into()], vec![image.root.digest]));

    let named = json!({"repositoryName": "shop/api"});
    let described = moto.ecr(ACCOUNT, "DescribeRepositories", &json!({"repositoryNames": ["shop/api"]}));
    let repository = &described["repositories"][0];
    assert_eq!(repository["repositoryArn"], format!("arn:aws:ecr:us-east-1:{ACCOUNT}:repository/shop/api"));
    assert_eq!(repository["imageTagMutability"], "IMMUTABLE_WITH_EXCLUSION");
    let filter = |filter: &str| json!({"filterType": "WILDCARD", "filter": filter});
    assert_eq!(repository["imageTagMutabilityExclusionFilters"], json!([filter("latest"), filter("dev-*")]));
    assert_eq!(repository["imageScanningConfiguration"], json!({"scanOnPush": true}));
    assert_eq!(repository["encryptionConfiguration"], json!({"encryptionType": "KMS", "kmsKey": "alias/images"}));
    let tags = moto.ecr(ACCOUNT, "ListTagsForResource", &json!({"resourceArn": repository["repositoryArn"]}));
    assert_eq!(tags["tags"], json!([{"Key": "team", "Value": "shop"}]));
    for (action, member, file) in [
        ("GetLifecyclePolicy", "lifecyclePolicyText", "lifecycle.json"),
        ("GetRepositoryPolicy", "policyText", "policy.json"),
    ] {
        let text = moto.ecr(ACCOUNT, action, &named)[member].as_str().expect(member).to_owned();
        let there: serde_json::Value = serde_json::from_str(&text).unwrap();
        let given = std::fs::read(project.folder().join(file)).unwrap();
        assert_eq!(there, serde_json::from_slice::<serde_json::Value>(&given).unwrap());
    }
    // Nobody else's account has it.
    let others = moto.ecr("123456789012", "DescribeRepositories", &json!({}));
    assert_eq!(others["repositories"], json!([]));
}

#[test]
fn the_credentials_account_is_guarded_by_what_sts_says() {
    let (moto, registry) = (Emulator::moto(), DockerRegistry::start());
    let (project, _) = built();
    let host = moto.registry(ACCOUNT);
    let step = at(&moto, &registry, ACCOUNT, project.publish()).input("registry", &host);
    let run = step.input("allowed-account-ids", ACCOUNT).run().exits(2);
    assert!(run.error().contains("the credentials are of account 123456789012"), "{}", run.error());
}

#[test]
fn a_gate_reads_the_findings_that_moto_tells() {
    let (moto, registry) = (Emulator::moto(), DockerRegistry::start());
    let (project, image) = built();
    let (account, host) = ("123456789012", moto.own_registry());
    let publish = at(&moto, &registry, account, project.publish()).input("registry", &host);
    publish.input("create-repositories", "missing").run().exits(0);
    let promote = |gate: &str| {
        let step = at(&moto, &registry, account, project.promote("test"));
        step.input("registry", &host).input("require", gate).run()
    };
    // ECR's own idea of the images that the data plane has, and a scan of each platform.
    for child in &image.children {
        let text = String::from_utf8(child.bytes.to_vec()).unwrap();
        let put = json!({
            "repositoryName": "shop/api", "imageManifest": text, "imageManifestMediaType": child.media_type,
            "imageDigest": child.digest, "imageTag": child.digest.replace(':', "-"),
        });
        moto.ecr(account, "PutImage", &put);
    }
    let run = promote("ecr-scan=high").exits(1);
    assert!(run.log.raw.contains("ECR has not scanned"), "{}", run.log.raw);
    let finding = json!({"name": "CVE-2026-0001", "severity": "HIGH", "attributes": []});
    let result = |digest: &str| {
        json!({
            "registryId": account, "repositoryName": "shop/api", "imageId": {"imageDigest": digest},
            "imageScanStatus": {"status": "COMPLETE", "description": ""},
            "imageScanFindings": {
                "imageScanCompletedAt": 1_700_000_000, "findingSeverityCounts": {"HIGH": 1}, "findings": [finding],
            },
        })
    };
    let results: Vec<_> = image.children.iter().map(|child| result(&child.digest)).collect();
    let body = json!({"results": results, "region": "us-east-1", "account_id": account}).to_string();
    moto.post("/moto-api/static/ecr/scan-finding-results", "Content-Type: application/json\r\n", &body);
    for child in &image.children {
        let id = json!({"repositoryName": "shop/api", "imageId": {"imageDigest": child.digest}});
        moto.ecr(account, "StartImageScan", &id);
    }
    let run = promote("ecr-scan=high").exits(1);
    assert!(run.log.raw.contains("1 high") && run.log.raw.contains("CVE-2026-0001"), "{}", run.log.raw);
    let run = promote("ecr-scan=critical").exits(0);
    assert_eq!(run.of_images("status"), ["promoted"]);
}

#[test]
fn ministack_gets_an_image_and_passes_it_on() {
    let ministack = Emulator::ministack();
    let (project, image) = built();
    let (account, host) = ("000000000000", ministack.own_registry());
    ministack.set_parameter(account, "/account/ecr/main/registry", &host);
    let endpoint = format!("{host}={}", ministack.url());
    // Without evidence: the tags that stand in for the referrers API could not be moved.
    let step = |step: Step| bare(ministack.aws(step)).input("images", "Api").input("registry-endpoints", &endpoint);
    let publish = || step(project.publish()).input("allowed-account-ids", account);

    let run = publish().run().exits(1);
    assert!(run.error().contains("repository `shop/api` does not exist in 000000000000/us-east-1"), "{}", run.error());
    let made =
        |step: Step| step.input("create-repositories", "missing").input("repository-settings", "mutability: IMMUTABLE");
    let run = made(publish()).run().exits(0);
    assert_eq!(run.of_images("status"), ["created"]);
    assert_eq!(made(publish()).run().exits(0).of_images("status"), ["unchanged"]);
    let run = step(project.promote("test")).run().exits(0);
    assert_eq!(run.of_images("status"), ["promoted"]);
    assert_eq!(step(project.promote("test")).run().exits(0).of_images("status"), ["unchanged"]);

    // As the API and as another program see it.
    let described = ministack.ecr(account, "DescribeImages", &json!({"repositoryName": "shop/api"}));
    let details = described["imageDetails"].as_array().unwrap();
    let root = details.iter().find(|detail| detail["imageDigest"] == image.root.digest).expect("the root");
    let mut tags: Vec<_> = root["imageTags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect();
    tags.sort();
    assert_eq!(tags, ["dev-1.0.0", "test-1.0.0"]);
    let reference = format!("docker://{}/shop/api:test-1.0.0", ministack.url().trim_start_matches("http://"));
    let raw = json(program("skopeo").args(["inspect", "--raw", "--tls-verify=false", &reference]));
    assert_eq!(raw, serde_json::from_slice::<serde_json::Value>(&image.root.bytes).unwrap());

    // Another image under the tag is refused in the plan.
    let other = Project::new(BY_TAG);
    other.built("Api", &Image::of(&ImageSpec { seed: 7, ..ImageSpec::default() }));
    let run = step(other.publish()).run().exits(1);
    assert!(run.error().contains("dev-1.0.0") && run.error().contains(&image.root.digest), "{}", run.error());
}
