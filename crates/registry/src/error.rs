use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use url::Url;

use super::host::EcrHost;
use super::operation::{Operation, OperationKind};
use crate::http_client::Refused;
use oci::{BoxError, ErrorKind, StoreError};
use secrecy::{ExposeSecret, SecretString};

/// The maximum length of a registry's message that is passed on, in characters.
const DETAIL_LIMIT: usize = 300;

/// A failed attempt, without the operation that it was part of.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    /// The request that failed, if it is only a part of the operation.
    pub(super) at: Option<OperationKind>,
    /// The registry's own error code, such as `NAME_UNKNOWN`.
    pub(super) code: Option<String>,
    /// The registry's own message, sanitized.
    pub(super) detail: Option<String>,
    /// The request, if it was not answered, or not completely.
    pub(super) unanswered: Option<Box<Unanswered>>,
    /// How long the registry asked to wait.
    pub(super) retry_after: Option<Duration>,
    pub(super) source: Option<BoxError>,
    /// Whether credentials were sent.
    pub(super) had_credentials: bool,
    /// Whether another attempt is pointless although the kind suggests one.
    pub(super) is_final: bool,
    /// Whether the message comes from something other than a registry, which does not know the path.
    pub(super) is_foreign: bool,
    /// Whether a write was answered without proof of success and the content is missing. This allows a few more
    /// attempts, whatever the kind.
    pub(super) is_unproved: bool,
}

/// A request without an answer, or without a complete one.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    /// The method and the URL without its query, if they are known.
    request: Option<(Method, String)>,
}

/// Why no more requests are sent to a registry.
#[derive(Debug, Clone)]
pub(super) struct GivenUp {
    /// The reason of the last failed attempt.
    pub(super) reason: String,
    /// The number of consecutive failed attempts.
    pub(super) failures: usize,
}

impl Failure {
    fn of(kind: ErrorKind) -> Self {
        Self {
            kind,
            at: None,
            code: None,
            detail: None,
            unanswered: None,
            retry_after: None,
            source: None,
            had_credentials: false,
            is_final: false,
            is_foreign: false,
            is_unproved: false,
        }
    }

    pub(super) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::of(kind) }
    }

    /// Returns the failure for a connection, TLS or proxy error.
    pub(super) fn unreachable(source: BoxError) -> Self {
        Self { source: Some(source), ..Self::unanswered() }
    }

    /// Returns the failure for a response that did not arrive in time.
    pub(super) fn no_answer(deadline: Duration) -> Self {
        Self { detail: Some(format!("no answer within {} s", deadline.as_secs())), ..Self::unanswered() }
    }

    /// Returns the failure for a registry that stopped reading the request's body.
    pub(super) fn stopped_reading(deadline: Duration) -> Self {
        Self { detail: Some(format!("it took no more bytes for {} s", deadline.as_secs())), ..Self::unanswered() }
    }

    /// Returns the failure for a response whose body stopped.
    pub(super) fn stopped_answering() -> Self {
        Self { detail: Some("the answer stopped in the middle".to_owned()), ..Self::unanswered() }
    }

    fn unanswered() -> Self {
        Self { unanswered: Some(Box::default()), ..Self::of(ErrorKind::Transient) }
    }

    /// Adds the method and the URL to the failure of a request that was not answered. A URL may come from a registry, which
    /// may repeat what it was sent, so `secrets` are removed.
    pub(super) fn of_request(mut self, method: &Method, url: &Url, secrets: &[SecretString]) -> Self {
        if let Some(unanswered) = &mut self.unanswered {
            let url = sanitized(&redacted(&shown(url), secrets));
            unanswered.request.get_or_insert_with(|| (method.clone(), url));
        }
        self
    }

    /// Passes on the error of another operation, such as reading the source of an upload. It has been retried there,
    /// so that retrying here would multiply the attempts.
    pub(super) fn passed_on(error: StoreError) -> Self {
        let kind = error.kind;
        Self { source: Some(error.into()), is_final: true, ..Self::of(kind) }
    }

    /// Returns the failure for a registry that has been given up.
    pub(super) fn host_given_up(given_up: GivenUp) -> Self {
        let reason = given_up.reason;
        let detail = match given_up.failures {
            0 | 1 => format!("the registry was given up: {reason}"),
            several => format!("the registry was given up after {several} failures in a row, the last one: {reason}"),
        };
        Self { is_final: true, ..Self::new(ErrorKind::Transient, detail) }
    }

    /// Returns a short reason for a progress line, in the registry's words if there are any.
    pub(super) fn reason(&self) -> String {
        match (&self.detail, &self.source) {
            (Some(detail), _) => detail.clone(),
            (None, Some(source)) => innermost_cause(source.as_ref()).to_string(),
            (None, None) => "no answer".to_owned(),
        }
    }

    /// Returns the reason with the request, if that was not answered.
    pub(super) fn reason_with_request(&self) -> String {
        self.reason() + &self.request_suffix()
    }

    fn request(&self) -> Option<&(Method, String)> {
        self.unanswered.as_ref()?.request.as_ref()
    }

    /// Formats the request that was not answered as the end of a reason.
    fn request_suffix(&self) -> String {
        self.request().map(|(method, url)| format!(": {method} {url}")).unwrap_or_default()
    }

    /// Returns the failure for credentials that could not be obtained, whatever they were for.
    pub(super) fn no_credentials(error: StoreError) -> Self {
        Self { at: Some(OperationKind::Token), ..Self::passed_on(error) }
    }

    /// Returns the failure for an unsuccessful response.
    ///
    /// A registry may repeat what it was sent, so `secrets` are removed from its message.
    pub(super) fn answered(status: StatusCode, headers: &HeaderMap, body: &[u8], secrets: &[SecretString]) -> Self {
        let said = serde_json::from_slice::<Errors>(body).ok();
        let is_foreign = said.is_none() && !body.trim_ascii().is_empty();
        let said = said.and_then(|errors| errors.errors.into_iter().next());
        let (code, message) = said.map_or((None, None), |said| (said.code, said.message));
        let detail = match message.filter(|message| !message.is_empty()) {
            Some(message) => format!("{} {}", status.as_u16(), sanitized(&redacted(&message, secrets))),
            None => status.to_string(),
        };
        let kind = classify(status, code.as_deref(), &detail);
        let retry_after =
            headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now()));
        let code = code.map(|code| sanitized(&redacted(&code, secrets)));
        Self { code, retry_after, is_foreign, ..Self::new(kind, detail) }
    }

    /// Returns whether the same request may succeed later.
    pub(super) fn is_retryable(&self) -> bool {
        let passes = self.is_unproved || matches!(self.kind, ErrorKind::Throttled | ErrorKind::Transient);
        passes && !self.is_final && self.refused().is_none()
    }

    /// Marks the failure as an answer to a write that proves nothing.
    pub(super) fn unproved(self) -> Self {
        Self { is_unproved: true, ..self }
    }

    /// Returns whether the repository itself does not exist.
    pub(super) fn is_of_repository(&self) -> bool {
        self.kind == ErrorKind::NotFound && self.code.as_deref() == Some("NAME_UNKNOWN")
    }

    /// Marks the failure as final because the registry asks for a longer wait than is allowed.
    pub(super) fn given_up(mut self) -> Self {
        if let Some(wait) = self.retry_after {
            let asks = format!("it asks to wait for {} s", wait.as_secs());
            self.detail = Some(self.detail.map_or_else(|| asks.clone(), |detail| format!("{detail}; {asks}")));
        }
        self
    }

    /// Returns the permanent connection failure behind this one, if there is any.
    fn refused(&self) -> Option<&Refused> {
        Refused::behind(self.source.as_deref()?)
    }

    /// Converts the failure into a one-line message and a hint.
    pub(super) fn explain(mut self, operation: &Operation<'_>, host: &str) -> StoreError {
        // The error of another operation, such as the source or the credentials, already names what failed.
        match self.source.take().map(|source| source.downcast::<StoreError>()) {
            Some(Ok(error)) => return *error,
            Some(Err(source)) => self.source = Some(source),
            None => {}
        }
        if let Some(refused) = self.refused() {
            let to = self.request().map_or(host, |(_, url)| url);
            let error = StoreError::new(self.kind, format!("cannot reach `{to}`")).hint(refused.hint);
            return error.because(refused.clone());
        }
        let ecr = EcrHost::parse(host);
        let operation = Operation { kind: self.at.unwrap_or(operation.kind), ..*operation };
        let repository = operation.repository;
        let what = operation.what();
        let request = self.request_suffix();
        let detail = self.detail.as_deref().map(|detail| format!(" ({detail}{request})")).unwrap_or_default();
        let place = ecr.as_ref().map_or_else(|| host.to_owned(), |ecr| format!("{}/{}", ecr.account, ecr.region));
        let repository_missing = self.is_of_repository();
        let (message, hint) = match (self.kind, &ecr) {
            (ErrorKind::NotFound, Some(ecr)) if repository_missing => (
                format!("repository `{repository}` does not exist in {place}"),
                Some(format!(
                    "set `create-repositories: missing`, or create it: aws ecr create-repository --region {} --repository-name {repository}",
                    ecr.region
                )),
            ),
            (ErrorKind::NotFound, None) if repository_missing => {
                (format!("repository `{repository}` does not exist in {place}"), None)
            }
            (ErrorKind::NotFound, _) if operation.kind.is_write() => (
                format!("`{host}/{repository}` did not accept {what}{detail}"),
                Some("it answers that something is missing: the repository, or content that the manifest refers to".to_owned()),
            ),
            (ErrorKind::NotFound, _) => (format!("{what} does not exist in `{host}/{repository}`{detail}"), None),
            (ErrorKind::Denied, _) if operation.kind == OperationKind::Token && self.code.is_none() && !self.had_credentials => {
                (format!("the token service of `{host}` issued no token for `{repository}`{detail}"), None)
            }
            (ErrorKind::Denied | ErrorKind::Authentication, _) if operation.kind == OperationKind::Token && self.had_credentials => (
                format!("the token service of `{host}` refused the credentials for `{repository}`{detail}"),
                Some(format!("those of Docker's configuration are wrong, have expired or may not do this: docker login {host}")),
            ),
            (ErrorKind::Denied, Some(ecr)) if operation.kind == OperationKind::PutManifest && self.code.is_none() => (
                format!("ecr:PutImage on {} was refused{detail}", ecr.repository_arn(repository.as_str())),
                Some("the role's or the repository's policy does not allow ecr:PutImage, or the repository is full".to_owned()),
            ),
            (ErrorKind::Denied, Some(ecr)) => (
                format!("{} on {} was denied{detail}", operation.kind.iam_action(), ecr.repository_arn(repository.as_str())),
                Some(format!("allow {} in the role's policy and in the repository's", operation.kind.iam_action())),
            ),
            (ErrorKind::Denied, None) => (format!("`{host}` denied to {} {what} of `{repository}`{detail}", operation.verb()), None),
            (ErrorKind::Authentication, Some(_)) => (
                format!("`{host}` refused the token{detail}"),
                Some("the token is of ecr:GetAuthorizationToken in that account or one that the repository's policy names".to_owned()),
            ),
            (ErrorKind::Authentication, None) if self.had_credentials => (
                format!("`{host}` rejected the credentials{detail}"),
                Some(format!("those of Docker's configuration are wrong or have expired: docker login {host}")),
            ),
            (ErrorKind::Authentication, None) => {
                (format!("`{host}` asks for credentials{detail}"), Some(format!("log in first: docker login {host}")))
            }
            (ErrorKind::Transient, _) if self.detail.is_none() => {
                let from = match self.request() {
                    Some((method, url)) => format!("`{url}` ({method})"),
                    None => format!("`{host}`"),
                };
                (format!("cannot {} {what} of `{host}/{repository}`: no answer from {from}", operation.verb()), None)
            }
            _ => (format!("cannot {} {what} of `{host}/{repository}`{detail}", operation.verb()), None),
        };
        StoreError { kind: self.kind, message, hint, source: self.source }
    }
}

/// An error body of the distribution specification.
#[derive(Deserialize)]
struct Errors {
    errors: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    code: Option<String>,
    message: Option<String>,
}

/// Classifies a failure. Only a 404 counts as not found. The body of a server error is ignored.
fn classify(status: StatusCode, code: Option<&str>, detail: &str) -> ErrorKind {
    match (status.as_u16(), code) {
        (429, _) | (400..=499, Some("TOOMANYREQUESTS")) => ErrorKind::Throttled,
        (400..=499, Some("DIGEST_INVALID" | "SIZE_INVALID")) => ErrorKind::Integrity,
        (400, Some("TAG_INVALID")) => ErrorKind::Conflict,
        (400, _) if detail.contains("immutable") => ErrorKind::Conflict,
        (401, _) => ErrorKind::Authentication,
        // ECR's message: "Your authorization token has expired. Reauthenticate and try again."
        (403, _) if detail.contains("authorization token has expired") => ErrorKind::Authentication,
        (403, _) => ErrorKind::Denied,
        (404, _) => ErrorKind::NotFound,
        (405 | 410 | 415 | 501, _) => ErrorKind::Unsupported,
        (409 | 412, _) => ErrorKind::Conflict,
        (408, _) | (500.., _) => ErrorKind::Transient,
        _ => ErrorKind::Invalid,
    }
}

/// Parses a `Retry-After` in seconds or as an HTTP date, and caps it at an hour.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    const MOST: Duration = Duration::from_secs(3600);
    let wait = match value.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value.trim()).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(MOST))
}

/// Returns the innermost cause, which is the most specific one.
fn innermost_cause<'e>(error: &'e (dyn std::error::Error + 'static)) -> &'e (dyn std::error::Error + 'static) {
    let mut deepest = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest
}

/// The minimum length, in characters, of a word that is redacted as a part of a secret. Shorter words reveal nothing.
const REDACTED_LENGTH: usize = 8;

/// Removes words that are a secret, contain one, or are a part of one.
fn redacted(text: &str, secrets: &[SecretString]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().map(ExposeSecret::expose_secret).filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "***");
    }
    let of_token = |c: char| c.is_ascii_alphanumeric() || "+/=-_.~".contains(c);
    let mut shown = String::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let end = rest.find(|c| !of_token(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let gives_away = |secret: &SecretString| word.len() >= REDACTED_LENGTH && secret.expose_secret().contains(word);
        shown.push_str(if secrets.iter().any(gives_away) { "***" } else { word });
        let next = after.find(of_token).unwrap_or(after.len());
        shown.push_str(&after[..next]);
        rest = &after[next..];
    }
    shown
}

/// Formats a URL without user, password and query.
fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// Returns a registry's message on one line, truncated and without control characters.
fn sanitized(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|w| !w.is_empty()).collect();
    words.join(" ").chars().take(DETAIL_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &str) -> Failure {
        Failure::answered(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes(), &[])
    }

    #[test]
    fn classes() {
        let error = |code: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"said"}}]}}"#);
        for (status, code, kind) in [
            (401, "UNAUTHORIZED", ErrorKind::Authentication),
            (403, "DENIED", ErrorKind::Denied),
            (404, "NAME_UNKNOWN", ErrorKind::NotFound),
            (400, "TAG_INVALID", ErrorKind::Conflict),
            (400, "DIGEST_INVALID", ErrorKind::Integrity),
            (400, "UNSUPPORTED", ErrorKind::Invalid),
            (405, "UNSUPPORTED", ErrorKind::Unsupported),
            (429, "TOOMANYREQUESTS", ErrorKind::Throttled),
            (503, "UNAVAILABLE", ErrorKind::Transient),
        ] {
            assert_eq!(answered(status, &error(code)).kind, kind, "{status} {code}");
        }
        assert_eq!(answered(502, "<html>").kind, ErrorKind::Transient);
        let expired = r#"{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}"#;
        assert_eq!(answered(403, expired).kind, ErrorKind::Authentication);
    }

    #[test]
    fn absent_is_only_what_the_specification_calls_so() {
        for (status, code) in [(500, "NAME_UNKNOWN"), (502, "BLOB_UNKNOWN"), (400, "MANIFEST_UNKNOWN"), (410, "GONE")] {
            let body = format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#);
            assert_ne!(answered(status, &body).kind, ErrorKind::NotFound, "{status} {code}");
        }
        assert_eq!(answered(404, "<html>").kind, ErrorKind::NotFound);
    }

    #[test]
    fn a_registry_cannot_show_what_it_was_sent() {
        let secrets = [SecretString::from("hunter2"), SecretString::from("QVdTOmEtbG9uZy10b2tlbg==")];
        let redacted = |text: &str| redacted(text, &secrets);
        assert_eq!(redacted("got `Basic QVdTOmEtbG9uZy10b2tlbg==`, sorry"), "got `Basic ***`, sorry");
        assert_eq!(redacted("got QVdTOmEtbG9uZy10"), "got ***");
        assert_eq!(redacted("p=hunter2&x"), "p=***&x");
        assert_eq!(redacted("the manifest is unknown"), "the manifest is unknown");
    }

    #[test]
    fn waits_as_long_as_it_is_told() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:30 GMT").unwrap();
        assert_eq!(retry_after("4", now), Some(Duration::from_secs(4)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("999999999", now), Some(Duration::from_secs(3600)));
        assert_eq!(retry_after("soon", now), None);
    }

    #[test]
    fn a_denied_action_is_named_and_hostile_words_are_tamed() {
        let body = r#"{"errors":[{"code":"DENIED","message":"no\n::error::x\u001b[31m"}]}"#;
        let repository = "shop/api".parse().unwrap();
        let operation = Operation { kind: OperationKind::StartUpload, repository: &repository, subject: "blob" };
        let error = answered(403, body).explain(&operation, "111122223333.dkr.ecr.eu-west-1.amazonaws.com");
        insta::assert_snapshot!(error.message, @"ecr:InitiateLayerUpload on arn:aws:ecr:eu-west-1:111122223333:repository/shop/api was denied (403 no ::error::x [31m)");
    }

    #[test]
    fn a_request_without_an_answer_is_named_without_its_query_and_secrets() {
        let repository = "shop/api".parse().unwrap();
        let operation = Operation { kind: OperationKind::Upload, repository: &repository, subject: "sha256:0" };
        let url =
            Url::parse("http://me:word@localhost:5000/v2/shop/api/blobs/uploads/a-long-token?state=hidden").unwrap();
        let secrets = [SecretString::from("a-long-token")];
        let explained = |failure: Failure| {
            let failure = failure.of_request(&Method::PUT, &url, &secrets);
            // The first request is the one that failed.
            let other = Url::parse("https://other.example/").unwrap();
            failure.of_request(&Method::GET, &other, &[]).explain(&operation, "r.example").message
        };
        let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
        insta::assert_snapshot!(explained(Failure::unreachable(refused())), @"cannot write blob `sha256:0` of `r.example/shop/api`: no answer from `http://localhost:5000/v2/shop/api/blobs/uploads/***` (PUT)");
        insta::assert_snapshot!(explained(Failure::no_answer(Duration::from_secs(30))), @"cannot write blob `sha256:0` of `r.example/shop/api` (no answer within 30 s: PUT http://localhost:5000/v2/shop/api/blobs/uploads/***)");
        insta::assert_snapshot!(explained(Failure::stopped_reading(Duration::from_secs(60))), @"cannot write blob `sha256:0` of `r.example/shop/api` (it took no more bytes for 60 s: PUT http://localhost:5000/v2/shop/api/blobs/uploads/***)");
        insta::assert_snapshot!(explained(Failure::stopped_answering()), @"cannot write blob `sha256:0` of `r.example/shop/api` (the answer stopped in the middle: PUT http://localhost:5000/v2/shop/api/blobs/uploads/***)");
        let unreachable = Failure::unreachable(refused()).of_request(&Method::PUT, &url, &secrets);
        let given_up = GivenUp { reason: unreachable.reason_with_request(), failures: 1 };
        insta::assert_snapshot!(explained(Failure::host_given_up(given_up)), @"cannot write blob `sha256:0` of `r.example/shop/api` (the registry was given up: connection refused: PUT http://localhost:5000/v2/shop/api/blobs/uploads/***)");
        // What was answered says itself what is wrong.
        insta::assert_snapshot!(explained(answered(503, "")), @"cannot write blob `sha256:0` of `r.example/shop/api` (503 Service Unavailable)");
    }

    #[test]
    fn a_missing_repository_says_how_to_make_it() {
        let body = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"The repository does not exist"}]}"#;
        let repository = "shop/api".parse().unwrap();
        let operation = Operation { kind: OperationKind::StartUpload, repository: &repository, subject: "blob" };
        let error = answered(404, body).explain(&operation, "111122223333.dkr.ecr.eu-west-1.amazonaws.com");
        insta::assert_snapshot!(error.message, @"repository `shop/api` does not exist in 111122223333/eu-west-1");
        insta::assert_snapshot!(error.hint.unwrap(), @"set `create-repositories: missing`, or create it: aws ecr create-repository --region eu-west-1 --repository-name shop/api");
    }
}
