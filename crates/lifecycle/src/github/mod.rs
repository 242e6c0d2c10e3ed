//! The parts of GitHub's API that the actions write to.

mod artifact_metadata;
mod code_scanning;
mod comment;
mod deployments;
mod error;
pub mod event;
mod service;

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use http::header::{ACCEPT, AUTHORIZATION, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use octocrab::service::middleware::base_uri::BaseUriLayer;
use octocrab::service::middleware::extra_headers::ExtraHeadersLayer;
use octocrab::{AuthState, Octocrab, OctocrabBuilder};
use serde_json::Value;

pub use artifact_metadata::{ArtifactInRegistry, DeployedArtifact};
pub use comment::CommentBody;
pub use deployments::{DeploymentState, NewDeployment};
pub use error::Error;

use registry::http_client::HttpClient;
use runner_protocol::Variables;
use secrecy::{ExposeSecret, SecretString};
use service::OctocrabService;

/// The longest that one request may take. GitHub itself gives up after ten seconds.
const REQUEST_DEADLINE: Duration = Duration::from_secs(15);

/// The longest that one call may take, all attempts included.
const CALL_DEADLINE: Duration = Duration::from_secs(60);

/// The largest response that is read, in bytes. A page of the longest comments fits into it.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;

/// The longest wait that GitHub may ask for before a retry.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(20);

/// The version of the API that the requests use.
const API_VERSION: &str = "2022-11-28";

/// A repository at GitHub, accessed with a token.
pub struct GitHub {
    octocrab: Octocrab,
    /// `owner/name`.
    repository: String,
}

impl GitHub {
    /// Returns the repository of a run, at the server that it runs on.
    ///
    /// # Errors
    /// If the environment does not name the repository, or the token or the server's address is invalid.
    pub fn of(variables: &Variables, token: &SecretString) -> Result<Self, Error> {
        let repository = variables.get("GITHUB_REPOSITORY").filter(|repository| is_repository(repository));
        let repository =
            repository.ok_or_else(|| Error::new("GITHUB_REPOSITORY doesn't say which repository this is"))?;
        let address = variables.get("GITHUB_API_URL").unwrap_or("https://api.github.com");
        Self::new(address, repository, token)
    }

    fn new(address: &str, repository: &str, token: &SecretString) -> Result<Self, Error> {
        let invalid = || Error::new(format!("`{address}` is not the address of GitHub's API"));
        let base: Uri = address.trim_end_matches('/').parse().map_err(|_| invalid())?;
        if base.scheme().is_none() || base.authority().is_none() {
            return Err(invalid());
        }
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
            .map_err(|_| Error::new("the token holds characters that no token has"))?;
        bearer.set_sensitive(true);
        let headers = vec![
            (AUTHORIZATION, bearer),
            (USER_AGENT, HeaderValue::from_static("image-lifecycle")),
            (ACCEPT, HeaderValue::from_static("application/vnd.github+json, application/json")),
            (HeaderName::from_static("x-github-api-version"), HeaderValue::from_static(API_VERSION)),
        ];
        let built = OctocrabBuilder::new_empty()
            .with_service(OctocrabService(HttpClient::new()))
            .with_layer(&BaseUriLayer::new(base))
            .with_layer(&ExtraHeadersLayer::new(Arc::new(headers)))
            .with_auth(AuthState::None)
            .build();
        let octocrab = match built {
            Ok(octocrab) => octocrab,
            Err(never) => match never {},
        };
        Ok(Self { octocrab, repository: repository.to_owned() })
    }

    /// Posts to a path below the repository. Transient failures are retried. If only the response was lost, the call is
    /// made twice, which does no harm for the calls that use this.
    async fn post(&self, permission: &'static str, path: &str, body: &Value) -> Result<Value, Error> {
        let route = self.route(path);
        with_retries(&route, || self.send(permission, Method::POST, &route, Some(body))).await
    }

    /// Returns the owner and the name of the repository.
    fn owner_and_name(&self) -> (&str, &str) {
        self.repository.split_once('/').unwrap_or_default()
    }

    fn route(&self, path: &str) -> String {
        format!("/repos/{}/{path}", self.repository)
    }

    async fn send(
        &self,
        permission: &'static str,
        method: Method,
        route: &str,
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        let request = http::Request::builder().method(method).uri(route);
        let request = self.octocrab.build_request(request, body).map_err(|error| Error::from_octocrab(route, error))?;
        let exchange = async {
            let answer = self.octocrab.execute(request).await.map_err(|error| Error::from_octocrab(route, error))?;
            let (head, body) = answer.into_parts();
            let body =
                Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|error| Error::unanswered(route, error))?;
            Ok((head, body.to_bytes()))
        };
        let late = |_| Error::unanswered(route, format!("no answer in {} s", REQUEST_DEADLINE.as_secs()));
        let (head, body) = tokio::time::timeout(REQUEST_DEADLINE, exchange).await.map_err(late)??;
        match head.status {
            StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED => serde_json::from_slice(&body)
                .map_err(|error| Error::new(format!("{route}: the answer is no JSON")).because(error)),
            status => Err(Error::from_response(route, permission, status, &head.headers, &body)),
        }
    }
}

/// Runs an operation, and retries it after a transient failure.
async fn with_retries<T, F>(what: &str, work: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let attempts = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(8))
        .with_max_times(4)
        .with_jitter();
    let work = work.retry(attempts).when(|error: &Error| error.transient).adjust(|error: &Error, pause| {
        match (pause, error.after) {
            (Some(pause), Some(after)) => Some(pause.max(after.min(MAX_RETRY_AFTER))),
            (pause, _) => pause,
        }
    });
    let late = |_| Error::new(format!("{what}: no answer in {} s", CALL_DEADLINE.as_secs()));
    tokio::time::timeout(CALL_DEADLINE, work).await.map_err(late)?
}

/// Returns whether a text is an `owner/name` of characters that GitHub allows, and so is safe in a URL path.
fn is_repository(text: &str) -> bool {
    let word = |part: &str| {
        !part.is_empty()
            && !matches!(part, "." | "..")
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    text.split_once('/').is_some_and(|(owner, name)| word(owner) && word(name))
}
