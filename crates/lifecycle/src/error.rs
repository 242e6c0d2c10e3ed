//! Errors that know where they are and what to do about them.

use crate::Place;
use crate::oci::{BoxError, InvalidReference, StoreError};
use crate::runner::{InputError, RunnerError};

/// An error that knows more than its message.
pub trait Explain: std::error::Error + Send + Sync + 'static {
    /// Where in a file.
    fn place(&self) -> Option<Place> {
        None
    }

    /// What to do about it.
    fn hint(&self) -> Option<String> {
        None
    }

    /// Whether the user's inputs or template are wrong, rather than that something failed.
    fn is_mistake(&self) -> bool {
        false
    }
}

impl Explain for StoreError {
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

impl Explain for InputError {
    fn is_mistake(&self) -> bool {
        true
    }
}

impl Explain for RunnerError {
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }

    fn is_mistake(&self) -> bool {
        self.is_usage_error
    }
}

impl Explain for InvalidReference {
    fn is_mistake(&self) -> bool {
        true
    }
}

impl Explain for crate::template::Error {
    fn place(&self) -> Option<Place> {
        self.place().cloned()
    }

    fn hint(&self) -> Option<String> {
        self.hint().map(str::to_owned)
    }

    fn is_mistake(&self) -> bool {
        true
    }
}

/// An error of an action, with all that it knows: for what has no error type of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// One line that names what failed.
    pub message: String,
    /// Where in a file.
    pub place: Option<Place>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether the user's inputs or template are wrong.
    pub mistake: bool,
    /// What caused it.
    #[source]
    pub source: Option<BoxError>,
}

impl Problem {
    /// Something in the inputs or the template is wrong.
    pub fn mistake(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None, hint: None, mistake: true, source: None }
    }

    /// Something failed.
    pub fn failure(message: impl Into<String>) -> Self {
        Self { mistake: false, ..Self::mistake(message) }
    }

    /// The same beside a line.
    #[must_use]
    pub fn at(mut self, place: impl Into<Option<Place>>) -> Self {
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

impl Explain for Problem {
    fn place(&self) -> Option<Place> {
        self.place.clone()
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }

    fn is_mistake(&self) -> bool {
        self.mistake
    }
}
