//! What a registry has shown of its repositories in this run. An answer that contradicts it is no answer.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use oci::{RepositoryName, Tag};

/// The repositories that are known to exist.
#[derive(Default)]
pub(super) struct Shown(Mutex<HashMap<RepositoryName, HashSet<Tag>>>);

impl Shown {
    /// A manifest of the repository was read or written, by this tag if by one.
    pub(super) fn manifest(&self, repository: &RepositoryName, reference: &str) {
        let mut shown = self.shown();
        let tags = shown.entry(repository.clone()).or_default();
        // A digest is no tag: it holds a colon.
        if let Ok(tag) = reference.parse() {
            tags.insert(tag);
        }
    }

    /// Whether the repository holds a manifest.
    pub(super) fn exists(&self, repository: &RepositoryName) -> bool {
        self.shown().contains_key(repository)
    }

    /// Whether the repository holds a tag.
    pub(super) fn has_tags(&self, repository: &RepositoryName) -> bool {
        self.shown().get(repository).is_some_and(|tags| !tags.is_empty())
    }

    fn shown(&self) -> MutexGuard<'_, HashMap<RepositoryName, HashSet<Tag>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
