//! Commands of notation, the program that verifies signatures of the Notary Project. ECR's managed signing writes them.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use runner_protocol::{Grant, Program, Variables, grant};

/// The parts of notation's messages that mean that no signature is acceptable. Any other failure means that it could
/// not verify.
const NO_MATCH: [&str; 2] = ["no signature is associated with", "signature verification failed for all the signatures"];

/// Finds notation on `PATH`.
pub fn find(variables: &Variables) -> Option<PathBuf> {
    variables.program("notation")
}

/// Returns a command that verifies the signatures of a digest in a repository. Notation's own trust policy and trust
/// store say which signers it accepts. `login` is the folder of a Docker configuration with the registry's credentials.
pub fn verify(program: &Path, login: &Path, repository: &str, digest: &oci::Digest) -> Command {
    let mut command = runner_protocol::command(Program::Notation, program);
    grant(&mut command, Grant::AwsSigner);
    command.env("DOCKER_CONFIG", login).arg("verify");
    if is_loopback(repository) {
        command.arg("--insecure-registry");
    }
    command.arg(format!("{repository}@{digest}"));
    command
}

/// Returns whether a failure means that no signature is acceptable.
pub fn found_none(reason: &str) -> bool {
    NO_MATCH.iter().any(|part| reason.contains(part))
}

/// Returns whether a repository is in a registry on this machine, which is reached without TLS.
fn is_loopback(repository: &str) -> bool {
    let authority = repository.split('/').next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host == "localhost" || host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_on_this_machine_is_reached_without_tls() {
        for (repository, expected) in [
            ("127.0.0.1:5000/app", true),
            ("localhost:5000/app", true),
            ("localhost.example/app", false),
            ("111122223333.dkr.ecr.eu-west-1.amazonaws.com/app", false),
        ] {
            assert_eq!(is_loopback(repository), expected, "{repository}");
        }
    }
}
