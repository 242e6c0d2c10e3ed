//! The time of the commit, which dates the images so that two builds of it are the same.

use std::path::Path;
use std::time::Duration;

use lifecycle::plural;
use runner_protocol::{Annotation, Finished, Level, ProcessError, Program, Runner, command, run};

/// The time limit for one git command.
const DEADLINE: Duration = Duration::from_secs(30);

/// The most output of git that is read, in bytes: the paths of some ten thousand files.
const OUTPUT_LIMIT: usize = 4 * 1024 * 1024;

/// Returns the time of the checked out commit in seconds since the epoch. Warns if git cannot tell it, and remarks that
/// files of the checkout are not those of the commit.
pub(crate) async fn commit_time(folder: &Path, runner: &Runner) -> Option<i64> {
    let time = match git(folder, &["log", "-1", "--format=%ct"]).await {
        Ok(finished) if finished.status.success() => parse(&finished.stdout),
        Ok(finished) => {
            runner.remark(unknown(&reason(&String::from_utf8_lossy(&finished.log))));
            return None;
        }
        Err(error @ ProcessError::Start { .. }) => {
            runner.remark(unknown(&format!("{error} (hint: install git before the checkout)")));
            return None;
        }
        Err(error) => {
            runner.remark(unknown(&error.to_string()));
            return None;
        }
    };
    let changed = git(folder, &["status", "--porcelain", "--untracked-files=no"]).await;
    let changed = changed.map(|finished| String::from_utf8_lossy(&finished.stdout).into_owned()).unwrap_or_default();
    if let Some(first) = changed.lines().next() {
        let (files, path) = (plural(changed.lines().count(), "file"), first.get(3..).unwrap_or(first));
        let message = format!(
            "the images get the time and the revision of the commit, and the checkout has {files} with other content: \
             `{path}`"
        );
        runner.remark(Annotation::new(Level::Notice, message));
    }
    time
}

async fn git(folder: &Path, arguments: &[&str]) -> Result<Finished, ProcessError> {
    let mut git = command(Program::Git, "git");
    git.arg("-C").arg(folder).arg("--no-optional-locks").args(arguments).env("LC_ALL", "C");
    run(git, OUTPUT_LIMIT, DEADLINE).await
}

fn parse(printed: &[u8]) -> Option<i64> {
    std::str::from_utf8(printed).ok()?.trim().parse().ok()
}

/// Returns what git says is wrong, with the command that git recommends.
fn reason(log: &str) -> String {
    let said = log.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("git failed");
    let said = said.trim_start_matches("fatal: ");
    match log.lines().map(str::trim).find(|line| line.starts_with("git config --global --add safe.directory")) {
        Some(line) => format!("{said} (hint: run this in a step before: {line})"),
        None => said.to_owned(),
    }
}

fn unknown(why: &str) -> Annotation {
    let message = format!("the images get the current time, so another build of this commit has other digests: {why}");
    Annotation::new(Level::Warning, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_git_recommends_is_the_hint() {
        let dubious = "fatal: detected dubious ownership in repository at '/w/app'\nTo add an exception for this \
                       directory, call:\n\n\tgit config --global --add safe.directory /w/app\n";
        assert_eq!(
            reason(dubious),
            "detected dubious ownership in repository at '/w/app' (hint: run this in a step before: git config --global \
             --add safe.directory /w/app)"
        );
        let none = "fatal: not a git repository (or any of the parent directories): .git\n";
        assert_eq!(reason(none), "not a git repository (or any of the parent directories): .git");
    }
}
