//! The control plane.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ecr_fake::{
    ACCESS_KEY, ACCOUNT, Config, Ecr, Image, ImageScan, Parameter, Policy, Quota, REGION, RepositorySettings, Role,
    Throttle, User,
};
use serde_json::{Value, json};

use crate::{Answer, call};

pub(crate) fn signed(key: &str, region: &str, service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential={key}/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
}

pub(crate) fn api_as(ecr: &Ecr, key: &str, target: &str, input: &Value) -> Answer {
    let service = match target.split('.').next() {
        Some("AmazonSSM") => "ssm",
        Some("ServiceQuotasV20190624") => "servicequotas",
        _ => "ecr",
    };
    let authorization = signed(key, REGION, service);
    let headers = [
        ("authorization", authorization.as_str()),
        ("x-amz-date", "20260101T000000Z"),
        ("x-amz-target", target),
        ("content-type", "application/x-amz-json-1.1"),
    ];
    call(ecr.endpoint_url(), "POST", "/", &headers, input.to_string().as_bytes())
}

pub(crate) fn ecr_api(ecr: &Ecr, action: &str, input: Value) -> Answer {
    api_as(ecr, ACCESS_KEY, &format!("AmazonEC2ContainerRegistry_V20150921.{action}"), &input)
}

pub(crate) fn sts(ecr: &Ecr, authorization: Option<&str>, token: Option<&str>, form: &str) -> Answer {
    let mut headers = vec![("content-type", "application/x-www-form-urlencoded"), ("x-amz-date", "20260101T000000Z")];
    headers.extend(authorization.map(|value| ("authorization", value)));
    headers.extend(token.map(|value| ("x-amz-security-token", value)));
    call(ecr.endpoint_url(), "POST", "/", &headers, form.as_bytes())
}

pub(crate) fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name} in {xml}"));
    rest.split_once(&format!("</{name}>")).unwrap().0
}

pub(crate) fn exception(answer: &Answer) -> String {
    assert_eq!(answer.status, 400, "{answer:?}");
    answer.json()["__type"].as_str().unwrap().to_owned()
}

#[test]
fn the_tokens_password_opens_the_data_plane() {
    let ecr = Ecr::start(Config::default());
    let data = ecr_api(&ecr, "GetAuthorizationToken", json!({})).json();
    let token = data["authorizationData"][0]["authorizationToken"].as_str().unwrap().to_owned();
    assert!(String::from_utf8(STANDARD.decode(&token).unwrap()).unwrap().starts_with("AWS:"));
    let authorization = format!("Basic {token}");
    let ping = call(ecr.default_registry().url(), "GET", "/v2/", &[("authorization", &authorization)], b"");
    assert_eq!(ping.status, 200);
    let target = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
    assert_eq!(exception(&api_as(&ecr, "AKIAUNKNOWN", target, &json!({}))), "UnrecognizedClientException");
}

#[test]
fn repositories_are_created_once_with_their_settings() {
    let ecr = Ecr::start(Config::default());
    let input = json!({
        "repositoryName": "shop/api",
        "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
        "imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "latest*"}],
        "imageScanningConfiguration": {"scanOnPush": true},
        "encryptionConfiguration": {"encryptionType": "KMS", "kmsKey": "alias/a"},
        "tags": [{"Key": "team", "Value": "shop"}],
    });
    let created = ecr_api(&ecr, "CreateRepository", input.clone()).json();
    assert_eq!(created["repository"]["repositoryUri"], "111122223333.dkr.ecr.us-east-1.amazonaws.com/shop/api");
    assert_eq!(exception(&ecr_api(&ecr, "CreateRepository", input)), "RepositoryAlreadyExistsException");
    let invalid = json!({"repositoryName": "shop/api2", "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION"});
    assert_eq!(exception(&ecr_api(&ecr, "CreateRepository", invalid)), "InvalidParameterException");
    let policy = json!({"repositoryName": "shop/api", "lifecyclePolicyText": "{\"rules\":[]}"});
    assert_eq!(ecr_api(&ecr, "PutLifecyclePolicy", policy).status, 200);
    let policy = json!({"repositoryName": "shop/api", "policyText": "no JSON"});
    assert_eq!(exception(&ecr_api(&ecr, "SetRepositoryPolicy", policy)), "InvalidParameterException");
    let arn = "arn:aws:ecr:us-east-1:111122223333:repository/shop/api";
    let tag = json!({"resourceArn": arn, "tags": [{"Key": "a", "Value": "b"}]});
    assert_eq!(ecr_api(&ecr, "TagResource", tag).status, 200);
    let settings = ecr.default_registry().repository("shop/api").unwrap().settings;
    assert_eq!(settings.tags, [("team".into(), "shop".into()), ("a".into(), "b".into())]);
    assert_eq!((settings.exclusion_filters, settings.scan_on_push), (vec!["latest*".to_owned()], true));
    let missing = ecr_api(&ecr, "DescribeRepositories", json!({"repositoryNames": ["none"]}));
    assert_eq!(exception(&missing), "RepositoryNotFoundException");
}

#[test]
fn images_are_described_in_pages() {
    let ecr = Ecr::start(Config::default());
    let registry = ecr.default_registry();
    let image = Image::new(1);
    registry.push("shop/api", &["a", "b"], &image);
    registry.set_pushed_at("shop/api", &image.root.digest, 1_700_000_000.0);
    let by_tag = json!({"repositoryName": "shop/api", "imageIds": [{"imageTag": "a"}]});
    let detail = ecr_api(&ecr, "DescribeImages", by_tag.clone()).json()["imageDetails"][0].clone();
    assert_eq!(detail["imageDigest"], image.root.digest.as_str());
    assert_eq!(detail["imageTags"], json!(["a", "b"]));
    assert_eq!((&detail["imagePushedAt"], &detail["imageStatus"]), (&json!(1_700_000_000.0), &json!("ACTIVE")));
    registry.archive("shop/api", &image.root.digest);
    let detail = ecr_api(&ecr, "DescribeImages", by_tag).json();
    assert_eq!(detail["imageDetails"][0]["imageStatus"], "ARCHIVED");
    let unknown = json!({"repositoryName": "shop/api", "imageIds": [{"imageTag": "c"}]});
    assert_eq!(exception(&ecr_api(&ecr, "DescribeImages", unknown)), "ImageNotFoundException");
    ecr.quirks(|quirks| quirks.page = 1);
    let first = ecr_api(&ecr, "DescribeImages", json!({"repositoryName": "shop/api"})).json();
    let next = json!({"repositoryName": "shop/api", "nextToken": first["nextToken"]});
    let second = ecr_api(&ecr, "DescribeImages", next).json();
    let digests = [&first, &second].map(|page| page["imageDetails"][0]["imageDigest"].as_str().unwrap().to_owned());
    assert!(image.children.iter().all(|child| digests.contains(&child.digest)));
    assert!(second.get("nextToken").is_none());
    let batch = json!({"repositoryName": "shop/api", "imageIds": [{"imageTag": "a"}, {"imageDigest": digests[0]}]});
    let batch = ecr_api(&ecr, "BatchGetImage", batch).json();
    assert_eq!(batch["images"][0]["imageId"]["imageDigest"], digests[0].as_str());
    assert_eq!(batch["failures"][0]["failureCode"], "ImageNotFound");
}

#[test]
fn scan_findings_have_both_kinds_on_several_pages() {
    let ecr = Ecr::start(Config::default());
    let registry = ecr.default_registry();
    let image = Image::new(1);
    registry.push("shop/api", &["a"], &image);
    let child = &image.children[0].digest;
    registry.set_scan(
        "shop/api",
        child,
        ImageScan {
            pending_calls: 1,
            findings: vec![json!({"name": "CVE-1", "severity": "HIGH"})],
            enhanced_findings: vec![json!({"findingArn": "arn", "severity": "CRITICAL"})],
            page: 1,
            ..ImageScan::default()
        },
    );
    let ask = |digest: &str, token: Option<&str>| {
        let mut input = json!({"repositoryName": "shop/api", "imageId": {"imageDigest": digest}});
        if let Some(token) = token {
            input["nextToken"] = token.into();
        }
        ecr_api(&ecr, "DescribeImageScanFindings", input)
    };
    assert_eq!(ask(child, None).json()["imageScanStatus"]["status"], "IN_PROGRESS");
    let first = ask(child, None).json();
    assert_eq!(first["imageScanFindings"]["findings"][0]["name"], "CVE-1");
    assert_eq!(first["imageScanFindings"]["findingSeverityCounts"], json!({"HIGH": 1, "CRITICAL": 1}));
    let second = ask(child, first["nextToken"].as_str()).json();
    assert_eq!(second["imageScanFindings"]["enhancedFindings"][0]["findingArn"], "arn");
    assert!(second.get("nextToken").is_none());
    assert_eq!(exception(&ask(&image.root.digest, None)), "ScanNotFoundException");
}

#[test]
fn parameters_need_a_permission_and_secrets_their_decryption() {
    let other = User::new("AKIADENIED", ACCOUNT).policy(Policy::all().deny(&["ssm:*"]));
    let ecr = Ecr::start(Config { users: vec![User::new(ACCESS_KEY, ACCOUNT), other], ..Config::default() });
    ecr.set_parameter(Parameter::new("/account/ecr/main/registry", "registry"));
    let secret = Parameter { kind: "SecureString".into(), ..Parameter::new("/secret", "hidden") };
    ecr.set_parameter(secret);
    let get = |key: &str, input: Value| api_as(&ecr, key, "AmazonSSM.GetParameter", &input);
    let found = get(ACCESS_KEY, json!({"Name": "/account/ecr/main/registry"})).json();
    assert_eq!(found["Parameter"]["Value"], "registry");
    assert_ne!(get(ACCESS_KEY, json!({"Name": "/secret"})).json()["Parameter"]["Value"], "hidden");
    let decrypted = get(ACCESS_KEY, json!({"Name": "/secret", "WithDecryption": true})).json();
    assert_eq!(decrypted["Parameter"]["Value"], "hidden");
    assert_eq!(exception(&get(ACCESS_KEY, json!({"Name": "/none"}))), "ParameterNotFound");
    let denied = get("AKIADENIED", json!({"Name": "/secret"}));
    assert_eq!(exception(&denied), "AccessDeniedException");
    assert!(
        denied.text().contains("ssm:GetParameter on resource: arn:aws:ssm:us-east-1:111122223333:parameter/secret")
    );
    let several = json!({"Names": ["/account/ecr/main/registry", "/none"]});
    let several = api_as(&ecr, ACCESS_KEY, "AmazonSSM.GetParameters", &several).json();
    assert_eq!(several["InvalidParameters"], json!(["/none"]));
}

#[test]
fn a_role_gives_keys_of_its_own_account() {
    let roles = vec![
        Role { trusts: vec!["arn:aws:iam::111122223333:*".into()], ..Role::new("444455556666", "deploy") },
        Role { trusts: vec![], web_identity: Some("jwt".into()), ..Role::new("444455556666", "github") },
    ];
    let ecr = Ecr::start(Config { roles, ..Config::default() });
    let own = signed(ACCESS_KEY, REGION, "sts");
    let identity = sts(&ecr, Some(&own), None, "Action=GetCallerIdentity&Version=2011-06-15").text();
    assert_eq!(element(&identity, "Account"), ACCOUNT);
    let form = "Action=AssumeRole&RoleArn=arn:aws:iam::444455556666:role/deploy&RoleSessionName=run-1";
    let assumed = sts(&ecr, Some(&own), None, form).text();
    let (key, token) = (element(&assumed, "AccessKeyId"), element(&assumed, "SessionToken"));
    let theirs = signed(key, REGION, "sts");
    let identity = sts(&ecr, Some(&theirs), Some(token), "Action=GetCallerIdentity").text();
    assert_eq!(element(&identity, "Arn"), "arn:aws:sts::444455556666:assumed-role/deploy/run-1");
    let forgotten = sts(&ecr, Some(&theirs), None, "Action=GetCallerIdentity");
    assert_eq!((forgotten.status, element(&forgotten.text(), "Code")), (403, "InvalidClientTokenId"));
    let form = "Action=AssumeRole&RoleArn=arn:aws:iam::444455556666:role/github&RoleSessionName=run-1";
    assert_eq!(element(&sts(&ecr, Some(&own), None, form).text(), "Code"), "AccessDenied");
    let web = |token: &str| {
        let form =
            "Action=AssumeRoleWithWebIdentity&RoleArn=arn:aws:iam::444455556666:role/github&RoleSessionName=run-1";
        sts(&ecr, None, None, &format!("{form}&WebIdentityToken={token}"))
    };
    assert_eq!(web("jwt").status, 200);
    assert_eq!(element(&web("forged").text(), "Code"), "InvalidIdentityToken");
}

#[test]
fn the_identity_token_is_for_the_jobs_bearer_and_sts() {
    let ecr = Ecr::start(Config::default());
    let variables = ecr.web_identity("jwt");
    let (_, path) = super::split(&variables[0].1);
    let bearer = format!("Bearer {}", variables[1].1);
    let ask = |query: &str, bearer: &str| {
        call(ecr.endpoint_url(), "GET", &format!("{path}{query}"), &[("authorization", bearer)], b"")
    };
    assert_eq!(ask("&audience=sts.amazonaws.com", &bearer).json()["value"], "jwt");
    assert_eq!(ask("&audience=sts.amazonaws.com", "Bearer other").status, 401);
    assert_eq!(ask("", &bearer).status, 400);
}

#[test]
fn the_control_plane_throttles_and_lists_templates_and_settings() {
    let ecr =
        Ecr::start(Config { throttles: vec![Throttle::new("DescribeImages", Quota::First(1))], ..Config::default() });
    ecr.default_registry().create("shop/api", RepositorySettings::default());
    let input = json!({"repositoryName": "shop/api"});
    assert_eq!(exception(&ecr_api(&ecr, "DescribeImages", input.clone())), "ThrottlingException");
    assert_eq!(ecr_api(&ecr, "DescribeImages", input).status, 200);
    let setting = ecr_api(&ecr, "GetAccountSetting", json!({"name": "BLOB_MOUNTING"})).json();
    assert_eq!(setting["value"], "DISABLED");
    let templates = ecr_api(&ecr, "DescribeRepositoryCreationTemplates", json!({})).json();
    assert_eq!(templates["repositoryCreationTemplates"], json!([]));
}

#[test]
fn what_the_service_refuses_of_settings_is_refused() {
    let ecr = Ecr::start(Config::default());
    let create = |name: &str, encryption: Value| {
        let input = json!({"repositoryName": name, "encryptionConfiguration": encryption});
        ecr_api(&ecr, "CreateRepository", input).json()["repository"]["encryptionConfiguration"].clone()
    };
    let managed = create("managed", json!({"encryptionType": "KMS"}));
    assert!(managed["kmsKey"].as_str().unwrap().starts_with("arn:aws:kms:us-east-1:111122223333:key/"), "{managed}");
    let own = json!({"encryptionType": "KMS", "kmsKey": "arn:aws:kms:us-east-1:111122223333:key/own"});
    assert_eq!(create("own", own.clone()), own);
    // The operation is unknown, whatever its input lacks.
    assert_eq!(exception(&ecr_api(&ecr, "PutRegistryPolicy", json!({}))), "UnknownOperationException");
    let missing = ecr_api(&ecr, "GetLifecyclePolicy", json!({"repositoryName": "own"}));
    let message = "for the repository with name 'own' in the registry with id '111122223333'";
    assert!(missing.text().contains(message), "{missing:?}");
    let set = |policy: Value| {
        ecr_api(&ecr, "SetRepositoryPolicy", json!({"repositoryName": "own", "policyText": policy.to_string()}))
    };
    let refused = set(json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow"}]}));
    assert!(refused.text().contains("'Invalid repository policy provided'"), "{refused:?}");
    let statement = json!({"Effect": "Allow", "Principal": "*", "Action": "ecr:BatchGetImage"});
    assert_eq!(set(json!({"Version": "2012-10-17", "Statement": statement})).status, 200);
    let to_itself = json!({"replicationConfiguration": {"rules": [
        {"destinations": [{"region": "us-east-1", "registryId": "111122223333"}]}]}});
    let refused = ecr_api(&ecr, "PutReplicationConfiguration", to_itself);
    assert!(refused.text().contains("cannot be the same as the source registry"), "{refused:?}");
    let layers = json!({"repositoryName": "own", "layerDigests": [format!("sha256:{}", "a".repeat(64)), "b"]});
    let found = ecr_api(&ecr, "BatchCheckLayerAvailability", layers).json();
    assert_eq!(found["layers"][0]["layerAvailability"], "UNAVAILABLE");
    assert_eq!((&found["failures"][0]["layerDigest"], &found["layers"][1]), (&json!("b"), &Value::Null));
}
