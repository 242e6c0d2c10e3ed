//! What changes in an environment if one image takes the place of another: commits, packages, vulnerabilities,
//! configuration, size and base image.
//!
//! Everything is read from the digests and their evidence. What is missing is listed, so that an empty difference is never
//! mistaken for an unknown one.

mod config;
mod contents;
mod difference;
mod present;

pub use config::ConfigChange;
pub use contents::{BASE_DIGEST, BASE_NAME, ImageContents, PlatformContents};
pub use difference::{CommitRange, Delta, Packages, PlatformDelta, Side, SizeChange, VersionChange, Vulnerabilities};
pub use present::{details, table};

#[cfg(test)]
mod tests;
