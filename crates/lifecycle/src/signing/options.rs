use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::{Mutex, MutexGuard, OnceCell};

use super::cosign;
use crate::job_token::{TokenService, workflow_of_job};
use crate::naming::Names;
use crate::{ActionError, setup};
use oci::Location;
use runner_protocol::{CiSystem, Input, InputError, Variables};

/// The audience of tokens for Sigstore.
const AUDIENCE: &str = "sigstore";

/// The text of the inputs about signatures.
pub struct SigningInputs<'a> {
    /// `sign`
    pub sign: Input<'a>,
    /// `signing-config`
    pub signing_config: Input<'a>,
    /// `trusted-root`
    pub trusted_root: Input<'a>,
}

/// The parsed inputs about signatures.
pub struct SigningOptions {
    /// How a run signs, if it does.
    pub signing: Option<Signing>,
    /// The Sigstore that signatures are made and verified with.
    pub sigstore: Sigstore,
}

/// A private Sigstore. Without these files, cosign uses the public one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sigstore {
    /// The addresses of its services: a signing configuration.
    pub signing_config: Option<PathBuf>,
    /// The certificates and keys of its services: a trusted root.
    pub trusted_root: Option<PathBuf>,
}

/// How images and records are signed: the input `sign`, with the path of cosign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signing {
    pub(super) program: PathBuf,
    pub(super) identity: SigningIdentity,
    pub(super) sigstore: Sigstore,
    /// The identity in certificates of this job, once it is known.
    pub(super) certificate: OnceCell<Option<String>>,
}

/// What signatures are made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SigningIdentity {
    /// A certificate for this workflow.
    Keyless,
    /// A key: the path of a file, or an address in a key management service.
    Key(String),
}

impl SigningInputs<'_> {
    /// Parses the inputs, and finds cosign if the run signs. `inside` resolves a path in the checkout.
    ///
    /// # Errors
    /// If a value is malformed, a file is missing or outside of the checkout, or cosign is not on `PATH`.
    pub fn parse(
        &self,
        inside: impl Fn(&str) -> io::Result<PathBuf>,
        variables: &Variables,
    ) -> anyhow::Result<SigningOptions> {
        let sigstore = Sigstore {
            signing_config: file(&self.signing_config, &inside)?,
            trusted_root: file(&self.trusted_root, &inside)?,
        };
        let Some(identity) = SigningIdentity::parse(&self.sign, &inside)? else {
            return Ok(SigningOptions { signing: None, sigstore });
        };
        let missing = || ActionError::failure("input `sign`: cosign is not on PATH").hint(setup::COSIGN.hint());
        let program = cosign::find(variables).ok_or_else(missing)?;
        Ok(SigningOptions {
            signing: Some(Signing { program, identity, sigstore: sigstore.clone(), certificate: OnceCell::new() }),
            sigstore,
        })
    }
}

impl Signing {
    /// Returns the command that verifies a signature of this run, or `None` if the run does not know its own workflow.
    pub fn verification(&self, image: &str, variables: &Variables) -> Option<String> {
        let root = self.sigstore.trusted_root.as_deref().map(|path| format!(" --trusted-root '{}'", path.display()));
        let accepted = match &self.identity {
            SigningIdentity::Key(key) if key.contains("://") => format!("--key '{key}'"),
            SigningIdentity::Key(path) => {
                let public = Path::new(path).with_extension("pub");
                format!("--key '{}'", public.file_name()?.display())
            }
            SigningIdentity::Keyless => {
                let known = self.certificate.get().cloned().unwrap_or_else(|| variables.certificate_identity());
                let (issuer, identity) = (variables.certificate_issuer(), known?);
                format!("--certificate-oidc-issuer '{issuer}' \\\n  --certificate-identity '{identity}'")
            }
        };
        Some(format!("cosign verify {image} \\\n  {accepted}{}", root.unwrap_or_default()))
    }

    /// Returns the identity for which Sigstore issues a certificate to this job. In a job of a called workflow, only the
    /// job's token names that workflow.
    pub(super) async fn certificate_identity(&self, variables: &Variables) -> Option<String> {
        let read = async || {
            let service = TokenService::of(variables).filter(|_| variables.ci_system() == CiSystem::GitHub);
            let token = match service {
                Some(service) => service.token(AUDIENCE).await.ok(),
                None => None,
            };
            let workflow = token.and_then(|token| workflow_of_job(&token));
            let identity = workflow.map(|workflow| variables.workflow_identity(&workflow));
            identity.or_else(|| variables.certificate_identity())
        };
        self.certificate.get_or_init(read).await.clone()
    }

    /// Waits until no other program uses the public Sigstore's roots of trust, if these signatures need them.
    pub(super) async fn public_roots(&self) -> Option<MutexGuard<'static, ()>> {
        match self.identity {
            SigningIdentity::Keyless => self.sigstore.public_roots().await,
            SigningIdentity::Key(_) => None,
        }
    }
}

impl SigningIdentity {
    fn parse(input: &Input<'_>, inside: impl Fn(&str) -> io::Result<PathBuf>) -> Result<Option<Self>, InputError> {
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

/// Held while cosign uses the public Sigstore: it first updates the roots of trust in a folder that only one process may
/// write to.
static PUBLIC_ROOTS: Mutex<()> = Mutex::const_new(());

impl Sigstore {
    /// Waits until no other program uses the public Sigstore's roots of trust, if this is the public one.
    pub async fn public_roots(&self) -> Option<MutexGuard<'static, ()>> {
        if self.trusted_root.is_some() { None } else { Some(PUBLIC_ROOTS.lock().await) }
    }

    /// Returns the options that tell cosign whose certificates and logs to trust.
    pub fn trust_arguments(&self) -> Option<String> {
        self.trusted_root.as_deref().map(|path| option("trusted-root", path))
    }

    /// Returns the options that tell cosign where to sign, and whose answers to trust.
    pub(super) fn signing_arguments(&self) -> impl Iterator<Item = String> {
        let config = self.signing_config.as_deref().map(|path| option("signing-config", path));
        config.into_iter().chain(self.trust_arguments())
    }
}

/// Refuses names in a store on disk, because cosign only signs in registries.
///
/// # Errors
/// If there is such a name.
pub fn refuse_disk(names: &Names) -> Result<(), ActionError> {
    let on_disk = |location: &Location| matches!(location, Location::Directory(_));
    let Some(named) = names.images.iter().find(|named| on_disk(&named.reference.location)) else { return Ok(()) };
    let message = format!("input `sign`: `{}` is on disk, but cosign signs images in a registry", named.reference);
    Err(ActionError::usage_error(message).at(named.source_location.clone()).hint("set `sign: off`"))
}

fn option(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

/// Returns the path of a file that an input names.
fn file(input: &Input<'_>, inside: impl Fn(&str) -> io::Result<PathBuf>) -> Result<Option<PathBuf>, InputError> {
    let Some(text) = input.text() else { return Ok(None) };
    let path = inside(text).map_err(|error| input.refuse(error))?;
    if path.is_file() {
        Ok(Some(path))
    } else {
        Err(input.refuse("the path of a file, relative to `working-directory`"))
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
                return Err(io::Error::other("it lies outside the checkout"));
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
