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

/// Who we are to a registry.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// Nobody.
    Anonymous,
    /// A user and a password, sent as HTTP Basic.
    Basic {
        /// The user's name: `AWS` for ECR.
        user: String,
        /// The password or token.
        password: SecretString,
    },
    /// A refresh token of a token service, as credential helpers give it for the user `<token>`.
    Refresh(SecretString),
}

/// Where credentials for a registry come from. Asked once a registry, and once more when what it
/// gave was refused.
#[async_trait]
pub trait CredentialSource: Send + Sync + 'static {
    /// Credentials for a host.
    ///
    /// # Errors
    /// When there should be some and they can't be had.
    async fn credentials(&self, host: &str) -> Result<Credentials, StoreError>;
}

/// The state of being known to one registry.
pub(super) struct Authenticator {
    source: Arc<dyn CredentialSource>,
    host: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    credentials: Arc<OnceCell<Credentials>>,
    /// Credentials are asked for a second time at most once.
    renewed: bool,
    /// Tokens of a token service by scope.
    tokens: HashMap<Scope, SecretString>,
    /// The token service, once the registry named one.
    service: Option<Challenge>,
}

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    pub(super) repository: RepositoryName,
    pub(super) push: bool,
}

/// `WWW-Authenticate: Bearer realm="…",service="…"`
/// ([token authentication](https://distribution.github.io/distribution/spec/auth/token/)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) realm: Url,
    pub(super) service: Option<String>,
}

impl Authenticator {
    pub(super) fn new(source: Arc<dyn CredentialSource>, host: &str) -> Self {
        Self { source, host: host.to_owned(), state: Mutex::default() }
    }

    /// The credentials, asked for once however many ask at the same time.
    pub(super) async fn credentials(&self) -> Result<Credentials, StoreError> {
        let cell = self.state().credentials.clone();
        cell.get_or_try_init(|| self.source.credentials(&self.host)).await.cloned()
    }

    /// Forgets credentials that were refused; whether there is a second chance.
    ///
    /// Several requests can be refused at the same time: only the first of those that used the same
    /// credentials spends the chance, the others share what it gets.
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

    /// All that was sent to prove who we are, which an answer may repeat; `header` is the one of the request.
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

    /// The token service, where the registry has named one before.
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

    /// Drops a token that was refused, if it is still the one in use.
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

/// The header for credentials that are sent as they are.
pub(super) fn basic(credentials: &Credentials) -> Option<HeaderValue> {
    let Credentials::Basic { user, password } = credentials else { return None };
    sensitive(format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.expose_secret()))))
}

/// The header for a token.
pub(super) fn bearer(token: &SecretString) -> Option<HeaderValue> {
    sensitive(format!("Bearer {}", token.expose_secret()))
}

fn sensitive(value: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl Challenge {
    /// Reads the challenge of a 401; none where it asks for something other than a bearer token.
    pub(super) fn read(headers: &http::HeaderMap) -> Option<Self> {
        headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| Self::parse(value.to_str().ok()?)).next()
    }

    fn parse(value: &str) -> Option<Self> {
        let (scheme, parameters) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service) = (None, None);
        let mut rest = parameters.trim();
        while let Some((name, after)) = rest.split_once('=') {
            let (value, next) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_at(after.find(',').unwrap_or(after.len())),
            };
            match name.trim_start_matches([',', ' ']).to_ascii_lowercase().as_str() {
                "realm" => realm = Url::parse(value).ok(),
                "service" => service = Some(value.to_owned()),
                _ => {}
            }
            rest = next;
        }
        Some(Self { realm: realm?, service })
    }

    /// The address that gives a token for a scope.
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
        assert_eq!(Challenge::parse("Basic realm=\"x\""), None);
        assert_eq!(Challenge::parse("Bearer realm=\"not a url\""), None);
    }
}
