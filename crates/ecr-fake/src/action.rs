//! An action of a JSON API: its caller, input and answer.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::http::request::Parts;
use serde_json::{Value, json};

use crate::{
    http::{Reply, reply},
    iam::Principal,
    state::{RegistryId, State},
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

    pub(crate) fn reply(self) -> Reply {
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
