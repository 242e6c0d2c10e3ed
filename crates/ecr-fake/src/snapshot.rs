//! A copy of everything that the registries contain.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{repository_settings::RepositorySettings, state::State};

/// A copy of everything that the registries contain, by `host/repository`: to compare before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot(pub BTreeMap<String, RepositoryContents>);

/// What a repository contains.
#[derive(Clone, Debug, PartialEq)]
pub struct RepositoryContents {
    /// Digests by tag.
    pub tags: BTreeMap<String, String>,
    /// Manifests' bytes by digest.
    pub manifests: BTreeMap<String, Bytes>,
    /// Blobs' sizes in bytes by digest.
    pub blobs: BTreeMap<String, u64>,
    /// The settings.
    pub settings: RepositorySettings,
}

impl Snapshot {
    pub(crate) fn of(state: &State) -> Snapshot {
        let mut all = BTreeMap::new();
        for (id, repositories) in &state.registries {
            for (name, repository) in repositories {
                let manifests = repository.manifests.iter();
                let contents = RepositoryContents {
                    tags: repository.tags.clone(),
                    manifests: manifests.map(|(digest, manifest)| (digest.clone(), manifest.bytes.clone())).collect(),
                    blobs: repository.blobs.iter().map(|(digest, content)| (digest.clone(), content.size())).collect(),
                    settings: repository.settings.clone(),
                };
                all.insert(format!("{}/{name}", id.host()), contents);
            }
        }
        Snapshot(all)
    }
}
