//! cosign, which signs and verifies: where it is, and how it reaches a registry.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::ActionError;
use runner_protocol::{Finished, Program, Variables, run};

/// What `cosign sign --help` prints, in bytes.
const HELP: usize = 1024 * 1024;

const HELP_DEADLINE: Duration = Duration::from_secs(60);

/// Characters of cosign's own words in a sentence.
const REASON: usize = 300;

/// Where GitHub's own token service is the issuer of certificates.
const GITHUB_ISSUER: &str = "https://token.actions.githubusercontent.com";

/// A signing configuration (sigstore's protobuf-specs) that names no service.
const NO_SERVICES: &str = r#"{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json"}"#;

/// cosign on `PATH`.
pub fn find(variables: &Variables) -> Option<PathBuf> {
    variables.program("cosign")
}

/// cosign, with the Docker configuration in a folder. What leads to a key or says who signs is granted to it.
pub fn command(program: &Path, login: &Path) -> Command {
    let mut command = runner_protocol::command(Program::Cosign, program);
    command.env("DOCKER_CONFIG", login);
    command
}

/// The argument that keeps a signature by a key out of the public transparency log.
///
/// cosign 3 takes its services from a signing configuration, and then refuses the flag that cosign 2 has for it: it gets a
/// configuration without any service, in the folder of its login.
///
/// # Errors
/// When cosign does not tell its flags, or the configuration can't be written.
pub async fn unlogged(program: &Path, login: &Path) -> Result<String, ActionError> {
    let mut help = command(program, login);
    help.args(["sign", "--help"]);
    let told = run(help, HELP, HELP_DEADLINE).await;
    let told = told.map_err(|error| ActionError::failure("`cosign sign --help` did not run").because(error))?;
    let text = [told.stdout, told.log].concat();
    if has_log_flag(&String::from_utf8_lossy(&text)) {
        return Ok("--tlog-upload=false".to_owned());
    }
    let path = login.join("signing-config.json");
    let written = std::fs::write(&path, NO_SERVICES);
    written.map_err(|error| ActionError::failure(format!("cannot write {}", path.display())).because(error))?;
    Ok(format!("--signing-config={}", path.display()))
}

/// The token service of the server that the run is on, which certificates name as their issuer.
pub fn issuer(variables: &Variables) -> String {
    match variables.get("GITHUB_SERVER_URL") {
        None | Some("https://github.com") => GITHUB_ISSUER.to_owned(),
        Some(server) => format!("{}/_services/token", server.trim_end_matches('/')),
    }
}

/// The identity in a certificate of this run, unless a workflow of another repository does its work.
pub fn identity(variables: &Variables) -> Option<String> {
    variables.workflow_url()
}

/// A regular expression for the identities of all workflows of the run's repository.
pub fn identities_of_repository(variables: &Variables) -> Option<String> {
    let repository = variables.repository_url()?;
    Some(format!("^{}/\\.github/workflows/", repository.replace('.', "\\.")))
}

/// cosign's own words for a failure, on one line: of many the last, which say what it comes from.
pub fn reason(finished: &Finished) -> String {
    let log = String::from_utf8_lossy(&finished.log);
    let lines = || log.lines().map(str::trim).filter(|line| !line.is_empty());
    let said = lines()
        .find_map(|line| line.strip_prefix("Error:"))
        .or_else(|| lines().next_back())
        .unwrap_or("it said nothing");
    let said: Vec<char> = said.trim().chars().filter(|character| !character.is_control()).collect();
    match said.len().checked_sub(REASON).filter(|cut| *cut > 0) {
        Some(cut) => ['…'].iter().chain(&said[cut..]).collect(),
        None => said.into_iter().collect(),
    }
}

/// Whether the flag counts: where the signing configuration is on by default it is refused, or no flag any more.
fn has_log_flag(help: &str) -> bool {
    let flag = |name: &str| help.lines().any(|line| line.trim_start().starts_with(name));
    flag("--tlog-upload") && !flag("--use-signing-config=true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_told_from_its_mention_in_an_example() {
        assert!(has_log_flag("Flags:\n    --tlog-upload=true:\n\tupload\n"));
        assert!(has_log_flag("Flags:\n    --tlog-upload=true:\n    --use-signing-config=false:\n"));
        assert!(!has_log_flag("Flags:\n    --tlog-upload=true:\n    --use-signing-config=true:\n"));
        assert!(!has_log_flag("  cosign sign --key k --tlog-upload=false IMAGE\nFlags:\n    --signing-config='':\n"));
    }
}
