//! cosign, which signs and verifies: where it is, and how it reaches a registry.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::runner::Environment;

/// What the runner passes on to a step, and cosign has no use for.
const NOT_PASSED_ON: [&str; 7] = [
    "INPUT_GITHUB_TOKEN",
    "GITHUB_OUTPUT",
    "GITHUB_ENV",
    "GITHUB_PATH",
    "GITHUB_STATE",
    "GITHUB_STEP_SUMMARY",
    "ACTIONS_RUNTIME_TOKEN",
];

/// cosign on `PATH`. Relative entries of it are left out: they would find what a checkout brings along.
pub fn find(environment: &Environment) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let folders = std::env::split_paths(environment.get("PATH")?).filter(|folder| folder.is_absolute());
    let executable = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    folders.map(|folder| folder.join("cosign")).find(executable)
}

/// cosign, with the Docker configuration in a folder and without what it has no use for.
pub fn command(program: &Path, login: &Path) -> Command {
    let mut command = Command::new(program);
    for name in NOT_PASSED_ON {
        command.env_remove(name);
    }
    command.env("DOCKER_CONFIG", login);
    command
}
