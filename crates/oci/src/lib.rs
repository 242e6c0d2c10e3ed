#![doc = include_str!("../README.md")]

mod annotation_key;
mod digest;
mod layout;
pub mod limited;
mod manifest;
mod platform;
mod reference;
mod store;
mod strict;
pub mod transfer;

#[doc(hidden)]
pub use annotation_key::{reversed, reversed_length};
pub use digest::{Digest, Hasher, InvalidDigest};
pub use layout::{Layout, Root};
pub use manifest::{Content, Descriptor, InvalidManifest, MANIFEST_LIMIT, Manifest, annotation, media_type};
pub use platform::{ARCHITECTURES, CONFIG_LIMIT, InvalidPlatform, Platform, listed};
pub use reference::{InvalidReference, Location, Reference, RepositoryName, Tag};
pub use store::{
    BlobOutcome, BlobSource, BlobStream, BoxError, ErrorKind, READ_ATTEMPTS, READ_INTERVAL, Store, StoreError,
    listed_tag, read_blob, verified,
};
