//! Publishing to ECR: names, bytes, order, what a second run does, and what stands in the way.

use ecr_fake::http::RequestKind;
use ecr_fake::{
    ACCESS_KEY, ACCOUNT, Config, Ecr, Hook, Image, ImageSpec, ImageTagMutability, Parameter, Policy, REGION,
    RepositorySettings, User,
};
use serde_json::json;

use crate::support::markdown::{HOSTILE_NAMES, Rendered};
use crate::support::project::{BY_TAG, Project, aws, bare, default_host, set_registry};
use crate::support::runner::{Run, Step};

const VULNERABILITIES: &str = "application/vnd.in-toto+json";

/// A fake with the repositories of [`BY_TAG`], and a checkout in which both images were built.
fn shop() -> (Ecr, Project, [Image; 2]) {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    for repository in ["shop/api", "shop/web"] {
        ecr.default_registry().create(repository, RepositorySettings::default());
    }
    let (project, images) = built();
    (ecr, project, images)
}

/// Two platforms with evidence on the root and on a platform, and a single platform.
fn built() -> (Project, [Image; 2]) {
    let project = Project::new(BY_TAG);
    let mut api = Image::new(1);
    let (root, platform) = (api.root.digest.clone(), api.children[0].digest.clone());
    api.attach(&root, "application/sarif+json", b"{\"runs\":[]}");
    let scan = api.attach(&platform, VULNERABILITIES, b"{\"predicateType\":\"x\"}");
    api.attach(&scan, "application/vnd.dev.cosign.simplesigning.v1+json", b"signature of the scan");
    let web = Image::of(&ImageSpec { platforms: vec!["linux/amd64".into()], seed: 2, ..ImageSpec::default() });
    project.built("Api", &api);
    project.built("Web", &web);
    (project, [api, web])
}

fn publish(project: &Project, ecr: &Ecr) -> Step {
    aws(project.publish(), ecr)
}

#[test]
fn bytes_and_digests_arrive_as_they_were_built() {
    let (ecr, project, [api, web]) = shop();
    let run = publish(&project, &ecr).run().exits(0);
    let registry = ecr.default_registry();
    for (repository, image) in [("shop/api", &api), ("shop/web", &web)] {
        assert_eq!(registry.resolve(repository, "dev-1.0.0").as_deref(), Some(image.root.digest.as_str()));
        registry.whole(repository, "dev-1.0.0").unwrap();
        for manifest in image.manifests() {
            let there = registry.manifest(repository, &manifest.digest).expect("every manifest");
            assert_eq!((there.bytes, there.media_type), (manifest.bytes.clone(), manifest.media_type.clone()));
        }
        let there = registry.repository(repository).unwrap();
        assert_eq!(there.tags.len(), 1, "{:?}", there.tags);
        for (digest, content) in &image.blobs {
            assert_eq!(there.blobs[digest].bytes().unwrap(), content.bytes().unwrap());
        }
    }
    let sizes =
        run.json("images").as_array().unwrap().iter().map(|image| image["size"].as_u64().unwrap()).collect::<Vec<_>>();
    let host = default_host();
    let image = |name: &str, repository: &str, image: &Image, size: u64| {
        json!({
            "name": name, "image": repository, "reference": format!("{host}/{repository}:dev-1.0.0"),
            "repository": repository, "tag": "dev-1.0.0", "digest": image.root.digest, "size": size, "status": "created",
        })
    };
    assert_eq!(
        run.json("images"),
        json!([image("Api", "shop/api", &api, sizes[0]), image("Web", "shop/web", &web, sizes[1])])
    );
    assert_eq!(sizes[1], bytes_of(&web));
    assert_eq!(run.json("digests"), json!({"Api": api.root.digest, "Web": web.root.digest}));
    assert_eq!(run.output("references"), format!("{host}/shop/api:dev-1.0.0\n{host}/shop/web:dev-1.0.0"));
    assert_eq!(run.output("version"), "1.0.0");
    assert!(run.summary.contains("shop/api:dev-1.0.0") && run.summary.contains("created"), "{}", run.summary);
    assert_eq!(run.log.annotations, []);
    assert_eq!(run.left, [""; 0]);
}

/// The bytes of the layers and configurations of an image without referrers.
fn bytes_of(image: &Image) -> u64 {
    image.blobs.iter().map(|(_, content)| content.size()).sum()
}

#[test]
fn evidence_and_record_are_there_before_the_tag() {
    let (ecr, project, [api, _]) = shop();
    publish(&project, &ecr).input("images", "Api").run().exits(0);
    let log = ecr.log();
    let of_api: Vec<_> = log.iter().filter(|entry| entry.repository == "shop/api" && entry.kind.writes()).collect();
    let last = of_api.iter().max_by_key(|entry| entry.finished()).unwrap();
    assert_eq!(
        (last.kind.clone(), last.reference.as_str()),
        (RequestKind::PutManifestByTag, "dev-1.0.0"),
        "{}",
        ecr.table()
    );
    assert_eq!(ecr.count(RequestKind::PutManifestByTag), 1, "{}", ecr.table());
    // A child is put when its blobs are there, the root when its children are: the fake refuses everything else. What
    // the fake does not know is that a referrer comes after its subject.
    let order = |digest: &str| {
        let put = |entry: &&&ecr_fake::LoggedRequest| {
            entry.kind == RequestKind::PutManifestByDigest && entry.reference == digest
        };
        of_api.iter().find(put).unwrap_or_else(|| panic!("{digest} is put:\n{}", ecr.table())).finished()
    };
    for referrer in &api.referrers {
        let json: serde_json::Value = serde_json::from_slice(&referrer.bytes).unwrap();
        assert!(order(json["subject"]["digest"].as_str().unwrap()) < order(&referrer.digest), "{}", ecr.table());
    }
    let registry = ecr.default_registry();
    let on_root = registry.referrers("shop/api", &api.root.digest);
    let types: Vec<_> = on_root.iter().map(|referrer| referrer["artifactType"].as_str().unwrap()).collect();
    assert_eq!(types, ["application/sarif+json", "application/vnd.in-toto+json"]);
    let record = registry.manifest("shop/api", on_root[1]["digest"].as_str().unwrap()).unwrap();
    let layer = record.json["layers"][0]["digest"].as_str().unwrap().to_owned();
    let statement = registry.repository("shop/api").unwrap().blobs[&layer].bytes().unwrap();
    let statement: serde_json::Value = serde_json::from_slice(&statement).unwrap();
    assert_eq!(format!("sha256:{}", statement["subject"][0]["digest"]["sha256"].as_str().unwrap()), api.root.digest);
    let predicate = &statement["predicate"];
    assert_eq!(predicate["kind"], "publish");
    assert_eq!(predicate["to"], format!("{}/shop/api:dev-1.0.0", default_host()));
    assert_eq!(predicate["run"], "https://github.com/shop/backend/actions/runs/42/attempts/1");
    assert_eq!((&predicate["environment"], &predicate["version"]), (&json!("dev"), &json!("1.0.0")));
}

#[test]
fn a_second_run_writes_nothing_and_says_so() {
    for settings in [RepositorySettings::default(), RepositorySettings::immutable()] {
        let (ecr, project, images) = shop();
        ecr.default_registry().change("shop/api", |repository| repository.settings = settings);
        publish(&project, &ecr).run().exits(0);
        let before = ecr.snapshot();
        ecr.clear_log();
        let run = publish(&project, &ecr).run().exits(0);
        assert_eq!(run.of_images("status"), ["unchanged", "unchanged"]);
        assert_eq!(run.of_images("digest"), images.map(|image| image.root.digest));
        assert!(ecr.writes().is_empty(), "{}", ecr.table());
        assert_eq!(ecr.snapshot(), before);
    }
}

#[test]
fn what_is_missing_of_the_evidence_is_added_by_a_second_run() {
    let (ecr, project, [api, _]) = shop();
    bare(publish(&project, &ecr)).run().exits(0);
    assert_eq!(ecr.default_registry().referrers("shop/api", &api.root.digest).len(), 0);
    publish(&project, &ecr).run().exits(0);
    assert_eq!(ecr.default_registry().referrers("shop/api", &api.root.digest).len(), 2);
    assert_eq!(ecr.default_registry().referrers("shop/api", &api.children[0].digest).len(), 1);
}

#[test]
fn requests_are_the_fewest_there_can_be() {
    let (ecr, project, [api, _]) = shop();
    let step = || bare(publish(&project, &ecr)).input("images", "Api").input("extra-tags", "latest");
    step().run().exits(0);
    let (tags, platforms, blobs) = (2, api.children.len(), bare_blobs(&api));
    // HEAD of the digest and of each tag and blob, POST and PUT of each blob, PUT of each platform and tag.
    assert_eq!(ecr.data_plane().len(), 1 + tags + 3 * blobs + platforms + tags, "{}", ecr.table());
    assert_eq!(ecr.count(RequestKind::api("GetAuthorizationToken")), 1);
    assert_eq!(ecr.count(RequestKind::api("GetParameter")), 1);
    assert_eq!(ecr.count(RequestKind::Ping), 0);

    ecr.clear_log();
    step().run().exits(0);
    assert_eq!(ecr.data_plane().len(), 1 + tags, "{}", ecr.table());

    // Of an image that is there, only the tags are written.
    ecr.clear_log();
    ecr.default_registry().change("shop/api", |repository| repository.tags.clear());
    step().run().exits(0);
    assert_eq!(ecr.data_plane().len(), 1 + tags + tags, "{}", ecr.table());

    // Blobs that are there are not sent again.
    ecr.clear_log();
    ecr.default_registry().change("shop/api", |repository| {
        repository.tags.clear();
        repository.manifests.clear();
    });
    step().run().exits(0);
    assert_eq!(ecr.data_plane().len(), 1 + tags + blobs + platforms + tags, "{}", ecr.table());
}

/// Blobs of an image without those of its referrers.
fn bare_blobs(image: &Image) -> usize {
    image
        .children
        .iter()
        .map(|child| {
            let json: serde_json::Value = serde_json::from_slice(&child.bytes).unwrap();
            1 + json["layers"].as_array().unwrap().len()
        })
        .sum()
}

#[test]
fn the_registry_can_be_given() {
    let (ecr, project, [api, _]) = shop();
    let host = default_host();
    // `registry`, with a prefix: no SSM.
    for repository in ["team/shop/api", "other/shop/api"] {
        ecr.default_registry().create(repository, RepositorySettings::default());
    }
    let step = || publish(&project, &ecr).input("images", "shop/api");
    let run = step().input("registry", &format!("{host}/team")).run().exits(0);
    assert_eq!(run.of_images("repository"), ["team/shop/api"]);
    assert_eq!(ecr.count(RequestKind::api("GetParameter")), 0);
    // `registry-parameter`: another SSM parameter than the template's.
    ecr.set_parameter(Parameter::new("/other/registry", &format!("{host}/other")));
    let run = step().input("registry-parameter", "/other/registry").run().exits(0);
    assert_eq!(run.of_images("reference"), [format!("{host}/other/shop/api:dev-1.0.0")]);
    let registry = ecr.default_registry();
    for repository in ["team/shop/api", "other/shop/api"] {
        assert_eq!(registry.resolve(repository, "dev-1.0.0").as_ref(), Some(&api.root.digest));
    }
    assert_eq!(registry.resolve("shop/api", "dev-1.0.0"), None);
}

#[test]
fn a_dry_run_lists_the_images_and_writes_nothing() {
    let (ecr, project, images) = shop();
    let before = ecr.snapshot();
    let run = publish(&project, &ecr).input("dry-run", "true").run().exits(0);
    assert_eq!(run.of_images("status"), ["planned", "planned"]);
    assert_eq!(run.of_images("digest"), images.map(|image| image.root.digest));
    assert!(ecr.writes().is_empty(), "{}", ecr.table());
    assert_eq!(ecr.snapshot(), before);
    // What is there already would not be written.
    publish(&project, &ecr).input("images", "Web").run().exits(0);
    let run = publish(&project, &ecr).input("dry-run", "true").run().exits(0);
    assert_eq!(run.of_images("status"), ["planned", "unchanged"]);
}

#[test]
fn an_image_with_another_versions_label_is_named() {
    let (ecr, project, _) = shop();
    let version = |version: &str| ImageSpec { version: Some(version.to_owned()), ..ImageSpec::default() };
    for (labelled, warns) in [("0.9.0", true), ("1.0.0", false), ("v1.0.0", false), ("24.04", false)] {
        std::fs::remove_dir_all(project.layout()).unwrap();
        project.built("Api", &Image::of(&version(labelled)));
        let step = || publish(&project, &ecr).inputs(&[("images", "Api"), ("dry-run", "true")]);
        let run = step().run().exits(0);
        let told = |run: &Run| {
            let label =
                "image `Api`: it is published as 1.0.0, but its label `org.opencontainers.image.version` says 0.9.0";
            let warnings = run.log.messages("warning");
            assert!(warnings.iter().all(|warning| !warning.contains("its label") || warning.contains(label)));
            warnings.iter().any(|warning| warning.contains("its label"))
        };
        assert_eq!(told(&run), warns, "{labelled}: {}", run.log.raw);
        assert!(!told(&bare(step()).run().exits(0)));
    }
}

#[test]
fn a_tag_that_holds_another_digest_is_never_moved() {
    for settings in [RepositorySettings::default(), RepositorySettings::immutable()] {
        let (ecr, project, [api, _]) = shop();
        let registry = ecr.default_registry();
        let other = Image::new(7);
        registry.push("shop/api", &["dev-1.0.0"], &other);
        registry.change("shop/api", |repository| repository.settings = settings);
        registry.set_pushed_at("shop/api", &other.root.digest, 1_700_000_000.0);
        let before = ecr.snapshot();
        let run = publish(&project, &ecr).run().exits(1);
        let error = run.error();
        assert!(error.contains(&other.root.digest) && error.contains(&api.root.digest), "{error}");
        assert!(error.contains("2023-11-14T22:13:20Z") && error.contains("on-conflict"), "{error}");
        // Before any byte is sent, of either image.
        assert_eq!(run.of_images("status"), ["failed", "blocked"]);
        assert!(ecr.writes().is_empty(), "{}", ecr.table());
        let key = format!("{}/shop/api", default_host());
        assert_eq!(ecr.snapshot().0[&key], before.0[&key]);
        assert_eq!(registry.resolve("shop/web", "dev-1.0.0"), None);
        assert_eq!((run.json("digests"), run.output("references")), (json!({}), ""));
    }
}

#[test]
fn a_conflict_can_be_left_as_it_is() {
    let (ecr, project, _) = shop();
    let other = Image::new(7);
    ecr.default_registry().push("shop/api", &["dev-1.0.0"], &other);
    let before = ecr.snapshot();
    let step = publish(&project, &ecr).inputs(&[("on-conflict", "keep"), ("images", "Api"), ("extra-tags", "latest")]);
    let run = step.run().exits(0);
    assert_eq!((run.of_images("status"), run.of_images("digest")), (vec!["unchanged".into()], vec![other.root.digest]));
    assert_eq!(ecr.snapshot(), before);
    assert_eq!(run.artifacts, "");
    // Who goes on from here does not go on with this build.
    let warnings = run.log.messages("warning");
    assert!(warnings.len() == 1 && warnings[0].contains("image `Api`: it is not published: `"), "{warnings:?}");
    assert!(run.summary.contains("is not published: "), "{}", run.summary);
}

#[test]
fn a_further_tag_moves_only_where_the_repository_lets_it() {
    let settings = |image_tag_mutability, filters: &[&str]| RepositorySettings {
        image_tag_mutability,
        exclusion_filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
        ..RepositorySettings::default()
    };
    for (settings, moves) in [
        (settings(ImageTagMutability::Mutable, &[]), true),
        (settings(ImageTagMutability::Immutable, &[]), false),
        (settings(ImageTagMutability::ImmutableWithExclusion, &["latest", "nightly-*"]), true),
        (settings(ImageTagMutability::ImmutableWithExclusion, &["nightly-*"]), false),
        (settings(ImageTagMutability::MutableWithExclusion, &["late*"]), false),
    ] {
        let (ecr, project, [api, _]) = shop();
        let registry = ecr.default_registry();
        let old = Image::new(7);
        registry.push("shop/api", &["latest"], &old);
        registry.change("shop/api", |repository| repository.settings = settings.clone());
        let step = publish(&project, &ecr).input("images", "Api").input("extra-tags", "latest");
        let run = step.run().exits(if moves { 0 } else { 1 });
        let held = registry.resolve("shop/api", "latest").unwrap();
        if moves {
            assert_eq!(held, api.root.digest, "{settings:?}");
            continue;
        }
        // Before any byte is sent, with both digests.
        assert!(ecr.writes().is_empty(), "{settings:?}: {}", ecr.table());
        assert!(run.error().contains("shop/api:latest` is immutable and holds "), "{}", run.error());
        assert!(run.error().contains(&old.root.digest) && run.error().contains(&api.root.digest), "{}", run.error());
        assert_eq!(registry.resolve("shop/api", "dev-1.0.0"), None);
    }
}

#[test]
fn a_repository_that_is_missing_is_named_with_its_command() {
    let (ecr, project, _) = shop();
    let registry = Ecr::start(Config::default());
    set_registry(&registry);
    drop(ecr);
    let run = publish(&project, &registry).input("images", "Api").run().exits(1);
    let error = run.error();
    assert!(error.contains("repository `shop/api` does not exist in 111122223333/us-east-1"), "{error}");
    assert!(error.contains("aws ecr create-repository --region us-east-1 --repository-name shop/api"), "{error}");
    assert_eq!(run.log.annotations[0].place, "template.yaml:15:18");
    assert_eq!(run.of_images("status"), ["failed"]);
}

#[test]
fn a_missing_permission_is_named() {
    for (denied, wanted) in [
        ("ecr:BatchGetImage", "ecr:BatchGetImage on arn:aws:ecr:us-east-1:111122223333:repository/shop/api"),
        ("ecr:BatchCheckLayerAvailability", "ecr:BatchCheckLayerAvailability on arn:aws:ecr:us-east-1"),
        (
            "ecr:InitiateLayerUpload",
            "ecr:InitiateLayerUpload on arn:aws:ecr:us-east-1:111122223333:repository/shop/api",
        ),
        ("ecr:UploadLayerPart", "ecr:UploadLayerPart"),
        ("ecr:CompleteLayerUpload", "ecr:CompleteLayerUpload"),
        ("ecr:PutImage", "ecr:PutImage on arn:aws:ecr:us-east-1:111122223333:repository/shop/api"),
        ("ecr:GetAuthorizationToken", "allow ecr:GetAuthorizationToken in the role's policy"),
        ("ssm:GetParameter", "ssm:GetParameter on parameter `/account/ecr/main/registry`"),
    ] {
        let policy = Policy::all().deny(&[denied]);
        let ecr =
            Ecr::start(Config { users: vec![User::new(ACCESS_KEY, ACCOUNT).policy(policy)], ..Config::default() });
        set_registry(&ecr);
        ecr.default_registry().create("shop/api", RepositorySettings::default());
        let (project, _) = built();
        let run = publish(&project, &ecr).input("images", "Api").run().exits(1);
        assert!(run.error().contains(wanted), "{denied}: {}", run.error());
        assert_eq!(run.error().matches("was denied").count(), 1, "{denied}: {}", run.error());
        assert_eq!(ecr.default_registry().resolve("shop/api", "dev-1.0.0"), None);
        // What is denied is not tried again; only a HEAD can't tell it from an expired token.
        let refused = |kind: &dyn Fn(&RequestKind) -> bool| {
            ecr.data_plane().iter().filter(|entry| entry.status() == 403 && kind(&entry.kind)).count()
        };
        let blobs = bare_blobs(&Image::new(1));
        assert!(
            refused(&|kind| *kind != RequestKind::HeadBlob && *kind != RequestKind::HeadManifest) <= blobs,
            "{}",
            ecr.table()
        );
        assert!(refused(&|_| true) <= 2 * blobs, "{}", ecr.table());
    }
}

#[test]
fn a_full_repository_is_said() {
    let (ecr, project, _) = shop();
    ecr.quirks(|quirks| quirks.repository_full = true);
    let run = bare(publish(&project, &ecr)).input("images", "Api").run().exits(1);
    assert!(run.error().contains("ecr:PutImage on arn:aws:ecr:") && run.error().contains("full"), "{}", run.error());
}

#[test]
fn a_token_that_expires_is_renewed_once() {
    for status in [401, 403] {
        let (ecr, project, [api, _]) = shop();
        ecr.quirks(|quirks| {
            quirks.expired_status = status;
            quirks.short_tokens = 1;
            quirks.token_requests = 5;
        });
        publish(&project, &ecr).input("images", "Api").run().exits(0);
        assert_eq!(ecr.default_registry().resolve("shop/api", "dev-1.0.0"), Some(api.root.digest));
        assert_eq!(ecr.count(RequestKind::api("GetAuthorizationToken")), 2, "{}", ecr.table());

        // The second that expires is the last.
        let (ecr, project, _) = shop();
        ecr.quirks(|quirks| {
            quirks.expired_status = status;
            quirks.short_tokens = 100;
            quirks.token_requests = 2;
        });
        let run = publish(&project, &ecr).input("images", "Api").run().exits(1);
        // The answer to a HEAD says no more than 403.
        let wanted = if status == 401 { "refused the token" } else { "(403 " };
        assert_eq!(run.error().matches(wanted).count(), 1, "{}", run.error());
        assert_eq!(ecr.count(RequestKind::api("GetAuthorizationToken")), 2, "{}", ecr.table());
        assert_eq!(ecr.default_registry().resolve("shop/api", "dev-1.0.0"), None);
    }
}

#[test]
fn an_account_that_is_not_allowed_is_not_written_to() {
    let (ecr, project, _) = shop();
    let before = ecr.snapshot();
    let run = publish(&project, &ecr).input("allowed-account-ids", "999988887777").run().exits(2);
    assert!(run.error().contains(&default_host()), "{}", run.error());
    assert_eq!(ecr.data_plane().len(), 0);
    // Allowed is the registry's account, but the credentials are of another.
    let config = Config {
        users: vec![User::new("AKIAOTHER", "444455556666")],
        registries: vec![(ACCOUNT.into(), REGION.into()), ("444455556666".into(), REGION.into())],
        ..Config::default()
    };
    let other = Ecr::start(config);
    let step = project.publish().envs(other.environment("AKIAOTHER", REGION));
    let step = step.input("registry-endpoints", &other.registry_endpoints()).input("registry", &default_host());
    let run = step.input("allowed-account-ids", ACCOUNT).run().exits(2);
    assert!(run.error().contains("444455556666"), "{}", run.error());
    assert_eq!(other.data_plane().len(), 0);
    assert_eq!(ecr.snapshot(), before);
    publish(&project, &ecr).input("allowed-account-ids", ACCOUNT).run().exits(0);
}

#[test]
fn a_layout_that_was_cut_off_is_refused_before_a_byte_is_sent() {
    let run_with = |damage: &dyn Fn(&Project, &Image)| -> (Run, Image) {
        let (ecr, project, [api, _]) = shop();
        damage(&project, &api);
        let run = publish(&project, &ecr).input("images", "Api").run().exits(1);
        assert!(ecr.writes().is_empty(), "{}", ecr.table());
        (run, api)
    };
    let layer = |image: &Image| image.blobs[0].0.clone();
    let (run, api) = run_with(&|project, api| std::fs::remove_file(project.blob(&layer(api))).unwrap());
    assert!(run.error().contains(&layer(&api)) && run.error().contains("build again"), "{}", run.error());
    let (run, api) = run_with(&|project, api| std::fs::write(project.blob(&layer(api)), "half").unwrap());
    assert!(run.error().contains("has only 4 of 1024 bytes") && run.error().contains(&layer(&api)), "{}", run.error());
    let (run, api) = run_with(&|project, api| std::fs::write(project.blob(&layer(api)), [0; 1025]).unwrap());
    let told = format!("has 1025 bytes for the blob {}, 1 more than its 1024", layer(&api));
    assert!(run.error().contains(&told) && run.error().contains("changed after the build"), "{}", run.error());
    let (run, api) = run_with(&|project, api| std::fs::remove_file(project.blob(&api.children[1].digest)).unwrap());
    assert!(run.error().contains(&api.children[1].digest), "{}", run.error());
    let (run, _) =
        run_with(&|project, _| std::fs::write(project.layout().join("index.json"), r#"{"schemaVer"#).unwrap());
    assert!(run.error().contains("index.json"), "{}", run.error());
}

#[test]
fn bytes_that_are_not_those_of_their_digest_are_not_published() {
    let (ecr, project, [api, web]) = shop();
    let layer = &api.blobs[0].0;
    let mut bytes = std::fs::read(project.blob(layer)).unwrap();
    bytes[100] ^= 1;
    std::fs::write(project.blob(layer), bytes).unwrap();
    let run = publish(&project, &ecr).run().exits(1);
    assert!(run.error().contains(layer) && run.error().contains("does not match its digest"), "{}", run.error());
    assert_eq!(ecr.default_registry().resolve("shop/api", "dev-1.0.0"), None);
    assert!(!ecr.default_registry().repository("shop/api").unwrap().blobs.contains_key(layer));
    assert_eq!(ecr.default_registry().resolve("shop/web", "dev-1.0.0"), Some(web.root.digest));
}

#[test]
fn a_registry_that_refuses_the_connection_is_named() {
    let (ecr, project, _) = shop();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let step =
        publish(&project, &ecr).input("registry-endpoints", &format!("{}=http://127.0.0.1:{port}", default_host()));
    let run = step.input("images", "Api").run().exits(1);
    let image = format!(" of `{}/shop/api`: ", default_host());
    let url = format!("no answer from `http://127.0.0.1:{port}/v2/shop/api/manifests/");
    // The requests for the tag and for the digest are sent at one time.
    for text in ["cannot read manifest `", image.as_str(), url.as_str(), "` (HEAD): ", "refused"] {
        assert!(run.error().contains(text), "{}", run.error());
    }
}

#[test]
fn an_image_that_was_not_built_is_named() {
    let (ecr, _, _) = shop();
    let project = Project::new(BY_TAG);
    let run = publish(&project, &ecr).run().exits(2);
    assert!(run.error().contains("no OCI layout"), "{}", run.error());
    project.built("Api", &Image::new(1));
    let run = publish(&project, &ecr).run().exits(1);
    assert!(run.error().contains("`Web` was not built"), "{}", run.error());
    assert_eq!(run.of_images("status"), ["blocked", "failed"]);
    assert_eq!((run.json("digests"), run.output("references")), (json!({}), ""));
    assert!(run.summary.contains("failed: 1 of 2 images; nothing was written"), "{}", run.summary);
    assert!(ecr.writes().is_empty(), "{}", ecr.table());
}

#[test]
fn what_a_registry_says_mentions_nobody() {
    let (ecr, project, _) = shop();
    let message = HOSTILE_NAMES.join(", ");
    let body = json!({"errors": [{"code": "DENIED", "message": message}]}).to_string();
    ecr.on(
        |entry| entry.kind == RequestKind::PostUpload,
        1,
        1000,
        Hook::Answer { status: 403, headers: Vec::new(), body },
    );
    let run = publish(&project, &ecr).input("images", "Api").run().exits(1);
    assert!(run.summary.contains("babel"), "{}", run.summary);
    Rendered::of(&run.summary).says_nothing();
    assert!(!run.log.raw.contains('\u{202e}') && run.error().contains(r"\u{202e}gnp"), "{}", run.log.raw);
}
