//! The writes: the content of all images, then the tags.

use futures::stream::{self, StreamExt};

use lifecycle::Problem;
use lifecycle::evidence::{GateStatus, Record, RecordKind};
use lifecycle::project::writes::{Beside, Writes};
use lifecycle::project::{EvidenceMode, Release, Repository, attach};
use lifecycle::runner::Runner;
use lifecycle::transfer::{Attached, copy};

use crate::inputs::Request;
use crate::plan::{Edge, Plan, Planned};

/// Writes what the plan says, and puts into it what could not be written.
///
/// The content of all images is there before the first tag of any is written; an image whose content could not be
/// copied gets no tag and holds no other back. Records come between, so that they are of the moment at which the tags
/// are written, however long the content takes.
pub(crate) async fn all(request: &Request, mut plan: Plan, runner: &Runner) -> Plan {
    let copied: Vec<_> = plan.images.into_iter().map(|planned| copy_content(request, planned, runner)).collect();
    plan.images = stream::iter(copied).buffered(request.common.concurrency).collect().await;
    let recorded: Vec<_> = plan.images.into_iter().map(|planned| attach_record(request, planned, runner)).collect();
    plan.images = stream::iter(recorded).buffered(request.common.concurrency).collect().await;
    let tagged: Vec<_> = plan.images.into_iter().map(|planned| write_tags(planned, runner)).collect();
    plan.images = stream::iter(tagged).buffered(request.common.concurrency).collect().await;
    plan
}

async fn copy_content(request: &Request, mut planned: Planned, runner: &Runner) -> Planned {
    if let Ok(edge) = &planned.work {
        match unless_cancelled(runner, content(request, &planned, edge, runner)).await {
            Ok(beside) => planned.beside = beside,
            Err(error) => planned.work = Err(error),
        }
    }
    planned
}

async fn attach_record(request: &Request, mut planned: Planned, runner: &Runner) -> Planned {
    let outcome = match &planned.work {
        Ok(edge) if edge.adds_record && edge.kept.is_none() => {
            let record = new_record(request, &planned, edge, runner);
            let attached = async { Ok(attach(&record, &edge.target.store, &edge.graph.root).await?) };
            unless_cancelled(runner, attached).await
        }
        _ => return planned,
    };
    match outcome {
        Ok(_) => planned.beside.record = true,
        Err(error) => planned.work = Err(error),
    }
    planned
}

async fn write_tags(mut planned: Planned, runner: &Runner) -> Planned {
    if let Ok(edge) = &planned.work
        && let Err(error) = tags(edge, runner).await
    {
        planned.work = Err(error);
    }
    planned
}

async fn unless_cancelled<T>(runner: &Runner, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        outcome = work => outcome,
        () = runner.cancelled() => Err(Problem::failure("cancelled before its tag was written").into()),
    }
}

async fn content(request: &Request, planned: &Planned, edge: &Edge, runner: &Runner) -> anyhow::Result<Beside> {
    if edge.kept.is_some() {
        return Ok(Beside::default());
    }
    let (source, target, graph) = (&edge.source.store, &edge.target.store, &edge.graph);
    runner.say(format!("{}: {} → {}", planned.named.key, planned.source, planned.named.reference));
    let attached = attached(request, planned, edge, runner).await?;
    if edge.repository.make(&request.target.aws, &planned.named.reference, &request.writing.repository_settings).await?
    {
        runner.say(format!("{}: created the repository {}", planned.named.key, planned.named.reference.repository));
    }
    if !edge.is_there() {
        copy::below_root(source, target, graph).await?;
    }
    let attaches = !attached.referrers.is_empty() || !attached.tags.is_empty() || edge.adds_record;
    if attaches && !edge.is_there() && !edge.is_in_one_repository() {
        copy::root(target, graph).await?;
    }
    let failed = |error| request.writing.evidence.tolerate(&planned.named.key, error, runner);
    let written = copy::attached(source, target, &attached, failed).await?;
    Ok(Beside { evidence: written.len(), record: false, signatures: 0 })
}

/// The evidence that goes along; nothing is written.
async fn attached(request: &Request, planned: &Planned, edge: &Edge, runner: &Runner) -> anyhow::Result<Attached> {
    if request.writing.evidence == EvidenceMode::None || edge.is_in_one_repository() {
        return Ok(Attached::default());
    }
    match copy::wanted(&edge.source.store, &edge.target.store, &edge.graph, edge.is_there()).await {
        Ok(attached) => Ok(attached),
        Err(error) => {
            Ok(request.writing.evidence.tolerate(&planned.named.key, error, runner).map(|()| Attached::default())?)
        }
    }
}

/// What a run would write, for a dry run: of each image that can be promoted.
pub(crate) async fn writes(request: &Request, plan: &mut Plan, runner: &Runner) -> Vec<(String, Writes)> {
    let looks = plan.images.iter_mut().map(|planned| async {
        match of_image(request, planned, runner).await {
            Ok(writes) => writes.map(|writes| (planned.named.key.clone(), writes)),
            Err(error) => {
                planned.work = Err(error);
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

async fn of_image(request: &Request, planned: &Planned, runner: &Runner) -> anyhow::Result<Option<Writes>> {
    let Ok(edge) = &planned.work else { return Ok(None) };
    let mut writes = Writes::default();
    if edge.kept.is_some() {
        return Ok(Some(writes));
    }
    writes.evidence(&attached(request, planned, edge, runner).await?);
    if edge.repository == Repository::ToBeMade {
        writes.repository = Some(planned.named.reference.repository_address());
    }
    if !edge.is_there() && !edge.is_in_one_repository() {
        writes.content(&edge.graph);
    }
    if edge.adds_record {
        writes.record = Some(kind(request));
    }
    let written = edge.tags.iter().filter(|tag| tag.is_written(&edge.graph.root.digest));
    writes.tags = written.map(|planned| (planned.tag.clone(), planned.current.clone())).collect();
    Ok(Some(writes))
}

async fn tags(edge: &Edge, runner: &Runner) -> anyhow::Result<()> {
    if edge.kept.is_some() {
        return Ok(());
    }
    let digest = &edge.graph.root.digest;
    let written = edge.tags.iter().filter(|tag| tag.is_written(digest)).map(|planned| &planned.tag);
    copy::tags(&edge.target.store, &edge.graph, written, runner.cancelled()).await?;
    Ok(())
}

/// The record of this promotion.
fn new_record(request: &Request, planned: &Planned, edge: &Edge, runner: &Runner) -> Record {
    let release = Release { environment: &request.to, version: &request.version };
    let (to, digest) = (&planned.named.reference, &edge.graph.root.digest);
    Record {
        from: (!request.rollback).then(|| planned.source.to_string()),
        replaced: edge.replaced.clone(),
        supersedes: edge.superseded.clone(),
        gates: planned.gates.clone(),
        overridden: request.override_reason.clone().filter(|_| planned.has_gate(GateStatus::Overridden)),
        ..request.common.project.record(&runner.environment, kind(request), release, to, digest)
    }
}

fn kind(request: &Request) -> RecordKind {
    if request.rollback { RecordKind::Rollback } else { RecordKind::Promote }
}
