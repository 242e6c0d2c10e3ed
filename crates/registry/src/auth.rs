use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::WWW_AUTHENTICATE;
use tokio::sync::OnceCell;
use url::Url;

use oci::{RepositoryName, StoreError};
use secrecy::{ExposeSecret, SecretString};

/// Credentials for a registry.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// Anonymous access.
    Anonymous,
    /// A user and a password, sent as HTTP Basic.
    Basic {
        /// The user name, which is `AWS` for ECR.
        user: String,
        /// The password or token.
        password: SecretString,
    },
    /// A refresh token for a token service. Credential helpers return it for the user `<token>`.
    Refresh(SecretString),
}

/// A source of credentials for registries. It is asked once for each registry, and once more if its credentials were
/// rejected.
#[async_trait]
pub trait CredentialSource: Send + Sync + 'static {
    /// Returns the credentials for a host.
    ///
    /// # Errors
    /// Returns an error if credentials should exist but cannot be obtained.
    async fn credentials(&self, host: &str) -> Result<Credentials, StoreError>;
}

/// Authentication with one registry.
pub(super) struct Authenticator {
    source: Arc<dyn CredentialSource>,
    host: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    credentials: Arc<OnceCell<Credentials>>,
    /// Whether the credentials have been requested a second time, which happens at most once.
    renewed: bool,
    /// Tokens from the token service, by scope.
    tokens: HashMap<Scope, SecretString>,
    /// The token service, once the registry has named one.
    service: Option<Challenge>,
}

/// What a token grants access to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    pub(super) repository: RepositoryName,
    pub(super) push: bool,
}

/// A bearer challenge: `WWW-Authenticate: Bearer realm="…",service="…"` ([token
/// authentication](https://distribution.github.io/distribution/spec/auth/token/)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) realm: Url,
    pub(super) service: Option<String>,
}

impl Authenticator {
    pub(super) fn new(source: Arc<dyn CredentialSource>, host: &str) -> Self {
        Self { source, host: host.to_owned(), state: Mutex::default() }
    }

    /// Returns the credentials. Concurrent callers share one request to the source.
    pub(super) async fn credentials(&self) -> Result<Credentials, StoreError> {
        let cell = self.state().credentials.clone();
        cell.get_or_try_init(|| self.source.credentials(&self.host)).await.cloned()
    }

    /// Discards rejected credentials. Returns whether another attempt is allowed.
    ///
    /// If several requests are rejected with the same credentials, only the first one uses up the attempt, and the
    /// others share the new credentials.
    pub(super) fn renew(&self, refused: &HeaderValue) -> bool {
        let mut state = self.state();
        let current = state.credentials.get().and_then(basic);
        if current.is_some_and(|current| current != *refused) || (state.renewed && state.credentials.get().is_none()) {
            return true;
        }
        if state.renewed {
            return false;
        }
        state.renewed = true;
        state.credentials = Arc::default();
        true
    }

    /// Returns every secret that may have been sent, since a response may repeat them. `header` is that of the
    /// request.
    pub(super) fn secrets(&self, header: Option<&HeaderValue>) -> Vec<SecretString> {
        let state = self.state();
        let mut secrets: Vec<SecretString> = state.tokens.values().cloned().collect();
        match state.credentials.get() {
            Some(Credentials::Basic { password, .. }) => secrets.push(password.clone()),
            Some(Credentials::Refresh(token)) => secrets.push(token.clone()),
            Some(Credentials::Anonymous) | None => {}
        }
        let sent = header.into_iter().cloned().chain(state.credentials.get().and_then(basic));
        secrets.extend(sent.filter_map(|value| {
            let value = value.to_str().ok()?;
            Some(SecretString::from(value.split_once(' ').map_or(value, |(_, token)| token)))
        }));
        secrets
    }

    /// Returns the token service, if the registry has named one before.
    pub(super) fn service(&self) -> Option<Challenge> {
        self.state().service.clone()
    }

    pub(super) fn token(&self, scope: &Scope) -> Option<SecretString> {
        self.state().tokens.get(scope).cloned()
    }

    pub(super) fn keep_token(&self, scope: Scope, service: Challenge, token: SecretString) {
        let mut state = self.state();
        state.service = Some(service);
        state.tokens.insert(scope, token);
    }

    /// Discards a rejected token, if it is still in use.
    pub(super) fn drop_token(&self, scope: &Scope, refused: &HeaderValue) {
        let mut state = self.state();
        if state.tokens.get(scope).and_then(bearer).is_some_and(|current| current == *refused) {
            state.tokens.remove(scope);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the header for Basic credentials.
pub(super) fn basic(credentials: &Credentials) -> Option<HeaderValue> {
    let Credentials::Basic { user, password } = credentials else { return None };
    sensitive(format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.expose_secret()))))
}

/// Returns the header for a token.
pub(super) fn bearer(token: &SecretString) -> Option<HeaderValue> {
    sensitive(format!("Bearer {}", token.expose_secret()))
}

fn sensitive(value: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl Challenge {
    /// Returns the bearer challenge of a 401, or `None` if it asks for no bearer token that can be had.
    pub(super) fn read(headers: &http::HeaderMap) -> Option<Self> {
        headers.get_all(WWW_AUTHENTICATE).iter().find_map(|value| Self::parse(value.to_str().ok()?))
    }

    /// Parses a header, which may have several challenges.
    fn parse(value: &str) -> Option<Self> {
        let challenges = http_auth::ChallengeParser::new(value).map_while(Result::ok);
        challenges.filter(|challenge| challenge.scheme.eq_ignore_ascii_case("bearer")).find_map(|challenge| {
            let parameter = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            Some(Self { realm: Url::parse(&parameter("realm")?).ok()?, service: parameter("service") })
        })
    }

    /// Returns the URL that issues a token for a scope.
    pub(super) fn address(&self, scope: &Scope) -> Url {
        let mut url = self.realm.clone();
        let actions = if scope.push { "pull,push" } else { "pull" };
        let mut query = url.query_pairs_mut();
        if let Some(service) = &self.service {
            query.append_pair("service", service);
        }
        query.append_pair("scope", &format!("repository:{}:{actions}", scope.repository));
        drop(query);
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(Mutex<u32>);

    #[async_trait]
    impl CredentialSource for Counting {
        async fn credentials(&self, _: &str) -> Result<Credentials, StoreError> {
            let mut count = self.0.lock().unwrap();
            *count += 1;
            Ok(Credentials::Basic { user: "AWS".into(), password: SecretString::from(count.to_string()) })
        }
    }

    #[tokio::test]
    async fn credentials_are_asked_for_once_and_renewed_once() {
        let source = Arc::new(Counting(Mutex::new(0)));
        let authenticator = Authenticator::new(source.clone(), "h");
        let first = basic(&authenticator.credentials().await.unwrap()).unwrap();
        assert_eq!(basic(&authenticator.credentials().await.unwrap()).unwrap(), first);
        assert_eq!(*source.0.lock().unwrap(), 1);

        assert!(authenticator.renew(&first));
        assert!(authenticator.renew(&first), "refused at the same time as the first");
        let second = basic(&authenticator.credentials().await.unwrap()).unwrap();
        assert_ne!(first, second);
        assert!(authenticator.renew(&first), "was sent before the renewal");
        assert!(!authenticator.renew(&second));
        assert_eq!(*source.0.lock().unwrap(), 2);
    }

    #[test]
    fn challenges() {
        let challenge =
            Challenge::parse(r#"Bearer realm="https://auth.example/token",service="registry, x",scope="a:b:c,d""#)
                .unwrap();
        assert_eq!(challenge.service.as_deref(), Some("registry, x"));
        let scope = Scope { repository: "a/b".parse().unwrap(), push: true };
        insta::assert_snapshot!(challenge.address(&scope), @"https://auth.example/token?service=registry%2C+x&scope=repository%3Aa%2Fb%3Apull%2Cpush");
        let second = r#"Basic realm="Registry, of files", bearer service=files, realm="https://auth.example/token""#;
        assert_eq!(Challenge::parse(second).unwrap().service.as_deref(), Some("files"));
        assert_eq!(Challenge::parse("Basic realm=\"x\""), None);
        assert_eq!(Challenge::parse("Bearer realm=\"not a url\""), None);
    }
}
