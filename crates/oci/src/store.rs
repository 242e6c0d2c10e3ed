use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};

use super::{Descriptor, Digest, Hasher, Location, Manifest, RepositoryName, Tag};

/// Any error, kept as the source of ours.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A blob's bytes, piece by piece.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, StoreError>> + Send>>;

/// Where blobs can be read.
#[async_trait]
pub trait BlobSource: Send + Sync + 'static {
    /// Registry and repository; none for what stands alone. Two of one location can share blobs
    /// without sending them.
    fn origin(&self) -> Option<(&Location, &RepositoryName)>;

    /// A blob's bytes; the stream fails where they are not those of the descriptor.
    async fn blob(&self, blob: &Descriptor) -> Result<BlobStream, StoreError>;
}

/// One repository, wherever it is: in a registry, or a layout on disk.
///
/// «Not found» is `None` and «could not look» is an error, everywhere.
#[async_trait]
pub trait Store: BlobSource {
    /// How a person names it: `host/repository` or `oci:DIR/repository`.
    fn address(&self) -> String;

    /// What a tag points to.
    async fn head(&self, tag: &Tag) -> Result<Option<Digest>, StoreError>;

    /// The manifest that a tag points to. Its digest is computed from the bytes that came.
    async fn tagged(&self, tag: &Tag) -> Result<Option<Manifest>, StoreError>;

    /// The manifest with a digest, verified.
    async fn manifest(&self, digest: &Digest) -> Result<Option<Manifest>, StoreError>;

    /// Makes sure that a blob of `source` is here too.
    async fn put_blob(&self, blob: &Descriptor, source: &Arc<dyn BlobSource>) -> Result<Put, StoreError>;

    /// Writes a manifest under its digest, or under a tag.
    async fn put_manifest(&self, manifest: &Manifest, tag: Option<&Tag>) -> Result<(), StoreError>;

    /// What refers to a digest.
    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, StoreError>;

    /// Which of some tags exist, with what they point to. One tag list where that is fewer requests.
    async fn existing(&self, tags: &[Tag]) -> Result<Vec<(Tag, Digest)>, StoreError>;

    /// All tags of the repository; none where it does not exist.
    async fn tags(&self) -> Result<Vec<Tag>, StoreError>;
}

/// How a blob came to be in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was there.
    Present,
    /// The registry linked it from another of its repositories.
    Mounted,
    /// Its bytes were sent.
    Sent,
}

/// What went wrong in a store, with what to do about it apart.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// The kind, by which callers decide.
    pub kind: ErrorKind,
    /// One line that names what failed.
    pub message: String,
    /// The remedy, where one is known.
    pub hint: Option<String>,
    /// What the layer below said.
    #[source]
    pub source: Option<BoxError>,
}

/// Classes of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Credentials are absent, wrong or expired.
    Authentication,
    /// Known, and not allowed.
    Denied,
    /// It does not exist.
    NotFound,
    /// Something else is where this should be written.
    Conflict,
    /// Too many requests.
    Throttled,
    /// A fault that may pass: connection, 5xx, deadline.
    Transient,
    /// Bytes that are not those that their digest names.
    Integrity,
    /// The store does not do this.
    Unsupported,
    /// Something that can't be right: a malformed answer, an absurd count.
    Invalid,
    /// The run was cancelled.
    Cancelled,
}

impl StoreError {
    /// An error of a kind with its message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// The same with what caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// How often something is looked for that has to be there, before it is an error that it is not.
pub const LOOKS: usize = 3;

/// Between two such looks: what was written a moment ago may not be seen everywhere yet.
pub const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// What a tag points to that the store lists.
///
/// # Errors
/// When the store can't say, or answers again and again that the tag is not there.
pub async fn listed_tag(store: &dyn Store, tag: &Tag) -> Result<(Tag, Digest), StoreError> {
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        if let Some(digest) = store.head(tag).await? {
            return Ok((tag.clone(), digest));
        }
    }
    let message = format!("{} lists the tag `{tag}`, and answers that it does not exist", store.address());
    Err(StoreError::new(ErrorKind::Transient, message).hint("if it was deleted meanwhile, run this again"))
}

/// Passes bytes on and fails where they are not those of a descriptor.
///
/// The last piece is held back until the digest of all is known, so that whoever receives the
/// stream never completes content that is wrong.
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
                        return Err(integrity(&state.blob, &state.whence, "is longer than it says"));
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
                        return Err(integrity(&state.blob, &state.whence, "has other bytes than its digest says"));
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

/// Reads a blob whole, where it is known to be small.
///
/// # Errors
/// Those of the stream, and [`ErrorKind::Invalid`] where the descriptor's size is over `limit` bytes.
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

    /// What arrives before the stream ends, and the kind of its failure if it fails.
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
