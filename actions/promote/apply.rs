//! The writes: the content of all images, then the tags.

use std::sync::Arc;

use futures::stream::{self, StreamExt};

use lifecycle::evidence::{GateStatus, Record, RecordKind};
use lifecycle::oci::{BlobSource, StoreError};
use lifecycle::project::{EvidenceMode, Release};
use lifecycle::runner::{Annotation, Level, Runner};
use lifecycle::transfer::{Attached, copy};
use lifecycle::{Diagnosis, Problem};

use crate::inputs::Request;
use crate::plan::{Edge, Plan, Planned};

/// Writes what the plan says, and puts into it what could not be written.
///
/// The content of all images is there before the first tag of any is written; an image whose content could not be
/// copied gets no tag and holds no other back.
pub(crate) async fn all(request: &Request, mut plan: Plan, runner: &Runner) -> Plan {
    let copied: Vec<_> = plan.images.into_iter().map(|planned| copy_content(request, planned, runner)).collect();
    plan.images = stream::iter(copied).buffered(request.common.concurrency).collect().await;
    let tagged: Vec<_> = plan.images.into_iter().map(|planned| write_tags(planned, runner)).collect();
    plan.images = stream::iter(tagged).buffered(request.common.concurrency).collect().await;
    plan
}

async fn copy_content(request: &Request, mut planned: Planned, runner: &Runner) -> Planned {
    if let Ok(edge) = &planned.work
        && let Err(error) = unless_cancelled(runner, content(request, &planned, edge, runner)).await
    {
        planned.work = Err(error);
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

async fn unless_cancelled(runner: &Runner, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::select! {
        outcome = work => outcome,
        () = runner.cancelled() => Err(Problem::failure("cancelled before its tag was written").into()),
    }
}

async fn content(request: &Request, planned: &Planned, edge: &Edge, runner: &Runner) -> anyhow::Result<()> {
    if edge.kept.is_some() {
        return Ok(());
    }
    let (source, target, graph) = (&edge.source.store, &edge.target.store, &edge.graph);
    runner.say(format!("{}: {} → {}", planned.named.key, planned.source, planned.named.reference));
    let digest = &graph.root.digest;
    let there = edge.tags.iter().any(|tag| tag.current.as_ref() == Some(digest));
    if edge.repository.make(&request.target.aws, &planned.named.reference, &request.writing.repository_settings).await?
    {
        runner.say(format!("{}: created the repository {}", planned.named.key, planned.named.reference.repository));
    }
    if !there {
        copy::below_root(source, target, graph).await?;
    }
    let one_repository = copy::same_repository(source.as_ref(), target.as_ref());
    let failed = |error: StoreError| match request.writing.evidence {
        EvidenceMode::BestEffort => {
            let why = Diagnosis::of(&error.into()).line();
            let message = format!("{}: evidence did not arrive: {why}", planned.named.key);
            runner.annotate(Annotation::new(Level::Warning, message));
            Ok(())
        }
        _ => Err(error),
    };
    let attached = match request.writing.evidence {
        EvidenceMode::None => Attached::default(),
        _ if one_repository => Attached::default(),
        _ => match copy::wanted(source, target, graph, there).await {
            Ok(attached) => attached,
            Err(error) => failed(error).map(|()| Attached::default())?,
        },
    };
    let record = edge.adds_record.then(|| new_record(request, planned, edge, runner));
    let attaches = !attached.referrers.is_empty() || !attached.tags.is_empty() || record.is_some();
    if attaches && !there && !one_repository {
        copy::root(target, graph).await?;
    }
    copy::attached(source, target, &attached, failed).await?;
    if let Some(record) = record {
        let artifact = record.artifact(&graph.root.descriptor())?;
        let manifest = artifact.manifest.clone();
        let artifact: Arc<dyn BlobSource> = Arc::new(artifact);
        copy::artifact(target, &manifest, &artifact).await?;
    }
    Ok(())
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
    let version = request.version.to_string();
    let release = Release { environment: &request.to, version: &version };
    let kind = if request.rollback { RecordKind::Rollback } else { RecordKind::Promote };
    let (to, digest) = (&planned.named.reference, &edge.graph.root.digest);
    Record {
        from: (!request.rollback).then(|| planned.source.to_string()),
        replaced: edge.replaced.clone(),
        gates: planned.gates.clone(),
        overridden: request.override_reason.clone().filter(|_| planned.has_gate(GateStatus::Overridden)),
        ..request.common.project.record(&runner.environment, kind, release, to, digest)
    }
}
