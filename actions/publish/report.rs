//! What was done, for the log, the summary and the outputs.

use std::collections::BTreeMap;

use serde::Serialize;

use lifecycle::oci::Digest;
use lifecycle::project::writes::{self, Beside, Writes};
use lifecycle::project::{Named, Release, tell};
use lifecycle::registry::Traffic;
use lifecycle::runner::{Annotation, Cell, Runner, Table, Verdict, escape, remarks};
use lifecycle::{Diagnosis, Place, Problem, counted};

use crate::inputs::Request;
use crate::work::Work;

/// One image's result, as the output `images` holds it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Published {
    name: String,
    image: String,
    reference: String,
    repository: String,
    tag: String,
    /// Further tags that hold it, or would.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extra_tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip)]
    traffic: Traffic,
    #[serde(skip)]
    beside: Beside,
    #[serde(skip)]
    remarks: Vec<Annotation>,
    #[serde(skip)]
    diagnosis: Option<Diagnosis>,
    #[serde(skip)]
    place: Place,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Status {
    /// The tag was written.
    Created,
    /// The tag was there with this digest.
    Unchanged,
    /// It was not published.
    Failed,
    /// A dry run: it would be written.
    Planned,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
            Self::Planned => "planned",
        }
    }
}

/// What came of an image that could be worked on.
pub(crate) struct Outcome {
    digest: Digest,
    size: u64,
    status: Status,
    previous: Option<Digest>,
    extra_tags: Vec<String>,
    traffic: Traffic,
    beside: Beside,
    remarks: Vec<Annotation>,
}

impl Outcome {
    pub(crate) fn planned(work: &Work) -> Self {
        Self::of(work, Status::Planned, Beside::default())
    }

    pub(crate) fn published(work: &Work, beside: Beside) -> Self {
        Self::of(work, Status::Created, beside)
    }

    fn of(work: &Work, changed: Status, beside: Beside) -> Self {
        let graph = &work.built.graph;
        let kept = work.kept.clone();
        let digest = kept.unwrap_or_else(|| graph.root.digest.clone());
        // What is kept is left as it is, with all its tags.
        let unchanged = work.kept.is_some() || work.tags.iter().all(|tag| tag.current.as_ref() == Some(&digest));
        let held = work.tags.first().and_then(|tag| tag.current.clone());
        Self {
            extra_tags: match &work.kept {
                Some(_) => Vec::new(),
                None => work.tags.iter().skip(1).map(|planned| planned.tag.to_string()).collect(),
            },
            previous: held.filter(|held| *held != digest),
            digest,
            size: graph.size(),
            status: if unchanged { Status::Unchanged } else { changed },
            traffic: work.target.traffic(),
            beside,
            remarks: work.remarks.clone(),
        }
    }
}

impl Published {
    pub(crate) fn new(named: &Named, outcome: anyhow::Result<Outcome>) -> Self {
        let diagnosis = outcome.as_ref().err().map(Diagnosis::of);
        let outcome = outcome.ok();
        Self {
            name: named.key.clone(),
            image: named.image.clone(),
            reference: named.reference.to_string(),
            repository: named.reference.repository.to_string(),
            tag: named.reference.tag.to_string(),
            digest: outcome.as_ref().map(|outcome| outcome.digest.clone()),
            size: outcome.as_ref().map(|outcome| outcome.size),
            status: outcome.as_ref().map_or(Status::Failed, |outcome| outcome.status),
            previous_digest: outcome.as_ref().and_then(|outcome| outcome.previous.clone()),
            extra_tags: outcome.as_ref().map(|outcome| outcome.extra_tags.clone()).unwrap_or_default(),
            error: diagnosis.as_ref().map(Diagnosis::line),
            traffic: outcome.as_ref().map(|outcome| outcome.traffic.clone()).unwrap_or_default(),
            beside: outcome.as_ref().map(|outcome| outcome.beside).unwrap_or_default(),
            remarks: outcome.map(|outcome| outcome.remarks).unwrap_or_default(),
            diagnosis,
            place: named.place.clone(),
        }
    }
}

/// Tells the runner, and says whether all is well.
pub(crate) fn write(
    request: &Request,
    results: &[Published],
    writes: Option<&[(String, Writes)]>,
    lacks: &[Problem],
    runner: &Runner,
) -> Verdict {
    for failed in results.iter().filter_map(|result| Some((result, result.diagnosis.as_ref()?))) {
        let (result, diagnosis) = failed;
        let mut annotation = diagnosis.annotation().titled(format!("publish {}", result.name));
        annotation.place.get_or_insert_with(|| result.place.clone());
        runner.annotate(annotation);
    }
    let remarked = results.iter().flat_map(|result| &result.remarks);
    remarked.for_each(|remark| runner.annotate(remark.clone()));
    let table = table(results);
    runner.show(&table);
    let writes = writes.filter(|writes| !writes.is_empty());
    let writes = writes.map(|writes| writes::table(writes.iter().map(|(key, writes)| (key.as_str(), writes))));
    writes.iter().for_each(|writes| runner.show(writes));
    let release = Release { environment: &request.environment, version: &request.version };
    let missed = tell(lacks, release, runner);
    if request.common.summary {
        let failures = results.iter().filter_map(|result| Some((result.name.as_str(), result.error.as_deref()?)));
        let remarked =
            results.iter().flat_map(|result| result.remarks.iter().map(|remark| (&*result.name, &*remark.message)));
        let (heading, failures) = (heading(request, results), remarks(failures.chain(remarked)));
        let writes = writes.map(|writes| format!("{}\n", writes.markdown())).unwrap_or_default();
        let missed = if missed.is_empty() { missed } else { format!("{missed}\n") };
        runner.summarize(&format!("### {heading}\n\n{}\n{failures}{writes}{missed}", table.markdown()));
        runner.summarize(&runner.environment.links());
    }
    let digests: BTreeMap<&str, &Digest> =
        results.iter().filter_map(|result| Some((result.name.as_str(), result.digest.as_ref()?))).collect();
    let published = results.iter().filter(|result| result.status != Status::Failed);
    let references: Vec<&str> = published.map(|result| result.reference.as_str()).collect();
    runner.output("images", serde_json::json!(results).to_string());
    runner.output("digests", serde_json::json!(digests).to_string());
    runner.output("references", references.join("\n"));
    match results.iter().any(|result| result.status == Status::Failed) {
        true => Verdict::Fail,
        false => Verdict::Pass,
    }
}

/// What was done, or how much of it was not.
fn heading(request: &Request, results: &[Published]) -> String {
    let (version, environment) = (escape(&request.version.to_string()), escape(&request.environment));
    let failed = results.iter().filter(|result| result.status == Status::Failed).count();
    match (failed, request.common.dry_run) {
        (0, false) => format!("Published {version} to {environment}"),
        (0, true) => format!("Would publish {version} to {environment}"),
        _ => format!("Publish of {version} to {environment} failed: {failed} of {}", counted(results.len(), "image")),
    }
}

fn table(results: &[Published]) -> Table {
    let mut table = Table::new([
        "Image",
        "Reference",
        "Extra tags",
        "Digest",
        "Size",
        "Attached",
        "Status",
        "Requests",
        "Sent",
        "Retries",
    ]);
    for result in results {
        table.row([
            Cell::text(&result.name),
            Cell::code(&result.reference),
            Cell::code(result.extra_tags.join(", ")),
            Cell::code(result.digest.as_ref().map(Digest::short).unwrap_or_default()),
            Cell::text(result.size.map(bytes).unwrap_or_default()),
            result.beside.cell(),
            Cell::text(result.status.name()),
            Cell::text(result.traffic.total().to_string()),
            Cell::text(bytes(result.traffic.sent)),
            Cell::text(result.traffic.retries.to_string()),
        ]);
    }
    table.filled()
}

fn bytes(count: u64) -> String {
    humansize::format_size(count, humansize::BINARY)
}
