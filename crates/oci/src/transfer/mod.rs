//! The engine that publish and promote share: a graph of digests is copied from a store to a store.
//!
//! The order is what makes a cut harmless: blobs, child manifests by digest, the root by digest where
//! something refers to it, what refers to it, and the tags last. No byte is encoded again or kept on
//! disk on the way.

pub mod copy;
mod graph;

pub use copy::Copied;
pub use graph::{Attached, Graph};
