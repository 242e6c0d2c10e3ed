use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use serde::Deserialize;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use oci::{BoxError, ErrorKind, StoreError};
use registry::{CredentialSource, Credentials};
use runner_protocol::Program;

/// The longest that a credential helper may take.
const HELPER_DEADLINE: Duration = Duration::from_secs(30);

/// Credentials from Docker's `config.json`: from the file itself, or from a
/// [credential helper](https://github.com/docker/docker-credential-helpers). Access is anonymous if the file has no
/// credentials for a host.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// The folder that contains `config.json`: `DOCKER_CONFIG`, or `~/.docker` by default.
    pub folder: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

#[derive(Deserialize)]
struct HelperOutput {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

#[async_trait]
impl CredentialSource for DockerConfig {
    async fn credentials(&self, host: &str) -> Result<Credentials, StoreError> {
        let Some(path) = self.folder.as_ref().map(|folder| folder.join("config.json")) else {
            return Ok(Credentials::Anonymous);
        };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Credentials::Anonymous),
            Err(error) => return Err(unusable(&path, error)),
        };
        let config: Config = serde_json::from_slice(&text).map_err(|error| unusable(&path, error))?;
        let names = config_keys(host);
        let helper = names.iter().find_map(|name| config.cred_helpers.get(name)).or(config.creds_store.as_ref());
        if let Some(helper) = helper {
            for name in &names {
                if let Some(credentials) = run_helper(helper, name).await? {
                    return Ok(credentials);
                }
            }
        }
        match names.iter().find_map(|name| config.auths.get(name)) {
            Some(auth) => auth.read().ok_or_else(|| unusable(&path, format!("no user and password for {host}"))),
            None => Ok(Credentials::Anonymous),
        }
    }
}

impl Auth {
    fn read(&self) -> Option<Credentials> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Some(Credentials::Refresh(SecretString::from(token.as_str())));
        }
        if let (Some(user), Some(password)) = (&self.username, &self.password) {
            return Some(Credentials::Basic { user: user.clone(), password: SecretString::from(password.as_str()) });
        }
        let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) else {
            return Some(Credentials::Anonymous);
        };
        let decoded = String::from_utf8(STANDARD.decode(auth).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        Some(Credentials::Basic {
            user: user.to_owned(),
            password: SecretString::from(password.trim_end_matches('\0')),
        })
    }
}

/// Returns the keys under which Docker's configuration may list a host.
fn config_keys(host: &str) -> Vec<String> {
    let mut names = vec![host.to_owned(), format!("https://{host}"), format!("https://{host}/v2/")];
    if matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io") {
        names.push("https://index.docker.io/v1/".to_owned());
    }
    names
}

/// Runs `docker-credential-HELPER get`. Returns `None` if the helper has no credentials for the name.
async fn run_helper(helper: &str, name: &str) -> Result<Option<Credentials>, StoreError> {
    let program = format!("docker-credential-{helper}");
    let failed = |what: String| {
        StoreError::new(ErrorKind::Authentication, format!("the credential helper {program} {what}"))
            .hint("Docker's config.json names it: install it, or remove it there")
    };
    if helper.is_empty() || !helper.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err(failed("has a name that is no program's".to_owned()));
    }
    let run = async {
        let mut child = runner_protocol::command(Program::CredentialHelper(helper), &program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            write_name(&mut stdin, name).await?;
        }
        child.wait_with_output().await
    };
    let output = match timeout(HELPER_DEADLINE, run).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(failed("can't be run".to_owned()).because(error)),
        Err(_) => return Err(failed(format!("gave no answer within {} s", HELPER_DEADLINE.as_secs()))),
    };
    if !output.status.success() {
        if String::from_utf8_lossy(&output.stdout).contains("credentials not found") {
            return Ok(None);
        }
        // The helper's own output is not shown: it may contain a secret.
        return Err(failed(format!("failed ({})", output.status)));
    }
    let credentials: HelperOutput =
        serde_json::from_slice(&output.stdout).map_err(|_| failed("answered no credentials".to_owned()))?;
    Ok(Some(match credentials.username.as_str() {
        "<token>" => Credentials::Refresh(SecretString::from(credentials.secret)),
        _ => Credentials::Basic { user: credentials.username, password: SecretString::from(credentials.secret) },
    }))
}

/// Writes the name to a helper's standard input. A helper for a single registry may close its input without reading it,
/// so a broken pipe is not an error.
async fn write_name(stdin: &mut (impl AsyncWrite + Unpin), name: &str) -> std::io::Result<()> {
    match stdin.write_all(name.as_bytes()).await {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

fn unusable(path: &std::path::Path, error: impl Into<BoxError>) -> StoreError {
    StoreError::new(ErrorKind::Authentication, format!("cannot use {}", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn credentials(config: &str, host: &str) -> Result<Credentials, StoreError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        DockerConfig { folder: Some(folder.path().to_owned()) }.credentials(host).await
    }

    #[tokio::test]
    async fn reads_what_docker_login_writes() {
        let config = r#"{"auths":{"r.example":{"auth":"dXNlcjpwYTpzcw=="},"https://index.docker.io/v1/":{"identitytoken":"t"},"e.example":{}}}"#;
        let Ok(Credentials::Basic { user, password }) = credentials(config, "r.example").await else {
            panic!("no user")
        };
        assert_eq!((user.as_str(), secrecy::ExposeSecret::expose_secret(&password)), ("user", "pa:ss"));
        assert!(matches!(credentials(config, "docker.io").await, Ok(Credentials::Refresh(_))));
        assert!(matches!(credentials(config, "e.example").await, Ok(Credentials::Anonymous)));
        assert!(matches!(credentials(config, "other.example").await, Ok(Credentials::Anonymous)));
        assert!(matches!(credentials("{}", "r.example").await, Ok(Credentials::Anonymous)));
    }

    #[tokio::test]
    async fn a_helper_may_ignore_its_input() {
        let (mut stdin, closed) = tokio::io::duplex(64);
        drop(closed);
        assert_eq!(stdin.write_all(b"r.example").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        write_name(&mut stdin, "r.example").await.unwrap();
    }

    #[tokio::test]
    async fn an_unusable_configuration_is_an_error_not_anonymous_access() {
        assert!(credentials("{", "r.example").await.is_err());
        assert!(credentials(r#"{"auths":{"r.example":{"auth":"!"}}}"#, "r.example").await.is_err());
        let missing = credentials(r#"{"credHelpers":{"r.example":"no-such-helper"}}"#, "r.example").await;
        assert_eq!(missing.unwrap_err().kind, ErrorKind::Authentication);
        let path = credentials(r#"{"credsStore":"../../bin/sh"}"#, "r.example").await;
        assert_eq!(path.unwrap_err().kind, ErrorKind::Authentication);
    }
}
