//! Verification of signatures by cosign and notation.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

use lifecycle::access::{Login, RegistryAccess, RegistryCredentials};
use lifecycle::evidence::{Record, RecordKind, Recorded};
use lifecycle::naming::Project;
use lifecycle::setup;
use lifecycle::signing::{Sigstore, cosign, notation};
use oci::{Digest, Location, Reference};
use registry::{CredentialSource, Options};
use runner_protocol::{Finished, Grant, Runner, Variables, grant, run};

use super::GateOutcome;
use crate::requirement::{Identity, SignatureRule, Subject};

/// Limit of one verification: a few requests to the registry and, for a certificate, to the transparency log.
const DEADLINE: Duration = Duration::from_secs(120);

/// The maximum output of a program about the signatures that it found, in bytes.
const OUTPUT_LIMIT: usize = 4 * 1024 * 1024;

/// Concurrent verifications. Each is a process of a few hundred megabytes.
static PROCESSES: Semaphore = Semaphore::const_new(4);

/// The first and the longest pause between two searches for a signature that may still appear. ECR's managed signing takes
/// a few seconds.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(15)];

/// The beginnings of cosign's messages that mean that no signature matched. Any other failure means that it could not
/// verify.
const NO_MATCH: [&str; 3] = ["no signatures found", "no matching signatures", "no matching attestations"];

/// The programs that verify signatures, with access to a registry.
pub(crate) struct Signatures<'a> {
    cosign: Option<PathBuf>,
    notation: Option<PathBuf>,
    /// The project whose checkout contains the key files.
    project: &'a Project,
    runner: &'a Runner,
    registries: Registries,
    workflows: WorkflowIdentity,
    sigstore: &'a Sigstore,
    /// Each signature is verified once, even if several gates need it.
    outcomes: Mutex<HashMap<String, Arc<OnceCell<Verification>>>>,
}

/// What a verification found, as a sentence.
#[derive(Debug, Clone)]
enum Verification {
    Signed(String),
    /// There is no signature that matches.
    /// It is not signed: the sentence of the gate, and the part of another sentence.
    NotSigned {
        sentence: String,
        part: String,
    },
    Undecided(String),
}

/// Access to registries.
struct Registries {
    credentials: RegistryCredentials,
    endpoints: BTreeMap<String, url::Url>,
    logins: Mutex<HashMap<String, Arc<OnceCell<Login>>>>,
}

/// The identity of this repository's workflows.
struct WorkflowIdentity {
    /// The arguments that accept the certificates of the workflows.
    arguments: Option<Vec<String>>,
    issuer: String,
}

/// The statements that the gates of an image have read and trusted, by address.
pub(crate) type StatementsRead = Mutex<BTreeMap<String, Digest>>;

/// The identities that must have signed an image and the statements about it.
pub(crate) struct Trust<'a> {
    pub(crate) signatures: &'a Signatures<'a>,
    pub(crate) rules: &'a [&'a SignatureRule],
    /// The image's name, for its repository.
    pub(crate) reference: &'a Reference,
    pub(crate) read: &'a StatementsRead,
}

impl Trust<'_> {
    /// Returns whether only signed statements are trusted.
    pub(super) fn requires_signatures(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Verifies that an identity has signed the image. Waits for the signature if the rule says so.
    pub(super) async fn image(&self, rule: &SignatureRule, image: &Digest) -> GateOutcome {
        let identity = &rule.image;
        let Some(wait) = rule.wait else { return self.signatures.verify(self.reference, image, identity).await.into() };
        let deadline = Instant::now() + wait;
        let mut pause = PAUSE[0];
        loop {
            let found = self.signatures.look(self.reference, image, identity).await;
            let now = Instant::now();
            match found {
                Verification::NotSigned { sentence, .. } if now >= deadline => {
                    let waited = humantime::format_duration(wait);
                    return Err(format!("after waiting for {waited}, it still {sentence}"));
                }
                Verification::NotSigned { .. } => {
                    let left = super::evidence::rounded(deadline - now);
                    let (reference, short) = (self.reference, image.short());
                    let line =
                        format!("{reference}: {short} is not signed by {identity} yet, waiting for at most {left}");
                    self.signatures.runner.say(line);
                }
                decided => return decided.into(),
            }
            tokio::time::sleep(pause.min(deadline - now)).await;
            pause = (pause * 2).min(PAUSE[1]);
        }
    }

    /// Verifies that every identity in `signature` has signed a statement. Without `signature`, every statement is trusted.
    pub(super) async fn statement(&self, referrer: &Digest) -> Result<(), String> {
        self.all(referrer, SignatureRule::statements).await
    }

    /// Verifies that every identity in `signature` has signed a record. The record of a publication counts as a
    /// statement about the image. Promotions and rollbacks may have another signer.
    pub(crate) async fn record(&self, record: &Record, referrer: &Digest) -> Result<(), String> {
        match record.kind {
            RecordKind::Publish => self.statement(referrer).await,
            RecordKind::Promote | RecordKind::Rollback => self.all(referrer, SignatureRule::records).await,
        }
    }

    /// Verifies a record that was found in the store, like [`record`](Self::record).
    pub(super) async fn recorded(&self, found: &Recorded) -> Result<(), String> {
        self.record(&found.record, &found.digest).await
    }

    async fn all(&self, referrer: &Digest, identity: impl Fn(&SignatureRule) -> &Identity) -> Result<(), String> {
        for rule in self.rules {
            let identity = identity(rule);
            let outcome = match self.signatures.verify(self.reference, referrer, identity).await {
                Verification::Signed(_) => Ok(()),
                Verification::NotSigned { part, .. } | Verification::Undecided(part) => Err(part),
            };
            outcome.map_err(|reason| match identity {
                Identity::Notation => format!(
                    "{reason} (hint: ECR's managed signing only signs images: set `sign` in publish and promote, and add \
                     `records=` with that identity to `signature=notation`)"
                ),
                _ => reason,
            })?;
        }
        let address = format!("{}@{referrer}", self.reference.repository_address());
        lock(self.read).insert(address, referrer.clone());
        Ok(())
    }
}

impl From<Verification> for GateOutcome {
    fn from(verification: Verification) -> Self {
        match verification {
            Verification::Signed(sentence) => Ok(sentence),
            Verification::NotSigned { sentence, .. } | Verification::Undecided(sentence) => Err(sentence),
        }
    }
}

impl<'a> Signatures<'a> {
    /// Finds the programs that the rules need.
    pub(crate) fn new(
        rules: &[&SignatureRule],
        access: &RegistryAccess,
        options: &Options,
        (project, sigstore): (&'a Project, &'a Sigstore),
        runner: &'a Runner,
    ) -> Self {
        let variables = &runner.variables;
        let identities = || rules.iter().flat_map(|rule| [Some(&rule.image), rule.records.as_ref()]).flatten();
        let needs_notation = identities().any(|identity| *identity == Identity::Notation);
        let needs_cosign = identities().any(|identity| *identity != Identity::Notation);
        Self {
            cosign: if needs_cosign { cosign::find(variables) } else { None },
            notation: if needs_notation { notation::find(variables) } else { None },
            project,
            runner,
            registries: Registries {
                credentials: RegistryCredentials::new(access.aws.clone()),
                endpoints: options.endpoints.clone(),
                logins: Mutex::default(),
            },
            workflows: WorkflowIdentity::new(variables),
            sigstore,
            outcomes: Mutex::default(),
        }
    }

    /// Verifies that an identity has signed a digest of a repository.
    async fn verify(&self, reference: &Reference, digest: &Digest, identity: &Identity) -> Verification {
        let key = format!("{}@{digest} {identity:?}", reference.repository_address());
        let cell = lock(&self.outcomes).entry(key).or_default().clone();
        cell.get_or_init(|| self.look(reference, digest, identity)).await.clone()
    }

    /// Verifies like [`verify`](Self::verify), even if it was done before.
    async fn look(&self, reference: &Reference, digest: &Digest, identity: &Identity) -> Verification {
        self.try_look(reference, digest, identity).await.unwrap_or_else(Verification::Undecided)
    }

    /// Verifies like [`look`](Self::look). `Err` says why the result cannot be decided.
    async fn try_look(
        &self,
        reference: &Reference,
        digest: &Digest,
        identity: &Identity,
    ) -> Result<Verification, String> {
        let program = match identity {
            Identity::Notation => "notation",
            _ => "cosign",
        };
        let Location::Host(host) = &reference.location else {
            return Err(format!(
                "needs a signature, which {program} verifies in a registry, not in a store on disk: promote from a registry, \
                 or take `signature` out of `require`"
            ));
        };
        let command = match identity {
            Identity::Notation => self.notation(host, reference, digest).await?,
            _ => self.cosign(host, reference, digest, identity).await?,
        };
        let is_certificate = matches!(identity, Identity::OfRepository | Identity::Certificate { .. });
        let _roots_of_trust = if is_certificate { self.sigstore.public_roots().await } else { None };
        let Ok(_permit) = PROCESSES.acquire().await else {
            return Err("the run was cancelled before this gate was evaluated: run it again".to_owned());
        };
        let finished = run(command, OUTPUT_LIMIT, DEADLINE).await;
        let finished = finished.map_err(|error| super::unanswered("a signature", error))?;
        let digest = digest.short();
        if finished.status.success() {
            return Ok(Verification::Signed(format!("{program} verified that {identity} signed {digest}")));
        }
        let (reason, found_none) = failure(&finished, identity);
        if found_none {
            let sentence = format!(
                "needs a signature of {identity} on {digest}; {program} found none ({reason}): publish with `sign`, or name the \
                 identity that signed it"
            );
            let part = format!("{program} found no signature of {identity} on {digest}: {reason}");
            return Ok(Verification::NotSigned { sentence, part });
        }
        Err(format!(
            "needs a signature of {identity} on {digest}; {program} could not verify it ({reason}): correct what {program} says, \
             and run it again"
        ))
    }

    async fn cosign(
        &self,
        host: &str,
        reference: &Reference,
        digest: &Digest,
        identity: &Identity,
    ) -> Result<Command, String> {
        let Some(program) = &self.cosign else {
            return Err(format!(
                "needs cosign to verify signatures, but cosign is not on PATH: {}",
                setup::COSIGN.hint()
            ));
        };
        let arguments = self.workflows.arguments(identity, self.sigstore, |path| self.project.inside(path))?;
        let (host, login) = self.registries.login(host, &self.runner.variables.temporary()).await?;
        let mut command = cosign::command(program, &login);
        if let Identity::Key(key) = identity {
            grant(&mut command, Grant::PublicKey(key));
        }
        command.arg("verify").args(arguments).arg(format!("{host}/{}@{digest}", reference.repository));
        Ok(command)
    }

    async fn notation(&self, host: &str, reference: &Reference, digest: &Digest) -> Result<Command, String> {
        let Some(program) = &self.notation else {
            return Err(format!(
                "needs notation to verify signatures, but notation is not on PATH: {}",
                setup::NOTATION.hint()
            ));
        };
        let (host, login) = self.registries.login(host, &self.runner.variables.temporary()).await?;
        Ok(notation::verify(program, &login, &format!("{host}/{}", reference.repository), digest))
    }
}

/// Returns the reason of a failed verification, and whether it means that no signature matched.
fn failure(finished: &Finished, identity: &Identity) -> (String, bool) {
    let reason = cosign::reason(finished);
    let found_none = match identity {
        Identity::Notation => notation::found_none(&String::from_utf8_lossy(&finished.log)),
        _ => NO_MATCH.iter().any(|beginning| reason.starts_with(beginning)),
    };
    (reason, found_none)
}

impl Registries {
    /// Returns the authority under which a program reaches a host, and a Docker configuration with credentials for it
    /// alone.
    async fn login(&self, host: &str, temporary: &Path) -> Result<(String, PathBuf), String> {
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
        Self { arguments: cosign::identities_of_repository(variables), issuer: variables.certificate_issuer() }
    }

    /// Returns the options that tell cosign which identity to accept.
    fn arguments(
        &self,
        identity: &Identity,
        sigstore: &Sigstore,
        inside: impl Fn(&str) -> std::io::Result<PathBuf>,
    ) -> Result<Vec<String>, String> {
        let certificate = |mut arguments: Vec<String>, issuer: &str| {
            arguments.push(format!("--certificate-oidc-issuer={issuer}"));
            arguments.extend(sigstore.trust_arguments());
            arguments
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
                let missing = "`signature` names no identity, and the variables of this run name no repository that signs: write `signature=https://github.com/OWNER/REPO/.github/workflows/FILE.yml@refs/heads/main`";
                Ok(certificate(self.arguments.clone().ok_or(missing)?, &self.issuer))
            }
            Identity::Certificate { subject, issuer } => {
                let issuer = issuer.as_deref().unwrap_or(&self.issuer);
                let subject = match subject {
                    Subject::Exact(subject) => format!("--certificate-identity={subject}"),
                    Subject::Matching(pattern) => format!("--certificate-identity-regexp=^(?:{pattern})$"),
                };
                Ok(certificate(vec![subject], issuer))
            }
            Identity::Notation => Ok(Vec::new()),
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(path: &str) -> std::io::Result<PathBuf> {
        Ok(Path::new("/missing").join(path))
    }

    fn arguments(identity: &Identity) -> Result<Vec<String>, String> {
        let workflows = WorkflowIdentity::new(&Variables::from([("GITHUB_REPOSITORY", "o/n.x")]));
        workflows.arguments(identity, &Sigstore::default(), missing)
    }

    #[test]
    fn identities_become_options_of_cosign() {
        insta::assert_debug_snapshot!(arguments(&Identity::OfRepository), @r#"
        Ok(
            [
                "--certificate-identity-regexp=^https://github\\.com/",
                "--certificate-github-workflow-repository=o/n.x",
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
        assert!(unknown.arguments(&Identity::OfRepository, &Sigstore::default(), missing).is_err());
        let own = Sigstore { trusted_root: Some("/checkout/root.json".into()), signing_config: None };
        let workflows = WorkflowIdentity::new(&Variables::from([("GITHUB_REPOSITORY", "o/n.x")]));
        let with_own_root = workflows.arguments(&matching, &own, missing).unwrap();
        assert_eq!(with_own_root.last().unwrap(), "--trusted-root=/checkout/root.json");
    }
}
