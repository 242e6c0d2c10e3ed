//! Manifests: reads by tag or digest, and pushes with the checks that ECR makes.

use std::io;

use hyper::body::Incoming;
use serde_json::Value;

use crate::{
    blob_content,
    call::{Call, Outcome, Refusal},
    http::{self, RequestKind, reply},
    state::{Manifest, Repository, State},
};

const LIMIT: usize = 4 * 1024 * 1024; // bytes; ECR's own limit for a manifest
const TAGS_LIMIT: usize = 1000; // tags of one image; ECR's own limit

const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

pub(crate) fn get(call: &Call<'_>) -> Outcome {
    let mut state = call.shared.state();
    let unknown = || Refusal::new(404, "MANIFEST_UNKNOWN", "Requested image not found");
    let repository = state.repository(call.registry, &call.route.repository).ok_or_else(|| call.unknown())?;
    let digest = repository.resolve(&call.route.reference).ok_or_else(unknown)?;
    let manifest = &repository.manifests[&digest];
    if manifest.archived || !accepted(call, &manifest.media_type) {
        return Err(unknown());
    }
    let length = manifest.bytes.len().to_string();
    let headers = [
        ("content-type", manifest.media_type.as_str()),
        ("content-length", &length),
        ("docker-content-digest", &digest),
    ];
    let head = call.route.kind == RequestKind::HeadManifest;
    Ok(reply(200, &headers, if head { bytes::Bytes::new() } else { manifest.bytes.clone() }))
}

/// Returns whether the request accepts the stored media type. Manifests are not converted.
fn accepted(call: &Call<'_>, media_type: &str) -> bool {
    let values: Vec<_> = call.parts.headers.get_all("accept").iter().filter_map(|value| value.to_str().ok()).collect();
    let mut types =
        values.iter().flat_map(|value| value.split(',')).map(|value| value.split(';').next().unwrap().trim());
    values.is_empty() || types.any(|accepted| accepted == media_type || accepted == "*/*")
}

pub(crate) async fn put(call: &Call<'_>, body: &mut Incoming) -> io::Result<Outcome> {
    let mut bytes = Vec::new();
    while let Some(chunk) = http::next(body, &call.entry.meter()).await? {
        if bytes.len() + chunk.len() > LIMIT {
            let message = "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Member must have length \
                           less than or equal to 4194304'";
            return Ok(Err(Refusal::new(405, "UNSUPPORTED", message)));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(store(call, bytes))
}

fn store(call: &Call<'_>, bytes: Vec<u8>) -> Outcome {
    let mut state = call.shared.state();
    let (name, reference) = (&call.route.repository, &call.route.reference);
    if state.repository(call.registry, name).is_none() {
        state.authorize(&call.principal, "ecr:CreateRepository", call.registry, name).map_err(|_| call.unknown())?;
        if !state.create_on_push(call.registry, name) {
            return Err(call.unknown());
        }
    }
    if state.quirks.repository_full {
        return Err(Refusal::new(403, "", ""));
    }
    let manifest = parse(&state, call, bytes)?;
    let digest = blob_content::digest(&manifest.bytes);
    let digest_on_put = state.quirks.digest_on_put;
    let subject = manifest.subject().filter(|_| state.quirks.referrers_api).map(str::to_owned);
    let quota = state.settings.get(call.registry).cloned().unwrap_or_default().images_quota;
    let repository = state.repository(call.registry, name).ok_or_else(|| call.unknown())?;
    // Artifacts count as images.
    if repository.manifests.len() >= quota && !repository.manifests.contains_key(&digest) {
        return Err(Refusal::new(403, "", ""));
    }
    complete(call, repository, &manifest)?;
    if reference.contains(':') {
        if *reference != digest {
            let message = format!("The digest of the manifest is '{digest}', not the expected '{reference}'");
            return Err(Refusal::new(400, "DIGEST_INVALID", message));
        }
    } else {
        tag(repository, name, reference, &digest)?;
    }
    repository.manifests.entry(digest.clone()).or_insert(manifest);
    let mut headers = vec![("content-length", "0")];
    if digest_on_put {
        headers.push(("docker-content-digest", &digest));
    }
    if let Some(subject) = &subject {
        headers.push(("oci-subject", subject));
    }
    Ok(reply(201, &headers, ""))
}

fn parse(state: &State, call: &Call<'_>, bytes: Vec<u8>) -> Result<Manifest, Refusal> {
    let unsupported = |what: &str| {
        let message = format!("Invalid parameter at 'ImageManifest' failed to satisfy constraint: '{what}'");
        Refusal::new(405, "UNSUPPORTED", message)
    };
    let media_type = call.header("content-type").unwrap_or_default().to_owned();
    if !ACCEPTED.contains(&media_type.as_str()) {
        return Err(unsupported("Unsupported media type"));
    }
    let json: Value = serde_json::from_slice(&bytes).map_err(|_| unsupported("Invalid JSON syntax"))?;
    let invalid = |what: &str| Err(Refusal::new(400, "MANIFEST_INVALID", what));
    if json["schemaVersion"] != 2 {
        return invalid("schemaVersion is not 2");
    }
    match json.get("mediaType").map(Value::as_str) {
        Some(own) if own != Some(media_type.as_str()) => return invalid("mediaType is not the Content-Type"),
        None if media_type.contains("docker") => return invalid("mediaType is missing"),
        _ => {}
    }
    let index = media_type.contains("index") || media_type.contains("list");
    let descriptors: Vec<&Value> = if index {
        json["manifests"].as_array().map(|list| list.iter().collect())
    } else {
        json["layers"].as_array().map(|layers| layers.iter().chain([&json["config"]]).collect())
    }
    .unwrap_or_default();
    if descriptors.is_empty() && !index {
        return invalid("config and layers are missing");
    }
    let subject = json.get("subject");
    for descriptor in descriptors.iter().copied().chain(subject) {
        let digest = descriptor["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
        let whole = digest.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if !whole || descriptor["size"].as_u64().is_none() || descriptor["mediaType"].as_str().is_none() {
            return invalid("a descriptor has no mediaType, digest or size");
        }
    }
    let types = descriptors.iter().filter_map(|descriptor| descriptor["mediaType"].as_str());
    for named in types.chain(json["artifactType"].as_str()).chain([media_type.as_str()]) {
        let parameters = state.quirks.refuse_parameters && named.contains(';');
        if parameters || state.quirks.refused_types.iter().any(|refused| refused == named) {
            return Err(unsupported("Unsupported artifact or media type"));
        }
    }
    Ok(Manifest { bytes: bytes.into(), media_type, json, pushed_at: state.now(), archived: false })
}

/// Checks that everything that a manifest refers to exists, with the size in its descriptor.
fn complete(call: &Call<'_>, repository: &Repository, manifest: &Manifest) -> Result<(), Refusal> {
    let (name, account) = (&call.route.repository, &call.registry.account);
    let refuse = |what: &str, digests: Vec<String>, code| {
        let message = format!(
            "{what} with digests '[{}]' required for pushing image into repository with name '{name}' in the registry \
             with id '{account}' do not exist",
            digests.join(", ")
        );
        Err(Refusal::new(404, code, message))
    };
    let (blobs, children) = repository.missing(manifest);
    if !blobs.is_empty() {
        return refuse("Layers", blobs, "BLOB_UPLOAD_UNKNOWN");
    }
    if !children.is_empty() {
        return refuse("Images", children, "MANIFEST_BLOB_UNKNOWN");
    }
    let layers = manifest.json["layers"].as_array().into_iter().flatten();
    for descriptor in layers.chain(manifest.json.get("config")) {
        let blob = descriptor["digest"].as_str().and_then(|digest| repository.blobs.get(digest));
        if blob.map(blob_content::BlobContent::size) != descriptor["size"].as_u64() {
            return Err(Refusal::new(400, "MANIFEST_INVALID", "a descriptor's size is not its blob's"));
        }
    }
    Ok(())
}

/// Sets a tag. An existing tag that is immutable is refused, even with the digest that it already has.
fn tag(repository: &mut Repository, name: &str, tag: &str, digest: &str) -> Result<(), Refusal> {
    let mut characters = tag.chars();
    let first = characters.next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    if tag.len() > 128 || !first || !characters.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
        return Err(Refusal::new(400, "TAG_INVALID", format!("Invalid tag '{tag}'")));
    }
    if repository.tags.contains_key(tag) && repository.immutable(tag) {
        let message = format!(
            "The image tag '{tag}' already exists in the '{name}' repository and cannot be overwritten because the tag \
             is immutable."
        );
        return Err(Refusal::new(400, "TAG_INVALID", message));
    }
    if repository.tags.values().filter(|known| *known == digest).count() >= TAGS_LIMIT {
        return Err(Refusal::new(403, "DENIED", "The image has the maximum number of tags."));
    }
    repository.tags.insert(tag.to_owned(), digest.to_owned());
    Ok(())
}
