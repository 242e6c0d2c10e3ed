//! The writes: content, what is attached, the record, and the tags last.

use futures::stream::{self, StreamExt};

use lifecycle::Problem;
use lifecycle::evidence::{Record, RecordKind, Recorded};
use lifecycle::oci::Digest;
use lifecycle::project::writes::{Beside, Writes};
use lifecycle::project::{EvidenceMode, Named, Release, Repository, attach};
use lifecycle::runner::Runner;
use lifecycle::transfer::{Attached, copy};

use crate::inputs::Request;
use crate::layouts::Built;
use crate::plan::Planned;
use crate::report::{Outcome, Published};
use crate::sign::{Reach, Whose};
use crate::work::Work;

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
                Ok(beside) => tags(&work, runner).await.map(|()| beside),
                Err(error) => Err(error),
            };
            // What is kept is not this build.
            if outcome.is_ok() && work.kept.is_none() {
                runner.artifact(&named.reference.repository_address(), &work.built.graph.root.digest.to_string());
            }
            outcome.map(|beside| Outcome::published(&work, beside))
        }
        Err(error) => Err(error),
    };
    Published::new(&named, outcome)
}

/// Everything but the tags.
async fn content(request: &Request, named: &Named, work: &Work, runner: &Runner) -> anyhow::Result<Beside> {
    if work.kept.is_some() {
        return Ok(Beside::default());
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
    let failed = |error| request.writing.evidence.tolerate(&named.key, error, runner);
    let mut written = copy::attached(source, target, &attached, failed).await?;
    let mut beside = Beside { evidence: written.len(), record: record.is_some(), signatures: 0 };
    if work.built.reused {
        // What was found at a release has the signatures that it has.
        written.clear();
    }
    if let Some(record) = record {
        written.push(attach(&record, target, &graph.root).await?);
    }
    beside.signatures = sign(request, named, work, written, there, runner).await?;
    Ok(beside)
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
        // Without its signature it is not done.
        let there = signed(request, named, work, runner).await?
            && work.tags.iter().any(|tag| tag.current.as_ref() == Some(&graph.root.digest));
        let attached = match request.writing.evidence {
            EvidenceMode::None => Attached::default(),
            _ => match copy::wanted(source, target, graph, there).await {
                Ok(attached) => attached,
                Err(error) => {
                    request.writing.evidence.tolerate(&named.key, error, runner).map(|()| Attached::default())?
                }
            },
        };
        let record = match request.writing.record {
            true => new_record(request, named, work, runner, there).await?,
            false => None,
        };
        Ok(Self { there, attached, record })
    }
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
        let of_image = if there { 0 } else { graph.manifests().count() };
        let of_layout = if work.built.reused { 0 } else { of_image + attached.referrers.len() };
        writes.signatures = of_layout + usize::from(writes.record.is_some());
    }
    let written = work.tags.iter().filter(|tag| tag.current.as_ref() != Some(digest));
    writes.tags = written.map(|planned| (planned.tag.clone(), planned.current.clone())).collect();
    Ok(writes)
}

/// Whether the image needs no signature: none is wanted, or it has ours. One of somebody else does not count.
///
/// # Errors
/// When it is taken from a release that we have not signed: what was not built here gets no signature.
async fn signed(request: &Request, named: &Named, work: &Work, runner: &Runner) -> anyhow::Result<bool> {
    let Some(cosign) = &request.cosign else { return Ok(true) };
    let Built { graph, reused, .. } = &work.built;
    let holds = work.tags.iter().any(|tag| tag.current.as_ref() == Some(&graph.root.digest));
    if !reused && !holds {
        return Ok(false);
    }
    let whose = if *reused { Whose::Repository } else { Whose::Run };
    let reach = Reach { aws: &request.target.aws, options: &request.common.options, runner };
    match request.sign.verify(cosign, &named.reference, &graph.root.digest, whose, &reach).await {
        Ok(()) => Ok(true),
        Err(_) if !reused => Ok(false),
        Err(problem) => {
            let message =
                format!("image `{}` was to be taken from a release that is not signed as this one is", named.key);
            Err(Problem::failure(message).because(problem).hint("build it again without `since`").into())
        }
    }
}

/// Signs what was attached now, and the image with its platforms where it came from the layouts: so many manifests.
async fn sign(
    request: &Request,
    named: &Named,
    work: &Work,
    written: Vec<Digest>,
    there: bool,
    runner: &Runner,
) -> anyhow::Result<usize> {
    let Some(cosign) = &request.cosign else { return Ok(0) };
    let (target, graph) = (&work.target.store, &work.built.graph);
    let mut digests = written;
    if !there && !work.built.reused {
        digests.extend(graph.manifests().map(|manifest| manifest.digest.clone()));
        copy::root(target, graph).await?;
    }
    if digests.is_empty() {
        return Ok(0);
    }
    let reach = Reach { aws: &request.target.aws, options: &request.common.options, runner };
    request.sign.sign(cosign, &named.reference, &digests, &reach).await?;
    Ok(digests.len())
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
    let release = Release { environment: &request.environment, version: &request.version };
    let (run, digest) = (&runner.environment, &work.built.graph.root.digest);
    let mut record = request.common.project.record(run, RecordKind::Publish, release, &named.reference, digest);
    let held = work.tags.first().and_then(|tag| tag.current.clone());
    record.replaced = held.filter(|held| held != digest);
    if !there {
        return Ok(Some(record));
    }
    let records = Recorded::all(&work.target.store, &record.digest).await?;
    let newest = records.iter().find(|found| found.record.to == record.to);
    Ok((!newest.is_some_and(|newest| record.repeats(&newest.record))).then_some(record))
}
