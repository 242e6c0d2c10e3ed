//! A registry's settings: replication, scanning, managed signing and the quota on images.

use serde_json::{Value, json};

/// The settings of one account's registry in one region, as the API's JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistrySettings {
    /// The API's `replicationConfiguration`. It is stored and returned; nothing is replicated.
    pub replication: Value,
    /// The API's `scanningConfiguration`. It is stored and returned; nothing is scanned.
    pub scanning: Value,
    /// The API's `signingConfiguration`. It is stored and returned; see [`Registry::sign_late`](crate::Registry::sign_late).
    pub signing: Option<Value>,
    /// The quota on images per repository. Artifacts count as images.
    pub images_quota: usize,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        RegistrySettings {
            replication: json!({"rules": []}),
            scanning: json!({"scanType": "BASIC", "rules": []}),
            signing: None,
            images_quota: 100_000,
        }
    }
}
