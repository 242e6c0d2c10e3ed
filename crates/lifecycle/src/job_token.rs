//! The OIDC token by which GitHub identifies a job to others.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use http::header::{AUTHORIZATION, HeaderValue};
use http_body_util::{BodyExt, Limited};
use secrecy::{ExposeSecret, SecretString};

use oci::BoxError;
use registry::http_client::{HttpClient, full};
use runner_protocol::Variables;

/// The longest that GitHub's token service may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// The largest token or response of GitHub's token service, in bytes.
pub(crate) const LIMIT: usize = 64 * 1024;

/// GitHub's token service, which answers jobs with the permission `id-token: write`.
#[derive(Debug)]
pub(crate) struct TokenService {
    url: String,
    token: SecretString,
}

impl TokenService {
    /// Returns the service, or none if the job has no permission to ask for a token.
    pub(crate) fn of(variables: &Variables) -> Option<Self> {
        let url = variables.get("ACTIONS_ID_TOKEN_REQUEST_URL")?.to_owned();
        Some(Self { url, token: variables.secret("ACTIONS_ID_TOKEN_REQUEST_TOKEN")? })
    }

    /// Returns a token for an audience.
    ///
    /// # Errors
    /// If the service does not answer with a token.
    pub(crate) async fn token(&self, audience: &str) -> Result<SecretString, BoxError> {
        #[derive(serde::Deserialize)]
        struct Token {
            value: String,
        }
        let mut url = url::Url::parse(&self.url)?;
        url.query_pairs_mut().append_pair("audience", audience);
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", self.token.expose_secret()))?;
        bearer.set_sensitive(true);
        let request =
            Request::builder().uri(url.as_str()).header(AUTHORIZATION, bearer).body(full(Default::default()))?;
        let answer = async {
            let response = HttpClient::new().send(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LIMIT).collect().await?.to_bytes();
            if status.is_success() {
                Ok(body)
            } else {
                Err(BoxError::from(format!("GitHub's token service answered {status}")))
            }
        };
        let body =
            tokio::time::timeout(DEADLINE, answer).await.map_err(|_| "GitHub's token service gave no answer")??;
        let token: Token = serde_json::from_slice(&body).map_err(|_| "GitHub's token service gave no token")?;
        Ok(SecretString::from(token.value))
    }
}

/// Returns the workflow that a token names as the job's: `OWNER/REPOSITORY/.github/workflows/FILE@REFERENCE`. It differs
/// from the workflow of the run in a job of a called workflow. The token is not verified: this reads a token of one's own.
pub(crate) fn workflow_of_job(token: &SecretString) -> Option<String> {
    let payload = token.expose_secret().split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    let workflow = claims["job_workflow_ref"].as_str()?;
    (workflow.contains("/.github/workflows/") && !workflow.contains(|c: char| c.is_control() || c == '\''))
        .then(|| workflow.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_the_workflow_of_its_job() {
        let named = |claims: &str| {
            let token = format!("e30.{}.AA", URL_SAFE_NO_PAD.encode(claims));
            workflow_of_job(&SecretString::from(token))
        };
        let workflow = "platform/actions/.github/workflows/release.yml@refs/tags/v1";
        assert_eq!(named(&format!(r#"{{"job_workflow_ref": "{workflow}"}}"#)).as_deref(), Some(workflow));
        for strange in ["{}", r#"{"job_workflow_ref": 1}"#, r#"{"job_workflow_ref": "a/.github/workflows/b'c@d"}"#, "-"]
        {
            assert_eq!(named(strange), None, "{strange}");
        }
        assert_eq!(workflow_of_job(&SecretString::from("opaque")), None);
    }
}
