use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient as SdkHttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt, Limited};

use oci::{BoxError, ErrorKind, StoreError};
use registry::http_client::{HttpClient, Refused};
use tokio::sync::Semaphore;

/// The longest that connecting may take if the SDK sets no limit.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// The longest wait for the headers of a response if the SDK sets no limit. Its own default is to wait forever.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// The largest response body that is read, in bytes. A page of scan findings is the largest that occurs.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;

/// The maximum number of concurrent requests to AWS. Each takes a connection, and the APIs have quotas that are not
/// documented.
const REQUESTS: usize = 16;

/// Adapts this project's HTTP client to the SDK, so that all requests share TLS configuration, proxies and connections.
pub(super) struct SdkClient {
    requests: Arc<Semaphore>,
    /// Clients by connect timeout. Requests to the instance metadata service use a short one.
    clients: Mutex<HashMap<Duration, HttpClient>>,
}

impl Default for SdkClient {
    fn default() -> Self {
        Self { requests: Arc::new(Semaphore::new(REQUESTS)), clients: Mutex::default() }
    }
}

impl fmt::Debug for SdkClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SdkClient")
    }
}

impl SdkHttpClient for SdkClient {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let connecting = settings.connect_timeout().unwrap_or(CONNECT_DEADLINE);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = clients.entry(connecting).or_insert_with(|| HttpClient::connecting_within(connecting)).clone();
        SharedHttpConnector::new(SdkConnector {
            requests: self.requests.clone(),
            client,
            answer: settings.read_timeout().unwrap_or(ANSWER_DEADLINE),
        })
    }
}

/// An endpoint that cannot be reached, or that does not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer from {address}")]
pub(super) struct NoConnection {
    /// The URL without its path.
    pub(super) address: String,
    source: BoxError,
}

#[derive(Clone)]
struct SdkConnector {
    requests: Arc<Semaphore>,
    client: HttpClient,
    answer: Duration,
}

impl fmt::Debug for SdkConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SdkConnector")
    }
}

impl HttpConnector for SdkConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connector = self.clone();
        HttpConnectorFuture::new(async move { connector.send(request).await })
    }
}

impl SdkConnector {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
        let broken = |error: BoxError| StoreError::new(ErrorKind::Invalid, "the request can't be sent").because(error);
        let request = request.map(|body| body.map_err(broken).boxed_unsync());
        let to = request.uri().clone();
        let failed = |source: BoxError| {
            let (scheme, host) = (to.scheme_str().unwrap_or_default(), to.host().unwrap_or_default());
            let port = to.port().map(|port| format!(":{port}")).unwrap_or_default();
            NoConnection { address: format!("{scheme}://{host}{port}"), source }.into()
        };
        let _permit = self.requests.acquire().await;
        let answer = match tokio::time::timeout(self.answer, self.client.send(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if Refused::behind(error.as_ref()).is_some() => {
                return Err(ConnectorError::other(error, None));
            }
            Ok(Err(error)) => return Err(ConnectorError::io(failed(error))),
            Err(late) => return Err(ConnectorError::timeout(failed(late.into()))),
        };
        let answer = answer.map(|body| SdkBody::from_body_1_x(Limited::new(body, ANSWER_LIMIT)));
        HttpResponse::try_from(answer).map_err(|error| ConnectorError::other(error.into(), None))
    }
}
