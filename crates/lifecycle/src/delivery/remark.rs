//! What to say about an image apart from its result.

use runner_protocol::Level;

/// Something to say about an image apart from its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// A notice, or a warning where something may not be as it was meant.
    pub level: Level,
    /// A sentence about the image, without its name.
    pub text: String,
}

impl Remark {
    /// A remark.
    pub fn new(level: Level, text: impl Into<String>) -> Self {
        Self { level, text: text.into() }
    }
}
