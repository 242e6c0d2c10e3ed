use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;
use url::Url;

use super::auth::Credentials;

/// A Docker configuration for another program that reaches a registry.
///
/// It lies in a folder that only this user can enter, and goes away when this is dropped.
pub struct Login(TempDir);

impl Login {
    /// The credentials of one host and nothing else, in a folder below `temporary`.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(host: &str, credentials: &Credentials, temporary: &Path) -> io::Result<Self> {
        let auths: serde_json::Map<String, serde_json::Value> =
            entry(credentials).map(|entry| (host.to_owned(), entry)).into_iter().collect();
        Self::of(&[("config.json", serde_json::json!({"auths": auths}))], temporary)
    }

    /// Files with configurations, in a folder below `temporary`.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn of(files: &[(&str, serde_json::Value)], temporary: &Path) -> io::Result<Self> {
        let alone = Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("login-").permissions(alone).tempdir_in(temporary)?;
        for (name, configuration) in files {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(folder.path().join(name))?;
            file.write_all(configuration.to_string().as_bytes())?;
        }
        Ok(Self(folder))
    }

    /// The value of `DOCKER_CONFIG`.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }
}

/// Credentials as an entry of `auths`; none for nobody.
pub fn entry(credentials: &Credentials) -> Option<serde_json::Value> {
    match credentials {
        Credentials::Anonymous => None,
        Credentials::Basic { user, password } => {
            Some(serde_json::json!({"auth": STANDARD.encode(format!("{user}:{}", password.expose()))}))
        }
        Credentials::Refresh(token) => Some(serde_json::json!({"identitytoken": token.expose()})),
    }
}

/// How another program has to call a host that is reached at an endpoint: `host:port`. None where it has a path.
pub fn authority(endpoint: &Url) -> Option<String> {
    let host = endpoint.host_str().filter(|_| endpoint.path() == "/")?;
    Some(match endpoint.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    #[test]
    fn credentials_are_this_users_alone_and_for_one_host() {
        let temporary = tempfile::tempdir().unwrap();
        let credentials = Credentials::Basic { user: "AWS".into(), password: Secret::new("p") };
        let login = Login::write("h.example:5000", &credentials, temporary.path()).unwrap();
        let file = login.folder().join("config.json");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(login.folder()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), r#"{"auths":{"h.example:5000":{"auth":"QVdTOnA="}}}"#);
        let path = login.folder().to_owned();
        drop(login);
        assert!(!path.exists());
    }

    #[test]
    fn endpoints_as_other_programs_call_them() {
        let authority = |text: &str| super::authority(&text.parse().unwrap());
        assert_eq!(authority("http://127.0.0.1:5000").as_deref(), Some("127.0.0.1:5000"));
        assert_eq!(authority("https://h.example/").as_deref(), Some("h.example"));
        assert_eq!(authority("https://h.example/below"), None);
    }
}
