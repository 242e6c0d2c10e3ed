use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RANGE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};
use url::Url;

use super::auth::{Challenge, Credentials, Scope, basic, bearer};
use super::error::Failure;
use super::operation::{Counts, Kind, Operation};
use super::upload_progress::UploadProgress;
use super::{EcrHost, Registry, is_loopback};
use crate::http_client::{Body, full};
use oci::{Class, RepositoryName, StoreError};
use secrecy::{ExposeSecret, SecretString};

/// Until the head of an answer is there, for requests without a large body.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// For the body of an answer that is read whole: a manifest, a list.
const SMALL_ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Between two pieces of a body.
pub(super) const PIECE_DEADLINE: Duration = Duration::from_secs(30);

/// Attempts after the first for an operation that fails; one that is throttled is limited by time alone.
const RETRIES: usize = 6;

/// The same after an answer that did not prove a write: what is not there after three attempts is refused.
const RETRIES_UNPROVED: usize = 2;

/// The shortest and the longest wait between two attempts, each then drawn from zero up to it.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// No attempt of an operation begins later than this after its first failure.
pub(super) const PATIENCE: Duration = Duration::from_secs(45);

/// The same where the registry answers that there are too many requests: other runs may have used up its quota.
const PATIENCE_THROTTLED: Duration = Duration::from_secs(90);

/// An attempt that takes longer is reported, once, so that the log shows what a run is waiting for.
const SLOW: Duration = Duration::from_secs(10);

/// The largest error answer that is read, in bytes.
const ERROR_LIMIT: usize = 64 * 1024;

/// The largest answer of a token service, in bytes.
const TOKEN_LIMIT: usize = 1024 * 1024;

const AGENT: &str = concat!("image-lifecycle/", env!("CARGO_PKG_VERSION"));

/// What is sent, apart from who sends it.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) accept: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) range_from: Option<u64>,
    pub(super) body: Payload,
    pub(super) deadline: Duration,
}

/// The failures of one operation so far.
#[derive(Default)]
struct Failures(Mutex<(usize, Option<Instant>)>);

impl Failures {
    /// Counts a failure; whether another attempt may follow it.
    fn allow_another(&self, failure: &Failure, patience: Duration) -> bool {
        let count = {
            let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            failures.0 += usize::from(failure.class != Class::Throttled);
            failures.1.get_or_insert_with(Instant::now);
            failures.0
        };
        let most = if failure.is_unproved { RETRIES_UNPROVED } else { RETRIES };
        failure.may_pass() && count <= most && self.in_time(failure, patience)
    }

    /// Whether the next attempt would begin within the patience. What would begin later has failed now.
    fn in_time(&self, failure: &Failure, patience: Duration) -> bool {
        let first = self.0.lock().unwrap_or_else(PoisonError::into_inner).1.unwrap_or_else(Instant::now);
        let patience = match failure.class {
            Class::Throttled => patience.max(PATIENCE_THROTTLED),
            _ => patience,
        };
        Instant::now() + failure.retry_after.unwrap_or_default() < first + patience
    }
}

/// A request's body.
pub(super) enum Payload {
    Bytes(Bytes),
    /// A stream of so many bytes, with its progress: whom it is waiting for.
    Stream(Body, u64, Arc<UploadProgress>),
}

impl Call {
    pub(super) fn new(method: Method, url: Url) -> Self {
        let body = Payload::Bytes(Bytes::new());
        Self { method, url, accept: None, content_type: None, range_from: None, body, deadline: ANSWER_DEADLINE }
    }
}

/// An answer with its body read whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Registry {
    /// An address below `/v2/NAME/`.
    pub(super) fn url(&self, repository: &RepositoryName, rest: &str) -> Url {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}/v2/{repository}/{rest}", self.endpoint.path().trim_end_matches('/')));
        url
    }

    /// Does an operation until it succeeds, fails for good, or has failed for too long.
    pub(super) async fn retry<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        operation: &Operation<'_>,
        counts: &Counts,
        attempt: impl FnMut() -> F,
    ) -> Result<T, StoreError> {
        self.attempt(PATIENCE, operation, counts, attempt)
            .await
            .map_err(|failure| failure.explain(operation, &self.host))
    }

    /// Does the same, and returns the failure as the registry put it. No attempt begins later than `patience` after the
    /// first failure, which includes the waits that the registry asks for.
    pub(super) async fn attempt<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        patience: Duration,
        operation: &Operation<'_>,
        counts: &Counts,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Failure> {
        let failures = Failures::default();
        let again = |failure: &Failure| failures.allow_another(failure, patience);
        let (first, most) = BACKOFF;
        let backoff = ExponentialBuilder::default().with_min_delay(first).with_max_delay(most).without_max_times();
        let attempts = (|| self.reported(operation, attempt()))
            .retry(backoff.build())
            .sleep(tokio::time::sleep)
            .when(again)
            // Full jitter, unless the registry said how long.
            .adjust(|failure, wait| {
                wait.map(|wait| failure.retry_after.unwrap_or_else(|| rand::random_range(Duration::ZERO..=wait)))
            })
            .notify(|failure, wait| {
                counts.retry();
                self.health.failed(operation, failure);
                if failure.class == Class::Throttled {
                    self.budget.throttled(failure.retry_after);
                }
                self.report_retry(operation, failure, wait);
            });
        tokio::select! {
            // An answer that is there counts, also where the registry was given up meanwhile.
            biased;
            outcome = attempts => match outcome {
                Ok(value) => Ok(value),
                Err(failure) if failure.may_pass() => {
                    self.health.gave_up(operation, &failure);
                    Err(if failures.in_time(&failure, patience) { failure } else { failure.given_up() })
                }
                Err(failure) => Err(failure),
            },
            given_up = self.health.given_up(operation.kind) => Err(Failure::host_given_up(given_up)),
        }
    }

    /// An attempt that says after a while that it is still waiting.
    async fn reported<T>(
        &self,
        operation: &Operation<'_>,
        attempt: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut attempt = std::pin::pin!(attempt);
        match timeout(SLOW, &mut attempt).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.report(|| {
                    format!("waiting for `{}`: {} of `{}`", self.host, operation.what(), operation.repository)
                });
                attempt.await
            }
        }
    }

    fn report_retry(&self, operation: &Operation<'_>, failure: &Failure, wait: Duration) {
        if wait >= Duration::from_secs(2) {
            let (what, repository, why) = (operation.what(), operation.repository, failure.reason());
            let seconds = wait.as_secs();
            self.report(|| {
                format!("waiting for `{}`: {what} of `{repository}` ({why}), again in {seconds} s", self.host)
            });
        }
    }

    /// Does an operation whose answer is small, with retries.
    pub(super) async fn fetch(
        &self,
        operation: &Operation<'_>,
        counts: &Counts,
        limit: usize,
        call: impl Fn() -> Call,
    ) -> Result<Answer, StoreError> {
        self.retry(operation, counts, || self.fetch_once(operation, counts, limit, call())).await
    }

    /// The same once.
    pub(super) async fn fetch_once(
        &self,
        operation: &Operation<'_>,
        counts: &Counts,
        limit: usize,
        call: Call,
    ) -> Result<Answer, Failure> {
        let _permit = self.budget.permit().await;
        let response = self.send(operation, counts, call).await?;
        let (parts, body) = response.into_parts();
        let body = timeout(SMALL_ANSWER_DEADLINE, read(body, limit)).await;
        let body = body.map_err(|_| Failure::no_answer(SMALL_ANSWER_DEADLINE))??;
        self.budget.succeeded();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    /// Sends one request with credentials; once more where the credentials had to be renewed.
    /// The answer is a success, or a redirect of a blob.
    pub(super) async fn send(
        &self,
        operation: &Operation<'_>,
        counts: &Counts,
        call: Call,
    ) -> Result<Response<Incoming>, Failure> {
        let scope = Scope { repository: operation.repository.clone(), push: operation.kind.is_write() };
        let ours = same_origin(&call.url, &self.endpoint);
        let authorization = if ours { self.authorization(&scope, counts).await? } else { None };
        let Call { method, url, accept, content_type, range_from, body, deadline } = call;
        let (again, body, length, progress) = match body {
            Payload::Bytes(bytes) => (Some(bytes.clone()), full(bytes.clone()), bytes.len() as u64, None),
            // A stream can't be sent twice; the caller opens a new one.
            Payload::Stream(stream, length, progress) => (None, stream, length, Some(progress)),
        };
        let build = |authorization: Option<&HeaderValue>, body: Body| {
            let mut request = Request::builder().method(method.clone()).uri(url.as_str()).header(USER_AGENT, AGENT);
            if let Some(value) = authorization {
                request = request.header(AUTHORIZATION, value);
            }
            if let Some(accept) = &accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(content_type) = &content_type {
                request = request.header(CONTENT_TYPE, content_type);
            }
            if let Some(from) = range_from {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            if length > 0 || matches!(method, Method::PUT | Method::POST) {
                request = request.header(CONTENT_LENGTH, length);
            }
            request.body(body).map_err(|error| Failure::unreachable(error.into()))
        };
        let redirects = matches!(operation.kind, Kind::GetBlob | Kind::GetRedirected);
        let attempt = async |authorization: Option<&HeaderValue>, body: Body| {
            counts.request(operation.kind);
            let request = build(authorization, body)?;
            let response = match &progress {
                Some(progress) => progress.watch(self.http.send(request), deadline).await?,
                None => self.answer(request, deadline).await?,
            };
            let status = response.status();
            if status.is_success() || (redirects && status.is_redirection()) {
                self.health.answered(operation.kind);
                return Ok(Ok(response));
            }
            let (parts, body) = response.into_parts();
            let body = read(body, ERROR_LIMIT).await.unwrap_or_default();
            let secrets = self.authenticator.secrets(authorization);
            let mut failure = Failure::answered(status, &parts.headers, &body, &secrets);
            if !failure.may_pass() {
                self.health.answered(operation.kind);
            }
            failure.had_credentials = authorization.is_some_and(|value| value.as_bytes().starts_with(b"Basic "));
            Ok(Err((failure, parts)))
        };
        let (failure, refusal) = match attempt(authorization.as_ref(), body).await? {
            Ok(response) => return Ok(response),
            Err(refused) => refused,
        };
        if !ours || !may_be_expired(&failure, refusal.status, &method) {
            return Err(failure);
        }
        let challenge = Challenge::read(&refusal.headers);
        match (self.reauthorize(&scope, challenge, authorization.as_ref(), counts).await?, again) {
            (Some(authorization), Some(bytes)) => {
                attempt(Some(&authorization), full(bytes)).await?.map_err(|(failure, _)| failure)
            }
            (Some(_), None) => Err(Failure::new(Class::Transient, "credentials were renewed")),
            (None, _) => Err(failure),
        }
    }

    async fn answer(&self, request: Request<Body>, deadline: Duration) -> Result<Response<Incoming>, Failure> {
        match timeout(deadline, self.http.send(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Failure::unreachable(error)),
            Err(_) => Err(Failure::no_answer(deadline)),
        }
    }

    /// The header to send at once: Basic where we have a password, a token where the registry has
    /// named its token service before, nothing where we are nobody.
    async fn authorization(&self, scope: &Scope, counts: &Counts) -> Result<Option<HeaderValue>, Failure> {
        let credentials = self.authenticator.credentials().await.map_err(Failure::no_credentials)?;
        let Some(service) = self.authenticator.service() else { return Ok(basic(&credentials)) };
        let token = match self.authenticator.token(scope) {
            Some(token) => token,
            None => self.new_token(scope, service, &credentials, counts).await?,
        };
        Ok(bearer(&token))
    }

    /// After a refusal: the header to try once more with, if there is one.
    async fn reauthorize(
        &self,
        scope: &Scope,
        challenge: Option<Challenge>,
        refused: Option<&HeaderValue>,
        counts: &Counts,
    ) -> Result<Option<HeaderValue>, Failure> {
        if let Some(service) = challenge {
            let had_token = refused.is_some_and(|value| value.as_bytes().starts_with(b"Bearer "));
            if let (true, Some(refused)) = (had_token, refused) {
                self.authenticator.drop_token(scope, refused);
            }
            let credentials = self.authenticator.credentials().await.map_err(Failure::no_credentials)?;
            return Ok(bearer(&self.new_token(scope, service, &credentials, counts).await?));
        }
        let Some(refused) = refused else { return Ok(None) };
        if !self.authenticator.renew(refused) {
            return Ok(None);
        }
        let credentials = self.authenticator.credentials().await.map_err(Failure::no_credentials)?;
        Ok(basic(&credentials).filter(|renewed| renewed != refused))
    }

    /// Whether a token service may have what proves who we are. Anybody between us and the registry can name one.
    fn trusts(&self, realm: &Url, credentials: &Credentials) -> bool {
        let of_registry = match (realm.scheme(), credentials) {
            ("https", Credentials::Anonymous) => return true,
            ("https", _) => {
                let asked = Url::parse(&format!("https://{}/", self.host));
                let asked = asked.iter().chain([&self.endpoint]).filter_map(Url::host_str);
                asked.into_iter().any(|registry| is_same_operator(realm.host_str().unwrap_or_default(), registry))
            }
            ("http", _) => self.endpoint.scheme() == "http" && is_loopback(realm) && is_loopback(&self.endpoint),
            _ => false,
        };
        // ECR takes its password as it is, and has no token service.
        of_registry && EcrHost::parse(&self.host).is_none()
    }

    /// Asks the token service.
    async fn new_token(
        &self,
        scope: &Scope,
        service: Challenge,
        credentials: &Credentials,
        counts: &Counts,
    ) -> Result<SecretString, Failure> {
        #[derive(serde::Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        if !self.trusts(&service.realm, credentials) {
            let host = service.realm.host_str().unwrap_or_default();
            let detail = format!("it names a token service that is not its own: {}://{host}", service.realm.scheme());
            return Err(Failure::new(Class::Denied, detail));
        }
        let url = service.address(scope);
        let mut request = Request::builder().uri(url.as_str()).header(USER_AGENT, AGENT);
        let mut body = Bytes::new();
        match credentials {
            Credentials::Anonymous => {}
            Credentials::Basic { .. } => {
                if let Some(value) = basic(credentials) {
                    request = request.header(AUTHORIZATION, value);
                }
            }
            Credentials::Refresh(token) => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.extend_pairs(url.query_pairs());
                form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", token.expose_secret());
                body = form.finish().into();
                let mut bare = url.clone();
                bare.set_query(None);
                request = request.method(Method::POST).uri(bare.as_str());
                request = request
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .header(CONTENT_LENGTH, body.len());
            }
        }
        let request = request.body(full(body)).map_err(|error| Failure::unreachable(error.into()))?;
        counts.request(Kind::Token);
        let response = self.answer(request, ANSWER_DEADLINE).await?;
        let (parts, body) = response.into_parts();
        let body = read(body, TOKEN_LIMIT).await?;
        if !parts.status.is_success() {
            let mut failure = Failure::answered(parts.status, &parts.headers, &body, &self.authenticator.secrets(None));
            failure.had_credentials = !matches!(credentials, Credentials::Anonymous);
            failure.at = Some(Kind::Token);
            return Err(failure);
        }
        let said: Token = serde_json::from_slice(&body)
            .map_err(|_| Failure::new(Class::Invalid, "the token service's answer is not a token"))?;
        let token = said.token.or(said.access_token).map(SecretString::from);
        let token = token.ok_or_else(|| Failure::new(Class::Invalid, "the token service's answer has no token"))?;
        self.authenticator.keep_token(scope.clone(), service, token.clone());
        Ok(token)
    }
}

/// Second labels below which anybody can have a name: `co.uk`.
const PUBLIC_SUFFIXES: [&str; 10] = ["ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org"];

/// Whether the host of a token service is the registry's own, or has its parent domain, as `auth.docker.io` has that of
/// `registry-1.docker.io`. A parent is no parent where it is a suffix below which names are given to anybody.
fn is_same_operator(service: &str, registry: &str) -> bool {
    let within = |domain: &str| {
        service == domain || service.strip_suffix(domain).is_some_and(|name| name.ends_with('.') && name.len() > 1)
    };
    let is_name = |host: &str| host.bytes().any(|byte| byte.is_ascii_alphabetic()) && !host.contains(':');
    if service == registry || !is_name(registry) {
        return service == registry;
    }
    let parent = registry.split_once('.').map(|(_, parent)| parent).filter(|parent| match parent.split_once('.') {
        None => false,
        Some((second, first)) => first.len() != 2 || !PUBLIC_SUFFIXES.contains(&second),
    });
    (registry.contains('.') && within(registry)) || parent.is_some_and(within)
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn read(mut body: Incoming, limit: usize) -> Result<Bytes, Failure> {
    let mut bytes = BytesMut::new();
    loop {
        let frame = match timeout(PIECE_DEADLINE, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(Failure::unreachable(error.into())),
            Ok(None) => return Ok(bytes.freeze()),
            Err(_) => return Err(Failure::new(Class::Transient, "the answer stopped in the middle")),
        };
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > limit {
                return Err(Failure::new(Class::Invalid, format!("the answer is over the limit of {limit} bytes")));
            }
            bytes.extend_from_slice(&data);
        }
    }
}

/// Where a `Location` header points, seen from the request: to its own origin, from a loopback registry to loopback, from
/// any other to https on a host that is neither this machine nor one that only this machine's network knows by address.
pub(super) fn location(headers: &HeaderMap, from: &Url) -> Result<Url, Failure> {
    let invalid = || Failure::new(Class::Invalid, "the registry names no place to go on");
    let value = headers.get(LOCATION).and_then(|value| value.to_str().ok()).ok_or_else(invalid)?;
    let to = from.join(value).map_err(|_| invalid())?;
    let refused = |why: &str| Err(Failure::new(Class::Invalid, format!("it sends {why}: {}", origin(&to))));
    if !matches!(to.scheme(), "http" | "https") || !to.has_host() {
        return refused("to an address that is neither https nor http");
    }
    if same_origin(&to, from) {
        return Ok(to);
    }
    if from.scheme() == "https" && to.scheme() != "https" {
        return refused("from https to an address without TLS");
    }
    match (is_loopback(from), is_loopback(&to)) {
        (true, true) => Ok(to),
        (true, false) => refused("from this machine to another one"),
        (false, true) => refused("from another machine to this one"),
        (false, false) if is_link_local(&to) => refused("to an address of this machine's own network"),
        (false, false) if to.scheme() == "https" => Ok(to),
        (false, false) => refused("to another address without TLS"),
    }
}

/// Scheme, host and port: what may be shown of an address that can hold a signature.
fn origin(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}", url.scheme())
}

/// Whether an address can only be one of the local link, as the metadata services of clouds have, or of no host.
fn is_link_local(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_link_local() || address.is_unspecified(),
        Some(url::Host::Ipv6(address)) => match address.to_ipv4_mapped() {
            Some(address) => address.is_link_local() || address.is_unspecified() || address.is_loopback(),
            None => address.is_unicast_link_local() || address.is_unspecified(),
        },
        Some(url::Host::Domain(_)) | None => false,
    }
}

/// Whether new credentials may help. ECR tells of an expired token by a 403 too, in words that the answer to a HEAD
/// can't hold.
fn may_be_expired(failure: &Failure, status: StatusCode, method: &Method) -> bool {
    failure.class == Class::Authentication || (status == StatusCode::FORBIDDEN && method == Method::HEAD)
}

pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: http::header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn locations_stay_where_they_may_lead() {
        let to = |from: &str, value: &str| {
            let from = Url::parse(from).unwrap();
            location(&headers(LOCATION, value), &from).map(|url| url.to_string()).map_err(|failure| failure.class)
        };
        let real = "https://r.example/v2/a/blobs/uploads/";
        assert_eq!(to(real, "/v2/a/blobs/uploads/1?x=y"), Ok("https://r.example/v2/a/blobs/uploads/1?x=y".into()));
        assert_eq!(to(real, "https://other.example/u"), Ok("https://other.example/u".into()));
        for refused in [
            "http://r.example/u",
            "file:///etc/passwd",
            "https://127.0.0.1/u",
            "https://localhost/u",
            "https://[::1]/u",
            "https://169.254.169.254/latest",
            "https://[fe80::1]/u",
            "https://[::ffff:169.254.169.254]/u",
            "https://0.0.0.0/u",
        ] {
            assert_eq!(to(real, refused), Err(Class::Invalid), "{refused}");
        }
        let here = "http://127.0.0.1:5000/v2/a/blobs/uploads/";
        for allowed in ["http://127.0.0.1:5000/u", "http://127.0.0.2:6000/u", "http://localhost:1/u", "https://[::1]/u"]
        {
            assert_eq!(to(here, allowed), Ok(allowed.to_owned()), "{allowed}");
        }
        for refused in
            ["http://192.0.2.1/u", "http://169.254.169.254/u", "https://other.example/u", "http://evil.localhost/u"]
        {
            assert_eq!(to(here, refused), Err(Class::Invalid), "{refused}");
        }
        assert_eq!(to("https://127.0.0.1:1/v2/", "http://127.0.0.1:1/u"), Err(Class::Invalid));
        let without_tls = "http://cache.internal/v2/a/";
        assert_eq!(to(without_tls, "/v2/a/1"), Ok("http://cache.internal/v2/a/1".into()));
        assert_eq!(to(without_tls, "http://other.internal/u"), Err(Class::Invalid));
        let nowhere = location(&HeaderMap::new(), &Url::parse(real).unwrap());
        assert_eq!(nowhere.map_err(|failure| failure.class), Err(Class::Invalid));
    }

    #[test]
    fn credentials_go_to_the_registrys_own_token_service() {
        for (service, registry) in [
            ("ghcr.io", "ghcr.io"),
            ("auth.docker.io", "registry-1.docker.io"),
            ("auth.docker.io", "docker.io"),
            ("gitlab.com", "registry.gitlab.com"),
            ("git.shop.co.uk", "registry.shop.co.uk"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("localhost", "localhost"),
        ] {
            assert!(is_same_operator(service, registry), "{service} {registry}");
        }
        for (service, registry) in [
            ("evil.example", "registry.example"),
            ("evil.example.com", "registry.shop.com"),
            ("evilgitlab.com", "registry.gitlab.com"),
            ("gitlab.com.evil.example", "registry.gitlab.com"),
            (".gitlab.com", "registry.gitlab.com"),
            ("evil.co.uk", "shop.co.uk"),
            ("evil.io", "docker.io"),
            ("1.0.0.1", "127.0.0.1"),
            ("8.127.0.0.1", "127.0.0.1"),
            ("evil.localhost", "localhost"),
            ("", "registry.gitlab.com"),
        ] {
            assert!(!is_same_operator(service, registry), "{service} {registry}");
        }
    }

    #[test]
    fn a_token_service_is_trusted_by_its_scheme_and_host() {
        let basic = Credentials::Basic { user: "u".into(), password: SecretString::from("p".to_owned()) };
        let refresh = Credentials::Refresh(SecretString::from("r".to_owned()));
        let ecr = "012345678901.dkr.ecr.us-east-1.amazonaws.com";
        let endpoint = |address: &str| Url::parse(address).unwrap();
        for (host, at, realm, trusted) in [
            ("r.shop.example", None, "https://auth.shop.example/token", true),
            ("r.shop.example", None, "https://evil.example/token", false),
            ("r.shop.example", None, "http://r.shop.example/token", false),
            ("r.shop.example", None, "http://127.0.0.1/token", false),
            ("r.shop.example", Some("https://cache.internal"), "https://cache.internal:8443/token", true),
            ("r.shop.example", Some("http://cache.internal"), "http://cache.internal/token", false),
            ("r.shop.example", Some("http://127.0.0.1:1"), "http://localhost:2/token", true),
            ("r.shop.example", Some("http://127.0.0.1:1"), "http://evil.localhost:2/token", false),
            ("127.0.0.1:5000", None, "http://127.0.0.1:5001/token", true),
            (ecr, None, "https://012345678901.dkr.ecr.us-east-1.amazonaws.com/token", false),
            (ecr, Some("http://127.0.0.1:1"), "http://127.0.0.1:1/token", false),
        ] {
            let endpoints = at.map(|at| (host.to_owned(), endpoint(at))).into_iter().collect();
            let options = super::super::Options { endpoints, ..super::super::Options::default() };
            let registry = registry(options, host);
            for credentials in [&basic, &refresh] {
                assert_eq!(registry.trusts(&endpoint(realm), credentials), trusted, "{host} {at:?} {realm}");
            }
        }
        let registry = registry(super::super::Options::default(), "r.shop.example");
        assert!(registry.trusts(&endpoint("https://elsewhere.example/"), &Credentials::Anonymous));
        assert!(!registry.trusts(&endpoint("http://169.254.169.254/"), &Credentials::Anonymous));
    }

    fn registry(options: super::super::Options, host: &str) -> std::sync::Arc<Registry> {
        struct Nobody;
        #[async_trait::async_trait]
        impl super::super::CredentialSource for Nobody {
            async fn credentials(&self, _: &str) -> Result<Credentials, StoreError> {
                Ok(Credentials::Anonymous)
            }
        }
        let registries = super::super::Registries::new(options, std::sync::Arc::new(Nobody));
        registries.registry(host).unwrap()
    }

    /// What an operation comes to that fails in one way for ever: its error, attempts after the first, and seconds.
    async fn fails_for_ever(takes: Duration, failure: impl Fn() -> Failure) -> (String, u64, u64) {
        let registry = registry(super::super::Options::default(), "r.example");
        registry.health.answered(Kind::Tags);
        let repository = "a/b".parse().unwrap();
        let operation = Operation { kind: Kind::HeadManifest, repository: &repository, subject: "1.0.0" };
        let (began, counts) = (Instant::now(), Counts::default());
        let attempt = || async {
            tokio::time::sleep(takes).await;
            Err::<(), _>(failure())
        };
        let error = registry.retry(&operation, &counts, attempt).await.unwrap_err();
        (error.to_string(), counts.snapshot().retries, began.elapsed().as_secs())
    }

    fn throttled(seconds: u64) -> Failure {
        let wait = headers(http::header::RETRY_AFTER, &seconds.to_string());
        Failure::answered(StatusCode::TOO_MANY_REQUESTS, &wait, b"", &[])
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_that_gets_no_answer_ends_within_two_minutes() {
        let (error, retries, seconds) = fails_for_ever(ANSWER_DEADLINE, || Failure::no_answer(ANSWER_DEADLINE)).await;
        assert!(error.contains("no answer within 30 s"), "{error}");
        assert!((2..=3).contains(&retries) && (75..=120).contains(&seconds), "{retries} {seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_that_fails_at_once_ends_within_thirty_seconds() {
        let failure = || Failure::answered(StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::new(), b"", &[]);
        let (error, retries, seconds) = fails_for_ever(Duration::ZERO, failure).await;
        assert!(error.contains("503") && retries == 6 && seconds < 30, "{error} {retries} {seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_what_comes_after_the_patience() {
        let asked = async |seconds: u64| fails_for_ever(Duration::ZERO, || throttled(seconds)).await;
        let (error, retries, seconds) = asked(3600).await;
        assert_eq!((retries, seconds), (0, 0), "{error}");
        assert!(error.contains("it asks to wait for 3600 s"), "{error}");
        assert_eq!(asked(40).await.1, 2);
        let (_, retries, seconds) = asked(2).await;
        assert_eq!((retries, seconds), (44, 88));
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_operation_failed_with_is_not_tried_again() {
        let source = || StoreError::new(Class::Transient, "cannot read blob x of `source.example/a`");
        let (error, retries, _) = fails_for_ever(Duration::ZERO, || Failure::passed_on(source())).await;
        assert_eq!((error.as_str(), retries), ("cannot read blob x of `source.example/a`", 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_never_answers_ends_all_that_waits_for_it() {
        let (lines, told) = std::sync::mpsc::channel();
        let progress = std::sync::Mutex::new(lines);
        let tell = move |line: &str| drop(progress.lock().unwrap().send(line.to_owned()));
        let options = super::super::Options { progress: std::sync::Arc::new(tell), ..Default::default() };
        let registry = registry(options, "r.example");
        let repository = "a/b".parse().unwrap();
        let (began, counts) = (Instant::now(), Counts::default());
        let looks: Vec<_> = (0..200)
            .map(|number| {
                let (registry, repository, counts) = (&registry, &repository, &counts);
                async move {
                    let subject = format!("1.0.{number}");
                    let operation = Operation { kind: Kind::HeadManifest, repository, subject: &subject };
                    let attempt = || async {
                        let _permit = registry.budget.permit().await;
                        tokio::time::sleep(ANSWER_DEADLINE).await;
                        Err::<(), _>(Failure::no_answer(ANSWER_DEADLINE))
                    };
                    registry.retry(&operation, counts, attempt).await.unwrap_err()
                }
            })
            .collect();
        let errors = futures::future::join_all(looks).await;
        assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
        let given_up = errors.iter().filter(|error| error.to_string().contains("the registry was given up")).count();
        assert!(given_up >= 190, "{given_up}");
        let lines: Vec<String> = told.try_iter().collect();
        assert!(lines[0].starts_with("waiting for `r.example`: manifest `1.0.") && lines.len() <= 10, "{lines:?}");
    }
}
