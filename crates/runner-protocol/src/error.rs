use std::io;

/// A problem with the runner's variables or files.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct RunnerError {
    /// What failed, in one line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether the inputs are wrong, as opposed to a failure.
    pub is_usage_error: bool,
    /// The cause.
    #[source]
    pub source: Option<io::Error>,
}
