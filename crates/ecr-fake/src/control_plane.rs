//! The control plane: one port for ECR and SSM (JSON 1.1), STS (query protocol) and GitHub's web identity tokens.

use std::{io, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{Request, body::Incoming, http::request::Parts};
use serde_json::{Value, json};

use crate::{
    LoggedRequest, OIDC_BEARER, Plane, Shared, data_plane,
    http::{Kind, Peer, Reply, reply},
    iam, image_scans, repositories, ssm,
    state::{Principal, RegistryId, State},
    sts,
};

/// An error of a JSON API: `__type` and message, status 400.
#[derive(Debug)]
pub(crate) struct Exception {
    pub(crate) name: &'static str,
    pub(crate) message: String,
}

pub(crate) type Answer = Result<Value, Exception>;

impl Exception {
    pub(crate) fn new(name: &'static str, message: impl Into<String>) -> Exception {
        Exception { name, message: message.into() }
    }

    pub(crate) fn denied(message: String) -> Exception {
        Exception::new("AccessDeniedException", message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Exception {
        Exception::new("InvalidParameterException", message)
    }

    fn reply(self) -> Reply {
        // The gateway in front of the services spells the key of its messages with a capital letter.
        let gateway = ["AccessDeniedException", "UnrecognizedClientException", "MissingAuthenticationTokenException"];
        let key = if gateway.contains(&self.name) { "Message" } else { "message" };
        let body = json!({"__type": self.name, key: self.message}).to_string();
        reply(400, &[("content-type", "application/x-amz-json-1.1"), ("x-amzn-requestid", "fake")], body)
    }
}

/// One call of an action by a known caller.
pub(crate) struct Action<'a> {
    pub(crate) name: &'a str,
    pub(crate) principal: &'a Principal,
    pub(crate) region: &'a str,
    pub(crate) input: &'a Value,
}

impl Action<'_> {
    pub(crate) fn text(&self, field: &str) -> Option<&str> {
        self.input[field].as_str()
    }

    /// Returns the registry of the input's `registryId`, or the caller's own.
    pub(crate) fn registry(&self) -> RegistryId {
        RegistryId::new(self.text("registryId").unwrap_or(&self.principal.account), self.region)
    }

    /// Returns one page of a list, and the token of the next page.
    pub(crate) fn page<T: Clone>(&self, state: &State, all: &[T]) -> Result<(Vec<T>, Option<String>), Exception> {
        let start = match self.text("nextToken") {
            None => 0,
            Some(token) => STANDARD
                .decode(token)
                .ok()
                .and_then(|token| String::from_utf8(token).ok()?.parse::<usize>().ok())
                .ok_or_else(|| Exception::invalid("Invalid parameter at 'NextToken'"))?,
        };
        let size = self.input["maxResults"].as_u64().unwrap_or(100).min(1000) as usize;
        let end = (start + size.min(state.quirks.page)).min(all.len());
        let page = all.get(start..end).ok_or_else(|| Exception::invalid("Invalid parameter at 'NextToken'"))?;
        Ok((page.to_vec(), (end < all.len()).then(|| STANDARD.encode(end.to_string()))))
    }
}

pub(crate) async fn serve(shared: Arc<Shared>, request: Request<Incoming>, peer: Peer) -> io::Result<Reply> {
    let target = request.headers().get("x-amz-target").and_then(|value| value.to_str().ok()).map(str::to_owned);
    if request.method() == "GET" && request.uri().path() == "/oidc" {
        let entry = LoggedRequest::new(Plane::Control, Kind::Oidc, &request, peer.connection);
        let state = shared.clone();
        let handle = async move |_: LoggedRequest, request: Request<Incoming>| Ok(identity_token(&state, &request));
        return shared.answer(entry, request, peer, handle).await;
    }
    let json_action = target.as_deref().and_then(|target| target.rsplit_once('.')).map(|(_, action)| action.to_owned());
    // With the query protocol, the action is in the body, which is therefore read before hooks are applied.
    let kind = Kind::Api(json_action.clone().unwrap_or_default());
    let mut entry = LoggedRequest::new(Plane::Control, kind, &request, peer.connection);
    let (parts, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    while let Some(chunk) = data_plane::next(&mut body, &entry.meter()).await? {
        bytes.extend_from_slice(&chunk);
    }
    if json_action.is_none() {
        entry.kind = Kind::Api(sts::action(&bytes));
    }
    let request = Request::from_parts(parts, body);
    let state = shared.clone();
    let handle = async move |_: LoggedRequest, request: Request<Incoming>| {
        let (parts, _) = request.into_parts();
        let mut state = state.state();
        Ok(match &target {
            Some(target) => json_api(&mut state, target, &parts, &bytes).unwrap_or_else(Exception::reply),
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
        _ => return Err(Exception::new("UnknownOperationException", "")),
    };
    let content_type = parts.headers.get("content-type").and_then(|value| value.to_str().ok());
    if content_type != Some("application/x-amz-json-1.1") {
        return Err(Exception::new("SerializationException", "wrong content type"));
    }
    let (principal, region) = caller(state, parts, prefix).map_err(|(name, message)| Exception::new(name, message))?;
    if state.throttled(name).is_some() {
        return Err(Exception::new("ThrottlingException", "Rate exceeded"));
    }
    let input: Value =
        serde_json::from_slice(bytes).map_err(|error| Exception::new("SerializationException", error.to_string()))?;
    let action = Action { name, principal: &principal, region: &region, input: &input };
    let output = match (service, name) {
        ("ssm", _) => ssm::answer(state, &action)?,
        (_, "GetAuthorizationToken") => authorization_token(state, &action)?,
        (_, "DescribeImageScanFindings") => image_scans::answer(state, &action)?,
        _ => repositories::answer(state, &action)?,
    };
    Ok(reply(200, &[("content-type", "application/x-amz-json-1.1"), ("x-amzn-requestid", "fake")], output.to_string()))
}

/// Returns the caller and the region, according to the access key and the scope. The signature is not verified.
pub(crate) fn caller(
    state: &State,
    parts: &Parts,
    service: &str,
) -> Result<(Principal, String), (&'static str, String)> {
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let missing = || ("MissingAuthenticationTokenException", "Missing Authentication Token".to_owned());
    let unknown =
        || ("UnrecognizedClientException", "The security token included in the request is invalid.".to_owned());
    let authorization = header("authorization").ok_or_else(missing)?;
    let scope = authorization
        .strip_prefix("AWS4-HMAC-SHA256 Credential=")
        .and_then(|rest| rest.split(',').next())
        .filter(|_| authorization.contains("Signature=") && header("x-amz-date").is_some())
        .ok_or_else(missing)?;
    let [key, _, region, signed_for, "aws4_request"] = scope.split('/').collect::<Vec<_>>()[..] else {
        return Err(missing());
    };
    if signed_for != service {
        let message = format!("Credential should be scoped to correct service: '{service}'.");
        return Err(("InvalidSignatureException", message));
    }
    let credential = state.credentials.get(key).ok_or_else(unknown)?;
    if credential.session_token.as_deref() != header("x-amz-security-token") {
        return Err(unknown());
    }
    Ok((credential.principal.clone(), region.to_owned()))
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
