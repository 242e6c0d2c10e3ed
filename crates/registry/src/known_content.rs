//! What a registry is known to contain, from its earlier responses in this run. A response that contradicts this is
//! not trusted.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use oci::{RepositoryName, Tag};

/// The repositories and tags that are known to exist.
#[derive(Default)]
pub(super) struct KnownContent(Mutex<HashMap<RepositoryName, HashSet<Tag>>>);

impl KnownContent {
    /// Records that a manifest was read or written. `reference` is its tag or digest.
    pub(super) fn manifest(&self, repository: &RepositoryName, reference: &str) {
        let mut shown = self.known();
        let tags = shown.entry(repository.clone()).or_default();
        // A digest contains a colon and is not a valid tag.
        if let Ok(tag) = reference.parse() {
            tags.insert(tag);
        }
    }

    /// Returns whether the repository is known to contain a manifest.
    pub(super) fn exists(&self, repository: &RepositoryName) -> bool {
        self.known().contains_key(repository)
    }

    /// Returns whether the repository is known to have tags.
    pub(super) fn has_tags(&self, repository: &RepositoryName) -> bool {
        self.known().get(repository).is_some_and(|tags| !tags.is_empty())
    }

    /// Returns whether the repository is known to have a tag.
    pub(super) fn has_tag(&self, repository: &RepositoryName, tag: &Tag) -> bool {
        self.known().get(repository).is_some_and(|tags| tags.contains(tag))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<RepositoryName, HashSet<Tag>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
