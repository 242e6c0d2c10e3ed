//! An admitted request to a registry, and how it is answered.

use hyper::http::request::Parts;
use serde_json::json;

use crate::{
    LoggedRequest, Shared,
    http::{Reply, Route, reply},
    iam::Principal,
    state::RegistryId,
};

/// An error response of the distribution specification.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Refusal {
    pub(crate) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { status, code, message: message.into(), headers: Vec::new() }
    }

    pub(crate) fn name_unknown(registry: &RegistryId, name: &str) -> Refusal {
        let account = &registry.account;
        Refusal::new(
            404,
            "NAME_UNKNOWN",
            format!("The repository with name '{name}' does not exist in the registry with id '{account}'"),
        )
    }

    /// Returns the response. It has no body for a HEAD.
    pub(crate) fn reply(self, head: bool) -> Reply {
        let body = match self.code {
            "" => self.message,
            code => json!({"errors": [{"code": code, "message": self.message}]}).to_string(),
        };
        let length = body.len().to_string();
        let kind = if self.code.is_empty() { "text/plain; charset=utf-8" } else { "application/json; charset=utf-8" };
        let mut headers = vec![("content-type", kind), ("content-length", length.as_str())];
        headers.extend(self.headers.iter().map(|(name, value)| (*name, value.as_str())));
        reply(self.status, &headers, if head { String::new() } else { body })
    }
}

pub(crate) type Outcome = Result<Reply, Refusal>;

/// A request that has been authenticated and authorized.
pub(crate) struct Call<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) registry: &'a RegistryId,
    pub(crate) route: Route,
    pub(crate) parts: Parts,
    pub(crate) principal: Principal,
    pub(crate) entry: &'a LoggedRequest,
}

impl Call<'_> {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn unknown(&self) -> Refusal {
        Refusal::name_unknown(self.registry, &self.route.repository)
    }
}
