//! Signatures, as cosign verifies them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, OnceCell, Semaphore};

use lifecycle::Diagnostic;
use lifecycle::access::RegistryCredentials;
use lifecycle::access::{Login, authority};
use lifecycle::cosign;
use lifecycle::delivery::Delivery;
use lifecycle::naming::Project;
use oci::{Digest, Location, Reference};
use registry::CredentialSource;
use runner_protocol::{Grant, Runner, Variables, grant, run};

use super::{Identity, Subject, Verdict};
use crate::inputs::Request;
use crate::plan::Planned;

/// One verification: some requests to the registry, and for a certificate to the transparency log.
const DEADLINE: Duration = Duration::from_secs(120);

/// What cosign prints of the signatures that it found, in bytes.
const OUTPUT: usize = 4 * 1024 * 1024;

/// Verifications at a time: each is a program of some hundred megabytes.
const PROCESSES: usize = 4;

/// How cosign begins to say that it has looked, and found none that it wanted. With all else it could not look.
const FOUND_NONE: [&str; 3] = ["no signatures found", "no matching signatures", "no matching attestations"];

/// cosign, with what it needs to see the source.
pub(super) struct Signatures<'a> {
    program: Option<PathBuf>,
    /// Where keys lie.
    project: &'a Project,
    temporary: PathBuf,
    source: Reached,
    who: Who,
    /// Each signature is verified once, however many gates ask for it.
    answers: Mutex<HashMap<String, Arc<OnceCell<Verdict>>>>,
    processes: Semaphore,
    /// Who verifies a certificate renews the roots of trust first, in a folder that only one process may write to.
    certificates: Turn<()>,
}

/// How the source's registries are reached.
struct Reached {
    credentials: RegistryCredentials,
    endpoints: std::collections::BTreeMap<String, url::Url>,
    logins: Mutex<HashMap<String, Arc<OnceCell<Login>>>>,
}

/// Whose workflow this is.
struct Who {
    /// A regular expression for its workflows.
    repository: Option<String>,
    issuer: String,
}

/// Whom an image and the statements about it are believed.
pub(super) struct Trust<'a> {
    signatures: &'a Signatures<'a>,
    identities: &'a [&'a Identity],
    source: &'a Reference,
    root: &'a Digest,
}

impl<'a> Trust<'a> {
    pub(super) fn new(
        signatures: &'a Signatures<'a>,
        identities: &'a [&'a Identity],
        delivery: &'a Delivery,
        planned: &'a Planned,
    ) -> Self {
        Self { signatures, identities, source: &planned.source, root: delivery.digest() }
    }

    /// Whether statements are believed only where somebody has signed them.
    pub(super) fn wants_signatures(&self) -> bool {
        !self.identities.is_empty()
    }

    /// The image is signed by an identity.
    pub(super) async fn image(&self, identity: &Identity) -> Verdict {
        self.signatures.verify(self.source, self.root, identity).await
    }

    /// A statement is signed by all whom `signature` names; where it names nobody, everything is believed.
    pub(super) async fn statement(&self, referrer: &Digest) -> Result<(), String> {
        for identity in self.identities {
            self.signatures.verify(self.source, referrer, identity).await?;
        }
        Ok(())
    }
}

impl<'a> Signatures<'a> {
    /// Looks for cosign where a gate needs it.
    pub(super) fn prepare(request: &'a Request, identities: &[&Identity], runner: &Runner) -> Self {
        let environment = &runner.variables;
        Self {
            program: if identities.is_empty() { None } else { cosign::find(environment) },
            project: &request.common.project,
            temporary: environment.temporary(),
            source: Reached {
                credentials: RegistryCredentials::new(request.source.aws.clone()),
                endpoints: request.common.options.endpoints.clone(),
                logins: Mutex::default(),
            },
            who: Who::of(environment),
            answers: Mutex::default(),
            processes: Semaphore::new(PROCESSES),
            certificates: Turn::default(),
        }
    }

    async fn verify(&self, source: &Reference, digest: &Digest, identity: &Identity) -> Verdict {
        let Location::Host(host) = &source.location else {
            return Err("it can't be decided: cosign verifies in registries, not in a store on disk".to_owned());
        };
        let Some(program) = &self.program else {
            return Err(
                "it can't be decided: cosign is not on PATH (hint: run sigstore/cosign-installer before this step)"
                    .to_owned(),
            );
        };
        let about = format!("{host}/{}@{digest} {identity:?}", source.repository);
        let cell = lock(&self.answers).entry(about).or_default().clone();
        let ask = || async {
            let arguments = self.who.arguments(identity, |path| self.project.inside(path))?;
            let (host, login) = self.source.login(host, &self.temporary).await?;
            let mut command = cosign::command(program, &login);
            if let Identity::Key(key) = identity {
                grant(&mut command, Grant::PublicKey(key));
            }
            command.arg("verify").args(arguments).arg(format!("{host}/{}@{digest}", source.repository));
            let _certificate = match identity {
                Identity::Key(_) => None,
                Identity::OfRepository | Identity::Certificate { .. } => Some(self.certificates.lock().await),
            };
            let Ok(_turn) = self.processes.acquire().await else { return Err("it can't be decided".to_owned()) };
            match run(command, OUTPUT, DEADLINE).await {
                Ok(finished) if finished.status.success() => {
                    Ok(format!("cosign verified that {identity} signed {}", digest.short()))
                }
                Ok(finished) => {
                    let (digest, reason) = (digest.short(), cosign::reason(&finished));
                    match FOUND_NONE.iter().any(|words| reason.starts_with(words)) {
                        true => Err(format!("cosign found no signature of {identity} on {digest}: {reason}")),
                        false => Err(format!(
                            "it can't be decided: cosign could not verify that {identity} signed {digest}: {reason}"
                        )),
                    }
                }
                Err(error) => Err(format!("it can't be decided: {}", Diagnostic::of(&error.into()).line())),
            }
        };
        cell.get_or_init(|| async { ask().await }).await.clone()
    }
}

impl Reached {
    /// The host as cosign has to call it, with a Docker configuration for it and for nothing else.
    async fn login(&self, host: &str, temporary: &std::path::Path) -> Result<(String, PathBuf), String> {
        let reached = match self.endpoints.get(host) {
            Some(endpoint) => authority(endpoint).ok_or_else(|| {
                format!("it can't be decided: cosign can't reach {host} below a path, as `registry-endpoints` has it")
            })?,
            None => host.to_owned(),
        };
        let cell = lock(&self.logins).entry(reached.clone()).or_default().clone();
        let login = || async {
            let credentials = self.credentials.credentials(host).await;
            let credentials = credentials.map_err(|error| Diagnostic::of(&error.into()).line())?;
            let written = Login::write(&reached, &credentials, temporary);
            written.map_err(|error| format!("credentials for cosign can't be written: {error}"))
        };
        let login = cell.get_or_try_init(login).await.map_err(|reason| format!("it can't be decided: {reason}"))?;
        let folder = login.folder().to_owned();
        Ok((reached, folder))
    }
}

impl Who {
    fn of(variables: &Variables) -> Self {
        Self { repository: cosign::identities_of_repository(variables), issuer: cosign::issuer(variables) }
    }

    /// What cosign is to accept.
    fn arguments(
        &self,
        identity: &Identity,
        inside: impl Fn(&str) -> std::io::Result<PathBuf>,
    ) -> Result<Vec<String>, String> {
        let certificate = |option: &str, value: String, issuer: &str| {
            vec![format!("--certificate-identity{option}={value}"), format!("--certificate-oidc-issuer={issuer}")]
        };
        match identity {
            Identity::Key(key) => {
                let key = match key.contains("://") {
                    true => key.clone(),
                    false => {
                        let path = inside(key);
                        let path = path.map_err(|error| format!("it can't be decided: the key {key}: {error}"))?;
                        let missing = || format!("it can't be decided: the key {key} does not exist");
                        path.is_file().then(|| path.display().to_string()).ok_or_else(missing)?
                    }
                };
                // The key alone decides; who signs with one of their own may have no log at all.
                Ok(vec![format!("--key={key}"), "--insecure-ignore-tlog=true".to_owned()])
            }
            Identity::OfRepository => {
                let missing = "it can't be decided: GITHUB_REPOSITORY doesn't say which repository this is, and `signature` names no identity";
                let workflows = self.repository.clone().ok_or(missing)?;
                Ok(certificate("-regexp", workflows, &self.issuer))
            }
            Identity::Certificate { subject, issuer } => {
                let issuer = issuer.as_deref().unwrap_or(&self.issuer);
                Ok(match subject {
                    Subject::Exact(subject) => certificate("", subject.clone(), issuer),
                    Subject::Matching(pattern) => certificate("-regexp", format!("^(?:{pattern})$"), issuer),
                })
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere(path: &str) -> std::io::Result<PathBuf> {
        Ok(std::path::Path::new("/nowhere").join(path))
    }

    fn arguments(identity: &Identity) -> Result<Vec<String>, String> {
        let who = Who::of(&Variables::from([("GITHUB_REPOSITORY", "o/n.x")]));
        who.arguments(identity, nowhere)
    }

    #[test]
    fn what_cosign_is_to_accept() {
        insta::assert_debug_snapshot!(arguments(&Identity::OfRepository), @r#"
        Ok(
            [
                "--certificate-identity-regexp=^https://github\\.com/o/n\\.x/\\.github/workflows/",
                "--certificate-oidc-issuer=https://token.actions.githubusercontent.com",
            ],
        )
        "#);
        let matching = Identity::Certificate {
            subject: Subject::Matching("a|b".into()),
            issuer: Some("https://accounts.example".into()),
        };
        let expected =
            ["--certificate-identity-regexp=^(?:a|b)$", "--certificate-oidc-issuer=https://accounts.example"];
        assert_eq!(arguments(&matching).unwrap(), expected);
        let key = arguments(&Identity::Key("awskms:///alias/x".into())).unwrap();
        assert_eq!(key, ["--key=awskms:///alias/x", "--insecure-ignore-tlog=true"]);
        assert!(
            arguments(&Identity::Key("cosign.pub".into())).unwrap_err().ends_with("the key cosign.pub does not exist")
        );
        let nobody = Who::of(&Variables::from([]));
        assert!(nobody.arguments(&Identity::OfRepository, nowhere).is_err());
    }
}
