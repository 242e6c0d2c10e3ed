use std::collections::BTreeMap;

use bytes::Bytes;
use oci_spec::image as spec;

use super::{Digest, Platform};

/// ECR's own limit on a manifest, in bytes; the distribution specification asks for no more.
pub const MANIFEST_LIMIT: u64 = 4 * 1024 * 1024;

/// Media types that decide how bytes are read.
pub mod media_type {
    /// An image manifest.
    pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// Docker's image manifest.
    pub const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// The empty JSON object that stands for no configuration.
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";

    /// All that a manifest may be, as an `Accept` header lists them.
    pub const MANIFESTS: [&str; 4] = [IMAGE, INDEX, DOCKER_IMAGE, DOCKER_LIST];
}

/// Annotations that this project reads or writes.
pub mod annotation {
    /// The name of a root in a layout: the mapping key in what build writes, else a tag.
    pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
    /// The image's name in the mapping, which leads to its repository.
    pub const IMAGE_NAME: &str = "io.github.image-lifecycle.image-name";
    /// The reference that this image had in the release it is reused from.
    pub const REUSED_FROM: &str = "io.github.image-lifecycle.reused-from";
    /// When something was made, RFC 3339.
    pub const CREATED: &str = "org.opencontainers.image.created";
    /// What a BuildKit attestation manifest is, in an index.
    pub const DOCKER_REFERENCE_TYPE: &str = "vnd.docker.reference.type";
    /// The digest that a BuildKit attestation manifest speaks of.
    pub const DOCKER_REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
    /// The predicate type of an in-toto statement in a layer.
    pub const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
}

/// What points to content: its type, digest and size in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size of the content in bytes.
    pub size: u64,
    /// Platform, on a child of an index.
    pub platform: Option<Platform>,
    /// Type of the artifact, on a referrer.
    pub artifact_type: Option<String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A manifest or index: the bytes as they were received, and what they say.
///
/// The bytes are never encoded again, because the digest is over them.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The bytes as received.
    pub bytes: Bytes,
    /// The digest of `bytes`.
    pub digest: Digest,
    /// The type: what `mediaType` says, else what the sender said.
    pub media_type: String,
    /// What it consists of.
    pub content: Content,
    /// What this refers to, if it is a referrer.
    pub subject: Option<Descriptor>,
    /// The artifact's type: `artifactType`, else the configuration's media type.
    pub artifact_type: Option<String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The two kinds of manifest.
#[derive(Debug, Clone)]
pub enum Content {
    /// One image or artifact.
    Image {
        /// The configuration.
        config: Descriptor,
        /// The layers in order.
        layers: Vec<Descriptor>,
    },
    /// A list of manifests.
    Index {
        /// The children in order.
        manifests: Vec<Descriptor>,
    },
}

/// Bytes that are not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum InvalidManifest {
    /// Over [`MANIFEST_LIMIT`].
    #[error("manifest of {0} bytes is over the limit of {MANIFEST_LIMIT}")]
    TooLarge(u64),
    /// Not JSON of the shape that its type asks for.
    #[error("not a valid manifest")]
    Json(#[source] oci_spec::OciSpecError),
    /// JSON that another reader would read otherwise.
    #[error("not a manifest that all read alike")]
    Ambiguous(#[source] serde_json::Error),
    /// A type that this program does not know.
    #[error("media type `{0}` is neither an image manifest nor an index")]
    MediaType(String),
    /// A descriptor with a digest that is not SHA-256.
    #[error(transparent)]
    Digest(#[from] super::InvalidDigest),
}

impl Manifest {
    /// Reads a manifest. `media_type` is what the sender said it is; what the document itself says wins.
    ///
    /// # Errors
    /// When the bytes are over the limit, are no manifest, mean something else to other readers, or hold a digest that is not SHA-256.
    pub fn parse(bytes: Bytes, media_type: Option<&str>) -> Result<Self, InvalidManifest> {
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err(InvalidManifest::TooLarge(bytes.len() as u64));
        }
        let digest = Digest::of(&bytes);
        let said = DocumentType::of(&bytes)?;
        super::strict::check(&bytes).map_err(InvalidManifest::Ambiguous)?;
        let media_type = match (said.media_type, media_type) {
            (Some(said), _) => said,
            (None, Some(sent)) if media_type::MANIFESTS.contains(&sent) => sent.to_owned(),
            (None, _) if said.manifests.is_some() => media_type::INDEX.to_owned(),
            (None, _) => media_type::IMAGE.to_owned(),
        };
        let (content, subject, artifact_type, annotations) = match media_type.as_str() {
            media_type::INDEX | media_type::DOCKER_LIST => {
                let index = spec::ImageIndex::from_reader(&bytes[..]).map_err(InvalidManifest::Json)?;
                let manifests = index.manifests().iter().map(Descriptor::read).collect::<Result<_, _>>()?;
                let artifact_type = index.artifact_type().as_ref().map(ToString::to_string);
                (Content::Index { manifests }, index.subject().clone(), artifact_type, index.annotations().clone())
            }
            media_type::IMAGE | media_type::DOCKER_IMAGE => {
                let image = spec::ImageManifest::from_reader(&bytes[..]).map_err(InvalidManifest::Json)?;
                let config = Descriptor::read(image.config())?;
                let layers = image.layers().iter().map(Descriptor::read).collect::<Result<_, _>>()?;
                let artifact_type = image.artifact_type().as_ref().map(ToString::to_string);
                let artifact_type = artifact_type.or_else(|| Some(config.media_type.clone()));
                (Content::Image { config, layers }, image.subject().clone(), artifact_type, image.annotations().clone())
            }
            other => return Err(InvalidManifest::MediaType(other.to_owned())),
        };
        let subject = subject.as_ref().map(Descriptor::read).transpose()?;
        let annotations = annotations.unwrap_or_default().into_iter().collect();
        Ok(Self { bytes, digest, media_type, content, subject, artifact_type, annotations })
    }

    /// The descriptor that points to this manifest.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            size: self.bytes.len() as u64,
            platform: None,
            artifact_type: self.subject.as_ref().and(self.artifact_type.clone()),
            annotations: BTreeMap::new(),
        }
    }

    /// The manifests below an index; none below an image.
    pub fn children(&self) -> &[Descriptor] {
        match &self.content {
            Content::Index { manifests } => manifests,
            Content::Image { .. } => &[],
        }
    }

    /// The blobs of an image, configuration first; none of an index.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, layers) = match &self.content {
            Content::Image { config, layers } => (Some(config), layers.as_slice()),
            Content::Index { .. } => (None, [].as_slice()),
        };
        config.into_iter().chain(layers)
    }

    /// Whether this is an index.
    pub fn is_index(&self) -> bool {
        matches!(self.content, Content::Index { .. })
    }
}

impl Descriptor {
    /// What the specification's own descriptor says.
    pub(super) fn read(descriptor: &spec::Descriptor) -> Result<Self, super::InvalidDigest> {
        Ok(Self {
            media_type: descriptor.media_type().to_string(),
            digest: descriptor.digest().to_string().parse()?,
            size: descriptor.size(),
            platform: descriptor
                .platform()
                .as_ref()
                .map(|p| Platform::new(&p.os().to_string(), &p.architecture().to_string(), p.variant().as_deref())),
            artifact_type: descriptor.artifact_type().as_ref().map(ToString::to_string),
            annotations: descriptor.annotations().clone().unwrap_or_default().into_iter().collect(),
        })
    }

    /// Whether an index lists this as what a builder attests about its images, in BuildKit's words.
    pub fn is_attestation(&self) -> bool {
        let unknown = self
            .platform
            .as_ref()
            .is_some_and(|platform| platform.os == "unknown" && platform.architecture == "unknown");
        let kind = self.annotations.get(annotation::DOCKER_REFERENCE_TYPE);
        unknown && kind.is_some_and(|kind| kind == "attestation-manifest")
    }

    /// A descriptor of bytes at hand.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            platform: None,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }

    /// The JSON of this descriptor, members in the order of the specification.
    pub fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::json!({
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        });
        if let Some(platform) = &self.platform {
            json["platform"] = serde_json::json!({"architecture": platform.architecture, "os": platform.os});
            if let Some(variant) = &platform.variant {
                json["platform"]["variant"] = variant.as_str().into();
            }
        }
        if let Some(artifact_type) = &self.artifact_type {
            json["artifactType"] = artifact_type.as_str().into();
        }
        if !self.annotations.is_empty() {
            json["annotations"] = serde_json::json!(self.annotations);
        }
        json
    }
}

/// The two members that tell what a document is, before it is read whole.
#[derive(serde::Deserialize)]
struct DocumentType {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
}

impl DocumentType {
    fn of(bytes: &[u8]) -> Result<Self, InvalidManifest> {
        serde_json::from_slice(bytes).map_err(|error| InvalidManifest::Json(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn keeps_bytes_and_reads_both_kinds() {
        let text = format!(
            r#"{{ "schemaVersion": 2, "config": {{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{D}","size":0}},
                 "layers": [{{"mediaType":"x/y","digest":"{D}","size":7}}] }}"#
        );
        let manifest = Manifest::parse(text.clone().into(), None).unwrap();
        assert_eq!(manifest.bytes, text.as_bytes());
        assert_eq!(manifest.media_type, media_type::IMAGE);
        assert_eq!(manifest.blobs().map(|b| b.size).collect::<Vec<_>>(), [0, 7]);

        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{{"mediaType":"{}","digest":"{D}","size":3,
               "platform":{{"architecture":"arm64","os":"linux","variant":"v8"}}}}]}}"#,
            media_type::DOCKER_LIST,
            media_type::DOCKER_IMAGE
        );
        let index = Manifest::parse(index.into(), Some("text/plain")).unwrap();
        assert!(index.is_index());
        assert_eq!(index.children()[0].platform, Some(Platform::linux("arm64")));
    }

    #[test]
    fn refuses_what_is_no_manifest() {
        let parse = |text: &str| Manifest::parse(text.to_owned().into(), None).unwrap_err().to_string();
        insta::assert_snapshot!(parse("{"), @"not a valid manifest");
        insta::assert_snapshot!(parse("{}"), @"not a valid manifest");
        insta::assert_snapshot!(parse(r#"{"mediaType":"application/x"}"#), @"media type `application/x` is neither an image manifest nor an index");
        insta::assert_snapshot!(parse(r#"{"manifests":[],"Manifests":[]}"#), @"not a manifest that all read alike");
        let large = vec![b' '; MANIFEST_LIMIT as usize + 1];
        assert!(matches!(Manifest::parse(large.into(), None), Err(InvalidManifest::TooLarge(_))));
    }
}
