//! HTTP servers on threads of their own, and the requests of the OCI distribution specification.
//!
//! The fake and its [proxy](crate::proxy) are made of these; they also serve for other stand-ins in the same tests.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::TcpListener,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::oneshot,
};

/// The body of a response.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;
/// A response.
pub type Reply = Response<Body>;
/// A response to come; an error closes the connection without one.
pub type Answer = Pin<Box<dyn Future<Output = io::Result<Reply>> + Send>>;

/// Handles the requests of a listener.
pub type Handler = Arc<dyn Fn(Request<Incoming>, Peer) -> Answer + Send + Sync>;

/// What a request is for: an endpoint of the distribution specification, or an action of an API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestKind {
    /// `GET /v2/`
    Ping,
    /// `HEAD` of a manifest.
    HeadManifest,
    /// `GET` of a manifest.
    GetManifest,
    /// `PUT` of a manifest under a tag.
    PutManifestByTag,
    /// `PUT` of a manifest under its digest.
    PutManifestByDigest,
    /// `DELETE` of a manifest or tag.
    DeleteManifest,
    /// `HEAD` of a blob.
    HeadBlob,
    /// `GET` of a blob.
    GetBlob,
    /// The download that a redirect of a blob leads to.
    Redirected,
    /// `POST` that begins an upload.
    PostUpload,
    /// `POST` that asks for a cross-repository mount, whether or not it is granted.
    Mount,
    /// `PATCH` with a chunk of an upload.
    PatchUpload,
    /// `PUT` that completes an upload.
    PutUpload,
    /// `GET` of an upload's state.
    GetUpload,
    /// `DELETE` of an upload.
    DeleteUpload,
    /// `GET` of a digest's referrers.
    Referrers,
    /// `GET` of the tag list.
    Tags,
    /// An action of an AWS API, such as `GetAuthorizationToken`.
    Api(String),
    /// GitHub's token endpoint for web identities.
    Oidc,
    /// Any other request.
    Other,
}

impl RequestKind {
    /// Returns [`RequestKind::Api`] with an action.
    pub fn api(action: &str) -> RequestKind {
        RequestKind::Api(action.to_owned())
    }

    /// Returns whether such a request can change something.
    pub fn writes(&self) -> bool {
        use RequestKind::*;
        match self {
            PutManifestByTag | PutManifestByDigest | DeleteManifest | PostUpload | Mount | PatchUpload | PutUpload
            | DeleteUpload => true,
            // A preview of a lifecycle policy removes nothing.
            Api(action) if action == "StartLifecyclePolicyPreview" => false,
            Api(action) => ["Create", "Put", "Set", "Tag", "Untag", "Delete", "Update", "Start"]
                .iter()
                .any(|verb| action.starts_with(verb)),
            _ => false,
        }
    }
}

/// A parsed request of the distribution specification.
#[derive(Clone, Debug)]
pub struct Route {
    /// What the request is for.
    pub kind: RequestKind,
    /// The repository's name; empty if the path has none.
    pub repository: String,
    /// A tag, a digest or an upload's ID; empty if the path has none.
    pub reference: String,
    /// Decoded names and values of the query.
    pub query: Vec<(String, String)>,
}

impl Route {
    /// Parses a method and a path with its query.
    pub fn of(method: &str, path_and_query: &str) -> Route {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let query: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let route = |kind, repository: &str, reference: &str| Route {
            kind,
            repository: repository.to_owned(),
            reference: reference.to_owned(),
            query: query.clone(),
        };
        let Some(path) = path.strip_prefix("/v2") else { return route(RequestKind::Other, "", "") };
        let path = path.strip_prefix('/').unwrap_or(path);
        if path.is_empty() {
            return route(RequestKind::Ping, "", "");
        }
        if let (Some(name), "GET") = (path.strip_suffix("/tags/list"), method) {
            return route(RequestKind::Tags, name, "");
        }
        if let (Some(name), "POST") = (path.trim_end_matches('/').strip_suffix("/blobs/uploads"), method) {
            let mount = query.iter().any(|(key, _)| key == "mount");
            return route(if mount { RequestKind::Mount } else { RequestKind::PostUpload }, name, "");
        }
        let Some((head, last)) = path.rsplit_once('/') else { return route(RequestKind::Other, "", "") };
        if let Some(name) = head.strip_suffix("/blobs/uploads") {
            let kind = match method {
                "PATCH" => RequestKind::PatchUpload,
                "PUT" => RequestKind::PutUpload,
                "GET" => RequestKind::GetUpload,
                "DELETE" => RequestKind::DeleteUpload,
                _ => RequestKind::Other,
            };
            return route(kind, name, last);
        }
        let kinds = |name: Option<&str>, kind: RequestKind| name.map(|name| route(kind, name, last));
        match method {
            "HEAD" => kinds(head.strip_suffix("/manifests"), RequestKind::HeadManifest)
                .or_else(|| kinds(head.strip_suffix("/blobs"), RequestKind::HeadBlob)),
            "GET" => kinds(head.strip_suffix("/manifests"), RequestKind::GetManifest)
                .or_else(|| kinds(head.strip_suffix("/blobs"), RequestKind::GetBlob))
                .or_else(|| kinds(head.strip_suffix("/referrers"), RequestKind::Referrers)),
            "PUT" if last.contains(':') => kinds(head.strip_suffix("/manifests"), RequestKind::PutManifestByDigest),
            "PUT" => kinds(head.strip_suffix("/manifests"), RequestKind::PutManifestByTag),
            "DELETE" => kinds(head.strip_suffix("/manifests"), RequestKind::DeleteManifest),
            _ => None,
        }
        .unwrap_or_else(|| route(RequestKind::Other, "", ""))
    }

    /// Returns the first value with this name in the query.
    pub fn query(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// Receives the rest of a body.
pub(crate) async fn drain(body: &mut Incoming, meter: &AtomicU64) -> io::Result<()> {
    while next(body, meter).await?.is_some() {}
    Ok(())
}

/// Receives the next bytes of a body.
pub(crate) async fn next(body: &mut Incoming, meter: &AtomicU64) -> io::Result<Option<Bytes>> {
    while let Some(frame) = body.frame().await {
        if let Ok(bytes) = frame.map_err(io::Error::other)?.into_data() {
            meter.fetch_add(bytes.len() as u64, SeqCst);
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// Returns a body of some bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// Returns a response.
///
/// # Panics
/// If the status or a header is invalid.
pub fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::builder().status(status);
    for (name, value) in headers {
        reply = reply.header(*name, *value);
    }
    reply.body(full(body)).unwrap()
}

/// Formats a time for an HTTP header: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn http_date(at: time::OffsetDateTime) -> String {
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    at.to_offset(time::UtcOffset::UTC).format(&format).unwrap()
}

/// The connection of a request.
#[derive(Clone)]
pub struct Peer {
    /// The number of the connection, from 1, across all listeners of a server.
    pub connection: u64,
    reset: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
}

impl Peer {
    /// Returns whether the connection is closed.
    pub fn closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// Lets the connection end with a TCP reset instead of an orderly close, once the handler or the body fails.
    pub fn reset(&self) {
        self.reset.store(true, SeqCst);
    }
}

/// Counters over all connections of a server. Bytes include headers.
#[derive(Default, Debug)]
pub struct Traffic {
    /// Accepted connections.
    pub connections: AtomicU64,
    /// Bytes received.
    pub received: AtomicU64,
    /// Bytes sent.
    pub sent: AtomicU64,
}

/// A running server with one or more listeners. Dropping it stops it.
pub struct Server {
    /// Counters.
    pub traffic: Arc<Traffic>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server on threads of its own.
    ///
    /// # Panics
    /// If a thread cannot be started.
    pub fn start(listeners: Vec<(TcpListener, Handler)>) -> Server {
        let traffic = Arc::new(Traffic::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let counters = traffic.clone();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                for (listener, handler) in listeners {
                    tokio::spawn(accept(listener, handler, counters.clone()));
                }
                let _ = stopped.await;
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
        });
        Server { traffic, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Binds a free port of an address, for [`Server::start`].
pub fn listen(address: &str) -> io::Result<TcpListener> {
    listen_on(address, 0)
}

/// Binds a port of an address, for [`Server::start`].
pub fn listen_on(address: &str, port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((address, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Returns the URL of a listener: `http://127.0.0.1:PORT`.
///
/// # Panics
/// If the listener has no address.
pub fn base_url(listener: &TcpListener) -> String {
    format!("http://{}", listener.local_addr().unwrap())
}

async fn accept(listener: TcpListener, handler: Handler, traffic: Arc<Traffic>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let connection = traffic.connections.fetch_add(1, SeqCst) + 1;
        let peer = Peer { connection, reset: Arc::default(), closed: Arc::default() };
        let handler = handler.clone();
        let socket = Socket { stream, peer: peer.clone(), traffic: traffic.clone() };
        tokio::spawn(async move {
            let service = service_fn(move |request| handler(request, peer.clone()));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            let _ = connection.await;
        });
    }
}

/// A stream that counts bytes, and that can end with a reset.
struct Socket {
    stream: TcpStream,
    peer: Peer,
    traffic: Arc<Traffic>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.peer.closed.store(true, SeqCst);
        if self.peer.reset.load(SeqCst) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.traffic.received.fetch_add((buffer.filled().len() - before) as u64, SeqCst);
        result
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = result {
            self.traffic.sent.fetch_add(written as u64, SeqCst);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.peer.reset.load(SeqCst) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
