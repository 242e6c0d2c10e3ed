//! A registry without credentials, for unit tests.

use std::sync::Arc;

use super::{CredentialSource, Credentials, Options, Registries, Registry};
use oci::StoreError;

pub(crate) fn registry(options: Options, host: &str) -> Arc<Registry> {
    struct Nobody;
    #[async_trait::async_trait]
    impl CredentialSource for Nobody {
        async fn credentials(&self, _: &str) -> Result<Credentials, StoreError> {
            Ok(Credentials::Anonymous)
        }
    }
    let registries = Registries::new(options, Arc::new(Nobody));
    registries.registry(host).unwrap()
}
