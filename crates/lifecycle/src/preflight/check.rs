//! The result of one check.

use serde::Serialize;
use serde_json::Value;

use super::policies;
use crate::aws::{AwsErrorKind, Error};

/// What to do about an explicit deny, which no further statement outweighs.
pub(super) const FIND_DENY: &str =
    "find the statement with `\"Effect\": \"Deny\"` in the policies of the identity, its boundary, or the organization";

/// The registry that a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    /// The registry that images come from.
    Source,
    /// The registry that images go to.
    Target,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckStatus {
    /// The run itself would fail.
    Failed,
    /// The run would succeed, and what it delivers may be lost or incomplete later.
    Warning,
    /// It could not be asked.
    Unknown,
    /// It could be better.
    Note,
    /// Nothing stands in the way.
    Passed,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What was checked: `identity`, `permissions`, …
    pub check: &'static str,
    /// The registry.
    pub side: Side,
    /// What it is about: a registry, repositories, an image.
    pub subject: String,
    /// What was found.
    pub status: CheckStatus,
    /// What was found, in words.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The statement to add to the policy of the identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<Value>,
}

impl CheckStatus {
    /// Returns the name of the status in the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Note => "note",
            Self::Passed => "passed",
        }
    }
}

impl Check {
    pub(super) fn new(
        check: &'static str,
        (side, subject): (Side, impl Into<String>),
        status: CheckStatus,
        detail: impl Into<String>,
    ) -> Self {
        let (subject, detail) = (subject.into(), detail.into());
        Self { check, side, subject, status, detail, remedy: None, statement: None }
    }

    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds a statement with actions on resources, and says so in the remedy.
    pub(super) fn allow<'a>(mut self, actions: impl IntoIterator<Item = &'a str>, resources: &[String]) -> Self {
        let statement = policies::statement(actions, resources);
        if self.remedy.is_none() {
            self.remedy = Some(format!("add the statement `{}`", statement["Sid"].as_str().unwrap_or_default()));
        }
        self.statement = Some(statement);
        self
    }

    /// Creates the result of a check for which a call failed. `action` and `resource` are those of the call.
    pub(super) fn unknown(
        check: &'static str,
        about: (Side, impl Into<String>),
        (action, resource): (&str, String),
        error: &Error,
    ) -> Self {
        let unknown = Self::new(check, about, CheckStatus::Unknown, chain(error));
        match (error.kind, &error.hint) {
            (AwsErrorKind::Denied, _) => unknown.allow([action], &[resource]),
            (_, Some(hint)) => unknown.remedy(hint.clone()),
            (_, None) => unknown,
        }
    }
}

/// Formats an error with its causes.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |cause| cause.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
