//! A proxy in front of a registry, that counts requests, delays them and makes them fail.
//!
//! It opens one connection to the registry for each connection of a client, so that the registry sees how the client
//! uses connections. Bodies are streamed.
//!
//! Locations and links to the registry are rewritten to the proxy. Those to another host, such as a download behind a
//! redirect, are rewritten to a second address of the proxy, so that the client sees another host as well.

use std::{
    collections::BTreeMap,
    future::Future as _,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    Request,
    body::{Frame, Incoming, SizeHint},
    client::conn::http1::{SendRequest, handshake},
    header::{HOST, HeaderMap, LINK, LOCATION},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Sleep};
use url::Url;

use crate::http::{self, Body, Handler, Peer, Reply, RequestKind, Route, Server, reply};

/// A running proxy. Dropping it stops it.
pub struct Proxy {
    shared: Arc<Shared>,
    server: Server,
}

struct Shared {
    upstream: Url,
    latency: Duration,
    /// The proxy's two addresses: for the registry, and for the hosts that it redirects to.
    near: String,
    far: String,
    faults: Mutex<Vec<Fault>>,
    log: Mutex<Vec<Seen>>,
    /// Idle connections to registries, by the client's connection and the origin.
    upstreams: Mutex<BTreeMap<(u64, String), Upstream>>,
}

/// A client's connection, and the connection to the registry that belongs to it.
type Upstream = (Peer, SendRequest<Body>);

/// A request in the proxy's log.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What the request is for.
    pub kind: RequestKind,
    /// The HTTP method.
    pub method: String,
    /// The path with the query.
    pub path: String,
    /// Whether there is an `Authorization` header.
    pub authorization: bool,
    /// The `Range` header.
    pub range: Option<String>,
    /// The number of the connection, from 1.
    pub connection: u64,
    status: Arc<AtomicU16>,
    received: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
}

impl Seen {
    /// Returns the response's status, or 0 without a response.
    pub fn status(&self) -> u16 {
        self.status.load(SeqCst)
    }

    /// Returns the number of bytes of the request's body that were forwarded.
    pub fn received(&self) -> u64 {
        self.received.load(SeqCst)
    }

    /// Returns the number of bytes of the response's body that were forwarded.
    pub fn sent(&self) -> u64 {
        self.sent.load(SeqCst)
    }
}

/// How a request fails.
#[derive(Clone, Debug)]
pub enum Effect {
    /// The proxy sends this response. The request does not reach the registry.
    Answer {
        /// The status.
        status: u16,
        /// Names and values of headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
    /// The connection is reset once this much of the request's body has reached the registry.
    ResetRequest {
        /// Bytes.
        after: u64,
    },
    /// The connection is reset after this much of the response's body.
    ResetResponse {
        /// Bytes.
        after: u64,
    },
    /// The connection is closed in an orderly way after this much of the response's body.
    Truncate {
        /// Bytes.
        after: u64,
    },
    /// One bit of the response's body is flipped.
    FlipResponse {
        /// The byte's offset.
        at: u64,
    },
    /// One bit of the request's body is flipped.
    FlipRequest {
        /// The byte's offset.
        at: u64,
    },
    /// There is no response, and the connection stays open. The request does not reach the registry.
    Hang,
    /// The response's body stops after this much of it, and the connection stays open.
    Stall {
        /// Bytes.
        after: u64,
    },
    /// The proxy sends a 403 that repeats the request's credentials. The request does not reach the registry.
    EchoAuthorization,
    /// The request takes effect, and the response is lost: the connection is reset.
    LoseAnswer,
    /// The request is forwarded after this time.
    Delay(Duration),
}

impl Effect {
    /// Returns [`Effect::Answer`] with a status and an empty body.
    pub fn status(status: u16) -> Effect {
        Effect::Answer { status, headers: Vec::new(), body: String::new() }
    }

    /// Returns [`Effect::Answer`] with 429 and a `Retry-After`: seconds, or [`http_date`](crate::http::http_date).
    pub fn throttled(retry_after: &str) -> Effect {
        Effect::Answer {
            status: 429,
            headers: vec![("retry-after".into(), retry_after.into())],
            body: r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}"#.into(),
        }
    }
}

type Predicate = Arc<dyn Fn(&Seen) -> bool + Send + Sync>;

/// An effect on some of the requests that match. The default is the first one.
pub struct Fault {
    matches: Predicate,
    skip: u64,
    times: u64,
    hits: Arc<AtomicU64>,
    effect: Effect,
}

impl Fault {
    /// Returns a fault on the first request of a kind.
    pub fn on(kind: RequestKind, effect: Effect) -> Fault {
        Fault::when(move |seen| seen.kind == kind, effect)
    }

    /// Returns a fault on the first request with this method whose path, with its query, contains this text.
    pub fn on_path(method: &str, part: &str, effect: Effect) -> Fault {
        let (method, part) = (method.to_owned(), part.to_owned());
        Fault::when(move |seen| seen.method == method && seen.path.contains(&part), effect)
    }

    /// Returns a fault on the first request that the predicate accepts.
    pub fn when(matches: impl Fn(&Seen) -> bool + Send + Sync + 'static, effect: Effect) -> Fault {
        Fault { matches: Arc::new(matches), skip: 0, times: 1, hits: Arc::default(), effect }
    }

    /// Starts with the `n`th matching request, from 1.
    pub fn nth(self, n: u64) -> Fault {
        Fault { skip: n.saturating_sub(1), ..self }
    }

    /// Affects this many matching requests.
    pub fn times(self, times: u64) -> Fault {
        Fault { times, ..self }
    }
}

/// Counts how often a fault has taken effect.
#[derive(Clone)]
pub struct Hits(Arc<AtomicU64>);

impl Hits {
    /// Returns how often the fault has taken effect.
    pub fn count(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

impl Proxy {
    /// Starts a proxy in front of a registry's URL: `http://127.0.0.1:PORT`.
    ///
    /// # Panics
    /// If the URL is invalid or no port is free.
    pub fn start(upstream: &str) -> Proxy {
        Proxy::with_latency(upstream, Duration::ZERO)
    }

    /// Starts a proxy that forwards each request after some time.
    ///
    /// # Panics
    /// If the URL is invalid or no port is free.
    pub fn with_latency(upstream: &str, latency: Duration) -> Proxy {
        let near = http::listen("127.0.0.1").expect("a port");
        let far = http::listen("127.0.0.2").or_else(|_| http::listen("127.0.0.1")).expect("a port");
        let shared = Arc::new(Shared {
            upstream: Url::parse(upstream).expect("a base URL"),
            latency,
            near: http::base_url(&near),
            far: http::base_url(&far),
            faults: Mutex::default(),
            log: Mutex::default(),
            upstreams: Mutex::default(),
        });
        let handler = |far: bool| -> Handler {
            let shared = shared.clone();
            Arc::new(move |request, peer| Box::pin(serve(shared.clone(), far, request, peer)))
        };
        let listeners = vec![(near, handler(false)), (far, handler(true))];
        Proxy { server: Server::start(listeners), shared }
    }

    /// Returns the proxy's URL, to use in place of the registry's.
    pub fn url(&self) -> &str {
        &self.shared.near
    }

    /// Adds a fault. If several apply to a request, the first takes effect.
    pub fn fault(&self, fault: Fault) -> Hits {
        let hits = Hits(fault.hits.clone());
        self.shared.faults.lock().unwrap().push(fault);
        hits
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// Returns all requests in the order of their arrival.
    pub fn log(&self) -> Vec<Seen> {
        self.shared.log.lock().unwrap().clone()
    }

    /// Empties the log.
    pub fn clear_log(&self) {
        self.shared.log.lock().unwrap().clear();
    }

    /// Returns the number of requests of a kind.
    pub fn count(&self, kind: RequestKind) -> usize {
        self.log().iter().filter(|seen| seen.kind == kind).count()
    }

    /// Returns the number of requests of each kind.
    pub fn counts(&self) -> BTreeMap<RequestKind, usize> {
        let mut counts = BTreeMap::new();
        for seen in self.log() {
            *counts.entry(seen.kind).or_default() += 1;
        }
        counts
    }

    /// Returns the number of connections from clients.
    pub fn connections(&self) -> u64 {
        self.server.traffic.connections.load(SeqCst)
    }

    /// Returns the number of bytes received from clients, headers included.
    pub fn received(&self) -> u64 {
        self.server.traffic.received.load(SeqCst)
    }

    /// Returns the number of bytes sent to clients, headers included.
    pub fn sent(&self) -> u64 {
        self.server.traffic.sent.load(SeqCst)
    }
}

async fn serve(shared: Arc<Shared>, far: bool, request: Request<Incoming>, peer: Peer) -> io::Result<Reply> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let seen = Seen {
        kind: if far { RequestKind::Redirected } else { Route::of(request.method().as_str(), &path).kind },
        method: request.method().to_string(),
        path: path.clone(),
        authorization: request.headers().contains_key("authorization"),
        range: request.headers().get("range").and_then(|range| range.to_str().ok()).map(str::to_owned),
        connection: peer.connection,
        status: Arc::default(),
        received: Arc::default(),
        sent: Arc::default(),
    };
    let effect = {
        // One lock over both: faults count requests in the log's order.
        let mut log = shared.log.lock().unwrap();
        log.push(seen.clone());
        due(&mut shared.faults.lock().unwrap(), &seen)
    };
    tokio::time::sleep(shared.latency).await;
    let (mut to_registry, mut to_client) = (Meddling::default(), Meddling::default());
    match effect {
        Some(Effect::Answer { status, headers, body }) => {
            let mut incoming = request.into_body();
            while let Some(frame) = incoming.frame().await {
                frame.map_err(io::Error::other)?;
            }
            seen.status.store(status, SeqCst);
            let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            return Ok(reply(status, &headers, if seen.method == "HEAD" { String::new() } else { body }));
        }
        Some(Effect::EchoAuthorization) => {
            let sent = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
            let body = format!(r#"{{"errors":[{{"code":"DENIED","message":"got {sent}"}}]}}"#);
            return Ok(reply(403, &[], body));
        }
        Some(Effect::Hang) => std::future::pending().await,
        Some(Effect::Delay(time)) => tokio::time::sleep(time).await,
        Some(Effect::ResetRequest { after }) => to_registry.end = Some((after, End::Reset(peer.clone()))),
        Some(Effect::ResetResponse { after }) => to_client.end = Some((after, End::Reset(peer.clone()))),
        Some(Effect::Truncate { after }) => to_client.end = Some((after, End::Close)),
        Some(Effect::Stall { after }) => to_client.end = Some((after, End::Stall)),
        Some(Effect::FlipRequest { at }) => to_registry.flip = Some(at),
        Some(Effect::FlipResponse { at }) => to_client.flip = Some(at),
        Some(Effect::LoseAnswer) => {
            forward(&shared, far, &path, request, to_registry, &seen, &peer).await?;
            peer.reset();
            return Err(io::Error::other("the answer is lost"));
        }
        None => {}
    }
    let resets = matches!(to_registry.end, Some((_, End::Reset(_))));
    let answer = forward(&shared, far, &path, request, to_registry, &seen, &peer).await;
    let (mut parts, body) = match answer {
        Ok(answer) => answer.into_parts(),
        Err(error) => {
            if resets {
                peer.reset();
            }
            return Err(error);
        }
    };
    for name in [LOCATION, LINK] {
        rewrite(&shared, far, &path, &mut parts.headers, &name);
    }
    seen.status.store(parts.status.as_u16(), SeqCst);
    let relay = Relay { body, meddling: to_client, at: 0, meter: seen.sent.clone(), pause: None };
    Ok(Reply::from_parts(parts, relay.boxed_unsync()))
}

/// Returns the effect of the first fault that applies. Every fault counts every request that it matches.
fn due(faults: &mut [Fault], seen: &Seen) -> Option<Effect> {
    let mut found = None;
    for fault in faults.iter_mut().filter(|fault| (fault.matches)(seen)) {
        if fault.skip > 0 {
            fault.skip -= 1;
        } else if fault.times > 0 && found.is_none() {
            fault.times -= 1;
            fault.hits.fetch_add(1, SeqCst);
            found = Some(fault.effect.clone());
        }
    }
    found
}

/// Returns authority and path upstream. At the far address, paths start with the origin: `/http/127.0.0.2:80/rest`.
fn target(shared: &Shared, far: bool, path: &str) -> io::Result<(String, String)> {
    if !far {
        let base = shared.upstream.path().trim_end_matches('/');
        return Ok((shared.upstream.authority().to_owned(), format!("{base}{path}")));
    }
    let (authority, rest) = path
        .strip_prefix("/http/")
        .and_then(|path| path.split_once('/'))
        .ok_or_else(|| io::Error::other("no origin in the path"))?;
    Ok((authority.to_owned(), format!("/{rest}")))
}

async fn forward(
    shared: &Shared,
    far: bool,
    path: &str,
    request: Request<Incoming>,
    meddling: Meddling,
    seen: &Seen,
    peer: &Peer,
) -> io::Result<hyper::Response<Incoming>> {
    let (authority, path) = target(shared, far, path)?;
    let (mut parts, body) = request.into_parts();
    parts.uri = path.parse().map_err(io::Error::other)?;
    parts.headers.insert(HOST, authority.parse().map_err(io::Error::other)?);
    let relay = Relay { body, meddling, at: 0, meter: seen.received.clone(), pause: None };
    let request = Request::from_parts(parts, relay.boxed_unsync());
    let key = (seen.connection, authority.clone());
    let idle = shared.upstreams.lock().unwrap().remove(&key);
    let ready = match idle {
        Some((_, mut upstream)) => upstream.ready().await.is_ok().then_some(upstream),
        None => None,
    };
    let mut upstream = match ready {
        Some(upstream) => upstream,
        None => connect(&authority).await?,
    };
    let answer = upstream.send_request(request).await.map_err(io::Error::other)?;
    let mut upstreams = shared.upstreams.lock().unwrap();
    upstreams.retain(|_, (client, _)| !client.closed());
    upstreams.insert(key, (peer.clone(), upstream));
    Ok(answer)
}

async fn connect(authority: &str) -> io::Result<SendRequest<Body>> {
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (upstream, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(upstream)
}

/// Rewrites the URL in a header so that it leads through the proxy.
fn rewrite(shared: &Shared, far: bool, path: &str, headers: &mut HeaderMap, name: &hyper::header::HeaderName) {
    let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) else { return };
    let (before, link, after) = match value.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((link, after)) => ("<", link, format!(">{after}")),
        None => ("", value, String::new()),
    };
    let origin = shared.upstream.origin().ascii_serialization();
    let rewritten = if let Some(rest) = link.strip_prefix(&origin).filter(|rest| !rest.starts_with(':')) {
        format!("{}{rest}", shared.near)
    } else if let Some(rest) = link.strip_prefix("http://") {
        format!("{}/http/{rest}", shared.far)
    } else if let (true, Some(rest)) = (far && link.starts_with('/'), path.strip_prefix("/http/")) {
        format!("/http/{}{link}", rest.split('/').next().unwrap_or_default())
    } else {
        return;
    };
    headers.insert(name, format!("{before}{rewritten}{after}").parse().unwrap());
}

/// What happens to a body on its way.
#[derive(Default)]
struct Meddling {
    end: Option<(u64, End)>,
    flip: Option<u64>,
}

enum End {
    Reset(Peer),
    Close,
    Stall,
}

/// A body that is forwarded: counted, and cut off or changed.
struct Relay {
    body: Incoming,
    meddling: Meddling,
    at: u64,
    meter: Arc<AtomicU64>,
    /// Lets the bytes before the end arrive, so that a reset does not overtake them.
    pause: Option<Pin<Box<Sleep>>>,
}

const PAUSE: Duration = Duration::from_millis(20);

impl hyper::body::Body for Relay {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let relay = &mut *self;
        let left = relay.meddling.end.as_ref().map(|(after, _)| after.saturating_sub(relay.at));
        if left == Some(0) {
            let pause = relay.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(PAUSE)));
            if pause.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match &relay.meddling.end {
                Some((_, End::Stall)) => return Poll::Pending,
                Some((_, End::Reset(peer))) => peer.reset(),
                _ => {}
            }
            return Poll::Ready(Some(Err(io::Error::other("the body ends here"))));
        }
        let frame = match Pin::new(&mut relay.body).poll_frame(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(frame)) => frame.map_err(io::Error::other)?,
        };
        let Ok(mut bytes) = frame.into_data() else { return Poll::Ready(None) };
        if let Some(left) = left {
            bytes.truncate(bytes.len().min(left as usize));
        }
        let here = relay.at..relay.at + bytes.len() as u64;
        if let Some(at) = relay.meddling.flip.filter(|at| here.contains(at)) {
            let mut flipped = BytesMut::from(bytes.as_ref());
            flipped[(at - relay.at) as usize] ^= 1;
            bytes = flipped.freeze();
        }
        relay.at = here.end;
        relay.meter.fetch_add(bytes.len() as u64, SeqCst);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.meddling.end.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
