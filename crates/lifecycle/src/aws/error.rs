use std::error::Error as StdError;

use aws_config::imds::client::error::ImdsError;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::connector::NoConnection;
use crate::{Explain, setup, shortened};
use oci::BoxError;
use registry::http_client::Refused;
use runner_protocol::CiSystem;

/// A failed call of an AWS service.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The kind of failure, for callers to match on.
    pub kind: AwsErrorKind,
    /// One line that names the action and the resource.
    pub message: String,
    /// What to do about it, if known.
    pub hint: Option<String>,
    /// The service's code for the error, if it answered with one.
    pub(super) code: Option<String>,
    #[source]
    source: Option<BoxError>,
}

/// The kind of failure of an AWS call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AwsErrorKind {
    /// Credentials are missing, or were refused.
    Credentials,
    /// An IAM permission is missing.
    Denied,
    /// The requested resource does not exist.
    NotFound,
    /// The resource to be created already exists.
    Exists,
    /// Any other failure.
    Other,
}

impl Error {
    pub(super) fn new(kind: AwsErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, code: None, source: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Converts an error of the SDK into one line with the action and the resource. The SDK has already retried the
    /// call.
    pub(super) fn of<E>(action: &str, resource: &str, error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let code = code(&error).unwrap_or_default();
        let said = error.as_service_error().and_then(|error| error.message()).map(one_line);
        let detail = said.as_ref().map(|said| format!(": {said}")).unwrap_or_default();
        let known = Self::of_code(action, resource, &code, &detail);
        match error.raw_response() {
            _ if known.kind != AwsErrorKind::Other => known,
            Some(answer) if code.is_empty() || answer.status().is_server_error() => {
                Self::answered(action, resource, &code, answer, &detail)
            }
            _ if code.is_empty() => Self::unanswered(action, error),
            _ => known,
        }
    }

    /// Returns whether the service did not answer at all.
    pub(super) fn is_without_answer(&self) -> bool {
        self.kind == AwsErrorKind::Other && self.code.is_none()
    }

    /// Converts the code of an error into one line with the action and the resource. `detail` is empty, or a colon with
    /// the service's message.
    pub(super) fn of_code(action: &str, resource: &str, code: &str, detail: &str) -> Self {
        let error = match code {
            "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" => {
                Self::new(AwsErrorKind::Denied, format!("{action} on {resource} was denied{detail}"))
                    .hint(format!("allow {action} in the role's policy"))
            }
            "ExpiredTokenException"
            | "ExpiredToken"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch" => Self::new(
                AwsErrorKind::Credentials,
                format!("{action}: the AWS credentials were refused ({code}){detail}"),
            )
            .hint("configure them again: they may have expired, or belong to another partition"),
            code if code.ends_with("NotFoundException") || code.ends_with("NotFound") || code == "NoSuchEntity" => {
                Self::new(AwsErrorKind::NotFound, format!("{action}: {resource} does not exist{detail}"))
            }
            code if code.ends_with("AlreadyExistsException") => {
                Self::new(AwsErrorKind::Exists, format!("{action}: {resource} exists{detail}"))
            }
            code => Self::new(AwsErrorKind::Other, format!("{action} on {resource} failed ({code}){detail}")),
        };
        Self { code: Some(code.to_owned()), ..error }
    }

    /// Converts a response without an error code, or one with a server error.
    fn answered(action: &str, resource: &str, code: &str, answer: &HttpResponse, detail: &str) -> Self {
        let status = answer.status().as_u16();
        let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let id = ["x-amzn-requestid", "x-amzn-request-id", "x-amz-request-id"];
        let id = id.into_iter().find_map(|name| answer.headers().get(name)).map(one_line);
        let service = service(action);
        let said: Vec<String> = [
            Some(format!("{status} {}", reason.unwrap_or_default()).trim_end().to_owned()),
            Some(code.to_owned()).filter(|code| !code.is_empty()),
            Some(id.map_or_else(|| "without a request id".to_owned(), |id| format!("request id {id}"))),
        ]
        .into_iter()
        .flatten()
        .collect();
        let message = format!("{action} on {resource}: {service} answered {}{detail}", said.join(", "));
        let error = Self::new(AwsErrorKind::Other, message);
        if answer.status().is_server_error() {
            error.hint(format!("{service} itself failed: run it again later, and see https://health.aws.amazon.com"))
        } else {
            error
        }
    }

    /// Converts a failure without a response: missing credentials, no connection, or a timeout.
    fn unanswered<E>(action: &str, error: SdkError<E, HttpResponse>) -> Self
    where
        E: StdError + Send + Sync + 'static,
    {
        if let Some(refused) = Refused::behind(&error) {
            return Self::new(AwsErrorKind::Other, format!("{action}: {refused}")).hint(refused.hint);
        }
        let innermost = causes(&error).last().map(|cause| one_line(&cause.to_string())).unwrap_or_default();
        match causes(&error).find_map(|cause| cause.downcast_ref::<CredentialsError>()) {
            Some(error) if is_missing_credentials(error) => {
                Self::no_credentials(format!("{action}: no AWS credentials"))
            }
            Some(_) => Self::no_credentials(format!("{action}: no AWS credentials ({innermost})")),
            None => {
                let from = causes(&error).find_map(|cause| cause.downcast_ref::<NoConnection>());
                let from = from.map(|to| format!(" from {}", to.address)).unwrap_or_default();
                Self::new(AwsErrorKind::Other, format!("{action}: no answer{from} ({innermost})"))
            }
        }
    }

    /// Creates an error for missing credentials. Its hint shows how a job gets them.
    pub(super) fn no_credentials(message: impl Into<String>) -> Self {
        let step = setup::CREDENTIALS.hint();
        Self::new(AwsErrorKind::Credentials, message).hint(match CiSystem::of_process() {
            CiSystem::GitHub => format!(
                "{step}, or set `role-to-assume` of this one (promote: `source-role`, `target-role`); either takes \
                 `permissions: {{contents: read, id-token: write}}` of the job"
            ),
            _ => step,
        })
    }
}

/// Returns whether no credentials are configured. Otherwise some are, but could not be obtained.
///
/// The instance metadata service is the last source in the chain. Any of its errors counts as missing credentials,
/// because machines of other clouds answer at its address too.
pub(super) fn is_missing_credentials(error: &CredentialsError) -> bool {
    let is_metadata = |cause: &(dyn StdError + 'static)| cause.is::<ImdsError>();
    matches!(error, CredentialsError::CredentialsNotLoaded(_)) || causes(error).any(is_metadata)
}

/// Iterates over an error and its causes.
pub(super) fn causes<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |cause: &&'e (dyn StdError + 'static)| (*cause).source())
}

/// Returns the name of the service that an IAM action belongs to.
fn service(action: &str) -> &'static str {
    match action.split(':').next() {
        Some("ecr") => "Amazon ECR",
        Some("ecr-public") => "Amazon ECR Public",
        Some("iam") => "AWS IAM",
        Some("ecs") => "Amazon ECS",
        Some("bedrock-agentcore") => "Amazon Bedrock AgentCore",
        Some("lambda") => "AWS Lambda",
        Some("ssm") => "AWS Systems Manager",
        Some("sts") => "AWS STS",
        _ => "AWS",
    }
}

/// Returns the service's code for an error: `ParameterNotFound`.
pub(super) fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Option<String> {
    error.as_service_error()?.code().map(str::to_owned)
}

/// The most characters of a service's message that are shown.
const SAID: usize = 400;

pub(super) fn one_line(text: &str) -> String {
    let line: String =
        text.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(|c| !c.is_control()).collect();
    shortened(&line, SAID)
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}
