//! Signatures by cosign: of the image, and of what is attached to it, because evidence by itself proves nothing.

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
use runner_protocol::{Grant, Input, InputError, Runner, grant, run};

/// All signatures of an image: some requests each, and for a certificate to the transparency log.
const DEADLINE: Duration = Duration::from_secs(600);

/// What cosign prints, in bytes.
const OUTPUT: usize = 4 * 1024 * 1024;

/// The input `sign`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Signing {
    /// Nothing is signed.
    Off,
    /// By a certificate for this workflow.
    Keyless,
    /// By a key: a file, or the address of one in a KMS.
    Key(String),
}

impl Signing {
    /// Reads the input. Where the path of a key file leads, `inside` says.
    ///
    /// # Errors
    /// When it is something else, or the file is not there or lies where it may not.
    pub(crate) fn parse(
        input: &Input<'_>,
        inside: impl Fn(&str) -> std::io::Result<PathBuf>,
    ) -> Result<Self, InputError> {
        match input.text() {
            None | Some("off") => Ok(Self::Off),
            Some("keyless") => Ok(Self::Keyless),
            Some(text) => match text.strip_prefix("key:") {
                Some(address) if address.contains("://") => Ok(Self::Key(address.to_owned())),
                Some(path) if !path.is_empty() => {
                    let path = inside(path).map_err(|error| input.refuse(error))?;
                    match path.is_file() {
                        true => Ok(Self::Key(path.display().to_string())),
                        false => Err(input.refuse(format!("there is no key file {}", path.display()))),
                    }
                }
                _ => Err(input.refuse("off, keyless, or key: with the path of a key or its address in a KMS")),
            },
        }
    }

    /// cosign, where something is to be signed.
    ///
    /// # Errors
    /// When it is not on `PATH`.
    pub(crate) fn cosign(&self, runner: &Runner) -> Result<Option<PathBuf>, ActionError> {
        if *self == Self::Off {
            return Ok(None);
        }
        let missing = || {
            ActionError::failure("input `sign`: cosign is not on PATH")
                .hint("run sigstore/cosign-installer before this step")
        };
        cosign::find(&runner.variables).ok_or_else(missing).map(Some)
    }

    /// Whether a digest has a signature that would be ours.
    ///
    /// # Errors
    /// When cosign finds none, or can't look.
    pub(crate) async fn verify(
        &self,
        program: &Path,
        reference: &Reference,
        digest: &Digest,
        whose: Whose,
        reach: &Reach<'_>,
    ) -> Result<(), ActionError> {
        let failed = |what: &str| ActionError::failure(format!("cannot verify {}: {what}", digest.short()));
        let (reached, login) = reach.login(reference).await?;
        let mut command = cosign::command(program, login.folder());
        command.arg("verify");
        match self {
            Self::Key(key) => {
                let mut public = cosign::command(program, login.folder());
                grant(&mut public, Grant::PrivateKey(key));
                public.args(["public-key", "--key", key]);
                let public = run(public, OUTPUT, DEADLINE).await;
                let public = public.map_err(|error| failed("cosign did not run").because(error))?;
                if !public.status.success() {
                    return Err(failed(&format!("no public key: {}", cosign::reason(&public))));
                }
                let path = login.folder().join("signing.pub");
                std::fs::write(&path, public.stdout).map_err(|error| failed("no public key").because(error))?;
                command.arg("--key").arg(path).arg("--insecure-ignore-tlog=true");
            }
            Self::Keyless | Self::Off => {
                let environment = &reach.runner.variables;
                let identity = match whose {
                    Whose::Run => cosign::identity(environment).map(|name| format!("--certificate-identity={name}")),
                    Whose::Repository => cosign::identities_of_repository(environment)
                        .map(|pattern| format!("--certificate-identity-regexp={pattern}")),
                };
                command.arg(identity.ok_or_else(|| failed("the run does not say whose workflow it is"))?);
                command.arg(format!("--certificate-oidc-issuer={}", cosign::issuer(environment)));
            }
        }
        command.arg(format!("{reached}/{}@{digest}", reference.repository));
        let finished =
            run(command, OUTPUT, DEADLINE).await.map_err(|error| failed("cosign did not run").because(error))?;
        match finished.status.success() {
            true => Ok(()),
            false => Err(failed(&cosign::reason(&finished))),
        }
    }

    /// Signs digests of a repository.
    ///
    /// # Errors
    /// When cosign does not.
    pub(crate) async fn sign(
        &self,
        program: &Path,
        reference: &Reference,
        digests: &[Digest],
        reach: &Reach<'_>,
    ) -> Result<(), ActionError> {
        let failed = |what: &str| ActionError::failure(format!("cannot sign `{reference}`: {what}"));
        let (reached, login) = reach.login(reference).await?;
        let mut command = cosign::command(program, login.folder());
        command.args(["sign", "--yes"]);
        if let Self::Key(key) = self {
            grant(&mut command, Grant::PrivateKey(key));
            command.args(["--key", key]);
            // Who signs with a key of their own has not asked to be in a public log.
            let unlogged = cosign::no_log_argument(program, login.folder()).await;
            command.arg(
                unlogged.map_err(|error| failed("cosign can't be told to keep it out of the log").because(error))?,
            );
        } else {
            grant(&mut command, Grant::IdentityToken);
        }
        for digest in digests {
            command.arg(format!("{reached}/{}@{digest}", reference.repository));
        }
        let finished =
            run(command, OUTPUT, DEADLINE).await.map_err(|error| failed("cosign did not run").because(error))?;
        match finished.status.success() {
            true => Ok(()),
            false => {
                reach.runner.group(&format!("cosign sign {reference}"), &finished.log);
                Err(failed(&cosign::reason(&finished)))
            }
        }
    }
}

/// How registries are reached, and as whom.
pub(crate) struct Reach<'a> {
    pub(crate) aws: &'a Arc<Aws>,
    pub(crate) options: &'a Options,
    pub(crate) runner: &'a Runner,
}

impl Reach<'_> {
    /// The registry as cosign has to call it, with a Docker configuration for it.
    async fn login(&self, reference: &Reference) -> Result<(String, Login), ActionError> {
        let Location::Host(host) = &reference.location else {
            return Err(
                ActionError::usage_error("cosign signs in registries, not in a store on disk").hint("set `sign: off`")
            );
        };
        let reached = match self.options.endpoints.get(host) {
            Some(endpoint) => authority(endpoint).ok_or_else(|| {
                ActionError::usage_error(format!(
                    "cosign can't reach {host} below a path, as `registry-endpoints` has it"
                ))
            })?,
            None => host.clone(),
        };
        let failed = |what: &str| ActionError::failure(format!("cannot sign `{reference}`: {what}"));
        let credentials = RegistryCredentials::new(self.aws.clone()).credentials(host).await;
        let credentials = credentials.map_err(|error| failed("no credentials").because(error))?;
        let login = Login::write(&reached, &credentials, &self.runner.variables.temporary());
        let login = login.map_err(|error| failed("its credentials can't be written").because(error))?;
        Ok((reached, login))
    }
}

/// Whose signature counts as ours, where certificates sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// That of this workflow on this branch or tag.
    Run,
    /// That of any workflow of this repository: a release has another tag.
    Repository,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cosign.key"), "").unwrap();
        let inside = |path: &str| match path.starts_with("..") {
            true => Err(std::io::Error::other("it lies outside the checkout")),
            false => Ok(folder.path().join(path)),
        };
        let parse = |typed| Signing::parse(&Input::new("sign", typed), inside);
        assert_eq!(parse("").unwrap(), Signing::Off);
        assert_eq!(parse("keyless").unwrap(), Signing::Keyless);
        assert_eq!(parse("key:awskms:///alias/x").unwrap(), Signing::Key("awskms:///alias/x".into()));
        assert!(matches!(parse("key:cosign.key").unwrap(), Signing::Key(_)));
        for typed in ["yes", "key:", "key:no-such.key", "key:../cosign.key"] {
            assert!(parse(typed).is_err(), "{typed}");
        }
    }
}
