//! What a test puts into a registry directly, and what it finds there.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use crate::{
    Image, Manifest, RegistryId, Repository, Scan, Settings, Shared,
    blob_content::{self, Content},
    listings,
    state::State,
};

/// One account's registry in one region.
#[derive(Clone)]
pub struct Registry<'a> {
    shared: &'a Shared,
    id: RegistryId,
}

impl<'a> Registry<'a> {
    pub(crate) fn new(shared: &'a Shared, id: RegistryId) -> Registry<'a> {
        Registry { shared, id }
    }

    /// The name that images bear: `111122223333.dkr.ecr.us-east-1.amazonaws.com`.
    pub fn host(&self) -> String {
        self.id.host()
    }

    /// Where the data plane really listens: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &'a str {
        self.shared.url(&self.id)
    }

    pub fn create(&self, repository: &str, settings: Settings) {
        self.shared.state().create(&self.id, repository, settings);
    }

    /// Puts a whole image with its referrers, and tags its root; a missing repository is made, mutable.
    pub fn push(&self, repository: &str, tags: &[&str], image: &Image) {
        self.create(repository, Settings::default());
        for (digest, content) in &image.blobs {
            self.change(repository, |repository| repository.blobs.insert(digest.clone(), content.clone()));
        }
        for manifest in image.manifests() {
            self.put_manifest(repository, manifest.bytes.clone(), &manifest.media_type);
        }
        for tag in tags {
            self.tag(repository, tag, &image.root.digest);
        }
    }

    /// Answers the digest.
    pub fn put_blob(&self, repository: &str, bytes: impl Into<Bytes>) -> String {
        let bytes = bytes.into();
        let digest = blob_content::digest(&bytes);
        self.change(repository, |repository| repository.blobs.insert(digest.clone(), Content::Kept(bytes)));
        digest
    }

    /// Without any of the checks of a push; answers the digest.
    pub fn put_manifest(&self, repository: &str, bytes: impl Into<Bytes>, media_type: &str) -> String {
        let bytes = bytes.into();
        let digest = blob_content::digest(&bytes);
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let pushed_at = self.shared.state().now();
        let manifest = Manifest { bytes, media_type: media_type.to_owned(), json, pushed_at, archived: false };
        self.change(repository, |repository| repository.manifests.insert(digest.clone(), manifest));
        digest
    }

    pub fn tag(&self, repository: &str, tag: &str, digest: &str) {
        self.change(repository, |repository| repository.tags.insert(tag.to_owned(), digest.to_owned()));
    }

    pub fn archive(&self, repository: &str, digest: &str) {
        self.change_manifest(repository, digest, |manifest| manifest.archived = true);
    }

    /// Seconds since the epoch.
    pub fn set_pushed_at(&self, repository: &str, digest: &str, at: f64) {
        self.change_manifest(repository, digest, |manifest| manifest.pushed_at = at);
    }

    pub fn set_scan(&self, repository: &str, digest: &str, scan: Scan) {
        self.change(repository, |repository| repository.scans.insert(digest.to_owned(), scan));
    }

    /// Any change to a repository that is there.
    pub fn change<T>(&self, repository: &str, change: impl FnOnce(&mut Repository) -> T) -> T {
        change(self.shared.state().repository(&self.id, repository).expect("a repository"))
    }

    fn change_manifest(&self, repository: &str, digest: &str, change: impl FnOnce(&mut Manifest)) {
        self.change(repository, |repository| change(repository.manifests.get_mut(digest).expect("a manifest")));
    }

    /// A token's password, issued to the owner of an access key without a request.
    pub fn password(&self, access_key: &str) -> String {
        let mut state = self.shared.state();
        let principal = state.credentials[access_key].principal.clone();
        state.issue_token(&principal, &self.id.region)
    }

    /// A copy of what a repository holds.
    pub fn repository(&self, name: &str) -> Option<Repository> {
        self.shared.state().repository(&self.id, name).cloned()
    }

    /// The digest that a tag points to.
    pub fn resolve(&self, repository: &str, tag: &str) -> Option<String> {
        self.repository(repository)?.resolve(tag)
    }

    pub fn manifest(&self, repository: &str, reference: &str) -> Option<Manifest> {
        let mut repository = self.repository(repository)?;
        let digest = repository.resolve(reference)?;
        repository.manifests.remove(&digest)
    }

    /// Descriptors of a digest's referrers, in the order of their pushes.
    pub fn referrers(&self, repository: &str, digest: &str) -> Vec<Value> {
        self.repository(repository).map_or_else(Vec::new, |repository| listings::descriptors(&repository, digest))
    }

    /// Says what a reference's graph lacks: manifests and blobs that can't be pulled.
    pub fn whole(&self, name: &str, reference: &str) -> Result<(), String> {
        let repository = self.repository(name).ok_or_else(|| format!("no repository {name}"))?;
        let mut open = vec![repository.resolve(reference).ok_or_else(|| format!("no {reference} in {name}"))?];
        while let Some(digest) = open.pop() {
            let manifest = repository.manifests.get(&digest).ok_or_else(|| format!("no manifest {digest}"))?;
            let (blobs, children) = repository.missing(manifest);
            if !blobs.is_empty() || !children.is_empty() {
                return Err(format!("{digest} lacks {blobs:?} {children:?}"));
            }
            open.extend(manifest.children().into_iter().map(str::to_owned));
        }
        Ok(())
    }
}

/// What registries hold, to compare before and after: by `host/repository`.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot(pub BTreeMap<String, Contents>);

#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// Digests by tag.
    pub tags: BTreeMap<String, String>,
    /// Bytes by digest.
    pub manifests: BTreeMap<String, Bytes>,
    /// Sizes by digest.
    pub blobs: BTreeMap<String, u64>,
    pub settings: Settings,
}

impl Snapshot {
    pub(crate) fn of(state: &State) -> Snapshot {
        let mut all = BTreeMap::new();
        for (id, repositories) in &state.registries {
            for (name, repository) in repositories {
                let manifests = repository.manifests.iter();
                let contents = Contents {
                    tags: repository.tags.clone(),
                    manifests: manifests.map(|(digest, manifest)| (digest.clone(), manifest.bytes.clone())).collect(),
                    blobs: repository.blobs.iter().map(|(digest, content)| (digest.clone(), content.len())).collect(),
                    settings: repository.settings.clone(),
                };
                all.insert(format!("{}/{name}", id.host()), contents);
            }
        }
        Snapshot(all)
    }
}
