//! The runner's protocol, and annotations at places of the template.

pub use runner_protocol::*;

use crate::Place;
pub use crate::action::main;

/// Shows an annotation at a place of a file.
pub trait AtPlace {
    /// The same at a place, if there is one.
    #[must_use]
    fn at(self, place: impl Into<Option<Place>>) -> Self;
}

impl AtPlace for Annotation {
    fn at(self, place: impl Into<Option<Place>>) -> Self {
        self.at_position(place.into().map(|Place { file, line, column }| FilePosition { file, line, column }))
    }
}
