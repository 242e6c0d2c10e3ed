//! Annotations that point to a location in a source file.

use runner_protocol::{Annotation, FilePosition};

use crate::SourceLocation;

/// A value that can point to a location in a source file.
pub trait AtSourceLocation {
    /// Points the value to a location. Without a location it stays as it is.
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
