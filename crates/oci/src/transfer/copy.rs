//! The writes of a transfer, in the order in which they have to be done.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, select};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::time::timeout;

use super::graph::{Attached, Graph};
use crate::{BlobSource, Descriptor, Digest, ErrorKind, Manifest, Put, Store, StoreError, Tag};

/// Blobs of one image that are on their way at a time. Each takes some buffers, never its size.
const BLOBS_AT_A_TIME: usize = 16;

/// Manifests of one image that are written at a time.
const MANIFESTS_AT_A_TIME: usize = 8;

/// How long a tag that is on its way may take when the run is cancelled: well within the 5 s that the report has.
const TAG_GRACE: Duration = Duration::from_secs(3);

/// What a copy did with the blobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Blobs that were there.
    pub present: u64,
    /// Blobs that the registry linked.
    pub mounted: u64,
    /// Blobs whose bytes were sent.
    pub sent: u64,
}

/// Copies all that is below a root, and not the root: blobs, then child manifests by digest.
///
/// # Errors
/// The first failure; what was copied by then stays and is found by the next run.
pub async fn below_root(source: &Arc<dyn Store>, target: &Arc<dyn Store>, graph: &Graph) -> Result<Copied, StoreError> {
    if same_repository(source.as_ref(), target.as_ref()) {
        return Ok(Copied::default());
    }
    let blob_source: Arc<dyn BlobSource> = source.clone();
    let copied = blobs(&graph.blobs, &blob_source, target).await?;
    // An index comes after what it holds: after all images, and of the indexes one after the other, as the graph has them.
    let (indexes, images): (Vec<&Manifest>, Vec<&Manifest>) =
        graph.children.iter().partition(|manifest| manifest.is_index());
    for (manifests, at_a_time) in [(images, MANIFESTS_AT_A_TIME), (indexes, 1)] {
        let puts: Vec<_> = manifests.into_iter().map(|manifest| target.put_manifest(manifest, None)).collect();
        stream::iter(puts).buffered(at_a_time).try_collect::<()>().await?;
    }
    Ok(copied)
}

/// Copies what is attached to an image, after the image itself: each referrer after what it refers to. Whether one that
/// can't be copied is the end of it is for `failed` to say. The referrers that are there now are returned.
///
/// # Errors
/// What `failed` makes of a failure.
pub async fn attached(
    source: &Arc<dyn Store>,
    target: &Arc<dyn Store>,
    attached: &Attached,
    mut failed: impl FnMut(StoreError) -> Result<(), StoreError>,
) -> Result<Vec<Digest>, StoreError> {
    let mut written = Vec::new();
    if same_repository(source.as_ref(), target.as_ref()) {
        return Ok(written);
    }
    let referrers = attached.referrers.iter().map(|graph| (graph, None));
    for (graph, tag) in referrers.chain(attached.tags.iter().map(|(tag, graph)| (graph, Some(tag)))) {
        let copied = async {
            below_root(source, target, graph).await?;
            target.put_manifest(&graph.root, tag).await
        };
        match (copied.await, tag) {
            (Ok(()), None) => written.push(graph.root.digest.clone()),
            (Ok(()), Some(_)) => {}
            (Err(error), _) => failed(error)?,
        }
    }
    Ok(written)
}

/// What is attached in the source and has to be copied: where the image is `there` already, what the target lacks of it.
///
/// # Errors
/// When one of them can't say what it has.
pub async fn wanted(
    source: &Arc<dyn Store>,
    target: &Arc<dyn Store>,
    graph: &Graph,
    there: bool,
) -> Result<Attached, StoreError> {
    let attached = Attached::read(source, graph).await?;
    if there { missing(target, graph, &attached).await } else { Ok(attached) }
}

/// What of `wanted` the target does not have yet.
async fn missing(target: &Arc<dyn Store>, graph: &Graph, wanted: &Attached) -> Result<Attached, StoreError> {
    let mut has: Vec<_> = Vec::new();
    let subjects = graph.manifests().chain(wanted.referrers.iter().map(|referrer| &referrer.root));
    // Only what has wanted referrers is asked for.
    for subject in subjects {
        let refers = |referrer: &Graph| referrer.root.subject.as_ref().is_some_and(|s| s.digest == subject.digest);
        if wanted.referrers.iter().any(refers) {
            has.extend(target.referrers(&subject.digest).await?.into_iter().map(|referrer| referrer.digest));
        }
    }
    let referrers = wanted.referrers.iter().filter(|referrer| !has.contains(&referrer.root.digest)).cloned().collect();
    let mut tags = Vec::new();
    for (tag, graph) in &wanted.tags {
        if target.head(tag).await?.as_ref() != Some(&graph.root.digest) {
            tags.push((tag.clone(), graph.clone()));
        }
    }
    Ok(Attached { referrers, tags })
}

/// Writes an artifact that was made here: its blobs, then its manifest by digest.
///
/// # Errors
/// The first failure.
pub async fn artifact(
    target: &Arc<dyn Store>,
    manifest: &Manifest,
    source: &Arc<dyn BlobSource>,
) -> Result<(), StoreError> {
    let mut all: Vec<Descriptor> = Vec::new();
    for blob in manifest.blobs() {
        if all.iter().all(|seen| seen.digest != blob.digest) {
            all.push(blob.clone());
        }
    }
    blobs(&all, source, target).await?;
    target.put_manifest(manifest, None).await
}

/// Writes the root under its digest.
///
/// # Errors
/// Those of the write.
pub async fn root(target: &Arc<dyn Store>, graph: &Graph) -> Result<(), StoreError> {
    target.put_manifest(&graph.root, None).await
}

/// Writes tags, one after the other. When `cancelled` resolves no further one is begun, and the one that is on its way
/// gets the time to arrive: what became of it has to be told.
///
/// # Errors
/// Those of the writes, and [`ErrorKind::Cancelled`] where a tag was not written.
pub async fn tags(
    target: &Arc<dyn Store>,
    graph: &Graph,
    tags: impl IntoIterator<Item = &Tag>,
    cancelled: impl Future<Output = ()>,
) -> Result<(), StoreError> {
    let cancelled = cancelled.boxed_local().shared();
    for tag in tags {
        if cancelled.clone().now_or_never().is_some() {
            return Err(StoreError::new(ErrorKind::Cancelled, format!("cancelled before the tag `{tag}` was written")));
        }
        match select(target.put_manifest(&graph.root, Some(tag)), cancelled.clone()).await {
            Either::Left((written, _)) => written?,
            Either::Right(((), write)) => timeout(TAG_GRACE, write).await.map_err(|_| {
                let message = format!("cancelled while the tag `{tag}` was written: whether it was is not known");
                StoreError::new(ErrorKind::Cancelled, message)
            })??,
        }
    }
    Ok(())
}

/// Whether both are one repository, where nothing below a tag has to be copied.
pub fn same_repository(source: &dyn Store, target: &dyn Store) -> bool {
    source.origin().is_some() && source.origin() == target.origin()
}

async fn blobs(
    blobs: &[Descriptor],
    source: &Arc<dyn BlobSource>,
    target: &Arc<dyn Store>,
) -> Result<Copied, StoreError> {
    let puts: Vec<_> = blobs.iter().map(|blob| target.put_blob(blob, source)).collect();
    let puts: Vec<Put> = stream::iter(puts).buffer_unordered(BLOBS_AT_A_TIME).try_collect().await?;
    let count = |wanted| puts.iter().filter(|put| **put == wanted).count() as u64;
    Ok(Copied { present: count(Put::Present), mounted: count(Put::Mounted), sent: count(Put::Sent) })
}
