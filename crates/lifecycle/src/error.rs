//! Errors with a source location and a hint.

use crate::SourceLocation;
use oci::{BoxError, InvalidReference, StoreError};
use runner_protocol::{CiSystem, InputError, RunnerError};

/// An error with more to report than its message.
pub trait Explain: std::error::Error + Send + Sync + 'static {
    /// Returns the location in a source file that the error is about.
    fn source_location(&self) -> Option<SourceLocation> {
        None
    }

    /// Returns what to do about the error.
    fn hint(&self) -> Option<String> {
        None
    }

    /// Returns lines that can be pasted to correct the error.
    fn block(&self) -> Option<String> {
        None
    }

    /// Returns whether the inputs or the template are wrong. Otherwise the run itself failed.
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
    fn hint(&self) -> Option<String> {
        let Self::Required(name) = self else { return None };
        Some(match CiSystem::of_process() {
            CiSystem::GitHub => {
                let value = match *name {
                    "github-token" => "${{ github.token }}",
                    "version" => "${{ github.ref_name }}",
                    _ => "…",
                };
                format!("add `{name}: {value}` below `with:` of the step; if it is there, it has no value in this run")
            }
            _ => {
                let variable = name.to_uppercase().replace('-', "_");
                format!("add `--{name} VALUE`, or set the variable INPUT_{variable}")
            }
        })
    }

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
    fn source_location(&self) -> Option<SourceLocation> {
        self.source_location().cloned()
    }

    fn hint(&self) -> Option<String> {
        self.hint().map(str::to_owned)
    }

    fn is_usage_error(&self) -> bool {
        true
    }
}

/// An error of an action, for failures without an error type of their own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ActionError {
    /// What failed, on one line.
    pub message: String,
    /// The location in a source file that the error is about.
    pub source_location: Option<SourceLocation>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Lines that can be pasted to correct the error.
    pub block: Option<Box<String>>,
    /// Whether the inputs or the template are wrong.
    pub is_usage_error: bool,
    /// The underlying error.
    #[source]
    pub source: Option<BoxError>,
}

impl ActionError {
    /// Creates an error for inputs or a template that are wrong.
    pub fn usage_error(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            source_location: None,
            hint: None,
            block: None,
            is_usage_error: true,
            source: None,
        }
    }

    /// Creates an error for something that failed during the run.
    pub fn failure(message: impl Into<String>) -> Self {
        Self { is_usage_error: false, ..Self::usage_error(message) }
    }

    /// Adds a source location.
    #[must_use]
    pub fn at(mut self, source_location: impl Into<Option<SourceLocation>>) -> Self {
        self.source_location = source_location.into();
        self
    }

    /// Adds the underlying error.
    #[must_use]
    pub fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds lines that can be pasted to correct the error.
    #[must_use]
    pub fn block(mut self, block: impl Into<String>) -> Self {
        self.block = Some(Box::new(block.into()));
        self
    }
}

impl Explain for ActionError {
    fn source_location(&self) -> Option<SourceLocation> {
        self.source_location.clone()
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }

    fn block(&self) -> Option<String> {
        self.block.as_deref().cloned()
    }

    fn is_usage_error(&self) -> bool {
        self.is_usage_error
    }
}
