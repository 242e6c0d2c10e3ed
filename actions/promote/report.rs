//! What was done, for the log, the summary and the outputs.

use std::collections::BTreeMap;

use serde::Serialize;

use lifecycle::Diagnosis;
use lifecycle::evidence::{Gate, GateStatus};
use lifecycle::oci::Digest;
use lifecycle::runner::{Cell, Runner, Table, Verdict};

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
    status: Status,
    gates: Vec<Gate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
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
pub(crate) fn write(request: &Request, plan: &Plan, stage: Stage, runner: &Runner) -> Verdict {
    let results: Vec<Promoted> = plan.images.iter().map(|planned| result(planned, stage)).collect();
    annotate(plan, runner);
    let table = table(&results);
    runner.show(&table);
    if request.summary {
        let what = match stage {
            Stage::Blocked => "Blocked: ",
            Stage::Planned => "Would promote",
            Stage::Applied => "Promoted",
        };
        let (from, to) = (lifecycle::runner::escape(&request.from), lifecycle::runner::escape(&request.to));
        runner.summarize(&format!("### {what} {} from {from} to {to}\n\n{}\n", request.version, table.markdown()));
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

fn result(planned: &Planned, stage: Stage) -> Promoted {
    let error = planned.work.as_ref().err().map(|error| Diagnosis::of(error).line());
    let edge = planned.work.as_ref().ok();
    let digest = edge.map(|edge| edge.kept.clone().unwrap_or_else(|| edge.graph.root.digest.clone()));
    let held = edge.and_then(|edge| edge.tags.first()?.current.clone());
    let status = match (edge, stage) {
        (None, _) => Status::Failed,
        (Some(_), Stage::Blocked) => Status::Blocked,
        (Some(edge), _) if edge.kept.is_some() || edge.is_done() => Status::Unchanged,
        (Some(_), Stage::Planned) => Status::Planned,
        (Some(_), Stage::Applied) => Status::Promoted,
    };
    Promoted {
        name: planned.named.key.clone(),
        image: planned.named.image.clone(),
        source: planned.source.to_string(),
        target: planned.named.reference.to_string(),
        previous_digest: held.filter(|held| Some(held) != digest.as_ref()),
        digest,
        status,
        gates: planned.gates.clone(),
        error,
    }
}

/// One annotation for each image that failed or is blocked.
fn annotate(plan: &Plan, runner: &Runner) {
    for planned in &plan.images {
        let title = format!("promote {}", planned.named.key);
        if let Err(error) = &planned.work {
            let mut annotation = Diagnosis::of(error).annotation().titled(title);
            annotation.place.get_or_insert_with(|| planned.named.place.clone());
            runner.annotate(annotation);
            continue;
        }
        let blocked = planned.gates.iter().filter(|gate| gate.status == GateStatus::Blocked);
        let reasons: Vec<String> = blocked.map(|gate| format!("{}: {}", gate.name, gate.detail)).collect();
        if !reasons.is_empty() {
            let message = format!("image `{}` is blocked: {}", planned.named.key, reasons.join("; "));
            let annotation = lifecycle::runner::Annotation::new(lifecycle::runner::Level::Error, message);
            runner.annotate(annotation.titled(title).at(Some(planned.named.place.clone())));
        }
    }
}

fn table(results: &[Promoted]) -> Table {
    let mut table = Table::new(["Image", "Target", "Before", "After", "Status", "Gates"]);
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
            Cell::code(before.map(Digest::short).unwrap_or_default()),
            Cell::code(after.map(Digest::short).unwrap_or_default()),
            Cell::text(format!("{:?}", result.status).to_lowercase()),
            Cell::text(gates.join(", ")),
        ]);
    }
    table
}

fn gate(gate: &Gate) -> String {
    let mark = match gate.status {
        GateStatus::Passed => "✓",
        GateStatus::Blocked => "✗",
        GateStatus::Overridden => "!",
    };
    format!("{mark} {}", gate.name)
}
