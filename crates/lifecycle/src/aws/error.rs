use std::error::Error as StdError;

use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::http_client::Refused;
use crate::oci::BoxError;

/// What went wrong at an AWS service.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The kind, by which callers decide.
    pub kind: Kind,
    /// One line that names action and resource.
    pub message: String,
    /// The remedy, where one is known.
    pub hint: Option<String>,
    #[source]
    source: Option<BoxError>,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There are no credentials, or they are not accepted.
    Credentials,
    /// An IAM permission is missing.
    Denied,
    /// What was asked for does not exist.
    NotFound,
    /// What was to be made exists.
    Exists,
    /// Everything else.
    Other,
}

impl Error {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the SDK says, in one line with the action and the resource. The SDK has retried already.
    pub(super) fn of<E, R>(action: &str, resource: &str, error: SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        let code = code(&error).unwrap_or_default();
        let said = error.as_service_error().and_then(|error| error.message()).map(one_line);
        let detail = said.as_ref().map(|said| format!(": {said}")).unwrap_or_default();
        match code.as_str() {
            "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" => {
                Self::new(Kind::Denied, format!("{action} on {resource} was denied{detail}"))
                    .hint(format!("allow {action} in the role's policy"))
            }
            "ExpiredTokenException"
            | "ExpiredToken"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch" => {
                Self::new(Kind::Credentials, format!("{action}: the AWS credentials were refused ({code}){detail}"))
                    .hint("configure them again: they may have expired, or belong to another partition")
            }
            code if code.ends_with("NotFoundException") || code.ends_with("NotFound") => {
                Self::new(Kind::NotFound, format!("{action}: {resource} does not exist{detail}"))
            }
            code if code.ends_with("AlreadyExistsException") => {
                Self::new(Kind::Exists, format!("{action}: {resource} exists{detail}"))
            }
            "" => Self::unanswered(action, error),
            code => Self::new(Kind::Other, format!("{action} on {resource} failed ({code}){detail}")),
        }
    }

    /// No answer of the service: no credentials, no connection, no time.
    fn unanswered<E, R>(action: &str, error: SdkError<E, R>) -> Self
    where
        E: StdError + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        if let Some(refused) = Refused::behind(&error) {
            return Self::new(Kind::Other, format!("{action}: {refused}")).hint(refused.hint);
        }
        let mut causes = Vec::new();
        let mut cause: Option<&dyn StdError> = Some(&error);
        while let Some(next) = cause {
            causes.push(next.to_string());
            cause = next.source();
        }
        let no_credentials = causes.iter().any(|cause| cause.contains("credentials") || cause.contains("provider"));
        let innermost = causes.last().map(|cause| one_line(cause)).unwrap_or_default();
        match no_credentials {
            true => Self::new(Kind::Credentials, format!("{action}: no AWS credentials ({innermost})")).hint(
                "run aws-actions/configure-aws-credentials before this step, with `permissions: id-token: write`",
            ),
            false => Self::new(Kind::Other, format!("{action}: no answer ({innermost})")),
        }
    }
}

/// The service's own code of an error: `ParameterNotFound`.
pub(super) fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Option<String> {
    error.as_service_error()?.code().map(str::to_owned)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(|c| !c.is_control()).take(400).collect()
}
