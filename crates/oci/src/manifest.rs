use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use oci_spec::image as spec;

use super::{Digest, Platform};

/// The maximum size of a manifest, in bytes: ECR's own limit, and the minimum that the distribution specification
/// requires.
pub const MANIFEST_LIMIT: u64 = 4 * 1024 * 1024;

/// Media types of manifests and configurations.
pub mod media_type {
    /// An image manifest.
    pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// Docker's image manifest.
    pub const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// The empty JSON object that is used without a configuration.
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";

    /// The configuration of an image.
    pub const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// Docker's configuration of an image.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

    /// What the media types of an image's layers start with.
    pub const LAYERS: [&str; 2] = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];

    /// All media types of manifests, for an `Accept` header.
    pub const MANIFESTS: [&str; 4] = [IMAGE, INDEX, DOCKER_IMAGE, DOCKER_LIST];
}

/// Annotations that this project reads or writes.
pub mod annotation {
    use crate::annotation_key;

    /// The name of a root in a layout: the mapping key in layouts that build writes, otherwise a tag.
    pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
    /// The image's name in the mapping, from which its repository is derived.
    pub const IMAGE_NAME: &str = annotation_key!("image-name");
    /// The reference of this image in the release from which it is reused.
    pub const REUSED_FROM: &str = annotation_key!("reused-from");
    /// The places in the template of which build has said that they may deploy the image, one per line. Publish does not
    /// say it again.
    pub const DOUBTS: &str = annotation_key!("doubts");
    /// The digest of everything that went into an image that build made, in hexadecimal.
    pub const CONTENT_KEY: &str = annotation_key!("content-key");
    /// The time of creation, as in RFC 3339.
    pub const CREATED: &str = "org.opencontainers.image.created";
    /// The type of a BuildKit attestation manifest in an index.
    pub const DOCKER_REFERENCE_TYPE: &str = "vnd.docker.reference.type";
    /// The digest that a BuildKit attestation manifest describes.
    pub const DOCKER_REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
    /// The predicate type of an in-toto statement in a layer.
    pub const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
}

/// A reference to content: its media type, digest and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The media type.
    pub media_type: String,
    /// The digest of the content.
    pub digest: Digest,
    /// The size of the content in bytes.
    pub size: u64,
    /// The platform, for a child of an index.
    pub platform: Option<Platform>,
    /// The type of the artifact, for a referrer.
    pub artifact_type: Option<String>,
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A manifest or index: the bytes as they were received, and their content.
///
/// The bytes are never re-encoded, because that would change the digest.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The bytes as received.
    pub bytes: Bytes,
    /// The digest of `bytes`.
    pub digest: Digest,
    /// The media type: that in the document, or the sender's.
    pub media_type: String,
    /// The content.
    pub content: Content,
    /// The subject, if this is a referrer.
    pub subject: Option<Descriptor>,
    /// The type of the artifact: `artifactType`, or the configuration's media type.
    pub artifact_type: Option<String>,
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The two kinds of manifest.
#[derive(Debug, Clone)]
pub enum Content {
    /// An image or artifact.
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

/// Why bytes are not a valid manifest.
#[derive(Debug, thiserror::Error)]
pub enum InvalidManifest {
    /// It is larger than [`MANIFEST_LIMIT`].
    #[error("manifest of {0} bytes is over the limit of {MANIFEST_LIMIT}")]
    TooLarge(u64),
    /// It is not JSON of the required shape.
    #[error("not a valid manifest")]
    Json(#[source] oci_spec::OciSpecError),
    /// It is JSON that other parsers would interpret differently.
    #[error("ambiguous JSON: duplicate or case-variant keys")]
    Ambiguous(#[source] serde_json::Error),
    /// Its media type is unknown.
    #[error("media type `{0}` is neither an image manifest nor an index")]
    MediaType(String),
    /// It has a descriptor with a digest that is not SHA-256.
    #[error(transparent)]
    Digest(#[from] super::InvalidDigest),
}

impl Manifest {
    /// Parses a manifest. `media_type` is what the sender declared. A media type in the document takes precedence.
    ///
    /// # Errors
    /// Returns an error if the bytes are too large, are not a manifest, are ambiguous, or contain a digest that is
    /// not SHA-256.
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

    /// Returns the descriptor of this manifest.
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

    /// Returns the manifests of an index. Empty for an image.
    pub fn children(&self) -> &[Descriptor] {
        match &self.content {
            Content::Index { manifests } => manifests,
            Content::Image { .. } => &[],
        }
    }

    /// Returns the blobs of an image, with the configuration first. Empty for an index.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, layers) = match &self.content {
            Content::Image { config, layers } => (Some(config), layers.as_slice()),
            Content::Index { .. } => (None, [].as_slice()),
        };
        config.into_iter().chain(layers)
    }

    /// Returns the size of an image that consists of these manifests, in bytes: their layers and configurations, compressed
    /// as a registry stores them, each counted once.
    pub fn image_size<'a>(manifests: impl IntoIterator<Item = &'a Self>) -> u64 {
        let blobs = manifests.into_iter().flat_map(Self::blobs);
        let sizes: HashMap<&Digest, u64> = blobs.map(|blob| (&blob.digest, blob.size)).collect();
        sizes.into_values().sum()
    }

    /// Returns whether this is an index.
    pub fn is_index(&self) -> bool {
        matches!(self.content, Content::Index { .. })
    }

    /// Returns the platforms that an index names, or `None` if the index alone does not name them: if this is an image,
    /// or if the content of an entry decides whether it is a platform.
    pub fn named_platforms(&self) -> Option<Vec<Platform>> {
        let Content::Index { manifests } = &self.content else { return None };
        let selectable = || manifests.iter().filter(|entry| !entry.is_unknown());
        if selectable().any(|entry| entry.artifact_type.is_some()) {
            return None;
        }
        selectable().map(|entry| entry.platform.clone()).collect()
    }

    /// Returns whether a container could run this: it has the configuration or a layer of an image.
    fn is_runnable(&self) -> bool {
        let is_config = |kind: &str| [media_type::IMAGE_CONFIG, media_type::DOCKER_CONFIG].contains(&kind);
        let is_layer = |kind: &str| media_type::LAYERS.iter().any(|prefix| kind.starts_with(prefix));
        self.blobs().any(|blob| is_config(&blob.media_type) || is_layer(&blob.media_type))
    }
}

impl Descriptor {
    /// Converts the specification's own type.
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

    /// Returns whether this entry of an index is an image for a platform. `content` is the manifest of the entry.
    ///
    /// No runtime selects an entry `unknown/unknown`, such as an attestation of BuildKit. An entry with an artifact
    /// type, such as a SOCI index, is content for other programs, even if it names a platform. But runtimes select
    /// an entry by its platform alone, so an artifact type does not hide an image that a container could run.
    pub fn is_platform(&self, content: &Manifest) -> bool {
        !self.is_unknown() && (self.artifact_type.is_none() || content.is_runnable())
    }

    /// Returns whether the platform is `unknown/unknown`.
    fn is_unknown(&self) -> bool {
        let is_unknown = |platform: &Platform| platform.os == "unknown" && platform.architecture == "unknown";
        self.platform.as_ref().is_some_and(is_unknown)
    }

    /// Returns the descriptor of some bytes.
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

    /// Returns the JSON of this descriptor, with members in the order of the specification.
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

/// The two members that determine the type of a document, before the whole document is parsed.
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
    fn an_artifact_in_an_index_is_no_platform_unless_it_could_run() {
        let manifest = |config: &str, layer: &str| {
            let text = format!(
                r#"{{"schemaVersion":2,"config":{{"mediaType":"{config}","digest":"{D}","size":0}},
                     "layers":[{{"mediaType":"{layer}","digest":"{D}","size":0}}]}}"#
            );
            Manifest::parse(text.into(), None).unwrap()
        };
        let (layer, ztoc) = ("application/vnd.oci.image.layer.v1.tar+gzip", "application/octet-stream");
        let soci = "application/vnd.amazon.soci.index.v2+json";
        let entry = |platform: Option<&str>, artifact_type: Option<&str>| Descriptor {
            platform: platform.map(|platform| platform.parse().unwrap()),
            artifact_type: artifact_type.map(str::to_owned),
            ..Descriptor::of(media_type::IMAGE, b"")
        };
        let (amd64, unknown) = (Some("linux/amd64"), Some("unknown/unknown"));
        for (platform, artifact_type, config, layer, expected) in [
            (amd64, None, media_type::IMAGE_CONFIG, layer, true),
            (amd64, None, soci, ztoc, true),
            (None, None, media_type::DOCKER_CONFIG, layer, true),
            (unknown, None, media_type::IMAGE_CONFIG, layer, false),
            (unknown, Some("x/y"), media_type::EMPTY, ztoc, false),
            (amd64, Some(soci), soci, ztoc, false),
            (None, Some("x/y"), media_type::EMPTY, ztoc, false),
            (amd64, Some(soci), media_type::IMAGE_CONFIG, ztoc, true),
            (amd64, Some(soci), media_type::DOCKER_CONFIG, ztoc, true),
            (amd64, Some(soci), soci, layer, true),
        ] {
            let is_platform = entry(platform, artifact_type).is_platform(&manifest(config, layer));
            assert_eq!(is_platform, expected, "{platform:?} {artifact_type:?} {config} {layer}");
        }

        let named = |entries: &[Descriptor]| {
            let entries: Vec<_> = entries.iter().map(Descriptor::to_json).collect();
            let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": entries});
            let platforms = Manifest::parse(index.to_string().into(), None).unwrap().named_platforms();
            platforms.map(|platforms| crate::listed(&platforms))
        };
        let both = [entry(amd64, None), entry(Some("linux/arm64"), None), entry(unknown, Some("x/y"))];
        assert_eq!(named(&both).as_deref(), Some("linux/amd64, linux/arm64"));
        assert_eq!(named(&[entry(amd64, None), entry(amd64, Some(soci))]), None);
        assert_eq!(named(&[entry(amd64, None), entry(None, None)]), None);
        assert_eq!(manifest(media_type::IMAGE_CONFIG, layer).named_platforms(), None);
    }

    #[test]
    fn refuses_what_is_no_manifest() {
        let parse = |text: &str| Manifest::parse(text.to_owned().into(), None).unwrap_err().to_string();
        insta::assert_snapshot!(parse("{"), @"not a valid manifest");
        insta::assert_snapshot!(parse("{}"), @"not a valid manifest");
        insta::assert_snapshot!(parse(r#"{"mediaType":"application/x"}"#), @"media type `application/x` is neither an image manifest nor an index");
        insta::assert_snapshot!(parse(r#"{"manifests":[],"Manifests":[]}"#), @"ambiguous JSON: duplicate or case-variant keys");
        let large = vec![b' '; MANIFEST_LIMIT as usize + 1];
        assert!(matches!(Manifest::parse(large.into(), None), Err(InvalidManifest::TooLarge(_))));
    }
}
