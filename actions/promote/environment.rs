//! What an environment holds and has held of an image, as the records in its registry tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use cfn_images::{NamePattern, VersionPosition};
use lifecycle::evidence::{Record, Recorded};
use lifecycle::project::{Named, Version};
use oci::{Digest, ErrorKind, Location, Reference, Store, StoreError, Tag, listed_tag};

/// Versions of an environment that are looked at, the highest; beside them the one that it is about. Each takes some
/// requests.
const HIGHEST: usize = 100;

/// Versions of an environment that a rollback looks at. With more nothing is decided: what is current may be among those
/// that were left out.
const ALL: usize = 1000;

/// Requests to one repository at a time.
const READERS: usize = 16;

/// How much of an environment is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The highest versions, or the newest digests of a tag that moves. What went back further than that is not seen.
    Highest,
    /// All of them, for who goes back: an error where there are too many.
    All,
}

/// How an environment names its images: a reference with the version that it was made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Naming<'a> {
    pub(crate) environment: &'a str,
    pub(crate) reference: &'a Reference,
    pub(crate) pattern: &'a NamePattern,
    pub(crate) version: &'a Version,
}

/// The time that an image was, or is, in an environment under a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HistoryEntry {
    pub(crate) tag: Tag,
    pub(crate) version: Version,
    pub(crate) digest: Digest,
    /// What began it.
    pub(crate) record: Record,
    /// The referrer that holds the record.
    referrer: Digest,
}

/// What an environment holds and has held.
#[derive(Debug, Clone, Default)]
pub(crate) struct EnvironmentHistory {
    /// The newest first. Each counts: its tag points to its digest, or did until the next one replaced it.
    pub(crate) stays: Vec<HistoryEntry>,
    /// What the tags of the environment point to.
    tags: BTreeMap<Tag, Digest>,
    /// Those of which no record tells, with the version in them.
    unrecorded: Vec<(Tag, Option<Version>)>,
    /// Versions that have a tag, and were not looked at; the highest first.
    left_out: Vec<Version>,
}

impl<'a> Naming<'a> {
    /// How an environment names an image for a version.
    pub(crate) fn of(environment: &'a str, named: &'a Named, version: &'a Version) -> Self {
        Self { environment, reference: &named.reference, pattern: &named.pattern, version }
    }

    /// Whether a record tells of a tag of this repository.
    pub(crate) fn tells_of(&self, record: &Record, tag: &Tag) -> bool {
        tells_of(record, &self.reference.with_tag(tag.clone()))
    }

    /// Whether a record is of this version.
    pub(crate) fn is_of_version(&self, record: &Record) -> bool {
        record.version == self.version.to_string()
    }

    fn stay(&self, recorded: Recorded, tag: &Tag) -> Option<HistoryEntry> {
        let Recorded { record, digest: referrer } = recorded;
        let version = record.version.parse().ok()?;
        let digest = record.digest.clone();
        self.tells_of(&record, tag).then(|| HistoryEntry { tag: tag.clone(), version, digest, record, referrer })
    }
}

/// Whether a record tells of a reference. A store on disk may have been moved since.
pub(crate) fn tells_of(record: &Record, reference: &Reference) -> bool {
    match &reference.location {
        Location::Host(_) => record.to == reference.to_string(),
        Location::Directory(_) => {
            record.to.starts_with("oci:")
                && record.to.ends_with(&format!("/{}:{}", reference.repository, reference.tag))
        }
    }
}

impl EnvironmentHistory {
    /// Looks at an environment. `known` are tags that were looked up before.
    ///
    /// # Errors
    /// When the store can't say, the names don't tell its versions apart, or all are to be looked at and there are too many.
    pub(crate) async fn read(
        store: &Arc<dyn Store>,
        naming: Naming<'_>,
        known: &BTreeMap<Tag, Option<Digest>>,
        depth: Depth,
    ) -> Result<Self, StoreError> {
        let unsupported = |why: &str| {
            let message = format!("the versions of `{}` can't be told apart: {why}", naming.reference);
            StoreError::new(ErrorKind::Unsupported, message)
        };
        match naming.pattern.version_position() {
            VersionPosition::Tag => Self::of_versions(store, naming, known, depth).await,
            VersionPosition::Nowhere => Self::of_tag(store, naming, known, depth).await,
            // No registry has a list of them.
            VersionPosition::Repository => {
                let message = format!("each version of `{}` has a repository of its own", naming.reference);
                Err(StoreError::new(ErrorKind::Unsupported, message))
            }
            VersionPosition::Altered => {
                Err(unsupported("the name holds the version in another spelling, or only a part of it")
                    .hint("put the whole version into the tag, as in `{environment}-{version}`"))
            }
            VersionPosition::Condition => Err(unsupported("a condition on the version decides its name")),
        }
    }

    /// Every version has its tag.
    async fn of_versions(
        store: &Arc<dyn Store>,
        naming: Naming<'_>,
        known: &BTreeMap<Tag, Option<Digest>>,
        depth: Depth,
    ) -> Result<Self, StoreError> {
        let pattern = naming.pattern;
        let tags = store.tags().await?.into_iter();
        let mut versions: Vec<(Version, Tag)> = tags.filter_map(|tag| Some((pattern.version_of(&tag)?, tag))).collect();
        versions.sort_by(|a, b| b.cmp(a));
        if depth == Depth::All && versions.len() > ALL {
            return Err(too_many(store.as_ref(), &format!("{} versions in {}", versions.len(), naming.environment)));
        }
        let further = versions.split_off(versions.len().min(depth.limit()));
        let (asked, left_out): (Vec<_>, Vec<_>) =
            further.into_iter().partition(|(_, tag)| *tag == naming.reference.tag);
        versions.extend(asked);
        let left_out = left_out.into_iter().map(|(version, _)| version).collect();
        let heads = versions.into_iter().map(|(_, tag)| async {
            match known.get(&tag) {
                Some(Some(digest)) => Ok((tag, digest.clone())),
                // It is listed: that it was not there a moment ago, or is not now, is no answer.
                Some(None) | None => listed_tag(store.as_ref(), &tag).await,
            }
        });
        let heads: Vec<_> = heads.collect();
        let tags: Vec<(Tag, Digest)> = stream::iter(heads).buffered(READERS).try_collect().await?;
        let tags: BTreeMap<Tag, Digest> = tags.into_iter().collect();
        let digests: BTreeSet<&Digest> = tags.values().collect();
        let records: Vec<_> = digests.into_iter().map(|digest| records(store, digest, naming.environment)).collect();
        let records: Vec<(Digest, Vec<Recorded>)> = stream::iter(records).buffered(READERS).try_collect().await?;
        let records: BTreeMap<Digest, Vec<Recorded>> = records.into_iter().collect();
        let mut stays = Vec::new();
        for (tag, digest) in &tags {
            let of_digest = records.get(digest).map(Vec::as_slice).unwrap_or_default();
            stays.extend(of_digest.iter().filter_map(|recorded| naming.stay(recorded.clone(), tag)));
        }
        let is_recorded = |tag: &Tag| stays.iter().any(|stay| stay.tag == *tag);
        let unrecorded = tags.keys().filter(|tag| !is_recorded(tag));
        let unrecorded = unrecorded.map(|tag| (tag.clone(), pattern.version_of(tag))).collect();
        Ok(Self { stays: newest_first(stays), tags, unrecorded, left_out })
    }

    /// One tag moves from version to version: each record says what it replaced.
    async fn of_tag(
        store: &Arc<dyn Store>,
        naming: Naming<'_>,
        known: &BTreeMap<Tag, Option<Digest>>,
        depth: Depth,
    ) -> Result<Self, StoreError> {
        let tag = &naming.reference.tag;
        let held = match known.get(tag) {
            Some(known) => known.clone(),
            None => store.head(tag).await?,
        };
        let Some(held) = held else { return Ok(Self::default()) };
        let mut stays = Vec::new();
        let mut seen = BTreeSet::from([held.clone()]);
        let mut next = vec![held.clone()];
        while let Some(digest) = next.pop() {
            for recorded in Recorded::of_environment(store, &digest, naming.environment).await? {
                if let Some(stay) = naming.stay(recorded, tag) {
                    let replaced = stay.record.replaced.clone().filter(|replaced| seen.insert(replaced.clone()));
                    next.extend(replaced.filter(|_| seen.len() <= depth.limit()));
                    stays.push(stay);
                }
            }
        }
        if depth == Depth::All && seen.len() > ALL {
            return Err(too_many(store.as_ref(), &format!("{ALL} digests that `{tag}` has held")));
        }
        // A record from before its tag was written counts for nothing: that tag never came.
        let stays: Vec<HistoryEntry> = newest_first(stays).into_iter().skip_while(|stay| stay.digest != held).collect();
        let unrecorded = if stays.is_empty() { vec![(tag.clone(), None)] } else { Vec::new() };
        Ok(Self { stays, tags: BTreeMap::from([(tag.clone(), held)]), unrecorded, left_out: Vec::new() })
    }

    /// How many versions were not looked at.
    pub(crate) fn left_out(&self) -> usize {
        self.left_out.len()
    }

    /// Whether one of those is above a version.
    pub(crate) fn leaves_out_above(&self, version: &Version) -> bool {
        self.left_out.first().is_some_and(|highest| highest > version)
    }

    /// What the environment holds now, as far as was looked.
    pub(crate) fn current(&self) -> Option<&HistoryEntry> {
        self.stays.first()
    }

    /// A tag of a version above, or of one that can't be told, of which no record tells; one that moves and holds the
    /// digest already is none.
    pub(crate) fn unrecorded(&self, version: &Version, digest: &Digest) -> Option<&Tag> {
        let may_be_above = |(tag, of): &&(Tag, Option<Version>)| match of {
            Some(of) => of > version,
            None => self.tags.get(tag) != Some(digest),
        };
        self.unrecorded.iter().find(may_be_above).map(|(tag, _)| tag)
    }

    /// What the version of a digest in this environment is, by its newest record, else by the tags that it has.
    pub(crate) fn version_of(&self, digest: &Digest, naming: Naming<'_>) -> Option<Version> {
        let recorded = self.stays.iter().find(|stay| stay.digest == *digest).map(|stay| stay.version.clone());
        let tagged = || {
            let tags = self.tags.iter().filter(|(_, held)| *held == digest);
            tags.filter_map(|(tag, _)| naming.pattern.version_of(tag)).max()
        };
        recorded.or_else(tagged)
    }
}

impl Depth {
    fn limit(self) -> usize {
        match self {
            Self::Highest => HIGHEST,
            Self::All => ALL,
        }
    }
}

fn too_many(store: &dyn Store, what: &str) -> StoreError {
    let message = format!("{} has {what}, and {ALL} are looked at", store.address());
    StoreError::new(ErrorKind::Invalid, message).hint("let a lifecycle policy expire old ones")
}

async fn records(
    store: &Arc<dyn Store>,
    digest: &Digest,
    environment: &str,
) -> Result<(Digest, Vec<Recorded>), StoreError> {
    Ok((digest.clone(), Recorded::of_environment(store, digest, environment).await?))
}

/// Orders stays by their records' times. Of two records of one moment the higher version is taken for the later one. Those
/// that a record of the same tag and digest supersedes never began.
fn newest_first(mut stays: Vec<HistoryEntry>) -> Vec<HistoryEntry> {
    let superseded: BTreeSet<(Tag, Digest)> = stays
        .iter()
        .flat_map(|stay| stay.record.supersedes.iter().map(|referrer| (stay.tag.clone(), referrer.clone())))
        .collect();
    stays.retain(|stay| !superseded.contains(&(stay.tag.clone(), stay.referrer.clone())));
    stays.sort_by(|a, b| (b.record.at(), &b.version).cmp(&(a.record.at(), &a.version)));
    stays
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
        _folder: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { store: Arc::new(Layout::at(folder.path())), _folder: folder }
        }

        async fn image(&self, number: u8, tag: Option<&str>) -> Digest {
            let config = serde_json::json!({"mediaType": media_type::EMPTY, "digest": Digest::of(b"{}"), "size": 2});
            let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::IMAGE, "config": config,
                "layers": [], "annotations": {"number": number.to_string()}});
            let manifest = Manifest::parse(manifest.to_string().into(), None).unwrap();
            Layout::at(self._folder.path()).add_blob(b"{}").unwrap();
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
                commit: None,
                run: None,
                actor: None,
                time: format!("2026-01-01T00:00:{second:02}Z"),
                gates: Vec::new(),
                overridden: None,
            };
            let subject = self.store.manifest(digest).await.unwrap().unwrap().descriptor();
            let artifact = record.artifact(&subject).unwrap();
            let manifest = artifact.manifest.clone();
            let source: Arc<dyn BlobSource> = Arc::new(artifact);
            copy::artifact(&self.store, &manifest, &source).await.unwrap();
        }

        async fn held(&self, tag: &str) -> EnvironmentHistory {
            let reference: Reference = Reference::parse(&format!("oci:/store/app:{tag}"), Some("oci:/store")).unwrap();
            // Where the version is written out in what was typed, it is the version.
            let version = Version::new(1, 0, 0);
            let pattern = NamePattern::of(&TracedText::fill(&reference.to_string(), Some("prod"), Some(&version), &[]));
            let naming = Naming { environment: "prod", reference: &reference, pattern: &pattern, version: &version };
            EnvironmentHistory::read(&self.store, naming, &BTreeMap::new(), Depth::Highest).await.unwrap()
        }
    }

    fn versions(held: &EnvironmentHistory) -> Vec<String> {
        held.stays.iter().map(|stay| stay.version.to_string()).collect()
    }

    #[tokio::test]
    async fn the_newest_record_whose_tag_holds_its_digest_is_current() {
        let fixture = Fixture::new();
        let one = fixture.image(1, Some("prod-1.0.0")).await;
        let two = fixture.image(2, Some("prod-1.1.0")).await;
        let three = fixture.image(3, None).await;
        fixture.image(4, Some("prod-1.3.0")).await;
        fixture.record("prod-1.0.0", "1.0.0", &one, None, 1).await;
        fixture.record("prod-1.1.0", "1.1.0", &two, Some(&one), 2).await;
        // Its tag was never written, and that of the fourth holds something else.
        fixture.record("prod-1.2.0", "1.2.0", &three, None, 3).await;
        fixture.record("prod-1.3.0", "1.3.0", &three, None, 4).await;
        fixture.record("test-1.1.0", "1.1.0", &two, None, 5).await;
        assert_eq!(versions(&fixture.held("prod-1.0.0").await), ["1.1.0", "1.0.0"]);
        // A rollback writes no tag: its record makes the older version the current one.
        fixture.record("prod-1.0.0", "1.0.0", &one, Some(&two), 6).await;
        assert_eq!(versions(&fixture.held("prod-1.0.0").await), ["1.0.0", "1.1.0", "1.0.0"]);
        assert_eq!(versions(&fixture.held("stage-1.0.0").await), [""; 0]);
        // The fourth tag is there, and nobody knows since when.
        let unrecorded = async |version: &str| {
            let held = fixture.held("prod-1.0.0").await;
            held.unrecorded(&version.parse().unwrap(), &one).map(ToString::to_string)
        };
        assert_eq!(unrecorded("1.2.0").await.as_deref(), Some("prod-1.3.0"));
        assert_eq!(unrecorded("1.3.0").await, None);
    }

    #[tokio::test]
    async fn what_was_left_out_is_known() {
        let fixture = Fixture::new();
        let asked = fixture.image(0, Some("prod-1.0.0")).await;
        fixture.record("prod-1.0.0", "1.0.0", &asked, None, 9).await;
        let one = fixture.image(1, None).await;
        for minor in 0..=u8::try_from(HIGHEST).unwrap() {
            let (tag, version) = (format!("prod-2.{minor}.0"), format!("2.{minor}.0"));
            fixture.image(1, Some(&tag)).await;
            if minor % 10 == 0 {
                fixture.record(&tag, &version, &one, None, 1).await;
            }
        }
        let held = fixture.held("prod-1.0.0").await;
        assert_eq!(held.current().map(|stay| &stay.digest), Some(&asked));
        assert_eq!(held.left_out(), 1);
        let above = |version: &str| held.leaves_out_above(&version.parse().unwrap());
        assert!(above("1.0.0") && !above("2.0.0"));
    }

    #[tokio::test]
    async fn a_tag_that_moves_leads_back_through_what_it_replaced() {
        let fixture = Fixture::new();
        let one = fixture.image(1, None).await;
        let two = fixture.image(2, Some("prod")).await;
        let three = fixture.image(3, None).await;
        fixture.record("prod", "1.0.0", &one, None, 1).await;
        fixture.record("prod", "1.1.0", &two, Some(&one), 2).await;
        // Both were killed before they wrote the tag.
        fixture.record("prod", "1.2.0", &three, Some(&two), 3).await;
        fixture.record("prod", "1.0.0", &one, Some(&two), 4).await;
        let held = fixture.held("prod").await;
        assert_eq!(versions(&held), ["1.1.0", "1.0.0"]);
        assert_eq!(held.current().map(|stay| &stay.digest), Some(&two));
        let version = "1.0.0".parse().unwrap();
        assert_eq!(held.unrecorded(&version, &three), None);
        fixture.image(3, Some("stage")).await;
        let held = fixture.held("stage").await;
        assert_eq!(held.unrecorded(&version, &two).map(Tag::as_str), Some("stage"));
        assert_eq!(held.unrecorded(&version, &three), None);
    }
}
