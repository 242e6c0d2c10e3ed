use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Artifact, artifact_type, attest, predicate_type, statement};
use crate::oci::{Class, Descriptor, Digest, Manifest, Store, StoreError, annotation, read_blob};

/// The largest record that is read, in bytes.
const LIMIT: u64 = 1024 * 1024;

/// Annotations of a record's manifest, so that a list of referrers tells what it is about.
mod label {
    pub(super) const KIND: &str = "io.github.image-lifecycle.record.kind";
    pub(super) const ENVIRONMENT: &str = "io.github.image-lifecycle.record.environment";
    pub(super) const TO: &str = "io.github.image-lifecycle.record.to";
    pub(super) const VERSION: &str = "io.github.image-lifecycle.record.version";
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RecordKind {
    /// A build came into its first environment.
    Publish,
    /// A digest moved up the ladder.
    Promote,
    /// A digest that was in the environment before came back.
    Rollback,
}

/// Who put which digest where, when and why: the predicate of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// What happened.
    pub kind: RecordKind,
    /// The environment that it happened to.
    pub environment: String,
    /// Where the image came from; none for a build.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// The reference that it got.
    pub to: String,
    /// The image.
    pub digest: Digest,
    /// What the reference pointed to before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replaced: Option<Digest>,
    /// The version, as the deployment names it.
    pub version: String,
    /// SHA-256 of the template whose names were used, hexadecimal.
    pub template: String,
    /// The repository that did it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub repository: Option<String>,
    /// The commit that it was at.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commit: Option<String>,
    /// The address of the run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub run: Option<String>,
    /// Who started the run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub actor: Option<String>,
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// The gates that were asked for, with what they found.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub gates: Vec<Gate>,
    /// Why it was let through although a gate said no.
    #[serde(rename = "override", skip_serializing_if = "Option::is_none", default)]
    pub overridden: Option<String>,
}

/// A gate with what it found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// As it was asked for: `scan=high`.
    pub name: String,
    /// How it ended.
    pub status: GateStatus,
    /// A sentence: what was found and what was wanted.
    pub detail: String,
}

/// How a gate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GateStatus {
    /// It lets the image through.
    Passed,
    /// It does not, or could not decide.
    Blocked,
    /// It would not have, and was overridden.
    Overridden,
}

/// A record that was found in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// What it says.
    pub record: Record,
    /// The referrer.
    pub digest: Digest,
}

impl Record {
    /// The record as a referrer of the image.
    ///
    /// # Errors
    /// When it would be over the limit.
    pub fn artifact(&self, subject: &Descriptor) -> Result<Artifact, StoreError> {
        let predicate = serde_json::to_value(self)
            .map_err(|error| StoreError::new(Class::Invalid, "the record can't be written").because(error))?;
        let name = self.to.rsplit_once(':').map_or(self.to.as_str(), |(repository, _)| repository);
        let statement = statement(name, &self.digest, predicate_type::RECORD, predicate);
        let kind = match self.kind {
            RecordKind::Publish => "publish",
            RecordKind::Promote => "promote",
            RecordKind::Rollback => "rollback",
        };
        let labels = [
            (label::KIND, kind),
            (label::ENVIRONMENT, &self.environment),
            (label::TO, &self.to),
            (label::VERSION, &self.version),
        ];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        attest(subject, &statement, BTreeMap::from(labels), &self.time)
    }

    /// Whether another record says that the same digest has the same name for the same version: then this one
    /// would add nothing.
    pub fn repeats(&self, other: &Self) -> bool {
        (self.environment == other.environment)
            && self.to == other.to
            && self.digest == other.digest
            && self.version == other.version
            && self.kind == other.kind
    }
}

impl Recorded {
    /// The records of an image, the newest first.
    ///
    /// # Errors
    /// When the store can't say, or a record can't be read. A record that speaks of another digest is none of this
    /// image and is left out: anybody can attach anything.
    pub async fn all(store: &Arc<dyn Store>, image: &Digest) -> Result<Vec<Self>, StoreError> {
        let mut records = Vec::new();
        for referrer in store.referrers(image).await? {
            let is_statement = referrer.artifact_type.as_deref() == Some(artifact_type::IN_TOTO);
            let named = referrer.annotations.get(annotation::PREDICATE_TYPE);
            if !is_statement || named.is_some_and(|named| named != predicate_type::RECORD) {
                continue;
            }
            let Some(manifest) = store.manifest(&referrer.digest).await? else { continue };
            if let Some(record) = Self::read(store, &manifest, image).await? {
                records.push(Self { record, digest: manifest.digest });
            }
        }
        records.sort_by(|a, b| (&b.record.time, &b.digest).cmp(&(&a.record.time, &a.digest)));
        Ok(records)
    }

    async fn read(store: &Arc<dyn Store>, manifest: &Manifest, image: &Digest) -> Result<Option<Record>, StoreError> {
        if manifest.annotations.get(annotation::PREDICATE_TYPE).map(String::as_str) != Some(predicate_type::RECORD) {
            return Ok(None);
        }
        let Some(layer) = manifest.blobs().nth(1) else { return Ok(None) };
        let bytes = read_blob(store.as_ref(), layer, LIMIT).await?;
        let Ok(statement) = serde_json::from_slice::<serde_json::Value>(&bytes) else { return Ok(None) };
        let subject = statement.pointer("/subject/0/digest/sha256").and_then(|hex| hex.as_str());
        if subject != Some(image.hex().as_str()) || statement["predicateType"] != predicate_type::RECORD {
            return Ok(None);
        }
        let record: Option<Record> = serde_json::from_value(statement["predicate"].clone()).ok();
        Ok(record.filter(|record| record.digest == *image))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{BlobSource, Layout, media_type};

    fn record(digest: &Digest, time: &str) -> Record {
        Record {
            kind: RecordKind::Publish,
            environment: "dev".into(),
            from: None,
            to: "h.example/app:dev-1.0.0".into(),
            digest: digest.clone(),
            replaced: None,
            version: "1.0.0".into(),
            template: "00".into(),
            repository: Some("owner/name".into()),
            commit: None,
            run: None,
            actor: None,
            time: time.into(),
            gates: vec![Gate { name: "lint".into(), status: GateStatus::Passed, detail: "no findings".into() }],
            overridden: None,
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
        for record in [&old, &new, &of_another] {
            let artifact = record.artifact(&image).unwrap();
            let manifest = artifact.manifest.clone();
            let source: Arc<dyn BlobSource> = Arc::new(artifact);
            crate::transfer::copy::artifact(&store, &manifest, &source).await.unwrap();
        }
        let found = Recorded::all(&store, &image.digest).await.unwrap();
        assert_eq!(found.iter().map(|found| &found.record).collect::<Vec<_>>(), [&new, &old]);
        assert!(old.repeats(&Record { time: "later".into(), ..old.clone() }));
        assert!(!old.repeats(&new));
    }
}
