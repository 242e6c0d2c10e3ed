//! Findings about a template.

use super::error::one_line;
use super::value::Unresolved;
use crate::SourceLocation;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// For information.
    Notice,
    /// The deployment will probably fail.
    Warning,
    /// The template contradicts itself.
    Error,
}

/// A problem in a template, or something that its reader should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The severity.
    pub severity: Severity,
    /// The location in the template.
    pub source_location: SourceLocation,
    /// One line, lower case.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Finding {
    pub(super) fn new(severity: Severity, source_location: SourceLocation, message: impl Into<String>) -> Self {
        Self { severity, source_location, message: one_line(&message.into()), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(super) fn unresolved(unresolved: &Unresolved) -> Self {
        let Unresolved { reason, hint, source_location, .. } = unresolved.clone();
        Self { severity: Severity::Error, source_location: *source_location, message: reason, hint }
    }
}
