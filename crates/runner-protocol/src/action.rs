//! What an action declares, and how a run of it ends.

/// What an action is, as its `action-*.yml` says.
pub struct Action {
    /// Its name: `build`.
    pub name: &'static str,
    /// Every input with its default, names with underscores.
    pub inputs: &'static [(&'static str, &'static str)],
    /// Every output, each of which is written, if need be empty.
    pub outputs: &'static [&'static str],
    /// The values of outputs until the action sets them: all others are empty.
    pub initial_outputs: &'static [(&'static str, &'static str)],
    /// The text of its `action-*.yml`, for `--help`.
    pub definition: &'static str,
    /// Whether it names what it has written in `GITHUB_ARTIFACTS`.
    pub names_artifacts: bool,
}

/// How a run ended that could be carried through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All is well.
    Pass,
    /// It ran, and something failed. What, has been said.
    Fail,
}
