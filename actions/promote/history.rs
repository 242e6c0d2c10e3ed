//! Shows the history of images in environments. Nothing is written.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt};
use serde::Serialize;

use cfn_images::Version;
use lifecycle::access::RegistryAccess;
use lifecycle::evidence::{Record, RecordKind};
use lifecycle::naming::{Named, Release};
use lifecycle::{ActionError, Diagnostic, plural};
use oci::Digest;
use runner_protocol::{Annotation, Cell, Level, Runner, Table, Verdict, escape, remarks};

use crate::environment_history::{Depth, EnvironmentHistory, HistoryEntry, VersionedName};
use crate::gates::signature::{Signatures, StatementsRead, Trust};
use crate::hold::Hold;
use crate::request::HistoryRequest;
use crate::requirement::SignatureRule;
use crate::rollback_targets::{RollbackTarget, rollback_targets, sentence};

/// Stands in for the version if none is given: no release has it, and templates that validate their parameters accept it.
pub(crate) const PLACEHOLDER_VERSION: Version = Version::new(987_654_321, 0, 0);

/// How many records are verified concurrently.
const VERIFIERS: usize = 4;

/// How many digits of a commit's hash are shown.
const SHORT_COMMIT: usize = 12;

/// The history of one image in one environment, as it appears in the output `images`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageHistory {
    name: String,
    image: String,
    environment: String,
    /// The repository, including its registry.
    repository: String,
    /// The current digest: that of the newest record whose tag points to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// The hold that stops the next promotion, if a rollback left one.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<Hold>,
    /// The images before the current one, newest first, and whether they are still there to roll back to.
    rollback: Vec<RollbackTarget>,
    /// The records that count, newest first, as they are attached.
    history: Vec<Record>,
    /// How many lower versions were not looked at.
    #[serde(skip)]
    left_out: usize,
    /// How many records were left out because they are not signed as required, and the reason for the newest of them.
    #[serde(skip)]
    refused: Option<(usize, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Shows the history in the log, the summary and the outputs.
///
/// # Errors
/// If a name cannot be evaluated.
pub(crate) async fn show(request: &HistoryRequest, runner: &Runner) -> anyhow::Result<Verdict> {
    let version = request.version.clone().unwrap_or(PLACEHOLDER_VERSION);
    let mut images: Vec<(Release<'_>, Named)> = Vec::new();
    for environment in &request.environments {
        let release = Release { environment, version: &version };
        let names = request.common.project.names(release, &request.target).await;
        let names = names.map_err(|error| match request.version {
            Some(_) => error,
            None => error.context(
                ActionError::failure(format!("the names in {environment} cannot be evaluated without a version"))
                    .hint("set `version`"),
            ),
        })?;
        images.extend(names.images.into_iter().map(|named| (release, named)));
    }
    let rules: Vec<&SignatureRule> = request.rules.iter().collect();
    let (project, options) = (&request.common.project, &request.common.options);
    let signatures = Signatures::new(&rules, &request.target, options, (project, &request.sigstore), runner);
    let histories = images.iter().map(|(release, named)| {
        let read = StatementsRead::default();
        let (signatures, rules) = (&signatures, rules.as_slice());
        async move {
            let trust = Trust { signatures, rules, reference: &named.reference, read: &read };
            image_history(&request.target, *release, named, &trust).await
        }
    });
    let histories: Vec<_> = histories.collect();
    let mut histories: Vec<ImageHistory> = stream::iter(histories).buffered(request.common.concurrency).collect().await;
    histories.sort_by(|a, b| a.name.cmp(&b.name));
    report(request, &histories, runner);
    let failed = histories.iter().any(|history| history.error.is_some());
    Ok(if failed { Verdict::Fail } else { Verdict::Pass })
}

async fn image_history(
    target: &RegistryAccess,
    release: Release<'_>,
    named: &Named,
    trust: &Trust<'_>,
) -> ImageHistory {
    let history = async {
        let repository = target.stores.open(&named.reference)?;
        let name = VersionedName::new(named, release);
        EnvironmentHistory::read(target, &repository.store, name, &BTreeMap::new(), Depth::Highest).await
    };
    let (mut history, error) = match history.await {
        Ok(history) => (history, None),
        Err(error) => (EnvironmentHistory::default(), Some(Diagnostic::of(&error.into()).line())),
    };
    let refused = refuse_untrusted(&mut history, trust).await;
    let rollback = rollback_targets(target, &named.reference, &named.pattern, &history, None).await;
    let current: Option<&HistoryEntry> = history.current();
    ImageHistory {
        name: named.key.clone(),
        image: named.image.clone(),
        environment: release.environment.to_owned(),
        repository: named.reference.repository_address(),
        digest: current.map(|entry| entry.digest.clone()),
        version: current.map(|entry| entry.version.to_string()),
        since: current.map(|entry| entry.record.time.clone()),
        by: current.and_then(|entry| entry.record.actor.clone()),
        hold: Hold::of(&history),
        rollback,
        left_out: history.left_out(),
        refused,
        history: history.entries.iter().map(|entry| entry.record.clone()).collect(),
        error,
    }
}

/// Formats what is special about a record: that it is the current one, leaves a hold, or lifted one.
fn remark(record: &Record, is_current: bool) -> String {
    let lifted = record.lifted_hold.as_ref().map(|reason| format!("lifted the hold: {reason}"));
    let hold = (is_current && record.kind == RecordKind::Rollback).then(|| "on hold".to_owned());
    let parts: Vec<String> = is_current.then(|| "current".to_owned()).into_iter().chain(hold).chain(lifted).collect();
    parts.join(", ")
}

/// Removes the records that are not signed as `signature` requires. Returns their number, and the reason for the newest.
async fn refuse_untrusted(history: &mut EnvironmentHistory, trust: &Trust<'_>) -> Option<(usize, String)> {
    let checks = history.entries.iter().map(|entry| trust.record(&entry.record, entry.referrer()));
    let checks: Vec<_> = checks.collect();
    let checked: Vec<Result<(), String>> = stream::iter(checks).buffered(VERIFIERS).collect().await;
    let mut signed = checked.iter().map(Result::is_ok);
    history.entries.retain(|_| signed.next().unwrap_or_default());
    let mut reasons = checked.into_iter().filter_map(Result::err);
    let newest = reasons.next()?;
    Some((reasons.count() + 1, newest))
}

fn report(request: &HistoryRequest, histories: &[ImageHistory], runner: &Runner) {
    let mut table =
        Table::new(["Image", "Environment", "Version", "Digest", "Since", "By", "Kind", "Commit", "Run", ""]);
    for image in histories {
        if let Some(error) = &image.error {
            let message =
                format!("cannot read the history of image `{}` in {}: {error}", image.name, image.environment);
            runner.annotate(Annotation::new(Level::Error, message));
        }
        if let Some((count, reason)) = &image.refused {
            let (name, environment) = (&image.name, &image.environment);
            let message = format!(
                "{} of `{name}` in {environment} left out, not signed as `signature` requires: {reason}",
                plural(*count, "record")
            );
            runner.annotate(Annotation::new(Level::Warning, message));
        }
        if image.left_out > 0 {
            let (name, environment) = (&image.name, &image.environment);
            let message = format!("{} lower versions of `{name}` in {environment} are not shown", image.left_out);
            runner.annotate(Annotation::new(Level::Notice, message));
        }
        for (index, record) in image.history.iter().enumerate() {
            let text = |text: &Option<String>| Cell::text(text.clone().unwrap_or_default());
            // Anyone who may push can attach a record, so its run becomes a link only if it is in this repository.
            let run = match &record.run {
                Some(run) if runner.variables.is_own_run(run) => Cell::Link(run.clone()),
                run => text(run),
            };
            let commit = record.image_commit.as_deref().unwrap_or_default();
            let commit = commit.get(..SHORT_COMMIT).unwrap_or(commit);
            table.row([
                Cell::text(&image.name),
                Cell::text(&image.environment),
                Cell::text(&record.version),
                Cell::code(record.digest.short()),
                Cell::text(&record.time),
                text(&record.actor),
                Cell::text(record.kind.name()),
                Cell::code(commit),
                run,
                Cell::text(remark(record, index == 0)),
            ]);
        }
        if image.history.is_empty() && image.error.is_none() {
            runner.say(format!("no record of {} in {}", image.name, image.environment));
        }
    }
    runner.show(&table);
    let targets = histories.iter().filter_map(|image| Some((image, sentence(&image.rollback)?)));
    let targets: Vec<(&str, String)> =
        targets.map(|(image, said)| (image.name.as_str(), format!("{} {said}", image.environment))).collect();
    targets.iter().for_each(|(name, said)| runner.say(format!("{name}: {said}")));
    if request.common.summary {
        let environments: Vec<String> = request.environments.iter().map(|environment| escape(environment)).collect();
        let targets = remarks(targets.iter().map(|(name, said)| (*name, said.as_str())));
        runner.summarize(&format!("### History of {}\n\n{}\n{targets}", environments.join(", "), table.markdown()));
    }
    runner.output("images", serde_json::json!(histories).to_string());
    // In several environments an image has several digests.
    if request.environments.len() == 1 {
        let digests: BTreeMap<&str, &Digest> =
            histories.iter().filter_map(|image| Some((image.name.as_str(), image.digest.as_ref()?))).collect();
        runner.output("digests", serde_json::json!(digests).to_string());
    }
}
