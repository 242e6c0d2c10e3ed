//! The one HTTP client: of registries, of the AWS SDK, and of GitHub's API.

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
#[cfg(feature = "services")]
use octocrab::OctoBody;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::oci::{BoxError, StoreError};
use crate::tls;

/// Until a connection stands, with TLS and the way through a proxy.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How long a connection is kept without a request: shorter than what load balancers allow.
const IDLE: Duration = Duration::from_secs(50);

/// Bytes that a connection reads or writes at a time. The default is six times as much, for each of some dozen blobs
/// that are on their way.
const BUFFER: usize = 64 * 1024;

/// A request's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, StoreError>;

/// HTTP/1.1 over pooled connections, TLS by rustls with ring.
///
/// The proxies are those of `HTTPS_PROXY` and `NO_PROXY`, the roots those of the system or of
/// `SSL_CERT_FILE` and `SSL_CERT_DIR`. HTTP/1.1 on purpose: one connection a blob is faster than
/// many blobs in one.
#[derive(Clone)]
pub(crate) struct HttpClient(Client<Connector, Body>);

impl HttpClient {
    pub(crate) fn new() -> Self {
        Self::connecting_within(CONNECT_DEADLINE)
    }

    /// One that gives up earlier or later than others do.
    pub(crate) fn connecting_within(deadline: Duration) -> Self {
        Self(client(deadline))
    }

    /// Sends one request once.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        Ok(self.0.request(request).await?)
    }
}

/// octocrab's requests, whose bodies are of its own.
#[cfg(feature = "services")]
impl Service<Request<OctoBody>> for HttpClient {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<OctoBody>) -> Self::Future {
        let broken = |error| StoreError::new(crate::oci::Class::Invalid, "the request can't be sent").because(error);
        let request = request.map(|body| body.map_err(broken).boxed_unsync());
        let client = self.clone();
        Box::pin(async move { client.send(request).await })
    }
}

fn client(deadline: Duration) -> Client<Connector, Body> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    // Shared out among the addresses of a host, so that one that does not answer leaves time for the next.
    http.set_connect_timeout(Some(deadline));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .http1_max_buf_size(BUFFER)
        .build(Connector { proxied: Proxied { http, proxies: Arc::new(Matcher::from_env()) }, deadline })
}

/// A body of bytes at hand.
pub(crate) fn full(bytes: Bytes) -> Body {
    http_body_util::Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A connection that would be refused again, however often it is tried: who answers is not believed, or does not believe
/// us.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refused {
    message: String,
    /// What to do about it.
    pub(crate) hint: &'static str,
}

impl Refused {
    /// The refusal that an error comes from.
    pub(crate) fn behind<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Self> {
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

/// Host and port, without the user and password that an address of a proxy can hold.
fn address(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    uri.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Connects with TLS or without. What TLS needs is made for the first connection that has it.
#[derive(Clone)]
pub(crate) struct Connector {
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

/// Connects directly, or through the proxy that the environment names for an https address.
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
        // The type of the error can't be named, so its words have to tell.
        if error.to_string().contains("authorization required") {
            let hint = "HTTPS_PROXY has to be http://USER:PASSWORD@HOST:PORT, with the right ones";
            return Refused { message: format!("the proxy `{at}` asks for a user and a password"), hint }.into();
        }
        BoxError::from(ProxyFailed { at, source: error.into() })
    })
}

/// A proxy that can't be reached, or can't reach.
#[derive(Debug, thiserror::Error)]
#[error("no way through the proxy `{at}`")]
struct ProxyFailed {
    at: String,
    source: BoxError,
}
