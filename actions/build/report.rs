//! What was built, for the log, the summary and the outputs.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use lifecycle::evidence::lint::{Counts as LintCounts, Finding};
use lifecycle::evidence::scan::Counts as ScanCounts;
use lifecycle::oci::Digest;
use lifecycle::runner::{Cell, Runner, Table, Verdict, escape, remarks};
use lifecycle::{Diagnosis, Place};

use crate::builder::Output;
use crate::checks::Checked;
use crate::inputs::Request;
use crate::output::Built;
use crate::plan::Image;
use crate::since::Reused;

/// One image's result, as the output `images` holds it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Result {
    name: String,
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    platforms: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lint: Option<LintCounts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vulnerabilities: Option<ScanCounts>,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Digests of base images by reference.
    #[serde(skip)]
    pub(crate) bases: BTreeMap<String, String>,
    #[serde(skip)]
    pub(crate) started: String,
    #[serde(skip)]
    pub(crate) finished: String,
    /// What the builder itself found wrong with the Dockerfile.
    #[serde(skip)]
    pub(crate) findings: Vec<Finding>,
    #[serde(skip)]
    details: String,
    /// SARIF documents.
    #[serde(skip)]
    pub(crate) sarif: Vec<Vec<u8>>,
    /// What is in the layout.
    #[serde(skip)]
    pub(crate) built: Option<Built>,
    /// What it is taken from, where it was not built.
    #[serde(skip)]
    pub(crate) reused: Option<Reused>,
    #[serde(skip)]
    pub(crate) seconds: u64,
    #[serde(skip)]
    layers: usize,
    #[serde(skip)]
    cached: usize,
    #[serde(skip)]
    diagnosis: Option<Diagnosis>,
    #[serde(skip)]
    place: Place,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Status {
    /// It was built.
    Built,
    /// Nothing has changed since a release, so it is taken from there.
    Reused,
    /// It was not.
    Failed,
    /// A dry run: it would be built.
    Planned,
}

impl Result {
    pub(crate) fn of(image: &Image, status: Status) -> Self {
        Self {
            name: image.key.clone(),
            image: image.definition.image_name.value.clone(),
            digest: None,
            media_type: None,
            platforms: image.platforms.iter().map(ToString::to_string).collect(),
            size: None,
            lint: None,
            vulnerabilities: None,
            status,
            error: None,
            bases: BTreeMap::new(),
            started: String::new(),
            finished: String::new(),
            findings: Vec::new(),
            details: String::new(),
            sarif: Vec::new(),
            built: None,
            reused: None,
            seconds: 0,
            layers: 0,
            cached: 0,
            diagnosis: None,
            place: image.definition.key.place.clone(),
        }
    }

    pub(crate) fn reused(image: &Image, reused: Reused) -> Self {
        let digest = Some(reused.manifest.digest.clone());
        let media_type = Some(reused.manifest.media_type.clone());
        let platforms = reused.platforms.iter().map(ToString::to_string).collect();
        Self { digest, media_type, platforms, reused: Some(reused), ..Self::of(image, Status::Reused) }
    }

    pub(crate) fn has(&mut self, built: Built, output: Output) {
        self.bases = output.bases;
        self.findings = output.findings;
        let blobs: BTreeMap<&Digest, u64> = built
            .platforms
            .iter()
            .flat_map(|(_, manifest)| manifest.blobs())
            .map(|blob| (&blob.digest, blob.size))
            .collect();
        self.size = Some(blobs.values().sum());
        self.layers = built.platforms.iter().map(|(_, manifest)| manifest.blobs().count() - 1).max().unwrap_or(0);
        self.digest = Some(built.root.digest.clone());
        self.media_type = Some(built.root.media_type.clone());
        self.platforms = built.platforms.iter().map(|(platform, _)| platform.to_string()).collect();
        self.cached = output.cached;
        self.built = Some(built);
    }

    pub(crate) fn fails(&mut self, error: &anyhow::Error) {
        let diagnosis = Diagnosis::of(error);
        self.status = Status::Failed;
        self.error = Some(diagnosis.line());
        self.diagnosis = Some(diagnosis);
    }
}

impl Result {
    /// Takes in what the checks found. What was not built has failed already, for that reason.
    pub(crate) fn checked(&mut self, checked: Checked) {
        self.lint = checked.lint;
        self.vulnerabilities = checked.vulnerabilities;
        self.details = checked.details;
        self.sarif = checked.sarif;
        if self.status == Status::Failed {
            return;
        }
        let mut problems = checked.problems.into_iter();
        if let Some(first) = problems.next() {
            let others: Vec<String> = problems.map(|problem| Diagnosis::of(&problem.into()).message).collect();
            let mut diagnosis = Diagnosis::of(&first.into());
            for other in others {
                diagnosis.message = format!("{}; {other}", diagnosis.message);
            }
            diagnosis.message = format!("image `{}`: {}", self.name, diagnosis.message);
            self.status = Status::Failed;
            self.error = Some(diagnosis.line());
            self.diagnosis = Some(diagnosis);
        }
    }
}

/// The matrix that fans a build out over runners: an image a job.
pub(crate) fn matrix(images: &[Image], runner: &Runner) {
    let include: Vec<_> = images
        .iter()
        .map(|image| {
            let platforms: Vec<String> = image.platforms.iter().map(ToString::to_string).collect();
            serde_json::json!({"images": image.key, "platforms": platforms.join(",")})
        })
        .collect();
    runner.output("matrix", serde_json::json!({ "include": include }).to_string());
}

/// Tells the runner, and says whether all is well.
pub(crate) fn write(request: &Request, results: &[Result], reports: Option<&Path>, runner: &Runner) -> Verdict {
    for result in results {
        if let Some(diagnosis) = &result.diagnosis {
            let mut annotation = diagnosis.annotation().titled(format!("build {}", result.name));
            annotation.place.get_or_insert_with(|| result.place.clone());
            runner.annotate(annotation);
        }
    }
    runner.show(&table(results));
    if request.common.summary {
        sections(request, results).iter().for_each(|section| runner.summarize(section));
    }
    let failed = results.iter().any(|result| result.status == Status::Failed);
    let digests: BTreeMap<&str, &Digest> =
        results.iter().filter_map(|result| Some((result.name.as_str(), result.digest.as_ref()?))).collect();
    runner.output("reports", reports.map(|path| path.display().to_string()).unwrap_or_default());
    runner.output("layout", request.layout.display().to_string());
    runner.output("images", serde_json::json!(results).to_string());
    runner.output("digests", serde_json::json!(digests).to_string());
    runner.output("verdict", if failed { "fail" } else { "pass" });
    if failed { Verdict::Fail } else { Verdict::Pass }
}

/// The report as Markdown: all images, then the vulnerabilities of each.
pub(crate) fn sections(request: &Request, results: &[Result]) -> Vec<String> {
    let failed = results.iter().filter(|result| result.status == Status::Failed).count();
    let what = match (failed, request.common.dry_run) {
        (0, false) => "Built".to_owned(),
        (0, true) => "Would build".to_owned(),
        _ => format!("Build failed: {failed} of {} images", results.len()),
    };
    let failures = results.iter().filter_map(|result| Some((result.name.as_str(), result.error.as_deref()?)));
    let images = format!("### {what}\n\n{}\n{}", table(results).markdown(), remarks(failures));
    let vulnerabilities = results.iter().filter(|result| !result.details.is_empty()).map(|result| {
        let summary = format!("<summary>Vulnerabilities of {}</summary>", escape(&result.name));
        format!("<details>{summary}\n\n{}\n</details>\n\n", result.details)
    });
    [images].into_iter().chain(vulnerabilities).collect()
}

fn table(results: &[Result]) -> Table {
    let mut table = Table::new([
        "Image",
        "Platforms",
        "Digest",
        "Size",
        "Layers",
        "Lint",
        "Vulnerabilities",
        "Status",
        "Time",
        "Cached steps",
    ]);
    for result in results {
        // Of what was not built there is nothing to count.
        let built = |text: String| Cell::text(if result.built.is_some() { text } else { String::new() });
        let seconds = if result.started.is_empty() { String::new() } else { format!("{} s", result.seconds) };
        table.row([
            Cell::text(&result.name),
            Cell::text(result.platforms.join(", ")),
            Cell::code(result.digest.as_ref().map(Digest::short).unwrap_or_default()),
            Cell::text(result.size.map(|size| humansize::format_size(size, humansize::BINARY)).unwrap_or_default()),
            built(result.layers.to_string()),
            Cell::text(result.lint.as_ref().map(lint_counts).unwrap_or_default()),
            Cell::text(result.vulnerabilities.as_ref().map(scan_counts).unwrap_or_default()),
            Cell::text(format!("{:?}", result.status).to_lowercase()),
            Cell::text(seconds),
            built(result.cached.to_string()),
        ]);
    }
    table
}

/// Error, warning, info, style; «clean» where there is none.
fn lint_counts(counts: &LintCounts) -> String {
    let all = [("E", counts.error), ("W", counts.warning), ("I", counts.info), ("S", counts.style)];
    non_zero(&all)
}

fn scan_counts(counts: &ScanCounts) -> String {
    let all = [("C", counts.critical), ("H", counts.high), ("M", counts.medium), ("L", counts.low)];
    non_zero(&all)
}

fn non_zero(counts: &[(&str, u64)]) -> String {
    let shown: Vec<String> = counts.iter().filter(|(_, n)| *n > 0).map(|(letter, n)| format!("{n} {letter}")).collect();
    if shown.is_empty() { "clean".to_owned() } else { shown.join(", ") }
}
