use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::Explain;
use oci::BoxError;

/// A failed call of GitHub's API.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    message: String,
    hint: Option<String>,
    /// Whether a retry may succeed.
    pub(super) transient: bool,
    /// Whether the token lacks the permission.
    denied: bool,
    /// Whether GitHub answered that it does not exist.
    missing: bool,
    /// How long to wait before a retry, according to the server.
    pub(super) after: Option<Duration>,
    #[source]
    source: Option<BoxError>,
}

impl Error {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            transient: false,
            denied: false,
            missing: false,
            after: None,
            source: None,
        }
    }

    /// Returns whether the token lacks the permission, as it does in a pull request from a fork.
    pub fn is_denied(&self) -> bool {
        self.denied
    }

    /// Returns whether GitHub answered that what was requested does not exist.
    pub(super) fn is_missing(&self) -> bool {
        self.missing
    }

    /// Adds to the hint about a missing permission that the call works for organizations only.
    pub(super) fn of_organizations(mut self) -> Self {
        if let Some(hint) = self.hint.as_mut().filter(|_| self.denied) {
            hint.push_str("; GitHub keeps these records for the repositories of organizations only");
        }
        self
    }

    pub(super) fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Creates an error for a request without a response.
    pub(super) fn unanswered(route: &str, source: impl Into<BoxError>) -> Self {
        Self { transient: true, ..Self::new(format!("{route}: no answer")).because(source) }
    }

    /// Converts an error of octocrab, which most often is a failed connection.
    pub(super) fn from_octocrab(route: &str, error: octocrab::Error) -> Self {
        let mut innermost: &dyn std::error::Error = &error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        let reason = innermost.to_string();
        Self::unanswered(route, reason)
    }

    /// Converts a response with an error status.
    pub(super) fn from_response(
        route: &str,
        permission: &str,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Self {
        let number = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let exhausted = number("x-ratelimit-remaining") == Some(0);
        let after = number("retry-after").map(Duration::from_secs);
        let limited = status == StatusCode::TOO_MANY_REQUESTS
            || (status == StatusCode::FORBIDDEN && (exhausted || after.is_some()));
        let said: Option<String> = serde_json::from_slice::<serde_json::Value>(body).ok().and_then(|body| {
            body["message"].as_str().map(|said| said.chars().filter(|c| !c.is_control()).take(300).collect())
        });
        let said = said.map(|said| format!(": {said}")).unwrap_or_default();
        let unknown = status == StatusCode::UNAUTHORIZED;
        let denied = matches!(status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) && !limited;
        Self {
            hint: (unknown || denied).then(|| {
                format!("the job needs `permissions: {permission}: write`, and `github-token: ${{{{ github.token }}}}`")
            }),
            denied,
            missing: status == StatusCode::NOT_FOUND,
            transient: status.is_server_error() || limited,
            after,
            ..Self::new(format!("{route}: GitHub answered {}{said}", status.as_u16()))
        }
    }
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Error {
        let headers = headers.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect();
        Error::from_response("/r", "deployments", StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes())
    }

    #[test]
    fn a_rate_limit_is_transient_and_a_missing_permission_is_not() {
        let read_only = refused(403, &[], r#"{"message": "Resource not accessible by integration"}"#);
        assert_eq!((read_only.is_denied(), read_only.transient), (true, false));
        assert_eq!(read_only.to_string(), "/r: GitHub answered 403: Resource not accessible by integration");
        assert!(read_only.hint().unwrap().contains("`permissions: deployments: write`"));
        for headers in [[("x-ratelimit-remaining", "0")], [("retry-after", "7")]] {
            let limited = refused(403, &headers, "");
            assert_eq!((limited.is_denied(), limited.transient, limited.hint()), (false, true, None));
        }
        assert_eq!(refused(429, &[("retry-after", "7")], "").after, Some(Duration::from_secs(7)));
        assert!(refused(502, &[], "<html>").transient);
    }

    #[test]
    fn an_unknown_token_gets_a_hint() {
        let unknown = refused(401, &[], r#"{"message": "Bad credentials"}"#);
        assert_eq!((unknown.is_denied(), unknown.transient), (false, false));
        assert!(unknown.hint().is_some());
    }
}
