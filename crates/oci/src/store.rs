use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};

use super::{Descriptor, Digest, Hasher, Location, Manifest, RepositoryName, Tag};

/// Any error, as the source of another one.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A blob's content as a stream of pieces.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, StoreError>> + Send>>;

/// A source of blobs.
#[async_trait]
pub trait BlobSource: Send + Sync + 'static {
    /// Returns the location and repository, or `None` for a source without one. Repositories in the same location can
    /// share blobs without transferring them.
    fn origin(&self) -> Option<(&Location, &RepositoryName)>;

    /// Returns a blob's content. The stream fails if the content does not match the descriptor.
    async fn blob(&self, blob: &Descriptor) -> Result<BlobStream, StoreError>;
}

/// A repository in a registry, or in a layout on disk.
///
/// In every method, `None` means "not found", and a failure to find out is an error.
#[async_trait]
pub trait Store: BlobSource {
    /// Returns the address to show: `host/repository` or `oci:DIR/repository`.
    fn address(&self) -> String;

    /// Returns the digest of a tag.
    async fn head(&self, tag: &Tag) -> Result<Option<Digest>, StoreError>;

    /// Returns the manifest of a tag. The digest is computed from the received bytes.
    async fn tagged(&self, tag: &Tag) -> Result<Option<Manifest>, StoreError>;

    /// Returns the manifest with a digest, verified.
    async fn manifest(&self, digest: &Digest) -> Result<Option<Manifest>, StoreError>;

    /// Returns whether an image is certainly complete here, as far as that can be told by one round of requests. Its
    /// blobs are not looked up. `children` are the manifests below `root`.
    async fn has_complete(&self, root: &Manifest, children: &[Manifest]) -> Result<bool, StoreError>;

    /// Ensures that a blob of `source` exists here.
    async fn put_blob(&self, blob: &Descriptor, source: &Arc<dyn BlobSource>) -> Result<BlobOutcome, StoreError>;

    /// Writes a manifest under its digest, or under a tag.
    async fn put_manifest(&self, manifest: &Manifest, tag: Option<&Tag>) -> Result<(), StoreError>;

    /// Returns the referrers of a digest.
    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, StoreError>;

    /// Returns those of some tags that exist, with their digests. Reads the list of tags if that takes fewer
    /// requests.
    async fn existing(&self, tags: &[Tag]) -> Result<Vec<(Tag, Digest)>, StoreError>;

    /// Returns all tags of the repository. Empty if it does not exist.
    async fn tags(&self) -> Result<Vec<Tag>, StoreError>;

    /// Opens connections for this many concurrent requests that will follow soon. This only saves time.
    fn open_ahead(&self, _requests: usize) {}
}

/// How a blob got into the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobOutcome {
    /// It already existed.
    Present,
    /// The registry mounted it from another repository.
    Mounted,
    /// It was uploaded.
    Sent,
}

/// A failure of a store, with the hint apart from the message.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// The kind, for callers that handle the error.
    pub kind: ErrorKind,
    /// One line that names what failed.
    pub message: String,
    /// What to do about it, if known.
    pub hint: Option<String>,
    /// The cause.
    #[source]
    pub source: Option<BoxError>,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Credentials are missing, wrong or expired.
    Authentication,
    /// The credentials do not permit the request.
    Denied,
    /// The requested content does not exist.
    NotFound,
    /// The target already has different content.
    Conflict,
    /// There were too many requests.
    Throttled,
    /// A transient failure: connection, 5xx, time limit.
    Transient,
    /// The content does not match its digest.
    Integrity,
    /// The store does not support the operation.
    Unsupported,
    /// The input or response is invalid: malformed, or too large.
    Invalid,
    /// The run was cancelled.
    Cancelled,
}

impl StoreError {
    /// Returns an error with a kind and a message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// How often content that has to exist is read before it counts as missing.
pub const READ_ATTEMPTS: usize = 3;

/// The wait between two such reads: a recent write may not be visible everywhere yet.
pub const READ_INTERVAL: Duration = Duration::from_millis(300);

/// Returns the digest of a tag that the store has listed.
///
/// # Errors
/// Returns an error if the store fails, or repeatedly reports the tag as missing.
pub async fn listed_tag(store: &dyn Store, tag: &Tag) -> Result<(Tag, Digest), StoreError> {
    for look in 0..READ_ATTEMPTS {
        if look > 0 {
            tokio::time::sleep(READ_INTERVAL).await;
        }
        if let Some(digest) = store.head(tag).await? {
            return Ok((tag.clone(), digest));
        }
    }
    let message = format!("{} lists the tag `{tag}`, but answers that it does not exist", store.address());
    Err(StoreError::new(ErrorKind::Transient, message).hint("if it was deleted meanwhile, run this again"))
}

/// Passes on a stream, and fails if its content does not match the descriptor.
///
/// The last piece is held back until the digest is verified, so that a receiver never completes wrong content.
pub fn verified(bytes: BlobStream, blob: &Descriptor, whence: String) -> BlobStream {
    struct State {
        bytes: BlobStream,
        held: Option<Bytes>,
        hasher: Option<Hasher>,
        seen: u64,
        blob: Descriptor,
        whence: String,
    }
    let state = State { bytes, held: None, hasher: Some(Hasher::default()), seen: 0, blob: blob.clone(), whence };
    let pieces = stream::try_unfold(state, |mut state| async move {
        loop {
            let Some(hasher) = state.hasher.as_mut() else { return Ok(None) };
            match state.bytes.next().await.transpose()? {
                Some(piece) => {
                    hasher.update(&piece);
                    state.seen += piece.len() as u64;
                    if state.seen > state.blob.size {
                        return Err(integrity(&state.blob, &state.whence, "is longer than its descriptor says"));
                    }
                    if let Some(before) = state.held.replace(piece) {
                        return Ok(Some((before, state)));
                    }
                }
                None => {
                    if state.seen < state.blob.size {
                        return Err(integrity(&state.blob, &state.whence, "is cut off"));
                    }
                    let digest = state.hasher.take().map(Hasher::finish);
                    if digest.as_ref() != Some(&state.blob.digest) {
                        return Err(integrity(&state.blob, &state.whence, "does not match its digest"));
                    }
                    return Ok(state.held.take().map(|last| (last, state)));
                }
            }
        }
    });
    Box::pin(pieces)
}

fn integrity(blob: &Descriptor, whence: &str, what: &str) -> StoreError {
    StoreError::new(ErrorKind::Integrity, format!("blob {} of {whence} {what}", blob.digest))
}

/// Reads a small blob.
///
/// # Errors
/// Returns the errors of the stream, and [`ErrorKind::Invalid`] if the blob is larger than `limit` bytes.
pub async fn read_blob(store: &dyn Store, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, StoreError> {
    if blob.size > limit {
        let message =
            format!("blob {} of {} has {} bytes, the limit is {limit}", blob.digest, store.address(), blob.size);
        return Err(StoreError::new(ErrorKind::Invalid, message));
    }
    let mut bytes = Vec::new();
    let mut pieces = store.blob(blob).await?;
    while let Some(piece) = pieces.next().await.transpose()? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream_of(pieces: &[&'static str]) -> BlobStream {
        let pieces: Vec<_> = pieces.iter().map(|p| Ok(Bytes::from_static(p.as_bytes()))).collect();
        Box::pin(stream::iter(pieces))
    }

    /// Returns what arrives before the stream ends, and the kind of its failure, if any.
    async fn drain(mut stream: BlobStream) -> (String, Option<ErrorKind>) {
        let mut text = String::new();
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => text.push_str(std::str::from_utf8(&piece).unwrap()),
                Err(error) => return (text, Some(error.kind)),
            }
        }
        (text, None)
    }

    #[tokio::test]
    async fn bytes_that_are_wrong_never_arrive_whole() {
        let blob = Descriptor::of("x/y", b"abc");
        let pass = |pieces: &[&'static str]| drain(verified(stream_of(pieces), &blob, "here".into()));
        assert_eq!(pass(&["a", "bc"]).await, ("abc".into(), None));
        assert_eq!(pass(&["a", "bX"]).await, ("a".into(), Some(ErrorKind::Integrity)));
        assert_eq!(pass(&["a", "b"]).await, ("a".into(), Some(ErrorKind::Integrity)));
        assert_eq!(pass(&["abc", "d"]).await, ("".into(), Some(ErrorKind::Integrity)));
        let empty = Descriptor::of("x/y", b"");
        assert_eq!(drain(verified(stream_of(&[]), &empty, "here".into())).await, ("".into(), None));
    }
}
