//! What is compared between two images.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::evidence::packages::PackageList;
use crate::evidence::read;
use crate::evidence::read::Evidence;
use crate::evidence::results::{Provenance, ReportedVulnerability};
use oci::transfer::Graph;
use oci::{CONFIG_LIMIT, Content, Digest, Manifest, Platform, Store, StoreError, read_blob};

/// The annotation with the name of an image's base.
pub const BASE_NAME: &str = "org.opencontainers.image.base.name";
/// The annotation with the digest of an image's base.
pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// An image with its evidence.
#[derive(Debug, Clone)]
pub struct ImageContents {
    /// The digest of the root.
    pub digest: Digest,
    /// The repository that it was built from, if its provenance or its labels say so.
    pub repository: Option<String>,
    /// The commit that it was built from, if its provenance or its labels say so.
    pub commit: Option<String>,
    /// The platforms, by name.
    pub platforms: BTreeMap<String, PlatformContents>,
}

/// One platform of an image with its evidence.
#[derive(Debug, Clone)]
pub struct PlatformContents {
    /// The size of the layers and the configuration, compressed, in bytes.
    pub size: u64,
    /// The name and digest of the base image, if they are recorded.
    pub base: Option<String>,
    /// The configuration.
    pub config: Value,
    /// The packages of the newest SBOM, or why they are not known.
    pub packages: Result<PackageList, String>,
    /// The vulnerabilities of the newest scan, or why they are not known.
    pub vulnerabilities: Result<Vec<ReportedVulnerability>, String>,
}

impl ImageContents {
    /// Reads an image and its evidence.
    ///
    /// # Errors
    /// If a request fails. Missing or broken evidence is not an error.
    pub async fn read(store: &Arc<dyn Store>, root: Manifest) -> Result<Self, StoreError> {
        let graph = Graph::read(store, root).await?;
        let mut platforms = BTreeMap::new();
        let (mut repository, mut commit) = (None, None);
        for (named, manifest) in graph.platforms() {
            let (name, contents) = PlatformContents::read(store, named, &graph.root, manifest).await?;
            let label = |name: &str| Some(contents.config["config"]["Labels"][name].as_str()?.to_owned());
            repository = repository.or_else(|| label("org.opencontainers.image.source"));
            commit = commit.or_else(|| label("org.opencontainers.image.revision"));
            platforms.insert(name, contents);
        }
        let digest = graph.root.digest.clone();
        if let Ok(provenance) = newest::<Provenance>(read::provenance(store, &digest).await?, "provenance") {
            repository = provenance.repository.or(repository);
            commit = provenance.commit.or(commit);
        }
        Ok(Self { digest, repository, commit, platforms })
    }
}

impl PlatformContents {
    async fn read(
        store: &Arc<dyn Store>,
        named: Option<Platform>,
        root: &Manifest,
        manifest: &Manifest,
    ) -> Result<(String, Self), StoreError> {
        let Content::Image { config, .. } = &manifest.content else {
            return Err(StoreError::new(oci::ErrorKind::Invalid, format!("{} is no image", manifest.digest)));
        };
        let bytes = read_blob(store.as_ref(), config, CONFIG_LIMIT).await?;
        let platform = named.or_else(|| Platform::of_config(&bytes));
        let name = platform.map_or_else(|| "the image".to_owned(), |platform| platform.to_string());
        let config = serde_json::from_slice(&bytes).unwrap_or_default();
        let annotation = |name: &str| manifest.annotations.get(name).or_else(|| root.annotations.get(name));
        let base = match (annotation(BASE_NAME), annotation(BASE_DIGEST)) {
            (Some(name), Some(digest)) => Some(format!("{name}@{digest}")),
            (Some(one), None) | (None, Some(one)) => Some(one.clone()),
            (None, None) => None,
        };
        let packages = newest(read::packages(store, &manifest.digest).await?, "SBOM");
        let scan = newest(read::scan(store, &manifest.digest).await?, "scan");
        let vulnerabilities = scan.map(|scan| scan.vulnerabilities);
        let size = Manifest::image_size([manifest]);
        Ok((name, Self { size, base, config, packages, vulnerabilities }))
    }
}

/// Returns the content of the newest piece of evidence, or why it is not known.
fn newest<T>(pieces: Vec<Evidence<T>>, kind: &str) -> Result<T, String> {
    match pieces.into_iter().next() {
        Some(piece) => piece.content.map_err(|reason| format!("its newest {kind} {reason}")),
        None => Err(format!("it has no {kind}")),
    }
}
