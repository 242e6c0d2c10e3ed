//! Parses the inputs that decide what is reported to GitHub.

use lifecycle::github::event::is_pull_request;
use lifecycle::{ActionError, SecretString};
use runner_protocol::{Annotation, Level, Runner};

use super::Inputs;
use crate::request::GitHubOptions;

/// Parses the inputs. Without a token, nothing is reported from a pull request, because one from a fork gets no secrets.
///
/// # Errors
/// If a value is not accepted, or the token is missing in any other event.
pub(super) fn parse(inputs: &Inputs, runner: &Runner) -> anyhow::Result<Option<GitHubOptions>> {
    let comment = inputs.comment().boolean(false)?;
    let code_scanning = inputs.code_scanning().boolean(false)?;
    if !comment && !code_scanning {
        return Ok(None);
    }
    let token = inputs.github_token().text();
    if token.is_none() && is_pull_request(&runner.variables) {
        let message = "nothing is reported to GitHub: input `github-token` is empty";
        runner.annotate(Annotation::new(Level::Notice, message.to_owned()).titled("GitHub"));
        return Ok(None);
    }
    let needed_by = if comment { "comment" } else { "code-scanning" };
    let missing = || ActionError::usage_error(format!("input `github-token` is required: `{needed_by}` needs it"));
    let token = SecretString::from(token.ok_or_else(missing)?);
    let (images, platforms) = (inputs.images(), inputs.platforms());
    let parts = ["build"].into_iter().chain(images.list()).chain(platforms.list());
    Ok(Some(GitHubOptions { token, comment, code_scanning, subject: parts.collect::<Vec<_>>().join(" ") }))
}
