//! One end of an image's way.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Names, Stores};
use crate::ActionError;
use crate::aws::{Aws, RegistryCredentials};
use oci::Location;
use registry::{EcrHost, Options};

/// One end: whose eyes see it, and where names get their registry from.
pub struct RegistryAccess {
    /// Who looks.
    pub aws: Arc<Aws>,
    /// The repositories, as this identity opens them.
    pub stores: Stores,
    /// `registry`: stands in for the value that leads an image's expression.
    pub registry: Option<String>,
    /// `registry-parameter`: the SSM parameter in place of the one that the template names.
    pub registry_parameter: Option<String>,
}

impl RegistryAccess {
    /// An end that is seen by an identity.
    pub fn new(aws: Aws, options: &Options, registry: Option<String>, registry_parameter: Option<String>) -> Self {
        let aws = Arc::new(aws);
        let stores = Stores::new(options.clone(), Arc::new(RegistryCredentials::new(aws.clone())));
        Self { aws, stores, registry, registry_parameter }
    }

    /// The same with the tokens, connections and budgets of another end, where both are seen by one identity.
    #[must_use]
    pub fn sharing_with(mut self, other: &Self) -> Self {
        if self.aws.is_same_identity(&other.aws) {
            self.stores = other.stores.clone();
        }
        self
    }

    /// The guard of `allowed-account-ids`: only registries of these accounts, as an identity of one of them. With none
    /// given, and for stores on disk, all is well.
    ///
    /// # Errors
    /// When a registry or the identity is of another account, or it can't be told which.
    pub async fn guard(&self, names: &Names, accounts: &[String]) -> anyhow::Result<()> {
        let allowed = |account: &str| accounts.iter().any(|id| id == account);
        let mut hosts = BTreeMap::new();
        for named in &names.images {
            if let Location::Host(host) = &named.reference.location {
                hosts.insert(host, &named.place);
            }
        }
        if accounts.is_empty() || hosts.is_empty() {
            return Ok(());
        }
        for (host, place) in hosts {
            let account = EcrHost::parse(host).map(|ecr| ecr.account);
            if !account.as_deref().is_some_and(allowed) {
                let message = format!("`{host}` is of no account in `allowed-account-ids`");
                return Err(ActionError::usage_error(message).at(place.clone()).into());
            }
        }
        let account = self.aws.account().await?;
        match allowed(account) {
            true => Ok(()),
            false => {
                let message =
                    format!("the credentials are of account {account}, which `allowed-account-ids` does not allow");
                Err(ActionError::usage_error(message).into())
            }
        }
    }
}
