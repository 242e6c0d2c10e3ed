//! Credentials for registries.

use std::sync::Arc;

use async_trait::async_trait;

use super::DockerConfig;
use crate::aws::{Aws, AwsErrorKind, PUBLIC_HOST};
use oci::{ErrorKind, StoreError};
use registry::{CredentialSource, Credentials, EcrHost};

/// Credentials for registries. ECR's come from `GetAuthorizationToken`, all others from Docker's configuration. ECR
/// Public uses `GetAuthorizationToken` if Docker's configuration has no credentials for it.
pub struct RegistryCredentials {
    aws: Arc<Aws>,
    docker: DockerConfig,
}

impl RegistryCredentials {
    /// Creates the source of credentials for an identity.
    pub fn new(aws: Arc<Aws>) -> Self {
        let docker = DockerConfig { folder: aws.variables().docker_config() };
        Self { aws, docker }
    }
}

#[async_trait]
impl CredentialSource for RegistryCredentials {
    async fn credentials(&self, host: &str) -> Result<Credentials, StoreError> {
        let token = match EcrHost::parse(host) {
            Some(ecr) => self.aws.token(&ecr).await,
            None => match self.docker.credentials(host).await? {
                // Public images can be read without credentials.
                Credentials::Anonymous if host == PUBLIC_HOST => {
                    self.aws.public_token().await.map(|token| token.unwrap_or(Credentials::Anonymous))
                }
                credentials => return Ok(credentials),
            },
        };
        token.map_err(|error| {
            let kind = match error.kind {
                AwsErrorKind::Denied => ErrorKind::Denied,
                _ => ErrorKind::Authentication,
            };
            let hint = error.hint.clone();
            let failed = StoreError::new(kind, format!("no token for `{host}`")).because(error);
            StoreError { hint, ..failed }
        })
    }
}
