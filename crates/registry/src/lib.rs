#![doc = include_str!("../README.md")]

mod address;
mod auth;
mod blobs;
mod budget;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod host;
pub mod http_client;
mod known_content;
mod link;
mod manifests;
mod operation;
mod progress;
mod referrers;
mod request;
mod retry;
#[cfg(test)]
mod testing;
mod tls;
mod token;
mod upload_progress;
mod upload_room;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, getrlimit};
use url::Url;

pub use auth::{CredentialSource, Credentials};
pub use host::{EcrHost, is_region};
pub use operation::{OperationKind, Traffic};

use crate::http_client::HttpClient;
use address::default_endpoint;
use auth::Authenticator;
use blobs::Mounts;
use budget::Budget;
use health::Health;
use known_content::KnownContent;
use oci::{Location, RepositoryName, StoreError};
use operation::Counts;
use progress::Progress;
use referrers::ReferrersApi;
use upload_room::UploadRoom;

/// The maximum number of concurrent requests to a registry, for any number of images. Each takes a connection. A copy of
/// one image sends fewer, see `oci::transfer`.
const REQUESTS: u64 = 384;

/// The share of the process's open files that the requests to one registry may take. Others are connections to another
/// registry and to AWS, idle connections, and files of layouts.
const SHARE_OF_FILES: u64 = 4;

/// Options for the access to registries.
#[derive(Clone)]
pub struct Options {
    /// The maximum number of concurrent requests to each registry. By default, as many as the limit of open files allows.
    pub concurrency: usize,
    /// URLs to use instead of a host's own: a VPC endpoint, a proxy, an emulator.
    pub endpoints: BTreeMap<String, Url>,
    /// Receives progress lines: what the run is waiting for, and what it does differently than usual.
    pub progress: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Default for Options {
    fn default() -> Self {
        // `None` is unlimited.
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let concurrency = (files / SHARE_OF_FILES).clamp(1, REQUESTS) as usize;
        Self { concurrency, endpoints: BTreeMap::new(), progress: Arc::new(|_| {}) }
    }
}

/// All registries that a run accesses with the same identity, with their connections, tokens and budgets.
pub struct Registries {
    options: Options,
    http: HttpClient,
    source: Arc<dyn CredentialSource>,
    known: Mutex<HashMap<String, Arc<Registry>>>,
}

/// A registry.
pub(crate) struct Registry {
    host: String,
    endpoint: Url,
    /// Whether the URL is not the host's own.
    is_elsewhere: bool,
    http: HttpClient,
    authenticator: Authenticator,
    budget: Budget,
    health: Health,
    progress: Progress,
    uploads: UploadRoom,
    mounts: Mounts,
    referrers_api: ReferrersApi,
    /// What the registry is known to contain in this run.
    known: KnownContent,
}

/// A repository in a registry, with a count of the traffic through this handle.
#[derive(Clone)]
pub struct Repository {
    registry: Arc<Registry>,
    location: Location,
    name: RepositoryName,
    counts: Arc<Counts>,
}

impl Registries {
    /// Returns registries that get their credentials from `source`.
    pub fn new(options: Options, source: Arc<dyn CredentialSource>) -> Self {
        Self { options, http: HttpClient::new(), source, known: Mutex::default() }
    }

    /// Returns a repository of a host.
    ///
    /// # Errors
    /// Returns an error if the host does not form a valid URL.
    pub fn repository(&self, host: &str, name: &RepositoryName) -> Result<Repository, StoreError> {
        Ok(Repository {
            registry: self.registry(host)?,
            location: Location::Host(host.to_owned()),
            name: name.clone(),
            counts: Arc::default(),
        })
    }

    fn registry(&self, host: &str) -> Result<Arc<Registry>, StoreError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(registry) = known.get(host) {
            return Ok(registry.clone());
        }
        let endpoint = match self.options.endpoints.get(host) {
            Some(endpoint) => endpoint.clone(),
            None => default_endpoint(host)?,
        };
        let registry = Arc::new(Registry {
            host: host.to_owned(),
            endpoint,
            is_elsewhere: self.options.endpoints.contains_key(host),
            http: self.http.clone(),
            authenticator: Authenticator::new(self.source.clone(), host),
            budget: Budget::new(self.options.concurrency, EcrHost::parse(host).is_some()),
            health: Health::default(),
            progress: Progress::new(self.options.progress.clone()),
            uploads: UploadRoom::new(self.options.concurrency),
            mounts: Mounts::default(),
            referrers_api: ReferrersApi::default(),
            known: KnownContent::default(),
        });
        known.insert(host.to_owned(), registry.clone());
        Ok(registry)
    }
}

impl Repository {
    /// Returns the traffic through this handle so far.
    pub fn traffic(&self) -> Traffic {
        self.counts.snapshot()
    }

    /// Returns the repository's name.
    pub fn name(&self) -> &RepositoryName {
        &self.name
    }

    /// Returns the registry's host.
    pub fn host(&self) -> &str {
        &self.registry.host
    }

    /// Obtains the credentials eagerly, so that they are available for the first request.
    ///
    /// # Errors
    /// Returns an error if credentials should exist but cannot be obtained.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.registry.authenticator.credentials().await.map(drop)
    }
}
