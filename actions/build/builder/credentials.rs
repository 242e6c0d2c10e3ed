//! Credentials of base images in private ECR, for as long as the builder runs.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokio::process::Command;

use lifecycle::ActionError;
use lifecycle::access::{Login, entry};
use lifecycle::access::RegistryCredentials;
use lifecycle::aws::Aws;
use registry::{CredentialSource, EcrHost};
use runner_protocol::Variables;

use crate::dockerfile::{Origin, Substitutions, canonical};
use crate::plan::Image;

/// Docker's configuration, of which only some parts matter here.
type Configuration = serde_json::Map<String, Value>;

/// The configuration for buildx, where Docker looks for it.
const FOR_BUILDX: &str = "config.json";

/// The configuration for buildah, which reads an empty name of a helper as a program's.
const FOR_BUILDAH: &str = "auth.json";

/// Docker configurations of this run: the user's own, with a token for each ECR registry that base images come from.
pub(crate) struct BaseCredentials {
    login: Option<Login>,
    /// Where buildx keeps its builders, which does not move with the configuration.
    buildx: Option<PathBuf>,
}

impl BaseCredentials {
    /// No credentials of ours: the builder uses what the user has.
    pub(crate) fn none() -> Self {
        Self { login: None, buildx: None }
    }

    /// Gets a token for each ECR registry that base images or `others` come from. Without such a registry, AWS is not
    /// called, and a build needs no AWS credentials.
    ///
    /// # Errors
    /// When a registry gives no token.
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
        let users_own = users.as_deref().map(read).transpose()?.unwrap_or_default();
        let mut tokens = Vec::new();
        for host in hosts {
            if let Some(token) = entry(&source.credentials(&host).await?) {
                tokens.push((host, token));
            }
        }
        let files =
            [(FOR_BUILDX, for_buildx(users_own.clone(), &tokens)), (FOR_BUILDAH, for_buildah(users_own, &tokens))];
        let unusable =
            |error: std::io::Error| ActionError::failure("cannot write credentials of base images").because(error);
        let login = Login::of(&files, &variables.temporary()).map_err(unusable)?;
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

    /// Lets buildx use them.
    pub(super) fn give_to_buildx(&self, command: &mut Command) {
        if let Some(login) = &self.login {
            command.env("DOCKER_CONFIG", login.folder());
            if let Some(buildx) = &self.buildx {
                command.env("BUILDX_CONFIG", buildx);
            }
        }
    }

    /// Lets buildah use them.
    pub(super) fn give_to_buildah(&self, command: &mut Command) {
        if let Some(login) = &self.login {
            command.env("REGISTRY_AUTH_FILE", login.folder().join(FOR_BUILDAH));
        }
    }
}

/// With the tokens. A host without a helper of its own would be left to the store of all; one with an empty name is looked
/// for in the file.
fn for_buildx(mut config: Configuration, tokens: &[(String, Value)]) -> Value {
    for (host, token) in tokens {
        section(&mut config, "auths").map(|auths| auths.insert(host.clone(), token.clone()));
        section(&mut config, "credHelpers").map(|helpers| helpers.insert(host.clone(), "".into()));
    }
    config.into()
}

/// With the tokens. A helper of the host would come before them; a store of all is nothing that buildah knows.
fn for_buildah(mut config: Configuration, tokens: &[(String, Value)]) -> Value {
    for (host, token) in tokens {
        section(&mut config, "auths").map(|auths| auths.insert(host.clone(), token.clone()));
        section(&mut config, "credHelpers").map(|helpers| helpers.remove(host));
    }
    config.into()
}

/// A part of a configuration, which is there from now on.
fn section<'c>(config: &'c mut Configuration, name: &str) -> Option<&'c mut Configuration> {
    let section = config.entry(name).or_insert_with(|| Configuration::new().into());
    if !section.is_object() {
        *section = Configuration::new().into();
    }
    section.as_object_mut()
}

/// The ECR registries that base images and others are really pulled from.
fn ecr_hosts(images: &[Image], others: &[String], substitutions: &Substitutions) -> BTreeSet<String> {
    let pulled = |reference: &str| match substitutions.of(reference) {
        None => canonical(reference),
        Some(Origin::Registry(reference)) => Some(reference),
        Some(Origin::Layout { .. }) => None,
    };
    let bases = images.iter().flat_map(Image::bases).map(|base| base.reference.as_str());
    let all = bases.chain(others.iter().map(String::as_str));
    let hosts = all.filter_map(|reference| Some(pulled(reference)?.split('/').next()?.to_owned()));
    hosts.filter(|host| EcrHost::parse(host).is_some()).collect()
}

fn read(folder: &Path) -> Result<Configuration, ActionError> {
    let path = folder.join("config.json");
    let broken = || ActionError::failure(format!("cannot use {}", path.display()));
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| broken().because(error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Configuration::new()),
        Err(error) => Err(broken().because(error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_come_before_what_the_user_has() {
        let host = "1.dkr.ecr.us-east-1.amazonaws.com";
        let token = [(host.to_owned(), json!({"auth": "t"}))];
        let own = |text: Value| -> Configuration { serde_json::from_value(text).unwrap() };
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
