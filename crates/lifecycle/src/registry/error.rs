use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::host::EcrHost;
use super::operation::{Kind, Operation};
use crate::http_client::Refused;
use crate::oci::{BoxError, Class, StoreError};

/// The longest text of a registry that is passed on, in characters.
const DETAIL_LIMIT: usize = 300;

/// One attempt that failed, before anybody says what it was for.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) class: Class,
    /// The request that failed, where it is only a part of the operation.
    pub(super) at: Option<Kind>,
    /// The registry's own code: `NAME_UNKNOWN`.
    pub(super) code: Option<String>,
    /// The registry's own words, made safe to show.
    pub(super) detail: Option<String>,
    /// How long the registry asked to wait.
    pub(super) retry_after: Option<Duration>,
    pub(super) source: Option<BoxError>,
    /// Credentials were sent along.
    pub(super) had_credentials: bool,
}

impl Failure {
    pub(super) fn new(class: Class, detail: impl Into<String>) -> Self {
        Self {
            class,
            at: None,
            code: None,
            detail: Some(detail.into()),
            retry_after: None,
            source: None,
            had_credentials: false,
        }
    }

    /// No answer: the connection, TLS, a proxy or a deadline.
    pub(super) fn unreachable(source: BoxError) -> Self {
        Self {
            class: Class::Transient,
            at: None,
            code: None,
            detail: None,
            retry_after: None,
            source: Some(source),
            had_credentials: false,
        }
    }

    /// An error that a stream of ours ended with.
    pub(super) fn passed_on(error: StoreError) -> Self {
        Self {
            class: error.class,
            at: None,
            code: None,
            detail: None,
            retry_after: None,
            source: Some(error.into()),
            had_credentials: false,
        }
    }

    /// No credentials: that is all there is to say, whatever they were for.
    pub(super) fn no_credentials(error: StoreError) -> Self {
        Self { at: Some(Kind::Token), ..Self::passed_on(error) }
    }

    /// An answer that is not a success.
    pub(super) fn answered(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let said = serde_json::from_slice::<Errors>(body).ok().and_then(|errors| errors.errors.into_iter().next());
        let (code, message) = said.map_or((None, None), |said| (said.code, said.message));
        let detail = match message.filter(|message| !message.is_empty()) {
            Some(message) => format!("{} {}", status.as_u16(), safe(&message)),
            None => status.to_string(),
        };
        let class = classify(status, code.as_deref(), &detail);
        let retry_after =
            headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now()));
        Self {
            class,
            at: None,
            code: code.map(|code| safe(&code)),
            detail: Some(detail),
            retry_after,
            source: None,
            had_credentials: false,
        }
    }

    /// Whether the same request may go well later.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self.class, Class::Throttled | Class::Transient) && self.refused().is_none()
    }

    /// Whether it is the repository that does not exist.
    pub(super) fn is_of_repository(&self) -> bool {
        self.class == Class::NotFound && self.code.as_deref() == Some("NAME_UNKNOWN")
    }

    /// The same, where nobody waits for as long as the registry asks.
    pub(super) fn given_up(mut self) -> Self {
        if let Some(wait) = self.retry_after {
            let asks = format!("it asks to wait for {} s", wait.as_secs());
            self.detail = Some(self.detail.map_or_else(|| asks.clone(), |detail| format!("{detail}; {asks}")));
        }
        self
    }

    /// The connection was refused for good, in this request or in what it passes on.
    fn refused(&self) -> Option<&Refused> {
        Refused::behind(self.source.as_deref()?)
    }

    /// What is told of it: the one line that names what failed, and the remedy.
    pub(super) fn explain(mut self, operation: &Operation<'_>, host: &str) -> StoreError {
        if self.at == Some(Kind::Token) {
            match self.source.take().map(|source| source.downcast::<StoreError>()) {
                Some(Ok(error)) => return *error,
                Some(Err(source)) => self.source = Some(source),
                None => {}
            }
        }
        let passed_on = self.source.as_ref().is_some_and(|source| source.is::<StoreError>());
        if let Some(refused) = self.refused().filter(|_| !passed_on) {
            let error = StoreError::new(self.class, format!("cannot reach `{host}`")).hint(refused.hint);
            return error.because(refused.clone());
        }
        let ecr = EcrHost::parse(host);
        let operation = Operation { kind: self.at.unwrap_or(operation.kind), ..*operation };
        let repository = operation.repository;
        let what = operation.what();
        let detail = self.detail.as_deref().map(|detail| format!(" ({detail})")).unwrap_or_default();
        let place = ecr.as_ref().map_or_else(|| host.to_owned(), |ecr| format!("{}/{}", ecr.account, ecr.region));
        let repository_missing = self.is_of_repository();
        let (message, hint) = match (self.class, &ecr) {
            (Class::NotFound, Some(ecr)) if repository_missing => (
                format!("repository `{repository}` does not exist in {place}"),
                Some(format!(
                    "set `create-repositories: missing`, or create it: aws ecr create-repository --region {} --repository-name {repository}",
                    ecr.region
                )),
            ),
            (Class::NotFound, None) if repository_missing => {
                (format!("repository `{repository}` does not exist in {place}"), None)
            }
            (Class::NotFound, _) => (format!("{what} does not exist in `{host}/{repository}`{detail}"), None),
            (Class::Denied, Some(ecr)) if operation.kind == Kind::PutManifest && self.code.is_none() => (
                format!("ecr:PutImage on {} was refused{detail}", ecr.repository_arn(repository.as_str())),
                Some("the role or the repository's policy lacks ecr:PutImage, or the repository is full".to_owned()),
            ),
            (Class::Denied, Some(ecr)) => (
                format!("{} on {} was denied{detail}", operation.kind.iam_action(), ecr.repository_arn(repository.as_str())),
                Some(format!("allow {} in the role's policy and in the repository's", operation.kind.iam_action())),
            ),
            (Class::Denied, None) => (format!("`{host}` denied to {} {what} of `{repository}`{detail}", operation.verb()), None),
            (Class::Authentication, Some(_)) => (
                format!("`{host}` refused the token{detail}"),
                Some("the token is of ecr:GetAuthorizationToken in that account or one that the repository's policy names".to_owned()),
            ),
            (Class::Authentication, None) if self.had_credentials => (
                format!("`{host}` rejected the credentials{detail}"),
                Some(format!("those of Docker's configuration are wrong or have expired: docker login {host}")),
            ),
            (Class::Authentication, None) => {
                (format!("`{host}` asks for credentials{detail}"), Some(format!("log in first: docker login {host}")))
            }
            (Class::Transient, _) if passed_on => (format!("cannot {} {what} of `{repository}`", operation.verb()), None),
            (Class::Transient, _) if self.detail.is_none() => (format!("cannot {} {what}: no answer from `{host}`", operation.verb()), None),
            (Class::Integrity, _) if self.source.is_some() => (format!("cannot {} {what} of `{repository}`", operation.verb()), None),
            _ => (format!("cannot {} {what} of `{host}/{repository}`{detail}", operation.verb()), None),
        };
        StoreError { class: self.class, message, hint, source: self.source }
    }
}

/// The body that the distribution specification gives an error.
#[derive(Deserialize)]
struct Errors {
    errors: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    code: Option<String>,
    message: Option<String>,
}

fn classify(status: StatusCode, code: Option<&str>, detail: &str) -> Class {
    match (status.as_u16(), code) {
        (_, Some("TOOMANYREQUESTS")) => Class::Throttled,
        (_, Some("NAME_UNKNOWN" | "MANIFEST_UNKNOWN" | "BLOB_UNKNOWN")) => Class::NotFound,
        (_, Some("DIGEST_INVALID" | "SIZE_INVALID")) => Class::Integrity,
        (400, Some("TAG_INVALID")) => Class::Conflict,
        (400, _) if detail.contains("immutable") => Class::Conflict,
        (401, _) => Class::Authentication,
        // ECR's words: "Your authorization token has expired. Reauthenticate and try again."
        (403, _) if detail.contains("authorization token has expired") => Class::Authentication,
        (403, _) => Class::Denied,
        (404 | 410, _) => Class::NotFound,
        (405 | 415 | 501, _) => Class::Unsupported,
        (409 | 412, _) => Class::Conflict,
        (429, _) => Class::Throttled,
        (408, _) | (500.., _) => Class::Transient,
        _ => Class::Invalid,
    }
}

/// Seconds, or an HTTP date; at most an hour is believed.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    const MOST: Duration = Duration::from_secs(3600);
    let wait = match value.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value.trim()).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(MOST))
}

/// A registry's words on one line, without control characters and not too long.
fn safe(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|w| !w.is_empty()).collect();
    words.join(" ").chars().take(DETAIL_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &str) -> Failure {
        Failure::answered(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn classes() {
        let error = |code: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"said"}}]}}"#);
        for (status, code, class) in [
            (401, "UNAUTHORIZED", Class::Authentication),
            (403, "DENIED", Class::Denied),
            (404, "NAME_UNKNOWN", Class::NotFound),
            (400, "TAG_INVALID", Class::Conflict),
            (400, "DIGEST_INVALID", Class::Integrity),
            (400, "UNSUPPORTED", Class::Invalid),
            (405, "UNSUPPORTED", Class::Unsupported),
            (429, "TOOMANYREQUESTS", Class::Throttled),
            (503, "UNAVAILABLE", Class::Transient),
        ] {
            assert_eq!(answered(status, &error(code)).class, class, "{status} {code}");
        }
        assert_eq!(answered(502, "<html>").class, Class::Transient);
        let expired = r#"{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}"#;
        assert_eq!(answered(403, expired).class, Class::Authentication);
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
        let operation = Operation { kind: Kind::StartUpload, repository: &repository, subject: "blob" };
        let error = answered(403, body).explain(&operation, "111122223333.dkr.ecr.eu-west-1.amazonaws.com");
        insta::assert_snapshot!(error.message, @"ecr:InitiateLayerUpload on arn:aws:ecr:eu-west-1:111122223333:repository/shop/api was denied (403 no ::error::x [31m)");
    }

    #[test]
    fn a_missing_repository_says_how_to_make_it() {
        let body = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"The repository does not exist"}]}"#;
        let repository = "shop/api".parse().unwrap();
        let operation = Operation { kind: Kind::StartUpload, repository: &repository, subject: "blob" };
        let error = answered(404, body).explain(&operation, "111122223333.dkr.ecr.eu-west-1.amazonaws.com");
        insta::assert_snapshot!(error.message, @"repository `shop/api` does not exist in 111122223333/eu-west-1");
        insta::assert_snapshot!(error.hint.unwrap(), @"set `create-repositories: missing`, or create it: aws ecr create-repository --region eu-west-1 --repository-name shop/api");
    }
}
