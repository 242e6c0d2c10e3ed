//! TLS in front of what speaks plain http, under certificates of an authority that only the test knows; and a proxy
//! that gives tunnels by `CONNECT`. The proxy resolves names, so that the real hosts of AWS lead to this machine.
#![allow(dead_code, reason = "no single test needs all of it")]

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ecr_fake::http;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// The longest head of a `CONNECT` request, in bytes.
const HEAD: usize = 4096;

/// An authority, and a folder with its certificate and those that it has signed.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A certificate with its key, as files.
pub(crate) struct Signed {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    acceptor: TlsAcceptor,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Another name than any other authority has: a certificate names its issuer.
        let folder = tempfile::tempdir().unwrap();
        params.distinguished_name.push(DnType::CommonName, folder.path().display().to_string());
        fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { issuer: Issuer::new(params, key), folder }
    }

    /// For `SSL_CERT_FILE`.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for names and addresses.
    pub(crate) fn sign(&self, names: &[&str]) -> Signed {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let file = |end: &str| self.folder.path().join(format!("{}{end}", names[0]));
        let (certificate, key_file) = (file(".pem"), file(".key.pem"));
        let key = KeyPair::generate().unwrap();
        let signed = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        fs::write(&certificate, signed.pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(ring).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![signed.der().clone()], key).unwrap();
        Signed { certificate, key: key_file, acceptor: Arc::new(config).into() }
    }
}

/// A listener on a thread of its own, until dropped.
struct Listening {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    /// Dropping it ends what runs on it.
    _runtime: tokio::runtime::Runtime,
}

fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Listening
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = http::listen("127.0.0.1").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicU64::new(0));
    let counter = connections.clone();
    runtime.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, SeqCst);
            // What goes wrong with a connection shows at its other end.
            tokio::spawn(serve(stream));
        }
    });
    Listening { address, connections, _runtime: runtime }
}

/// TLS in front of an address that has none.
pub(crate) struct Front(Listening);

impl Front {
    /// `upstream` is a base URL: `http://127.0.0.1:PORT`.
    pub(crate) fn start(signed: &Signed, upstream: &str) -> Front {
        let (acceptor, upstream) = (signed.acceptor.clone(), upstream.trim_start_matches("http://").to_owned());
        Front(listen(move |stream| {
            let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
            async move {
                let mut stream = acceptor.accept(stream).await?;
                copy_bidirectional(&mut stream, &mut TcpStream::connect(upstream).await?).await.map(drop)
            }
        }))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    pub(crate) fn connections(&self) -> u64 {
        self.0.connections.load(SeqCst)
    }
}

/// A proxy that knows `CONNECT` and nothing else.
pub(crate) struct ConnectProxy {
    listening: Listening,
    shared: Arc<Shared>,
}

struct Shared {
    /// What it leads to, by the host that is asked for.
    hosts: Vec<(String, SocketAddr)>,
    /// `user:password`, where it wants to know.
    user: Option<String>,
    tunnels: Mutex<Vec<String>>,
    refused: Mutex<Vec<String>>,
}

impl ConnectProxy {
    pub(crate) fn start(hosts: Vec<(String, SocketAddr)>, user: Option<&str>) -> ConnectProxy {
        let user = user.map(str::to_owned);
        let shared = Arc::new(Shared { hosts, user, tunnels: Mutex::default(), refused: Mutex::default() });
        let state = shared.clone();
        let listening = listen(move |stream| {
            let state = state.clone();
            async move { state.serve(stream).await }
        });
        ConnectProxy { listening, shared }
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn address(&self) -> String {
        self.listening.address.to_string()
    }

    /// `HOST:PORT` of every tunnel that was given, each once and in order.
    pub(crate) fn tunnels(&self) -> Vec<String> {
        let mut tunnels = self.shared.tunnels.lock().unwrap().clone();
        tunnels.sort();
        tunnels.dedup();
        tunnels
    }

    /// What was asked for without the right user and password.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.shared.refused.lock().unwrap().clone()
    }
}

impl Shared {
    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= HEAD || stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.lines();
        let asked: Vec<_> = lines.next().unwrap_or_default().split(' ').collect();
        let header = |name: &str| {
            let mut headers = lines.clone().filter_map(|line| line.split_once(": "));
            headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let ["CONNECT", authority, "HTTP/1.1"] = asked[..] else { return answer(&mut stream, "405 Not Allowed").await };
        if header("host").as_deref() != Some(authority) {
            return answer(&mut stream, "400 Bad Request").await;
        }
        let wanted = self.user.as_ref().map(|user| format!("Basic {}", STANDARD.encode(user)));
        if header("proxy-authorization") != wanted {
            self.refused.lock().unwrap().push(authority.to_owned());
            return answer(&mut stream, "407 Proxy Authentication Required").await;
        }
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let Some((_, address)) = self.hosts.iter().find(|(known, _)| known == host) else {
            return answer(&mut stream, "502 Bad Gateway").await;
        };
        self.tunnels.lock().unwrap().push(authority.to_owned());
        let mut upstream = TcpStream::connect(address).await?;
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
        copy_bidirectional(&mut stream, &mut upstream).await.map(drop)
    }
}

async fn answer(stream: &mut TcpStream, status: &str) -> io::Result<()> {
    stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await
}

/// A named pipe that nobody writes to: whoever opens it to read waits for ever.
pub(crate) fn trap(folder: &Path) -> PathBuf {
    let pipe = folder.join("trap");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    pipe
}
