//! Reuses published images with the same content: `reuse: auto`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tokio::sync::Mutex;

use cfn_images::{Version, VersionPosition};
use lifecycle::deployment::platforms;
use lifecycle::evidence::read;
use lifecycle::naming::{Named, Project, Release};
use lifecycle::{ActionError, Diagnostic};
use oci::{Manifest, Reference, Store, StoreError, Tag, annotation, listed};

use crate::content_key::{self, BuildFacts, ContentKey};
use crate::dockerfile::{PullSource, canonical};
use crate::image::Image;
use crate::released::{LastRelease, named};
use crate::request::{BuildOptions, ReuseOptions};
use crate::reuse::{ReuseBasis, ReuseDecision, ReusedImage, Unusable};

/// The most versions of an image that are looked at, the newest ones first.
const VERSIONS: usize = 100;

/// How many of them are read at the same time.
const READS: usize = 8;

/// The time limit for reading base images or versions of one image. A build does not wait longer for a registry that does
/// not answer.
const DEADLINE: Duration = Duration::from_secs(60);

/// The published images of the environment.
pub(crate) struct PublishedImages<'a> {
    pub(crate) options: &'a ReuseOptions,
    pub(crate) project: &'a Project,
    pub(crate) build: &'a BuildOptions,
    /// Name and version of the builder.
    pub(crate) builder: &'a str,
    /// Digests of base images that were looked up, by name, or why they are not known.
    digests: Mutex<BTreeMap<String, Result<String, String>>>,
    /// Whether the registry did not answer. The other images do not wait for it.
    is_silent: AtomicBool,
}

impl<'a> PublishedImages<'a> {
    pub(crate) fn new(
        options: &'a ReuseOptions,
        project: &'a Project,
        build: &'a BuildOptions,
        builder: &'a str,
    ) -> Self {
        Self { options, project, build, builder, digests: Mutex::default(), is_silent: AtomicBool::new(false) }
    }

    /// Computes the content key of an image, or returns why it has none.
    pub(crate) async fn key(
        &self,
        image: &Image,
        labels: &BTreeMap<String, String>,
        epoch: Option<i64>,
    ) -> Result<ContentKey, String> {
        let unknown = |why: String| format!("its content is not known before the build: {why}");
        if let Some(obstacle) = content_key::obstacle(&image.parsed, self.build) {
            return Err(unknown(obstacle));
        }
        let bases = self.base_digests(image).await.map_err(unknown)?;
        let facts = BuildFacts { builder: self.builder.to_owned(), labels: labels.clone(), epoch, bases };
        let key = ContentKey::of(image, self.build, facts).await;
        key.map_err(|error| unknown(Diagnostic::of(&error).line()))
    }

    /// Finds the newest version of an image in the environment whose content has a key. Otherwise, returns why the image is
    /// built.
    pub(crate) async fn find(&self, image: &Image, key: &ContentKey) -> ReuseDecision {
        let built = |why: String| format!("{why}, so it is built");
        if self.is_silent.load(Ordering::Relaxed) {
            return Err(built("the registry does not answer".to_owned()).into());
        }
        let found = in_time(self.find_version(image, key)).await;
        let found = found.inspect_err(|_| self.is_silent.store(true, Ordering::Relaxed));
        let found = found.map_err(built)?.map_err(|error| built(Diagnostic::of(&error).line()))?;
        let reused = found.map_err(|other| Unusable { reason: built(other.reason), ..other })?;
        let (has, wanted) = (&reused.platforms, &image.platforms);
        if has.len() != wanted.len() || !wanted.iter().all(|platform| has.contains(platform)) {
            return Err(built(format!("`{}` is built for {}", reused.reference, listed(has))).into());
        }
        Ok(reused)
    }

    async fn find_version(&self, image: &Image, key: &ContentKey) -> anyhow::Result<ReuseDecision> {
        let environment = &self.options.environment;
        // Only the pattern of the name is used.
        let any = Version::new(0, 0, 0);
        let release = Release { environment, version: &any };
        let named = named(self.project, &self.options.registry, image, release).await?;
        let named = named.ok_or_else(|| ActionError::failure("its name is not known"))?;
        let store = self.options.registry.stores.open(&named.reference)?.store;
        let tags = versions(&store, &named).await?;
        let repository = named.reference.repository_address();
        if tags.is_empty() {
            let message = format!("`{repository}` has no version of {environment}");
            return Err(ActionError::failure(message).into());
        }
        let count = tags.len();
        let text = key.to_string();
        let reads = tags.into_iter().map(|tag| {
            let store = &store;
            async move { (store.tagged(&tag).await, tag) }
        });
        let reads: Vec<_> = reads.collect();
        let mut reads = stream::iter(reads).buffered(READS);
        let mut newest = None;
        while let Some((read, tag)) = reads.next().await {
            let Some(manifest) = read? else { continue };
            if newest.is_none() {
                let (store, reference) = (store.clone(), named.reference.with_tag(tag.clone()).to_string());
                newest = Some(LastRelease::Image { reference, store, manifest: Box::new(manifest.clone()) });
            }
            if manifest.annotations.get(annotation::CONTENT_KEY) != Some(&text) {
                continue;
            }
            let platforms = platforms(&store, &manifest).await?;
            let seconds = build_seconds(&store, &manifest).await;
            let basis = ReuseBasis::ContentKey { seconds };
            let reference = named.reference.with_tag(tag).to_string();
            return Ok(Ok(ReusedImage { reference, manifest, platforms, basis, rescanned: None }));
        }
        let hint = if key.has_git_folder { "; its context contains `.git`, which differs between clones" } else { "" };
        let reason = format!("none of the {count} newest versions in `{repository}` has its content{hint}");
        Ok(Err(Unusable { reason, release: newest }))
    }

    /// Returns the digests of the base images that an image is built on now, by reference.
    async fn base_digests(&self, image: &Image) -> Result<BTreeMap<String, String>, String> {
        let mut digests = image.known_digests.clone();
        for base in image.bases() {
            if digests.contains_key(&base.reference) {
                continue;
            }
            let name = match self.build.base_images.source_of(&base.reference) {
                Some(PullSource::Registry(reference)) => canonical(&reference).unwrap_or(reference),
                _ => base.name.clone(),
            };
            let mut looked_up = self.digests.lock().await;
            let digest = match looked_up.get(&name) {
                Some(digest) => digest.clone(),
                None => {
                    let digest = in_time(self.base_digest(&name)).await;
                    let digest = digest.and_then(|digest| digest.map_err(|error| Diagnostic::of(&error).line()));
                    looked_up.insert(name, digest.clone());
                    digest
                }
            };
            let unknown = |why| format!("the digest of the base image `{}`: {why}", base.reference);
            digests.insert(base.reference.clone(), digest.map_err(unknown)?);
        }
        Ok(digests)
    }

    async fn base_digest(&self, name: &str) -> anyhow::Result<String> {
        // The API of Docker Hub has a host of its own.
        let host = name.strip_prefix("docker.io/").map(|path| format!("registry-1.docker.io/{path}"));
        let reference = Reference::parse(host.as_deref().unwrap_or(name), None)?;
        let store = self.options.registry.stores.open(&reference)?.store;
        let digest = store.head(&reference.tag).await?;
        let missing = || ActionError::failure(format!("`{name}` does not exist"));
        Ok(digest.ok_or_else(missing)?.to_string())
    }
}

/// Waits for the answer of a registry, but not longer than the time limit.
async fn in_time<T>(answer: impl Future<Output = T>) -> Result<T, String> {
    let late = |_| format!("the registry did not answer within {} s", DEADLINE.as_secs());
    tokio::time::timeout(DEADLINE, answer).await.map_err(late)
}

/// Returns the tags of an image in the environment, the newest version first.
async fn versions(store: &Arc<dyn Store>, named: &Named) -> Result<Vec<Tag>, StoreError> {
    if named.pattern.version_position() != VersionPosition::Tag {
        // The tag moves from version to version.
        return Ok(vec![named.reference.tag.clone()]);
    }
    let tags = store.tags().await?.into_iter();
    let mut tags: Vec<(Version, Tag)> = tags.filter_map(|tag| Some((named.pattern.version_of(&tag)?, tag))).collect();
    tags.sort_by(|(one, _), (other, _)| other.sorting_order(one));
    Ok(tags.into_iter().take(VERSIONS).map(|(_, tag)| tag).collect())
}

/// Returns how long an image was built, according to its provenance.
async fn build_seconds(store: &Arc<dyn Store>, manifest: &Manifest) -> Option<u64> {
    let provenance = read::build_seconds(store, &manifest.digest).await.ok()?;
    provenance.into_iter().find_map(|found| found.content.ok().flatten())
}
