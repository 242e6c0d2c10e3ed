//! What a run is asked to do: the data that inputs are parsed into.

use std::path::PathBuf;

use cfn_images::Version;
use lifecycle::access::RegistryAccess;
use lifecycle::delivery::GitHubRecords;
use lifecycle::inputs::{CommonOptions, WritingOptions};
use lifecycle::naming::Release;
use lifecycle::signing::SigningOptions;

/// A publication of built images as a version in an environment.
pub(crate) struct Request {
    pub(crate) common: CommonOptions,
    pub(crate) writing: WritingOptions,
    pub(crate) version: Version,
    pub(crate) environment: String,
    /// The folders of the OCI layouts that build wrote.
    pub(crate) layouts: Vec<PathBuf>,
    pub(crate) target: RegistryAccess,
    pub(crate) signing: SigningOptions,
    /// GitHub's records of where the images are stored, if they are written.
    pub(crate) github_records: Option<GitHubRecords>,
}

impl Request {
    /// Returns the version in its environment.
    pub(crate) fn release(&self) -> Release<'_> {
        Release { environment: &self.environment, version: &self.version }
    }
}
