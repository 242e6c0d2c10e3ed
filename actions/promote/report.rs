//! What was done, for the log, the summary and the outputs.

use serde::Serialize;

use lifecycle::AtSourceLocation;
use lifecycle::delivery::{self, Attachments, Outcome, PlannedWrites, Stage, Status, notes, show_writes};
use lifecycle::deployment::report_missing;
use lifecycle::evidence::{GateResult, GateStatus};
use lifecycle::naming::Release;
use lifecycle::{ActionError, plural};
use oci::Digest;
use runner_protocol::{Annotation, Cell, Level, Runner, Table, Verdict, escape};

use crate::inputs::Request;
use crate::plan::{Plan, Planned};

/// One image's result, as the output `images` holds it.
#[derive(Debug, Serialize)]
struct Promoted {
    #[serde(flatten)]
    outcome: Outcome,
    source: String,
    target: String,
    gates: Vec<GateResult>,
    #[serde(skip)]
    attachments: Attachments,
}

impl Promoted {
    fn new(planned: &Planned, stage: Stage) -> Self {
        Self {
            outcome: Outcome::of(&planned.image, stage),
            source: planned.source.to_string(),
            target: planned.image.named.reference.to_string(),
            gates: planned.gates.clone(),
            attachments: planned.image.attachments,
        }
    }
}

/// Tells the runner, and says whether all is well.
pub(crate) fn write(
    request: &Request,
    plan: &Plan,
    stage: Stage,
    writes: &[(String, PlannedWrites)],
    missing: &[ActionError],
    runner: &Runner,
) -> Verdict {
    let results: Vec<Promoted> = plan.images.iter().map(|planned| Promoted::new(planned, stage)).collect();
    annotate(request, plan, runner);
    let missed = report_missing(missing, Release { environment: &request.to, version: &request.version }, runner);
    let table = table(&results);
    runner.show(&table);
    let writes = show_writes(writes, runner);
    let gates = gates(&results);
    if let Some(gates) = &gates {
        runner.show(gates);
    }
    if request.common.summary {
        let notes = notes(plan.images.iter().map(|planned| &planned.image));
        let gates = gates.as_ref().map(gates_section).unwrap_or_default();
        let heading = heading(request, stage, &results);
        let missed = if missed.is_empty() { missed } else { format!("{missed}\n") };
        runner.summarize(&format!("### {heading}\n\n{}\n{notes}{writes}{gates}{missed}", table.markdown()));
        runner.summarize(&circumstances(request, &results, runner));
    }
    delivery::output(&results, |result| &result.outcome, runner)
}

/// What was done, or how much of it was not.
fn heading(request: &Request, stage: Stage, results: &[Promoted]) -> String {
    let (from, to, version) = (escape(&request.from), escape(&request.to), escape(&request.version.to_string()));
    let way = if request.rollback { format!("in {to}") } else { format!("from {from} to {to}") };
    let failed = results.iter().filter(|result| result.outcome.status == Status::Failed).count();
    let (noun, of_all) =
        (if request.rollback { "Rollback to" } else { "Promotion of" }, plural(results.len(), "image"));
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

fn gates_section(gates: &Table) -> String {
    format!("#### Gates\n\n{}\n", gates.markdown())
}

/// Why gates did not count, and where it was done.
fn circumstances(request: &Request, results: &[Promoted], runner: &Runner) -> String {
    let is_overridden = |result: &Promoted| result.gates.iter().any(|gate| gate.status == GateStatus::Overridden);
    let reason = request.override_reason.as_ref().filter(|_| results.iter().any(is_overridden));
    let reason = reason.map(|reason| format!("Gates are overridden: {}\n\n", escape(reason))).unwrap_or_default();
    reason + &runner.variables.links()
}

/// What every gate said.
fn gates(results: &[Promoted]) -> Option<Table> {
    let mut table = Table::new(["Image", "GateResult", "Result", "What was found and wanted"]);
    for result in results {
        for gate in &result.gates {
            let status = format!("{} {}", mark(gate.status), gate.status.name());
            table.row([
                Cell::text(&result.outcome.name),
                Cell::code(&gate.name),
                Cell::text(status),
                Cell::text(&gate.detail),
            ]);
        }
    }
    results.iter().any(|result| !result.gates.is_empty()).then_some(table)
}

/// Annotates what became of each image, and what its gates said.
fn annotate(request: &Request, plan: &Plan, runner: &Runner) {
    for planned in &plan.images {
        delivery::annotate("promote", &planned.image, runner);
        if planned.image.delivery.is_err() {
            continue;
        }
        let (key, place) = (&planned.image.named.key, &planned.image.named.place);
        let tell = |level, message: String| {
            runner.annotate(Annotation::new(level, message).titled(format!("promote {key}")).at(Some(place.clone())));
        };
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
        let after = result
            .outcome
            .digest
            .as_ref()
            .filter(|_| !matches!(result.outcome.status, Status::Blocked | Status::Failed));
        let before = match result.outcome.status {
            Status::Unchanged => after,
            _ => result.outcome.previous_digest.as_ref(),
        };
        table.row([
            Cell::text(&result.outcome.name),
            Cell::code(&result.target),
            Cell::code(result.outcome.extra_tags.join(", ")),
            Cell::code(before.map(Digest::short).unwrap_or_default()),
            Cell::code(after.map(Digest::short).unwrap_or_default()),
            result.attachments.cell(),
            Cell::text(result.outcome.status.name()),
            Cell::text(gates.join(", ")),
        ]);
    }
    table.filled()
}

fn gate(gate: &GateResult) -> String {
    format!("{} {}", mark(gate.status), gate.name)
}

fn mark(status: GateStatus) -> &'static str {
    match status {
        GateStatus::Passed => "✓",
        GateStatus::Blocked => "✗",
        GateStatus::Overridden => "!",
    }
}
