//! The bytes of blobs: in memory, generated, or dropped.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use sha2::{Digest as _, Sha256};

/// The bytes of a blob.
#[derive(Clone, Debug)]
pub enum BlobContent {
    /// Bytes in memory.
    Kept(Bytes),
    /// Pseudo-random bytes, generated while they are read.
    Generated {
        /// Determines the bytes.
        seed: u64,
        /// The size in bytes.
        size: u64,
    },
    /// Bytes that were hashed and dropped.
    Dropped {
        /// The size in bytes.
        size: u64,
    },
}

const CHUNK: u64 = 64 * 1024; // bytes; one frame of a body

impl BlobContent {
    /// Returns the size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            BlobContent::Kept(bytes) => bytes.len() as u64,
            BlobContent::Generated { size, .. } | BlobContent::Dropped { size } => *size,
        }
    }

    /// Returns at most `CHUNK` bytes from `at`, or nothing if they were dropped.
    pub(crate) fn chunk(&self, at: u64, end: u64) -> Option<Bytes> {
        let end = end.min(at + CHUNK);
        match self {
            BlobContent::Kept(bytes) => Some(bytes.slice(at as usize..end as usize)),
            BlobContent::Generated { seed, .. } => {
                let mut bytes = Vec::with_capacity((end - at) as usize + 8);
                let mut word = at / 8;
                bytes.extend_from_slice(&noise(*seed, word).to_le_bytes()[(at % 8) as usize..]);
                while (bytes.len() as u64) < end - at {
                    word += 1;
                    bytes.extend_from_slice(&noise(*seed, word).to_le_bytes());
                }
                bytes.truncate((end - at) as usize);
                Some(bytes.into())
            }
            BlobContent::Dropped { .. } => None,
        }
    }

    /// Returns all bytes, or nothing if they were dropped.
    pub fn bytes(&self) -> Option<Bytes> {
        if let BlobContent::Kept(bytes) = self {
            return Some(bytes.clone());
        }
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < self.size() {
            bytes.extend_from_slice(&self.chunk(bytes.len() as u64, self.size())?);
        }
        Some(bytes.into())
    }

    /// Returns the digest, or nothing if the bytes were dropped.
    pub fn digest(&self) -> Option<String> {
        let mut hash = Sha256::new();
        let mut at = 0;
        while at < self.size() {
            let chunk = self.chunk(at, self.size())?;
            hash.update(&chunk);
            at += chunk.len() as u64;
        }
        Some(name(hash))
    }
}

/// Formats a digest: `sha256:` and 64 hexadecimal digits.
pub(crate) fn name(hash: Sha256) -> String {
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Returns the digest of some bytes: `sha256:` and 64 hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    name(Sha256::new_with_prefix(bytes))
}

/// SplitMix64. The first word is the start of a gzip stream, for clients that check whether a layer is compressed.
fn noise(seed: u64, index: u64) -> u64 {
    if index == 0 {
        return 0x0008_8b1f;
    }
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A response body that sends a range of a blob and counts the bytes.
pub(crate) struct Download {
    pub(crate) content: BlobContent,
    pub(crate) at: u64,
    pub(crate) end: u64,
    pub(crate) sent: Arc<AtomicU64>,
}

impl Body for Download {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.at == self.end {
            return Poll::Ready(None);
        }
        let Some(chunk) = self.content.chunk(self.at, self.end) else {
            return Poll::Ready(Some(Err(io::Error::other("the bytes of this blob were dropped"))));
        };
        self.at += chunk.len() as u64;
        self.sent.fetch_add(chunk.len() as u64, SeqCst);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.at)
    }
}
