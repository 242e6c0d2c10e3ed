//! Credentials for base images in private ECR, which exist while the builder runs.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokio::process::Command;

use lifecycle::ActionError;
use lifecycle::access::RegistryCredentials;
use lifecycle::access::{Login, auths_entry};
use lifecycle::aws::Aws;
use registry::{CredentialSource, EcrHost};
use runner_protocol::Variables;

use crate::dockerfile::{PullSource, Substitutions, canonical};
use crate::image::Image;

/// Docker's configuration file.
type DockerConfig = serde_json::Map<String, Value>;

/// The name of the configuration for buildx.
const FOR_BUILDX: &str = "config.json";

/// The name of the configuration for buildah, which would run a credential helper with an empty name.
const FOR_BUILDAH: &str = "auth.json";

/// Docker configurations of this run: copies of the user's, with a token for each ECR registry that base images come from.
pub(crate) struct BaseCredentials {
    login: Option<Login>,
    /// The folder in which buildx keeps its builders, which stays the user's.
    buildx: Option<PathBuf>,
}

impl BaseCredentials {
    /// Adds no credentials: the builder uses the user's.
    pub(crate) fn none() -> Self {
        Self { login: None, buildx: None }
    }

    /// Gets a token for each ECR registry that base images or `others` come from. Without such a registry, AWS is not
    /// called, and a build needs no AWS credentials.
    ///
    /// # Errors
    /// If a token cannot be obtained, or the configurations cannot be written.
    pub(crate) async fn prepare(
        images: &[Image],
        others: &[String],
        substitutions: &Substitutions,
        aws: &Arc<Aws>,
        variables: &Variables,
    ) -> anyhow::Result<Self> {
        let hosts = ecr_hosts(images, others, substitutions);
        if hosts.is_empty() {
            return Ok(Self::none());
        }
        let source = RegistryCredentials::new(aws.clone());
        let users = variables.docker_config();
        let users_own = users.as_deref().map(read_config).transpose()?.unwrap_or_default();
        let mut tokens = Vec::new();
        for host in hosts {
            if let Some(token) = auths_entry(&source.credentials(&host).await?) {
                tokens.push((host, token));
            }
        }
        let files =
            [(FOR_BUILDX, for_buildx(users_own.clone(), &tokens)), (FOR_BUILDAH, for_buildah(users_own, &tokens))];
        let unusable =
            |error: std::io::Error| ActionError::failure("cannot write credentials of base images").because(error);
        let login = Login::with_files(&files, &variables.temporary()).map_err(unusable)?;
        if let Some(users) = &users {
            for shared in ["cli-plugins", "contexts"] {
                if users.join(shared).is_dir() {
                    symlink(users.join(shared), login.folder().join(shared)).map_err(unusable)?;
                }
            }
        }
        let buildx = variables.get("BUILDX_CONFIG").map(PathBuf::from).or_else(|| Some(users?.join("buildx")));
        Ok(Self { login: Some(login), buildx })
    }

    /// Passes the credentials to buildx.
    pub(super) fn grant_to_buildx(&self, command: &mut Command) {
        if let Some(login) = &self.login {
            command.env("DOCKER_CONFIG", login.folder());
            if let Some(buildx) = &self.buildx {
                command.env("BUILDX_CONFIG", buildx);
            }
        }
    }

    /// Passes the credentials to buildah.
    pub(super) fn grant_to_buildah(&self, command: &mut Command) {
        if let Some(login) = &self.login {
            command.env("REGISTRY_AUTH_FILE", login.folder().join(FOR_BUILDAH));
        }
    }
}

/// Adds tokens to a configuration for buildx. The empty credential helper makes it read the host's token from the file rather
/// than from `credsStore`.
fn for_buildx(mut config: DockerConfig, tokens: &[(String, Value)]) -> Value {
    for (host, token) in tokens {
        section(&mut config, "auths").map(|auths| auths.insert(host.clone(), token.clone()));
        section(&mut config, "credHelpers").map(|helpers| helpers.insert(host.clone(), "".into()));
    }
    config.into()
}

/// Adds tokens to a configuration for buildah. A credential helper of the host would take precedence; `credsStore` is ignored.
fn for_buildah(mut config: DockerConfig, tokens: &[(String, Value)]) -> Value {
    for (host, token) in tokens {
        section(&mut config, "auths").map(|auths| auths.insert(host.clone(), token.clone()));
        section(&mut config, "credHelpers").map(|helpers| helpers.remove(host));
    }
    config.into()
}

/// Returns a section of a configuration, which is created if necessary.
fn section<'c>(config: &'c mut DockerConfig, name: &str) -> Option<&'c mut DockerConfig> {
    let section = config.entry(name).or_insert_with(|| DockerConfig::new().into());
    if !section.is_object() {
        *section = DockerConfig::new().into();
    }
    section.as_object_mut()
}

/// Returns the ECR registries that base images and `others` are pulled from, after substitutions.
fn ecr_hosts(images: &[Image], others: &[String], substitutions: &Substitutions) -> BTreeSet<String> {
    let pulled = |reference: &str| match substitutions.source_of(reference) {
        None => canonical(reference),
        Some(PullSource::Registry(reference)) => Some(reference),
        Some(PullSource::Layout { .. }) => None,
    };
    let bases = images.iter().flat_map(Image::bases).map(|base| base.reference.as_str());
    let all = bases.chain(others.iter().map(String::as_str));
    let hosts = all.filter_map(|reference| Some(pulled(reference)?.split('/').next()?.to_owned()));
    hosts.filter(|host| EcrHost::parse(host).is_some()).collect()
}

fn read_config(folder: &Path) -> Result<DockerConfig, ActionError> {
    let path = folder.join("config.json");
    let broken = || ActionError::failure(format!("cannot use {}", path.display()));
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| broken().because(error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(DockerConfig::new()),
        Err(error) => Err(broken().because(error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_take_precedence_over_the_users_credentials() {
        let host = "1.dkr.ecr.us-east-1.amazonaws.com";
        let token = [(host.to_owned(), json!({"auth": "t"}))];
        let own = |text: Value| -> DockerConfig { serde_json::from_value(text).unwrap() };
        let users =
            json!({"auths": {"other": {}}, "credsStore": "all", "credHelpers": {host: "ecr-login", "other": "x"}});
        let auths = json!({"other": {}, host: {"auth": "t"}});
        let buildx = json!({"auths": auths, "credsStore": "all", "credHelpers": {host: "", "other": "x"}});
        assert_eq!(for_buildx(own(users.clone()), &token), buildx);
        let buildah = json!({"auths": auths, "credsStore": "all", "credHelpers": {"other": "x"}});
        assert_eq!(for_buildah(own(users), &token), buildah);
        let strange = || own(json!({"auths": "a", "credHelpers": []}));
        assert_eq!(for_buildx(strange(), &token)["credHelpers"], json!({host: ""}));
        assert_eq!(for_buildah(strange(), &token), json!({"auths": {host: {"auth": "t"}}, "credHelpers": {}}));
    }
}
