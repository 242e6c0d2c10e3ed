//! The source or target of a transfer.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{RegistryCredentials, Stores};
use crate::ActionError;
use crate::SourceLocation;
use crate::aws::Aws;
use oci::{Location, Reference};
use registry::{EcrHost, Options};

/// The source or target of a transfer: AWS identity, stores, registry override.
pub struct RegistryAccess {
    /// The AWS identity.
    pub aws: Arc<Aws>,
    /// Opens repositories as this identity.
    pub stores: Stores,
    /// `registry`, which replaces the registry at the start of each image name.
    pub registry: Option<String>,
    /// `registry-parameter`, which replaces the SSM parameter that the template reads the registry from.
    pub registry_parameter: Option<String>,
}

impl RegistryAccess {
    /// Creates the access for an identity.
    pub fn new(aws: Aws, options: &Options, registry: Option<String>, registry_parameter: Option<String>) -> Self {
        let aws = Arc::new(aws);
        let stores = Stores::new(options.clone(), Arc::new(RegistryCredentials::new(aws.clone())));
        Self { aws, stores, registry, registry_parameter }
    }

    /// Shares tokens, connections and request budgets with another access if both have the same identity.
    #[must_use]
    pub fn sharing_with(mut self, other: &Self) -> Self {
        if self.aws.is_same_identity(&other.aws) {
            self.stores = other.stores.clone();
        }
        self
    }

    /// Checks `allowed-account-ids`: registries and identity must belong to one of these accounts. Without accounts,
    /// and for stores on disk, everything is allowed.
    ///
    /// # Errors
    /// If a registry or the identity belongs to another account, or its account is unknown.
    pub async fn guard<'n>(
        &self,
        references: impl Iterator<Item = (&'n Reference, &'n SourceLocation)>,
        accounts: &[String],
    ) -> anyhow::Result<()> {
        let allowed = |account: &str| accounts.iter().any(|id| id == account);
        let mut hosts = BTreeMap::new();
        for (reference, source_location) in references {
            if let Location::Host(host) = &reference.location {
                hosts.insert(host, source_location);
            }
        }
        if accounts.is_empty() || hosts.is_empty() {
            return Ok(());
        }
        for (host, source_location) in hosts {
            let account = EcrHost::parse(host).map(|ecr| ecr.account);
            if !account.as_deref().is_some_and(allowed) {
                let message = format!("`{host}` is of no account in `allowed-account-ids`");
                return Err(ActionError::usage_error(message).at(source_location.clone()).into());
            }
        }
        let account = self.aws.account().await?;
        if allowed(account) {
            return Ok(());
        }
        let message = format!("the credentials are of account {account}, which `allowed-account-ids` does not allow");
        Err(ActionError::usage_error(message).into())
    }
}
