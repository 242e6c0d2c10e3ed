//! What was done, for the log, the summary and the outputs.

use std::collections::BTreeMap;

use serde::Serialize;

use lifecycle::evidence::{Gate, GateStatus};
use lifecycle::oci::Digest;
use lifecycle::project::writes::{self, Beside, Writes};
use lifecycle::project::{Release, tell};
use lifecycle::runner::{Annotation, Cell, Level, Runner, Table, Verdict, escape, remarks};
use lifecycle::{Diagnosis, Problem, counted};

use crate::inputs::Request;
use crate::plan::{Plan, Planned};

/// One image's result, as the output `images` holds it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Promoted {
    name: String,
    image: String,
    source: String,
    target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_digest: Option<Digest>,
    /// Further tags that hold it, or would.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extra_tags: Vec<String>,
    status: Status,
    gates: Vec<Gate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip)]
    beside: Beside,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Status {
    /// The target holds the digest now.
    Promoted,
    /// It held it before.
    Unchanged,
    /// A gate of this image or of another said no.
    Blocked,
    /// It was not promoted.
    Failed,
    /// A dry run: it would be promoted.
    Planned,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::Unchanged => "unchanged",
            Self::Blocked => "blocked",
            Self::Failed => "failed",
            Self::Planned => "planned",
        }
    }
}

/// How far a run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Something stood in the way, so nothing was written.
    Blocked,
    /// It was asked for no more than the plan.
    Planned,
    /// The plan was carried out.
    Applied,
}

/// Tells the runner, and says whether all is well.
pub(crate) fn write(
    request: &Request,
    plan: &Plan,
    writes: Option<&[(String, Writes)]>,
    lacks: &[Problem],
    stage: Stage,
    runner: &Runner,
) -> Verdict {
    let results: Vec<Promoted> = plan.images.iter().map(|planned| result(planned, stage)).collect();
    annotate(request, plan, runner);
    let missed = tell(lacks, Release { environment: &request.to, version: &request.version }, runner);
    let table = table(&results);
    runner.show(&table);
    let writes = writes.filter(|writes| !writes.is_empty());
    let writes = writes.map(|writes| writes::table(writes.iter().map(|(key, writes)| (key.as_str(), writes))));
    writes.iter().for_each(|writes| runner.show(writes));
    let gates = gates(&results);
    if let Some(gates) = &gates {
        runner.show(gates);
    }
    if request.common.summary {
        let writes = writes.map(|writes| format!("{}\n", writes.markdown())).unwrap_or_default();
        let text =
            format!("{}{writes}{}", below(plan, &results), gates.as_ref().map(gates_section).unwrap_or_default());
        let heading = heading(request, stage, &results);
        let missed = if missed.is_empty() { missed } else { format!("{missed}\n") };
        runner.summarize(&format!("### {heading}\n\n{}\n{text}{missed}", table.markdown()));
        runner.summarize(&circumstances(request, &results, runner));
    }
    let digests: BTreeMap<&str, &Digest> =
        results.iter().filter_map(|result| Some((result.name.as_str(), result.digest.as_ref()?))).collect();
    runner.output("images", serde_json::json!(results).to_string());
    runner.output("digests", serde_json::json!(digests).to_string());
    match results.iter().any(|result| matches!(result.status, Status::Failed | Status::Blocked)) {
        true => Verdict::Fail,
        false => Verdict::Pass,
    }
}

/// What was done, or how much of it was not.
fn heading(request: &Request, stage: Stage, results: &[Promoted]) -> String {
    let (from, to, version) = (escape(&request.from), escape(&request.to), escape(&request.version.to_string()));
    let way = if request.rollback { format!("in {to}") } else { format!("from {from} to {to}") };
    let failed = results.iter().filter(|result| result.status == Status::Failed).count();
    let (noun, of_all) =
        (if request.rollback { "Rollback to" } else { "Promotion of" }, counted(results.len(), "image"));
    let what = match (stage, request.rollback, failed) {
        (Stage::Blocked, _, 0) => return format!("Blocked: {version} {way}"),
        (Stage::Blocked, ..) => return format!("Blocked: {version} {way}, {failed} of {of_all} failed"),
        (_, _, 1..) => return format!("{noun} {version} {way} failed: {failed} of {of_all}"),
        (Stage::Planned, false, 0) => "Would promote",
        (Stage::Planned, true, 0) => "Would go back to",
        (Stage::Applied, false, 0) => "Promoted",
        (Stage::Applied, true, 0) => "Went back to",
    };
    format!("{what} {version} {way}")
}

/// What is to be said of single images: why they failed, what may not be as it was meant, and what is as it should be.
fn below(plan: &Plan, results: &[Promoted]) -> String {
    let failures = results.iter().filter_map(|result| Some((result.name.as_str(), result.error.as_deref()?)));
    let edges =
        plan.images.iter().filter_map(|planned| Some((planned.named.key.as_str(), planned.work.as_ref().ok()?)));
    let said =
        edges.flat_map(|(key, edge)| edge.warnings.iter().chain(&edge.notices).map(move |text| (key, text.as_str())));
    remarks(failures.chain(said))
}

fn gates_section(gates: &Table) -> String {
    format!("#### Gates\n\n{}\n", gates.markdown())
}

/// Why gates did not count, and where it was done.
fn circumstances(request: &Request, results: &[Promoted], runner: &Runner) -> String {
    let is_overridden = |result: &Promoted| result.gates.iter().any(|gate| gate.status == GateStatus::Overridden);
    let reason = request.override_reason.as_ref().filter(|_| results.iter().any(is_overridden));
    let reason = reason.map(|reason| format!("Gates are overridden: {}\n\n", escape(reason))).unwrap_or_default();
    reason + &runner.environment.links()
}

/// What every gate said.
fn gates(results: &[Promoted]) -> Option<Table> {
    let mut table = Table::new(["Image", "Gate", "Result", "What was found and wanted"]);
    for result in results {
        for gate in &result.gates {
            let status = format!("{} {}", mark(gate.status), gate.status.name());
            table.row([Cell::text(&result.name), Cell::code(&gate.name), Cell::text(status), Cell::text(&gate.detail)]);
        }
    }
    results.iter().any(|result| !result.gates.is_empty()).then_some(table)
}

fn result(planned: &Planned, stage: Stage) -> Promoted {
    let error = planned.work.as_ref().err().map(|error| Diagnosis::of(error).line());
    let edge = planned.work.as_ref().ok();
    let digest = edge.map(|edge| edge.kept.clone().unwrap_or_else(|| edge.graph.root.digest.clone()));
    let replaced = edge.and_then(|edge| edge.replaced.clone());
    let status = match (edge, stage) {
        (None, _) => Status::Failed,
        (Some(_), Stage::Blocked) => Status::Blocked,
        (Some(edge), _) if edge.is_done() => Status::Unchanged,
        (Some(_), Stage::Planned) => Status::Planned,
        (Some(_), Stage::Applied) => Status::Promoted,
    };
    let extra_tags = edge.filter(|edge| edge.kept.is_none()).map(|edge| {
        let tags = edge.tags.iter().skip(1).filter(|tag| !tag.kept && status != Status::Blocked);
        tags.map(|plan| plan.tag.to_string()).collect()
    });
    Promoted {
        name: planned.named.key.clone(),
        image: planned.named.image.clone(),
        source: planned.source.to_string(),
        target: planned.named.reference.to_string(),
        previous_digest: replaced.filter(|replaced| Some(replaced) != digest.as_ref()),
        digest,
        extra_tags: extra_tags.unwrap_or_default(),
        status,
        gates: planned.gates.clone(),
        error,
        beside: planned.beside,
    }
}

/// One annotation for each image that failed or is blocked, and what there is to know of the others.
fn annotate(request: &Request, plan: &Plan, runner: &Runner) {
    for planned in &plan.images {
        let (key, place) = (&planned.named.key, &planned.named.place);
        let title = format!("promote {key}");
        let tell = |level, message: String| {
            runner.annotate(Annotation::new(level, message).titled(title.clone()).at(Some(place.clone())));
        };
        let edge = match &planned.work {
            Ok(edge) => edge,
            Err(error) => {
                let mut annotation = Diagnosis::of(error).annotation().titled(title.clone());
                annotation.place.get_or_insert_with(|| place.clone());
                runner.annotate(annotation);
                continue;
            }
        };
        edge.warnings.iter().for_each(|warning| tell(Level::Warning, format!("image `{key}`: {warning}")));
        edge.notices.iter().for_each(|notice| tell(Level::Notice, format!("image `{key}`: {notice}")));
        let reasons = |status| {
            let ended = planned.gates.iter().filter(|gate| gate.status == status);
            ended.map(|gate| format!("{}: {}", gate.name, gate.detail)).collect::<Vec<_>>().join("; ")
        };
        if planned.has_gate(GateStatus::Blocked) {
            tell(Level::Error, format!("image `{key}` is blocked: {}", reasons(GateStatus::Blocked)));
        }
        if let Some(reason) = request.override_reason.as_ref().filter(|_| planned.has_gate(GateStatus::Overridden)) {
            let message =
                format!("image `{key}` is let through ({reason}), although {}", reasons(GateStatus::Overridden));
            tell(Level::Warning, message);
        }
    }
}

fn table(results: &[Promoted]) -> Table {
    let mut table = Table::new(["Image", "Target", "Extra tags", "Before", "After", "Attached", "Status", "Gates"]);
    for result in results {
        let gates: Vec<String> = result.gates.iter().map(gate).collect();
        let after = result.digest.as_ref().filter(|_| !matches!(result.status, Status::Blocked | Status::Failed));
        let before = match result.status {
            Status::Unchanged => after,
            _ => result.previous_digest.as_ref(),
        };
        table.row([
            Cell::text(&result.name),
            Cell::code(&result.target),
            Cell::code(result.extra_tags.join(", ")),
            Cell::code(before.map(Digest::short).unwrap_or_default()),
            Cell::code(after.map(Digest::short).unwrap_or_default()),
            result.beside.cell(),
            Cell::text(result.status.name()),
            Cell::text(gates.join(", ")),
        ]);
    }
    table.filled()
}

fn gate(gate: &Gate) -> String {
    format!("{} {}", mark(gate.status), gate.name)
}

fn mark(status: GateStatus) -> &'static str {
    match status {
        GateStatus::Passed => "✓",
        GateStatus::Blocked => "✗",
        GateStatus::Overridden => "!",
    }
}
