//! Blobs: existence checks, uploads with ECR's peculiarities, mounts, and the host that serves downloads.

use std::{
    io,
    sync::{Arc, atomic::AtomicU64},
};

use http_body_util::BodyExt;
use hyper::{Request, body::Incoming};
use sha2::{Digest as _, Sha256};

use crate::{
    LoggedRequest, Plane, Shared,
    blob_content::{self, BlobContent, Download},
    call::{Call, Outcome, Refusal},
    http::{self, Peer, Reply, RequestKind, full, reply},
    state::{RegistryId, Session, State},
};

pub(crate) fn head(call: &Call<'_>) -> Outcome {
    let content = find(call)?;
    let length = content.size().to_string();
    let digest = call.route.reference.as_str();
    let headers =
        [("content-type", "application/octet-stream"), ("content-length", &length), ("docker-content-digest", digest)];
    Ok(reply(200, &headers, ""))
}

/// Redirects to the download host, with a signature in the query.
pub(crate) fn get(call: &Call<'_>) -> Outcome {
    let content = find(call)?;
    let digest = &call.route.reference;
    let mut state = call.shared.state();
    if !state.quirks.redirects {
        return Ok(download(content, call.header("range"), digest, call.entry.sent_meter()));
    }
    let RegistryId { account, region } = call.registry;
    let path = format!("/{account}/{region}/{}/{digest}", call.route.repository);
    let nonce = state.unique("nonce-");
    let signature = sign(&path, &nonce);
    let location = format!(
        "{}{path}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=3600&X-Amz-Nonce={nonce}&X-Amz-Signature={signature}",
        call.shared.download
    );
    state.downloads.insert(nonce, 0);
    Ok(reply(307, &[("location", location.as_str()), ("content-length", "0")], ""))
}

/// Begins an upload, or mounts a blob.
pub(crate) fn post(call: &Call<'_>) -> Outcome {
    let mut state = call.shared.state();
    let (registry, name) = (call.registry, &call.route.repository);
    if state.repository(registry, name).is_none() {
        if !state.create_on_push(registry, name) {
            return Err(call.unknown());
        }
        let created = state.authorize(&call.principal, "ecr:CreateRepository", registry, name);
        if let Err(message) = created {
            state.registries.entry(registry.clone()).or_default().remove(name);
            return Err(Refusal::new(403, "DENIED", message));
        }
    }
    if let (Some(digest), Some(from)) = (call.route.query("mount"), call.route.query("from"))
        && let Some(content) = mountable(&mut state, call, digest, from)
    {
        state.repository(registry, name).unwrap().blobs.insert(digest.to_owned(), content);
        let location = format!("/v2/{name}/blobs/{digest}");
        let headers = [("location", location.as_str()), ("docker-content-digest", digest), ("content-length", "0")];
        return Ok(reply(201, &headers, ""));
    }
    let id = state.unique("upload-");
    let location = location(&state, call, &id);
    let session = Session { registry: registry.clone(), repository: name.clone(), touched: false, received: None };
    state.sessions.insert(id.clone(), session);
    let headers =
        [("location", location.as_str()), ("docker-upload-uuid", &id), ("range", "0-0"), ("content-length", "0")];
    Ok(reply(202, &headers, ""))
}

/// Returns the blob if it can be mounted: mounting is enabled, the caller may read the source repository, both
/// repositories have the same encryption, and a manifest of the source refers to the blob.
fn mountable(state: &mut State, call: &Call<'_>, digest: &str, from: &str) -> Option<BlobContent> {
    if !state.quirks.mounting {
        return None;
    }
    state.authorize(&call.principal, "ecr:GetDownloadUrlForLayer", call.registry, from).ok()?;
    let key = state.repository(call.registry, &call.route.repository)?.settings.encryption.clone();
    let source = state.repository(call.registry, from)?;
    let referred = source.manifests.values().any(|manifest| manifest.blobs().contains(digest));
    (referred && source.settings.encryption == key).then(|| source.blobs.get(digest).cloned()).flatten()
}

/// Receives a chunk. Only the first one counts: a later one is dropped, with a response that looks like success.
pub(crate) async fn patch(call: &Call<'_>, body: &mut Incoming) -> io::Result<Outcome> {
    let first = match begin(call) {
        Ok(first) => first,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let (digest, content) = receive(call, body).await?;
    let mut state = call.shared.state();
    let location = location(&state, call, &call.route.reference);
    let end = content.size().saturating_sub(1);
    if let Some(session) = state.sessions.get_mut(&call.route.reference)
        && first
    {
        session.received = Some((digest, content));
    }
    let range = format!("0-{end}");
    let headers = [
        ("location", location.as_str()),
        ("docker-upload-uuid", &call.route.reference),
        ("range", &range),
        ("content-length", "0"),
    ];
    Ok(Ok(reply(if first { 202 } else { 201 }, &headers, "")))
}

/// Completes an upload, with the whole blob as its body or after one PATCH.
pub(crate) async fn put(call: &Call<'_>, body: &mut Incoming) -> io::Result<Outcome> {
    let Some(wanted) = call.route.query("digest").map(str::to_owned) else {
        return Ok(Err(Refusal::new(400, "DIGEST_INVALID", "The digest parameter is missing.")));
    };
    let Some(length) = call.header("content-length").and_then(|length| length.parse::<u64>().ok()) else {
        return Ok(Err(Refusal::new(411, "SIZE_INVALID", "Content-Length is required.")));
    };
    let patched = match session(&mut call.shared.state(), call) {
        Ok(session) => session.received.take(),
        Err(refusal) => return Ok(Err(refusal)),
    };
    let (digest, content) = match patched {
        // The body of a PUT after a PATCH is a second chunk, and is dropped.
        Some(received) => received,
        None => match begin(call) {
            Ok(true) => receive(call, body).await?,
            Ok(false) => return Ok(Err(used(call))),
            Err(refusal) => return Ok(Err(refusal)),
        },
    };
    http::drain(body, &call.entry.meter()).await?;
    if digest != wanted {
        let message = format!("The digest of {length} bytes is '{digest}', not the expected '{wanted}'.");
        return Ok(Err(Refusal::new(400, "DIGEST_INVALID", message)));
    }
    let mut state = call.shared.state();
    let Some(repository) = state.repository(call.registry, &call.route.repository) else {
        return Ok(Err(call.unknown()));
    };
    repository.blobs.insert(digest.clone(), content);
    let location = format!("/v2/{}/blobs/{digest}", call.route.repository);
    let headers = [("location", location.as_str()), ("docker-content-digest", &digest), ("content-length", "0")];
    Ok(Ok(reply(201, &headers, "")))
}

pub(crate) fn delete(call: &Call<'_>) -> Outcome {
    let mut state = call.shared.state();
    session(&mut state, call)?;
    state.sessions.remove(&call.route.reference);
    Ok(reply(204, &[], ""))
}

fn find(call: &Call<'_>) -> Result<BlobContent, Refusal> {
    let mut state = call.shared.state();
    let repository = state.repository(call.registry, &call.route.repository).ok_or_else(|| call.unknown())?;
    let content = repository.blobs.get(&call.route.reference).cloned();
    content.ok_or_else(|| {
        Refusal::new(404, "BLOB_UNKNOWN", format!("The layer '{}' does not exist", call.route.reference))
    })
}

fn session<'a>(state: &'a mut State, call: &Call<'_>) -> Result<&'a mut Session, Refusal> {
    // The location has a state in its query, which the client has to send back unchanged.
    let known = call.route.query("state") == Some(&blob_content::digest(call.route.reference.as_bytes())[7..23]);
    let session = state
        .sessions
        .get_mut(&call.route.reference)
        .filter(|session| known && session.registry == *call.registry && session.repository == call.route.repository);
    session.ok_or_else(|| Refusal::new(404, "BLOB_UPLOAD_UNKNOWN", "The upload does not exist"))
}

/// Marks an upload as used. Returns whether it was unused.
fn begin(call: &Call<'_>) -> Result<bool, Refusal> {
    let mut state = call.shared.state();
    let session = session(&mut state, call)?;
    Ok(!std::mem::replace(&mut session.touched, true))
}

fn used(call: &Call<'_>) -> Refusal {
    let message = format!("The upload '{}' has already received its bytes", call.route.reference);
    Refusal::new(416, "BLOB_UPLOAD_INVALID", message)
}

fn location(state: &State, call: &Call<'_>, id: &str) -> String {
    let base = match (state.quirks.absolute_locations, call.header("host")) {
        (true, Some(host)) => format!("http://{host}"),
        _ => String::new(),
    };
    let token = blob_content::digest(id.as_bytes());
    format!("{base}/v2/{}/blobs/uploads/{id}?state={}", call.route.repository, &token[7..23])
}

/// Hashes a body and keeps it, unless it is larger than the configured limit.
async fn receive(call: &Call<'_>, body: &mut Incoming) -> io::Result<(String, BlobContent)> {
    let limit = call.shared.state().keep_blobs_up_to;
    let (mut hash, mut kept, mut size) = (Sha256::new(), Vec::new(), 0);
    while let Some(bytes) = http::next(body, &call.entry.meter()).await? {
        hash.update(&bytes);
        size += bytes.len() as u64;
        if size > limit {
            kept = Vec::new();
        } else {
            kept.extend_from_slice(&bytes);
        }
    }
    let content = if size > limit { BlobContent::Dropped { size } } else { BlobContent::Kept(kept.into()) };
    Ok((blob_content::name(hash), content))
}

fn sign(path: &str, nonce: &str) -> String {
    blob_content::digest(format!("download {path} {nonce}").as_bytes())["sha256:".len()..].to_owned()
}

/// Serves the download host. Like S3, it refuses a request that has an `Authorization` besides the signature.
pub(crate) async fn serve(shared: Arc<Shared>, request: Request<Incoming>, peer: Peer) -> io::Result<Reply> {
    let mut entry = LoggedRequest::new(Plane::Download, RequestKind::Redirected, &request, peer.connection);
    let path = request.uri().path().to_owned();
    let mut segments = path.trim_start_matches('/').splitn(3, '/');
    let id = RegistryId::new(segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    let (name, digest) = segments.next().and_then(|rest| rest.rsplit_once('/')).unwrap_or_default();
    entry.registry = id.host();
    entry.repository = name.to_owned();
    entry.reference = digest.to_owned();
    let state = shared.clone();
    let (name, digest) = (name.to_owned(), digest.to_owned());
    let handle = async move |entry: LoggedRequest, request: Request<Incoming>| {
        let query = request.uri().query().unwrap_or_default();
        let query: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let value = |name: &str| query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value);
        let nonce = value("X-Amz-Nonce");
        let mut state = state.state();
        if request.headers().contains_key("authorization") {
            return Ok(refused(400, "InvalidArgument", "Only one auth mechanism allowed"));
        }
        if request.method() != "GET" || value("X-Amz-Signature") != sign(request.uri().path(), nonce) {
            return Ok(refused(403, "SignatureDoesNotMatch", "The request signature does not match"));
        }
        let limit = state.quirks.signed_url_uses.unwrap_or(u32::MAX);
        match state.downloads.get_mut(nonce) {
            Some(uses) if *uses < limit => *uses += 1,
            _ => return Ok(refused(403, "AccessDenied", "Request has expired")),
        }
        let ranges = state.quirks.ranges;
        let content = state.repository(&id, &name).and_then(|repository| repository.blobs.get(&digest).cloned());
        let Some(content) = content else { return Ok(refused(404, "NoSuchKey", "The specified key does not exist.")) };
        let range = request.headers().get("range").and_then(|value| value.to_str().ok()).filter(|_| ranges);
        Ok(download(content, range, &digest, entry.sent_meter()))
    };
    shared.answer(entry, request, peer, handle).await
}

fn refused(status: u16, code: &str, message: &str) -> Reply {
    let body = format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    reply(status, &[("content-type", "application/xml")], body)
}

/// Returns the response with a blob, or with the part of it that `range` asks for.
fn download(content: BlobContent, range: Option<&str>, digest: &str, sent: Arc<AtomicU64>) -> Reply {
    let size = content.size();
    let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')).and_then(|(first, last)| {
        let last = if last.is_empty() { size.saturating_sub(1) } else { last.parse().ok()? };
        Some((first.parse::<u64>().ok()?, last.min(size.saturating_sub(1))))
    });
    let etag = format!("\"{digest}\"");
    let mut headers = vec![("accept-ranges", "bytes"), ("content-type", "application/octet-stream"), ("etag", &etag)];
    let (at, end) = range.map_or((0, size), |(first, last)| (first, last + 1));
    if at >= end && range.is_some() {
        let everything = format!("bytes */{size}");
        headers.push(("content-range", &everything));
        return reply(416, &headers, "");
    }
    let part = format!("bytes {at}-{}/{size}", end.saturating_sub(1));
    let length = (end - at).to_string();
    headers.push(("content-length", &length));
    if range.is_some() {
        headers.push(("content-range", &part));
    }
    let mut reply = reply(if range.is_some() { 206 } else { 200 }, &headers, "");
    *reply.body_mut() = if at == end { full("") } else { BodyExt::boxed_unsync(Download { content, at, end, sent }) };
    reply
}
