//! Authentication of requests: Basic credentials, or a token from the service that the registry names.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::address::is_loopback;
use super::auth::{Challenge, Credentials, Scope, basic, bearer};
use super::error::Failure;
use super::operation::{Counts, OperationKind};
use super::request::{AGENT, ANSWER_DEADLINE, read};
use super::{EcrHost, Registry};
use crate::http_client::full;
use oci::ErrorKind;

/// The maximum size of a token service's response, in bytes.
const TOKEN_LIMIT: usize = 1024 * 1024;

impl Registry {
    /// Returns the header for a first attempt: Basic with a password, a token if the registry has named its token
    /// service before, or none for anonymous access.
    pub(super) async fn authorization(&self, scope: &Scope, counts: &Counts) -> Result<Option<HeaderValue>, Failure> {
        let credentials = self.authenticator.credentials().await.map_err(Failure::no_credentials)?;
        let Some(service) = self.authenticator.service() else { return Ok(basic(&credentials)) };
        let token = match self.authenticator.token(scope) {
            Some(token) => token,
            None => self.new_token(scope, service, &credentials, counts).await?,
        };
        Ok(bearer(&token))
    }

    /// Returns the header for a second attempt after a rejection, if there is one.
    pub(super) async fn reauthorize(
        &self,
        scope: &Scope,
        challenge: Option<Challenge>,
        refused: Option<&HeaderValue>,
        counts: &Counts,
    ) -> Result<Option<HeaderValue>, Failure> {
        if let Some(service) = challenge {
            let had_token = refused.is_some_and(|value| value.as_bytes().starts_with(b"Bearer "));
            if let (true, Some(refused)) = (had_token, refused) {
                self.authenticator.drop_token(scope, refused);
            }
            let credentials = self.authenticator.credentials().await.map_err(Failure::no_credentials)?;
            return Ok(bearer(&self.new_token(scope, service, &credentials, counts).await?));
        }
        let Some(refused) = refused else { return Ok(None) };
        if !self.authenticator.renew(refused) {
            return Ok(None);
        }
        let credentials = self.authenticator.credentials().await.map_err(Failure::no_credentials)?;
        Ok(basic(&credentials).filter(|renewed| renewed != refused))
    }

    /// Returns whether a token service may receive the credentials. An attacker on the network can name any service.
    fn trusts(&self, realm: &Url, credentials: &Credentials) -> bool {
        let of_registry = match (realm.scheme(), credentials) {
            ("https", Credentials::Anonymous) => return true,
            ("https", _) => {
                let asked = Url::parse(&format!("https://{}/", self.host));
                let asked = asked.iter().chain([&self.endpoint]).filter_map(Url::host_str);
                asked.into_iter().any(|registry| is_same_operator(realm.host_str().unwrap_or_default(), registry))
            }
            ("http", _) => self.endpoint.scheme() == "http" && is_loopback(realm) && is_loopback(&self.endpoint),
            _ => false,
        };
        // ECR accepts its password directly, and has no token service.
        of_registry && EcrHost::parse(&self.host).is_none()
    }

    /// Requests a token from the token service.
    async fn new_token(
        &self,
        scope: &Scope,
        service: Challenge,
        credentials: &Credentials,
        counts: &Counts,
    ) -> Result<SecretString, Failure> {
        #[derive(serde::Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        if !self.trusts(&service.realm, credentials) {
            let host = service.realm.host_str().unwrap_or_default();
            let detail = format!("it names a token service that is not its own: {}://{host}", service.realm.scheme());
            return Err(Failure::new(ErrorKind::Denied, detail));
        }
        let url = service.address(scope);
        let mut request = Request::builder().uri(url.as_str()).header(USER_AGENT, AGENT);
        let mut body = Bytes::new();
        match credentials {
            Credentials::Anonymous => {}
            Credentials::Basic { .. } => {
                if let Some(value) = basic(credentials) {
                    request = request.header(AUTHORIZATION, value);
                }
            }
            Credentials::Refresh(token) => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.extend_pairs(url.query_pairs());
                form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", token.expose_secret());
                body = form.finish().into();
                let mut bare = url.clone();
                bare.set_query(None);
                request = request.method(Method::POST).uri(bare.as_str());
                request = request
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .header(CONTENT_LENGTH, body.len());
            }
        }
        let request = request.body(full(body)).map_err(|error| Failure::unreachable(error.into()))?;
        counts.request(OperationKind::Token);
        let method = request.method().clone();
        let answer = async {
            let response = self.answer(request, ANSWER_DEADLINE).await?;
            let (parts, body) = response.into_parts();
            Ok((parts, read(body, TOKEN_LIMIT).await?))
        };
        let secrets = self.authenticator.secrets(None);
        let (parts, body) = answer.await.map_err(|failure: Failure| failure.of_request(&method, &url, &secrets))?;
        if !parts.status.is_success() {
            let mut failure = Failure::answered(parts.status, &parts.headers, &body, &secrets);
            failure.had_credentials = !matches!(credentials, Credentials::Anonymous);
            failure.at = Some(OperationKind::Token);
            return Err(failure);
        }
        let said: Token = serde_json::from_slice(&body)
            .map_err(|_| Failure::new(ErrorKind::Invalid, "the token service's answer is not a token"))?;
        let token = said.token.or(said.access_token).map(SecretString::from);
        let token = token.ok_or_else(|| Failure::new(ErrorKind::Invalid, "the token service's answer has no token"))?;
        self.authenticator.keep_token(scope.clone(), service, token.clone());
        Ok(token)
    }
}

/// Second-level labels of public suffixes, such as `co.uk`.
const PUBLIC_SUFFIXES: [&str; 10] = ["ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org"];

/// Returns whether a token service belongs to the registry's operator: it has the same host or parent domain, like
/// `auth.docker.io` and `registry-1.docker.io`. A parent that is a public suffix (`co.uk`) does not count.
fn is_same_operator(service: &str, registry: &str) -> bool {
    let within = |domain: &str| {
        service == domain || service.strip_suffix(domain).is_some_and(|name| name.ends_with('.') && name.len() > 1)
    };
    let is_name = |host: &str| host.bytes().any(|byte| byte.is_ascii_alphabetic()) && !host.contains(':');
    if service == registry || !is_name(registry) {
        return service == registry;
    }
    let parent = registry.split_once('.').map(|(_, parent)| parent).filter(|parent| match parent.split_once('.') {
        None => false,
        Some((second, first)) => first.len() != 2 || !PUBLIC_SUFFIXES.contains(&second),
    });
    (registry.contains('.') && within(registry)) || parent.is_some_and(within)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use crate::testing::registry;

    #[test]
    fn credentials_go_to_the_registrys_own_token_service() {
        for (service, registry) in [
            ("ghcr.io", "ghcr.io"),
            ("auth.docker.io", "registry-1.docker.io"),
            ("auth.docker.io", "docker.io"),
            ("gitlab.com", "registry.gitlab.com"),
            ("git.shop.co.uk", "registry.shop.co.uk"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("localhost", "localhost"),
        ] {
            assert!(is_same_operator(service, registry), "{service} {registry}");
        }
        for (service, registry) in [
            ("evil.example", "registry.example"),
            ("evil.example.com", "registry.shop.com"),
            ("evilgitlab.com", "registry.gitlab.com"),
            ("gitlab.com.evil.example", "registry.gitlab.com"),
            (".gitlab.com", "registry.gitlab.com"),
            ("evil.co.uk", "shop.co.uk"),
            ("evil.io", "docker.io"),
            ("1.0.0.1", "127.0.0.1"),
            ("8.127.0.0.1", "127.0.0.1"),
            ("evil.localhost", "localhost"),
            ("", "registry.gitlab.com"),
        ] {
            assert!(!is_same_operator(service, registry), "{service} {registry}");
        }
    }

    #[test]
    fn a_token_service_is_trusted_by_its_scheme_and_host() {
        let basic = Credentials::Basic { user: "u".into(), password: SecretString::from("p".to_owned()) };
        let refresh = Credentials::Refresh(SecretString::from("r".to_owned()));
        let ecr = "012345678901.dkr.ecr.us-east-1.amazonaws.com";
        let endpoint = |address: &str| Url::parse(address).unwrap();
        for (host, at, realm, trusted) in [
            ("r.shop.example", None, "https://auth.shop.example/token", true),
            ("r.shop.example", None, "https://evil.example/token", false),
            ("r.shop.example", None, "http://r.shop.example/token", false),
            ("r.shop.example", None, "http://127.0.0.1/token", false),
            ("r.shop.example", Some("https://cache.internal"), "https://cache.internal:8443/token", true),
            ("r.shop.example", Some("http://cache.internal"), "http://cache.internal/token", false),
            ("r.shop.example", Some("http://127.0.0.1:1"), "http://localhost:2/token", true),
            ("r.shop.example", Some("http://127.0.0.1:1"), "http://evil.localhost:2/token", false),
            ("127.0.0.1:5000", None, "http://127.0.0.1:5001/token", true),
            (ecr, None, "https://012345678901.dkr.ecr.us-east-1.amazonaws.com/token", false),
            (ecr, Some("http://127.0.0.1:1"), "http://127.0.0.1:1/token", false),
        ] {
            let endpoints = at.map(|at| (host.to_owned(), endpoint(at))).into_iter().collect();
            let options = Options { endpoints, ..Options::default() };
            let registry = registry(options, host);
            for credentials in [&basic, &refresh] {
                assert_eq!(registry.trusts(&endpoint(realm), credentials), trusted, "{host} {at:?} {realm}");
            }
        }
        let registry = registry(Options::default(), "r.shop.example");
        assert!(registry.trusts(&endpoint("https://elsewhere.example/"), &Credentials::Anonymous));
        assert!(!registry.trusts(&endpoint("http://169.254.169.254/"), &Credentials::Anonymous));
    }
}
