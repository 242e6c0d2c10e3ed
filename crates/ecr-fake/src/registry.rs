//! Direct access to a registry, past its API.

use bytes::Bytes;
use serde_json::Value;

use crate::{
    Image, ImageScan, Manifest, RegistryId, RegistrySettings, Repository, RepositorySettings, Shared,
    blob_content::{self, BlobContent},
};

/// Direct access to one account's registry in one region: to fill it, and to inspect it.
///
/// Methods that change a repository panic if it does not exist, unless they create it.
#[derive(Clone)]
pub struct Registry<'a> {
    shared: &'a Shared,
    id: RegistryId,
}

impl<'a> Registry<'a> {
    pub(crate) fn new(shared: &'a Shared, id: RegistryId) -> Registry<'a> {
        Registry { shared, id }
    }

    /// Returns the host in images' names: `111122223333.dkr.ecr.us-east-1.amazonaws.com`.
    pub fn host(&self) -> String {
        self.id.host()
    }

    /// Returns the URL of the data plane: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &'a str {
        self.shared.url(&self.id)
    }

    /// Creates a repository. One that exists is left as it is.
    pub fn create(&self, repository: &str, settings: RepositorySettings) {
        self.shared.state().create(&self.id, repository, settings);
    }

    /// Puts a whole image with its referrers, and tags its root. The repository is created if it does not exist.
    pub fn push(&self, repository: &str, tags: &[&str], image: &Image) {
        self.create(repository, RepositorySettings::default());
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

    /// Lets the next `lists` lists of the referrers of `subject` leave one out: a signature that ECR's managed signing
    /// writes some time after the push.
    pub fn sign_late(&self, repository: &str, subject: &str, signature: &str, lists: u32) {
        self.change(repository, |repository| {
            repository.late_referrers.entry(subject.to_owned()).or_default().add(signature, lists);
        });
    }

    /// Puts a blob and returns its digest.
    pub fn put_blob(&self, repository: &str, bytes: impl Into<Bytes>) -> String {
        let bytes = bytes.into();
        let digest = blob_content::digest(&bytes);
        self.change(repository, |repository| repository.blobs.insert(digest.clone(), BlobContent::Kept(bytes)));
        digest
    }

    /// Puts a manifest without any of the checks of a push. Returns its digest.
    pub fn put_manifest(&self, repository: &str, bytes: impl Into<Bytes>, media_type: &str) -> String {
        let bytes = bytes.into();
        let digest = blob_content::digest(&bytes);
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let pushed_at = self.shared.state().now();
        let manifest = Manifest { bytes, media_type: media_type.to_owned(), json, pushed_at, archived: false };
        self.change(repository, |repository| repository.manifests.insert(digest.clone(), manifest));
        digest
    }

    /// Points a tag to a digest, even if tags are immutable.
    pub fn tag(&self, repository: &str, tag: &str, digest: &str) {
        self.change(repository, |repository| repository.tags.insert(tag.to_owned(), digest.to_owned()));
    }

    /// Archives an image: it keeps its tags, and cannot be pulled.
    pub fn archive(&self, repository: &str, digest: &str) {
        self.change_manifest(repository, digest, |manifest| manifest.archived = true);
    }

    /// Sets the time of a push, in seconds since the epoch.
    pub fn set_pushed_at(&self, repository: &str, digest: &str, at: f64) {
        self.change_manifest(repository, digest, |manifest| manifest.pushed_at = at);
    }

    /// Sets the scan of an image, or of one of its platforms.
    pub fn set_scan(&self, repository: &str, digest: &str, scan: ImageScan) {
        self.change(repository, |repository| repository.scans.insert(digest.to_owned(), scan));
    }

    /// Changes a repository in any way.
    pub fn change<T>(&self, repository: &str, change: impl FnOnce(&mut Repository) -> T) -> T {
        change(
            self.shared
                .state()
                .repository(&self.id, repository)
                .unwrap_or_else(|| panic!("no repository {repository}")),
        )
    }

    fn change_manifest(&self, repository: &str, digest: &str, change: impl FnOnce(&mut Manifest)) {
        self.change(repository, |repository| change(repository.manifests.get_mut(digest).expect("a manifest")));
    }

    /// Changes the registry's settings.
    pub fn settings(&self, change: impl FnOnce(&mut RegistrySettings)) {
        change(self.shared.state().settings.entry(self.id.clone()).or_default());
    }

    /// Issues a token to the owner of an access key, without a request. Returns its password; the user name is `AWS`.
    ///
    /// # Panics
    /// If no user has the access key.
    pub fn password(&self, access_key: &str) -> String {
        let mut state = self.shared.state();
        let principal = state.credentials[access_key].principal.clone();
        state.issue_token(&principal, &self.id.region)
    }

    /// Returns a copy of a repository.
    pub fn repository(&self, name: &str) -> Option<Repository> {
        self.shared.state().repository(&self.id, name).cloned()
    }

    /// Returns the digest that a tag points to.
    pub fn resolve(&self, repository: &str, tag: &str) -> Option<String> {
        self.repository(repository)?.resolve(tag)
    }

    /// Returns the manifest with a tag or digest.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<Manifest> {
        let mut repository = self.repository(repository)?;
        let digest = repository.resolve(reference)?;
        repository.manifests.remove(&digest)
    }

    /// Returns the descriptors of a digest's referrers, in the order of their pushes.
    pub fn referrers(&self, repository: &str, digest: &str) -> Vec<Value> {
        self.repository(repository).map_or_else(Vec::new, |repository| repository.referrers(digest))
    }

    /// Checks that every manifest and blob below a tag or digest exists. The error names what is missing.
    pub fn whole(&self, name: &str, reference: &str) -> Result<(), String> {
        let repository = self.repository(name).ok_or_else(|| format!("no repository {name}"))?;
        let mut open = vec![repository.resolve(reference).ok_or_else(|| format!("no {reference} in {name}"))?];
        while let Some(digest) = open.pop() {
            let manifest = repository.manifests.get(&digest).ok_or_else(|| format!("no manifest {digest}"))?;
            let (blobs, children) = repository.missing(manifest);
            if !blobs.is_empty() || !children.is_empty() {
                return Err(format!("{digest} refers to missing blobs {blobs:?} and manifests {children:?}"));
            }
            open.extend(manifest.children().into_iter().map(str::to_owned));
        }
        Ok(())
    }
}
