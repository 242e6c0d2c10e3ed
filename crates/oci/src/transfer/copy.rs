//! The writes of a transfer, in their required order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, select};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::time::timeout;

use super::graph::{Attached, Graph};
use crate::{BlobOutcome, BlobSource, Descriptor, Digest, ErrorKind, Manifest, Store, StoreError, Tag};

/// The maximum number of concurrent blob transfers of an image. Each takes some buffers, and never the blob's size.
const BLOBS_AT_A_TIME: usize = 16;

/// The maximum number of concurrent manifest writes of an image.
const MANIFESTS_AT_A_TIME: usize = 8;

/// The maximum number of concurrent lists of referrers of an image.
const LISTS_AT_A_TIME: usize = 16;

/// How long a tag write may continue after the run is cancelled: well within the 5 s that are left for the report.
const TAG_GRACE: Duration = Duration::from_secs(3);

/// How many blobs a copy found or transferred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Blobs that already existed.
    pub present: u64,
    /// Blobs that the registry mounted.
    pub mounted: u64,
    /// Blobs that were uploaded.
    pub sent: u64,
}

/// Opens the connections for looking up this many blobs, because an image that is being planned will soon be copied.
pub fn open_ahead(target: &dyn Store, blobs: usize) {
    target.open_ahead(blobs.min(BLOBS_AT_A_TIME));
}

/// Copies everything below a root: blobs, then child manifests by digest.
///
/// # Errors
/// Returns the first failure. What has been copied by then is kept, and the next run finds it.
pub async fn below_root(source: &Arc<dyn Store>, target: &Arc<dyn Store>, graph: &Graph) -> Result<Copied, StoreError> {
    if same_repository(source.as_ref(), target.as_ref()) {
        return Ok(Copied::default());
    }
    // Blobs that the target does not have are read from here, unless both are in one place.
    let location = |store: &dyn Store| store.origin().map(|(location, _)| location.clone());
    if location(source.as_ref()) != location(target.as_ref()) {
        source.open_ahead(graph.blobs.len().min(BLOBS_AT_A_TIME));
    }
    let blob_source: Arc<dyn BlobSource> = source.clone();
    let copied = blobs(&graph.blobs, &blob_source, target).await?;
    // An index is written after its children: first all images, then the indexes one by one, in the order of the
    // graph.
    let (indexes, images): (Vec<&Manifest>, Vec<&Manifest>) =
        graph.children.iter().partition(|manifest| manifest.is_index());
    for (manifests, at_a_time) in [(images, MANIFESTS_AT_A_TIME), (indexes, 1)] {
        let puts: Vec<_> = manifests.into_iter().map(|manifest| target.put_manifest(manifest, None)).collect();
        stream::iter(puts).buffered(at_a_time).try_collect::<()>().await?;
    }
    Ok(copied)
}

/// Copies the attachments of an image that has been copied, each referrer after its subject. `failed` decides whether
/// a failure ends the copy. Returns the referrers that exist in the target afterwards.
///
/// # Errors
/// Returns the error of `failed`.
pub async fn attachments(
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

/// Returns the attachments in the source that have to be copied. If the image is already `there`, returns only those
/// that are missing in the target.
///
/// # Errors
/// Returns an error if the source or target cannot be read.
pub async fn needed_attachments(
    source: &Arc<dyn Store>,
    target: &Arc<dyn Store>,
    graph: &Graph,
    there: bool,
) -> Result<Attached, StoreError> {
    let attached = Attached::read(source, graph).await?;
    if there { missing(target, graph, &attached).await } else { Ok(attached) }
}

/// Returns those of `wanted` that are missing in the target.
async fn missing(target: &Arc<dyn Store>, graph: &Graph, wanted: &Attached) -> Result<Attached, StoreError> {
    let subjects = graph.manifests().chain(wanted.referrers.iter().flat_map(Graph::manifests));
    let subjects: BTreeSet<&Digest> = subjects.map(|subject| &subject.digest).collect();
    // Only the subjects of wanted referrers are looked up.
    let is_subject = |digest: &Digest| {
        let refers = |referrer: &Graph| referrer.root.subject.as_ref().is_some_and(|subject| subject.digest == *digest);
        wanted.referrers.iter().any(refers)
    };
    let listings: Vec<_> =
        subjects.into_iter().filter(|subject| is_subject(subject)).map(|subject| target.referrers(subject)).collect();
    let listed: Vec<Vec<Descriptor>> = stream::iter(listings).buffered(LISTS_AT_A_TIME).try_collect().await?;
    let has: BTreeSet<Digest> = listed.into_iter().flatten().map(|referrer| referrer.digest).collect();
    let referrers = wanted.referrers.iter().filter(|referrer| !has.contains(&referrer.root.digest)).cloned().collect();
    let mut tags = Vec::new();
    for (tag, graph) in &wanted.tags {
        if target.head(tag).await?.as_ref() != Some(&graph.root.digest) {
            tags.push((tag.clone(), graph.clone()));
        }
    }
    Ok(Attached { referrers, tags })
}

/// Writes a new artifact: its blobs, then its manifest by digest.
///
/// # Errors
/// Returns the first failure.
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
/// Returns the error of the write.
pub async fn root(target: &Arc<dyn Store>, graph: &Graph) -> Result<(), StoreError> {
    target.put_manifest(&graph.root, None).await
}

/// Writes tags, one by one. When `cancelled` resolves, no further write starts, and the current one may finish within
/// `TAG_GRACE`, so that its result can be reported.
///
/// # Errors
/// Returns the error of a write, or [`ErrorKind::Cancelled`] if a tag was not written.
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
                let message = format!("cancelled while writing the tag `{tag}`: it is unknown whether it was written");
                StoreError::new(ErrorKind::Cancelled, message)
            })??,
        }
    }
    Ok(())
}

/// Returns whether both are the same repository, in which only tags have to be written.
pub fn same_repository(source: &dyn Store, target: &dyn Store) -> bool {
    source.origin().is_some() && source.origin() == target.origin()
}

async fn blobs(
    blobs: &[Descriptor],
    source: &Arc<dyn BlobSource>,
    target: &Arc<dyn Store>,
) -> Result<Copied, StoreError> {
    let puts: Vec<_> = blobs.iter().map(|blob| target.put_blob(blob, source)).collect();
    let puts: Vec<BlobOutcome> = stream::iter(puts).buffer_unordered(BLOBS_AT_A_TIME).try_collect().await?;
    let count = |wanted| puts.iter().filter(|put| **put == wanted).count() as u64;
    Ok(Copied {
        present: count(BlobOutcome::Present),
        mounted: count(BlobOutcome::Mounted),
        sent: count(BlobOutcome::Sent),
    })
}
