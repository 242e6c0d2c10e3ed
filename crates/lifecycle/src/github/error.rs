use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::diagnosis::Explain;
use crate::oci::BoxError;

/// What went wrong at GitHub's API.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    message: String,
    hint: Option<String>,
    /// Whether it may pass.
    pub(super) transient: bool,
    /// When to come back, as the server has it.
    pub(super) after: Option<Duration>,
    #[source]
    source: Option<BoxError>,
}

impl Error {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, transient: false, after: None, source: None }
    }

    pub(super) fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// No answer came.
    pub(super) fn unanswered(route: &str, source: impl Into<BoxError>) -> Self {
        Self { transient: true, ..Self::new(format!("{route}: no answer")).because(source) }
    }

    /// octocrab could not do it: most often no connection.
    pub(super) fn broken(route: &str, error: octocrab::Error) -> Self {
        let mut innermost: &dyn std::error::Error = &error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        let reason = innermost.to_string();
        Self::unanswered(route, reason)
    }

    /// The answer is no.
    pub(super) fn refused(route: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let number = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let exhausted = number("x-ratelimit-remaining") == Some(0);
        let after = number("retry-after").map(Duration::from_secs);
        let limited = status == StatusCode::TOO_MANY_REQUESTS
            || (status == StatusCode::FORBIDDEN && (exhausted || after.is_some()));
        let said: Option<String> = serde_json::from_slice::<serde_json::Value>(body).ok().and_then(|body| {
            body["message"].as_str().map(|said| said.chars().filter(|c| !c.is_control()).take(300).collect())
        });
        let said = said.map(|said| format!(": {said}")).unwrap_or_default();
        let denied =
            matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) && !limited;
        Self {
            hint: denied.then(|| {
                "the job needs `permissions: deployments: write`, and `github-token: ${{ github.token }}`".to_owned()
            }),
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
