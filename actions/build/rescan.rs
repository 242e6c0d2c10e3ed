//! Scans reused images again whose scan is too old.

use std::sync::Arc;

use time::OffsetDateTime;

use lifecycle::clock;
use lifecycle::evidence::read;
use oci::transfer::{Graph, copy};
use oci::{BlobSource, Descriptor, Layout, Manifest, Platform, Reference, Store, StoreError};

use crate::built_image::BuiltImage;
use crate::released::of_platforms;
use crate::request::ReuseOptions;
use crate::reuse::ReusedImage;

/// A reused image that was fetched to be scanned.
pub(crate) struct Fetched {
    /// The image in the layout.
    pub(crate) built: BuiltImage,
    /// Why its last scan does not count.
    pub(crate) reason: String,
}

/// Fetches a reused image with its evidence into the layout if it has to be scanned again. Returns `None` if each platform
/// has a recent scan.
///
/// # Errors
/// If its evidence cannot be read, or the image cannot be fetched.
pub(crate) async fn fetch_if_stale(
    reused: &ReusedImage,
    options: &ReuseOptions,
    layout: &Layout,
) -> anyhow::Result<Option<Fetched>> {
    let reference = Reference::parse(&reused.reference, options.registry.registry.as_deref())?;
    let store = options.registry.stores.open(&reference)?.store;
    let graph = Graph::read(&store, reused.manifest.clone()).await?;
    let platforms = of_platforms(&store, &graph).await?;
    match stale(&store, &platforms, options).await? {
        Some(reason) => {
            let evidence = fetch(&store, &graph, layout).await?;
            let built = BuiltImage { root: graph.root, platforms, attestations: Vec::new(), evidence };
            Ok(Some(Fetched { built, reason }))
        }
        None => Ok(None),
    }
}

/// Returns why an image has to be scanned again, if it has to.
async fn stale(
    store: &Arc<dyn Store>,
    platforms: &[(Platform, Manifest)],
    options: &ReuseOptions,
) -> Result<Option<String>, StoreError> {
    for (_, manifest) in platforms {
        let scans = read::scan(store, &manifest.digest).await?;
        // A scan that cannot be read does not count. The newest one comes first.
        let Some(newest) = scans.into_iter().find(|scan| scan.content.is_ok()) else {
            return Ok(Some("it had no scan".to_owned()));
        };
        let Some(created) = newest.created else {
            return Ok(Some("its last scan has no date".to_owned()));
        };
        if OffsetDateTime::now_utc() - created > options.scan_age {
            return Ok(Some(format!("its last scan was from {}", clock::at_seconds(created.unix_timestamp()))));
        }
    }
    Ok(None)
}

/// Copies an image with its evidence into a layout, and returns the evidence. The image gets its name later.
async fn fetch(store: &Arc<dyn Store>, graph: &Graph, layout: &Layout) -> anyhow::Result<Vec<Descriptor>> {
    let target: Arc<dyn Store> = Arc::new(layout.clone());
    let source: Arc<dyn BlobSource> = store.clone();
    for blob in &graph.blobs {
        target.put_blob(blob, &source).await?;
    }
    for manifest in graph.children.iter().chain([&graph.root]) {
        layout.add_blob(&manifest.bytes)?;
    }
    let evidence = copy::needed_attachments(store, &target, graph, false).await?;
    copy::attachments(store, &target, &evidence, Err).await?;
    let entry = |referrer: &Graph| {
        let Manifest { annotations, .. } = &referrer.root;
        Descriptor { annotations: annotations.clone(), ..referrer.root.descriptor() }
    };
    Ok(evidence.referrers.iter().map(entry).collect())
}
