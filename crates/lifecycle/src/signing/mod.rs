//! Signatures of images and of the statements about them.
//!
//! Publish and promote sign with cosign. The gates of promote verify with cosign, or with notation.

pub mod cosign;
pub mod notation;
mod options;
mod signer;

pub use options::{Signing, SigningInputs, SigningOptions, Sigstore, refuse_disk};
pub use signer::{Registries, Signer, Workflows};
