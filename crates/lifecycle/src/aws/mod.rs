//! The AWS services that the actions use: STS for the identity, SSM parameters, ECR's control plane and tokens, IAM's policy
//! simulation, and what ECS, Lambda and Bedrock AgentCore run.

mod agents;
mod connector;
mod ecr;
mod ecs;
mod error;
mod findings;
mod functions;
mod identity;
mod images;
mod registry_settings;
mod repositories;
mod signed;
mod simulation;
mod workloads;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::ProvideCredentials;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::OnceCell;

pub use ecr::{EcrImage, Mutability};
pub use error::{AwsErrorKind, Error};
pub use findings::{ScanFinding, ScanFindings};
pub use identity::Role;
pub use registry_settings::{
    LifecyclePreview, ReplicationRule, RepositoryDescription, Scanning, ScanningRule, SigningRule, StoredDigests,
};
pub use repositories::{RepositorySettings, prefix_matches};
pub use simulation::{Caller, Decision, Decisions};
pub use workloads::{Rollout, Workload, WorkloadKind, Workloads, is_in_repository};

use registry::{Credentials, EcrHost};
use runner_protocol::{Runner, Variables};
use secrecy::SecretString;

/// The host of ECR Public, which all accounts share.
pub(crate) const PUBLIC_HOST: &str = "public.ecr.aws";

/// The region whose API issues tokens for ECR Public.
const PUBLIC_REGION: &str = "us-east-1";

/// An AWS identity: the job's credentials, or a role that they assume.
///
/// Nothing is requested before it is needed, so a run against a layout on disk needs no AWS at all.
pub struct Aws {
    runner: Arc<Runner>,
    role: Option<Role>,
    region: Option<String>,
    config: OnceCell<SdkConfig>,
    regional: Mutex<HashMap<String, aws_sdk_ecr::Client>>,
    account: OnceCell<String>,
}

impl Aws {
    /// Returns the environment variables of the run.
    pub(crate) fn variables(&self) -> &Variables {
        &self.runner.variables
    }

    /// Creates an identity. `region` is that of SSM and STS. By default the SDK chooses it (`AWS_REGION`, the profile).
    pub fn new(runner: Arc<Runner>, region: Option<String>, role: Option<Role>) -> Self {
        Self { runner, role, region, config: OnceCell::new(), regional: Mutex::default(), account: OnceCell::new() }
    }

    /// Returns whether both assume the same role, or both use the job's own credentials.
    pub fn is_same_identity(&self, other: &Self) -> bool {
        self.role == other.role
    }

    /// Returns the region of SSM and STS, if it is configured.
    pub async fn region(&self) -> Option<String> {
        region_of(self.config().await.ok()?).ok().map(str::to_owned)
    }

    /// Returns the value of an SSM parameter. A `SecureString` is decrypted.
    ///
    /// # Errors
    /// If the parameter does not exist, is empty or cannot be read.
    pub async fn parameter(&self, name: &str) -> Result<String, Error> {
        let config = self.config().await?;
        let region = require_region(config).await.map_err(|error| {
            let message = format!("SSM parameter `{name}` can't be read: {}", error.message);
            let hint = error.hint.unwrap_or_default();
            Error::new(error.kind, message).hint(format!("{hint}; where `registry` is given, no parameter is read"))
        })?;
        let client = aws_sdk_ssm::Client::new(config);
        let answer = client.get_parameter().name(name).with_decryption(true).send().await;
        let answer = answer.map_err(|error| match error::code(&error).as_deref() {
            Some("ParameterNotFound" | "ParameterVersionNotFound") => {
                Error::new(AwsErrorKind::NotFound, format!("SSM parameter `{name}` does not exist in {region}")).hint(format!(
                    "aws ssm put-parameter --region {region} --type String --name {name} --value ACCOUNT.dkr.ecr.REGION.amazonaws.com"
                ))
            }
            _ => Error::of("ssm:GetParameter", &format!("parameter `{name}`"), error),
        })?;
        let value = answer.parameter().and_then(|parameter| parameter.value()).unwrap_or_default();
        match value {
            blank if blank.trim().is_empty() => {
                Err(Error::new(AwsErrorKind::NotFound, format!("SSM parameter `{name}` is empty in {region}")))
            }
            value => Ok(value.to_owned()),
        }
    }

    /// Returns the account of this identity.
    ///
    /// # Errors
    /// If there are no credentials, or the request fails.
    pub async fn account(&self) -> Result<&str, Error> {
        let ask = || async {
            let config = self.config().await?;
            require_region(config).await?;
            let client = aws_sdk_sts::Client::new(config);
            let answer = client.get_caller_identity().send().await;
            let answer = answer.map_err(|error| Error::of("sts:GetCallerIdentity", "the caller", error))?;
            answer.account().map(str::to_owned).ok_or_else(|| Error::new(AwsErrorKind::Other, "STS names no account"))
        };
        self.account.get_or_try_init(ask).await.map(String::as_str)
    }

    /// Returns basic credentials for an ECR registry.
    pub(crate) async fn token(&self, host: &EcrHost) -> Result<Credentials, Error> {
        let answer = self.ecr(&host.region).await?.get_authorization_token().send().await;
        let answer = answer
            .map_err(|error| Error::of("ecr:GetAuthorizationToken", &format!("region {}", host.region), error))?;
        self.basic_credentials(answer.authorization_data().first().and_then(|data| data.authorization_token()))
    }

    /// Returns basic credentials for ECR Public, or `None` if this identity has no AWS credentials.
    pub(crate) async fn public_token(&self) -> Result<Option<Credentials>, Error> {
        let config = self.config().await?;
        let Some(provider) = config.credentials_provider() else { return Ok(None) };
        match provider.provide_credentials().await {
            Err(error) if error::is_missing_credentials(&error) => return Ok(None),
            Err(error) => return Err(Error::new(AwsErrorKind::Credentials, "no AWS credentials").because(error)),
            Ok(_) => {}
        }
        let answer =
            self.public_ecr_call("ecr-public:GetAuthorizationToken").await.map_err(|error| match error.kind {
                AwsErrorKind::Denied => error
                    .hint("allow ecr-public:GetAuthorizationToken and sts:GetServiceBearerToken in the role's policy"),
                _ => error,
            })?;
        self.basic_credentials(answer["authorizationData"]["authorizationToken"].as_str()).map(Some)
    }

    /// Decodes the user and password of an ECR token. Masks the token in the log, encoded and decoded.
    fn basic_credentials(&self, token: Option<&str>) -> Result<Credentials, Error> {
        let decoded = token.and_then(|token| String::from_utf8(STANDARD.decode(token).ok()?).ok());
        let pair = decoded.as_ref().and_then(|decoded| decoded.split_once(':'));
        let Some((user, password)) = pair else {
            return Err(Error::new(AwsErrorKind::Other, "ECR's token can't be read"));
        };
        let password = SecretString::from(password);
        self.runner.mask(&password);
        if let Some(token) = token {
            self.runner.mask(&SecretString::from(token));
        }
        Ok(Credentials::Basic { user: user.to_owned(), password })
    }

    /// Returns a client of ECR's control plane in a region.
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
            // The SDK panics if an endpoint variable is empty.
            if let Some(name) = self.runner.variables.blank_with_prefix("AWS_ENDPOINT_URL").next() {
                let error = Error::new(AwsErrorKind::Other, format!("the variable {name} is set, and empty"));
                return Err(error.hint("leave it unset, or give it an address"));
            }
            let mut loader =
                aws_config::defaults(BehaviorVersion::latest()).http_client(connector::SdkClient::default());
            if let Some(region) = &self.region {
                loader = loader.region(Region::new(region.clone()));
            }
            let config = loader.load().await;
            match &self.role {
                Some(role) => {
                    region_of(&config)?;
                    identity::assume(config, role, &self.runner).await
                }
                None => Ok(config),
            }
        };
        self.config.get_or_try_init(load).await
    }
}

/// Returns the region of SSM and STS. ECR does not need it, because its host names contain the region.
fn region_of(config: &SdkConfig) -> Result<&str, Error> {
    // An empty variable counts as unset.
    let region = config.region().map(AsRef::as_ref).filter(|region: &&str| !region.is_empty());
    let missing = || Error::new(AwsErrorKind::Credentials, "no AWS region");
    region.ok_or_else(|| missing().hint("set the input `region` or the variable AWS_REGION"))
}

/// Returns the region of SSM and STS. If both region and credentials are missing, the error is about the credentials,
/// because the step that configures them also sets the region.
async fn require_region(config: &SdkConfig) -> Result<&str, Error> {
    match region_of(config) {
        Err(_) if identity::has_no_credentials(config).await => {
            Err(Error::no_credentials("no AWS credentials and no AWS region"))
        }
        region => region,
    }
}
