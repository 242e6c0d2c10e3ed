//! The report of a run: log, annotations, summary and outputs.

use serde::Serialize;

use lifecycle::AtSourceLocation;
use lifecycle::delivery::{
    self, Attachments, Outcome, PlannedWrites, Stage, Status, failure_lines, failures, handling, images_table, notes,
    show_writes,
};
use lifecycle::deployment::report_missing;
use lifecycle::evidence::{GateResult, GateStatus};
use lifecycle::github::GitHub;
use lifecycle::preflight::{self, Check};
use lifecycle::reporting::{FailedReport, TROUBLESHOOTING, comment_on_pull_request};
use lifecycle::{ActionError, SecretString, plural};
use oci::Digest;
use runner_protocol::{Annotation, Cell, Level, Runner, Table, Verdict, code_block, details, escape};

use crate::hold::Hold;
use crate::plan::{Plan, PlannedPromotion};
use crate::request::Request;

/// The result of one image, as it appears in the output `images`.
#[derive(Debug, Serialize)]
struct PromotionResult {
    #[serde(flatten)]
    outcome: Outcome,
    source: String,
    target: String,
    gates: Vec<GateResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<Hold>,
    #[serde(skip)]
    attachments: Attachments,
}

impl PromotionResult {
    fn new(planned: &PlannedPromotion, stage: Stage) -> Self {
        Self {
            outcome: Outcome::of(&planned.image, stage),
            source: planned.source.to_string(),
            target: planned.image.named.reference.to_string(),
            gates: planned.gates.clone(),
            hold: planned.hold.hold().cloned(),
            attachments: planned.image.attachments,
        }
    }
}

/// Writes the report, and returns whether every image was promoted.
pub(crate) async fn write(
    request: &Request,
    plan: &Plan,
    stage: Stage,
    writes: &[(String, PlannedWrites)],
    (checks, missing): (&[Check], &[ActionError]),
    runner: &Runner,
) -> Verdict {
    let results: Vec<PromotionResult> =
        plan.images.iter().map(|planned| PromotionResult::new(planned, stage)).collect();
    annotate(request, plan, runner);
    let missing = report_missing(missing, request.transition.target(), runner);
    let table = table(&results);
    runner.show(&table);
    let writes = show_writes(writes, runner);
    let failed = failure_lines(plan.images.iter().map(|planned| &planned.image));
    let checked =
        if request.common.dry_run { preflight::show("promote", checks, &failed, runner) } else { String::new() };
    let gates = gates_table(&results);
    if let Some(gates) = &gates {
        runner.show(gates);
    }
    let changes = crate::delta::section(plan, request, runner);
    let outcomes: Vec<&Outcome> = results.iter().map(|result| &result.outcome).collect();
    let images = || plan.images.iter().map(|planned| &planned.image);
    let (heading, failures) = (heading(request, stage, &results, checks), failures(images()));
    let (table, gates) = (images_table(&table, &outcomes), gates.map(|gates| gates_section(&gates, &results)));
    let gates = gates.unwrap_or_default();
    // Gates that block come before everything that they hold up.
    let (first, last) = if stage == Stage::Blocked { (gates, String::new()) } else { (String::new(), gates) };
    if request.common.summary {
        let notes = notes(images());
        let missing = if missing.is_empty() { missing } else { format!("{missing}\n") };
        let handling = handled(request, plan, stage);
        runner.summarize(&format!(
            "### {heading}\n\n{failures}{first}{table}{notes}{changes}{writes}{checked}{last}{missing}{handling}"
        ));
        runner.summarize(&override_and_links(request, &results, runner));
    }
    if let Some(token) = &request.comment {
        let sections = [format!("### {heading}\n\n{failures}{first}{table}"), changes, last];
        comment(request, token, &sections, runner).await;
    }
    let verdict = delivery::output(&results, |result| &result.outcome, runner);
    if preflight::has_failed(checks) { Verdict::Fail } else { verdict }
}

/// Comments on the pull request that the run is for. What GitHub refuses becomes an annotation.
async fn comment(request: &Request, token: &SecretString, sections: &[String], runner: &Runner) {
    let subject = format!("promote {}", request.transition.to);
    let commented = match GitHub::of(&runner.variables, token) {
        Ok(github) => comment_on_pull_request(&github, &subject, sections, runner).await,
        Err(error) => Err(FailedReport::new("cannot comment on the pull request", error)),
    };
    commented.unwrap_or_else(|failed| failed.annotate(runner));
}

/// Formats the heading of the summary: what was done, or how much of it failed.
fn heading(request: &Request, stage: Stage, results: &[PromotionResult], checks: &[Check]) -> String {
    let transition = &request.transition;
    let (from, to) = (escape(&transition.from), escape(&transition.to));
    let version = escape(&transition.version.to_string());
    let route = if transition.rollback { format!("in {to}") } else { format!("from {from} to {to}") };
    let failed = results.iter().filter(|result| result.outcome.status == Status::Failed).count();
    let noun = if transition.rollback { "Rollback to" } else { "Promotion of" };
    let images = plural(results.len(), "image");
    let verb = match (stage, transition.rollback, failed) {
        (Stage::Blocked, _, 0) => return format!("Blocked: {version} {route}"),
        (Stage::Blocked, ..) => return format!("Blocked: {version} {route}, {failed} of {images} failed"),
        (_, _, 1..) => return format!("{noun} {version} {route} failed: {failed} of {images}"),
        (Stage::Planned, _, 0) if preflight::has_failed(checks) => {
            return format!("{noun} {version} {route} would fail");
        }
        (Stage::Planned, false, 0) => "Would promote",
        (Stage::Planned, true, 0) => "Would roll back to",
        (Stage::Applied, false, 0) => "Promoted",
        (Stage::Applied, true, 0) => "Rolled back to",
    };
    format!("{verb} {version} {route}")
}

/// Formats the results of the gates: those that passed are in a collapsible section.
fn gates_section(gates: &Table, results: &[PromotionResult]) -> String {
    let statuses: Vec<GateStatus> = results.iter().flat_map(|result| &result.gates).map(|gate| gate.status).collect();
    let is_passed = |row: usize| statuses.get(row) == Some(&GateStatus::Passed);
    let summary = |count: usize| format!("{} passed", plural(count, "gate"));
    if statuses.iter().all(|status| *status == GateStatus::Passed) {
        return format!("#### Gates\n\n{}", details(&summary(statuses.len()), &gates.markdown()));
    }
    format!("#### Gates\n\n{}", gates.folded(is_passed, summary))
}

/// Formats what people do with the images that the target environment has now: pull them, look at them, go back.
fn handled(request: &Request, plan: &Plan, stage: Stage) -> String {
    let delivered = plan.images.iter().filter(|_| stage == Stage::Applied);
    let sections = delivered.map(|planned| {
        let way_back = planned.version_before().filter(|_| !request.transition.rollback).map(|version| {
            let to = &request.transition.to;
            let inputs = ["mode: rollback".to_owned(), format!("to: {to}"), format!("version: {version}")];
            format!("To return to {}, run promote with:\n\n", escape(&version))
                + &code_block("yaml", inputs.iter().map(String::as_str))
        });
        handling([&planned.image].into_iter(), |_| None, |_| way_back.clone().unwrap_or_default())
    });
    sections.collect()
}

/// Formats the reason why gates were overridden, if any, and the links to the run and the commit.
fn override_and_links(request: &Request, results: &[PromotionResult], runner: &Runner) -> String {
    let is_overridden =
        |result: &PromotionResult| result.gates.iter().any(|gate| gate.status == GateStatus::Overridden);
    let reason = request.gates.override_reason.as_ref().filter(|_| results.iter().any(is_overridden));
    let reason = reason.map(|reason| format!("Gates were overridden: {}\n\n", escape(reason))).unwrap_or_default();
    let is_failed = |result: &PromotionResult| matches!(result.outcome.status, Status::Failed | Status::Blocked);
    reason + &runner.variables.links(results.iter().any(is_failed).then_some(TROUBLESHOOTING))
}

/// Returns a table with the results of all gates, if there are any.
fn gates_table(results: &[PromotionResult]) -> Option<Table> {
    let mut table = Table::new(["Image", "Gate", "Result", "Detail"]);
    for result in results {
        for gate in &result.gates {
            let status = format!("{} {}", symbol(gate.status), gate.status.name());
            table.row([
                Cell::text(&result.outcome.name),
                Cell::code(&gate.name),
                Cell::text(status),
                Cell::message(&gate.detail),
            ]);
        }
    }
    results.iter().any(|result| !result.gates.is_empty()).then_some(table)
}

/// Annotates failures, remarks, and gates that blocked or were overridden.
fn annotate(request: &Request, plan: &Plan, runner: &Runner) {
    for planned in &plan.images {
        delivery::annotate("promote", &planned.image, runner);
        if planned.image.delivery.is_err() {
            continue;
        }
        let (key, source_location) = (&planned.image.named.key, &planned.image.named.source_location);
        let annotate = |level, message: String| {
            runner.annotate(
                Annotation::new(level, message).titled(format!("promote {key}")).at(Some(source_location.clone())),
            );
        };
        let reasons = |status| {
            let gates = planned.gates.iter().filter(|gate| gate.status == status);
            gates.map(|gate| format!("{}: {}", gate.name, gate.detail)).collect::<Vec<_>>().join("; ")
        };
        if planned.has_gate(GateStatus::Blocked) {
            annotate(Level::Error, format!("image `{key}` is blocked: {}", reasons(GateStatus::Blocked)));
        }
        if let Some(reason) =
            request.gates.override_reason.as_ref().filter(|_| planned.has_gate(GateStatus::Overridden))
        {
            let message =
                format!("gates of image `{key}` are overridden ({reason}): {}", reasons(GateStatus::Overridden));
            annotate(Level::Warning, message);
        }
    }
}

fn table(results: &[PromotionResult]) -> Table {
    let mut table = Table::new(["Image", "Target", "Extra tags", "Before", "After", "Attached", "Status", "Gates"]);
    for result in results {
        let passed = result.gates.iter().filter(|gate| gate.status == GateStatus::Passed).count();
        let others = result.gates.iter().filter(|gate| gate.status != GateStatus::Passed).map(gate_cell);
        let passed = Some(format!("✓ {passed}")).filter(|_| passed > 0);
        let gates: Vec<String> = others.chain(passed).collect();
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

fn gate_cell(gate: &GateResult) -> String {
    format!("{} {}", symbol(gate.status), gate.name)
}

fn symbol(status: GateStatus) -> &'static str {
    match status {
        GateStatus::Passed => "✓",
        GateStatus::Blocked => "✗",
        GateStatus::Overridden => "!",
    }
}
