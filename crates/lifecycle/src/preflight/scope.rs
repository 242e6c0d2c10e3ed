//! What is checked: the run, and the registries and repositories that it reads and writes.

use std::collections::{BTreeMap, BTreeSet};

use futures::future;
use time::OffsetDateTime;

use super::check::Side;
use crate::access::RegistryAccess;
use crate::aws::{Caller, Error, RepositorySettings};
use crate::delivery::{Delivery, PlannedWrites, Signatures};
use crate::inputs::CreateRepositories;
use crate::naming::Named;
use oci::{Digest, Reference, RepositoryName};
use registry::EcrHost;

/// A run, as far as the checks need it.
pub struct PlannedRun<'a> {
    /// Access to the source; `None` for images that were just built.
    pub source: Option<&'a RegistryAccess>,
    /// Access to the target.
    pub target: &'a RegistryAccess,
    /// The images.
    pub images: Vec<PlannedImage<'a>>,
    /// What happens to missing repositories.
    pub create: CreateRepositories,
    /// The settings of repositories that are created.
    pub settings: &'a RepositorySettings,
    /// The environment that the images are for.
    pub environment: &'a str,
    /// Whether a gate reads ECR's scans of the source.
    pub reads_scans: bool,
    /// How many repositories are asked concurrently.
    pub concurrency: usize,
    /// The time of the run.
    pub now: OffsetDateTime,
}

/// An image of the run.
pub struct PlannedImage<'a> {
    /// Its name in the target.
    pub named: &'a Named,
    /// Its name in the source.
    pub source: Option<&'a Reference>,
    /// The delivery, or why it is impossible.
    pub delivery: &'a anyhow::Result<Delivery>,
    /// What would be written. `None` if that is not known.
    pub writes: Option<&'a PlannedWrites>,
    /// What the environment holds now or held before, newest first, each with its tag.
    pub held: Vec<(Digest, String)>,
}

/// A registry of the run, with its repositories.
pub(super) struct Registry<'a> {
    pub(super) side: Side,
    pub(super) access: &'a RegistryAccess,
    pub(super) host: EcrHost,
    /// Whose credentials the run has.
    pub(super) caller: Result<Caller, Error>,
    pub(super) repositories: BTreeMap<&'a RepositoryName, Vec<&'a PlannedImage<'a>>>,
}

impl<'a> PlannedRun<'a> {
    /// Returns the registries in ECR. A source in the repository that it is delivered to is the target.
    pub(super) async fn registries(&'a self) -> Vec<Registry<'a>> {
        let mut registries: BTreeMap<(Side, String), BTreeMap<_, Vec<_>>> = BTreeMap::new();
        for image in &self.images {
            let target = &image.named.reference;
            let source = image.source.filter(|source| source.repository_address() != target.repository_address());
            for (side, reference) in [(Side::Target, Some(target)), (Side::Source, source)] {
                let Some(reference) = reference else { continue };
                let repositories = registries.entry((side, reference.location.to_string())).or_default();
                repositories.entry(&reference.repository).or_default().push(image);
            }
        }
        let registries = registries.into_iter().filter_map(|((side, name), repositories)| {
            let access = match side {
                Side::Source => self.source?,
                Side::Target => self.target,
            };
            Some((side, access, EcrHost::parse(&name)?, repositories))
        });
        let registries = registries.map(|(side, access, host, repositories)| async move {
            Registry { side, access, host, caller: access.aws.caller().await, repositories }
        });
        future::join_all(registries).await
    }
}

impl<'a> Registry<'a> {
    /// Returns what a check of the whole registry is about.
    pub(super) fn subject(&self) -> (Side, String) {
        (self.side, format!("{}/{}", self.host.account, self.host.region))
    }

    /// Returns what a check of repositories is about.
    pub(super) fn about<'r>(&self, names: impl IntoIterator<Item = &'r RepositoryName>) -> (Side, String) {
        (self.side, names.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    }

    /// Returns the ARN of a repository.
    pub(super) fn arn(&self, repository: &RepositoryName) -> String {
        self.host.repository_arn(repository.as_str())
    }

    /// Returns whether the credentials are of the registry's own account. The settings of another account's registry
    /// cannot be read.
    pub(super) fn is_own_account(&self) -> bool {
        self.caller.as_ref().is_ok_and(|caller| caller.account == self.host.account)
    }

    /// Returns the images that go to a repository, or come from it.
    pub(super) fn images(&self, repository: &RepositoryName) -> impl Iterator<Item = &'a PlannedImage<'a>> {
        self.repositories.get(repository).into_iter().flatten().copied()
    }
}

impl PlannedImage<'_> {
    /// Returns whether the run writes a manifest.
    pub(super) fn writes_manifests(&self) -> bool {
        self.writes.map_or_else(|| self.would_write(), |writes| !writes.tags.is_empty() || writes.uploads())
    }

    /// Returns whether the run uploads blobs.
    pub(super) fn uploads(&self) -> bool {
        self.writes.map_or_else(|| self.would_write(), PlannedWrites::uploads)
    }

    /// Returns whether the run reads blobs of the source.
    pub(super) fn downloads(&self) -> bool {
        self.writes.map_or_else(
            || self.would_write(),
            |writes| {
                writes.content.is_some() || !writes.evidence.referrers.is_empty() || !writes.evidence.tags.is_empty()
            },
        )
    }

    /// Returns the number of manifests that the run adds to those that a repository stores: the image's, its evidence,
    /// record and signatures.
    pub(super) fn new_manifests(&self, stored: &BTreeSet<String>) -> usize {
        let Some(writes) = self.writes else { return 0 };
        let evidence = writes.evidence.referrers.iter().chain(writes.evidence.tags.iter().map(|(_, graph)| graph));
        let graphs = writes.content.as_deref().into_iter().chain(evidence);
        let digests: BTreeSet<String> =
            graphs.flat_map(|graph| graph.manifests()).map(|manifest| manifest.digest.to_string()).collect();
        let said = usize::from(writes.record.is_some()) + usize::from(writes.summary.is_some());
        digests.difference(stored).count() + said + writes.signed()
    }

    /// Returns whether an image whose writes are not known would be written.
    fn would_write(&self) -> bool {
        self.delivery.as_ref().map_or(true, |delivery| !delivery.is_done())
    }
}

impl PlannedWrites {
    /// Returns whether blobs are uploaded: of the image, its evidence, its record or its signatures.
    fn uploads(&self) -> bool {
        let has_evidence = !self.evidence.referrers.is_empty() || !self.evidence.tags.is_empty();
        self.content.is_some() || has_evidence || self.record.is_some() || self.signatures == Signatures::All
    }
}
