//! The report of a run: log, annotations, summary and outputs.

use serde::Serialize;

use lifecycle::delivery::{
    self, Attachments, Outcome, Planned, PlannedWrites, Stage, Status, annotate, failure_lines, failures, handling,
    images_table, notes, show_writes,
};
use lifecycle::deployment::report_missing;
use lifecycle::preflight::{self, Check};
use lifecycle::reporting::TROUBLESHOOTING;
use lifecycle::{ActionError, plural};
use oci::Digest;
use registry::Traffic;
use runner_protocol::{Cell, Runner, Table, Verdict, escape};

use crate::request::Request;

/// The result of one image, as it appears in the output `images`.
#[derive(Debug, Serialize)]
struct PublicationResult {
    #[serde(flatten)]
    outcome: Outcome,
    reference: String,
    repository: String,
    tag: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// The reference that a deployment is given.
    #[serde(skip)]
    deployed: String,
    #[serde(skip)]
    traffic: Traffic,
    #[serde(skip)]
    attachments: Attachments,
}

impl PublicationResult {
    fn new(planned: &Planned, stage: Stage) -> Self {
        let delivery = planned.delivery.as_ref().ok();
        let reference = &planned.named.reference;
        let mut outcome = Outcome::of(planned, stage);
        if outcome.status == Status::Blocked {
            // Its reference does not hold the digest.
            outcome.digest = None;
        }
        Self {
            outcome,
            deployed: match (&planned.named.pin, delivery) {
                (Some(_), Some(delivery)) => format!("{}@{}", reference.repository_address(), delivery.digest()),
                _ => reference.to_string(),
            },
            reference: reference.to_string(),
            repository: reference.repository.to_string(),
            tag: reference.tag.to_string(),
            size: delivery.map(|delivery| delivery.graph.size()),
            traffic: delivery.map(|delivery| delivery.target.traffic()).unwrap_or_default(),
            attachments: planned.attachments,
        }
    }
}

/// Writes the report, and returns whether every image was published.
pub(crate) fn write(
    request: &Request,
    images: &[Planned],
    stage: Stage,
    writes: &[(String, PlannedWrites)],
    (checks, missing): (&[Check], &[ActionError]),
    runner: &Runner,
) -> Verdict {
    let results: Vec<PublicationResult> = images.iter().map(|planned| PublicationResult::new(planned, stage)).collect();
    images.iter().for_each(|planned| annotate("publish", planned, runner));
    if stage == Stage::Applied {
        name_artifacts(images, runner);
    }
    let table = table(&results);
    runner.show(&table);
    if stage == Stage::Blocked {
        let failed = results.iter().filter(|result| result.outcome.status == Status::Failed).count();
        let of = plural(results.len(), "image");
        runner.say(format!("{failed} of {of} cannot be published{NOTHING_WRITTEN}"));
    }
    results.iter().filter(|result| result.traffic.total() > 0).for_each(|result| runner.say(traffic(result)));
    let writes = show_writes(writes, runner);
    let checked = match stage {
        Stage::Planned => preflight::show("publish", checks, &failure_lines(images.iter()), runner),
        Stage::Blocked | Stage::Applied => String::new(),
    };
    let missing = report_missing(missing, request.release(), runner);
    if request.common.summary {
        let (failures, notes) = (failures(images.iter()), notes(images.iter()));
        let heading = heading(request, &results, checks) + if stage == Stage::Blocked { NOTHING_WRITTEN } else { "" };
        let outcomes: Vec<&Outcome> = results.iter().map(|result| &result.outcome).collect();
        let table = images_table(&table, &outcomes);
        let missing = if missing.is_empty() { missing } else { format!("{missing}\n") };
        let delivered = images.iter().filter(|_| stage == Stage::Applied);
        let verify = |name: &str| request.signing.signing.as_ref()?.verification(name, &runner.variables);
        let handling = handling(delivered, verify, |_| String::new());
        runner.summarize(&format!("### {heading}\n\n{failures}{table}{notes}{writes}{checked}{missing}{handling}"));
        let is_failed = outcomes.iter().any(|one| one.status == Status::Failed);
        runner.summarize(&runner.variables.links(is_failed.then_some(TROUBLESHOOTING)));
    }
    let published = results.iter().filter(|result| !matches!(result.outcome.status, Status::Failed | Status::Blocked));
    let references: Vec<&str> = published.map(|result| result.deployed.as_str()).collect();
    runner.output("references", references.join("\n"));
    let verdict = delivery::output(&results, |result| &result.outcome, runner);
    if preflight::has_failed(checks) { Verdict::Fail } else { verdict }
}

/// What a run says if an image cannot be published.
const NOTHING_WRITTEN: &str = "; nothing was written";

/// Names the published images for `actions/attest`. An image whose tag keeps another digest is left out.
fn name_artifacts(images: &[Planned], runner: &Runner) {
    for planned in images {
        if let Some(delivery) = planned.delivery.as_ref().ok().filter(|delivery| delivery.kept().is_none()) {
            runner.artifact(&planned.named.reference.repository_address(), &delivery.digest().to_string());
        }
    }
}

/// Formats the heading of the summary: what was done, or how much of it failed.
fn heading(request: &Request, results: &[PublicationResult], checks: &[Check]) -> String {
    let (version, environment) = (escape(&request.version.to_string()), escape(&request.environment));
    let failed = results.iter().filter(|result| result.outcome.status == Status::Failed).count();
    match (failed, request.common.dry_run) {
        (0, false) => format!("Published {version} to {environment}"),
        (0, true) if preflight::has_failed(checks) => {
            format!("Publish of {version} to {environment} would fail")
        }
        (0, true) => format!("Would publish {version} to {environment}"),
        _ => format!("Publish of {version} to {environment} failed: {failed} of {}", plural(results.len(), "image")),
    }
}

fn table(results: &[PublicationResult]) -> Table {
    let mut table = Table::new(["Image", "Reference", "Extra tags", "Digest", "Size", "Attached", "Status"]);
    for result in results {
        table.row([
            Cell::text(&result.outcome.name),
            Cell::code(&result.reference),
            Cell::code(result.outcome.extra_tags.join(", ")),
            Cell::code(result.outcome.digest.as_ref().map(Digest::short).unwrap_or_default()),
            Cell::text(result.size.map(format_bytes).unwrap_or_default()),
            result.attachments.cell(),
            Cell::text(result.outcome.status.name()),
        ]);
    }
    table.filled()
}

/// Formats what was exchanged with the registry, for the log.
fn traffic(result: &PublicationResult) -> String {
    let (name, traffic) = (&result.outcome.name, &result.traffic);
    let requests =
        usize::try_from(traffic.total()).map_or_else(|_| "many requests".to_owned(), |count| plural(count, "request"));
    format!("{name}: {requests}, {} sent, {} retried", format_bytes(traffic.sent), traffic.retries)
}

fn format_bytes(count: u64) -> String {
    humansize::format_size(count, humansize::BINARY)
}
