//! The results of deliveries, for the log, the summary and the outputs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Delivery, Planned, PlannedWrites, Remark, writes};
use crate::AtSourceLocation;
use crate::Diagnostic;
use crate::evidence::RecordKind;
use crate::plural;
use oci::Digest;
use runner_protocol::{Annotation, Runner, Table, Verdict, remarks};

/// How far a run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A gate or an error blocked the run, so nothing was written.
    Blocked,
    /// The run was a dry run, so nothing was written.
    Planned,
    /// The plan was carried out.
    Applied,
}

/// The result of delivering an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// Publish wrote its tags.
    Created,
    /// Promote wrote its tags, or its record.
    Promoted,
    /// The target was already as it should be.
    Unchanged,
    /// A gate of this image or of another did not pass, or another image cannot be published.
    Blocked,
    /// The delivery failed.
    Failed,
    /// The run was a dry run; the image would be delivered.
    Planned,
}

/// The part of the output `images` that publish and promote share.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The image's key in the mapping.
    pub name: String,
    /// Its name in the mapping.
    pub image: String,
    /// The digest that its reference holds now, or would hold after a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The digest that the environment had before, if it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_digest: Option<Digest>,
    /// The extra tags that hold the digest now, or would hold it after a dry run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_tags: Vec<String>,
    /// The result.
    pub status: Status,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Status {
    /// Returns the name of the status in the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Promoted => "promoted",
            Self::Unchanged => "unchanged",
            Self::Blocked => "blocked",
            Self::Failed => "failed",
            Self::Planned => "planned",
        }
    }

    fn of(delivery: &Delivery, stage: Stage) -> Self {
        match (stage, delivery.kind) {
            (Stage::Blocked, RecordKind::Publish) if delivery.is_done() => Self::Unchanged,
            (Stage::Blocked, _) => Self::Blocked,
            _ if delivery.is_done() => Self::Unchanged,
            (Stage::Planned, _) => Self::Planned,
            (Stage::Applied, RecordKind::Publish) => Self::Created,
            (Stage::Applied, RecordKind::Promote | RecordKind::Rollback) => Self::Promoted,
        }
    }
}

impl Outcome {
    /// Returns the result for an image in a run that reached `stage`.
    pub fn of(planned: &Planned, stage: Stage) -> Self {
        let delivery = planned.delivery.as_ref().ok();
        let status = delivery.map_or(Status::Failed, |delivery| Status::of(delivery, stage));
        let digest = delivery.map(|delivery| delivery.kept().unwrap_or_else(|| delivery.digest()).clone());
        let extra_tags = delivery.filter(|_| status != Status::Blocked).into_iter().flat_map(|delivery| {
            let extra = delivery.tags.iter().skip(1).filter(|plan| !plan.kept);
            extra.map(|plan| plan.tag.to_string())
        });
        Self {
            name: planned.named.key.clone(),
            image: planned.named.image.clone(),
            previous_digest: delivery
                .and_then(|delivery| delivery.replaced.clone())
                .filter(|replaced| Some(replaced) != digest.as_ref()),
            extra_tags: extra_tags.collect(),
            error: planned.delivery.as_ref().err().map(|error| Diagnostic::of(error).line()),
            digest,
            status,
        }
    }
}

/// Returns the failures of images, each as one line with its hint.
pub fn failure_lines<'a>(images: impl Iterator<Item = &'a Planned>) -> Vec<String> {
    let errors = images.filter_map(|planned| planned.delivery.as_ref().err());
    errors.map(|error| Diagnostic::of(error).line()).collect()
}

/// Formats the failures of images for the summary, each with its hint.
pub fn failures<'a>(images: impl Iterator<Item = &'a Planned>) -> String {
    let failures = images.filter_map(|planned| {
        let error = planned.delivery.as_ref().err()?;
        Some((planned.named.key.as_str(), Diagnostic::of(error).line()))
    });
    let failures: Vec<(&str, String)> = failures.collect();
    remarks(failures.iter().map(|(key, line)| (*key, line.as_str())))
}

/// Formats the remarks about images for the summary.
pub fn notes<'a>(images: impl Iterator<Item = &'a Planned>) -> String {
    let delivered = images.filter_map(|planned| Some((planned.named.key.as_str(), planned.delivery.as_ref().ok()?)));
    remarks(delivered.flat_map(|(key, delivery)| delivery.remarks.iter().map(move |said| (key, said.text.as_str()))))
}

/// Formats the table of a summary: if images failed, the others are in a collapsible section.
pub fn images_table(table: &Table, outcomes: &[&Outcome]) -> String {
    let passed =
        |row: usize| !matches!(outcomes.get(row).map(|one| one.status), Some(Status::Failed | Status::Blocked));
    table.folded(passed, |count| format!("{} without a failure", plural(count, "image")))
}

/// Annotates the failure or the remarks of an image.
pub fn annotate(action: &str, planned: &Planned, runner: &Runner) {
    let (key, source_location) = (&planned.named.key, &planned.named.source_location);
    let title = format!("{action} {key}");
    match &planned.delivery {
        Ok(delivery) => {
            for Remark { level, text } in &delivery.remarks {
                let annotation = Annotation::new(*level, format!("image `{key}`: {text}"));
                runner.annotate(annotation.titled(title.clone()).at(Some(source_location.clone())));
            }
        }
        Err(error) => {
            let mut diagnostic = Diagnostic::of(error);
            diagnostic.source_location.get_or_insert_with(|| source_location.clone());
            runner.annotate(diagnostic.annotation().titled(title));
        }
    }
}

/// Shows in the log what would be written, and returns it as a section for the summary.
pub fn show_writes(images: &[(String, PlannedWrites)], runner: &Runner) -> String {
    if images.is_empty() {
        return String::new();
    }
    let table = writes::table(images.iter().map(|(key, writes)| (key.as_str(), writes)));
    runner.show(&table);
    format!("{}\n", table.markdown())
}

/// Sets the outputs `images` and `digests`, and returns whether every image was delivered. The elements of `images` are
/// the action's own results, each of which contains an [`Outcome`].
pub fn output<'a, R: Serialize + 'a>(
    results: &'a [R],
    outcome: impl Fn(&'a R) -> &'a Outcome,
    runner: &Runner,
) -> Verdict {
    let outcomes: Vec<&Outcome> = results.iter().map(outcome).collect();
    let digest = |outcome: &&'a Outcome| Some((outcome.name.as_str(), outcome.digest.as_ref()?));
    let digests: BTreeMap<&str, &Digest> = outcomes.iter().filter_map(digest).collect();
    runner.output("images", serde_json::json!(results).to_string());
    runner.output("digests", serde_json::json!(digests).to_string());
    if outcomes.iter().any(|outcome| matches!(outcome.status, Status::Failed | Status::Blocked)) {
        Verdict::Fail
    } else {
        Verdict::Pass
    }
}
