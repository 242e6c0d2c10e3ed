//! Reports to GitHub in addition to the run itself. A report that fails does not fail the run.

use crate::github::{CommentBody, Error, GitHub, event};
use crate::{ActionError, Diagnostic};
use runner_protocol::{Annotation, Level, Runner};

/// The page of the documentation that explains error messages.
pub const TROUBLESHOOTING: &str = "guide/troubleshooting.md";

/// Why a report to GitHub failed. It does not fail the run: if the token does not have the permission, as in a pull
/// request from a fork, the annotation is only a notice.
pub struct FailedReport {
    level: Level,
    problem: ActionError,
}

impl FailedReport {
    /// Creates the failure of a call to GitHub's API.
    pub fn new(what: &str, error: Error) -> Self {
        let level = if error.is_denied() { Level::Notice } else { Level::Warning };
        Self { level, problem: ActionError::failure(what).because(error) }
    }

    /// Creates the failure of a report that is not possible in this run.
    pub fn notice(message: impl Into<String>) -> Self {
        Self { level: Level::Notice, problem: ActionError::failure(message) }
    }

    /// Writes the annotation.
    pub fn annotate(self, runner: &Runner) {
        let message = Diagnostic::of(&self.problem.into()).line();
        runner.annotate(Annotation::new(self.level, message).titled("GitHub"));
    }
}

impl From<ActionError> for FailedReport {
    fn from(problem: ActionError) -> Self {
        Self { level: Level::Warning, problem }
    }
}

/// Comments on the pull request that the run is for, if it is for one. A comment of the same subject is updated.
///
/// # Errors
/// If the event cannot be read, or GitHub refuses the comment.
pub async fn comment_on_pull_request(
    github: &GitHub,
    subject: &str,
    sections: &[String],
    runner: &Runner,
) -> Result<(), FailedReport> {
    let Some(number) = event::pull_request_number(&runner.variables)? else {
        runner.say("no pull request: nothing to comment on");
        return Ok(());
    };
    let body = CommentBody::new(subject, sections, &format!("\n{}", runner.variables.links(None)));
    let made = github.comment(number, &body).await;
    made.map_err(|error| FailedReport::new("cannot comment on the pull request", error))?;
    runner.say(format!("pull request {number}: commented on"));
    Ok(())
}
