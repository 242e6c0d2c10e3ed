//! Reports to GitHub in addition to the run itself: a comment on the pull request, and results for code scanning.
//!
//! A report that fails does not fail the build. If the token lacks the permission, as in a pull request from a fork, the
//! annotation is only a notice.

use lifecycle::github::GitHub;
use lifecycle::github::event::revision;
use lifecycle::plural;
use lifecycle::reporting::{FailedReport, comment_on_pull_request};
use runner_protocol::Runner;

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
            Err(error) => return FailedReport::new("nothing is reported to GitHub", error).annotate(runner),
        };
        let all = async {
            // The token may have the permission for one of them only.
            if self.options.comment {
                let sections = report.sections(&runner.variables);
                let commented = comment_on_pull_request(&github, &self.options.subject, &sections, runner).await;
                commented.unwrap_or_else(|failed| failed.annotate(runner));
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
}

/// Uploads the results of all images to code scanning. Stops at the first failure, which would repeat for the others.
async fn upload_sarif(github: &GitHub, results: &[ImageResult], runner: &Runner) -> Result<(), FailedReport> {
    let what = "code scanning gets no results";
    let revision = revision(&runner.variables);
    let (commit, reference) = revision.map_err(|why| FailedReport::notice(format!("{what}: {why}")))?;
    let documents: Vec<_> = results.iter().flat_map(|result| &result.checked.sarif).collect();
    for document in &documents {
        github.upload_sarif(commit, reference, document).await.map_err(|error| FailedReport::new(what, error))?;
    }
    runner.say(format!("code scanning: {} uploaded", plural(documents.len(), "document")));
    Ok(())
}
