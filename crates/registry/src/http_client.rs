//! The HTTP client for registries, the AWS SDK, and GitHub's API.

use std::collections::{HashMap, VecDeque};
use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

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
use tokio::task::JoinHandle;
use tower_service::Service;

use crate::tls;
use oci::{BoxError, StoreError};

/// The time limit for establishing a connection, including TLS and proxies.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How long an idle connection is kept: shorter than the timeouts of load balancers.
const IDLE: Duration = Duration::from_secs(50);

/// How long a connection is kept that was opened ahead and has not been used yet. Gates may be evaluated meanwhile.
const AHEAD: Duration = Duration::from_secs(20);

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
pub struct HttpClient {
    client: Client<Connector, Body>,
    connector: Connector,
}

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
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        // The time is divided among the addresses of a host, so that an unreachable one leaves time for the next.
        http.set_connect_timeout(Some(deadline));
        let proxied = Proxied { http, proxies: Arc::new(Matcher::from_env()) };
        let connector = Connector { proxied, deadline, hosts: Arc::default() };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http1_max_buf_size(BUFFER)
            .build(connector.clone());
        Self { client, connector }
    }

    /// Opens connections ahead of `count` requests that will soon be sent, apart from those that are idle while `active`
    /// requests are sent, and unless `most` have been opened to the host. One that fails is opened anew by its request, and
    /// one that is not used is closed soon.
    pub fn open_ahead(&self, to: &Uri, count: usize, active: usize, most: usize) {
        let mut hosts = self.connector.hosts();
        let host = hosts.entry(origin(to)).or_default();
        let idle = host.opened.saturating_sub(host.ahead.len() + active);
        let count = count.saturating_sub(idle).min(most.saturating_sub(host.opened));
        for _ in 0..count {
            host.opened += 1;
            let at = Instant::now();
            host.ahead.push_back(Ahead { at, connection: tokio::spawn(self.connector.connect(to.clone())) });
        }
        if count > 0 {
            let (hosts, origin) = (self.connector.hosts.clone(), origin(to));
            tokio::spawn(async move {
                tokio::time::sleep(AHEAD).await;
                let mut hosts = hosts.lock().unwrap_or_else(PoisonError::into_inner);
                hosts.entry(origin).or_default().close_unused();
            });
        }
    }

    /// Sends a request, without retries.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        Ok(self.client.request(request).await?)
    }
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

/// Returns scheme, host and port of a URI.
fn origin(uri: &Uri) -> String {
    format!("{}://{}", uri.scheme_str().unwrap_or_default(), address(uri))
}

type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

type Connection = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Connects with or without TLS. The TLS configuration is created for the first TLS connection.
#[derive(Clone)]
pub struct Connector {
    proxied: Proxied,
    deadline: Duration,
    /// By [`origin`].
    hosts: Arc<Mutex<HashMap<String, Host>>>,
}

/// The connections to a host.
#[derive(Default)]
struct Host {
    /// How many were opened so far. Few are closed before the run ends.
    opened: usize,
    /// Those that were opened ahead and have not been used, the oldest first.
    ahead: VecDeque<Ahead>,
}

/// A connection that is opened ahead.
struct Ahead {
    at: Instant,
    connection: JoinHandle<Result<Connection, BoxError>>,
}

impl Host {
    /// Takes a connection, preferably one that is open.
    fn take(&mut self) -> Option<JoinHandle<Result<Connection, BoxError>>> {
        self.close_unused();
        let open = self.ahead.iter().position(|ahead| ahead.connection.is_finished());
        Some(self.ahead.remove(open.unwrap_or(0))?.connection)
    }

    /// Closes the connections that have waited too long: the other side may close them at any time.
    fn close_unused(&mut self) {
        while let Some(ahead) = self.ahead.pop_front_if(|ahead| ahead.at.elapsed() >= AHEAD) {
            ahead.connection.abort();
            self.opened = self.opened.saturating_sub(1);
        }
    }
}

impl Connector {
    fn connect(&self, to: Uri) -> Connecting<Connection> {
        let Self { mut proxied, deadline, .. } = self.clone();
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

    /// Takes a connection that was opened ahead, if there is one. Otherwise, the caller opens a new one, which is counted here.
    fn take(&self, to: &Uri) -> Option<JoinHandle<Result<Connection, BoxError>>> {
        let mut hosts = self.hosts();
        let host = hosts.entry(origin(to)).or_default();
        let ahead = host.take();
        host.opened += usize::from(ahead.is_none());
        ahead
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.proxied.poll_ready(context)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        match self.take(&to) {
            Some(ahead) => {
                let fresh = self.connect(to);
                Box::pin(async move {
                    match ahead.await {
                        Ok(Ok(connection)) => Ok(connection),
                        Ok(Err(error)) if Refused::behind(error.as_ref()).is_some() => Err(error),
                        Ok(Err(_)) | Err(_) => fresh.await,
                    }
                })
            }
            None => self.connect(to),
        }
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn requests_take_the_connections_that_were_opened_ahead() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = |scheme: &str| -> Uri { format!("{scheme}://{}/", listener.local_addr().unwrap()).parse().unwrap() };
        let (http, https) = (uri("http"), uri("https"));
        let (opened, mut connections) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                opened.send(()).unwrap();
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while connection.read(&mut request).await.is_ok_and(|length| length > 0) {
                        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                    }
                });
            }
        });
        let client = HttpClient::new();
        client.open_ahead(&http, 3, 0, 2);
        for _ in 0..2 {
            connections.recv().await.unwrap();
        }
        // A connection without TLS is not for a request with it.
        assert!(client.connector.take(&https).is_none());
        let send = || client.send(Request::get(http.clone()).body(full(Bytes::new())).unwrap());
        let (one, two) = tokio::join!(send(), send());
        assert!(one.unwrap().status().is_success() && two.unwrap().status().is_success());
        assert!(connections.try_recv().is_err());
        // Both are idle, and are enough for two requests.
        client.open_ahead(&http, 2, 0, 9);
        assert!(client.connector.hosts()[&origin(&http)].ahead.is_empty());
        // Both are used, but as many as allowed have been opened.
        client.open_ahead(&http, 3, 2, 2);
        assert!(client.connector.take(&http).is_none());
    }

    #[tokio::test]
    async fn a_connection_that_failed_or_waited_too_long_is_opened_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri: Uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let client = HttpClient::new();
        let failed = || Ahead { at: Instant::now(), connection: tokio::spawn(async { Err("no route".into()) }) };
        client.connector.hosts().entry(origin(&uri)).or_default().ahead.push_back(failed());
        let answered = async {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _ = connection.read(&mut [0; 4096]).await.unwrap();
            connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        };
        let request = Request::get(uri.clone()).body(full(Bytes::new())).unwrap();
        let (response, ()) = tokio::join!(client.send(request), answered);
        assert!(response.unwrap().status().is_success());

        let old = Ahead { at: Instant::now().checked_sub(AHEAD).unwrap(), ..failed() };
        let mut host = Host { opened: 1, ahead: VecDeque::from([old]) };
        assert!(host.take().is_none());
        assert_eq!(host.opened, 0);
    }
}
