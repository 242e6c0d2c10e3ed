//! Annotations at locations of source files.

use runner_protocol::{Annotation, FilePosition};

use crate::SourceLocation;

/// Puts an annotation at a location of a source file.
pub trait AtSourceLocation {
    /// Returns the same at a location, if there is one.
    #[must_use]
    fn at(self, location: impl Into<Option<SourceLocation>>) -> Self;
}

impl AtSourceLocation for Annotation {
    fn at(self, location: impl Into<Option<SourceLocation>>) -> Self {
        self.at_position(location.into().map(|SourceLocation { file, line, column }| FilePosition {
            file,
            line,
            column,
        }))
    }
}
