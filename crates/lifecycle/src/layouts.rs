//! The OCI layouts that build wrote, read as one source.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;

use crate::ActionError;
use oci::transfer::Graph;
use oci::{
    BlobOutcome, BlobSource, BlobStream, CONFIG_LIMIT, Content, Descriptor, Digest, ErrorKind, Layout, Location,
    Manifest, Platform, RepositoryName, Store, StoreError, Tag, annotation, media_type,
};

/// The hint for a layout that is not complete.
const TRUNCATED: &str = "the layout was truncated: build again";

/// The result of build for an image.
pub enum BuildResult {
    /// The image was built.
    Built(Box<SourceImage>),
    /// The image has not changed since a release, and is copied from there.
    Reused {
        /// The image's name in the release.
        reference: String,
        /// The digest that the name pointed to.
        digest: Digest,
    },
}

/// A complete image, and the store to read it from.
pub struct SourceImage {
    /// The layouts, or the repository of the release.
    pub store: Arc<dyn Store>,
    /// Its manifests and blobs.
    pub graph: Graph,
    /// Whether the image comes from a release. This run has no evidence of how it was built.
    pub reused: bool,
}

/// Several layouts as one source. A matrix over images writes different keys to each layout; a matrix over platforms writes
/// the same key to each, for different platforms.
#[derive(Clone)]
pub struct Layouts {
    layouts: Vec<Layout>,
    /// Indexes over platforms from different layouts.
    merged: Arc<Mutex<HashMap<Digest, Manifest>>>,
    /// The entries of all layouts by name. They are listed once, for all images.
    entries: Arc<OnceLock<EntriesByName>>,
}

/// Entries of layouts, each with the position of its layout.
type EntriesByName = BTreeMap<String, Vec<(usize, Descriptor)>>;

impl Layouts {
    /// Opens the layouts.
    ///
    /// # Errors
    /// If a folder is missing or is no layout.
    pub fn open(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut layouts = Vec::new();
        for path in paths {
            let layout = Layout::at(path);
            if !layout.exists() {
                let problem = ActionError::usage_error(format!("there is no OCI layout in {}", path.display()));
                return Err(problem.hint("run build first, or set `layout` to the folder that it wrote").into());
            }
            layouts.push(layout);
        }
        Ok(Self { layouts, merged: Arc::default(), entries: Arc::default() })
    }

    /// Finds an image by its key, and checks that it is complete before any byte is sent.
    ///
    /// # Errors
    /// If no layout has the image, or one is incomplete.
    pub async fn find(&self, key: &str) -> anyhow::Result<BuildResult> {
        let mut roots: Vec<(&Layout, Manifest)> = Vec::new();
        let entries = self.entries()?;
        for (position, descriptor) in entries.get(key).map(Vec::as_slice).unwrap_or_default() {
            let (layout, digest) = (&self.layouts[*position], &descriptor.digest);
            if let Some(reference) = descriptor.annotations.get(annotation::REUSED_FROM) {
                return Ok(BuildResult::Reused { reference: reference.clone(), digest: digest.clone() });
            }
            let missing = || {
                let message = format!("the manifest {digest} is missing from the layout {}", layout.path().display());
                ActionError::failure(message).hint(TRUNCATED)
            };
            let manifest = layout.read_manifest(digest)?.ok_or_else(missing)?;
            if roots.iter().all(|(_, root)| root.digest != manifest.digest) {
                roots.push((layout, manifest));
            }
        }
        let root = match roots.len() {
            0 => return Err(not_built(key, entries).into()),
            1 => roots.remove(0).1,
            _ => self.merge(key, &roots)?,
        };
        let store: Arc<dyn Store> = Arc::new(self.clone());
        let graph = Graph::read(&store, root).await?;
        self.check_blobs(&graph)?;
        Ok(BuildResult::Built(Box::new(SourceImage { store, graph, reused: false })))
    }

    /// Returns whether build has said that the place in the template may deploy an image.
    ///
    /// # Errors
    /// If a layout cannot be read.
    pub fn has_doubt(&self, key: &str, place: &str) -> Result<bool, StoreError> {
        let entries = self.entries()?.get(key).map(Vec::as_slice).unwrap_or_default();
        let doubts = entries.iter().filter_map(|(_, entry)| entry.annotations.get(annotation::DOUBTS));
        Ok(doubts.flat_map(|places| places.lines()).any(|said| said == place))
    }

    /// Lists the entries of all layouts by name.
    fn entries(&self) -> Result<&EntriesByName, StoreError> {
        if let Some(entries) = self.entries.get() {
            return Ok(entries);
        }
        let mut entries = EntriesByName::new();
        for (position, layout) in self.layouts.iter().enumerate() {
            for root in layout.roots()? {
                if let Some(name) = root.name {
                    entries.entry(name).or_default().push((position, root.descriptor));
                }
            }
        }
        Ok(self.entries.get_or_init(|| entries))
    }

    /// Returns one index over the platforms of several roots.
    ///
    /// Entries that are not platforms, such as SOCI indexes, follow all platforms: a runtime takes the first entry of
    /// its platform.
    fn merge(&self, key: &str, roots: &[(&Layout, Manifest)]) -> anyhow::Result<Manifest> {
        let mut platforms: BTreeMap<Platform, (&Layout, Descriptor)> = BTreeMap::new();
        let mut others: Vec<Descriptor> = Vec::new();
        for (layout, root) in roots {
            let descriptors: Vec<Descriptor> = match &root.content {
                Content::Index { manifests } => manifests.clone(),
                Content::Image { config, .. } => {
                    vec![Descriptor { platform: Some(self.platform(config)?), ..root.descriptor() }]
                }
            };
            for descriptor in descriptors {
                if root.is_index() && !self.is_platform(layout, &descriptor)? {
                    // Platforms with the same layers have the same SOCI index.
                    let is_same =
                        |other: &Descriptor| other.digest == descriptor.digest && other.platform == descriptor.platform;
                    if !others.iter().any(is_same) {
                        others.push(descriptor);
                    }
                    continue;
                }
                let platform = descriptor.platform.clone();
                let platform = platform.ok_or_else(|| {
                    ActionError::failure(format!("the manifest {} has no platform", descriptor.digest))
                })?;
                let digest = descriptor.digest.clone();
                match platforms.insert(platform.clone(), (layout, descriptor)) {
                    Some((first, other)) if other.digest != digest => {
                        let image = format!("image `{key}` for {platform}");
                        return Err(conflicting_digests(&image, (first, &other.digest), (layout, &digest)).into());
                    }
                    _ => {}
                }
            }
        }
        let platforms = platforms.values().map(|(_, descriptor)| descriptor);
        let manifests: Vec<_> = platforms.chain(&others).map(Descriptor::to_json).collect();
        let mut index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests});
        // The index has the annotations that all roots share.
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

    /// Returns whether an entry of an index is a platform.
    fn is_platform(&self, layout: &Layout, entry: &Descriptor) -> anyhow::Result<bool> {
        let missing = || {
            let message =
                format!("the manifest {} is missing from the layout {}", entry.digest, layout.path().display());
            ActionError::failure(message).hint(TRUNCATED)
        };
        Ok(entry.is_platform(&layout.read_manifest(&entry.digest)?.ok_or_else(missing)?))
    }

    /// Returns the platform in the configuration of an image.
    fn platform(&self, config: &Descriptor) -> anyhow::Result<Platform> {
        let unknown = || ActionError::failure(format!("the configuration {} has no platform", config.digest));
        let layout = self.with_blob(&config.digest).ok_or_else(unknown)?;
        Ok(Platform::of_config(&layout.read_blob(config, CONFIG_LIMIT)?).ok_or_else(unknown)?)
    }

    /// Returns the layout that has a blob.
    fn with_blob(&self, digest: &Digest) -> Option<&Layout> {
        self.layouts.iter().find(|layout| layout.blob_path(digest).is_file())
    }

    /// Checks that every blob exists with the size in its descriptor. The bytes are hashed when they are sent.
    fn check_blobs(&self, graph: &Graph) -> anyhow::Result<()> {
        for blob in &graph.blobs {
            let layout = self.with_blob(&blob.digest);
            let size = layout.and_then(|layout| fs::metadata(layout.blob_path(&blob.digest)).ok()).map(|m| m.len());
            if size != Some(blob.size) {
                let folder = layout.or(self.layouts.first()).map(|layout| layout.path().display().to_string());
                return Err(wrong_size(&folder.unwrap_or_default(), blob, size).into());
            }
        }
        Ok(())
    }
}

/// Returns the error for a blob that is missing, or whose size is not that of its descriptor.
fn wrong_size(layout: &str, blob: &Descriptor, size: Option<u64>) -> ActionError {
    let Descriptor { digest, size: expected, .. } = blob;
    match size {
        None => ActionError::failure(format!("the blob {digest} is missing from the layout {layout}")).hint(TRUNCATED),
        Some(size) if size < *expected => ActionError::failure(format!(
            "the layout {layout} has only {size} of {expected} bytes of the blob {digest}"
        ))
        .hint(TRUNCATED),
        Some(size) => {
            let more = size - expected;
            let message =
                format!("the layout {layout} has {size} bytes for the blob {digest}, {more} more than its {expected}");
            ActionError::failure(message).hint("the file was changed after the build: build again")
        }
    }
}

/// Returns the error for an image of which the layouts have two digests.
fn conflicting_digests(
    image: &str,
    (first, one): (&Layout, &Digest),
    (second, other): (&Layout, &Digest),
) -> ActionError {
    if first.path() == second.path() {
        let message = format!("the layout {} has two entries of {image}: {one} and {other}", first.path().display());
        return ActionError::usage_error(message)
            .hint("remove one of them from index.json, or delete the folder and build again");
    }
    let (first, second) = (first.path().display(), second.path().display());
    let message = format!("two layouts have {image} with different digests: {one} in {first}, {other} in {second}");
    ActionError::usage_error(message).hint("build each platform in a single job")
}

/// Returns the error for an image that no layout has.
fn not_built(key: &str, entries: &EntriesByName) -> ActionError {
    // A list of referrers, or a signature by cosign, is not an image.
    let is_image = |name: &&str| !name.parse::<Tag>().is_ok_and(|tag| tag.is_of_evidence());
    let keys: Vec<&str> = entries.keys().map(String::as_str).filter(is_image).collect();
    let found = if keys.is_empty() { "no image".to_owned() } else { keys.join(", ") };
    ActionError::failure(format!("image `{key}` was not built: the layout holds {found}"))
        .hint("build it too, or exclude it with the input `images`")
}

#[async_trait]
impl BlobSource for Layouts {
    fn origin(&self) -> Option<(&Location, &RepositoryName)> {
        None
    }

    async fn blob(&self, blob: &Descriptor) -> Result<BlobStream, StoreError> {
        match self.with_blob(&blob.digest).or(self.layouts.first()) {
            Some(layout) => layout.blob(blob).await,
            None => Err(StoreError::new(ErrorKind::NotFound, format!("the blob {} does not exist", blob.digest))),
        }
    }
}

/// Layouts are only read.
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

    async fn has_complete(&self, _: &Manifest, _: &[Manifest]) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn put_blob(&self, _: &Descriptor, _: &Arc<dyn BlobSource>) -> Result<BlobOutcome, StoreError> {
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

    async fn existing(&self, tags: &[Tag]) -> Result<Vec<(Tag, Digest)>, StoreError> {
        let mut existing: BTreeMap<Tag, Digest> = BTreeMap::new();
        for layout in &self.layouts {
            for (tag, digest) in layout.existing(tags).await? {
                if let Some(other) = existing.get(&tag).filter(|other| **other != digest) {
                    let message = format!("the tag `{tag}` is {other} in one layout and {digest} in another");
                    return Err(StoreError::new(ErrorKind::Conflict, message)
                        .hint("let one layout hold the signatures of an image"));
                }
                existing.insert(tag, digest);
            }
        }
        Ok(existing.into_iter().collect())
    }

    async fn tags(&self) -> Result<Vec<Tag>, StoreError> {
        Ok(Vec::new())
    }
}

fn read_only() -> StoreError {
    StoreError::new(ErrorKind::Unsupported, "the layouts of build are read-only")
}
