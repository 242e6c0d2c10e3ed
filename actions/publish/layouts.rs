//! The layouts that build wrote, taken together.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use lifecycle::ActionError;
pub(crate) use oci::CONFIG_LIMIT;
use oci::transfer::Graph;
use oci::{
    BlobSource, BlobStream, Content, Descriptor, Digest, ErrorKind, Layout, Location, Manifest, Platform, Put,
    RepositoryName, Store, StoreError, Tag, annotation, media_type,
};

/// What build left of an image.
pub(crate) enum Found {
    /// The image itself.
    Built(Box<Built>),
    /// Nothing has changed since a release: it is to be taken from there.
    Reused {
        /// Its name in the release.
        reference: String,
        /// What the name pointed to.
        digest: Digest,
    },
}

/// An image with where it is read from.
pub(crate) struct Built {
    /// The layouts, or the repository that it was released in.
    pub(crate) store: Arc<dyn Store>,
    /// The image, complete.
    pub(crate) graph: Graph,
    /// Whether only its digest came from the layouts: nobody here has seen how it was made.
    pub(crate) reused: bool,
}

/// Several layouts as one source: a matrix over images leaves different keys in each, one over platforms the same key
/// with another platform in each.
#[derive(Clone)]
pub(crate) struct Layouts {
    layouts: Vec<Layout>,
    /// Indexes over platforms that came from different layouts.
    merged: Arc<Mutex<HashMap<Digest, Manifest>>>,
}

impl Layouts {
    /// Opens the layouts.
    ///
    /// # Errors
    /// When one is not there, or is none.
    pub(crate) fn open(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut layouts = Vec::new();
        for path in paths {
            let layout = Layout::at(path);
            if !layout.exists() {
                let problem = ActionError::usage_error(format!("there is no OCI layout in {}", path.display()));
                return Err(problem.hint("run build before, or set the input `layout` to where it wrote").into());
            }
            layouts.push(layout);
        }
        Ok(Self { layouts, merged: Arc::default() })
    }

    /// Finds an image by its key and makes sure that all of it is there, before a byte of it is sent.
    ///
    /// # Errors
    /// When no layout has it, or one that was cut off.
    pub(crate) async fn find(&self, key: &str) -> anyhow::Result<Found> {
        let mut roots: Vec<(&Layout, Manifest)> = Vec::new();
        let mut keys = Vec::new();
        for layout in &self.layouts {
            for root in layout.roots()? {
                let Some(name) = root.name else { continue };
                if name != key {
                    keys.push(name);
                    continue;
                }
                let digest = &root.descriptor.digest;
                if let Some(reference) = root.descriptor.annotations.get(annotation::REUSED_FROM) {
                    return Ok(Found::Reused { reference: reference.clone(), digest: digest.clone() });
                }
                let cut = || {
                    let message = format!("the layout {} lacks the manifest {digest}", layout.path().display());
                    ActionError::failure(message).hint("it was cut off: build again")
                };
                let manifest = layout.read_manifest(digest)?.ok_or_else(cut)?;
                if roots.iter().all(|(_, root)| root.digest != manifest.digest) {
                    roots.push((layout, manifest));
                }
            }
        }
        let root = match roots.len() {
            0 => return Err(not_built(key, keys).into()),
            1 => roots.remove(0).1,
            _ => self.merge(key, &roots)?,
        };
        let store: Arc<dyn Store> = Arc::new(self.clone());
        let graph = Graph::read(&store, root).await?;
        self.complete(&graph)?;
        Ok(Found::Built(Box::new(Built { store, graph, reused: false })))
    }

    /// One index over the platforms of several roots.
    fn merge(&self, key: &str, roots: &[(&Layout, Manifest)]) -> anyhow::Result<Manifest> {
        let mut platforms: BTreeMap<Platform, (&Layout, Descriptor)> = BTreeMap::new();
        for (layout, root) in roots {
            let found: Vec<Descriptor> = match &root.content {
                Content::Index { manifests } => manifests.clone(),
                Content::Image { config, .. } => {
                    vec![Descriptor { platform: Some(self.platform(config)?), ..root.descriptor() }]
                }
            };
            for descriptor in found {
                let platform = descriptor.platform.clone();
                let platform =
                    platform.ok_or_else(|| ActionError::failure(format!("{} names no platform", descriptor.digest)))?;
                let digest = descriptor.digest.clone();
                match platforms.insert(platform.clone(), (layout, descriptor)) {
                    Some((first, other)) if other.digest != digest => {
                        let what = format!("image `{key}` for {platform}");
                        return Err(twice(&what, (first, &other.digest), (layout, &digest)).into());
                    }
                    _ => {}
                }
            }
        }
        let manifests: Vec<_> = platforms.values().map(|(_, descriptor)| descriptor.to_json()).collect();
        let mut index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests});
        // What all of them say is said of the index too.
        let common = |(name, value): &(&String, &String)| {
            roots.iter().all(|(_, root)| root.annotations.get(*name) == Some(value))
        };
        let annotations: BTreeMap<_, _> = roots.iter().flat_map(|(_, root)| &root.annotations).filter(common).collect();
        if !annotations.is_empty() {
            index["annotations"] = serde_json::json!(annotations);
        }
        let index = Manifest::parse(index.to_string().into(), None)?;
        self.merged.lock().unwrap_or_else(PoisonError::into_inner).insert(index.digest.clone(), index.clone());
        Ok(index)
    }

    /// The platform that an image's configuration names.
    fn platform(&self, config: &Descriptor) -> anyhow::Result<Platform> {
        let unknown = || ActionError::failure(format!("the configuration {} names no platform", config.digest));
        let layout = self.with_blob(&config.digest).ok_or_else(unknown)?;
        Ok(Platform::of_config(&layout.read_blob(config, CONFIG_LIMIT)?).ok_or_else(unknown)?)
    }

    fn with_blob(&self, digest: &Digest) -> Option<&Layout> {
        self.layouts.iter().find(|layout| layout.blob_path(digest).is_file())
    }

    /// Every blob is there with the size that its manifest names. The bytes are hashed when they are sent.
    fn complete(&self, graph: &Graph) -> anyhow::Result<()> {
        for blob in &graph.blobs {
            let layout = self.with_blob(&blob.digest);
            let size = layout.and_then(|layout| fs::metadata(layout.blob_path(&blob.digest)).ok()).map(|m| m.len());
            if size != Some(blob.size) {
                let place = layout.or(self.layouts.first()).map(|layout| layout.path().display().to_string());
                return Err(incomplete(&place.unwrap_or_default(), blob, size).into());
            }
        }
        Ok(())
    }
}

/// A blob that is missing, or whose size is not that of its descriptor.
fn incomplete(layout: &str, blob: &Descriptor, size: Option<u64>) -> ActionError {
    let Descriptor { digest, size: expected, .. } = blob;
    match size {
        None => ActionError::failure(format!("the layout {layout} lacks the blob {digest}"))
            .hint("it was cut off: build again"),
        Some(size) if size < *expected => ActionError::failure(format!(
            "the layout {layout} has only {size} of {expected} bytes of the blob {digest}"
        ))
        .hint("it was cut off: build again"),
        Some(size) => {
            let more = size - expected;
            let message =
                format!("the layout {layout} has {size} bytes for the blob {digest}, {more} more than its {expected}");
            ActionError::failure(message).hint("the file was changed after the build: build again")
        }
    }
}

/// One image, and two digests for it.
fn twice(what: &str, (first, one): (&Layout, &Digest), (second, other): (&Layout, &Digest)) -> ActionError {
    if first.path() == second.path() {
        let message = format!("the layout {} has two entries of {what}: {one} and {other}", first.path().display());
        return ActionError::usage_error(message)
            .hint("remove one of them from index.json, or delete the folder and build again");
    }
    let (first, second) = (first.path().display(), second.path().display());
    let message = format!("two layouts have {what}, with different digests: {one} in {first}, {other} in {second}");
    ActionError::usage_error(message).hint("build each platform in one job alone")
}

fn not_built(key: &str, mut keys: Vec<String>) -> ActionError {
    keys.sort();
    keys.dedup();
    let found = if keys.is_empty() { "no image".to_owned() } else { keys.join(", ") };
    ActionError::failure(format!("image `{key}` was not built: the layout holds {found}"))
        .hint("build it too, or leave it out by the input `images`")
}

#[async_trait]
impl BlobSource for Layouts {
    fn origin(&self) -> Option<(&Location, &RepositoryName)> {
        None
    }

    async fn blob(&self, blob: &Descriptor) -> Result<BlobStream, StoreError> {
        match self.with_blob(&blob.digest).or(self.layouts.first()) {
            Some(layout) => layout.blob(blob).await,
            None => Err(StoreError::new(ErrorKind::NotFound, format!("there is no blob {}", blob.digest))),
        }
    }
}

/// A source alone: nothing is written to what build left.
#[async_trait]
impl Store for Layouts {
    fn address(&self) -> String {
        self.layouts.iter().map(Store::address).collect::<Vec<_>>().join(", ")
    }

    async fn head(&self, _: &Tag) -> Result<Option<Digest>, StoreError> {
        Ok(None)
    }

    async fn tagged(&self, _: &Tag) -> Result<Option<Manifest>, StoreError> {
        Ok(None)
    }

    async fn manifest(&self, digest: &Digest) -> Result<Option<Manifest>, StoreError> {
        if let Some(merged) = self.merged.lock().unwrap_or_else(PoisonError::into_inner).get(digest) {
            return Ok(Some(merged.clone()));
        }
        for layout in &self.layouts {
            if let Some(manifest) = layout.read_manifest(digest)? {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }

    async fn put_blob(&self, _: &Descriptor, _: &Arc<dyn BlobSource>) -> Result<Put, StoreError> {
        Err(read_only())
    }

    async fn put_manifest(&self, _: &Manifest, _: Option<&Tag>) -> Result<(), StoreError> {
        Err(read_only())
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, StoreError> {
        let mut referrers: Vec<Descriptor> = Vec::new();
        for layout in &self.layouts {
            referrers.extend(layout.referrers(subject).await?);
        }
        let mut seen = std::collections::HashSet::new();
        referrers.retain(|referrer| seen.insert(referrer.digest.clone()));
        Ok(referrers)
    }

    async fn existing(&self, _: &[Tag]) -> Result<Vec<(Tag, Digest)>, StoreError> {
        Ok(Vec::new())
    }

    async fn tags(&self) -> Result<Vec<Tag>, StoreError> {
        Ok(Vec::new())
    }
}

fn read_only() -> StoreError {
    StoreError::new(ErrorKind::Unsupported, "what build left is not written to")
}
