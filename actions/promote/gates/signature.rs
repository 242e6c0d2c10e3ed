//! Verification of signatures by cosign.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, OnceCell, Semaphore};

use lifecycle::access::Login;
use lifecycle::access::RegistryCredentials;
use lifecycle::cosign;
use lifecycle::delivery::Delivery;
use lifecycle::naming::Project;
use oci::{Digest, Location, Reference};
use registry::CredentialSource;
use runner_protocol::{Grant, Variables, grant, run};

use super::{GateOutcome, Gates};
use crate::plan::PlannedPromotion;
use crate::requirement::{Identity, Subject};

/// Limit of one verification: a few requests to the registry and, for a certificate, to the transparency log.
const DEADLINE: Duration = Duration::from_secs(120);

/// Bytes that cosign may print about the signatures that it found.
const OUTPUT_LIMIT: usize = 4 * 1024 * 1024;

/// Concurrent verifications. Each is a process of a few hundred megabytes.
const PROCESSES: usize = 4;

/// The beginnings of cosign's messages that mean that no signature matched. Any other failure means that it could not
/// verify.
const NO_MATCH: [&str; 3] = ["no signatures found", "no matching signatures", "no matching attestations"];

/// cosign, with access to the source registries.
pub(super) struct Signatures<'a> {
    program: Option<PathBuf>,
    /// The project whose checkout contains the key files.
    project: &'a Project,
    temporary: PathBuf,
    registries: SourceRegistries,
    workflows: WorkflowIdentity,
    /// Each signature is verified once, even if several gates need it.
    outcomes: Mutex<HashMap<String, Arc<OnceCell<GateOutcome>>>>,
    processes: Semaphore,
    /// Held while a certificate is verified: cosign first updates the roots of trust in a folder that only one process may
    /// write to.
    roots_of_trust: AsyncMutex<()>,
}

/// Access to the source registries.
struct SourceRegistries {
    credentials: RegistryCredentials,
    endpoints: std::collections::BTreeMap<String, url::Url>,
    logins: Mutex<HashMap<String, Arc<OnceCell<Login>>>>,
}

/// The identity of this repository's workflows.
struct WorkflowIdentity {
    /// A regular expression that matches the certificates of the workflows.
    pattern: Option<String>,
    issuer: String,
}

/// The identities that must have signed an image and the statements about it.
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
        planned: &'a PlannedPromotion,
    ) -> Self {
        Self { signatures, identities, source: &planned.source, root: delivery.digest() }
    }

    /// Returns whether only signed statements are trusted.
    pub(super) fn requires_signatures(&self) -> bool {
        !self.identities.is_empty()
    }

    /// Verifies that an identity has signed the image.
    pub(super) async fn image(&self, identity: &Identity) -> GateOutcome {
        self.signatures.verify(self.source, self.root, identity).await
    }

    /// Verifies that every identity in `signature` has signed a statement. Without `signature`, every statement is trusted.
    pub(super) async fn statement(&self, referrer: &Digest) -> Result<(), String> {
        for identity in self.identities {
            self.signatures.verify(self.source, referrer, identity).await?;
        }
        Ok(())
    }
}

impl<'a> Signatures<'a> {
    /// Finds cosign if a gate needs it.
    pub(super) fn new(gates: &'a Gates<'_>, identities: &[&Identity]) -> Self {
        let variables = &gates.runner.variables;
        Self {
            program: if identities.is_empty() { None } else { cosign::find(variables) },
            project: gates.project,
            temporary: variables.temporary(),
            registries: SourceRegistries {
                credentials: RegistryCredentials::new(gates.source.aws.clone()),
                endpoints: gates.registries.endpoints.clone(),
                logins: Mutex::default(),
            },
            workflows: WorkflowIdentity::new(variables),
            outcomes: Mutex::default(),
            processes: Semaphore::new(PROCESSES),
            roots_of_trust: AsyncMutex::default(),
        }
    }

    /// Verifies that an identity has signed a digest of the source's repository.
    async fn verify(&self, source: &Reference, digest: &Digest, identity: &Identity) -> GateOutcome {
        let Location::Host(host) = &source.location else {
            return Err(
                "needs a signature, which cosign verifies in a registry, not in a store on disk: promote from a registry, or \
                 take `signature` out of `require`"
                    .to_owned()
            );
        };
        let Some(program) = &self.program else {
            return Err(
                "needs cosign to verify signatures, but cosign is not on PATH: run sigstore/cosign-installer before this step"
                    .to_owned(),
            );
        };
        let key = format!("{host}/{}@{digest} {identity:?}", source.repository);
        let cell = lock(&self.outcomes).entry(key).or_default().clone();
        let verify = || async {
            let arguments = self.workflows.arguments(identity, |path| self.project.inside(path))?;
            let (host, login) = self.registries.login(host, &self.temporary).await?;
            let mut command = cosign::command(program, &login);
            if let Identity::Key(key) = identity {
                grant(&mut command, Grant::PublicKey(key));
            }
            command.arg("verify").args(arguments).arg(format!("{host}/{}@{digest}", source.repository));
            let _roots_of_trust = match identity {
                Identity::Key(_) => None,
                Identity::OfRepository | Identity::Certificate { .. } => Some(self.roots_of_trust.lock().await),
            };
            let Ok(_permit) = self.processes.acquire().await else {
                return Err("the run was cancelled before this gate was evaluated: run it again".to_owned());
            };
            match run(command, OUTPUT_LIMIT, DEADLINE).await {
                Ok(finished) if finished.status.success() => {
                    Ok(format!("cosign verified that {identity} signed {}", digest.short()))
                }
                Ok(finished) => {
                    let (digest, reason) = (digest.short(), cosign::reason(&finished));
                    if NO_MATCH.iter().any(|beginning| reason.starts_with(beginning)) {
                        Err(format!(
                            "needs a signature of {identity} on {digest}; cosign found none ({reason}): publish with `sign`, or \
                             name the identity that signed it"
                        ))
                    } else {
                        Err(format!(
                            "needs a signature of {identity} on {digest}; cosign could not verify it ({reason}): correct what cosign says, \
                             and run it again"
                        ))
                    }
                }
                Err(error) => Err(super::unanswered("a signature", error)),
            }
        };
        cell.get_or_init(|| async { verify().await }).await.clone()
    }
}

impl SourceRegistries {
    /// Returns the authority under which cosign reaches a host, and a Docker configuration with credentials for it alone.
    async fn login(&self, host: &str, temporary: &std::path::Path) -> Result<(String, PathBuf), String> {
        let authority = match self.endpoints.get(host) {
            Some(endpoint) => lifecycle::access::authority(endpoint).ok_or_else(|| {
                format!(
                    "needs a signature, and cosign does not support a path in `registry-endpoints`: give the endpoint of {host} \
                     without one"
                )
            })?,
            None => host.to_owned(),
        };
        let cell = lock(&self.logins).entry(authority.clone()).or_default().clone();
        let login = || async {
            let credentials = self.credentials.credentials(host).await;
            let credentials =
                credentials.map_err(|error| super::unanswered("the registry's credentials for cosign", error))?;
            let written = Login::write(&authority, &credentials, temporary);
            written.map_err(|error| {
                format!("cannot write credentials for cosign ({error}): check the folder in RUNNER_TEMP")
            })
        };
        let login = cell.get_or_try_init(login).await?;
        let folder = login.folder().to_owned();
        Ok((authority, folder))
    }
}

impl WorkflowIdentity {
    fn new(variables: &Variables) -> Self {
        Self { pattern: cosign::identities_of_repository(variables), issuer: cosign::issuer(variables) }
    }

    /// Returns the options that tell cosign which identity to accept.
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
                let key = if key.contains("://") {
                    key.clone()
                } else {
                    let path = inside(key);
                    let path = path.map_err(|error| {
                        format!("needs the key {key}, which cannot be used ({error}): name a file in the checkout")
                    })?;
                    let missing = || {
                        format!(
                            "needs the key {key}, which does not exist: check out the folder with it before this step"
                        )
                    };
                    path.is_file().then(|| path.display().to_string()).ok_or_else(missing)?
                };
                // The key alone decides. Signatures by a private key are often in no transparency log.
                Ok(vec![format!("--key={key}"), "--insecure-ignore-tlog=true".to_owned()])
            }
            Identity::OfRepository => {
                let missing =
                    "`signature` names no identity, and GITHUB_REPOSITORY is not set: name the identity that signs";
                let workflows = self.pattern.clone().ok_or(missing)?;
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

    fn missing(path: &str) -> std::io::Result<PathBuf> {
        Ok(std::path::Path::new("/missing").join(path))
    }

    fn arguments(identity: &Identity) -> Result<Vec<String>, String> {
        let workflows = WorkflowIdentity::new(&Variables::from([("GITHUB_REPOSITORY", "o/n.x")]));
        workflows.arguments(identity, missing)
    }

    #[test]
    fn identities_become_options_of_cosign() {
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
        let error = arguments(&Identity::Key("cosign.pub".into())).unwrap_err();
        assert!(error.starts_with("needs the key cosign.pub, which does not exist: "), "{error}");
        let unknown = WorkflowIdentity::new(&Variables::from([]));
        assert!(unknown.arguments(&Identity::OfRepository, missing).is_err());
    }
}
