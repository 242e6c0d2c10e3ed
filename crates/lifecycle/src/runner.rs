//! The runner's protocol, and annotations at places of the template.

pub use runner_protocol::*;

use crate::SourceLocation;

/// Shows an annotation at a place of a file.
pub trait AtSourceLocation {
    /// The same at a place, if there is one.
    #[must_use]
    fn at(self, place: impl Into<Option<SourceLocation>>) -> Self;
}

impl AtSourceLocation for Annotation {
    fn at(self, place: impl Into<Option<SourceLocation>>) -> Self {
        self.at_position(place.into().map(|SourceLocation { file, line, column }| FilePosition { file, line, column }))
    }
}
