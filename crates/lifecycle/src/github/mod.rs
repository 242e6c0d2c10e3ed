//! GitHub's API, as far as the actions write to it.

mod code_scanning;
mod comment;
mod deployments;
mod error;
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

pub use comment::Body;
pub use deployments::{DeploymentState, NewDeployment};
pub use error::Error;

use registry::http_client::HttpClient;
use runner_protocol::Variables;
use secrecy::{ExposeSecret, SecretString};
use service::OctocrabService;

/// One request. GitHub itself gives up after ten seconds.
const REQUEST_DEADLINE: Duration = Duration::from_secs(15);

/// One call with all its attempts.
const CALL_DEADLINE: Duration = Duration::from_secs(60);

/// The largest answer that is read, in bytes: a page of the longest comments.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;

/// The most that GitHub's word for when to come back is heeded.
const PATIENCE: Duration = Duration::from_secs(20);

/// The version of the API that requests are written for.
const API_VERSION: &str = "2022-11-28";

/// One repository at GitHub, seen with a token.
pub struct GitHub {
    octocrab: Octocrab,
    /// `owner/name`.
    repository: String,
}

impl GitHub {
    /// The repository that a run is of, at the server that the run is on.
    ///
    /// # Errors
    /// When the environment does not say which, or the token or the address can't be sent.
    pub fn of(variables: &Variables, token: &SecretString) -> Result<Self, Error> {
        let repository = variables.repository().filter(|repository| is_repository(repository));
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

    /// Posts to a path below the repository. What may pass is tried again: a call that was carried out though its answer was
    /// lost is then made twice, which is better than not at all for what is posted here.
    async fn post(&self, permission: &'static str, path: &str, body: &Value) -> Result<Value, Error> {
        let route = self.route(path);
        retried(&route, || self.once(permission, Method::POST, &route, Some(body))).await
    }

    fn route(&self, path: &str) -> String {
        format!("/repos/{}/{path}", self.repository)
    }

    async fn once(
        &self,
        permission: &'static str,
        method: Method,
        route: &str,
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        let request = http::Request::builder().method(method).uri(route);
        let request = self.octocrab.build_request(request, body).map_err(|error| Error::broken(route, error))?;
        let exchange = async {
            let answer = self.octocrab.execute(request).await.map_err(|error| Error::broken(route, error))?;
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
            status => Err(Error::refused(route, permission, status, &head.headers, &body)),
        }
    }
}

/// Carries something out; what may pass is tried again.
async fn retried<T, F>(what: &str, work: impl FnMut() -> F) -> Result<T, Error>
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
            (Some(pause), Some(after)) => Some(pause.max(after.min(PATIENCE))),
            (pause, _) => pause,
        }
    });
    let late = |_| Error::new(format!("{what}: no answer in {} s", CALL_DEADLINE.as_secs()));
    tokio::time::timeout(CALL_DEADLINE, work).await.map_err(late)?
}

/// `owner/name` of letters that GitHub allows, so that it stays one in a path.
fn is_repository(text: &str) -> bool {
    let word = |part: &str| {
        !part.is_empty()
            && !matches!(part, "." | "..")
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    text.split_once('/').is_some_and(|(owner, name)| word(owner) && word(name))
}
