use std::sync::Arc;

use super::read;
use oci::transfer::Graph;
use oci::{CONFIG_LIMIT, Content, Digest, Manifest, Store, StoreError, read_blob};

/// The label, or annotation, with the commit of an image.
const REVISION: &str = "org.opencontainers.image.revision";

/// The commit that an image was built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceCommit {
    /// The commit's hash, in hexadecimal.
    pub hash: String,
    /// The address of its repository, if the provenance names it.
    pub repository: Option<String>,
}

impl SourceCommit {
    /// Returns the commit that the newest provenance of an image names, otherwise the one in its annotation or label
    /// `org.opencontainers.image.revision`. A value that is not the hash of a commit does not count.
    ///
    /// # Errors
    /// If a request fails.
    pub async fn of(store: &Arc<dyn Store>, graph: &Graph) -> Result<Option<Self>, StoreError> {
        let platforms = graph.platforms().into_iter().map(|(_, manifest)| &manifest.digest);
        // Build attaches provenance to the root, builders to each platform.
        let mut subjects: Vec<&Digest> = [&graph.root.digest].into_iter().chain(platforms).collect();
        subjects.dedup();
        for subject in subjects {
            for provenance in read::provenance(store, subject).await?.into_iter().flat_map(|found| found.content) {
                if let Some(hash) = provenance.commit.filter(|hash| is_hash(hash)) {
                    return Ok(Some(Self { hash, repository: provenance.repository }));
                }
            }
        }
        for manifest in graph.manifests() {
            if let Some(hash) = revision(store, manifest).await? {
                return Ok(Some(Self { hash, repository: None }));
            }
        }
        Ok(None)
    }
}

async fn revision(store: &Arc<dyn Store>, manifest: &Manifest) -> Result<Option<String>, StoreError> {
    let annotated = manifest.annotations.get(REVISION).filter(|hash| is_hash(hash));
    let (None, Content::Image { config, .. }) = (annotated, &manifest.content) else { return Ok(annotated.cloned()) };
    if config.size > CONFIG_LIMIT {
        return Ok(None);
    }
    let bytes = read_blob(store.as_ref(), config, CONFIG_LIMIT).await?;
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    Ok(json["config"]["Labels"][REVISION].as_str().filter(|hash| is_hash(hash)).map(str::to_owned))
}

/// Returns whether a text is a commit's hash, SHA-1 or SHA-256.
fn is_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
