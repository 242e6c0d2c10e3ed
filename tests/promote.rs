//! Promoting: what travels with an image, what is compared with what, and what is an answer and what is none.

use std::path::Path;

use ecr_fake::http::RequestKind;
use ecr_fake::{ACCESS_KEY, ACCOUNT, Config, Ecr, Image, REGION, RepositorySettings, Role, User};
use serde_json::json;

use crate::support::project::{BY_REPOSITORY, BY_TAG, Project, aws, bare, default_host, set_registry};
use crate::support::registry::DockerRegistry;
use crate::support::runner::Step;
use crate::support::tools::{by_key_and_tag, listed, printed, program};

const OTHER_REGION: &str = "eu-west-1";

/// Two registries; dev has both images of [`BY_TAG`] in the first, and the other has their repositories.
fn shop() -> (Ecr, Project, [Image; 2]) {
    shop_for(vec![User::new(ACCESS_KEY, ACCOUNT)])
}

fn shop_for(users: Vec<User>) -> (Ecr, Project, [Image; 2]) {
    let registries = vec![(ACCOUNT.into(), REGION.into()), (ACCOUNT.into(), OTHER_REGION.into())];
    let ecr = Ecr::start(Config { registries, users, ..Config::default() });
    set_registry(&ecr);
    let mut api = Image::new(1);
    let (root, platform) = (api.root.digest.clone(), api.children[0].digest.clone());
    api.attach(&root, "application/sarif+json", b"{\"runs\":[]}");
    let scan = api.attach(&platform, "application/vnd.cyclonedx+json", b"{}");
    api.attach(&scan, "application/x-signature", b"of the SBOM");
    let web = Image::new(2);
    for (repository, image) in [("shop/api", &api), ("shop/web", &web)] {
        ecr.default_registry().push(repository, &["dev-1.0.0"], image);
        ecr.registry(ACCOUNT, OTHER_REGION).create(repository, RepositorySettings::default());
    }
    (ecr, Project::new(BY_TAG), [api, web])
}

fn promote(project: &Project, ecr: &Ecr) -> Step {
    aws(project.promote("test"), ecr)
}

/// To the other registry.
fn abroad(project: &Project, ecr: &Ecr) -> Step {
    promote(project, ecr).input("target-registry", &ecr.registry(ACCOUNT, OTHER_REGION).host())
}

#[test]
fn a_version_moves_up_the_ladder_with_one_digest() {
    let (ecr, project, [api, web]) = shop();
    let run = promote(&project, &ecr).run().exits(0);
    let host = default_host();
    let image = |name: &str, repository: &str, image: &Image| {
        json!({
            "name": name, "image": repository, "source": format!("{host}/{repository}:dev-1.0.0"),
            "target": format!("{host}/{repository}:test-1.0.0"), "digest": image.root.digest, "status": "promoted", "gates": [],
        })
    };
    assert_eq!(run.json("images"), json!([image("Api", "shop/api", &api), image("Web", "shop/web", &web)]));
    assert_eq!(run.json("digests"), json!({"Api": api.root.digest, "Web": web.root.digest}));
    assert_eq!(run.output("version"), "1.0.0");
    assert_eq!((run.left.len(), run.log.annotations.len()), (0, 0));
    aws(project.promote("prod"), &ecr).run().exits(0);
    for tag in ["dev-1.0.0", "test-1.0.0", "prod-1.0.0"] {
        assert_eq!(ecr.default_registry().resolve("shop/api", tag).as_ref(), Some(&api.root.digest));
    }
    // A second run writes nothing.
    ecr.clear_log();
    let before = ecr.snapshot();
    let run = aws(project.promote("prod"), &ecr).run().exits(0);
    assert_eq!(run.of_images("status"), ["unchanged", "unchanged"]);
    assert!(ecr.writes().is_empty(), "{}", ecr.table());
    assert_eq!(ecr.snapshot(), before);
}

#[test]
fn evidence_travels_to_another_registry_and_the_tag_comes_last() {
    for page in [1000, 1] {
        let (ecr, project, [mut api, _]) = shop();
        ecr.quirks(|quirks| quirks.page = page);
        let root = api.root.digest.clone();
        api.attach(&root, "application/x-second", b"a second of the root: two pages");
        ecr.default_registry().push("shop/api", &["dev-1.0.0"], &api);
        let run = abroad(&project, &ecr).run().exits(0);
        let there = ecr.registry(ACCOUNT, OTHER_REGION);
        there.whole("shop/api", "test-1.0.0").unwrap();
        for referrer in &api.referrers {
            assert_eq!(there.manifest("shop/api", &referrer.digest).unwrap().bytes, referrer.bytes, "{}", run.log.raw);
            there.whole("shop/api", &referrer.digest).unwrap();
        }
        // Those of the root, and the record of the promotion.
        assert_eq!(there.referrers("shop/api", &root).len(), 3);
        let writes = ecr.writes().into_iter().filter(|entry| entry.repository == "shop/api");
        let last = writes.max_by_key(|entry| entry.finished()).unwrap();
        assert_eq!(
            (last.kind, last.reference.as_str()),
            (RequestKind::PutManifestByTag, "test-1.0.0"),
            "{}",
            ecr.table()
        );
        assert_eq!(ecr.leaks(), 0);
        // What is attached later comes with the next run, and nothing else.
        ecr.clear_log();
        let platform = api.children[1].digest.clone();
        let late = api.attach(&platform, "application/x-late", b"late");
        ecr.default_registry().push("shop/api", &["dev-1.0.0"], &api);
        abroad(&project, &ecr).run().exits(0);
        assert!(there.manifest("shop/api", &late).is_some(), "{}", ecr.table());
        let puts: Vec<_> =
            ecr.writes().into_iter().filter(|entry| entry.kind == RequestKind::PutManifestByDigest).collect();
        assert_eq!(puts.iter().map(|put| put.reference.clone()).collect::<Vec<_>>(), [late]);
        assert_eq!(ecr.count(RequestKind::PutManifestByTag), 0, "{}", ecr.table());
    }
}

#[test]
fn that_nobody_may_look_for_evidence_does_not_mean_that_there_is_none() {
    for status in [401, 403, 429, 503] {
        let (ecr, project, _) = shop();
        let looks = |entry: &ecr_fake::LoggedRequest| entry.kind == RequestKind::Referrers;
        ecr.on(looks, 1, 1000, ecr_fake::Hook::status(status));
        let step = bare(abroad(&project, &ecr)).input("evidence", "required").input("images", "Web");
        let run = step.run().exits(1);
        assert!(run.error().contains(&status.to_string()), "{}", run.error());
        assert_eq!(ecr.registry(ACCOUNT, OTHER_REGION).resolve("shop/web", "test-1.0.0"), None);
        assert_eq!(run.of_images("status"), ["failed"]);
    }
}

#[test]
fn evidence_that_the_target_refuses_is_named_or_left_behind() {
    let (ecr, project, [api, _]) = shop();
    ecr.quirks(|quirks| quirks.refused_types = vec!["application/sarif+json".into()]);
    let step = || bare(abroad(&project, &ecr)).input("images", "Api");
    let run = step().input("evidence", "required").run().exits(1);
    assert!(run.error().contains(&api.referrers[0].digest) && run.error().contains("405"), "{}", run.error());
    let there = ecr.registry(ACCOUNT, OTHER_REGION);
    assert_eq!(there.resolve("shop/api", "test-1.0.0"), None);
    let run = step().input("evidence", "best-effort").run().exits(0);
    assert_eq!(run.of_images("status"), ["promoted"]);
    let warnings = run.log.messages("warning");
    assert!(warnings.len() == 1 && warnings[0].contains(&api.referrers[0].digest), "{warnings:?}");
    assert_eq!(there.resolve("shop/api", "test-1.0.0"), Some(api.root.digest.clone()));
    // What it does take has arrived.
    assert!(there.manifest("shop/api", &api.referrers[1].digest).is_some());
}

#[test]
fn a_version_that_is_not_in_the_environment_before_is_not_promoted() {
    let (ecr, project, _) = shop();
    let before = ecr.snapshot();
    let run = aws(project.promote("prod"), &ecr).input("images", "Api").run().exits(1);
    assert!(
        run.error().contains(&format!("`{}/shop/api:test-1.0.0` does not exist", default_host())),
        "{}",
        run.error()
    );
    assert_eq!(ecr.snapshot(), before);
}

#[test]
fn no_way_leads_down() {
    let (ecr, project, _) = shop();
    let before = ecr.snapshot();
    let down = |skip: &str| {
        let step = aws(project.promote("test"), &ecr).input("from", "prod").input("allow-skip", skip);
        step.run().exits(2).error().to_owned()
    };
    insta::assert_snapshot!(down("true"), @"input `from`: `prod` is not accepted: an environment before `test`, which is itself before `prod` (to bring an older version back to `test`, set `mode: rollback`)");
    assert_eq!(down("false"), down("true"));
    let run = promote(&project, &ecr).input("mode", "down").run().exits(2);
    insta::assert_snapshot!(run.error(), @"input `mode`: `down` is not accepted: promote, rollback, history, preview, status");
    assert_eq!(ecr.snapshot(), before);
}

#[test]
fn one_name_in_both_environments_moves_nothing() {
    let (ecr, _, [api, _]) = shop();
    ecr.default_registry().push("shop/api", &["1.0.0"], &api);
    let project = Project::new(&BY_TAG.replace("${Environment}-", ""));
    let told = |step: Step, rest: &str| {
        let run = step.input("images", "Api").run().exits(0);
        let name = format!("`{}/shop/api:1.0.0`", default_host());
        let warning = format!("image `Api`: its name is the same in dev and test, {name}: no tag moves{rest}");
        let warnings = run.log.messages("warning");
        assert!(warnings.len() == 1 && warnings[0].ends_with(&warning), "{warnings:?}");
        assert!(run.summary.contains("- Api: its name is the same in dev and test"), "{}", run.summary);
    };
    told(promote(&project, &ecr), ", only a record is added");
    told(promote(&project, &ecr), "");
}

#[test]
fn an_archived_image_is_not_told_as_missing() {
    let (ecr, project, [api, _]) = shop();
    ecr.default_registry().archive("shop/api", &api.root.digest);
    let run = promote(&project, &ecr).input("images", "Api").run().exits(1);
    assert!(run.error().contains("dev-1.0.0` is archived") && run.error().contains("restore it"), "{}", run.error());
    assert!(ecr.writes().is_empty());
}

#[test]
fn an_image_that_cannot_be_promoted_holds_all_back() {
    let (ecr, project, _) = shop();
    ecr.default_registry().change("shop/web", |repository| repository.tags.clear());
    let before = ecr.snapshot();
    let run = promote(&project, &ecr).run().exits(1);
    assert_eq!(run.of_images("status"), ["blocked", "failed"]);
    assert_eq!(ecr.snapshot(), before);
    assert!(ecr.writes().is_empty());
}

#[test]
fn a_tag_that_holds_another_digest_is_never_moved() {
    let (ecr, project, [api, _]) = shop();
    let other = Image::new(9);
    ecr.default_registry().push("shop/api", &["test-1.0.0"], &other);
    let before = ecr.snapshot();
    let run = promote(&project, &ecr).input("images", "Api").run().exits(1);
    assert!(run.error().contains(&other.root.digest) && run.error().contains(&api.root.digest), "{}", run.error());
    assert_eq!(ecr.snapshot(), before);
    let run = promote(&project, &ecr).input("images", "Api").input("on-conflict", "keep").run().exits(0);
    assert_eq!((run.of_images("status"), run.of_images("digest")), (vec!["unchanged".into()], vec![other.root.digest]));
    assert_eq!(ecr.snapshot(), before);
    assert!(run.log.messages("warning")[0].contains("shop/api:test-1.0.0` keeps sha256:"), "{}", run.log.raw);
}

#[test]
fn an_account_of_its_own_is_reached_by_a_role() {
    const PROD: &str = "444455556666";
    let config = Config {
        registries: vec![(ACCOUNT.into(), REGION.into()), (PROD.into(), REGION.into())],
        roles: vec![Role::new(PROD, "deploy")],
        ..Config::default()
    };
    let ecr = Ecr::start(config);
    set_registry(&ecr);
    let image = Image::new(1);
    ecr.default_registry().push("shop/api", &["dev-1.0.0"], &image);
    let prod = ecr.registry(PROD, REGION);
    prod.create("shop/api", RepositorySettings::immutable());
    let project = Project::new(BY_TAG);
    let step = || bare(promote(&project, &ecr)).input("images", "Api").input("target-registry", &prod.host());
    // As the account at hand it is not allowed.
    let run = step().run().exits(1);
    assert!(run.error().contains(&format!("arn:aws:ecr:{REGION}:{PROD}:repository/shop/api")), "{}", run.error());
    let run = step().input("target-role", &format!("arn:aws:iam::{PROD}:role/deploy")).run().exits(0);
    assert_eq!(prod.resolve("shop/api", "test-1.0.0"), Some(image.root.digest));
    prod.whole("shop/api", "test-1.0.0").unwrap();
    assert_eq!(ecr.leaks(), 0);
    // What is hidden is what is used.
    assert_eq!(ecr.count(RequestKind::api("AssumeRole")), 1, "{}", ecr.table());
    // Tokens, their passwords, the role's key and session; nothing that names an account or a user.
    assert_eq!(run.log.masks.len(), 6, "{:?}", run.log.masks);
    let names = [ACCOUNT, PROD, REGION, "AWS", "test", "deploy"];
    assert!(names.iter().all(|name| !run.log.masks.iter().any(|mask| mask == name)), "{:?}", run.log.masks);
}

/// Signs a digest with a key in a folder, as cosign before version 3 does by default: under a tag.
fn sign(folder: &Path, reference: &str, password: &str) {
    let mut sign = program("cosign");
    sign.current_dir(folder).env("COSIGN_PASSWORD", "").env("HOME", folder);
    sign.arg("sign").args(by_key_and_tag()).args(["--key", "cosign.key", "--allow-insecure-registry"]);
    sign.args(["--allow-http-registry", "--registry-username", "AWS", "--registry-password", password]);
    printed(sign.arg(reference));
}

fn verify(folder: &Path, reference: &str, password: &str) -> String {
    let mut verify = program("cosign");
    verify.current_dir(folder).env("HOME", folder);
    verify.args(["verify", "--key", "cosign.pub", "--insecure-ignore-tlog", "--allow-insecure-registry"]);
    verify.args(["--allow-http-registry", "--registry-username", "AWS", "--registry-password", password]);
    printed(verify.arg(reference))
}

fn keys(folder: &Path) {
    let mut generate = program("cosign");
    printed(generate.current_dir(folder).env("COSIGN_PASSWORD", "").env("HOME", folder).arg("generate-key-pair"));
}

#[test]
fn a_signature_of_cosign_travels_and_is_valid_there() {
    let (ecr, project, [api, _]) = shop();
    let folder = tempfile::tempdir().unwrap();
    keys(folder.path());
    let (here, there) = (ecr.default_registry(), ecr.registry(ACCOUNT, OTHER_REGION));
    let at = |url: &str| format!("{}/shop/api@{}", url.trim_start_matches("http://"), api.root.digest);
    sign(folder.path(), &at(here.url()), &here.password(ACCESS_KEY));
    let signature = format!("{}.sig", api.root.digest.replace(':', "-"));
    assert!(here.resolve("shop/api", &signature).is_some(), "{:?}", here.repository("shop/api").unwrap().tags);
    abroad(&project, &ecr).input("images", "Api").run().exits(0);
    assert_eq!(there.resolve("shop/api", &signature), here.resolve("shop/api", &signature));
    let verified = verify(folder.path(), &at(there.url()), &there.password(ACCESS_KEY));
    assert!(verified.contains(&api.root.digest), "{verified}");
}

#[test]
fn a_registry_without_the_referrers_api_keeps_evidence_and_signature() {
    let registry = DockerRegistry::start();
    let project = Project::new(BY_REPOSITORY);
    let mut api = Image::new(1);
    let root = api.root.digest.clone();
    api.attach(&root, "application/sarif+json", b"{\"runs\":[]}");
    project.built("Api", &api);
    let with_registry = |step: Step| step.input("registry", &registry.host());
    with_registry(project.publish()).run().exits(0);
    let folder = tempfile::tempdir().unwrap();
    keys(folder.path());
    let at = |environment: &str| format!("{}/{environment}/shop/api@{root}", registry.host());
    sign(folder.path(), &at("dev"), "");
    with_registry(project.promote("test")).run().exits(0);
    assert!(verify(folder.path(), &at("test"), "").contains(&root));
    let mut discover = program("oras");
    let found =
        crate::support::tools::json(discover.args(["discover", "--plain-http", "--format", "json", &at("test")]));
    let types: Vec<_> = listed(&found).unwrap().iter().map(|one| one["artifactType"].clone()).collect();
    // The record of the publication travels as well; that of the promotion is added.
    assert_eq!(types.len(), 3, "{types:?}");
    let run = with_registry(project.promote("test")).run().exits(0);
    assert_eq!(run.of_images("status"), ["unchanged"]);
}

#[test]
fn from_a_folder_to_a_registry_and_back() {
    let registry = DockerRegistry::start();
    let store = tempfile::tempdir().unwrap();
    let folder = format!("oci:{}", store.path().display());
    let project = Project::new(BY_TAG);
    let image = Image::new(1);
    project.built("Api", &image);
    let only = |step: Step| step.input("images", "Api");
    only(project.publish()).input("registry", &folder).run().exits(0);
    let run = only(project.promote("test"))
        .input("source-registry", &folder)
        .input("target-registry", &registry.host())
        .run();
    assert_eq!(run.exits(0).of_images("digest"), std::slice::from_ref(&image.root.digest));
    let run = only(project.promote("prod"))
        .input("source-registry", &registry.host())
        .input("target-registry", &folder)
        .run();
    assert_eq!(run.exits(0).of_images("status"), ["promoted"]);
    let raw = printed(program("skopeo").args(["inspect", "--raw", &format!("{folder}/shop/api:prod-1.0.0")]));
    assert_eq!(raw.as_bytes(), &image.root.bytes[..]);
}
