use std::io;

/// The runner's variables or files cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct RunnerError {
    /// What failed, on one line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether the user's inputs are wrong, rather than that something failed.
    pub is_usage_error: bool,
    /// What caused it.
    #[source]
    pub source: Option<io::Error>,
}
