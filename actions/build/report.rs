//! What was built, for the log, the summary and the outputs.

use std::collections::BTreeMap;
use std::path::Path;

use lifecycle::plural;
use oci::Digest;
use runner_protocol::{Cell, Runner, Table, Verdict, escape, message, remarks};

use crate::inputs::Request;
use crate::outcome::{Outcome, Status};
use crate::plan::Image;

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

/// The outcomes of a run.
pub(crate) struct Report<'a> {
    pub(crate) request: &'a Request,
    pub(crate) outcomes: &'a [Outcome],
    /// What builds, and why that.
    pub(crate) builder: &'a str,
    /// Checks that no image had, and why.
    pub(crate) skipped: &'a [String],
}

impl Report<'_> {
    /// Tells the runner, and says whether all is well.
    pub(crate) fn write(&self, reports: Option<&Path>, runner: &Runner) -> Verdict {
        for outcome in self.outcomes {
            if let Some(diagnostic) = &outcome.diagnostic {
                let mut diagnostic = diagnostic.clone();
                diagnostic.place.get_or_insert_with(|| outcome.place.clone());
                runner.annotate(diagnostic.annotation().titled(format!("build {}", outcome.name)));
            }
        }
        runner.show(&table(self.outcomes));
        if self.request.common.summary {
            self.sections().iter().for_each(|section| runner.summarize(section));
            runner.summarize(&runner.variables.links());
        }
        let digest = |outcome: &'_ Outcome| Some((outcome.name.clone(), outcome.digest.clone()?));
        let digests: BTreeMap<String, Digest> = self.outcomes.iter().filter_map(digest).collect();
        let failed = self.failed() > 0;
        runner.output("reports", reports.map(|path| path.display().to_string()).unwrap_or_default());
        runner.output("layout", self.request.layout.display().to_string());
        runner.output("images", serde_json::json!(self.outcomes).to_string());
        runner.output("digests", serde_json::json!(digests).to_string());
        let loaded =
            self.outcomes.iter().filter_map(|outcome| Some((outcome.name.as_str(), outcome.loaded.as_deref()?)));
        runner.output("loaded", serde_json::json!(loaded.collect::<BTreeMap<_, _>>()).to_string());
        runner.output("verdict", if failed { "fail" } else { "pass" });
        if failed { Verdict::Fail } else { Verdict::Pass }
    }

    /// The report as Markdown: all images, then the vulnerabilities of each.
    pub(crate) fn sections(&self) -> Vec<String> {
        let what = match (self.failed(), self.request.common.dry_run) {
            (0, false) => "Built".to_owned(),
            (0, true) => "Would build".to_owned(),
            (failed, _) => format!("Build failed: {failed} of {}", plural(self.outcomes.len(), "image")),
        };
        let builder = format!("Built with {}", self.builder);
        let remarked = [builder.as_str()].into_iter().chain(self.skipped.iter().map(String::as_str));
        let skipped = remarked.map(|why| format!("- {}\n", message(why))).collect::<String>();
        let let_through = self.outcomes.iter().filter(|one| one.status != Status::Failed).map(let_through);
        let skipped = skipped + &let_through.collect::<String>() + "\n";
        let failures = self.outcomes.iter().filter_map(|one| Some((one.name.as_str(), one.error.as_deref()?)));
        let images = format!("### {what}\n\n{}\n{}{skipped}", table(self.outcomes).markdown(), remarks(failures));
        let vulnerabilities =
            self.outcomes.iter().filter(|outcome| !outcome.checked.details.is_empty()).map(|outcome| {
                let summary = format!("<summary>Vulnerabilities of {}</summary>", escape(&outcome.name));
                format!("<details>{summary}\n\n{}\n</details>\n\n", outcome.checked.details)
            });
        [images].into_iter().chain(vulnerabilities).collect()
    }

    fn failed(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.status == Status::Failed).count()
    }
}

fn table(outcomes: &[Outcome]) -> Table {
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
    for outcome in outcomes {
        // Of what was not built there is nothing to count.
        let built = |text: String| Cell::text(if outcome.built.is_some() { text } else { String::new() });
        let seconds = if outcome.started.is_empty() { String::new() } else { format!("{} s", outcome.seconds) };
        table.row([
            Cell::text(&outcome.name),
            Cell::text(outcome.platforms.join(", ")),
            Cell::code(outcome.digest.as_ref().map(Digest::short).unwrap_or_default()),
            Cell::text(outcome.size.map(|size| humansize::format_size(size, humansize::BINARY)).unwrap_or_default()),
            built(outcome.layers.to_string()),
            Cell::text(linted(outcome)),
            built(scanned(outcome)),
            Cell::text(format!("{:?}", outcome.status).to_lowercase()),
            Cell::text(seconds),
            built(outcome.cached.to_string()),
        ]);
    }
    table.filled()
}

/// What an image was let through with although its checks do not call it clean, as list items.
fn let_through(outcome: &Outcome) -> String {
    let not_linted = outcome.not_linted.as_ref().map(|why| format!("its Dockerfile could not be linted: {why}"));
    let why = not_linted.iter().chain(&outcome.checked.unrated);
    why.map(|why| format!("- {}\n", message(&format!("image `{}`: {why}", outcome.name)))).collect()
}

/// Error, warning, info, style; "clean" where there is none, and nothing where nothing was linted.
fn linted(outcome: &Outcome) -> String {
    if outcome.not_linted.is_some() {
        return "could not be linted".to_owned();
    }
    let Some(counts) = &outcome.lint else { return String::new() };
    let all = [("E", counts.error), ("W", counts.warning), ("I", counts.info), ("S", counts.style)];
    non_zero(&all)
}

/// What counts by severity, then what does not.
fn scanned(outcome: &Outcome) -> String {
    let Some(counts) = &outcome.vulnerabilities else { return "not scanned".to_owned() };
    let by_severity = [
        ("C", counts.critical),
        ("H", counts.high),
        ("M", counts.medium),
        ("L", counts.low),
        ("unknown", counts.unknown),
    ];
    let apart = [("waived", outcome.checked.waived as u64), ("without a fix", outcome.checked.unfixed as u64)];
    non_zero(by_severity.iter().chain(&apart))
}

fn non_zero<'a>(counts: impl IntoIterator<Item = &'a (&'a str, u64)>) -> String {
    let counts = counts.into_iter().filter(|(_, number)| *number > 0);
    let shown: Vec<String> = counts.map(|(what, number)| format!("{number} {what}")).collect();
    if shown.is_empty() { "clean".to_owned() } else { shown.join(", ") }
}
