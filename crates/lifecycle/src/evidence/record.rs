use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::decode::{Document, Statement};
use super::{Artifact, artifact_type, attest, predicate_type, statement};
use oci::{Descriptor, Digest, ErrorKind, Manifest, Store, StoreError, annotation, read_blob};

/// The largest record that is read, in bytes.
const LIMIT: u64 = 1024 * 1024;

/// The most records of one digest. A digest gets one each time it arrives in an environment. More are an error: if some
/// were ignored, somebody could hide a record by attaching many others.
const RECORDS: usize = 200;

/// How far the clock of the machine that wrote a record may be ahead of this one's.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// How many records are read concurrently.
const READERS: usize = 8;

/// Annotations of a record's manifest, by which a list of referrers shows what the record is about.
mod record_annotation {
    use oci::annotation_key;

    pub(super) const KIND: &str = annotation_key!("record.kind");
    pub(super) const ENVIRONMENT: &str = annotation_key!("record.environment");
    pub(super) const TO: &str = annotation_key!("record.to");
    pub(super) const VERSION: &str = annotation_key!("record.version");
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RecordKind {
    /// A build was published to its first environment.
    Publish,
    /// A digest was promoted to the next environment.
    Promote,
    /// A digest that the environment held before was restored.
    Rollback,
}

impl RecordKind {
    /// Returns the name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Promote => "promote",
            Self::Rollback => "rollback",
        }
    }
}

/// Who put which digest where, when and why: the predicate of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// What happened.
    pub kind: RecordKind,
    /// The target environment.
    pub environment: String,
    /// The reference that the image was copied from; none for a publication.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// The reference that the image was written to.
    pub to: String,
    /// The digest of the image.
    pub digest: Digest,
    /// The digest that the environment held before, if known and different.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replaced: Option<Digest>,
    /// Earlier records of the same name, digest and version whose runs ended before they wrote the tag, so that what
    /// they record did not happen.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub supersedes: Vec<Digest>,
    /// The version that was delivered.
    pub version: String,
    /// The SHA-256 of the template that the names came from, in hexadecimal.
    pub template: String,
    /// The repository of the run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub repository: Option<String>,
    /// The commit that the image was built from, if its provenance or its labels name it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image_commit: Option<String>,
    /// The commit of the run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub run_commit: Option<String>,
    /// The address of the run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub run: Option<String>,
    /// Who started the run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub actor: Option<String>,
    /// When it happened, as formatted by [`clock::now_millis`](crate::clock::now_millis), because two records can fall
    /// into one second.
    pub time: String,
    /// The requested gates, with their results.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub gates: Vec<GateResult>,
    /// The reason for overriding a gate.
    #[serde(rename = "override", skip_serializing_if = "Option::is_none", default)]
    pub overridden: Option<String>,
    /// The reason for lifting the hold that a rollback left.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lifted_hold: Option<String>,
}

/// The result of a gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateResult {
    /// The gate as requested: `scan=high`.
    pub name: String,
    /// The status.
    pub status: GateStatus,
    /// A sentence: what was found, and what is required.
    pub detail: String,
}

/// The status of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GateStatus {
    /// The gate lets the image pass.
    Passed,
    /// The gate blocks the image, or could not decide.
    Blocked,
    /// The gate would block the image, but was overridden.
    Overridden,
}

impl GateStatus {
    /// Returns the name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Blocked => "blocked",
            Self::Overridden => "overridden",
        }
    }
}

/// A record that was found in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The content of the record.
    pub record: Record,
    /// The digest of the referrer that contains it.
    pub digest: Digest,
}

impl Record {
    /// Returns the record as a referrer of the image.
    ///
    /// # Errors
    /// If the manifest would exceed the size limit.
    pub fn artifact(&self, subject: &Descriptor) -> Result<Artifact, StoreError> {
        let predicate = serde_json::to_value(self)
            .map_err(|error| StoreError::new(ErrorKind::Invalid, "the record can't be written").because(error))?;
        let name = self.to.rsplit_once(':').map_or(self.to.as_str(), |(repository, _)| repository);
        let statement = statement(name, &self.digest, predicate_type::RECORD, predicate);
        let kind = match self.kind {
            RecordKind::Publish => "publish",
            RecordKind::Promote => "promote",
            RecordKind::Rollback => "rollback",
        };
        let labels = [
            (record_annotation::KIND, kind),
            (record_annotation::ENVIRONMENT, &self.environment),
            (record_annotation::TO, &self.to),
            (record_annotation::VERSION, &self.version),
        ];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        attest(subject, &statement, BTreeMap::from(labels), &self.time)
    }

    /// Returns whether another record says the same, apart from the time and the run: the same digest under the same
    /// name for the same version, with the same gate results. Then this record would add nothing.
    pub fn repeats(&self, other: &Self) -> bool {
        let decision = |record: &Self| -> Vec<(String, GateStatus)> {
            record.gates.iter().map(|gate| (gate.name.clone(), gate.status)).collect()
        };
        (self.environment == other.environment)
            && self.to == other.to
            && self.digest == other.digest
            && self.version == other.version
            && self.kind == other.kind
            && self.overridden == other.overridden
            && self.lifted_hold == other.lifted_hold
            && decision(self) == decision(other)
    }

    /// Returns when it happened, or `None` if the time cannot be parsed.
    pub fn at(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(&self.time, &Rfc3339).ok()
    }
}

impl Recorded {
    /// Returns the records of an image, newest first.
    ///
    /// Anybody can attach anything, so a record about another digest is left out. So is one whose time is missing, in
    /// the future, or different from that of its manifest.
    ///
    /// # Errors
    /// If a request fails, a record is listed but missing, or there are too many.
    pub async fn all(store: &Arc<dyn Store>, image: &Digest) -> Result<Vec<Self>, StoreError> {
        Self::with(store, image, |_| true).await
    }

    /// Returns the records of an image in one environment, newest first.
    ///
    /// # Errors
    /// If [`Recorded::all`] would fail.
    pub async fn of_environment(
        store: &Arc<dyn Store>,
        image: &Digest,
        environment: &str,
    ) -> Result<Vec<Self>, StoreError> {
        let labelled = |labels: &BTreeMap<String, String>| {
            labels.get(record_annotation::ENVIRONMENT).is_none_or(|labelled| labelled == environment)
        };
        let mut records = Self::with(store, image, labelled).await?;
        records.retain(|found| found.record.environment == environment);
        Ok(records)
    }

    /// Returns the records whose annotations are `wanted`, as far as the list of referrers shows annotations.
    async fn with(
        store: &Arc<dyn Store>,
        image: &Digest,
        wanted: impl Fn(&BTreeMap<String, String>) -> bool,
    ) -> Result<Vec<Self>, StoreError> {
        let mut referrers: Vec<Descriptor> = store.referrers(image).await?;
        referrers.retain(|referrer| {
            let is_statement = referrer.artifact_type.as_deref().is_none_or(|kind| kind == artifact_type::IN_TOTO);
            let named = referrer.annotations.get(annotation::PREDICATE_TYPE);
            is_statement && named.is_none_or(|named| named == predicate_type::RECORD) && wanted(&referrer.annotations)
        });
        if referrers.len() > RECORDS {
            let message = format!("{} has more than {RECORDS} records of {image}", store.address());
            return Err(StoreError::new(ErrorKind::Invalid, message).hint("delete those that are no longer needed"));
        }
        let fetches: Vec<_> = referrers.iter().map(|referrer| Self::fetch(store, &referrer.digest, image)).collect();
        let found: Vec<Option<(OffsetDateTime, Self)>> = stream::iter(fetches).buffered(READERS).try_collect().await?;
        let mut found: Vec<(OffsetDateTime, Self)> = found.into_iter().flatten().collect();
        found.sort_by(|(a, one), (b, other)| (b, &other.digest).cmp(&(a, &one.digest)));
        Ok(found.into_iter().map(|(_, recorded)| recorded).collect())
    }

    async fn fetch(
        store: &Arc<dyn Store>,
        referrer: &Digest,
        image: &Digest,
    ) -> Result<Option<(OffsetDateTime, Self)>, StoreError> {
        let missing = || {
            let message =
                format!("{} lists {referrer} as a possible record of {image}, but does not have it", store.address());
            StoreError::new(ErrorKind::NotFound, message).hint("take it out of the list, or push it again")
        };
        let manifest = store.manifest(referrer).await?.ok_or_else(missing)?;
        let record = Self::read(store, &manifest, image).await?;
        let created = manifest.annotations.get(annotation::CREATED);
        let created = created.and_then(|created| OffsetDateTime::parse(created, &Rfc3339).ok());
        let counts = |at: &OffsetDateTime| created == Some(*at) && *at <= OffsetDateTime::now_utc() + CLOCK_SKEW;
        let timed = record.and_then(|record| Some((record.at().filter(counts)?, record)));
        Ok(timed.map(|(at, record)| (at, Self { record, digest: manifest.digest })))
    }

    async fn read(store: &Arc<dyn Store>, manifest: &Manifest, image: &Digest) -> Result<Option<Record>, StoreError> {
        if manifest.annotations.get(annotation::PREDICATE_TYPE).map(String::as_str) != Some(predicate_type::RECORD) {
            return Ok(None);
        }
        let Some(layer) = manifest.blobs().nth(1).filter(|layer| layer.size <= LIMIT) else { return Ok(None) };
        let bytes = read_blob(store.as_ref(), layer, LIMIT).await?;
        let Ok(statement) = Statement::read(&bytes) else { return Ok(None) };
        if !statement.is_about(image) || statement.predicate_type() != Some(predicate_type::RECORD) {
            return Ok(None);
        }
        let record: Option<Record> = Document { bytes: &bytes, is_statement: true }.parse().ok();
        Ok(record.filter(|record| record.digest == *image))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::{BlobSource, Layout, media_type};

    fn record(digest: &Digest, time: &str) -> Record {
        Record {
            kind: RecordKind::Publish,
            environment: "dev".into(),
            from: None,
            to: "h.example/app:dev-1.0.0".into(),
            digest: digest.clone(),
            replaced: None,
            supersedes: Vec::new(),
            version: "1.0.0".into(),
            template: "00".into(),
            repository: Some("owner/name".into()),
            image_commit: None,
            run_commit: None,
            run: None,
            actor: None,
            time: time.into(),
            gates: vec![GateResult { name: "lint".into(), status: GateStatus::Passed, detail: "no findings".into() }],
            overridden: None,
            lifted_hold: None,
        }
    }

    #[tokio::test]
    async fn records_are_found_newest_first_and_only_those_of_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Layout::at(folder.path()));
        let image = Descriptor::of(media_type::IMAGE, b"image");
        let old = record(&image.digest, "2026-01-01T00:00:00Z");
        let new = Record { version: "1.0.1".into(), time: "2026-01-02T00:00:00Z".into(), ..old.clone() };
        let of_another = record(&Digest::of(b"another"), "2026-01-03T00:00:00Z");
        let without_time = Record { time: "soon".into(), ..old.clone() };
        let later = Record { environment: "test".into(), time: "2026-01-02T00:00:00.250Z".into(), ..new.clone() };
        for record in [&old, &new, &of_another, &without_time, &later] {
            attach(&store, record.artifact(&image).unwrap()).await;
        }
        let found = Recorded::all(&store, &image.digest).await.unwrap();
        assert_eq!(found.iter().map(|found| &found.record).collect::<Vec<_>>(), [&later, &new, &old]);
        let found = Recorded::of_environment(&store, &image.digest, "dev").await.unwrap();
        assert_eq!(found.iter().map(|found| &found.record).collect::<Vec<_>>(), [&new, &old]);
        assert!(old.repeats(&Record { time: "later".into(), ..old.clone() }));
        assert!(!old.repeats(&new));
        assert!(!old.repeats(&Record { overridden: Some("the shop is down".into()), ..old.clone() }));
        assert!(!old.repeats(&Record { gates: Vec::new(), ..old.clone() }));
    }
    async fn attach(store: &Arc<dyn Store>, artifact: Artifact) {
        let manifest = artifact.manifest.clone();
        let source: Arc<dyn BlobSource> = Arc::new(artifact);
        oci::transfer::copy::artifact(store, &manifest, &source).await.unwrap();
    }

    #[tokio::test]
    async fn a_record_with_a_wrong_time_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Layout::at(folder.path()));
        let image = Descriptor::of(media_type::IMAGE, b"image");
        let tomorrow = (OffsetDateTime::now_utc() + time::Duration::days(1)).format(&Rfc3339).unwrap();
        attach(&store, record(&image.digest, &tomorrow).artifact(&image).unwrap()).await;
        // The time in the manifest's annotation differs from that in the record.
        let old = record(&image.digest, "2025-01-01T00:00:00Z");
        let predicate = serde_json::to_value(&old).unwrap();
        let said = statement("app", &image.digest, predicate_type::RECORD, predicate);
        attach(&store, attest(&image, &said, BTreeMap::new(), "2026-01-01T00:00:00Z").unwrap()).await;
        assert_eq!(Recorded::all(&store, &image.digest).await.unwrap(), []);
        attach(&store, old.artifact(&image).unwrap()).await;
        assert_eq!(Recorded::all(&store, &image.digest).await.unwrap()[0].record, old);
    }

    #[tokio::test]
    async fn too_many_records_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::at(folder.path());
        let image = Descriptor::of(media_type::IMAGE, b"image");
        record(&image.digest, "2025-01-01T00:00:00Z").artifact(&image).unwrap().add_to(&layout).unwrap();
        let store: Arc<dyn Store> = Arc::new(layout.clone());
        for number in 0..RECORDS {
            let time = format!("2026-01-01T00:{:02}:{:02}Z", number / 60, number % 60);
            record(&image.digest, &time).artifact(&image).unwrap().add_to(&layout).unwrap();
        }
        let error = Recorded::all(&store, &image.digest).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(error.to_string().contains("more than 200 records"), "{error}");
    }
}
