//! Signatures by cosign, of the image and of what is attached to it: unsigned evidence proves nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifecycle::ActionError;
use lifecycle::access::RegistryCredentials;
use lifecycle::access::{Login, authority};
use lifecycle::aws::Aws;
use lifecycle::cosign;
use oci::{Digest, Location, Reference};
use registry::{CredentialSource, Options};
use runner_protocol::{Grant, Input, InputError, Runner, Variables, grant, run};

/// Limit for all signatures of an image: a few requests each and, for a certificate, to the transparency log.
const DEADLINE: Duration = Duration::from_secs(600);

/// Bytes that cosign may print.
const OUTPUT_LIMIT: usize = 4 * 1024 * 1024;

/// How images are signed: the input `sign`, with the path of cosign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signing {
    program: PathBuf,
    identity: SigningIdentity,
}

/// What images are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SigningIdentity {
    /// A certificate for this workflow.
    Keyless,
    /// A key: the path of a file, or an address in a key management service.
    Key(String),
}

/// Signs and verifies images.
#[derive(Clone, Copy)]
pub(crate) struct Signer<'a> {
    pub(crate) signing: &'a Signing,
    pub(crate) registries: Registries<'a>,
}

/// Access to registries.
#[derive(Clone, Copy)]
pub(crate) struct Registries<'a> {
    pub(crate) aws: &'a Arc<Aws>,
    pub(crate) options: &'a Options,
    pub(crate) runner: &'a Runner,
}

/// The workflows whose certificates are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workflows {
    /// This workflow on this branch or tag.
    Current,
    /// Any workflow of this repository: a release was signed on another tag.
    OfRepository,
}

impl Signing {
    /// Parses the input, and finds cosign. Returns none for `off`. `inside` resolves the path of a key file.
    ///
    /// # Errors
    /// If the value is malformed, the key file is missing or outside of the checkout, or cosign is not on `PATH`.
    pub(crate) fn parse(
        input: &Input<'_>,
        inside: impl Fn(&str) -> std::io::Result<PathBuf>,
        variables: &Variables,
    ) -> anyhow::Result<Option<Self>> {
        let Some(identity) = SigningIdentity::parse(input, inside)? else { return Ok(None) };
        let missing = || {
            ActionError::failure("input `sign`: cosign is not on PATH")
                .hint("run sigstore/cosign-installer before this step")
        };
        let program = cosign::find(variables).ok_or_else(missing)?;
        Ok(Some(Self { program, identity }))
    }
}

impl SigningIdentity {
    fn parse(input: &Input<'_>, inside: impl Fn(&str) -> std::io::Result<PathBuf>) -> Result<Option<Self>, InputError> {
        match input.text() {
            None | Some("off") => Ok(None),
            Some("keyless") => Ok(Some(Self::Keyless)),
            Some(text) => match text.strip_prefix("key:") {
                Some(address) if address.contains("://") => Ok(Some(Self::Key(address.to_owned()))),
                Some(path) if !path.is_empty() => {
                    let path = inside(path).map_err(|error| input.refuse(error))?;
                    if !path.is_file() {
                        return Err(input.refuse(format!("there is no key file {}", path.display())));
                    }
                    Ok(Some(Self::Key(path.display().to_string())))
                }
                _ => Err(input.refuse("off, keyless, or key: with the path of a key or its address in a KMS")),
            },
        }
    }
}

impl Signer<'_> {
    /// Verifies that a digest has a signature of this key, or of certain workflows.
    ///
    /// # Errors
    /// If cosign finds none, or cannot verify.
    pub(crate) async fn verify(
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
                        cosign::identity(variables).map(|name| format!("--certificate-identity={name}"))
                    }
                    Workflows::OfRepository => cosign::identities_of_repository(variables)
                        .map(|pattern| format!("--certificate-identity-regexp={pattern}")),
                };
                command.arg(identity.ok_or_else(|| failed("the variables of the runner do not name the workflow"))?);
                command.arg(format!("--certificate-oidc-issuer={}", cosign::issuer(variables)));
            }
        }
        command.arg(format!("{authority}/{}@{digest}", reference.repository));
        let finished =
            run(command, OUTPUT_LIMIT, DEADLINE).await.map_err(|error| failed("cosign did not run").because(error))?;
        if finished.status.success() { Ok(()) } else { Err(failed(&cosign::reason(&finished))) }
    }

    /// Signs digests of a repository.
    ///
    /// # Errors
    /// If cosign fails.
    pub(crate) async fn sign(&self, reference: &Reference, digests: &[Digest]) -> Result<(), ActionError> {
        let failed = |what: &str| ActionError::failure(format!("cannot sign `{reference}`: {what}"));
        let program = &self.signing.program;
        let (authority, login) = self.registries.login(reference).await?;
        let mut command = cosign::command(program, login.folder());
        command.args(["sign", "--yes"]);
        match &self.signing.identity {
            SigningIdentity::Key(key) => {
                grant(&mut command, Grant::PrivateKey(key));
                command.args(["--key", key]);
                // Signing with a private key is no consent to an entry in a public log.
                let unlogged = cosign::no_log_argument(program, login.folder()).await;
                command.arg(
                    unlogged
                        .map_err(|error| failed("cannot keep the signature out of the public log").because(error))?,
                );
            }
            SigningIdentity::Keyless => grant(&mut command, Grant::IdentityToken),
        }
        for digest in digests {
            command.arg(format!("{authority}/{}@{digest}", reference.repository));
        }
        let finished =
            run(command, OUTPUT_LIMIT, DEADLINE).await.map_err(|error| failed("cosign did not run").because(error))?;
        if !finished.status.success() {
            self.registries.runner.group(&format!("cosign sign {reference}"), &finished.log);
            return Err(failed(&cosign::reason(&finished)));
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_input_sign_is_parsed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cosign.key"), "").unwrap();
        let inside = |path: &str| {
            if path.starts_with("..") {
                return Err(std::io::Error::other("it lies outside the checkout"));
            }
            Ok(folder.path().join(path))
        };
        let parse = |text| SigningIdentity::parse(&Input::new("sign", text), inside);
        assert_eq!(parse("").unwrap(), None);
        assert_eq!(parse("keyless").unwrap(), Some(SigningIdentity::Keyless));
        assert_eq!(parse("key:awskms:///alias/x").unwrap(), Some(SigningIdentity::Key("awskms:///alias/x".into())));
        assert!(matches!(parse("key:cosign.key").unwrap(), Some(SigningIdentity::Key(_))));
        for text in ["yes", "key:", "key:no-such.key", "key:../cosign.key"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
