//! Reports to GitHub in addition to the run itself: a comment on the pull request, and results for code scanning.
//!
//! A report that fails does not fail the build. If the token lacks the permission, as in a pull request from a fork, the
//! annotation is only a notice.

use lifecycle::github::{CommentBody, GitHub};
use lifecycle::{ActionError, Diagnostic, plural};
use runner_protocol::{Annotation, Level, Runner};

use crate::github_event::{pull_request_number, revision};
use crate::image_result::ImageResult;
use crate::report::BuildReport;
use crate::request::GitHubOptions;

/// A report to GitHub.
pub(crate) struct GitHubReport<'a> {
    pub(crate) options: &'a GitHubOptions,
}

impl GitHubReport<'_> {
    /// Writes the report. What GitHub refuses becomes an annotation.
    pub(crate) async fn write(&self, report: &BuildReport<'_>, runner: &Runner) {
        let github = match GitHub::of(&runner.variables, &self.options.token) {
            Ok(github) => github,
            Err(error) => return failed("nothing is reported to GitHub", error).annotate(runner),
        };
        let all = async {
            // The token may have the permission for one of them only.
            if self.options.comment {
                self.comment(&github, report, runner).await.unwrap_or_else(|failed| failed.annotate(runner));
            }
            if self.options.code_scanning {
                upload_sarif(&github, report.results, runner).await.unwrap_or_else(|failed| failed.annotate(runner));
            }
        };
        tokio::select! {
            () = all => {}
            () = runner.cancelled() => {}
        }
    }

    async fn comment(&self, github: &GitHub, report: &BuildReport<'_>, runner: &Runner) -> Result<(), FailedReport> {
        let Some(number) = pull_request_number(&runner.variables)? else {
            runner.say("no pull request: nothing to comment on");
            return Ok(());
        };
        let body =
            CommentBody::new(&self.options.subject, &report.sections(), &format!("\n{}", runner.variables.links()));
        let made = github.comment(number, &body).await;
        made.map_err(|error| failed("the pull request is not commented on", error))?;
        runner.say(format!("pull request {number}: commented on"));
        Ok(())
    }
}

/// Why a report to GitHub failed.
struct FailedReport {
    level: Level,
    problem: ActionError,
}

impl FailedReport {
    fn annotate(self, runner: &Runner) {
        annotate(runner, self.level, Diagnostic::of(&self.problem.into()).line());
    }
}

impl From<ActionError> for FailedReport {
    fn from(problem: ActionError) -> Self {
        Self { level: Level::Warning, problem }
    }
}

fn failed(what: &str, error: lifecycle::github::Error) -> FailedReport {
    let level = if error.is_denied() { Level::Notice } else { Level::Warning };
    FailedReport { level, problem: ActionError::failure(what).because(error) }
}

fn annotate(runner: &Runner, level: Level, message: impl Into<String>) {
    runner.annotate(Annotation::new(level, message.into()).titled("GitHub"));
}

/// Uploads the results of all images to code scanning. Stops at the first failure, which would repeat for the others.
async fn upload_sarif(github: &GitHub, results: &[ImageResult], runner: &Runner) -> Result<(), FailedReport> {
    let what = "code scanning gets no results";
    let (commit, reference) = revision(&runner.variables).map_err(|why| FailedReport {
        level: Level::Notice,
        problem: ActionError::failure(format!("{what}: {why}")),
    })?;
    let documents: Vec<_> = results.iter().flat_map(|result| &result.checked.sarif).collect();
    for document in &documents {
        github.upload_sarif(commit, reference, document).await.map_err(|error| failed(what, error))?;
    }
    runner.say(format!("code scanning: {} uploaded", plural(documents.len(), "document")));
    Ok(())
}
