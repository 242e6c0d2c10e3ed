//! The one HTTP client: the registry's, GitHub's and the AWS SDK's requests.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::oci::{BoxError, StoreError};

/// Until a connection stands.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How long a connection is kept without a request: shorter than what load balancers allow.
const IDLE: Duration = Duration::from_secs(50);

/// Bytes that a connection reads or writes at a time. The default is three times as much, for each of some dozen blobs
/// that are on their way.
const BUFFER: usize = 128 * 1024;

/// A request's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, StoreError>;

/// HTTP/1.1 over pooled connections, TLS by rustls with ring.
///
/// The proxies are those of `HTTPS_PROXY` and `NO_PROXY`, the roots those of the system or of
/// `SSL_CERT_FILE` and `SSL_CERT_DIR`. HTTP/1.1 on purpose: one connection a blob is faster than
/// many blobs in one.
#[derive(Clone)]
pub(crate) struct HttpClient(Client<HttpsConnector<Proxied>, Body>);

impl HttpClient {
    pub(crate) fn new() -> Self {
        Self(client())
    }

    /// Sends one request once.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        Ok(self.0.request(request).await?)
    }
}

/// The same for octocrab, whose requests have bodies of its own.
pub(crate) fn github() -> Client<HttpsConnector<Proxied>, octocrab::OctoBody> {
    client()
}

/// The client for the AWS SDK, whose requests have bodies of its own.
pub(crate) type AwsClient = Client<HttpsConnector<Proxied>, aws_smithy_types::body::SdkBody>;

/// The same for the AWS SDK.
pub(crate) fn aws() -> AwsClient {
    client()
}

fn client<B>() -> Client<HttpsConnector<Proxied>, B>
where
    B: http_body::Body<Data: Send> + Send,
{
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_DEADLINE));
    let connector = Proxied { http, proxies: Arc::new(Matcher::from_env()) };
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(crate::tls::client_config())
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .http1_max_buf_size(BUFFER)
        .build(connector)
}

/// A body of bytes at hand.
pub(crate) fn full(bytes: Bytes) -> Body {
    http_body_util::Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Connects directly, or through the proxy that the environment names for an https address.
#[derive(Clone)]
pub(crate) struct Proxied {
    http: HttpConnector,
    proxies: Arc<Matcher>,
}

impl Service<Uri> for Proxied {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.http.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let proxy = self.proxies.intercept(&to).filter(|_| to.scheme_str() == Some("https"));
        let mut http = self.http.clone();
        match proxy {
            Some(proxy) => {
                let mut tunnel = Tunnel::new(proxy.uri().clone(), http);
                if let Some(credentials) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(credentials.clone());
                }
                Box::pin(async move { Ok(tunnel.call(to).await?) })
            }
            None => Box::pin(async move { Ok(http.call(to).await?) }),
        }
    }
}
