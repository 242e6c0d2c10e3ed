//! The control plane: one port for ECR, SSM and Service Quotas (JSON 1.1), STS and IAM
//! (query protocol), and GitHub's web identity tokens.

use std::{io, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{Request, body::Incoming, http::request::Parts};
use serde_json::{Value, json};

use crate::{
    LoggedRequest, OIDC_BEARER, Plane, Shared,
    action::{self, Action, Answer, Exception},
    http::{self, Peer, Reply, RequestKind, reply},
    iam, iam_api, lifecycle_preview, query, registry_api, repositories, scan_findings, ssm,
    state::{RegistryId, State},
    sts,
};

pub(crate) async fn serve(shared: Arc<Shared>, request: Request<Incoming>, peer: Peer) -> io::Result<Reply> {
    let target = request.headers().get("x-amz-target").and_then(|value| value.to_str().ok()).map(str::to_owned);
    if request.method() == "GET" && request.uri().path() == "/oidc" {
        let entry = LoggedRequest::new(Plane::Control, RequestKind::Oidc, &request, peer.connection);
        let state = shared.clone();
        let handle = async move |_: LoggedRequest, request: Request<Incoming>| Ok(identity_token(&state, &request));
        return shared.answer(entry, request, peer, handle).await;
    }
    let json_action = target.as_deref().and_then(|target| target.rsplit_once('.')).map(|(_, action)| action.to_owned());
    // With the query protocol, the action is in the body, which is therefore read before hooks are applied.
    let kind = RequestKind::Api(json_action.clone().unwrap_or_default());
    let mut entry = LoggedRequest::new(Plane::Control, kind, &request, peer.connection);
    let (parts, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    while let Some(chunk) = http::next(&mut body, &entry.meter()).await? {
        bytes.extend_from_slice(&chunk);
    }
    if json_action.is_none() {
        entry.kind = RequestKind::Api(query::action(&bytes));
    }
    let request = Request::from_parts(parts, body);
    let state = shared.clone();
    let handle = async move |_: LoggedRequest, request: Request<Incoming>| {
        let (parts, _) = request.into_parts();
        let mut state = state.state();
        Ok(match &target {
            Some(target) => json_api(&mut state, target, &parts, &bytes).unwrap_or_else(Exception::reply),
            None if iam_api::ACTIONS.contains(&query::action(&bytes).as_str()) => {
                iam_api::serve(&mut state, &parts, &bytes)
            }
            None => sts::serve(&mut state, &parts, &bytes),
        })
    };
    shared.answer(entry, request, peer, handle).await
}

/// Answers GitHub's token endpoint: a web identity token for the job's bearer token.
fn identity_token(shared: &Shared, request: &Request<Incoming>) -> Reply {
    let authorization =
        request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let bearer = authorization.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    if bearer.map(|(_, token)| token) != Some(OIDC_BEARER) {
        return reply(401, &[("content-type", "application/json")], "{\"message\":\"Unauthorized\"}");
    }
    let query = request.uri().query().unwrap_or_default();
    if !query.split('&').any(|pair| pair == "audience=sts.amazonaws.com") {
        return reply(400, &[("content-type", "application/json")], "{\"message\":\"wrong audience\"}");
    }
    let body = json!({"count": 1, "value": *shared.identity.lock().unwrap()}).to_string();
    reply(200, &[("content-type", "application/json")], body)
}

fn json_api(state: &mut State, target: &str, parts: &Parts, bytes: &[u8]) -> Result<Reply, Exception> {
    let (service, name) = target.rsplit_once('.').unwrap_or(("", target));
    let (service, prefix) = match service {
        "AmazonEC2ContainerRegistry_V20150921" => ("ecr", "ecr"),
        "AmazonSSM" => ("ssm", "ssm"),
        "ServiceQuotasV20190624" => ("servicequotas", "servicequotas"),
        _ => return Err(Exception::new("UnknownOperationException", "")),
    };
    let content_type = parts.headers.get("content-type").and_then(|value| value.to_str().ok());
    if content_type != Some("application/x-amz-json-1.1") {
        return Err(Exception::new("SerializationException", "wrong content type"));
    }
    let (principal, region) =
        action::caller(state, parts, prefix).map_err(|(name, message)| Exception::new(name, message))?;
    if state.throttled(name).is_some() {
        return Err(Exception::new("ThrottlingException", "Rate exceeded"));
    }
    let input: Value =
        serde_json::from_slice(bytes).map_err(|error| Exception::new("SerializationException", error.to_string()))?;
    let action = Action { name, principal: &principal, region: &region, input: &input };
    let output = match (service, name) {
        ("ssm", _) => ssm::answer(state, &action)?,
        ("servicequotas", "GetServiceQuota") => registry_api::quota(state, &action)?,
        ("servicequotas", _) => return Err(Exception::new("UnknownOperationException", name)),
        (_, name) if registry_api::ACTIONS.contains(&name) => registry_api::answer(state, &action)?,
        (_, "StartLifecyclePolicyPreview") => lifecycle_preview::start(state, &action)?,
        (_, "GetLifecyclePolicyPreview") => lifecycle_preview::get(state, &action)?,
        (_, "GetAuthorizationToken") => authorization_token(state, &action)?,
        (_, "DescribeImageScanFindings") => scan_findings::answer(state, &action)?,
        _ => repositories::answer(state, &action)?,
    };
    Ok(reply(200, &[("content-type", "application/x-amz-json-1.1"), ("x-amzn-requestid", "fake")], output.to_string()))
}

fn authorization_token(state: &mut State, action: &Action<'_>) -> Answer {
    iam::identity(action.principal, "ecr:GetAuthorizationToken", "*").map_err(Exception::denied)?;
    let password = state.issue_token(action.principal, action.region);
    let expires = state.now() + 12.0 * 3600.0;
    let host = RegistryId::new(&action.principal.account, action.region).host();
    Ok(json!({"authorizationData": [{
        "authorizationToken": STANDARD.encode(format!("AWS:{password}")),
        "expiresAt": expires,
        "proxyEndpoint": format!("https://{host}"),
    }]}))
}
