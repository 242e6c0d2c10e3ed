use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;

use oci::{
    BlobSource, BlobStream, Descriptor, Digest, ErrorKind, Layout, Location, Manifest, RepositoryName, StoreError,
    annotation, media_type,
};

/// A new referrer: a manifest with one layer, and the bytes of both.
///
/// The same content has the same digest, because only the caller can put a time into it.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The manifest, with its subject.
    pub manifest: Manifest,
    blobs: HashMap<Digest, Bytes>,
}

/// The content of a referrer, before it has a subject.
pub struct Payload<'a> {
    /// The referrer's `artifactType`.
    pub artifact_type: &'a str,
    /// The media type of the layer.
    pub media_type: &'a str,
    /// The bytes of the layer.
    pub bytes: Vec<u8>,
    /// The annotations of the layer.
    pub layer_annotations: BTreeMap<String, String>,
    /// The annotations of the manifest, which lists of referrers show.
    pub annotations: BTreeMap<String, String>,
}

impl Artifact {
    /// Creates a referrer of a subject, as the
    /// [specification](https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md#guidelines-for-artifact-usage)
    /// recommends.
    ///
    /// # Errors
    /// If the manifest would exceed the size limit.
    pub fn new(subject: &Descriptor, payload: Payload<'_>) -> Result<Self, StoreError> {
        const EMPTY: &[u8] = b"{}";
        let config = Descriptor::of(media_type::EMPTY, EMPTY);
        let mut layer = Descriptor::of(payload.media_type, &payload.bytes);
        layer.annotations = payload.layer_annotations;
        let bare = Descriptor { platform: None, artifact_type: None, annotations: BTreeMap::new(), ..subject.clone() };
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media_type::IMAGE,
            "artifactType": payload.artifact_type,
            "config": config.to_json(),
            "layers": [layer.to_json()],
            "subject": bare.to_json(),
            "annotations": payload.annotations,
        });
        let manifest = Manifest::parse(manifest.to_string().into(), None)
            .map_err(|error| StoreError::new(ErrorKind::Invalid, "the evidence can't be written").because(error))?;
        let blobs = HashMap::from([(config.digest, Bytes::from_static(EMPTY)), (layer.digest, payload.bytes.into())]);
        Ok(Self { manifest, blobs })
    }

    /// Adds the referrer to a layout on disk.
    ///
    /// # Errors
    /// If the layout cannot be written.
    pub fn add_to(&self, layout: &Layout) -> Result<(), StoreError> {
        layout.add_root(&self.write_to(layout)?, None)
    }

    /// Writes the content of the referrer to a layout on disk, and returns the entry that the layout does not have yet.
    ///
    /// # Errors
    /// If the layout cannot be written.
    pub fn write_to(&self, layout: &Layout) -> Result<Descriptor, StoreError> {
        for bytes in self.blobs.values() {
            layout.add_blob(bytes)?;
        }
        layout.add_blob(&self.manifest.bytes)?;
        Ok(Descriptor { annotations: self.manifest.annotations.clone(), ..self.manifest.descriptor() })
    }
}

#[async_trait]
impl BlobSource for Artifact {
    fn origin(&self) -> Option<(&Location, &RepositoryName)> {
        None
    }

    async fn blob(&self, blob: &Descriptor) -> Result<BlobStream, StoreError> {
        let bytes = self.blobs.get(&blob.digest).cloned();
        let missing = || StoreError::new(ErrorKind::NotFound, format!("blob {} is not of this evidence", blob.digest));
        let bytes = bytes.ok_or_else(missing)?;
        Ok(Box::pin(stream::iter([Ok(bytes)])))
    }
}

/// Returns an [in-toto statement](https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md) about a
/// digest.
pub fn statement(name: &str, digest: &Digest, predicate_type: &str, predicate: serde_json::Value) -> serde_json::Value {
    serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": digest.hex()}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    })
}

/// Returns a statement as a referrer of its subject.
///
/// # Errors
/// If the manifest would exceed the size limit.
pub fn attest(
    subject: &Descriptor,
    statement: &serde_json::Value,
    mut annotations: BTreeMap<String, String>,
    created: &str,
) -> Result<Artifact, StoreError> {
    let predicate_type = statement["predicateType"].as_str().unwrap_or_default().to_owned();
    annotations.insert(annotation::CREATED.to_owned(), created.to_owned());
    annotations.insert(annotation::PREDICATE_TYPE.to_owned(), predicate_type.clone());
    Artifact::new(
        subject,
        Payload {
            artifact_type: super::artifact_type::IN_TOTO,
            media_type: super::artifact_type::IN_TOTO,
            bytes: statement.to_string().into_bytes(),
            layer_annotations: BTreeMap::from([(annotation::PREDICATE_TYPE.to_owned(), predicate_type)]),
            annotations,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_content_has_one_digest() {
        let subject = Descriptor::of(media_type::IMAGE, b"image");
        let statement = statement("app", &subject.digest, "https://example.com/p/v1", serde_json::json!({"a": 1}));
        let make = || attest(&subject, &statement, BTreeMap::new(), "2026-01-01T00:00:00Z").unwrap();
        let artifact = make();
        assert_eq!(artifact.manifest.digest, make().manifest.digest);
        assert_eq!(artifact.manifest.subject.as_ref().map(|s| &s.digest), Some(&subject.digest));
        assert_eq!(artifact.manifest.artifact_type.as_deref(), Some("application/vnd.in-toto+json"));
    }
}
