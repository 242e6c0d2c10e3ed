//! AWS as the actions need it: who we are, parameters of SSM, and ECR's control plane and tokens.

mod connector;
mod ecr;
mod error;
mod findings;
mod identity;
mod repositories;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::OnceCell;

pub use ecr::{Mutability, Pushed};
pub use error::{Error, Kind};
pub use findings::{Finding, Findings};
pub use identity::Role;
pub use repositories::{RepositorySettings, prefix_matches};

use crate::oci::{Class, StoreError};
use crate::registry::{CredentialSource, Credentials, DockerConfig, EcrHost};
use crate::runner::Runner;
use crate::secret::Secret;

/// One identity in AWS: the credentials of the job, or a role that they assume.
///
/// Nothing is asked for before it is needed: a run against a layout on disk needs no AWS at all.
pub struct Aws {
    runner: Arc<Runner>,
    role: Option<Role>,
    region: Option<String>,
    config: OnceCell<SdkConfig>,
    regional: Mutex<HashMap<String, aws_sdk_ecr::Client>>,
    account: OnceCell<String>,
}

impl Aws {
    /// An identity. `region` is that of SSM and STS; none is the SDK's own choice (`AWS_REGION`, the profile).
    pub fn new(runner: Arc<Runner>, region: Option<String>, role: Option<Role>) -> Self {
        Self { runner, role, region, config: OnceCell::new(), regional: Mutex::default(), account: OnceCell::new() }
    }

    /// Whether both act as the same role, or both as the credentials at hand.
    pub fn is_same_identity(&self, other: &Self) -> bool {
        self.role == other.role
    }

    /// The region of SSM and STS, as far as it is known without asking anybody.
    pub async fn region(&self) -> Option<String> {
        self.config().await.ok()?.region().map(ToString::to_string)
    }

    /// The value of an SSM parameter, decrypted where it is a `SecureString`.
    ///
    /// # Errors
    /// When it does not exist, may not be read, or nobody answers.
    pub async fn parameter(&self, name: &str) -> Result<String, Error> {
        let config = self.config().await?;
        let client = aws_sdk_ssm::Client::new(config);
        let answer = client.get_parameter().name(name).with_decryption(true).send().await;
        let region = config.region().map(ToString::to_string).unwrap_or_default();
        let answer = answer.map_err(|error| match error::code(&error).as_deref() {
            Some("ParameterNotFound" | "ParameterVersionNotFound") => {
                Error::new(Kind::NotFound, format!("SSM parameter `{name}` does not exist in {region}")).hint(format!(
                    "aws ssm put-parameter --region {region} --type String --name {name} --value ACCOUNT.dkr.ecr.REGION.amazonaws.com"
                ))
            }
            _ => Error::of("ssm:GetParameter", &format!("parameter `{name}`"), error),
        })?;
        let value = answer.parameter().and_then(|parameter| parameter.value()).map(str::trim).unwrap_or_default();
        match value {
            "" => Err(Error::new(Kind::NotFound, format!("SSM parameter `{name}` is empty in {region}"))),
            value => Ok(value.to_owned()),
        }
    }

    /// The account of this identity.
    ///
    /// # Errors
    /// When there are no credentials, or nobody answers.
    pub async fn account(&self) -> Result<&str, Error> {
        let ask = || async {
            let client = aws_sdk_sts::Client::new(self.config().await?);
            let answer = client.get_caller_identity().send().await;
            let answer = answer.map_err(|error| Error::of("sts:GetCallerIdentity", "the caller", error))?;
            answer.account().map(str::to_owned).ok_or_else(|| Error::new(Kind::Other, "STS names no account"))
        };
        self.account.get_or_try_init(ask).await.map(String::as_str)
    }

    /// Basic credentials of an ECR registry.
    async fn token(&self, host: &EcrHost) -> Result<Credentials, Error> {
        let answer = self.ecr(&host.region).await?.get_authorization_token().send().await;
        let answer = answer
            .map_err(|error| Error::of("ecr:GetAuthorizationToken", &format!("region {}", host.region), error))?;
        let token = answer.authorization_data().first().and_then(|data| data.authorization_token());
        let decoded = token.and_then(|token| String::from_utf8(STANDARD.decode(token).ok()?).ok());
        let pair = decoded.as_ref().and_then(|decoded| decoded.split_once(':'));
        let Some((user, password)) = pair else { return Err(Error::new(Kind::Other, "ECR's token can't be read")) };
        let password = Secret::new(password);
        self.runner.mask(&password);
        if let Some(token) = token {
            self.runner.mask(&Secret::new(token));
        }
        Ok(Credentials::Basic { user: user.to_owned(), password })
    }

    /// A client of ECR's control plane in a region.
    async fn ecr(&self, region: &str) -> Result<aws_sdk_ecr::Client, Error> {
        let config = self.config().await?;
        let mut regional = self.regional.lock().unwrap_or_else(PoisonError::into_inner);
        let client = regional.entry(region.to_owned()).or_insert_with(|| {
            let config = aws_sdk_ecr::config::Builder::from(config).region(Region::new(region.to_owned())).build();
            aws_sdk_ecr::Client::from_conf(config)
        });
        Ok(client.clone())
    }

    async fn config(&self) -> Result<&SdkConfig, Error> {
        let load = || async {
            let mut loader =
                aws_config::defaults(BehaviorVersion::latest()).http_client(connector::SdkClient::default());
            if let Some(region) = &self.region {
                loader = loader.region(Region::new(region.clone()));
            }
            let config = loader.load().await;
            // A variable that is set to nothing is not set.
            if config.region().is_none_or(|region| region.as_ref().is_empty()) {
                return Err(Error::new(Kind::Credentials, "no AWS region")
                    .hint("set the input `region` or the variable AWS_REGION"));
            }
            match &self.role {
                Some(role) => identity::assume(config, role, &self.runner).await,
                None => Ok(config),
            }
        };
        self.config.get_or_try_init(load).await
    }
}

/// Credentials of registries: ECR's by `GetAuthorizationToken`, all others from Docker's configuration.
pub struct RegistryCredentials {
    aws: Arc<Aws>,
    docker: DockerConfig,
}

impl RegistryCredentials {
    /// The credentials that an identity has.
    pub fn new(aws: Arc<Aws>) -> Self {
        let docker = DockerConfig { folder: aws.runner.environment.docker_config() };
        Self { aws, docker }
    }
}

#[async_trait]
impl CredentialSource for RegistryCredentials {
    async fn credentials(&self, host: &str) -> Result<Credentials, StoreError> {
        let Some(ecr) = EcrHost::parse(host) else { return self.docker.credentials(host).await };
        self.aws.token(&ecr).await.map_err(|error| {
            let class = match error.kind {
                Kind::Denied => Class::Denied,
                _ => Class::Authentication,
            };
            let hint = error.hint.clone();
            let failed = StoreError::new(class, format!("no token for `{host}`")).because(error);
            StoreError { hint, ..failed }
        })
    }
}
