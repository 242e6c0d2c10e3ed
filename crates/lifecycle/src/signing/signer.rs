//! Signatures by cosign, of the image and of what is attached to it: unsigned evidence proves nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::cosign;
use super::options::{Signing, SigningIdentity};
use crate::ActionError;
use crate::access::{Login, RegistryCredentials, authority};
use crate::aws::Aws;
use ::registry::{CredentialSource, Options};
use oci::{Digest, Location, Reference};
use runner_protocol::{Finished, Grant, ProcessError, Runner, grant, run};
use tokio::process::Command;
use tokio::sync::Semaphore;

/// Limit for all signatures of an image: a few requests each and, for a certificate, to the transparency log.
const DEADLINE: Duration = Duration::from_secs(600);

/// The maximum output of cosign, in bytes.
const OUTPUT_LIMIT: usize = 4 * 1024 * 1024;

/// The maximum number of concurrent processes of cosign. Each takes some 100 MiB.
static PROCESSES: Semaphore = Semaphore::const_new(4);

/// Signs and verifies images.
#[derive(Clone, Copy)]
pub struct Signer<'a> {
    /// How it signs.
    pub signing: &'a Signing,
    /// Where it signs.
    pub registries: Registries<'a>,
}

/// Access to registries.
#[derive(Clone, Copy)]
pub struct Registries<'a> {
    /// The AWS identity, for credentials.
    pub aws: &'a Arc<Aws>,
    /// The options of registry clients.
    pub options: &'a Options,
    /// The runner.
    pub runner: &'a Runner,
}

/// The workflows whose certificates are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workflows {
    /// This workflow on this branch or tag.
    Current,
    /// Any workflow of this repository: a release was signed on another tag.
    OfRepository,
}

impl Signer<'_> {
    /// Verifies that a digest has a signature of this key, or of certain workflows.
    ///
    /// # Errors
    /// If cosign finds none, or cannot verify.
    pub async fn verify(
        &self,
        reference: &Reference,
        digest: &Digest,
        workflows: Workflows,
    ) -> Result<(), ActionError> {
        let failed = |what: &str| ActionError::failure(format!("cannot verify {}: {what}", digest.short()));
        let program = &self.signing.program;
        let (authority, login) = self.registries.login(reference).await?;
        let mut command = cosign::command(program, login.folder());
        command.arg("verify");
        match &self.signing.identity {
            SigningIdentity::Key(key) => {
                let path = public_key(program, key, login.folder(), failed).await?;
                command.arg("--key").arg(path).arg("--insecure-ignore-tlog=true");
            }
            SigningIdentity::Keyless => {
                let variables = &self.registries.runner.variables;
                let identity = match workflows {
                    Workflows::Current => {
                        let identity = self.signing.certificate_identity(variables).await;
                        identity.map(|name| vec![format!("--certificate-identity={name}")])
                    }
                    Workflows::OfRepository => cosign::identities_of_repository(variables),
                };
                command.args(identity.ok_or_else(|| failed("the variables of the runner do not name the workflow"))?);
                command.arg(format!("--certificate-oidc-issuer={}", variables.certificate_issuer()));
                command.args(self.signing.sigstore.trust_arguments());
            }
        }
        command.arg(format!("{authority}/{}@{digest}", reference.repository));
        let _public_roots = self.signing.public_roots().await;
        let finished = run_cosign(command).await.map_err(|error| failed("cosign did not run").because(error))?;
        if finished.status.success() { Ok(()) } else { Err(failed(&cosign::reason(&finished))) }
    }

    /// Signs digests of a repository.
    ///
    /// # Errors
    /// If cosign fails.
    pub async fn sign(&self, reference: &Reference, digests: &[Digest]) -> Result<(), ActionError> {
        let failed = |what: &str| ActionError::failure(format!("cannot sign `{reference}`: {what}"));
        let program = &self.signing.program;
        let (authority, login) = self.registries.login(reference).await?;
        let mut command = cosign::command(program, login.folder());
        command.args(["sign", "--yes"]);
        match &self.signing.identity {
            SigningIdentity::Key(key) => {
                grant(&mut command, Grant::PrivateKey(key));
                command.args(["--key", key]);
                // A private Sigstore was set on purpose. Without one, signing with a private key is no consent to an entry
                // in a public log.
                if self.signing.sigstore.signing_config.is_some() {
                    command.args(self.signing.sigstore.signing_arguments());
                } else {
                    let unlogged = cosign::no_log_argument(program, login.folder()).await;
                    command.arg(
                        unlogged.map_err(|error| {
                            failed("cannot keep the signature out of the public log").because(error)
                        })?,
                    );
                }
            }
            SigningIdentity::Keyless => {
                grant(&mut command, Grant::IdentityToken);
                // For the command that verifies the signature.
                self.signing.certificate_identity(&self.registries.runner.variables).await;
                command.args(self.signing.sigstore.signing_arguments());
            }
        }
        for digest in digests {
            command.arg(format!("{authority}/{}@{digest}", reference.repository));
        }
        let _public_roots = self.signing.public_roots().await;
        let finished = run_cosign(command).await.map_err(|error| failed("cosign did not run").because(error))?;
        if !finished.status.success() {
            self.registries.runner.group(&format!("cosign sign {reference}"), &finished.log);
            return Err(failed(&cosign::reason(&finished)));
        }
        Ok(())
    }
}

async fn run_cosign(command: Command) -> Result<Finished, ProcessError> {
    let _permit = PROCESSES.acquire().await;
    run(command, OUTPUT_LIMIT, DEADLINE).await
}

/// Writes the public key of a private key into a folder, and returns its path.
async fn public_key(
    program: &Path,
    key: &str,
    folder: &Path,
    failed: impl Fn(&str) -> ActionError,
) -> Result<PathBuf, ActionError> {
    let mut command = cosign::command(program, folder);
    grant(&mut command, Grant::PrivateKey(key));
    command.args(["public-key", "--key", key]);
    let finished = run(command, OUTPUT_LIMIT, DEADLINE).await;
    let finished = finished.map_err(|error| failed("cosign did not run").because(error))?;
    if !finished.status.success() {
        return Err(failed(&format!("no public key: {}", cosign::reason(&finished))));
    }
    let path = folder.join("signing.pub");
    std::fs::write(&path, finished.stdout).map_err(|error| failed("cannot write the public key").because(error))?;
    Ok(path)
}

impl Registries<'_> {
    /// Returns the authority under which cosign reaches a registry, and a Docker configuration with credentials for it.
    async fn login(&self, reference: &Reference) -> Result<(String, Login), ActionError> {
        let Location::Host(host) = &reference.location else {
            return Err(ActionError::usage_error("cosign signs images in a registry, not in a store on disk")
                .hint("set `sign: off`"));
        };
        let authority = match self.options.endpoints.get(host) {
            Some(endpoint) => authority(endpoint).ok_or_else(|| {
                ActionError::usage_error(format!("cosign does not support the path in `registry-endpoints` for {host}"))
            })?,
            None => host.clone(),
        };
        let failed = |what: &str| ActionError::failure(format!("cannot sign `{reference}`: {what}"));
        let credentials = RegistryCredentials::new(self.aws.clone()).credentials(host).await;
        let credentials = credentials.map_err(|error| failed("no credentials").because(error))?;
        let login = Login::write(&authority, &credentials, &self.runner.variables.temporary());
        let login = login.map_err(|error| failed("cannot write the credentials for cosign").because(error))?;
        Ok((authority, login))
    }
}
