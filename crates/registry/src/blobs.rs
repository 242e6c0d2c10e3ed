use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::time::{Instant, timeout};
use url::Url;

use super::Repository;
use super::address::location;
use super::error::Failure;
use super::manifests::none_if_not_found;
use super::operation::{Operation, OperationKind};
use super::request::{ANSWER_DEADLINE, Call, Payload};
use super::retry::PATIENCE;
use super::upload_progress::PIECE_DEADLINE;
use super::upload_progress::UploadProgress;
use oci::{BlobOutcome, BlobSource, BlobStream, Descriptor, ErrorKind, RepositoryName, Store, StoreError, verified};

/// The maximum number of redirects that a download follows.
const REDIRECTS: usize = 5;

/// How often an interrupted download is resumed. The count starts over after [`PROGRESS`].
const RESUMES: u32 = 5;

/// The number of bytes between two interruptions that count as progress.
const PROGRESS: u64 = 1024 * 1024;

/// The time limit for the smallest download.
const DOWNLOAD: Duration = Duration::from_secs(60);

/// The lowest acceptable speed of a download, in bytes per second.
const SLOWEST: u64 = 64 * 1024;

/// The expected speed at which a registry stores a complete upload, in bytes per second.
const STORES: u64 = 8 * 1024 * 1024;

/// A download without progress for this long fails, however often it was resumed.
const STALLED: Duration = Duration::from_secs(75);

/// The maximum size of a response to an upload, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Which pairs of repositories of a registry can mount blobs.
#[derive(Default)]
pub(super) struct Mounts(Mutex<HashMap<(RepositoryName, RepositoryName), Arc<Pair>>>);

/// Whether a pair can mount, once that is known. The first caller holds the lock while it asks the registry.
type Pair = tokio::sync::Mutex<Option<bool>>;

impl Mounts {
    fn pair(&self, from: &RepositoryName, to: &RepositoryName) -> Arc<Pair> {
        let mut pairs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pairs.entry((from.clone(), to.clone())).or_default().clone()
    }
}

impl Repository {
    /// Mounts a blob if the source and target are in the same registry. Otherwise, uploads it unless it exists.
    pub(super) async fn receive_blob(
        &self,
        blob: &Descriptor,
        source: &Arc<dyn BlobSource>,
    ) -> Result<BlobOutcome, StoreError> {
        let sibling = source.origin().filter(|(location, _)| **location == self.location).map(|(_, name)| name.clone());
        let Some(from) = sibling else { return self.send_unless_there(blob, source, None).await };
        let pair = self.registry.mounts.pair(&from, &self.name);
        let mut known = pair.lock().await;
        if *known != Some(false) {
            if *known == Some(true) {
                drop(known);
                return match self.mount(blob, &from).await? {
                    None => Ok(BlobOutcome::Mounted),
                    // The pair can mount, but not this blob, so it is unknown whether the blob exists.
                    Some(session) => self.send_unless_there(blob, source, Some(session)).await,
                };
            }
            let answer = self.mount(blob, &from).await?;
            *known = Some(answer.is_none());
            drop(known);
            return match answer {
                None => Ok(BlobOutcome::Mounted),
                Some(session) => {
                    self.counts.mount_refused();
                    self.send_unless_there(blob, source, Some(session)).await
                }
            };
        }
        drop(known);
        self.send_unless_there(blob, source, None).await
    }

    /// Requests a mount. Returns `None` if the blob was mounted, or the upload session that was opened instead.
    async fn mount(&self, blob: &Descriptor, from: &RepositoryName) -> Result<Option<Url>, StoreError> {
        let mut url = self.registry.url(&self.name, "blobs/uploads/");
        url.query_pairs_mut().append_pair("mount", &blob.digest.to_string()).append_pair("from", from.as_str());
        let subject = blob.digest.to_string();
        let operation = Operation { kind: OperationKind::Mount, repository: &self.name, subject: &subject };
        self.registry
            .retry(&operation, &self.counts, || async {
                let _permit = self.registry.budget.permit(operation.kind).await;
                let response =
                    self.registry.send(&operation, &self.counts, Call::new(Method::POST, url.clone())).await?;
                self.registry.budget.succeeded();
                match response.status() {
                    StatusCode::CREATED => Ok(None),
                    _ => location(response.headers(), &url).map(Some),
                }
            })
            .await
    }

    async fn send_unless_there(
        &self,
        blob: &Descriptor,
        source: &Arc<dyn BlobSource>,
        session: Option<Url>,
    ) -> Result<BlobOutcome, StoreError> {
        if self.has_blob(blob).await? {
            Ok(BlobOutcome::Present)
        } else {
            self.upload(blob, source, session).await.map(|()| BlobOutcome::Sent)
        }
    }

    async fn has_blob(&self, blob: &Descriptor) -> Result<bool, StoreError> {
        let subject = blob.digest.to_string();
        let operation = Operation { kind: OperationKind::HeadBlob, repository: &self.name, subject: &subject };
        let url = self.registry.url(&self.name, &format!("blobs/{subject}"));
        let call = || Call::new(Method::HEAD, url.clone());
        let answer = self.registry.fetch(&operation, &self.counts, 0, call).await;
        none_if_not_found(answer).map(|answer| answer.is_some())
    }

    /// Uploads a blob with one POST and one PUT. Every attempt opens a new session, because ECR rejects a second body
    /// in the same one.
    async fn upload(
        &self,
        blob: &Descriptor,
        source: &Arc<dyn BlobSource>,
        session: Option<Url>,
    ) -> Result<(), StoreError> {
        let subject = blob.digest.to_string();
        let operation = Operation { kind: OperationKind::Upload, repository: &self.name, subject: &subject };
        let stored_within = ANSWER_DEADLINE + Duration::from_secs(blob.size / STORES);
        let first_session = Mutex::new(session);
        // Waits before the source is opened, so that uploads that have to wait hold neither a connection nor buffers.
        let _room = self.registry.uploads.take(blob.size).await;
        let attempt = || async {
            let opened = first_session.lock().unwrap_or_else(PoisonError::into_inner).take();
            let session = async {
                match opened {
                    Some(url) => Ok(url),
                    None => self.start_upload(&subject).await,
                }
            };
            // Neither waits for the other.
            let bytes = async { source.blob(blob).await.map_err(Failure::passed_on) };
            let (mut url, bytes) = tokio::try_join!(session, bytes)?;
            url.query_pairs_mut().append_pair("digest", &subject);
            let failed: Arc<Mutex<Option<StoreError>>> = Arc::default();
            let progress = UploadProgress::new();
            let body = self.counting_body(bytes, failed.clone(), progress.clone());
            let call = Call {
                content_type: Some("application/octet-stream".to_owned()),
                body: Payload::Stream(body, blob.size, progress),
                deadline: stored_within,
                ..Call::new(Method::PUT, url)
            };
            let outcome = self.registry.fetch_once(&operation, &self.counts, ANSWER_LIMIT, call).await;
            // If our own body failed, that is the cause, and the broken connection is its effect.
            let cause = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
            match (outcome, cause) {
                (Err(_), Some(cause)) => Err(Failure::passed_on(cause)),
                (Err(failure), None) => Err(retryable_in_new_session(failure)),
                (Ok(answer), _) if answer.status == StatusCode::CREATED => Ok(()),
                (Ok(answer), _) => self.check_stored(blob, answer.status).await,
            }
        };
        // A large upload takes long, and may be worth another attempt.
        let patience = PATIENCE + Duration::from_secs(blob.size / SLOWEST);
        let sent = self.registry.attempt(patience, &operation, &self.counts, attempt).await;
        sent.map_err(|failure| self.explain(failure, OperationKind::Upload, &subject))
    }

    /// Checks whether the blob exists, after an upload that was answered with a status other than 201.
    async fn check_stored(&self, blob: &Descriptor, status: StatusCode) -> Result<(), Failure> {
        match self.has_blob(blob).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(Failure::new(ErrorKind::Transient, format!("it answered {status}, but the blob is missing"))
                    .unproved())
            }
            Err(error) => Err(Failure::passed_on(error)),
        }
    }

    async fn start_upload(&self, subject: &str) -> Result<Url, Failure> {
        let operation = Operation { kind: OperationKind::StartUpload, repository: &self.name, subject };
        let url = self.registry.url(&self.name, "blobs/uploads/");
        let call = Call::new(Method::POST, url.clone());
        let answer = self.registry.fetch_once(&operation, &self.counts, ANSWER_LIMIT, call).await;
        // Otherwise, the failure would be reported as one of the upload, with the wrong permission.
        let answer = answer.map_err(|failure| Failure { at: Some(OperationKind::StartUpload), ..failure })?;
        location(&answer.headers, &url)
    }

    /// Returns a request body that counts the bytes sent and remembers why it failed.
    fn counting_body(
        &self,
        bytes: BlobStream,
        failed: Arc<Mutex<Option<StoreError>>>,
        progress: Arc<UploadProgress>,
    ) -> crate::http_client::Body {
        let counts = self.counts.clone();
        let frames = progress.of(bytes).map(move |piece| match piece {
            Ok(piece) => {
                counts.sent(piece.len() as u64);
                Ok(Frame::data(piece))
            }
            Err(error) => {
                let broken = StoreError::new(error.kind, "the source broke off");
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(broken)
            }
        });
        StreamBody::new(frames).boxed_unsync()
    }

    /// Downloads a blob and verifies it. Resumes an interrupted download where it stopped.
    pub(super) async fn download(&self, blob: &Descriptor) -> Result<BlobStream, StoreError> {
        let subject = blob.digest.to_string();
        let operation = Operation { kind: OperationKind::GetBlob, repository: &self.name, subject: &subject };
        let open = || async {
            let _permit = self.registry.budget.permit(operation.kind).await;
            self.open(&subject, 0).await
        };
        let body = self.registry.retry(&operation, &self.counts, open).await?;
        let state = Download {
            repository: self.clone(),
            subject,
            size: blob.size,
            offset: 0,
            body: Some(body),
            resumes: 0,
            taken_up_at: 0,
            left: deadline(blob.size),
        };
        let pieces = stream::try_unfold(state, |mut state| async move {
            Ok(state.next_in_time().await?.map(|piece| (piece, state)))
        });
        Ok(verified(Box::pin(pieces), blob, self.address()))
    }

    /// Requests the bytes from an offset, follows redirects, and drops the bytes before the offset if the server does
    /// not support ranges.
    ///
    /// Does not wait for a slot: a resumed download feeds an upload that already has one, and would wait forever if
    /// all slots were taken by such uploads.
    async fn open(&self, subject: &str, offset: u64) -> Result<Body, Failure> {
        let mut url = self.registry.url(&self.name, &format!("blobs/{subject}"));
        let mut kind = OperationKind::GetBlob;
        for _ in 0..=REDIRECTS {
            let operation = Operation { kind, repository: &self.name, subject };
            let call = Call { range_from: (offset > 0).then_some(offset), ..Call::new(Method::GET, url.clone()) };
            let response = self.registry.send(&operation, &self.counts, call).await?;
            if response.status().is_redirection() {
                url = location(response.headers(), &url)?;
                kind = OperationKind::GetRedirected;
                continue;
            }
            self.registry.budget.succeeded();
            let skip = match response.status() {
                StatusCode::PARTIAL_CONTENT if starts_at(response.headers(), offset) => 0,
                StatusCode::PARTIAL_CONTENT => {
                    return Err(Failure::new(ErrorKind::Invalid, "the server returned a different range"));
                }
                _ => offset,
            };
            return Ok(Body { incoming: response.into_body(), skip, url });
        }
        Err(Failure::new(ErrorKind::Invalid, format!("more than {REDIRECTS} redirects")))
    }
}

/// A response body that begins at some offset.
struct Body {
    incoming: Incoming,
    /// The number of bytes to drop before the requested ones.
    skip: u64,
    /// Where it comes from.
    url: Url,
}

/// A download in progress.
struct Download {
    repository: Repository,
    subject: String,
    size: u64,
    offset: u64,
    body: Option<Body>,
    resumes: u32,
    /// The offset at which it was last interrupted.
    taken_up_at: u64,
    /// The remaining time to wait for the registry. The time that the receiver takes does not count.
    left: Duration,
}

impl Download {
    async fn next_in_time(&mut self) -> Result<Option<Bytes>, StoreError> {
        let (begun, left) = (Instant::now(), self.left);
        let (within, why) = if left < STALLED {
            (left, format!("not done within {} s", deadline(self.size).as_secs()))
        } else {
            (STALLED, format!("no more bytes for {} s", STALLED.as_secs()))
        };
        let Ok(piece) = timeout(within, self.next()).await else {
            let failure = Failure::new(ErrorKind::Transient, why);
            return Err(self.repository.explain(failure, OperationKind::GetBlob, &self.subject));
        };
        self.left = left.saturating_sub(begun.elapsed());
        piece
    }

    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            let failure = match self.piece().await {
                Ok(Some(piece)) => {
                    self.offset += piece.len() as u64;
                    self.repository.counts.received(piece.len() as u64);
                    return Ok(Some(piece));
                }
                Ok(None) if self.offset >= self.size => return Ok(None),
                Ok(None) => Failure::new(ErrorKind::Transient, "the answer ended early"),
                Err(failure) => match &self.body {
                    Some(body) => {
                        let secrets = self.repository.registry.authenticator.secrets(None);
                        failure.of_request(&Method::GET, &body.url, &secrets)
                    }
                    None => failure,
                },
            };
            self.body = None;
            if self.offset - self.taken_up_at >= PROGRESS {
                self.resumes = 0;
            }
            self.taken_up_at = self.offset;
            self.resumes += 1;
            if self.resumes > RESUMES || !failure.is_retryable() {
                return Err(self.repository.explain(failure, OperationKind::GetBlob, &self.subject));
            }
            self.repository.counts.retry();
            let operation =
                Operation { kind: OperationKind::GetBlob, repository: &self.repository.name, subject: &self.subject };
            let open = || self.repository.open(&self.subject, self.offset);
            self.body = Some(self.repository.registry.retry(&operation, &self.repository.counts, open).await?);
        }
    }

    /// Returns the next piece of the current body.
    async fn piece(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(body) = self.body.as_mut() else { return Ok(None) };
        loop {
            let frame = match timeout(PIECE_DEADLINE, body.incoming.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(Failure::unreachable(error.into())),
                Ok(None) => return Ok(None),
                Err(_) => return Err(Failure::stopped_answering()),
            };
            let Ok(mut data) = frame.into_data() else { continue };
            let dropped = body.skip.min(data.len() as u64);
            body.skip -= dropped;
            let data = data.split_off(dropped as usize);
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }
}

/// Returns the time limit for a download of this size.
fn deadline(size: u64) -> Duration {
    DOWNLOAD + Duration::from_secs(size / SLOWEST)
}

/// Marks the failure as retryable: it concerns the upload session, and a new one may succeed.
fn retryable_in_new_session(mut failure: Failure) -> Failure {
    let session_lost = failure.code.as_deref() == Some("BLOB_UPLOAD_UNKNOWN")
        || failure.code.as_deref() == Some("BLOB_UPLOAD_INVALID")
        || failure.detail.as_deref().is_some_and(|detail| detail.starts_with("416"));
    if session_lost {
        failure.kind = ErrorKind::Transient;
    }
    failure
}

/// Returns whether `Content-Range` begins at the requested offset.
fn starts_at(headers: &HeaderMap, offset: u64) -> bool {
    let range = headers.get(http::header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()) == Some(offset)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::{CredentialSource, Credentials, Options, Registries};
    use super::*;

    const SIZE: usize = 1000;

    struct Nobody;

    #[async_trait::async_trait]
    impl CredentialSource for Nobody {
        async fn credentials(&self, _: &str) -> Result<Credentials, StoreError> {
            Ok(Credentials::Anonymous)
        }
    }

    /// Starts a registry that sends a blob byte by byte with a pause before each, and closes the connection after a
    /// number of bytes.
    async fn slow(wait: Duration, bytes: usize) -> (Repository, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let length = connection.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
                let from =
                    request.split_once("range: bytes=").and_then(|(_, range)| range.split('-').next()?.parse().ok());
                let from: usize = from.unwrap_or(0);
                count.fetch_add(1, Ordering::Relaxed);
                let head = format!(
                    "HTTP/1.1 206 Partial\r\ncontent-range: bytes {from}-{}/{SIZE}\r\ncontent-length: {}\r\n\r\n",
                    SIZE - 1,
                    SIZE - from
                );
                connection.write_all(head.as_bytes()).await.unwrap();
                for _ in 0..bytes.min(SIZE - from) {
                    tokio::time::sleep(wait).await;
                    if connection.write_all(b"x").await.is_err() {
                        break;
                    }
                }
            }
        });
        let registries = Registries::new(Options::default(), Arc::new(Nobody));
        (registries.repository(&host, &"a/b".parse().unwrap()).unwrap(), asked)
    }

    async fn drain(mut stream: BlobStream) -> (usize, StoreError) {
        let mut received = 0;
        loop {
            match stream.next().await.unwrap() {
                Ok(piece) => received += piece.len(),
                Err(error) => return (received, error),
            }
        }
    }

    #[tokio::test]
    async fn a_download_that_trickles_is_given_up() {
        let (repository, _) = slow(Duration::from_secs(8), SIZE).await;
        let stream = repository.download(&Descriptor::of("x/y", &[b'y'; SIZE])).await.unwrap();
        tokio::time::pause();
        let (received, error) = drain(stream).await;
        assert!(received < SIZE / 10, "{received}");
        assert_eq!(error.kind, ErrorKind::Transient);
        assert!(error.to_string().contains("not done within 60 s"), "{error}");
    }

    #[tokio::test]
    async fn single_bytes_are_no_progress() {
        let (repository, asked) = slow(Duration::ZERO, 1).await;
        let stream = repository.download(&Descriptor::of("x/y", &[b'y'; SIZE])).await.unwrap();
        let (_, error) = drain(stream).await;
        assert_eq!(error.kind, ErrorKind::Transient);
        assert_eq!(asked.load(Ordering::Relaxed), 1 + RESUMES as usize);
    }
}
