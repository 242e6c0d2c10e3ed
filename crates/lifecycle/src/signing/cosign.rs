//! Commands of cosign, the program that signs and verifies.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::ActionError;
use runner_protocol::{CiSystem, Finished, Program, Variables, run};

/// The longest output of `cosign sign --help` that is read, in bytes.
const HELP_LIMIT: usize = 1024 * 1024;

/// The longest that `cosign sign --help` may take.
const HELP_DEADLINE: Duration = Duration::from_secs(60);

/// The most characters of cosign's output that an error message quotes.
const REASON_LIMIT: usize = 300;

/// A signing configuration (defined by sigstore's protobuf-specs) without any service.
const NO_SERVICES: &str = r#"{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json"}"#;

/// Finds cosign on `PATH`.
pub fn find(variables: &Variables) -> Option<PathBuf> {
    variables.program("cosign")
}

/// Returns a command that runs cosign with the Docker configuration in the folder `login`. It inherits the environment
/// variables that cosign needs to find a key or to prove the signer's identity.
pub fn command(program: &Path, login: &Path) -> Command {
    let mut command = runner_protocol::command(Program::Cosign, program);
    command.env("DOCKER_CONFIG", login);
    command
}

/// Returns the argument that keeps a signature by a key out of the public transparency log.
///
/// That is `--tlog-upload=false` for cosign 2. cosign 3 refuses that flag and reads its services from a signing
/// configuration, so it gets one without any service, written to the folder `login`.
///
/// # Errors
/// If `cosign sign --help` fails, or the configuration cannot be written.
pub async fn no_log_argument(program: &Path, login: &Path) -> Result<String, ActionError> {
    let mut help = command(program, login);
    help.args(["sign", "--help"]);
    let output = run(help, HELP_LIMIT, HELP_DEADLINE).await;
    let output = output.map_err(|error| ActionError::failure("`cosign sign --help` did not run").because(error))?;
    let text = [output.stdout, output.log].concat();
    if has_log_flag(&String::from_utf8_lossy(&text)) {
        return Ok("--tlog-upload=false".to_owned());
    }
    let path = login.join("signing-config.json");
    let written = std::fs::write(&path, NO_SERVICES);
    written.map_err(|error| ActionError::failure(format!("cannot write {}", path.display())).because(error))?;
    Ok(format!("--signing-config={}", path.display()))
}

/// Returns the arguments that accept the certificates of all runs of this repository, whatever workflow they call.
pub fn identities_of_repository(variables: &Variables) -> Option<Vec<String>> {
    let escaped =
        |c: char| if c.is_ascii_alphanumeric() || "/:-_".contains(c) { c.to_string() } else { format!("\\{c}") };
    let pattern: String = variables.certificate_identities()?.chars().map(escaped).collect();
    let mut arguments = vec![format!("--certificate-identity-regexp=^{pattern}")];
    if matches!(variables.ci_system(), CiSystem::GitHub | CiSystem::Other) {
        arguments.push(format!("--certificate-github-workflow-repository={}", variables.repository()?));
    }
    Some(arguments)
}

/// Returns cosign's own error message on one line. A long message is cut at its start, because the cause stands at its
/// end.
pub fn reason(finished: &Finished) -> String {
    let log = String::from_utf8_lossy(&finished.log);
    let lines = || log.lines().map(str::trim).filter(|line| !line.is_empty());
    let reason = lines()
        .find_map(|line| line.strip_prefix("Error:"))
        .or_else(|| lines().next_back())
        .unwrap_or("it said nothing");
    let reason: Vec<char> = reason.trim().chars().filter(|character| !character.is_control()).collect();
    match reason.len().checked_sub(REASON_LIMIT).filter(|cut| *cut > 0) {
        Some(cut) => ['…'].iter().chain(&reason[cut..]).collect(),
        None => reason.into_iter().collect(),
    }
}

/// Returns whether cosign accepts `--tlog-upload`. It refuses the flag if signing configurations are on by default.
fn has_log_flag(help: &str) -> bool {
    let flag = |name: &str| help.lines().any(|line| line.trim_start().starts_with(name));
    flag("--tlog-upload") && !flag("--use-signing-config=true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_counts_and_its_mention_in_an_example_does_not() {
        assert!(has_log_flag("Flags:\n    --tlog-upload=true:\n\tupload\n"));
        assert!(has_log_flag("Flags:\n    --tlog-upload=true:\n    --use-signing-config=false:\n"));
        assert!(!has_log_flag("Flags:\n    --tlog-upload=true:\n    --use-signing-config=true:\n"));
        assert!(!has_log_flag("  cosign sign --key k --tlog-upload=false IMAGE\nFlags:\n    --signing-config='':\n"));
    }
}
