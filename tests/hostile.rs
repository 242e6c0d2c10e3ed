//! Registries that mean no good: what they send is refused, and what is secret stays with the registry it is for.

use ecr_fake::http::RequestKind;
use ecr_fake::{ACCOUNT, Config, Ecr, Hook, Image, LoggedRequest, REGION, RepositorySettings};
use serde_json::json;

use crate::support::project::{BY_TAG, Project, aws, bare, set_registry};
use crate::support::runner::Run;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OTHER_REGION: &str = "eu-west-1";

/// dev's image is in the first of two registries.
fn shop() -> (Ecr, Project) {
    let registries = vec![(ACCOUNT.into(), REGION.into()), (ACCOUNT.into(), OTHER_REGION.into())];
    let ecr = Ecr::start(Config { registries, ..Config::default() });
    set_registry(&ecr);
    ecr.default_registry().push("shop/api", &["dev-1.0.0"], &Image::new(1));
    ecr.registry(ACCOUNT, OTHER_REGION).create("shop/api", RepositorySettings::default());
    (ecr, Project::new(BY_TAG))
}

/// To the other registry; nothing arrives under a tag.
#[track_caller]
fn refused(ecr: &Ecr, project: &Project) -> Run {
    let there = ecr.registry(ACCOUNT, OTHER_REGION);
    let step = bare(aws(project.promote("test"), ecr)).input("images", "Api").input("target-registry", &there.host());
    let run = step.run().exits(1);
    assert_eq!(there.repository("shop/api").unwrap().tags.len(), 0, "{}", ecr.table());
    run.error();
    run
}

/// An index of what is given.
fn index(ecr: &Ecr, children: &[(String, usize)]) -> (String, usize) {
    let children: Vec<_> =
        children.iter().map(|(digest, size)| json!({"mediaType": INDEX, "digest": digest, "size": size})).collect();
    let bytes = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}).to_string();
    let size = bytes.len();
    (ecr.default_registry().put_manifest("shop/api", bytes, INDEX), size)
}

#[test]
fn an_index_in_an_index_in_an_index_is_too_deep() {
    let (ecr, project) = shop();
    let mut root = index(&ecr, &[]);
    for _ in 0..8 {
        root = index(&ecr, &[root]);
    }
    ecr.default_registry().tag("shop/api", "dev-1.0.0", &root.0);
    assert!(refused(&ecr, &project).error().contains("nested deeper"));
}

#[test]
fn an_index_of_thousands_is_too_many() {
    let (ecr, project) = shop();
    let children: Vec<_> = (0..2000).map(|n| (ecr_fake::digest(format!("{n}").as_bytes()), 1)).collect();
    let root = index(&ecr, &children);
    ecr.default_registry().tag("shop/api", "dev-1.0.0", &root.0);
    assert!(refused(&ecr, &project).error().contains("more than 1000 manifests"));
    assert!(ecr.count(RequestKind::GetManifest) < 10, "none of them was asked for");
}

#[test]
fn a_manifest_over_the_limit_is_not_read() {
    let (ecr, project) = shop();
    let padding = " ".repeat(4 << 20);
    let bytes = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string() + &padding;
    let root = ecr.default_registry().put_manifest("shop/api", bytes, INDEX);
    ecr.default_registry().tag("shop/api", "dev-1.0.0", &root);
    assert!(refused(&ecr, &project).error().contains("limit"));
}

#[test]
fn what_is_no_manifest_is_refused() {
    for body in ["", "{", "[]", "null", r#"{"mediaType":"text/html"}"#, "<html>"] {
        let (ecr, project) = shop();
        let headers = vec![("content-type".to_owned(), INDEX.to_owned())];
        let of_source =
            |entry: &LoggedRequest| entry.kind == RequestKind::GetManifest && entry.reference == "dev-1.0.0";
        ecr.on(of_source, 1, 1, Hook::Answer { status: 200, headers, body: body.to_owned() });
        assert!(refused(&ecr, &project).error().contains("shop/api"), "{body}");
    }
}

#[test]
fn a_redirect_that_leads_back_is_followed_for_a_while_only() {
    let (ecr, project) = shop();
    let to = format!("{}/v2/shop/api/blobs/{}", ecr.default_registry().url(), Image::new(1).blobs[0].0);
    let of_blob = |entry: &LoggedRequest| entry.kind == RequestKind::GetBlob;
    ecr.on(of_blob, 1, 1000, Hook::Answer { status: 307, headers: vec![("location".into(), to)], body: String::new() });
    assert!(refused(&ecr, &project).error().contains("redirects"));
}

#[test]
fn an_upload_on_another_host_gets_no_authorization() {
    let (ecr, project) = shop();
    let elsewhere = Ecr::start(Config::default());
    let to = format!("{}/v2/shop/api/blobs/uploads/1", elsewhere.default_registry().url());
    let is_post = |entry: &LoggedRequest| entry.kind == RequestKind::PostUpload;
    ecr.on(is_post, 1, 1000, Hook::Answer { status: 202, headers: vec![("location".into(), to)], body: String::new() });
    refused(&ecr, &project);
    let there = elsewhere.data_plane();
    assert!(!there.is_empty() && there.iter().all(|entry| !entry.authorization), "{}", elsewhere.table());
}

#[test]
fn a_next_page_on_another_host_is_not_asked_for() {
    let (ecr, project) = shop();
    let elsewhere = Ecr::start(Config::default());
    let link = format!("<{}/v2/shop/api/referrers/x>; rel=\"next\"", elsewhere.default_registry().url());
    let headers = vec![("content-type".to_owned(), INDEX.to_owned()), ("link".to_owned(), link)];
    let body = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string();
    ecr.on(|entry| entry.kind == RequestKind::Referrers, 1, 1000, Hook::Answer { status: 200, headers, body });
    let there = ecr.registry(ACCOUNT, OTHER_REGION);
    let step = aws(project.promote("test"), &ecr).input("images", "Api").input("target-registry", &there.host());
    let run = step.input("record", "false").run().exits(1);
    assert!(run.error().contains("another host"), "{}", run.error());
    assert!(elsewhere.log().is_empty(), "{}", elsewhere.table());
}

#[test]
fn pages_without_end_are_given_up() {
    let (ecr, project) = shop();
    let headers = vec![
        ("content-type".to_owned(), INDEX.to_owned()),
        ("link".to_owned(), "</v2/shop/api/referrers/sha256:00>; rel=\"next\"".to_owned()),
    ];
    let body = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string();
    ecr.on(|entry| entry.kind == RequestKind::Referrers, 1, 10_000, Hook::Answer { status: 200, headers, body });
    let there = ecr.registry(ACCOUNT, OTHER_REGION);
    let step = aws(project.promote("test"), &ecr).input("images", "Api").input("target-registry", &there.host());
    let run = step.input("record", "false").run().exits(1);
    assert!(run.error().contains("pages"), "{}", run.error());
}

#[test]
fn a_tag_that_answers_with_another_digest_than_its_bytes_is_refused() {
    let (ecr, project) = shop();
    let image = Image::new(1);
    let headers = vec![
        ("content-type".to_owned(), image.root.media_type.clone()),
        ("docker-content-digest".to_owned(), Image::new(2).root.digest),
    ];
    let body = String::from_utf8(image.root.bytes.to_vec()).unwrap();
    let of_source = |entry: &LoggedRequest| entry.kind == RequestKind::GetManifest && entry.reference == "dev-1.0.0";
    ecr.on(of_source, 1, 1, Hook::Answer { status: 200, headers, body });
    assert!(refused(&ecr, &project).error().contains("does not match its digest"));
}

#[test]
fn an_index_that_lists_one_image_under_two_platforms_is_refused() {
    let (ecr, project) = shop();
    let image = |seed| {
        let image = Image::new(seed);
        let size = image.root.bytes.len();
        ecr.default_registry().push("shop/api", &[], &image);
        move |os: &str, architecture: &str| {
            json!({"mediaType": image.root.media_type, "digest": image.root.digest, "size": size,
                "platform": {"os": os, "architecture": architecture}})
        }
    };
    let (hidden, shown) = (image(2), image(3));
    let children = [hidden("linux", "amd64"), shown("linux", "arm64"), hidden("unknown", "unknown")];
    let bytes = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}).to_string();
    let root = ecr.default_registry().put_manifest("shop/api", bytes, INDEX);
    ecr.default_registry().tag("shop/api", "dev-1.0.0", &root);
    assert!(refused(&ecr, &project).error().contains("two platforms for the manifest"));
}

#[test]
fn a_manifest_that_others_read_otherwise_is_refused() {
    let (ecr, project) = shop();
    let other = Image::new(2);
    let layers: serde_json::Value = serde_json::from_slice(&other.root.bytes).unwrap();
    let text = String::from_utf8(Image::new(1).root.bytes.to_vec()).unwrap();
    let text = text.replacen('{', &format!(r#"{{"Layers":{},"#, layers["layers"]), 1);
    let root = ecr.default_registry().put_manifest("shop/api", text, &other.root.media_type);
    ecr.default_registry().tag("shop/api", "dev-1.0.0", &root);
    let run = refused(&ecr, &project);
    assert!(run.error().contains("some parsers read the key `Layers` as `layers`"), "{}", run.error());
}

#[test]
fn a_token_service_elsewhere_is_told_nothing() {
    let (ecr, project) = shop();
    let elsewhere = Ecr::start(Config::default());
    let challenge = format!("Bearer realm=\"{}/token\",service=\"x\"", elsewhere.default_registry().url());
    let headers = vec![("www-authenticate".to_owned(), challenge)];
    ecr.on(
        |entry| entry.kind == RequestKind::GetManifest,
        1,
        1000,
        Hook::Answer { status: 401, headers, body: String::new() },
    );
    assert!(refused(&ecr, &project).error().contains("token service that is not its own"));
    assert!(elsewhere.log().is_empty(), "{}", elsewhere.table());
}

#[test]
fn tags_without_end_are_given_up() {
    let (ecr, project) = shop();
    let page = format!(r#"{{"name":"shop/api","tags":[{}"t"]}}"#, r#""t","#.repeat(300_000));
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    ecr.on(|entry| entry.kind == RequestKind::Tags, 1, 1000, Hook::Answer { status: 200, headers, body: page });
    let step = bare(aws(project.promote("test"), &ecr)).input("images", "Api").input("require", "forward");
    let run = step.run().exits(1);
    assert!(run.log.raw.contains("the tag list of"), "{}", run.log.raw);
}

#[test]
fn a_region_that_would_be_another_service_is_refused() {
    let (ecr, project) = shop();
    let step = bare(aws(project.promote("test"), &ecr)).input("images", "Api").input("region", "s3");
    assert!(step.run().exits(2).error().contains("an AWS region"));
    assert!(ecr.log().is_empty(), "{}", ecr.table());
}
