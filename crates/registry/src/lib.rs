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
mod link;
mod manifests;
mod operation;
mod progress;
mod referrers;
mod request;
mod retry;
mod shown;
#[cfg(test)]
mod testing;
mod tls;
mod token;
mod upload_progress;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

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
use oci::{Location, RepositoryName, StoreError};
use operation::Counts;
use progress::Progress;
use referrers::ReferrersApi;
use shown::Shown;

/// PutImage is limited to 10 a second for an account and region; this leaves room for others.
const ECR_MANIFESTS_PER_SECOND: u32 = 8;

/// Blobs that are on their way to one registry at a time, whatever the number of images: each takes the buffers of two
/// connections, and one for every request that is allowed would take memory without being faster.
const UPLOADS: usize = 16;

/// How registries are reached.
#[derive(Clone)]
pub struct Options {
    /// Requests at a time for each registry.
    pub concurrency: usize,
    /// Where the data plane of a host is really reached: a VPC endpoint, a proxy, an emulator.
    pub endpoints: BTreeMap<String, Url>,
    /// Is told, line by line, what is waited for, and what is done in another way than usual.
    pub progress: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Default for Options {
    fn default() -> Self {
        Self { concurrency: 24, endpoints: BTreeMap::new(), progress: Arc::new(|_| {}) }
    }
}

/// All registries that a run speaks to as one identity, with their connections, tokens and budgets.
pub struct Registries {
    options: Options,
    http: HttpClient,
    source: Arc<dyn CredentialSource>,
    known: Mutex<HashMap<String, Arc<Registry>>>,
}

/// One registry.
pub(crate) struct Registry {
    host: String,
    endpoint: Url,
    /// The endpoint is another one than the host's own.
    is_elsewhere: bool,
    http: HttpClient,
    authenticator: Authenticator,
    budget: Budget,
    health: Health,
    progress: Progress,
    /// Room for one more blob's bytes.
    uploads: tokio::sync::Semaphore,
    mounts: Mounts,
    referrers_api: ReferrersApi,
    /// What the registry has shown of repositories in this run.
    shown: Shown,
}

/// One repository of a registry, with the count of what its use took.
#[derive(Clone)]
pub struct Repository {
    registry: Arc<Registry>,
    location: Location,
    name: RepositoryName,
    counts: Arc<Counts>,
}

impl Registries {
    /// Registries that ask `source` for credentials.
    pub fn new(options: Options, source: Arc<dyn CredentialSource>) -> Self {
        Self { options, http: HttpClient::new(), source, known: Mutex::default() }
    }

    /// A repository of a host.
    ///
    /// # Errors
    /// When the host can't be made into an address.
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
        let manifests = EcrHost::parse(host).map(|_| ECR_MANIFESTS_PER_SECOND);
        let registry = Arc::new(Registry {
            host: host.to_owned(),
            endpoint,
            is_elsewhere: self.options.endpoints.contains_key(host),
            http: self.http.clone(),
            authenticator: Authenticator::new(self.source.clone(), host),
            budget: Budget::new(self.options.concurrency, manifests),
            health: Health::default(),
            progress: Progress::new(self.options.progress.clone()),
            uploads: tokio::sync::Semaphore::new(UPLOADS),
            mounts: Mounts::default(),
            referrers_api: ReferrersApi::default(),
            shown: Shown::default(),
        });
        known.insert(host.to_owned(), registry.clone());
        Ok(registry)
    }
}

impl Repository {
    /// What the use of this handle took so far.
    pub fn traffic(&self) -> Traffic {
        self.counts.snapshot()
    }

    /// Its path in the registry.
    pub fn name(&self) -> &RepositoryName {
        &self.name
    }

    /// The registry's host.
    pub fn host(&self) -> &str {
        &self.registry.host
    }

    /// Asks for the credentials now, so that they are there when the first request needs them.
    ///
    /// # Errors
    /// When there should be some and they can't be had.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.registry.authenticator.credentials().await.map(drop)
    }
}
