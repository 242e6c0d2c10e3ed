//! The transfer engine of publish and promote, which copies a graph of digests from one store to another.
//!
//! The order makes an interruption harmless: blobs, child manifests by digest, the root by digest if it has
//! referrers, the referrers, and finally the tags. Nothing is re-encoded, and nothing is kept on disk.

pub mod copy;
mod graph;

pub use copy::Copied;
pub use graph::{Attached, Graph};
