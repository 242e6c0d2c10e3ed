//! A link with latency: bytes are held for half a round trip in each direction, and a new connection waits for one round
//! trip before its first byte, as a handshake does. Bytes are not read, so a link takes little of the processor.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

/// The number of pieces that may be on their way in one direction, of 64 KiB at most: more than any test transfers in a
/// round trip.
const IN_FLIGHT: usize = 64;
const PIECE: usize = 64 * 1024; // bytes

/// A link to a port of this machine. It ends when it is dropped.
pub(crate) struct Link {
    _runtime: Runtime,
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Link {
    /// Returns a link to `upstream`, an URL with a port.
    pub(crate) fn start(upstream: &str, round_trip: Duration) -> Link {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let upstream = upstream.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        runtime.spawn(async move {
            while let Ok((front, _)) = listener.accept().await {
                count.fetch_add(1, SeqCst);
                let upstream = upstream.clone();
                tokio::spawn(async move {
                    sleep(round_trip).await;
                    let Ok(back) = TcpStream::connect(upstream).await else { return };
                    for stream in [&front, &back] {
                        let _ = stream.set_nodelay(true);
                    }
                    let ((front_read, front_write), (back_read, back_write)) = (front.into_split(), back.into_split());
                    delay(front_read, back_write, round_trip / 2);
                    delay(back_read, front_write, round_trip / 2);
                });
            }
        });
        Link { _runtime: runtime, port, connections }
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How many connections were opened so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

/// Forwards bytes in one direction.
fn delay(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, by: Duration) {
    let (pieces, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(IN_FLIGHT);
    tokio::spawn(async move {
        let mut buffer = vec![0; PIECE];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if pieces.send((Instant::now() + by, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((at, piece)) = arriving.recv().await {
            sleep_until(at).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        sleep(by).await;
        let _ = to.shutdown().await;
    });
}
