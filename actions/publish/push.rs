//! The writes: content, what is attached, the record, and the tags last.

use std::sync::Arc;

use futures::stream::{self, StreamExt};

use lifecycle::evidence::{Record, RecordKind, Recorded};
use lifecycle::oci::{BlobSource, Digest, Store, StoreError, Tag};
use lifecycle::project::{EvidenceMode, Named, Release, Repository};
use lifecycle::runner::{Annotation, Level, Runner};
use lifecycle::transfer::{Attached, copy};
use lifecycle::writes::Writes;
use lifecycle::{Diagnosis, Problem};

use crate::inputs::Request;
use crate::plan::{Planned, Work};
use crate::report::{Outcome, Published};
use crate::sign::Reach;

/// Publishes all images; one that fails stops no other.
pub(crate) async fn all(request: &Request, images: Vec<Planned>, runner: &Runner) -> Vec<Published> {
    let images: Vec<_> = images.into_iter().map(|planned| one(request, planned, runner)).collect();
    stream::iter(images).buffered(request.common.concurrency).collect().await
}

async fn one(request: &Request, planned: Planned, runner: &Runner) -> Published {
    let Planned { named, work } = planned;
    let outcome = match work {
        Ok(work) => {
            runner.say(format!("{}: {}", named.key, named.reference));
            let content = tokio::select! {
                outcome = content(request, &named, &work, runner) => outcome,
                () = runner.cancelled() => Err(Problem::failure("cancelled before its tag was written").into()),
            };
            let outcome = match content {
                Ok(()) => tags(&work, runner).await,
                Err(error) => Err(error),
            };
            // What is kept is not this build.
            if outcome.is_ok() && work.kept.is_none() {
                runner.artifact(&named.reference.repository_address(), &work.built.graph.root.digest.to_string());
            }
            outcome.map(|()| Outcome::published(&work))
        }
        Err(error) => Err(error),
    };
    Published::new(&named, outcome)
}

/// Everything but the tags.
async fn content(request: &Request, named: &Named, work: &Work, runner: &Runner) -> anyhow::Result<()> {
    if work.kept.is_some() {
        return Ok(());
    }
    let (source, target, graph) = (&work.built.store, &work.target.store, &work.built.graph);
    let additions = Additions::of(request, named, work, runner).await?;
    if work.repository.make(&request.target.aws, &named.reference, &request.writing.repository_settings).await? {
        runner.say(format!("{}: created the repository {}", named.key, named.reference.repository));
    }
    let Additions { there, attached, record } = additions;
    if !there {
        copy::below_root(source, target, graph).await?;
    }
    let attaches = !attached.referrers.is_empty() || !attached.tags.is_empty() || record.is_some();
    if attaches && !there {
        copy::root(target, graph).await?;
    }
    let failed = |error| tolerate(request, named, error, runner);
    let mut written = copy::attached(source, target, &attached, failed).await?;
    if let Some(record) = record {
        let artifact = record.artifact(&graph.root.descriptor())?;
        let manifest = artifact.manifest.clone();
        let artifact: Arc<dyn BlobSource> = Arc::new(artifact);
        copy::artifact(target, &manifest, &artifact).await?;
        written.push(manifest.digest);
    }
    sign(request, named, work, written, runner).await
}

/// What comes beside the image itself.
struct Additions {
    /// The image is in the repository already.
    there: bool,
    attached: Attached,
    record: Option<Record>,
}

impl Additions {
    /// Looks for it; nothing is written.
    async fn of(request: &Request, named: &Named, work: &Work, runner: &Runner) -> anyhow::Result<Self> {
        let (source, target, graph) = (&work.built.store, &work.target.store, &work.built.graph);
        let there = work.tags.iter().any(|tag| tag.current.as_ref() == Some(&graph.root.digest));
        let attached = match request.writing.evidence {
            EvidenceMode::None => Attached::default(),
            _ => match copy::wanted(source, target, graph, there).await {
                Ok(attached) => attached,
                Err(error) => tolerate(request, named, error, runner).map(|()| Attached::default())?,
            },
        };
        let record = match request.writing.record {
            true => new_record(request, named, work, runner, there).await?,
            false => None,
        };
        Ok(Self { there, attached, record })
    }
}

/// Evidence that does not arrive is an error, or with `best-effort` a warning.
fn tolerate(request: &Request, named: &Named, error: StoreError, runner: &Runner) -> Result<(), StoreError> {
    if request.writing.evidence != EvidenceMode::BestEffort {
        return Err(error);
    }
    let why = Diagnosis::of(&error.into()).line();
    runner.annotate(Annotation::new(Level::Warning, format!("{}: evidence did not arrive: {why}", named.key)));
    Ok(())
}

/// What a run would write, for a dry run: of each image that can be published.
pub(crate) async fn writes(request: &Request, images: &mut [Planned], runner: &Runner) -> Vec<(String, Writes)> {
    let looks = images.iter_mut().map(|planned| async {
        let Planned { named, work } = planned;
        let writes = match work {
            Ok(found) => of_image(request, named, found, runner).await,
            Err(_) => return None,
        };
        match writes {
            Ok(writes) => Some((named.key.clone(), writes)),
            Err(error) => {
                *work = Err(error);
                None
            }
        }
    });
    let looks: Vec<_> = looks.collect();
    let all = stream::iter(looks).buffered(request.common.concurrency).filter_map(std::future::ready).collect();
    tokio::select! {
        all = all => all,
        () = runner.cancelled() => Vec::new(),
    }
}

async fn of_image(request: &Request, named: &Named, work: &Work, runner: &Runner) -> anyhow::Result<Writes> {
    let mut writes = Writes::default();
    if work.kept.is_some() {
        return Ok(writes);
    }
    let (graph, digest) = (&work.built.graph, &work.built.graph.root.digest);
    let Additions { there, attached, record } = Additions::of(request, named, work, runner).await?;
    if work.repository == Repository::ToBeMade {
        writes.repository = Some(named.reference.repository_address());
    }
    if !there {
        writes.content(graph);
    }
    writes.evidence(&attached);
    writes.record = record.map(|record| record.kind);
    if request.cosign.is_some() {
        let is_new = work.repository == Repository::ToBeMade || !is_signed(&work.target.store, digest).await?;
        let of_image = if is_new { graph.manifests().count() } else { 0 };
        writes.signatures = of_image + attached.referrers.len() + usize::from(writes.record.is_some());
    }
    let written = work.tags.iter().filter(|tag| tag.current.as_ref() != Some(digest));
    writes.tags = written.map(|planned| (planned.tag.clone(), planned.current.clone())).collect();
    Ok(writes)
}

/// Signs the image with its platforms, and what was attached to it now.
async fn sign(
    request: &Request,
    named: &Named,
    work: &Work,
    written: Vec<Digest>,
    runner: &Runner,
) -> anyhow::Result<()> {
    let Some(cosign) = &request.cosign else { return Ok(()) };
    let (target, graph) = (&work.target.store, &work.built.graph);
    let mut digests = written;
    if !is_signed(target, &graph.root.digest).await? {
        digests.extend(graph.manifests().map(|manifest| manifest.digest.clone()));
        copy::root(target, graph).await?;
    }
    if digests.is_empty() {
        return Ok(());
    }
    let reach = Reach { aws: &request.target.aws, options: &request.common.options, runner };
    Ok(request.sign.sign(cosign, &named.reference, &digests, &reach).await?)
}

/// Whether somebody has signed an image, in either of the ways in which cosign does.
async fn is_signed(target: &Arc<dyn Store>, digest: &Digest) -> anyhow::Result<bool> {
    let [signatures, ..] = Tag::of_cosign(digest);
    if target.head(&signatures).await?.is_some() {
        return Ok(true);
    }
    let of_cosign = |kind: &str| kind.contains("sigstore") || kind.contains("cosign");
    let referrers = target.referrers(digest).await?;
    Ok(referrers.iter().any(|referrer| referrer.artifact_type.as_deref().is_some_and(of_cosign)))
}

/// The tags that do not hold the image yet, that of the reference first.
async fn tags(work: &Work, runner: &Runner) -> anyhow::Result<()> {
    if work.kept.is_some() {
        return Ok(());
    }
    let graph = &work.built.graph;
    let wanted = work.tags.iter().filter(|tag| tag.current.as_ref() != Some(&graph.root.digest));
    copy::tags(&work.target.store, graph, wanted.map(|planned| &planned.tag), runner.cancelled()).await?;
    Ok(())
}

/// The record of this publication; none where the newest says the same already.
async fn new_record(
    request: &Request,
    named: &Named,
    work: &Work,
    runner: &Runner,
    there: bool,
) -> anyhow::Result<Option<Record>> {
    let version = request.version.to_string();
    let release = Release { environment: &request.environment, version: &version };
    let (run, digest) = (&runner.environment, &work.built.graph.root.digest);
    let record = request.common.project.record(run, RecordKind::Publish, release, &named.reference, digest);
    if !there {
        return Ok(Some(record));
    }
    let records = Recorded::all(&work.target.store, &record.digest).await?;
    let newest = records.iter().find(|found| found.record.to == record.to);
    Ok((!newest.is_some_and(|newest| record.repeats(&newest.record))).then_some(record))
}
