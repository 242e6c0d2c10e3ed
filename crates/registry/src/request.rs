//! A request with credentials, and its response.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RANGE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;
use url::Url;

use super::Registry;
use super::address::same_origin;
use super::auth::{Challenge, Scope};
use super::error::Failure;
use super::operation::{Counts, Operation, OperationKind};
use super::upload_progress::{PIECE_DEADLINE, UploadProgress};
use crate::http_client::{Body, full};
use oci::{ErrorKind, RepositoryName, StoreError};

/// The time limit for the head of a response, for requests without a large body.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// The time limit for a small response body, such as a manifest or a list.
const SMALL_ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// The maximum size of an error response, in bytes.
const ERROR_LIMIT: usize = 64 * 1024;

pub(super) const AGENT: &str = concat!("image-lifecycle/", env!("CARGO_PKG_VERSION"));

/// A request, without its credentials.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) accept: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) range_from: Option<u64>,
    pub(super) body: Payload,
    pub(super) deadline: Duration,
}

/// A request body.
pub(super) enum Payload {
    Bytes(Bytes),
    /// A stream of this many bytes, with its progress.
    Stream(Body, u64, Arc<UploadProgress>),
}

impl Call {
    pub(super) fn new(method: Method, url: Url) -> Self {
        let body = Payload::Bytes(Bytes::new());
        Self { method, url, accept: None, content_type: None, range_from: None, body, deadline: ANSWER_DEADLINE }
    }
}

/// A response with its complete body.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Registry {
    /// Returns a URL below `/v2/NAME/`.
    pub(super) fn url(&self, repository: &RepositoryName, rest: &str) -> Url {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}/v2/{repository}/{rest}", self.endpoint.path().trim_end_matches('/')));
        url
    }

    /// Performs an operation with a small response, with retries.
    pub(super) async fn fetch(
        &self,
        operation: &Operation<'_>,
        counts: &Counts,
        limit: usize,
        call: impl Fn() -> Call,
    ) -> Result<Answer, StoreError> {
        self.retry(operation, counts, || self.fetch_once(operation, counts, limit, call())).await
    }

    /// Performs an operation with a small response, without retries.
    pub(super) async fn fetch_once(
        &self,
        operation: &Operation<'_>,
        counts: &Counts,
        limit: usize,
        call: Call,
    ) -> Result<Answer, Failure> {
        let _permit = self.budget.permit(operation.kind).await;
        let (method, url) = (call.method.clone(), call.url.clone());
        let response = self.send(operation, counts, call).await?;
        let (parts, body) = response.into_parts();
        let body = timeout(SMALL_ANSWER_DEADLINE, read(body, limit)).await;
        let body = body.unwrap_or_else(|_| Err(Failure::no_answer(SMALL_ANSWER_DEADLINE)));
        let body = body.map_err(|failure| failure.of_request(&method, &url, &self.authenticator.secrets(None)))?;
        self.budget.succeeded();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    /// Sends a request with credentials, and repeats it if the credentials had to be renewed. Returns a success, or a
    /// redirect of a blob.
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
            // A stream cannot be sent twice, so the caller opens a new one.
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
        let redirects = matches!(operation.kind, OperationKind::GetBlob | OperationKind::GetRedirected);
        let attempt = async |authorization: Option<&HeaderValue>, body: Body| {
            counts.request(operation.kind);
            let request = build(authorization, body)?;
            let response = match &progress {
                Some(progress) => progress.watch(self.http.send(request), deadline).await,
                None => self.answer(request, deadline).await,
            };
            let secrets = || self.authenticator.secrets(authorization);
            let response = response.map_err(|failure| failure.of_request(&method, &url, &secrets()))?;
            let status = response.status();
            if status.is_success() || (redirects && status.is_redirection()) {
                self.health.answered(operation.kind);
                return Ok(Ok(response));
            }
            let (parts, body) = response.into_parts();
            let body = read(body, ERROR_LIMIT).await.unwrap_or_default();
            let mut failure = Failure::answered(status, &parts.headers, &body, &secrets());
            if !failure.is_retryable() {
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
            (Some(_), None) => Err(Failure::new(ErrorKind::Transient, "credentials were renewed")),
            (None, _) => Err(failure),
        }
    }

    pub(super) async fn answer(
        &self,
        request: Request<Body>,
        deadline: Duration,
    ) -> Result<Response<Incoming>, Failure> {
        match timeout(deadline, self.http.send(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Failure::unreachable(error)),
            Err(_) => Err(Failure::no_answer(deadline)),
        }
    }
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn read(mut body: Incoming, limit: usize) -> Result<Bytes, Failure> {
    let mut bytes = BytesMut::new();
    loop {
        let frame = match timeout(PIECE_DEADLINE, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(Failure::unreachable(error.into())),
            Ok(None) => return Ok(bytes.freeze()),
            Err(_) => return Err(Failure::stopped_answering()),
        };
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > limit {
                return Err(Failure::new(ErrorKind::Invalid, format!("the answer is over the limit of {limit} bytes")));
            }
            bytes.extend_from_slice(&data);
        }
    }
}

/// Returns whether new credentials may help. ECR also reports an expired token with a 403, whose message is missing
/// in the response to a HEAD.
fn may_be_expired(failure: &Failure, status: StatusCode, method: &Method) -> bool {
    failure.kind == ErrorKind::Authentication || (status == StatusCode::FORBIDDEN && method == Method::HEAD)
}
