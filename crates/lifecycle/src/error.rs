//! Errors that know where they are and what to do about them.

use crate::SourceLocation;
use oci::{BoxError, InvalidReference, StoreError};
use runner_protocol::{InputError, RunnerError};

/// An error that knows more than its message.
pub trait Explain: std::error::Error + Send + Sync + 'static {
    /// Where in a file.
    fn place(&self) -> Option<SourceLocation> {
        None
    }

    /// What to do about it.
    fn hint(&self) -> Option<String> {
        None
    }

    /// Whether the user's inputs or template are wrong, rather than that something failed.
    fn is_usage_error(&self) -> bool {
        false
    }
}

impl Explain for StoreError {
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

impl Explain for InputError {
    fn is_usage_error(&self) -> bool {
        true
    }
}

impl Explain for RunnerError {
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }

    fn is_usage_error(&self) -> bool {
        self.is_usage_error
    }
}

impl Explain for InvalidReference {
    fn is_usage_error(&self) -> bool {
        true
    }
}

impl Explain for cfn_images::Error {
    fn place(&self) -> Option<SourceLocation> {
        self.place().cloned()
    }

    fn hint(&self) -> Option<String> {
        self.hint().map(str::to_owned)
    }

    fn is_usage_error(&self) -> bool {
        true
    }
}

/// An error of an action, with all that it knows: for what has no error type of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ActionError {
    /// One line that names what failed.
    pub message: String,
    /// Where in a file.
    pub place: Option<SourceLocation>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether the user's inputs or template are wrong.
    pub is_usage_error: bool,
    /// What caused it.
    #[source]
    pub source: Option<BoxError>,
}

impl ActionError {
    /// Something in the inputs or the template is wrong.
    pub fn usage_error(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None, hint: None, is_usage_error: true, source: None }
    }

    /// Something failed.
    pub fn failure(message: impl Into<String>) -> Self {
        Self { is_usage_error: false, ..Self::usage_error(message) }
    }

    /// The same beside a line.
    #[must_use]
    pub fn at(mut self, place: impl Into<Option<SourceLocation>>) -> Self {
        self.place = place.into();
        self
    }

    /// The same with what caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Explain for ActionError {
    fn place(&self) -> Option<SourceLocation> {
        self.place.clone()
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }

    fn is_usage_error(&self) -> bool {
        self.is_usage_error
    }
}
