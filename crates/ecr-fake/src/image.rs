//! Images with pseudo-random layers, to push to a registry or to write to an OCI layout.

use std::{collections::BTreeSet, fs, io::Write as _, path::Path};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::blob_content::{self, BlobContent};

const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What an image consists of. Equal specifications give equal images.
#[derive(Clone, Debug)]
pub struct ImageSpec {
    /// `os/arch` or `os/arch/variant`. One platform gives a single manifest, several give an index.
    pub platforms: Vec<String>,
    /// The number of layers of each platform. Platforms share no layer.
    pub layers: usize,
    /// The size of each layer in bytes, at least 32.
    pub layer_size: u64,
    /// Determines the layers' bytes.
    pub seed: u64,
    /// Whether the media types are Docker's instead of OCI's.
    pub docker: bool,
    /// Whether a single platform gives an index, too.
    pub index: bool,
    /// Whether layers are generated while they are read, and never held in memory.
    pub generated: bool,
    /// The value of the label `org.opencontainers.image.version`; absent by default.
    pub version: Option<String>,
    /// The layers' media type. The default is a gzipped tar.
    pub layer_type: Option<&'static str>,
}

impl Default for ImageSpec {
    fn default() -> Self {
        ImageSpec {
            platforms: vec!["linux/amd64".into(), "linux/arm64".into()],
            layers: 2,
            layer_size: 1024,
            seed: 1,
            docker: false,
            index: false,
            generated: false,
            version: None,
            layer_type: None,
        }
    }
}

/// The bytes of a manifest, with its media type and digest.
#[derive(Clone, Debug, PartialEq)]
pub struct RawManifest {
    /// The bytes.
    pub bytes: Bytes,
    /// The media type.
    pub media_type: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
}

impl RawManifest {
    fn new(media_type: &str, json: &Value) -> RawManifest {
        let bytes = Bytes::from(serde_json::to_vec(json).unwrap());
        RawManifest { digest: blob_content::digest(&bytes), bytes, media_type: media_type.to_owned() }
    }

    /// Returns the OCI descriptor.
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// An image with its referrers.
#[derive(Clone, Debug)]
pub struct Image {
    /// The index or the single manifest.
    pub root: RawManifest,
    /// The manifests of an index's platforms; empty for a single manifest.
    pub children: Vec<RawManifest>,
    /// Artifacts whose subject is the root or a child, in the order in which they were attached.
    pub referrers: Vec<RawManifest>,
    /// Configs and layers, of the referrers too: digest and bytes.
    pub blobs: Vec<(String, BlobContent)>,
}

impl Image {
    /// Returns an image of the default shape: two platforms with two layers each.
    pub fn new(seed: u64) -> Image {
        Image::of(&ImageSpec { seed, ..ImageSpec::default() })
    }

    /// Returns the image of a specification.
    pub fn of(spec: &ImageSpec) -> Image {
        let mut blobs = Vec::new();
        let mut platforms = Vec::new();
        for (number, platform) in spec.platforms.iter().enumerate() {
            platforms.push(platform_manifest(spec, number as u64, platform, &mut blobs));
        }
        if platforms.len() == 1 && !spec.index {
            let (root, _) = platforms.remove(0);
            return Image { root, children: Vec::new(), referrers: Vec::new(), blobs };
        }
        let entries: Vec<Value> = platforms
            .iter()
            .map(|(manifest, platform)| {
                let mut descriptor = manifest.descriptor();
                descriptor["platform"] = platform.clone();
                descriptor
            })
            .collect();
        let media_type = if spec.docker { DOCKER_LIST } else { INDEX };
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries});
        let children = platforms.into_iter().map(|(manifest, _)| manifest).collect();
        Image { root: RawManifest::new(media_type, &index), children, referrers: Vec::new(), blobs }
    }

    /// Attaches a payload to the root or a child as an OCI 1.1 referrer. Returns the referrer's digest.
    ///
    /// # Panics
    /// If no manifest of the image has the digest `subject`.
    pub fn attach(&mut self, subject: &str, artifact_type: &str, payload: &[u8]) -> String {
        let subject = self
            .manifests()
            .find(|manifest| manifest.digest == subject)
            .expect("the subject is a manifest of this image")
            .descriptor();
        let empty = BlobContent::Kept(Bytes::from_static(b"{}"));
        let payload = BlobContent::Kept(Bytes::copy_from_slice(payload));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": artifact_type,
            "config": descriptor(EMPTY, &empty),
            "layers": [descriptor(artifact_type, &payload)],
            "subject": subject,
            "annotations": {"org.opencontainers.image.created": "2026-01-01T00:00:00Z"},
        });
        for content in [empty, payload] {
            self.blobs.push((content.digest().unwrap(), content));
        }
        let referrer = RawManifest::new(MANIFEST, &manifest);
        let digest = referrer.digest.clone();
        self.referrers.push(referrer);
        digest
    }

    /// Returns all manifests in the order of a push: children, root, referrers.
    pub fn manifests(&self) -> impl Iterator<Item = &RawManifest> {
        self.children.iter().chain([&self.root]).chain(&self.referrers)
    }

    /// Adds the image to the OCI layout in a folder, which is created if it does not exist. The root's entry in
    /// `index.json` gets the annotations; referrers are entries without annotations.
    ///
    /// # Panics
    /// If the folder cannot be written, or holds something other than an OCI layout.
    pub fn write_layout(&self, folder: &Path, annotations: &[(&str, &str)]) {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        for (digest, content) in &self.blobs {
            let mut file = fs::File::create(blobs.join(&digest["sha256:".len()..])).unwrap();
            let mut at = 0;
            while at < content.size() {
                let chunk = content.chunk(at, content.size()).unwrap();
                file.write_all(&chunk).unwrap();
                at += chunk.len() as u64;
            }
        }
        let path = folder.join("index.json");
        let mut index = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
            Err(_) => json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}),
        };
        let entries = index["manifests"].as_array_mut().unwrap();
        for manifest in self.manifests() {
            fs::write(blobs.join(&manifest.digest["sha256:".len()..]), &manifest.bytes).unwrap();
        }
        for manifest in [&self.root].into_iter().chain(&self.referrers) {
            let mut descriptor = manifest.descriptor();
            if *manifest == self.root {
                descriptor["annotations"] = annotations.iter().map(|(key, value)| (*key, *value)).collect();
            } else {
                let json: Value = serde_json::from_slice(&manifest.bytes).unwrap();
                descriptor["artifactType"] = json["artifactType"].clone();
            }
            entries.push(descriptor);
        }
        fs::write(path, index.to_string()).unwrap();
    }

    /// Returns the number of distinct blobs.
    pub fn blob_count(&self) -> usize {
        self.blobs.iter().map(|(digest, _)| digest).collect::<BTreeSet<_>>().len()
    }
}

fn descriptor(media_type: &str, content: &BlobContent) -> Value {
    json!({"mediaType": media_type, "digest": content.digest().unwrap(), "size": content.size()})
}

fn platform_manifest(
    spec: &ImageSpec,
    number: u64,
    platform: &str,
    blobs: &mut Vec<(String, BlobContent)>,
) -> (RawManifest, Value) {
    let mut parts = platform.split('/');
    let mut named = json!({"os": parts.next().unwrap_or_default(), "architecture": parts.next().unwrap_or_default()});
    if let Some(variant) = parts.next() {
        named["variant"] = variant.into();
    }
    let (media_type, config_type, layer_type) = if spec.docker {
        (
            DOCKER_MANIFEST,
            "application/vnd.docker.container.image.v1+json",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        )
    } else {
        (MANIFEST, "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip")
    };
    let layer_type = spec.layer_type.unwrap_or(layer_type);
    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    for layer in 0..spec.layers as u64 {
        let seed = spec.seed.wrapping_mul(1_000_003).wrapping_add(number * 1_009 + layer);
        let mut content = BlobContent::Generated { seed, size: spec.layer_size.max(32) };
        if !spec.generated {
            content = BlobContent::Kept(content.bytes().unwrap());
        }
        let descriptor = descriptor(layer_type, &content);
        let digest = descriptor["digest"].as_str().unwrap().to_owned();
        diff_ids.push(digest.clone());
        layers.push(descriptor);
        blobs.push((digest, content));
    }
    let mut config = named.clone();
    config["created"] = "2026-01-01T00:00:00Z".into();
    config["config"] = json!({"Labels": {"seed": spec.seed.to_string()}});
    if let Some(version) = &spec.version {
        config["config"]["Labels"]["org.opencontainers.image.version"] = version.as_str().into();
    }
    config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
    let config = BlobContent::Kept(serde_json::to_vec(&config).unwrap().into());
    let described = descriptor(config_type, &config);
    blobs.push((config.digest().unwrap(), config));
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": described, "layers": layers});
    (RawManifest::new(media_type, &manifest), named)
}
