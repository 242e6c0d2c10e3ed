//! How an image stands in an environment: what is recorded, what the registry holds, and what runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;

use cfn_images::{Version, VersionPosition};
use lifecycle::Diagnostic;
use lifecycle::access::RegistryAccess;
use lifecycle::aws::{Rollout, Workload};
use lifecycle::delta::{BASE_DIGEST, BASE_NAME};
use lifecycle::evidence::{Record, Recorded};
use lifecycle::naming::{Named, Release};
use oci::{Digest, Manifest, Reference, Store, StoreError, Tag};

use crate::base_images::{BaseImage, BaseState, CurrentBases};
use crate::environment_history::{Depth, EnvironmentHistory, VersionedName};

/// How many digests are searched for the record of a tag that somebody else has moved.
const SEARCHED_LIMIT: usize = 200;

/// How many images are read to find the index that a platform's image belongs to, newest first.
const INDEX_LIMIT: usize = 50;

/// Concurrent requests to one repository.
const CONCURRENCY: usize = 16;

/// How an image stands in an environment, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// Registry and workloads have what is recorded.
    InStep,
    /// Everything is in step, but the name of the base image has another digest by now.
    BaseOutdated,
    /// Something could not be read.
    Unknown,
    /// Something still runs an older image of the environment.
    NotDeployed,
    /// Something runs an image that no tag of the environment points to.
    Untagged,
    /// A tag of the environment points to a digest that no record names.
    Moved,
}

/// What a workload runs, compared with what its environment holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Run {
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) container: Option<String>,
    pub(crate) image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// The deployment of the service that is not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rollout: Option<&'static str>,
    pub(crate) state: State,
}

/// The record of what an environment holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Held {
    pub(crate) version: String,
    pub(crate) digest: Digest,
    pub(crate) since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<String>,
}

/// An image in an environment.
pub(crate) struct Standing<'a> {
    pub(crate) named: Named,
    pub(crate) environment: &'a str,
    version: &'a Version,
    /// The tag that the environment has, as far as that is known, and its digest.
    pub(crate) tag: Option<(Tag, Digest)>,
    /// The newest record.
    pub(crate) held: Option<Held>,
    pub(crate) state: State,
    /// Why the state is what it is, one sentence each.
    pub(crate) reasons: BTreeSet<String>,
    pub(crate) runs: BTreeSet<Run>,
    /// The image that the held one was built on, if its annotations say so.
    pub(crate) base: Option<BaseImage>,
    history: EnvironmentHistory,
    /// The indexes of images for single platforms.
    indexes: BTreeMap<Digest, Digest>,
    store: Option<Arc<dyn Store>>,
}

impl<'a> Standing<'a> {
    /// Reads the records and tags of an image in an environment.
    pub(crate) async fn read(target: &RegistryAccess, release: Release<'a>, named: Named) -> Self {
        let mut standing = Self {
            named,
            environment: release.environment,
            version: release.version,
            tag: None,
            held: None,
            state: State::InStep,
            reasons: BTreeSet::new(),
            runs: BTreeSet::new(),
            base: None,
            history: EnvironmentHistory::default(),
            indexes: BTreeMap::new(),
            store: None,
        };
        if let Err(error) = standing.read_registry(target).await {
            let line = Diagnostic::of(&error.into()).line();
            standing.add(State::Unknown, format!("its history cannot be read: {line}"));
        }
        standing
    }

    async fn read_registry(&mut self, target: &RegistryAccess) -> Result<(), StoreError> {
        let store = target.stores.open(&self.named.reference)?.store;
        self.store = Some(store.clone());
        let name = VersionedName::new(&self.named, Release { environment: self.environment, version: self.version });
        self.history = EnvironmentHistory::read(target, &store, name, &BTreeMap::new(), Depth::Highest).await?;
        let current = self.history.current();
        self.held = current.map(|entry| Held::of(&entry.record));
        self.tag = current.map(|entry| (entry.tag.clone(), entry.digest.clone()));
        Ok(())
    }

    fn name(&self) -> VersionedName<'_> {
        VersionedName::new(&self.named, Release { environment: self.environment, version: self.version })
    }

    /// Returns the reference that the environment has, or else the repository.
    pub(crate) fn reference(&self) -> String {
        match &self.tag {
            Some((tag, _)) => self.named.reference.with_tag(tag.clone()).to_string(),
            None => self.named.reference.repository_address(),
        }
    }

    /// Finds tags that somebody else has moved. `running` are digests that may have been there before.
    pub(crate) async fn find_moved(&mut self, running: &[Digest]) {
        let Some(store) = self.store.clone() else { return };
        let moved: Vec<Tag> = match self.history.current() {
            Some(entry) => self.history.unrecorded(&entry.version, &entry.digest).cloned().into_iter().collect(),
            None => self.history.unrecorded_tags().cloned().collect(),
        };
        if moved.is_empty() {
            return;
        }
        let record = match self.record_of(&store, &moved, running).await {
            Ok(record) => record,
            Err(error) => {
                let line = Diagnostic::of(&error.into()).line();
                return self.add(State::Unknown, format!("the records of its tags cannot be read: {line}"));
            }
        };
        let tag = record.as_ref().map_or(&moved[0], |(tag, _)| tag).clone();
        let Some(digest) = self.history.digest_of(&tag).cloned() else {
            if self.history.archived.contains_key(&tag) {
                self.add(State::Unknown, format!("`{tag}` is archived and cannot be read"));
            }
            return;
        };
        let short = digest.short();
        self.tag = Some((tag.clone(), digest.clone()));
        if let Some((_, record)) = record {
            let recorded = format!("its record of {} says {}", record.version, record.digest.short());
            self.add(State::Moved, format!("`{tag}` is {short}, but {recorded}"));
            if self.history.current().is_none_or(|entry| entry.record.at() < record.at()) {
                self.held = Some(Held::of(&record));
            }
        } else if self.held.is_some() {
            self.add(State::Moved, format!("`{tag}` is {short}, which no record names"));
        } else {
            let environment = self.environment;
            self.add(State::Unknown, format!("it is not known what {environment} has: `{tag}` has no record"));
        }
    }

    /// Searches for the newest record of one of these tags whose digest another tag holds, or something runs.
    async fn record_of(
        &self,
        store: &Arc<dyn Store>,
        moved: &[Tag],
        running: &[Digest],
    ) -> Result<Option<(Tag, Record)>, StoreError> {
        let mut tags = store.tags().await?;
        tags.retain(|tag| !tag.is_of_evidence() && !moved.contains(tag));
        tags.sort_by(|a, b| b.cmp(a));
        tags.truncate(SEARCHED_LIMIT);
        let heads: Vec<_> = tags.iter().map(|tag| store.head(tag)).collect();
        let heads: Vec<Option<Digest>> = stream::iter(heads).buffered(CONCURRENCY).try_collect().await?;
        let digests: BTreeSet<Digest> = heads.into_iter().flatten().chain(running.iter().cloned()).collect();
        let environment = self.environment;
        let records = digests.iter().map(|digest| async move {
            match store.manifest(digest).await? {
                Some(_) => Recorded::of_environment(store, digest, environment).await,
                None => Ok(Vec::new()),
            }
        });
        let records: Vec<_> = records.collect();
        let records: Vec<Vec<Recorded>> = stream::iter(records).buffered(CONCURRENCY).try_collect().await?;
        let name = self.name();
        let of_tags = records.into_iter().flatten().filter_map(|recorded| {
            let tag = moved.iter().find(|tag| name.is_target_of(&recorded.record, tag))?;
            Some((tag.clone(), recorded.record))
        });
        Ok(of_tags.max_by(|(_, a), (_, b)| a.at().cmp(&b.at())))
    }

    /// Returns the digest that a tag has in the registry.
    pub(crate) async fn head(&self, tag: &Tag) -> Result<Option<Digest>, StoreError> {
        match (self.history.digest_of(tag), &self.store) {
            (Some(digest), _) => Ok(Some(digest.clone())),
            (None, Some(store)) => store.head(tag).await,
            (None, None) => Ok(None),
        }
    }

    /// Reads which indexes the images for single platforms belong to, unless all of these digests are known.
    pub(crate) async fn read_indexes(&mut self, running: &[Digest]) {
        let Some(store) = self.store.clone() else { return };
        let roots: Vec<Digest> = self.roots().into_iter().take(INDEX_LIMIT).collect();
        if running.iter().all(|digest| roots.contains(digest)) {
            return;
        }
        let read: Vec<_> = roots.iter().map(|root| store.manifest(root)).collect();
        let read: Result<Vec<_>, StoreError> = stream::iter(read).buffered(CONCURRENCY).try_collect().await;
        match read {
            Ok(manifests) => {
                // The newest image comes first, and a platform's image may be in several.
                for manifest in manifests.iter().flatten() {
                    for child in manifest.children() {
                        self.indexes.entry(child.digest.clone()).or_insert_with(|| manifest.digest.clone());
                    }
                }
            }
            Err(error) => {
                let line = Diagnostic::of(&error.into()).line();
                self.add(State::Unknown, format!("its images cannot be read: {line}"));
            }
        }
    }

    /// Returns what the environment holds or has held, newest first.
    fn roots(&self) -> Vec<Digest> {
        let recorded = self.held.iter().map(|held| &held.digest);
        let mut roots: Vec<Digest> = Vec::new();
        for digest in recorded.chain(self.history.digests()) {
            if !roots.contains(digest) {
                roots.push(digest.clone());
            }
        }
        roots
    }

    /// Returns the name and digest of the image that the held one was built on, as its annotations say. In an index, the
    /// first platform counts.
    pub(crate) async fn read_base(&self) -> Option<(String, Digest)> {
        let (store, held) = (self.store.as_ref()?, self.held.as_ref()?);
        let base = |manifest: &Manifest| {
            let annotation = |name| manifest.annotations.get(name);
            Some((annotation(BASE_NAME)?.clone(), annotation(BASE_DIGEST)?.parse().ok()?))
        };
        let root = store.manifest(&held.digest).await.ok().flatten()?;
        if let Some(found) = base(&root) {
            return Some(found);
        }
        let platform = root.children().first()?.digest.clone();
        base(&store.manifest(&platform).await.ok().flatten()?)
    }

    /// Compares the base image with what its name stands for now.
    pub(crate) fn compare_base(&mut self, name: String, digest: Digest, current: &CurrentBases) {
        let base = BaseImage::compare(name, digest, current);
        if base.state == BaseState::Outdated {
            let (name, held) = (&base.name, base.digest.short());
            let reason = format!("its base image `{name}` has been replaced since the build, which used {held}");
            self.add(State::BaseOutdated, reason);
        }
        self.base = Some(base);
    }

    fn root<'d>(&'d self, digest: &'d Digest) -> &'d Digest {
        self.indexes.get(digest).unwrap_or(digest)
    }

    /// Returns whether the tag is a version of this environment, and whether that version is semantic.
    pub(crate) fn version_of(&self, tag: &Tag) -> Option<bool> {
        let pattern = &self.named.pattern;
        match pattern.version_position() {
            VersionPosition::Tag => pattern.version_of(tag).map(|version| version.is_semantic()),
            _ => (*tag == self.named.reference.tag).then_some(true),
        }
    }

    /// Returns whether this is the recorded digest.
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.held.as_ref().is_some_and(|held| held.digest == *self.root(digest))
    }

    /// Returns whether the environment holds or has held a digest.
    pub(crate) fn knows(&self, digest: &Digest) -> bool {
        self.roots().contains(self.root(digest))
    }

    /// Compares a workload with what the environment holds.
    pub(crate) fn compare(&mut self, workload: &Workload, digest: Option<&Digest>) {
        let subject = match &workload.container {
            Some(container) => format!("{} `{}` (container `{container}`)", workload.kind.name(), workload.name),
            None => format!("{} `{}`", workload.kind.name(), workload.name),
        };
        let environment = self.environment;
        let mut version = None;
        let state = match digest {
            _ if self.store.is_none() || self.state == State::Unknown && self.held.is_none() => State::Unknown,
            None => {
                self.add(State::Untagged, format!("{subject} runs `{}`, which does not exist", workload.image));
                State::Untagged
            }
            Some(digest) => {
                let (root, short) = (self.root(digest).clone(), digest.short());
                version = self.history.version_of(&root, self.name()).map(|version| version.to_string());
                let is_older = self.history.entries.iter().any(|entry| entry.digest == root);
                if self.has(digest) {
                    version = self.held.as_ref().map(|held| held.version.clone());
                    State::InStep
                } else if is_older {
                    let older = version.as_deref().unwrap_or_default();
                    let rollout = match workload.rollout {
                        Some(Rollout::InProgress) => ", and a deployment is in progress",
                        Some(Rollout::Failed) => ", and its last deployment has failed",
                        None => "",
                    };
                    self.add(State::NotDeployed, format!("{subject} runs {older} ({short}){rollout}"));
                    State::NotDeployed
                } else if let Some(tag) = self.history.tag_of(&root).cloned() {
                    self.add(State::Moved, format!("{subject} runs {short} of `{tag}`, which no record names"));
                    State::Moved
                } else {
                    let what = format!("{subject} runs {short}, which no tag of {environment} points to");
                    self.add(State::Untagged, what);
                    State::Untagged
                }
            }
        };
        self.runs.insert(Run {
            kind: workload.kind.name(),
            name: workload.name.clone(),
            container: workload.container.clone(),
            image: workload.image.clone(),
            digest: digest.cloned(),
            version,
            rollout: workload.rollout.map(Rollout::name),
            state,
        });
    }

    /// Adds a reason for a state. The worst state counts.
    pub(crate) fn add(&mut self, state: State, reason: String) {
        self.state = self.state.max(state);
        self.reasons.insert(reason);
    }

    /// Returns whether a workload's image lies in this repository.
    pub(crate) fn is_repository_of(&self, workload: &Workload) -> bool {
        workload.is_in_repository_of(&self.named.reference)
    }

    pub(crate) fn address(&self) -> &Reference {
        &self.named.reference
    }
}

impl Held {
    fn of(record: &Record) -> Self {
        Self {
            version: record.version.clone(),
            digest: record.digest.clone(),
            since: record.time.clone(),
            by: record.actor.clone(),
        }
    }
}

impl State {
    /// Returns whether the environment differs from what is recorded, or may differ. A base image that has been replaced
    /// calls for a new build, and changes nothing in the environment.
    pub(crate) fn is_drift(self) -> bool {
        !matches!(self, Self::InStep | Self::BaseOutdated)
    }

    /// Returns its name in outputs and tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InStep => "in-step",
            Self::BaseOutdated => "base-outdated",
            Self::Unknown => "unknown",
            Self::NotDeployed => "not-deployed",
            Self::Untagged => "untagged",
            Self::Moved => "moved",
        }
    }
}
