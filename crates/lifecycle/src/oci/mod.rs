//! The nouns of the [OCI image specification](https://github.com/opencontainers/image-spec): digests,
//! references, platforms, manifests, and the layout on disk.

mod digest;
mod layout;
mod manifest;
mod platform;
mod reference;
mod store;
mod strict;

pub use digest::{Digest, Hasher, InvalidDigest};
pub use layout::{Layout, Root};
pub use manifest::{Content, Descriptor, InvalidManifest, MANIFEST_LIMIT, Manifest, annotation, media_type};
pub use platform::{CONFIG_LIMIT, InvalidPlatform, Platform, listed};
pub use reference::{InvalidReference, Location, Reference, RepositoryName, Tag};
pub use store::{
    BlobSource, BlobStream, BoxError, Class, LOOK_AGAIN, LOOKS, Put, Store, StoreError, listed_tag, read_blob, verified,
};
