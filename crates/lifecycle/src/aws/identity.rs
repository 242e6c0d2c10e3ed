use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_smithy_types::error::ErrorMetadata;

use super::{AwsErrorKind, Error, error};
use crate::job_token::{self, TokenService};
use oci::BoxError;
use runner_protocol::Runner;
use secrecy::{ExposeSecret, SecretString};

/// How long before they expire credentials are renewed. This exceeds the 10 s of the SDK, which would ask again then.
const RENEWAL: Duration = Duration::from_secs(60);

/// The longest name of a session, in characters, by STS.
const SESSION_LIMIT: usize = 64;

/// The audience of the token. AWS's own action uses it, so trust policies expect it.
const AUDIENCE: &str = "sts.amazonaws.com";

/// The hint for a job that cannot assume a role by web identity.
const TOKEN_PERMISSION: &str = "add to the job: `permissions: {contents: read, id-token: write}`; a called workflow needs it \
    in the job that calls it too, and a pull request from a fork never gets it";

/// A role to assume, `arn:aws:iam::111122223333:role/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role(String);

impl Role {
    /// Returns the role's ARN.
    pub fn arn(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        match parts.as_slice() {
            ["arn", partition, "iam", "", account, role]
                if partition.starts_with("aws")
                    && account.len() == 12
                    && account.bytes().all(|b| b.is_ascii_digit())
                    && role.strip_prefix("role/").is_some_and(|name| !name.is_empty()) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err("a role's ARN, arn:aws:iam::111122223333:role/NAME"),
        }
    }
}

/// Returns a configuration with the role's credentials. They come from web identity if the job may ask GitHub for a
/// token (`permissions: id-token: write`) or has one in a file, otherwise from the credentials of `config`.
pub(super) async fn assume(config: SdkConfig, role: &Role, runner: &Arc<Runner>) -> Result<SdkConfig, Error> {
    let environment = &runner.variables;
    let token = match TokenService::of(environment) {
        Some(service) => Some(TokenSource::GitHub(service)),
        // With a role, both are credentials of their own, which assume this role.
        None if environment.get("AWS_ROLE_ARN").is_none() => {
            environment.get("AWS_WEB_IDENTITY_TOKEN_FILE").map(|file| TokenSource::File(file.into()))
        }
        _ => None,
    };
    if let Some(TokenSource::File(path)) = &token {
        // Read here too, for a message that is about the file.
        read_token(path).map_err(|error| {
            Error::new(AwsErrorKind::Credentials, format!("cannot assume {}", role.arn()))
                .hint("write the job's identity token to this file in an earlier command")
                .because(error)
        })?;
    }
    let provider = match token {
        Some(token) => SharedCredentialsProvider::new(WebIdentity {
            sts: aws_sdk_sts::Client::new(&config),
            role: role.clone(),
            token,
            session: session_name(runner),
        }),
        None => {
            require_credentials(&config, role, runner).await?;
            let provider =
                AssumeRoleProvider::builder(role.arn()).session_name(session_name(runner)).configure(&config);
            SharedCredentialsProvider::new(provider.build().await)
        }
    };
    let masked = MaskedCredentials { provider, runner: runner.clone(), last: Mutex::default() };
    // Assumes the role eagerly, so that a failure names the role and not the first call that needed it.
    masked.credentials().await.map_err(|error| {
        Error::new(AwsErrorKind::Denied, format!("cannot assume {}: {}", role.arn(), refusal(&error)))
            .hint("the role's trust policy has to allow this job: sts:AssumeRoleWithWebIdentity, or sts:AssumeRole for the credentials at hand")
    })?;
    Ok(config.into_builder().credentials_provider(SharedCredentialsProvider::new(masked)).build())
}

/// Returns why STS gave no credentials, without the words of the SDK around it.
fn refusal(error: &CredentialsError) -> String {
    if let Some(own) = error::causes(error).find_map(|cause| cause.downcast_ref::<Error>()) {
        return own.message.clone();
    }
    let said = error::causes(error).find_map(|cause| cause.downcast_ref::<ErrorMetadata>());
    match said.and_then(|said| Some((said.code()?, said.message()?))) {
        Some((code, message)) => format!("{code}: {message}"),
        None => error::causes(error).last().map_or_else(|| error.to_string(), ToString::to_string),
    }
}

/// Reads the token of a job from a file.
fn read_token(path: &Path) -> Result<SecretString, String> {
    let token = crate::workspace::read(path, job_token::LIMIT as u64);
    let token =
        token.map_err(|error| format!("cannot read AWS_WEB_IDENTITY_TOKEN_FILE ({}): {error}", path.display()))?;
    Ok(SecretString::from(token.trim().to_owned()))
}

/// Checks that there are credentials to assume a role with. Without them, the SDK's error would list every source that
/// it tried.
async fn require_credentials(config: &SdkConfig, role: &Role, runner: &Runner) -> Result<(), Error> {
    if !has_no_credentials(config).await {
        return Ok(());
    }
    if runner.variables.in_actions() {
        let message = format!("cannot assume {}: this job may not ask GitHub for an identity token", role.arn());
        return Err(Error::new(AwsErrorKind::Denied, message).hint(TOKEN_PERMISSION));
    }
    Err(Error::no_credentials(format!("cannot assume {}: no AWS credentials", role.arn())))
}

/// Returns whether no credentials are configured at all.
pub(super) async fn has_no_credentials(config: &SdkConfig) -> bool {
    match config.credentials_provider() {
        Some(provider) => {
            provider.provide_credentials().await.is_err_and(|error| error::is_missing_credentials(&error))
        }
        None => true,
    }
}

/// A provider of a role's credentials that masks them in the log before it returns them.
struct MaskedCredentials {
    provider: SharedCredentialsProvider,
    runner: Arc<Runner>,
    /// The last credentials, which are returned again until shortly before they expire.
    last: Mutex<Option<Credentials>>,
}

impl MaskedCredentials {
    async fn credentials(&self) -> Result<Credentials, CredentialsError> {
        let renewed = SystemTime::now() + RENEWAL;
        let given = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(given) = given.filter(|given| given.expiry().is_none_or(|expiry| expiry > renewed)) {
            return Ok(given);
        }
        let credentials = self.provider.provide_credentials().await?;
        self.runner.mask(&SecretString::from(credentials.secret_access_key()));
        if let Some(token) = credentials.session_token() {
            self.runner.mask(&SecretString::from(token));
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(credentials.clone());
        Ok(credentials)
    }
}

impl ProvideCredentials for MaskedCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials())
    }
}

impl fmt::Debug for MaskedCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaskedCredentials").finish_non_exhaustive()
    }
}

/// Returns the session name, by which CloudTrail identifies the run.
fn session_name(runner: &Runner) -> String {
    let name =
        runner.variables.run_id().map_or_else(|| "image-lifecycle".to_owned(), |run| format!("image-lifecycle-{run}"));
    name.chars().take(SESSION_LIMIT).collect()
}

/// A provider of credentials by the job's OIDC token.
#[derive(Debug)]
struct WebIdentity {
    sts: aws_sdk_sts::Client,
    role: Role,
    token: TokenSource,
    session: String,
}

/// Where the job's OIDC token comes from.
#[derive(Debug)]
enum TokenSource {
    /// GitHub's token service.
    GitHub(TokenService),
    /// A file, as the AWS SDKs read it. It is read each time, because its owner renews it.
    File(PathBuf),
}

impl ProvideCredentials for WebIdentity {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let token = self.token.read().await.map_err(CredentialsError::provider_error)?;
            let request = self.sts.assume_role_with_web_identity().role_arn(self.role.arn());
            let request = request.role_session_name(&self.session).web_identity_token(token.expose_secret());
            let answer = request.send().await.map_err(|error| {
                CredentialsError::provider_error(Error::of("sts:AssumeRoleWithWebIdentity", self.role.arn(), error))
            })?;
            let given =
                answer.credentials().ok_or_else(|| CredentialsError::provider_error("STS gave no credentials"))?;
            Ok(Credentials::new(
                given.access_key_id(),
                given.secret_access_key(),
                Some(given.session_token().to_owned()),
                (*given.expiration()).try_into().ok(),
                "web identity",
            ))
        })
    }
}

impl TokenSource {
    /// Returns a token that identifies this job to AWS.
    async fn read(&self) -> Result<SecretString, BoxError> {
        match self {
            Self::GitHub(service) => service.token(AUDIENCE).await,
            Self::File(path) => Ok(read_token(path)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles() {
        assert!("arn:aws:iam::111122223333:role/path/name".parse::<Role>().is_ok());
        assert!("arn:aws-cn:iam::111122223333:role/name".parse::<Role>().is_ok());
        for text in
            ["name", "arn:aws:iam::1:role/x", "arn:aws:iam::111122223333:user/x", "arn:aws:sts::111122223333:role/x"]
        {
            assert!(text.parse::<Role>().is_err(), "{text}");
        }
    }
}
