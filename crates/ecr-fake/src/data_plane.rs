//! The data plane of one registry: authentication, permissions, quotas and routing.

use std::{io, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{Request, body::Incoming, http::request::Parts};

use crate::{
    LoggedRequest, Plane, Shared, blobs,
    call::{Call, Outcome, Refusal},
    http::{self, Peer, Reply, RequestKind, Route, reply},
    iam::Principal,
    listings, manifests,
    state::{RegistryId, State},
};

pub(crate) async fn serve(
    shared: Arc<Shared>,
    registry: RegistryId,
    request: Request<Incoming>,
    peer: Peer,
) -> io::Result<Reply> {
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    let route = Route::of(request.method().as_str(), path);
    let mut entry = LoggedRequest::new(Plane::Data, route.kind.clone(), &request, peer.connection);
    entry.registry = registry.host();
    entry.repository = route.repository.clone();
    entry.reference = route.reference.clone();
    let state = shared.clone();
    let handle = async move |entry: LoggedRequest, request: Request<Incoming>| {
        let head = request.method() == "HEAD";
        let (parts, mut body) = request.into_parts();
        let admitted = admit(&mut state.state(), &registry, &route, &parts);
        let outcome = match admitted {
            Err(refusal) => Err(refusal),
            Ok(principal) => {
                let call = Call { shared: &state, registry: &registry, route, parts, principal, entry: &entry };
                dispatch(&call, &mut body).await?
            }
        };
        // The client reads the response only after it has sent its body.
        http::drain(&mut body, &entry.meter()).await?;
        let mut reply = outcome.unwrap_or_else(|refusal| refusal.reply(head));
        reply.headers_mut().insert("docker-distribution-api-version", "registry/2.0".parse().unwrap());
        Ok(reply)
    };
    shared.answer(entry, request, peer, handle).await
}

async fn dispatch(call: &Call<'_>, body: &mut Incoming) -> io::Result<Outcome> {
    Ok(match call.route.kind {
        RequestKind::Ping => Ok(reply(200, &[("content-type", "application/json")], "{}")),
        RequestKind::HeadManifest | RequestKind::GetManifest => manifests::get(call),
        RequestKind::PutManifestByTag | RequestKind::PutManifestByDigest => manifests::put(call, body).await?,
        RequestKind::HeadBlob => blobs::head(call),
        RequestKind::GetBlob => blobs::get(call),
        RequestKind::PostUpload | RequestKind::Mount => blobs::post(call),
        RequestKind::PatchUpload => blobs::patch(call, body).await?,
        RequestKind::PutUpload => blobs::put(call, body).await?,
        RequestKind::DeleteUpload => blobs::delete(call),
        RequestKind::Tags => listings::tags(call),
        RequestKind::Referrers => listings::referrers(call),
        _ => Err(Refusal::new(405, "UNSUPPORTED", "The operation is unsupported.")),
    })
}

/// Returns the API action whose permission and quota apply to a request.
fn action(kind: &RequestKind) -> Option<&'static str> {
    Some(match kind {
        // The referrers API has no permission of its own.
        RequestKind::HeadManifest | RequestKind::GetManifest | RequestKind::Referrers => "BatchGetImage",
        RequestKind::PutManifestByTag | RequestKind::PutManifestByDigest => "PutImage",
        RequestKind::DeleteManifest => "BatchDeleteImage",
        RequestKind::HeadBlob => "BatchCheckLayerAvailability",
        RequestKind::GetBlob => "GetDownloadUrlForLayer",
        RequestKind::PostUpload | RequestKind::Mount => "InitiateLayerUpload",
        RequestKind::PatchUpload => "UploadLayerPart",
        RequestKind::PutUpload => "CompleteLayerUpload",
        RequestKind::Tags => "ListImages",
        _ => return None,
    })
}

/// Checks the token, the quotas and the policies. Returns the caller.
fn admit(state: &mut State, registry: &RegistryId, route: &Route, parts: &Parts) -> Result<Principal, Refusal> {
    let principal = authenticate(state, registry, parts)?;
    let Some(action) = action(&route.kind) else { return Ok(principal) };
    if let Some(retry_after) = state.throttled(action) {
        let mut refusal = Refusal::new(429, "TOOMANYREQUESTS", "Rate exceeded");
        refusal.headers.extend(retry_after.map(|value| ("retry-after", value)));
        return Err(refusal);
    }
    let name = route.repository.as_str();
    let denied = |message: String| Refusal::new(403, "DENIED", message);
    state.authorize(&principal, &format!("ecr:{action}"), registry, name).map_err(denied)?;
    if route.kind == RequestKind::PutUpload {
        // One request carries the bytes and completes the upload.
        state.authorize(&principal, "ecr:UploadLayerPart", registry, name).map_err(denied)?;
    }
    Ok(principal)
}

fn authenticate(state: &mut State, registry: &RegistryId, parts: &Parts) -> Result<Principal, Refusal> {
    let unauthorized = || {
        let mut refusal = Refusal::new(401, "", "Not Authorized\n");
        let challenge = format!("Basic realm=\"https://{}/\",service=\"ecr.amazonaws.com\"", registry.host());
        refusal.headers.push(("www-authenticate", challenge));
        refusal
    };
    let header = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
    let password = header
        .and_then(|value| value.strip_prefix("Basic "))
        .and_then(|value| STANDARD.decode(value).ok())
        .and_then(|value| String::from_utf8(value).ok())
        .and_then(|value| value.strip_prefix("AWS:").map(str::to_owned))
        .ok_or_else(unauthorized)?;
    let status = state.quirks.expired_status;
    let token = state.tokens.get_mut(&password).ok_or_else(unauthorized)?;
    match &mut token.left {
        Some(0) => token.expired = true,
        Some(left) => *left -= 1,
        None => {}
    }
    if token.expired {
        let message = "Your authorization token has expired. Reauthenticate and try again.";
        return Err(match status {
            401 => unauthorized(),
            status => Refusal::new(status, "DENIED", message),
        });
    }
    if token.region != registry.region {
        return Err(Refusal::new(403, "DENIED", "Your Authorization Token is invalid."));
    }
    Ok(token.principal.clone())
}
