//! What an action declares, and how a run of it ends.

/// An action, as declared in its `action-*.yml`.
pub struct Action {
    /// The name, such as `build`.
    pub name: &'static str,
    /// All inputs with their defaults. Names have underscores.
    pub inputs: &'static [(&'static str, &'static str)],
    /// All outputs. Each of them is written, even if it is empty.
    pub outputs: &'static [&'static str],
    /// The initial values of outputs. All others are initially empty.
    pub initial_outputs: &'static [(&'static str, &'static str)],
    /// The text of its `action-*.yml`, for `--help`.
    pub definition: &'static str,
    /// Whether the action lists what it has written in `GITHUB_ARTIFACTS`.
    pub names_artifacts: bool,
}

/// The result of a run that was completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The run succeeded.
    Pass,
    /// The run was completed, but something failed and has been reported.
    Fail,
}
