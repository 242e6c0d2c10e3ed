use std::sync::Arc;

use oci::{Layout, Location, Reference, Store, StoreError};
use registry::{Options, Registries, Repository, Traffic};

/// Opens repositories by reference, as one identity. Clones share tokens, connections and request budgets.
#[derive(Clone)]
pub struct Stores {
    registries: Arc<Registries>,
}

/// An open repository.
#[derive(Clone)]
pub struct OpenRepository {
    /// The repository as a store.
    pub store: Arc<dyn Store>,
    /// The same repository, if it is in a registry and not on disk.
    pub remote: Option<Repository>,
}

impl Stores {
    /// Creates stores that get their credentials from `source`.
    pub fn new(options: Options, source: Arc<dyn registry::CredentialSource>) -> Self {
        Self { registries: Arc::new(Registries::new(options, source)) }
    }

    /// Opens the repository of a reference.
    ///
    /// # Errors
    /// If the host cannot be part of a URL.
    pub fn open(&self, reference: &Reference) -> Result<OpenRepository, StoreError> {
        match &reference.location {
            Location::Directory(directory) => {
                Ok(OpenRepository { store: Arc::new(Layout::of(directory, &reference.repository)), remote: None })
            }
            Location::Host(host) => {
                let remote = self.registries.repository(host, &reference.repository)?;
                Ok(OpenRepository { store: Arc::new(remote.clone()), remote: Some(remote) })
            }
        }
    }
}

impl OpenRepository {
    /// Returns how much was transferred so far. For a layout on disk that is zero.
    pub fn traffic(&self) -> Traffic {
        self.remote.as_ref().map(Repository::traffic).unwrap_or_default()
    }
}
