//! The report of a run: log, summary and outputs.

use std::collections::BTreeMap;
use std::path::Path;

use lifecycle::delta::SizeChange;
use lifecycle::reporting::TROUBLESHOOTING;
use lifecycle::{clock, plural};
use oci::{Digest, Manifest};
use runner_protocol::{Cell, Runner, Table, Variables, Verdict, code_block, details, escape, message, remarks};

use crate::built_image::{BASE_ANNOTATION, BuiltImage};
use crate::image::Image;
use crate::image_result::{BuildStatus, ImageResult};
use crate::presentation;
use crate::reuse::ReusedImage;

/// The most lint findings of one image that the summary lists.
const LISTED_FINDINGS: usize = 50;

/// The number of seconds in a day.
const DAY: i64 = 24 * 60 * 60;

/// Writes the output `matrix`, with one job per image.
pub(crate) fn write_matrix(images: &[Image], runner: &Runner) {
    let include: Vec<_> = images
        .iter()
        .map(|image| {
            let platforms: Vec<String> = image.platforms.iter().map(ToString::to_string).collect();
            serde_json::json!({"images": image.key, "platforms": platforms.join(",")})
        })
        .collect();
    runner.output("matrix", serde_json::json!({ "include": include }).to_string());
}

/// The report of a run.
pub(crate) struct BuildReport<'a> {
    pub(crate) results: &'a [ImageResult],
    /// The builder, and why it was chosen.
    pub(crate) builder: &'a str,
    /// The checks that were skipped for all images, and why.
    pub(crate) skipped: &'a [String],
    /// The folder of the layout.
    pub(crate) layout: &'a Path,
    pub(crate) dry_run: bool,
    /// Whether a step summary is written.
    pub(crate) summary: bool,
}

impl BuildReport<'_> {
    /// Writes annotations, table, summary and outputs, and returns the verdict.
    pub(crate) fn write(&self, reports: Option<&Path>, runner: &Runner) -> Verdict {
        for result in self.results {
            if let Some(diagnostic) = &result.diagnostic {
                let mut diagnostic = diagnostic.clone();
                diagnostic.source_location.get_or_insert_with(|| result.source_location.clone());
                runner.annotate(diagnostic.annotation().titled(format!("build {}", result.name)));
            }
        }
        runner.show(&table(self.results));
        if self.summary {
            self.sections(&runner.variables).iter().for_each(|section| runner.summarize(section));
            runner.summarize(&runner.variables.links((self.failed() > 0).then_some(TROUBLESHOOTING)));
        }
        let digest = |result: &'_ ImageResult| Some((result.name.clone(), result.digest.clone()?));
        let digests: BTreeMap<String, Digest> = self.results.iter().filter_map(digest).collect();
        let failed = self.failed() > 0;
        runner.output("reports", reports.map(|path| path.display().to_string()).unwrap_or_default());
        runner.output("layout", self.layout.display().to_string());
        runner.output("images", serde_json::json!(self.results).to_string());
        runner.output("digests", serde_json::json!(digests).to_string());
        let loaded = self.results.iter().filter_map(|result| Some((result.name.as_str(), result.loaded.as_deref()?)));
        runner.output("loaded", serde_json::json!(loaded.collect::<BTreeMap<_, _>>()).to_string());
        runner.output("verdict", if failed { "fail" } else { "pass" });
        if failed { Verdict::Fail } else { Verdict::Pass }
    }

    /// Returns the report as Markdown sections: all images, then what was found in each, then what each consists of.
    pub(crate) fn sections(&self, variables: &Variables) -> Vec<String> {
        let heading = match (self.failed(), self.dry_run) {
            (0, false) => "Built".to_owned(),
            (0, true) => "Would build".to_owned(),
            (failed, _) => format!("Build failed: {failed} of {}", plural(self.results.len(), "image")),
        };
        let builder = format!("Built with {}", self.builder);
        let remarks_on_run = [builder.as_str()].into_iter().chain(self.skipped.iter().map(String::as_str));
        let skipped = remarks_on_run.map(|why| format!("- {}\n", message(why))).collect::<String>();
        let passed = self.results.iter().filter(|one| one.status != BuildStatus::Failed).map(remarks_on_passed);
        let skipped = skipped + &passed.collect::<String>() + "\n";
        let failures = self.results.iter().filter_map(|one| Some((one.name.as_str(), one.error.as_deref()?)));
        let is_passed = |row: usize| self.results.get(row).is_some_and(|one| one.status != BuildStatus::Failed);
        let table =
            table(self.results).folded(is_passed, |count| format!("{} without a failure", plural(count, "image")));
        let images = format!("### {heading}\n\n{}{table}{skipped}", remarks(failures));
        let vulnerabilities =
            self.results.iter().filter(|result| !result.checked.details.is_empty()).map(|result| {
                details(&format!("Vulnerabilities of {}", escape(&result.name)), &result.checked.details)
            });
        let linted = self.results.iter().filter(|result| !result.checked.lint_findings.is_empty()).map(|result| {
            let table = presentation::lint_table(&result.checked.lint_findings, LISTED_FINDINGS, variables);
            details(&format!("Lint findings of {}", escape(&result.name)), &table.markdown())
        });
        let contents = self.results.iter().filter_map(|result| Some(contents(result, result.built.as_ref()?)));
        [images].into_iter().chain(vulnerabilities).chain(linted).chain(contents).collect()
    }

    fn failed(&self) -> usize {
        self.results.iter().filter(|result| result.status == BuildStatus::Failed).count()
    }
}

fn table(results: &[ImageResult]) -> Table {
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
        // There is nothing to count for an image that was not built.
        let built = |text: String| Cell::text(if result.built.is_some() { text } else { String::new() });
        let seconds = if result.started.is_empty() { String::new() } else { format!("{} s", result.seconds) };
        table.row([
            Cell::text(&result.name),
            Cell::text(result.platforms.join(", ")),
            Cell::code(result.digest.as_ref().map(Digest::short).unwrap_or_default()),
            Cell::text(size_cell(result)),
            built(result.layers.to_string()),
            Cell::text(lint_cell(result)),
            built(scan_cell(result)),
            Cell::text(format!("{:?}", result.status).to_lowercase()),
            Cell::text(seconds),
            built(result.cached.to_string()),
        ]);
    }
    table.filled()
}

/// Formats what an image consists of: its digest, its platforms, its base image, and how it was built.
fn contents(result: &ImageResult, built: &BuiltImage) -> String {
    let digest = built.root.digest.to_string();
    let mut platforms = Table::new(["platform", "manifest", "layers", "size"]);
    for (platform, manifest) in &built.platforms {
        platforms.row([
            Cell::text(platform.to_string()),
            // That of a single platform is the image's own.
            Cell::code(if built.platforms.len() > 1 { manifest.digest.to_string() } else { String::new() }),
            Cell::text(manifest.blobs().count().saturating_sub(1).to_string()),
            Cell::text(format_bytes(Manifest::image_size([manifest]))),
        ]);
    }
    let base = |what: &str| built.root.annotations.get(&format!("{BASE_ANNOTATION}{what}"));
    let base = base("name").map(|name| {
        let digest = base("digest").map(|digest| format!(" at `{digest}`")).unwrap_or_default();
        let created = result.base_created.as_deref().and_then(age).unwrap_or_default();
        format!("based on `{name}`{digest}{created}")
    });
    let steps = (result.cached > 0).then(|| format!("{} from the cache", plural(result.cached, "step")));
    let time = format!("built in {} s", result.seconds);
    let facts = [released_size(result), base, steps, Some(time)].into_iter().flatten();
    let facts: String = facts.map(|fact| format!("- {}\n", message(&fact))).collect();
    let content = format!("{}{}\n{facts}", code_block("text", [digest.as_str()]), platforms.filled().markdown());
    details(&format!("What {} consists of", escape(&result.name)), &content)
}

/// Formats the size of an image, with the difference from the release before in parentheses if that is known.
fn size_cell(result: &ImageResult) -> String {
    let Some(size) = result.size else { return String::new() };
    let change = size_change(result).map(|change| format!(" ({})", change.sentence())).unwrap_or_default();
    format_bytes(size) + &change
}

/// Compares the size of an image with the release before; `None` if that is not known.
fn released_size(result: &ImageResult) -> Option<String> {
    let (size, change, released) = (result.size?, size_change(result)?, result.released.as_ref()?);
    Some(format!("{}; compared with `{}`: {}", format_bytes(size), released.reference, change.sentence()))
}

fn size_change(result: &ImageResult) -> Option<SizeChange> {
    Some(SizeChange { from: result.released.as_ref()?.bytes, to: result.size? })
}

fn format_bytes(count: u64) -> String {
    humansize::format_size(count, humansize::BINARY)
}

/// Formats the date of a base image and its age. A reproducible image has the date of its sources, or the Unix epoch, of
/// which nothing is said.
fn age(created: &str) -> Option<String> {
    let days = clock::age_seconds(created)? / DAY;
    let year: u32 = created.get(..4)?.parse().ok()?;
    let days = usize::try_from(days).ok().filter(|_| year > 1980)?;
    Some(format!(", which is {} old ({})", plural(days, "day"), created.get(..10)?))
}

/// Returns list items that say why an image was reused or built, and why it passed although its checks did not find it
/// clean.
fn remarks_on_passed(result: &ImageResult) -> String {
    let not_linted = result.not_linted.as_ref().map(|why| format!("its Dockerfile could not be linted: {why}"));
    let reused = result.reused.as_ref();
    let reused = reused.map(ReusedImage::describe);
    let why = reused.iter().chain(&result.not_reused).chain(&not_linted).chain(&result.checked.unrated);
    why.map(|why| format!("- {}\n", message(&format!("image `{}`: {why}", result.name)))).collect()
}

/// Counts of errors, warnings, infos and style findings; "clean" if there are none, empty if nothing was linted.
fn lint_cell(result: &ImageResult) -> String {
    if result.not_linted.is_some() {
        return "could not be linted".to_owned();
    }
    let Some(counts) = &result.lint else { return String::new() };
    let all = [("E", counts.error), ("W", counts.warning), ("I", counts.info), ("S", counts.style)];
    non_zero(&all)
}

/// Counts of the vulnerabilities that matter by severity, then of those that do not.
fn scan_cell(result: &ImageResult) -> String {
    let Some(counts) = &result.vulnerabilities else { return "not scanned".to_owned() };
    let by_severity = [
        ("C", counts.critical),
        ("H", counts.high),
        ("M", counts.medium),
        ("L", counts.low),
        ("unknown", counts.unknown),
    ];
    let ignored = [("waived", result.checked.waived as u64), ("without a fix", result.checked.unfixed as u64)];
    non_zero(by_severity.iter().chain(&ignored))
}

fn non_zero<'a>(counts: impl IntoIterator<Item = &'a (&'a str, u64)>) -> String {
    let counts = counts.into_iter().filter(|(_, number)| *number > 0);
    let shown: Vec<String> = counts.map(|(what, number)| format!("{number} {what}")).collect();
    if shown.is_empty() { "clean".to_owned() } else { shown.join(", ") }
}
