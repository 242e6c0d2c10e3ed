//! Publishing to stores that are no ECR: a folder of layouts, and a registry without the referrers API. What arrived is
//! read back by other programs.

use std::path::Path;

use ecr_fake::Image;
use ecr_fake::http;

use crate::support::project::{BY_TAG, Project, bare};
use crate::support::registry::DockerRegistry;
use crate::support::runner::{Run, Step};
use crate::support::tools::{json, listed, printed, program};

const SBOM: &str = "application/vnd.cyclonedx+json";

/// One image with evidence on its root and on its first platform.
fn built() -> (Project, Image) {
    let project = Project::new(BY_TAG);
    let mut api = Image::new(1);
    let (root, platform) = (api.root.digest.clone(), api.children[0].digest.clone());
    api.attach(&root, "application/sarif+json", b"{\"runs\":[]}");
    api.attach(&platform, SBOM, b"{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.6\"}");
    api.attach(&platform, SBOM, b"{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.6\",\"version\":2}");
    project.built("Api", &api);
    (project, api)
}

fn publish(project: &Project, registry: &str) -> Step {
    project.publish().input("images", "Api").input("registry", registry)
}

/// skopeo copies all of it, and so checks every digest.
fn pulled(from: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut copy = program("skopeo");
    copy.args(["--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "--src-tls-verify=false", from]);
    printed(copy.arg(format!("oci:{}:copy", folder.path().join("copy").display())));
}

/// The raw manifest that skopeo sees.
fn raw(reference: &str) -> String {
    printed(program("skopeo").args(["inspect", "--tls-verify=false", "--raw", reference]))
}

/// Types of the referrers that oras finds, sorted.
fn discovered(transport: &str, subject: &str) -> Vec<String> {
    let found = json(program("oras").args(["discover", transport, "--format", "json", subject]));
    let manifests = listed(&found).unwrap_or_else(|| panic!("{found}"));
    let mut types: Vec<_> =
        manifests.iter().map(|referrer| referrer["artifactType"].as_str().unwrap().to_owned()).collect();
    types.sort();
    types
}

fn check_unchanged(run: &Run) {
    assert_eq!(run.of_images("status"), ["unchanged"], "{}", run.log.raw);
}

#[test]
fn a_folder_of_layouts_needs_no_aws() {
    let (project, api) = built();
    let store = tempfile::tempdir().unwrap();
    let registry = format!("oci:{}", store.path().display());
    let run = publish(&project, &registry).run().exits(0);
    assert_eq!(run.of_images("reference"), [format!("{registry}/shop/api:dev-1.0.0")]);
    let layout = format!("{registry}/shop/api:dev-1.0.0");
    assert_eq!(raw(&layout).as_bytes(), &api.root.bytes[..]);
    pulled(&layout);
    let found = discovered("--oci-layout", &format!("{}/shop/api:dev-1.0.0", store.path().display()));
    assert_eq!(found, ["application/sarif+json", "application/vnd.in-toto+json"]);
    // Of a platform, which has no entry of its own, oras does not look for referrers; they have theirs.
    let index = std::fs::read(store.path().join("shop/api/index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let entries: Vec<_> = index["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].clone()).collect();
    assert!(api.referrers.iter().all(|referrer| entries.contains(&referrer.digest.clone().into())), "{index}");

    let before = content(store.path());
    check_unchanged(&publish(&project, &registry).run().exits(0));
    assert_eq!(content(store.path()), before);
}

#[test]
fn a_registry_without_the_referrers_api_gets_the_tag_that_stands_in() {
    let (project, api) = built();
    let registry = DockerRegistry::start();
    let run = publish(&project, &registry.host()).run().exits(0);
    assert_eq!(run.of_images("status"), ["created"]);
    let reference = format!("{}/shop/api", registry.host());
    assert_eq!(raw(&format!("docker://{reference}:dev-1.0.0")).as_bytes(), &api.root.bytes[..]);
    pulled(&format!("docker://{reference}:dev-1.0.0"));
    let discover = |subject: String| discovered("--plain-http", &subject);
    assert_eq!(discover(format!("{reference}:dev-1.0.0")), ["application/sarif+json", "application/vnd.in-toto+json"]);
    assert_eq!(discover(format!("{reference}@{}", api.children[0].digest)), [SBOM, SBOM]);
    // A blob of the evidence can be read.
    let referrer = &api.referrers[1].digest;
    let fetched =
        printed(program("oras").args(["manifest", "fetch", "--plain-http", &format!("{reference}@{referrer}")]));
    assert_eq!(fetched.as_bytes(), &api.referrers[1].bytes[..]);

    check_unchanged(&publish(&project, &registry.host()).run().exits(0));
    // Evidence that another program attached stays where it is when ours is added.
    let (project, other) = built();
    let other_file = project.folder().join("note.txt");
    std::fs::write(&other_file, "by hand").unwrap();
    bare(publish(&project, &registry.host())).input("version", "1.0.1").run().exits(0);
    let mut attach = program("oras");
    attach.current_dir(project.folder()).args(["attach", "--plain-http", "--artifact-type", "text/note"]);
    printed(attach.arg(format!("{reference}@{}", other.children[1].digest)).arg("note.txt"));
    assert_eq!(discover(format!("{reference}@{}", other.children[1].digest)), ["text/note"]);
    publish(&project, &registry.host()).input("version", "1.0.1").run().exits(0);
    assert_eq!(discover(format!("{reference}@{}", other.children[1].digest)), ["text/note"]);
    assert_eq!(discover(format!("{reference}:dev-1.0.1")).len(), 3, "a record for each version");
}

/// Every file below a folder, with its content.
fn content(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(content(&path)),
            false => files.push((path.clone(), std::fs::read(path).unwrap())),
        }
    }
    files.sort();
    files
}

#[test]
fn credentials_that_are_rejected_are_told_apart_from_none() {
    let listener = http::listen("127.0.0.1").unwrap();
    let host = http::base_url(&listener).trim_start_matches("http://").to_owned();
    let refuse: http::Handler = std::sync::Arc::new(|_, _| {
        Box::pin(async { Ok(http::reply(401, &[("www-authenticate", "Basic realm=\"shop\"")], "")) })
    });
    let _server = http::Server::start(vec![(listener, refuse)]);
    let project = Project::new(BY_TAG);
    project.built("Api", &Image::new(1));
    let docker = tempfile::tempdir().unwrap();
    let publish = || {
        let step = project.publish().input("images", "Api").input("registry", &host);
        step.env("DOCKER_CONFIG", docker.path()).run().exits(1).error().to_owned()
    };
    let error = publish();
    let told = format!("`{host}` asks for credentials (401 Unauthorized) (hint: log in first: docker login {host})");
    assert!(error.contains(&told), "{error}");
    let config = format!(r#"{{"auths":{{"{host}":{{"auth":"dXNlcjpvbGQ="}}}}}}"#);
    std::fs::write(docker.path().join("config.json"), config).unwrap();
    let error = publish();
    assert!(error.contains(&format!("`{host}` rejected the credentials (401 Unauthorized)")), "{error}");
    assert!(error.ends_with(&format!("docker login {host})")) && !error.contains("log in first"), "{error}");
}
