//! The history of an image in an environment, read from the records in its registry.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use cfn_images::Version;
use cfn_images::{NamePattern, VersionPosition};
use lifecycle::access::RegistryAccess;
use lifecycle::evidence::{Record, Recorded};
use lifecycle::naming::{Named, Release};
use oci::{Digest, ErrorKind, Location, Reference, Store, StoreError, Tag, listed_tag};
use registry::EcrHost;

/// How many semantic versions are looked at by default: the highest ones, and that of the run. Each takes a few requests.
const HIGHEST_LIMIT: usize = 100;

/// How many tags are looked at that may be versions without an order of their own. Only their records tell whether they
/// are, and which one is the newest.
const UNORDERED_LIMIT: usize = 1000;

/// How many versions a rollback looks at. If there are more, nothing is decided: the current version may be among those
/// that were left out.
const ROLLBACK_LIMIT: usize = 1000;

/// Concurrent requests to one repository.
const CONCURRENCY: usize = 16;

/// How much of the history is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The highest versions, or the newest digests of a moving tag. Older ones are left out.
    Highest,
    /// All of it, for a rollback. Too many versions are an error.
    All,
}

/// The name of an image in an environment, with the version that it was evaluated with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VersionedName<'a> {
    pub(crate) environment: &'a str,
    pub(crate) version: &'a Version,
    pub(crate) reference: &'a Reference,
    /// The name of any version.
    pub(crate) pattern: &'a NamePattern,
}

/// A period in which an environment held an image under a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HistoryEntry {
    pub(crate) tag: Tag,
    pub(crate) version: Version,
    pub(crate) digest: Digest,
    /// The record with which it began.
    pub(crate) record: Record,
    /// The referrer that contains the record.
    referrer: Digest,
}

/// The images that an environment holds and has held.
#[derive(Debug, Clone, Default)]
pub(crate) struct EnvironmentHistory {
    /// Newest first. The tag of each pointed to its digest until the next entry replaced it.
    pub(crate) entries: Vec<HistoryEntry>,
    /// The digests of the environment's tags.
    tags: BTreeMap<Tag, Digest>,
    /// Tags without a record, with the semantic version in their names.
    unrecorded: Vec<(Tag, Option<Version>)>,
    /// Tags without a record that may be versions without an order of their own, if the environment has no records.
    unexplained: Vec<Tag>,
    /// Semantic versions that have a tag but were not looked at; highest first.
    left_out: Vec<Version>,
    /// How many tags were not looked at that may be versions without an order of their own.
    left_out_unordered: usize,
    /// The tags of archived images, which cannot be read, if the registry lists such tags.
    pub(crate) archived: BTreeMap<Tag, Digest>,
}

impl<'a> VersionedName<'a> {
    /// Combines the name of an image with the release that it was evaluated with.
    pub(crate) fn new(named: &'a Named, release: Release<'a>) -> Self {
        let Release { environment, version } = release;
        Self { environment, version, reference: &named.reference, pattern: &named.pattern }
    }

    /// Returns whether a tag of this repository is the target of a record.
    pub(crate) fn is_target_of(&self, record: &Record, tag: &Tag) -> bool {
        is_target_of(record, &self.reference.with_tag(tag.clone()))
    }

    /// Returns whether a record is of this version.
    pub(crate) fn is_of_version(&self, record: &Record) -> bool {
        record.version == self.version.to_string()
    }

    /// Returns the entry that a record begins, if it is a record of this tag.
    fn entry(&self, recorded: Recorded, tag: &Tag) -> Option<HistoryEntry> {
        let Recorded { record, digest: referrer } = recorded;
        let version = record.version.parse().ok()?;
        let digest = record.digest.clone();
        self.is_target_of(&record, tag).then(|| HistoryEntry { tag: tag.clone(), version, digest, record, referrer })
    }
}

/// Returns whether a reference is the target of a record. The folder of a store on disk is ignored, since it may have been
/// moved.
pub(crate) fn is_target_of(record: &Record, reference: &Reference) -> bool {
    match &reference.location {
        Location::Host(_) => record.to == reference.to_string(),
        Location::Directory(_) => {
            record.to.starts_with("oci:")
                && record.to.ends_with(&format!("/{}:{}", reference.repository, reference.tag))
        }
    }
}

impl HistoryEntry {
    /// Returns the digest of the referrer that contains the record. Signatures of the record refer to it.
    pub(crate) fn referrer(&self) -> &Digest {
        &self.referrer
    }
}

impl EnvironmentHistory {
    /// Reads the history of an environment. `current` holds the digests of tags that were looked up before.
    ///
    /// # Errors
    /// If the store cannot be read, the names do not tell versions apart, or there are too many for [`Depth::All`].
    pub(crate) async fn read(
        access: &RegistryAccess,
        store: &Arc<dyn Store>,
        name: VersionedName<'_>,
        current: &BTreeMap<Tag, Option<Digest>>,
        depth: Depth,
    ) -> Result<Self, StoreError> {
        match Self::of_active(store, name, current, depth, BTreeMap::new()).await {
            // A tag is listed, but does not exist: it may be that of an archived image.
            Err(error) if error.kind == ErrorKind::Transient => {
                let Some(host) = EcrHost::parse(&name.reference.location.to_string()) else { return Err(error) };
                match access.aws.archived_tags(&host, &name.reference.repository).await {
                    Ok(archived) if !archived.is_empty() => {
                        Self::of_active(store, name, current, depth, archived).await
                    }
                    Ok(_) | Err(_) => Err(error),
                }
            }
            result => result,
        }
    }

    /// Reads the history without the archived images.
    async fn of_active(
        store: &Arc<dyn Store>,
        name: VersionedName<'_>,
        current: &BTreeMap<Tag, Option<Digest>>,
        depth: Depth,
        archived: BTreeMap<Tag, Digest>,
    ) -> Result<Self, StoreError> {
        let unsupported = |why: &str| {
            let message = format!("the versions of `{}` can't be told apart: {why}", name.reference);
            StoreError::new(ErrorKind::Unsupported, message)
        };
        match name.pattern.version_position() {
            VersionPosition::Tag => Self::of_versions(store, name, current, depth, archived).await,
            VersionPosition::Nowhere => Self::of_tag(store, name, current, depth).await,
            // Registries do not list repositories by pattern.
            VersionPosition::Repository => {
                let message = format!("each version of `{}` has a repository of its own", name.reference);
                Err(StoreError::new(ErrorKind::Unsupported, message))
            }
            VersionPosition::Altered => Err(unsupported(
                "the name contains the version in another spelling, or only a part of it, or names a build",
            )
            .hint("put the whole version into the tag, as in `{environment}-{version}`")),
            VersionPosition::Condition => Err(unsupported("the name depends on a condition on the version")),
        }
    }

    /// Reads the history if every version has its own tag.
    async fn of_versions(
        store: &Arc<dyn Store>,
        name: VersionedName<'_>,
        current: &BTreeMap<Tag, Option<Digest>>,
        depth: Depth,
        mut archived: BTreeMap<Tag, Digest>,
    ) -> Result<Self, StoreError> {
        let pattern = name.pattern;
        archived.retain(|tag, _| pattern.version_of(tag).is_some());
        let tags = store.tags().await?.into_iter().filter(|tag| !archived.contains_key(tag));
        let versions = tags.filter_map(|tag| Some((pattern.version_of(&tag)?, tag)));
        let (mut versions, mut unordered): (Vec<_>, Vec<_>) = versions.partition(|(version, _)| version.is_semantic());
        versions.sort_by(|(a, _), (b, _)| b.sorting_order(a));
        let is_own = |(_, tag): &(Version, Tag)| *tag == name.reference.tag;
        unordered.sort_by_key(|found| !is_own(found));
        let counted = versions.len() + if name.version.is_semantic() { 0 } else { unordered.len() };
        if depth == Depth::All && counted > ROLLBACK_LIMIT {
            return Err(too_many(store.as_ref(), &format!("{counted} versions in {}", name.environment)));
        }
        let lower = versions.split_off(versions.len().min(depth.limit()));
        let (own, left_out): (Vec<_>, Vec<_>) = lower.into_iter().partition(is_own);
        versions.extend(own);
        let left_out = left_out.into_iter().map(|(version, _)| version).collect();
        let left_out_unordered = unordered.split_off(unordered.len().min(UNORDERED_LIMIT)).len();
        versions.extend(unordered);
        let heads = versions.into_iter().map(|(version, tag)| async move {
            match current.get(&tag) {
                Some(Some(digest)) => Ok(Some((tag, digest.clone()))),
                // Beside semantic versions there are tags of every kind. One that has just been deleted is no version.
                _ if !version.is_semantic() && name.version.is_semantic() => {
                    Ok(store.head(&tag).await?.map(|digest| (tag, digest)))
                }
                // The tag is listed, so a lookup that did not find it earlier does not count.
                Some(None) | None => listed_tag(store.as_ref(), &tag).await.map(Some),
            }
        });
        let heads: Vec<_> = heads.collect();
        let tags: Vec<Option<(Tag, Digest)>> = stream::iter(heads).buffered(CONCURRENCY).try_collect().await?;
        let tags: BTreeMap<Tag, Digest> = tags.into_iter().flatten().collect();
        let digests: BTreeSet<&Digest> = tags.values().collect();
        let records: Vec<_> = digests.into_iter().map(|digest| records(store, digest, name.environment)).collect();
        let records: Vec<(Digest, Vec<Recorded>)> = stream::iter(records).buffered(CONCURRENCY).try_collect().await?;
        let records: BTreeMap<Digest, Vec<Recorded>> = records.into_iter().collect();
        let mut entries = Vec::new();
        for (tag, digest) in &tags {
            let of_digest = records.get(digest).map(Vec::as_slice).unwrap_or_default();
            entries.extend(of_digest.iter().filter_map(|recorded| name.entry(recorded.clone(), tag)));
        }
        let is_recorded = |tag: &Tag| entries.iter().any(|entry| entry.tag == *tag);
        let unrecorded = tags.keys().filter(|tag| !is_recorded(tag));
        let unrecorded = unrecorded.map(|tag| (tag.clone(), pattern.version_of(tag)));
        let (unrecorded, unordered): (Vec<_>, Vec<_>) =
            unrecorded.partition(|(_, version)| version.as_ref().is_some_and(Version::is_semantic));
        let mut unexplained = Vec::new();
        if entries.is_empty() && !name.version.is_semantic() {
            for (tag, _) in unordered {
                // A tag of another environment whose name begins with that of this one is accounted for.
                let records = Recorded::all(store, &tags[&tag]).await?;
                if !records.iter().any(|found| name.is_target_of(&found.record, &tag)) {
                    unexplained.push(tag);
                }
            }
        }
        let entries = newest_first(entries);
        let mut unrecorded = unrecorded;
        let lost = archived.keys().filter_map(|tag| Some((tag.clone(), pattern.version_of(tag)?)));
        // Their records cannot be read.
        unrecorded.extend(lost.filter(|(_, of)| of.is_semantic()).map(|(tag, of)| (tag, Some(of))));
        Ok(Self { entries, tags, unrecorded, unexplained, left_out, left_out_unordered, archived })
    }

    /// Reads the history if one tag moves from version to version: each record names the digest that it replaced.
    async fn of_tag(
        store: &Arc<dyn Store>,
        name: VersionedName<'_>,
        current: &BTreeMap<Tag, Option<Digest>>,
        depth: Depth,
    ) -> Result<Self, StoreError> {
        let tag = &name.reference.tag;
        let head = match current.get(tag) {
            Some(current) => current.clone(),
            None => store.head(tag).await?,
        };
        let Some(head) = head else { return Ok(Self::default()) };
        let mut entries = Vec::new();
        let mut seen = BTreeSet::from([head.clone()]);
        let mut next = vec![head.clone()];
        while let Some(digest) = next.pop() {
            for recorded in Recorded::of_environment(store, &digest, name.environment).await? {
                if let Some(entry) = name.entry(recorded, tag) {
                    let replaced = entry.record.replaced.clone().filter(|replaced| seen.insert(replaced.clone()));
                    next.extend(replaced.filter(|_| seen.len() <= depth.limit()));
                    entries.push(entry);
                }
            }
        }
        if depth == Depth::All && seen.len() > ROLLBACK_LIMIT {
            return Err(too_many(store.as_ref(), &format!("more than {ROLLBACK_LIMIT} digests that `{tag}` has held")));
        }
        // Newer records than that of the current digest are from interrupted runs, which did not write the tag.
        let entries: Vec<HistoryEntry> =
            newest_first(entries).into_iter().skip_while(|entry| entry.digest != head).collect();
        let unrecorded = if entries.is_empty() { vec![(tag.clone(), None)] } else { Vec::new() };
        Ok(Self { entries, tags: BTreeMap::from([(tag.clone(), head)]), unrecorded, ..Self::default() })
    }

    /// Returns how many versions were not looked at.
    pub(crate) fn left_out(&self) -> usize {
        self.left_out.len()
    }

    /// Returns whether a version that was not looked at may be newer than this one.
    pub(crate) fn leaves_out_above(&self, version: &Version) -> bool {
        self.left_out.first().is_some_and(|highest| may_be_above(highest, version))
            || (self.left_out_unordered > 0 && !version.is_semantic())
    }

    /// Returns whether a later promotion does not read a version because there are too many higher ones. Only correct for a
    /// history that was read completely.
    pub(crate) fn will_leave_out(&self, version: &Version) -> bool {
        let recorded = self.entries.iter().map(|entry| (&entry.tag, &entry.version));
        let unrecorded = self.unrecorded.iter().filter_map(|(tag, of)| Some((tag, of.as_ref()?)));
        let is_higher = |(_, other): &(&Tag, &Version)| other.order(version) == Some(Ordering::Greater);
        let higher: BTreeSet<&Tag> = recorded.chain(unrecorded).filter(is_higher).map(|(tag, _)| tag).collect();
        version.is_semantic() && higher.len() >= HIGHEST_LIMIT
    }

    /// Returns whether the environment has tags that may be versions but have no record.
    pub(crate) fn has_unrecorded_tags(&self) -> bool {
        !self.unrecorded.is_empty() || !self.unexplained.is_empty()
    }

    /// Returns the environment's tags that may be versions and have no record.
    pub(crate) fn unrecorded_tags(&self) -> impl Iterator<Item = &Tag> {
        self.unrecorded.iter().map(|(tag, _)| tag).chain(&self.unexplained)
    }

    /// Returns the digest of one of the environment's tags.
    pub(crate) fn digest_of(&self, tag: &Tag) -> Option<&Digest> {
        self.tags.get(tag)
    }

    /// Returns a tag of the environment that points to a digest.
    pub(crate) fn tag_of(&self, digest: &Digest) -> Option<&Tag> {
        self.tags.iter().find(|(_, current)| *current == digest).map(|(tag, _)| tag)
    }

    /// Returns whether the environment holds or has held a digest, as far as the records that could be read say.
    pub(crate) fn has_held(&self, digest: &Digest) -> bool {
        self.digests().any(|held| held == digest)
    }

    /// Returns the digests that the environment holds or has held, newest first.
    pub(crate) fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.entries.iter().map(|entry| &entry.digest).chain(self.tags.values())
    }

    /// Returns the entry that the environment holds now, among those that were looked at.
    pub(crate) fn current(&self) -> Option<&HistoryEntry> {
        self.entries.first()
    }

    /// Returns a tag without a record whose version may be higher, or is unknown. A tag that points to the digest already
    /// does not count if its version is unknown.
    pub(crate) fn unrecorded(&self, version: &Version, digest: &Digest) -> Option<&Tag> {
        let is_other = |tag: &&Tag| self.tags.get(*tag) != Some(digest);
        let counts = |(tag, of): &&(Tag, Option<Version>)| match of {
            Some(of) => may_be_above(of, version),
            None => is_other(&tag),
        };
        let unrecorded = self.unrecorded.iter().find(counts).map(|(tag, _)| tag);
        unrecorded.or_else(|| self.unexplained.iter().find(is_other))
    }

    /// Returns the version of a digest: that of its newest record, otherwise the highest semantic version of its tags.
    pub(crate) fn version_of(&self, digest: &Digest, name: VersionedName<'_>) -> Option<Version> {
        let recorded = self.entries.iter().find(|entry| entry.digest == *digest).map(|entry| entry.version.clone());
        let tagged = || {
            let tags = self.tags.iter().filter(|(_, current)| *current == digest);
            let versions = tags.filter_map(|(tag, _)| name.pattern.version_of(tag)).filter(Version::is_semantic);
            versions.max_by(Version::sorting_order)
        };
        recorded.or_else(tagged)
    }
}

impl Depth {
    fn limit(self) -> usize {
        match self {
            Self::Highest => HIGHEST_LIMIT,
            Self::All => ROLLBACK_LIMIT,
        }
    }
}

/// Returns whether a version may be above another: it is higher, or has no order of its own.
fn may_be_above(version: &Version, other: &Version) -> bool {
    matches!(version.order(other), None | Some(Ordering::Greater))
}

fn too_many(store: &dyn Store, what: &str) -> StoreError {
    let message = format!("{} has {what}, but at most {ROLLBACK_LIMIT} are looked at", store.address());
    StoreError::new(ErrorKind::Invalid, message).hint("delete versions that no environment holds any more")
}

async fn records(
    store: &Arc<dyn Store>,
    digest: &Digest,
    environment: &str,
) -> Result<(Digest, Vec<Recorded>), StoreError> {
    Ok((digest.clone(), Recorded::of_environment(store, digest, environment).await?))
}

/// Sorts entries by the times of their records, newest first; at the same time, the higher version is the newer one. Entries
/// that another record of the tag supersedes are dropped.
fn newest_first(mut entries: Vec<HistoryEntry>) -> Vec<HistoryEntry> {
    let superseded: BTreeSet<(Tag, Digest)> = entries
        .iter()
        .flat_map(|entry| entry.record.supersedes.iter().map(|referrer| (entry.tag.clone(), referrer.clone())))
        .collect();
    entries.retain(|entry| !superseded.contains(&(entry.tag.clone(), entry.referrer.clone())));
    entries.sort_by(|a, b| b.record.at().cmp(&a.record.at()).then_with(|| b.version.sorting_order(&a.version)));
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use cfn_images::TracedText;
    use lifecycle::evidence::RecordKind;
    use oci::transfer::copy;
    use oci::{BlobSource, Layout, Manifest, media_type};

    struct Fixture {
        store: Arc<dyn Store>,
        folder: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { store: Arc::new(Layout::at(folder.path())), folder }
        }

        async fn image(&self, number: u8, tag: Option<&str>) -> Digest {
            let config = serde_json::json!({"mediaType": media_type::EMPTY, "digest": Digest::of(b"{}"), "size": 2});
            let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::IMAGE, "config": config,
                "layers": [], "annotations": {"number": number.to_string()}});
            let manifest = Manifest::parse(manifest.to_string().into(), None).unwrap();
            Layout::at(self.folder.path()).add_blob(b"{}").unwrap();
            let tag: Option<Tag> = tag.map(|tag| tag.parse().unwrap());
            self.store.put_manifest(&manifest, tag.as_ref()).await.unwrap();
            manifest.digest
        }

        async fn record(&self, to: &str, version: &str, digest: &Digest, replaced: Option<&Digest>, second: u8) {
            let record = Record {
                kind: RecordKind::Promote,
                environment: "prod".into(),
                from: None,
                to: format!("oci:/elsewhere/app:{to}"),
                digest: digest.clone(),
                replaced: replaced.cloned(),
                supersedes: Vec::new(),
                version: version.into(),
                template: String::new(),
                repository: None,
                image_commit: None,
                run_commit: None,
                run: None,
                actor: None,
                time: format!("2026-01-01T00:00:{second:02}Z"),
                gates: Vec::new(),
                overridden: None,
                lifted_hold: None,
            };
            let subject = self.store.manifest(digest).await.unwrap().unwrap().descriptor();
            let artifact = record.artifact(&subject).unwrap();
            let manifest = artifact.manifest.clone();
            let source: Arc<dyn BlobSource> = Arc::new(artifact);
            copy::artifact(&self.store, &manifest, &source).await.unwrap();
        }

        async fn history(&self, tag: &str) -> EnvironmentHistory {
            let reference: Reference = Reference::parse(&format!("oci:/store/app:{tag}"), Some("oci:/store")).unwrap();
            // The version written out in a reference is recognised as the version.
            let version = Version::new(1, 0, 0);
            let pattern = NamePattern::of(&TracedText::fill(&reference.to_string(), Some("prod"), Some(&version), &[]));
            let name =
                VersionedName { environment: "prod", version: &version, reference: &reference, pattern: &pattern };
            EnvironmentHistory::of_active(&self.store, name, &BTreeMap::new(), Depth::Highest, BTreeMap::new())
                .await
                .unwrap()
        }
    }

    fn versions(history: &EnvironmentHistory) -> Vec<String> {
        history.entries.iter().map(|entry| entry.version.to_string()).collect()
    }

    #[tokio::test]
    async fn the_newest_record_whose_tag_points_to_its_digest_is_current() {
        let fixture = Fixture::new();
        let one = fixture.image(1, Some("prod-1.0.0")).await;
        let two = fixture.image(2, Some("prod-1.1.0")).await;
        let three = fixture.image(3, None).await;
        fixture.image(4, Some("prod-1.3.0")).await;
        fixture.record("prod-1.0.0", "1.0.0", &one, None, 1).await;
        fixture.record("prod-1.1.0", "1.1.0", &two, Some(&one), 2).await;
        // The third tag was never written, and the fourth points to another digest.
        fixture.record("prod-1.2.0", "1.2.0", &three, None, 3).await;
        fixture.record("prod-1.3.0", "1.3.0", &three, None, 4).await;
        fixture.record("test-1.1.0", "1.1.0", &two, None, 5).await;
        assert_eq!(versions(&fixture.history("prod-1.0.0").await), ["1.1.0", "1.0.0"]);
        // A rollback writes no tag: its record makes the older version the current one.
        fixture.record("prod-1.0.0", "1.0.0", &one, Some(&two), 6).await;
        assert_eq!(versions(&fixture.history("prod-1.0.0").await), ["1.0.0", "1.1.0", "1.0.0"]);
        assert_eq!(versions(&fixture.history("stage-1.0.0").await), [""; 0]);
        // The fourth tag exists, but no record says since when.
        let unrecorded = async |version: &str| {
            let history = fixture.history("prod-1.0.0").await;
            history.unrecorded(&version.parse().unwrap(), &one).map(ToString::to_string)
        };
        assert_eq!(unrecorded("1.2.0").await.as_deref(), Some("prod-1.3.0"));
        assert_eq!(unrecorded("1.3.0").await, None);
    }

    #[tokio::test]
    async fn versions_that_were_left_out_are_counted() {
        let fixture = Fixture::new();
        let own = fixture.image(0, Some("prod-1.0.0")).await;
        fixture.record("prod-1.0.0", "1.0.0", &own, None, 9).await;
        let one = fixture.image(1, None).await;
        for minor in 0..=u8::try_from(HIGHEST_LIMIT).unwrap() {
            let (tag, version) = (format!("prod-2.{minor}.0"), format!("2.{minor}.0"));
            fixture.image(1, Some(&tag)).await;
            if minor % 10 == 0 {
                fixture.record(&tag, &version, &one, None, 1).await;
            }
        }
        let history = fixture.history("prod-1.0.0").await;
        assert_eq!(history.current().map(|entry| &entry.digest), Some(&own));
        assert_eq!(history.left_out(), 1);
        let above = |version: &str| history.leaves_out_above(&version.parse().unwrap());
        assert!(above("1.0.0") && !above("2.0.0"));
    }

    #[tokio::test]
    async fn a_moving_tag_is_followed_through_the_digests_that_it_replaced() {
        let fixture = Fixture::new();
        let one = fixture.image(1, None).await;
        let two = fixture.image(2, Some("prod")).await;
        let three = fixture.image(3, None).await;
        fixture.record("prod", "1.0.0", &one, None, 1).await;
        fixture.record("prod", "1.1.0", &two, Some(&one), 2).await;
        // Both runs were killed before they wrote the tag.
        fixture.record("prod", "1.2.0", &three, Some(&two), 3).await;
        fixture.record("prod", "1.0.0", &one, Some(&two), 4).await;
        let history = fixture.history("prod").await;
        assert_eq!(versions(&history), ["1.1.0", "1.0.0"]);
        assert_eq!(history.current().map(|entry| &entry.digest), Some(&two));
        let version = "1.0.0".parse().unwrap();
        assert_eq!(history.unrecorded(&version, &three), None);
        fixture.image(3, Some("stage")).await;
        let history = fixture.history("stage").await;
        assert_eq!(history.unrecorded(&version, &two).map(Tag::as_str), Some("stage"));
        assert_eq!(history.unrecorded(&version, &three), None);
    }
}
