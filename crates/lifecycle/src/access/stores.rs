use std::sync::Arc;

use oci::{Layout, Location, Reference, Store, StoreError};
use registry::{Options, Registries, Repository, Traffic};

/// Opens the repositories that references name, as one identity. Clones share tokens, connections and budgets.
#[derive(Clone)]
pub struct Stores {
    registries: Arc<Registries>,
}

/// An open repository.
#[derive(Clone)]
pub struct OpenRepository {
    /// What it can do.
    pub store: Arc<dyn Store>,
    /// The same where it is of a registry.
    pub remote: Option<Repository>,
}

impl Stores {
    /// Stores that ask `source` for credentials of registries.
    pub fn new(options: Options, source: Arc<dyn registry::CredentialSource>) -> Self {
        Self { registries: Arc::new(Registries::new(options, source)) }
    }

    /// The repository of a reference.
    ///
    /// # Errors
    /// When the host can't be made into an address.
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
    /// What the use of it took so far; nothing for a layout.
    pub fn traffic(&self) -> Traffic {
        self.remote.as_ref().map(Repository::traffic).unwrap_or_default()
    }
}
