//! What the fake registry and the fault proxy share: listeners on a thread of their own, bodies, and the names of the
//! requests that the distribution specification knows.

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

pub type Body = UnsyncBoxBody<Bytes, io::Error>;
pub type Reply = Response<Body>;
pub type Answer = Pin<Box<dyn Future<Output = io::Result<Reply>> + Send>>;

/// Answers a request; an error closes the connection without an answer.
pub type Handler = Arc<dyn Fn(Request<Incoming>, Peer) -> Answer + Send + Sync>;

/// One kind of request, named as the distribution specification names what it does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Ping,
    HeadManifest,
    GetManifest,
    PutManifestByTag,
    PutManifestByDigest,
    DeleteManifest,
    HeadBlob,
    GetBlob,
    /// The download that a blob's 307 leads to.
    Redirected,
    PostUpload,
    /// A `POST` that asks for a cross-repository mount, whatever the answer.
    Mount,
    PatchUpload,
    PutUpload,
    GetUpload,
    DeleteUpload,
    Referrers,
    Tags,
    /// An action of the control plane: `GetAuthorizationToken`.
    Api(String),
    /// GitHub's token endpoint for web identities.
    Oidc,
    Other,
}

impl Kind {
    pub fn api(action: &str) -> Kind {
        Kind::Api(action.to_owned())
    }

    /// Whether such a request changes something.
    pub fn writes(&self) -> bool {
        use Kind::*;
        match self {
            PutManifestByTag | PutManifestByDigest | DeleteManifest | PostUpload | Mount | PatchUpload | PutUpload
            | DeleteUpload => true,
            Api(action) => ["Create", "Put", "Set", "Tag", "Untag", "Delete", "Update", "Start"]
                .iter()
                .any(|verb| action.starts_with(verb)),
            _ => false,
        }
    }
}

/// A path below `/v2/`, taken apart.
#[derive(Clone, Debug)]
pub struct Route {
    pub kind: Kind,
    pub repository: String,
    /// A tag, a digest, or an upload's id.
    pub reference: String,
    pub query: Vec<(String, String)>,
}

impl Route {
    pub fn of(method: &str, path_and_query: &str) -> Route {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let query: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let route = |kind, repository: &str, reference: &str| Route {
            kind,
            repository: repository.to_owned(),
            reference: reference.to_owned(),
            query: query.clone(),
        };
        let Some(path) = path.strip_prefix("/v2") else { return route(Kind::Other, "", "") };
        let path = path.strip_prefix('/').unwrap_or(path);
        if path.is_empty() {
            return route(Kind::Ping, "", "");
        }
        if let (Some(name), "GET") = (path.strip_suffix("/tags/list"), method) {
            return route(Kind::Tags, name, "");
        }
        if let (Some(name), "POST") = (path.trim_end_matches('/').strip_suffix("/blobs/uploads"), method) {
            let mount = query.iter().any(|(key, _)| key == "mount");
            return route(if mount { Kind::Mount } else { Kind::PostUpload }, name, "");
        }
        let Some((head, last)) = path.rsplit_once('/') else { return route(Kind::Other, "", "") };
        if let Some(name) = head.strip_suffix("/blobs/uploads") {
            let kind = match method {
                "PATCH" => Kind::PatchUpload,
                "PUT" => Kind::PutUpload,
                "GET" => Kind::GetUpload,
                "DELETE" => Kind::DeleteUpload,
                _ => Kind::Other,
            };
            return route(kind, name, last);
        }
        let kinds = |name: Option<&str>, kind: Kind| name.map(|name| route(kind, name, last));
        match method {
            "HEAD" => kinds(head.strip_suffix("/manifests"), Kind::HeadManifest)
                .or_else(|| kinds(head.strip_suffix("/blobs"), Kind::HeadBlob)),
            "GET" => kinds(head.strip_suffix("/manifests"), Kind::GetManifest)
                .or_else(|| kinds(head.strip_suffix("/blobs"), Kind::GetBlob))
                .or_else(|| kinds(head.strip_suffix("/referrers"), Kind::Referrers)),
            "PUT" if last.contains(':') => kinds(head.strip_suffix("/manifests"), Kind::PutManifestByDigest),
            "PUT" => kinds(head.strip_suffix("/manifests"), Kind::PutManifestByTag),
            "DELETE" => kinds(head.strip_suffix("/manifests"), Kind::DeleteManifest),
            _ => None,
        }
        .unwrap_or_else(|| route(Kind::Other, "", ""))
    }

    pub fn query(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// A body of bytes that are at hand.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::builder().status(status);
    for (name, value) in headers {
        reply = reply.header(*name, *value);
    }
    reply.body(full(body)).unwrap()
}

/// An instant as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn http_date(at: time::OffsetDateTime) -> String {
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    at.to_offset(time::UtcOffset::UTC).format(&format).unwrap()
}

/// The connection that a request came on.
#[derive(Clone)]
pub struct Peer {
    /// Counted over all listeners of a server, from 1.
    pub connection: u64,
    reset: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
}

impl Peer {
    pub fn closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// The connection ends with a TCP reset instead of an orderly close, as soon as the handler or the body fails.
    pub fn reset(&self) {
        self.reset.store(true, SeqCst);
    }
}

/// What went over all connections of a server, headers included.
#[derive(Default, Debug)]
pub struct Traffic {
    pub connections: AtomicU64,
    pub received: AtomicU64,
    pub sent: AtomicU64,
}

/// Listeners on a thread of their own, until dropped.
pub struct Server {
    pub traffic: Arc<Traffic>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
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

/// A listener on a free port, ready for `Server::start`.
pub fn listen(address: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((address, 0))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

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

/// A stream that counts, and that can end with a reset.
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
