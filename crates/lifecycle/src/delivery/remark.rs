//! Remarks about an image.

use runner_protocol::Level;

/// A remark about an image, in addition to its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Notice, or warning if something may be unintended.
    pub level: Level,
    /// A sentence about the image, without its name.
    pub text: String,
}

impl Remark {
    /// Creates a remark.
    pub fn new(level: Level, text: impl Into<String>) -> Self {
        Self { level, text: text.into() }
    }
}
