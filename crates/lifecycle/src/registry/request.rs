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
use super::{EcrHost, Registry, is_loopback};
use crate::http_client::{Body, full};
use crate::oci::{Class, RepositoryName, StoreError};
use crate::secret::Secret;

/// Until the head of an answer is there, for requests without a large body.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Between two pieces of a body.
pub(super) const PIECE_DEADLINE: Duration = Duration::from_secs(30);

/// Attempts after the first, for one operation.
const RETRIES: usize = 6;

/// The first wait and the longest, each then drawn from zero up to it.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// One operation with its retries takes no longer; an upload as much longer as its bytes may take.
pub(super) const OPERATION_DEADLINE: Duration = Duration::from_secs(600);

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

/// A request's body.
pub(super) enum Payload {
    Bytes(Bytes),
    Stream(Body, u64),
}

impl Call {
    pub(super) fn new(method: Method, url: Url) -> Self {
        let body = Payload::Bytes(Bytes::new());
        Self { method, url, accept: None, content_type: None, range_from: None, body, deadline: ANSWER_DEADLINE }
    }
}

/// An answer with its body read whole.
pub(super) struct Answer {
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

    /// Does an operation until it goes well, fails for good, or has been tried often enough.
    pub(super) async fn retry<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        operation: &Operation<'_>,
        counts: &Counts,
        attempt: impl FnMut() -> F,
    ) -> Result<T, StoreError> {
        self.retry_within(OPERATION_DEADLINE, operation, counts, attempt).await
    }

    /// The same with a deadline of its own, for what takes as long as its bytes.
    pub(super) async fn retry_within<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        deadline: Duration,
        operation: &Operation<'_>,
        counts: &Counts,
        attempt: impl FnMut() -> F,
    ) -> Result<T, StoreError> {
        self.attempt(deadline, counts, attempt).await.map_err(|failure| failure.explain(operation, &self.host))
    }

    /// The same for who decides by what the registry said.
    pub(super) async fn attempt<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        deadline: Duration,
        counts: &Counts,
        attempt: impl FnMut() -> F,
    ) -> Result<T, Failure> {
        let ends = Instant::now() + deadline;
        // What would be asked again after the deadline has failed now.
        let in_time = |failure: &Failure| failure.retry_after.is_none_or(|wait| Instant::now() + wait < ends);
        let (first, most) = BACKOFF;
        let backoff = ExponentialBuilder::default().with_min_delay(first).with_max_delay(most).with_max_times(RETRIES);
        let outcome = attempt
            .retry(backoff.build())
            .sleep(tokio::time::sleep)
            .when(|failure| failure.may_pass() && in_time(failure))
            // Full jitter, unless the registry said how long.
            .adjust(|failure, wait| {
                wait.map(|wait| failure.retry_after.unwrap_or_else(|| rand::random_range(Duration::ZERO..=wait)))
            })
            .notify(|failure, _| {
                counts.retry();
                if failure.class == Class::Throttled {
                    self.budget.throttled(failure.retry_after);
                }
            });
        match timeout(deadline, outcome).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(failure)) if failure.may_pass() && !in_time(&failure) => Err(failure.given_up()),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::new(Class::Transient, format!("not done within {} s", deadline.as_secs()))),
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
        let body = read(body, limit).await?;
        self.budget.succeeded();
        Ok(Answer { headers: parts.headers, body })
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
        let (again, body, length) = match body {
            Payload::Bytes(bytes) => (Some(bytes.clone()), full(bytes.clone()), bytes.len() as u64),
            // A stream can't be sent twice; the caller opens a new one.
            Payload::Stream(stream, length) => (None, stream, length),
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
            let response = self.answer(build(authorization, body)?, deadline).await?;
            let status = response.status();
            if status.is_success() || (redirects && status.is_redirection()) {
                return Ok(Ok(response));
            }
            let (parts, body) = response.into_parts();
            let body = read(body, ERROR_LIMIT).await.unwrap_or_default();
            let mut failure = Failure::answered(status, &parts.headers, &body);
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
            Err(_) => Err(Failure::new(Class::Transient, format!("no answer within {} s", deadline.as_secs()))),
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
    ) -> Result<Secret, Failure> {
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
                form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", token.expose());
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
            let mut failure = Failure::answered(parts.status, &parts.headers, &body);
            failure.had_credentials = !matches!(credentials, Credentials::Anonymous);
            return Err(failure);
        }
        let said: Token = serde_json::from_slice(&body)
            .map_err(|_| Failure::new(Class::Invalid, "the token service's answer is not a token"))?;
        let token = said.token.or(said.access_token).map(Secret::new);
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

/// Where a `Location` header points, seen from the request; never from https to http.
pub(super) fn location(headers: &HeaderMap, from: &Url) -> Result<Url, Failure> {
    let invalid = || Failure::new(Class::Invalid, "the registry names no place to go on");
    let value = headers.get(LOCATION).and_then(|value| value.to_str().ok()).ok_or_else(invalid)?;
    let to = from.join(value).map_err(|_| invalid())?;
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => Ok(to),
        _ => Err(Failure::new(Class::Denied, "the registry sends from https to an address without TLS")),
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
    fn locations_are_relative_and_never_lose_tls() {
        let from = Url::parse("https://r.example/v2/a/blobs/uploads/").unwrap();
        let to = |value| location(&headers(LOCATION, value), &from).map(|url| url.to_string()).map_err(|f| f.class);
        assert_eq!(to("/v2/a/blobs/uploads/1?x=y"), Ok("https://r.example/v2/a/blobs/uploads/1?x=y".into()));
        assert_eq!(to("https://other.example/u"), Ok("https://other.example/u".into()));
        assert_eq!(to("http://r.example/u"), Err(Class::Denied));
        assert_eq!(to("file:///etc/passwd"), Err(Class::Denied));
        assert_eq!(location(&HeaderMap::new(), &from).map_err(|f| f.class), Err(Class::Invalid));
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
        let basic = Credentials::Basic { user: "u".into(), password: Secret::new("p".to_owned()) };
        let refresh = Credentials::Refresh(Secret::new("r".to_owned()));
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

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_has_a_deadline_of_its_own() {
        let registry = registry(super::super::Options::default(), "r.example");
        let repository = "a/b".parse().unwrap();
        let operation = Operation { kind: Kind::Upload, repository: &repository, subject: "blob" };
        let hour = || async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Ok(())
        };
        let counts = Counts::default();
        assert_eq!(registry.retry(&operation, &counts, hour).await.unwrap_err().class, Class::Transient);
        assert!(registry.retry_within(Duration::from_secs(3601), &operation, &counts, hour).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_what_comes_after_the_deadline() {
        let registry = registry(super::super::Options::default(), "r.example");
        let repository = "a/b".parse().unwrap();
        let operation = Operation { kind: Kind::HeadManifest, repository: &repository, subject: "1.0.0" };
        let asked = async |seconds: u64| {
            let (began, counts) = (Instant::now(), Counts::default());
            let throttled = || async {
                let wait = headers(http::header::RETRY_AFTER, &seconds.to_string());
                Err::<(), _>(Failure::answered(StatusCode::TOO_MANY_REQUESTS, &wait, b""))
            };
            let error = registry.retry(&operation, &counts, throttled).await.unwrap_err();
            (error.to_string(), counts.snapshot().retries, began.elapsed().as_secs())
        };
        let (error, retries, seconds) = asked(3600).await;
        assert_eq!((retries, seconds), (0, 0), "{error}");
        assert!(error.contains("it asks to wait for 3600 s"), "{error}");
        // After the second wait there would be no time for a third.
        assert_eq!(asked(250).await.1, 2);
    }
}
