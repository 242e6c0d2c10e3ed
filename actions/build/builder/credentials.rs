//! Credentials of base images in private ECR, for as long as the builder runs.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::process::Command;

use lifecycle::Problem;
use lifecycle::aws::{Aws, RegistryCredentials};
use lifecycle::registry::{CredentialSource, Credentials, EcrHost};
use lifecycle::runner::Environment;

use crate::dockerfile::{Origin, Substitutions};
use crate::plan::Image;

/// A Docker configuration of this run: the user's own, with a token for each ECR registry that base images come from.
///
/// It lies in a folder that only this user can enter and that is removed when this is dropped.
pub(crate) struct BaseCredentials {
    folder: Option<tempfile::TempDir>,
    /// Where buildx keeps its builders, which does not move with the configuration.
    buildx: Option<PathBuf>,
}

impl BaseCredentials {
    /// No credentials of ours: the builder uses what the user has.
    pub(crate) fn none() -> Self {
        Self { folder: None, buildx: None }
    }

    /// Asks for tokens of the registries that the images are built from; nothing is asked for where there is none.
    ///
    /// # Errors
    /// When a token can't be had.
    pub(crate) async fn prepare(
        images: &[Image],
        substitutions: &Substitutions,
        aws: &Arc<Aws>,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        let hosts = ecr_hosts(images, substitutions);
        if hosts.is_empty() {
            return Ok(Self::none());
        }
        let source = RegistryCredentials::new(aws.clone());
        let users = environment.docker_config();
        let mut config = users.as_deref().map(read).transpose()?.unwrap_or_else(|| serde_json::json!({}));
        for host in hosts {
            if let Credentials::Basic { user, password } = source.credentials(&host).await? {
                let auth = STANDARD.encode(format!("{user}:{}", password.expose()));
                config["auths"][&host] = serde_json::json!({ "auth": auth });
                if let Some(helpers) = config["credHelpers"].as_object_mut() {
                    helpers.remove(&host);
                }
            }
        }
        let unusable =
            |error: std::io::Error| Problem::failure("cannot write credentials of base images").because(error);
        let folder = tempfile::Builder::new()
            .prefix("docker-config-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(environment.temporary())
            .map_err(unusable)?;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(folder.path().join("config.json"))
            .map_err(unusable)?;
        file.write_all(config.to_string().as_bytes()).map_err(unusable)?;
        if let Some(users) = &users {
            for shared in ["cli-plugins", "contexts"] {
                if users.join(shared).is_dir() {
                    symlink(users.join(shared), folder.path().join(shared)).map_err(unusable)?;
                }
            }
        }
        let buildx = environment.get("BUILDX_CONFIG").map(PathBuf::from).or_else(|| Some(users?.join("buildx")));
        Ok(Self { folder: Some(folder), buildx })
    }

    /// Lets buildx use them.
    pub(super) fn give_to_buildx(&self, command: &mut Command) {
        if let Some(folder) = &self.folder {
            command.env("DOCKER_CONFIG", folder.path());
            if let Some(buildx) = &self.buildx {
                command.env("BUILDX_CONFIG", buildx);
            }
        }
    }

    /// Lets buildah use them.
    pub(super) fn give_to_buildah(&self, command: &mut Command) {
        if let Some(folder) = &self.folder {
            command.env("REGISTRY_AUTH_FILE", folder.path().join("config.json"));
        }
    }
}

/// The ECR registries that base images are really pulled from.
fn ecr_hosts(images: &[Image], substitutions: &Substitutions) -> BTreeSet<String> {
    let pulled = |reference: &str| match substitutions.of(reference) {
        None => Some(reference.to_owned()),
        Some(Origin::Registry(reference)) => Some(reference),
        Some(Origin::Layout { .. }) => None,
    };
    let bases = images.iter().flat_map(|image| &image.bases);
    let hosts = bases.filter_map(|base| Some(pulled(&base.reference)?.split('/').next()?.to_owned()));
    hosts.filter(|host| EcrHost::parse(host).is_some()).collect()
}

fn read(folder: &Path) -> Result<serde_json::Value, Problem> {
    let path = folder.join("config.json");
    let broken = || Problem::failure(format!("cannot use {}", path.display()));
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| broken().because(error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(serde_json::json!({})),
        Err(error) => Err(broken().because(error)),
    }
}
