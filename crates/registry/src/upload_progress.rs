//! Tracks which side an upload is waiting for: a source that stalls is not the registry's fault.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use http::Response;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, sleep_until};

use super::error::Failure;
use oci::{BlobStream, BoxError, StoreError};

/// The time limit between two pieces of a body.
pub(super) const PIECE_DEADLINE: Duration = Duration::from_secs(30);

/// What an upload is waiting for.
pub(super) struct UploadProgress(Mutex<Turn>);

#[derive(Debug, Clone, Copy)]
enum Turn {
    /// More bytes from the source, which has its own time limits.
    Source,
    /// The registry to accept more bytes, since this time.
    Registry(Instant),
    /// The registry's response after the last byte, since this time.
    Answer(Instant),
}

impl UploadProgress {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Turn::Registry(Instant::now()))))
    }

    /// Wraps a body, and records when a piece is requested and when it is available.
    pub(super) fn of(
        self: Arc<Self>,
        bytes: BlobStream,
    ) -> impl Stream<Item = Result<bytes::Bytes, StoreError>> + Send {
        stream::unfold((bytes, self), |(mut bytes, progress)| async move {
            *progress.turn() = Turn::Source;
            let piece = bytes.next().await;
            *progress.turn() = match piece {
                Some(_) => Turn::Registry(Instant::now()),
                None => Turn::Answer(Instant::now()),
            };
            piece.map(|piece| (piece, (bytes, progress)))
        })
    }

    /// Waits for the response to an upload while the registry makes progress: it has to accept a piece within
    /// [`PIECE_DEADLINE`], and to respond within `deadline` after the last one.
    pub(super) async fn watch(
        &self,
        response: impl Future<Output = Result<Response<Incoming>, BoxError>>,
        deadline: Duration,
    ) -> Result<Response<Incoming>, Failure> {
        let mut response = std::pin::pin!(response);
        loop {
            let turn = *self.turn();
            let wake = async {
                match turn {
                    Turn::Source => sleep(PIECE_DEADLINE).await,
                    Turn::Registry(since) => sleep_until(since + PIECE_DEADLINE).await,
                    Turn::Answer(since) => sleep_until(since + deadline).await,
                }
            };
            tokio::select! {
                answer = &mut response => return answer.map_err(Failure::unreachable),
                () = wake => {}
            }
            let now = Instant::now();
            match *self.turn() {
                Turn::Registry(since) if since + PIECE_DEADLINE <= now => {
                    return Err(Failure::stopped_reading(PIECE_DEADLINE));
                }
                Turn::Answer(since) if since + deadline <= now => return Err(Failure::no_answer(deadline)),
                Turn::Source | Turn::Registry(_) | Turn::Answer(_) => {}
            }
        }
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::future::pending;

    use super::*;
    use oci::ErrorKind;

    #[tokio::test(start_paused = true)]
    async fn only_the_registrys_own_time_counts() {
        let progress = UploadProgress::new();
        let mut body = Box::pin(progress.clone().of(Box::pin(stream::pending())));
        let began = Instant::now();
        let waits = async {
            tokio::select! {
                _ = body.next() => {}
                () = sleep(Duration::from_secs(3600)) => {}
            }
        };
        let watched = progress.watch(pending(), Duration::from_secs(60));
        tokio::select! {
            _ = watched => panic!("the source is waited for"),
            () = waits => {}
        }
        assert_eq!(began.elapsed().as_secs(), 3600);

        let idle = UploadProgress::new();
        let failure = idle.watch(pending(), Duration::from_secs(60)).await.unwrap_err();
        assert_eq!((failure.kind, began.elapsed().as_secs()), (ErrorKind::Transient, 3630));

        let done = UploadProgress::new();
        assert!(Box::pin(done.clone().of(Box::pin(stream::empty()))).next().await.is_none());
        let failure = done.watch(pending(), Duration::from_secs(100)).await.unwrap_err();
        assert_eq!(failure.reason(), "no answer within 100 s");
    }
}
