//! The HTTP client for registries, the AWS SDK, and GitHub's API.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::tls;
use oci::{BoxError, StoreError};

/// The time limit for establishing a connection, including TLS and proxies.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How long an idle connection is kept: shorter than the timeouts of load balancers.
const IDLE: Duration = Duration::from_secs(50);

/// The size of a connection's read and write buffers, in bytes. The default is six times as much, for each of some
/// dozen concurrent blobs.
const BUFFER: usize = 64 * 1024;

/// A request body.
pub type Body = UnsyncBoxBody<Bytes, StoreError>;

/// An HTTP/1.1 client with pooled connections, and TLS by rustls with ring.
///
/// Proxies come from `HTTPS_PROXY` and `NO_PROXY`, root certificates from the system, or from `SSL_CERT_FILE` and
/// `SSL_CERT_DIR`. HTTP/1.1 is deliberate: one connection per blob is faster than many blobs on one connection.
#[derive(Clone)]
pub struct HttpClient(Client<Connector, Body>);

impl Default for HttpClient {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpClient {
    /// Returns a client with a connection time limit that fits most hosts.
    pub fn new() -> Self {
        Self::connecting_within(CONNECT_DEADLINE)
    }

    /// Returns a client with another connection time limit.
    pub fn connecting_within(deadline: Duration) -> Self {
        Self(client(deadline))
    }

    /// Sends a request, without retries.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        Ok(self.0.request(request).await?)
    }
}

fn client(deadline: Duration) -> Client<Connector, Body> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    // The time is divided among the addresses of a host, so that an unreachable one leaves time for the next.
    http.set_connect_timeout(Some(deadline));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .http1_max_buf_size(BUFFER)
        .build(Connector { proxied: Proxied { http, proxies: Arc::new(Matcher::from_env()) }, deadline })
}

/// Returns a body with these bytes.
pub fn full(bytes: Bytes) -> Body {
    http_body_util::Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A connection that would be refused again, however often it is tried: one side does not trust the other.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    message: String,
    /// What to do about it.
    pub hint: &'static str,
}

impl Refused {
    /// Returns the refusal that caused an error.
    pub fn behind<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(refused) = error.downcast_ref() {
                return Some(refused);
            }
            cause = error.source();
        }
        None
    }

    fn certificate(to: &Uri, wrong: &str) -> Self {
        Self {
            message: format!("the certificate of `{}` is not trusted: {wrong}", address(to)),
            hint: "where an authority of your own signs certificates, name a PEM file of its certificate in SSL_CERT_FILE",
        }
    }

    fn no_roots(error: &tls::NoRoots) -> Self {
        Self { message: error.to_string(), hint: "install ca-certificates, or name a PEM file in SSL_CERT_FILE" }
    }
}

/// Returns host and port of a URI, without the user and password that a proxy's URI may contain.
fn address(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    uri.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Connects with or without TLS. The TLS configuration is created for the first TLS connection.
#[derive(Clone)]
pub struct Connector {
    proxied: Proxied,
    deadline: Duration,
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.proxied.poll_ready(context)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Self { mut proxied, deadline } = self.clone();
        let connected = async move {
            if to.scheme_str() == Some("http") {
                return Ok(MaybeHttpsStream::Http(proxied.call(to).await?));
            }
            let config = tls::client_config().map_err(|error| Refused::no_roots(&error))?;
            let connected = HttpsConnector::from((proxied, config)).call(to.clone()).await;
            connected.map_err(|error| match tls::certificate_error(error.as_ref()) {
                Some(wrong) => Refused::certificate(&to, &wrong).into(),
                None => error,
            })
        };
        Box::pin(async move {
            let late = |_| format!("no connection within {} s", deadline.as_secs_f32());
            tokio::time::timeout(deadline, connected).await.map_err(late)?
        })
    }
}

/// Connects directly or, for https, through the proxy from the environment.
#[derive(Clone)]
struct Proxied {
    http: HttpConnector,
    proxies: Arc<Matcher>,
}

impl Service<Uri> for Proxied {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.http.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let proxy = self.proxies.intercept(&to).filter(|_| to.scheme_str() == Some("https"));
        let mut http = self.http.clone();
        match proxy {
            Some(proxy) => Box::pin(through(proxy, http, to)),
            None => Box::pin(async move { Ok(http.call(to).await?) }),
        }
    }
}

async fn through(proxy: Intercept, http: HttpConnector, to: Uri) -> Result<TokioIo<TcpStream>, BoxError> {
    let at = address(proxy.uri());
    if proxy.uri().scheme_str() != Some("http") {
        let message = format!("the proxy `{at}` is not reached over http");
        return Err(Refused { message, hint: "HTTPS_PROXY has to be http://HOST:PORT" }.into());
    }
    let mut tunnel = Tunnel::new(proxy.uri().clone(), http);
    if let Some(user) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(user.clone());
    }
    tunnel.call(to).await.map_err(|error| {
        // The error's type is private, so only its message can be checked.
        if error.to_string().contains("authorization required") {
            let hint = "HTTPS_PROXY has to be http://USER:PASSWORD@HOST:PORT, with the right ones";
            return Refused { message: format!("the proxy `{at}` asks for a user and a password"), hint }.into();
        }
        BoxError::from(ProxyFailed { at, source: error.into() })
    })
}

/// A proxy that cannot be reached, or that cannot reach the host.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect through the proxy `{at}`")]
struct ProxyFailed {
    at: String,
    source: BoxError,
}
