use std::collections::BTreeMap;
use std::sync::Arc;

use url::Url;

use crate::oci::{Layout, Location, Reference, Store, StoreError};
use crate::registry::{Options, Registries, Repository, Traffic};
use crate::runner::{Input, InputError};

/// Opens the repositories that references name, as one identity. Clones share tokens, connections and budgets.
#[derive(Clone)]
pub struct Stores {
    registries: Arc<Registries>,
}

/// An open repository.
#[derive(Clone)]
pub struct Opened {
    /// What it can do.
    pub store: Arc<dyn Store>,
    /// The same where it is of a registry.
    pub remote: Option<Repository>,
}

impl Stores {
    /// Stores that ask `source` for credentials of registries.
    pub fn new(options: Options, source: Arc<dyn crate::registry::CredentialSource>) -> Self {
        Self { registries: Arc::new(Registries::new(options, source)) }
    }

    /// The repository of a reference.
    ///
    /// # Errors
    /// When the host can't be made into an address.
    pub fn open(&self, reference: &Reference) -> Result<Opened, StoreError> {
        match &reference.location {
            Location::Directory(directory) => {
                Ok(Opened { store: Arc::new(Layout::of(directory, &reference.repository)), remote: None })
            }
            Location::Host(host) => {
                let remote = self.registries.repository(host, &reference.repository)?;
                Ok(Opened { store: Arc::new(remote.clone()), remote: Some(remote) })
            }
        }
    }
}

impl Opened {
    /// What the use of it took so far; nothing for a layout.
    pub fn traffic(&self) -> Traffic {
        self.remote.as_ref().map(Repository::traffic).unwrap_or_default()
    }
}

/// Reads `registry-endpoints`: lines `host=url`.
///
/// # Errors
/// When a line is none, or its address is not http or https.
pub(super) fn endpoints(input: &Input<'_>) -> Result<BTreeMap<String, Url>, InputError> {
    let mut endpoints = BTreeMap::new();
    for line in input.lines() {
        let (host, address) = input.pair(line)?;
        let url = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or_else(|| input.refuse_value(line, "lines of the form host=https://address"))?;
        if endpoints.insert(host.to_owned(), url).is_some() {
            return Err(input.refuse_value(line, "each host once"));
        }
    }
    Ok(endpoints)
}
