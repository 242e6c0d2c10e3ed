//! What is told to GitHub beside the run itself: a comment on the pull request, and results for code scanning.
//!
//! The build is what counts: that GitHub could not be told of it fails nothing. Where the token may not, as in a pull
//! request from a fork, that is no more than a notice.

use std::io::Read as _;

use lifecycle::github::{Body, GitHub};
use lifecycle::{ActionError, Diagnostic, SecretString, plural};
use runner_protocol::{Annotation, Input, Level, Runner, Variables};

use crate::outcome::Outcome;
use crate::report::Report;

/// The largest event that is read, in bytes: what GitHub sends at most.
const EVENT_LIMIT: u64 = 25 * 1024 * 1024;

/// What GitHub is to be told, and with which token.
pub(crate) struct Told {
    token: SecretString,
    comment: bool,
    code_scanning: bool,
    /// What the comment is about: the whole build, or the part of it that a job of a matrix does.
    subject: String,
}

/// The inputs that decide about it.
pub(crate) struct Asked<'a> {
    pub(crate) token: Input<'a>,
    pub(crate) comment: Input<'a>,
    pub(crate) code_scanning: Input<'a>,
    pub(crate) images: Input<'a>,
    pub(crate) platforms: Input<'a>,
}

impl Told {
    /// Nothing, unless asked for. A missing token is a mistake but in a pull request: one from a fork gets no secrets.
    pub(crate) fn parse(asked: &Asked<'_>, runner: &Runner) -> anyhow::Result<Option<Self>> {
        let (comment, code_scanning) = (asked.comment.boolean(false)?, asked.code_scanning.boolean(false)?);
        if !comment && !code_scanning {
            return Ok(None);
        }
        if asked.token.text().is_none() && is_pull_request(&runner.variables) {
            tell(runner, Level::Notice, "GitHub is told nothing: input `github-token` is empty");
            return Ok(None);
        }
        let needs_it = if comment { "comment" } else { "code-scanning" };
        let missing = || ActionError::usage_error(format!("input `github-token` is required: `{needs_it}` needs it"));
        let token = SecretString::from(asked.token.text().ok_or_else(missing)?);
        let parts = ["build"].into_iter().chain(asked.images.list()).chain(asked.platforms.list());
        Ok(Some(Self { token, comment, code_scanning, subject: parts.collect::<Vec<_>>().join(" ") }))
    }

    /// Tells it.
    pub(crate) async fn of(&self, report: &Report<'_>, runner: &Runner) {
        let github = match GitHub::of(&runner.variables, &self.token) {
            Ok(github) => github,
            Err(error) => return missed("GitHub is told nothing", error).tell(runner),
        };
        let all = async {
            // That the token may not do the one says nothing of the other.
            if self.comment {
                self.comment(&github, report, runner).await.unwrap_or_else(|missed| missed.tell(runner));
            }
            if self.code_scanning {
                scanned(&github, report.outcomes, runner).await.unwrap_or_else(|missed| missed.tell(runner));
            }
        };
        tokio::select! {
            () = all => {}
            () = runner.cancelled() => {}
        }
    }

    async fn comment(&self, github: &GitHub, report: &Report<'_>, runner: &Runner) -> Result<(), Missed> {
        let Some(number) = pull_request(&runner.variables)? else {
            runner.say("no pull request: nothing to comment on");
            return Ok(());
        };
        let body = Body::new(&self.subject, &report.sections(), &format!("\n{}", runner.variables.links()));
        let made = github.comment(number, &body).await;
        made.map_err(|error| missed("the pull request is not commented on", error))?;
        runner.say(format!("pull request {number}: commented on"));
        Ok(())
    }
}

/// Why GitHub was not told.
struct Missed {
    level: Level,
    problem: ActionError,
}

impl Missed {
    fn tell(self, runner: &Runner) {
        tell(runner, self.level, Diagnostic::of(&self.problem.into()).line());
    }
}

impl From<ActionError> for Missed {
    fn from(problem: ActionError) -> Self {
        Self { level: Level::Warning, problem }
    }
}

fn missed(what: &str, error: lifecycle::github::Error) -> Missed {
    let level = if error.is_denied() { Level::Notice } else { Level::Warning };
    Missed { level, problem: ActionError::failure(what).because(error) }
}

fn tell(runner: &Runner, level: Level, message: impl Into<String>) {
    runner.annotate(Annotation::new(level, message.into()).titled("GitHub"));
}

/// Gives the results of all images to code scanning. What is refused for the first holds for the others.
async fn scanned(github: &GitHub, outcomes: &[Outcome], runner: &Runner) -> Result<(), Missed> {
    let what = "code scanning gets no results";
    let (commit, reference) = revision(&runner.variables)
        .map_err(|why| Missed { level: Level::Notice, problem: ActionError::failure(format!("{what}: {why}")) })?;
    let documents: Vec<_> = outcomes.iter().flat_map(|outcome| &outcome.checked.sarif).collect();
    for document in &documents {
        github.upload_sarif(commit, reference, document).await.map_err(|error| missed(what, error))?;
    }
    runner.say(format!("code scanning: {} uploaded", plural(documents.len(), "document")));
    Ok(())
}

/// The commit and the reference that the results are of.
fn revision(variables: &Variables) -> Result<(&str, &str), &'static str> {
    // Such an event runs for the branch that it came to, whatever was checked out.
    if matches!(variables.get("GITHUB_EVENT_NAME"), Some("pull_request_target" | "workflow_run")) {
        return Err("for this event they would be filed under the default branch");
    }
    let reference = variables.get("GITHUB_REF").filter(|reference| reference.starts_with("refs/"));
    variables.commit().zip(reference).ok_or("GITHUB_SHA and GITHUB_REF don't say what they are of")
}

fn is_pull_request(variables: &Variables) -> bool {
    variables.get("GITHUB_EVENT_NAME").is_some_and(|event| event.starts_with("pull_request"))
}

/// The number of the pull request that the run is for.
fn pull_request(variables: &Variables) -> Result<Option<u64>, ActionError> {
    let Some(path) = variables.get("GITHUB_EVENT_PATH").filter(|_| is_pull_request(variables)) else {
        return Ok(None);
    };
    let unreadable = || ActionError::failure(format!("the pull request is not commented on: cannot read {path}"));
    let file = std::fs::File::open(path).map_err(|error| unreadable().because(error))?;
    let mut bytes = Vec::new();
    file.take(EVENT_LIMIT).read_to_end(&mut bytes).map_err(|error| unreadable().because(error))?;
    let event: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| unreadable().because(error))?;
    Ok(event["pull_request"]["number"].as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_filed_where_they_belong() {
        let environment = |event, reference| {
            Variables::from([("GITHUB_SHA", "c0ffee"), ("GITHUB_EVENT_NAME", event), ("GITHUB_REF", reference)])
        };
        let of = |event, reference| revision(&environment(event, reference)).map(|(_, reference)| reference.to_owned());
        assert_eq!(of("push", "refs/heads/main").unwrap(), "refs/heads/main");
        assert_eq!(of("pull_request", "refs/pull/7/merge").unwrap(), "refs/pull/7/merge");
        assert!(of("pull_request_target", "refs/heads/main").is_err());
        assert!(of("workflow_run", "refs/heads/main").is_err());
        assert!(of("push", "").is_err());
    }

    #[test]
    fn a_pull_request_is_known_by_its_event() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("event.json");
        let number = |event, content: &str| {
            std::fs::write(&path, content).unwrap();
            let path = path.to_str().unwrap();
            pull_request(&Variables::from([("GITHUB_EVENT_NAME", event), ("GITHUB_EVENT_PATH", path)]))
        };
        let event = r#"{"pull_request": {"number": 7}}"#;
        assert_eq!(number("pull_request", event).unwrap(), Some(7));
        assert_eq!(number("push", event).unwrap(), None);
        assert_eq!(number("pull_request", r#"{"pull_request": {"number": "7/../8"}}"#).unwrap(), None);
        assert!(number("pull_request", "{").is_err());
    }
}
