//! Programs that the build runs.

use tokio::process::Command;

/// A program without this action's own tokens and file commands in its environment.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}
