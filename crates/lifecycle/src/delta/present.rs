//! Deltas as text: a table with one row for each platform, and lists of what differs.

use std::collections::BTreeMap;

use super::difference::{CommitRange, Delta, Finding, PlatformDelta, SizeChange};
use crate::evidence::scan::Severity;
use runner_protocol::{Cell, Table, escape};

/// The maximum number of entries of a list that are shown.
const LISTED: usize = 50;

/// The shown length of a commit.
const SHORT: usize = 7;

/// Returns a table of all deltas, without those that change nothing.
pub fn table(deltas: &[Delta]) -> Table {
    let mut table = Table::new([
        "Image",
        "Platform",
        "From",
        "To",
        "Commits",
        "Packages",
        "Vulnerabilities",
        "Configuration",
        "Size",
        "Not known",
    ]);
    for delta in deltas.iter().filter(|delta| !delta.is_empty()) {
        let version = |side: &super::Side| side.version.clone().unwrap_or_else(|| side.digest.short());
        let from = delta.from.as_ref().map_or_else(|| "nothing".to_owned(), version);
        for (platform, changed) in &delta.platforms {
            table.row([
                Cell::text(&delta.name),
                Cell::text(platform),
                Cell::text(&from),
                Cell::text(version(&delta.to)),
                Cell::text(delta.commits.as_ref().map(CommitRange::sentence).unwrap_or_default()),
                Cell::text(changed.packages_sentence()),
                Cell::text(changed.vulnerabilities_sentence()),
                Cell::text(changed.config_sentence()),
                Cell::text(changed.size.map(SizeChange::sentence).unwrap_or_default()),
                Cell::text(if delta.missing.is_empty() { String::new() } else { delta.missing.len().to_string() }),
            ]);
        }
    }
    table.filled()
}

/// Formats the lists of what differs as Markdown, with a collapsible section for each image. The text is empty if nothing
/// differs.
pub fn details(deltas: &[Delta]) -> String {
    let mut markdown = String::new();
    for delta in deltas.iter().filter(|delta| !delta.is_empty()) {
        let lists = lists(delta);
        if !lists.is_empty() {
            let name = escape(&delta.name);
            markdown += &runner_protocol::details(&format!("What changes in {name}"), &lists);
        }
    }
    markdown
}

fn lists(delta: &Delta) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut list = |title: &str, entries: Vec<String>| {
        if entries.is_empty() {
            return;
        }
        lines.push(format!("{title}:\n"));
        let more = entries.len().saturating_sub(LISTED);
        lines.extend(entries.into_iter().take(LISTED).map(|entry| format!("- {entry}")));
        if more > 0 {
            lines.push(format!("- and {more} more"));
        }
        lines.push(String::new());
    };
    if let Some(CommitRange { url: Some(url), from, to }) =
        delta.commits.as_ref().filter(|range| range.from != range.to)
    {
        // The address comes from evidence, so only one of the expected form becomes a link.
        let entry = if is_plain_address(url) { format!("<{url}>") } else { escape(&format!("{from}...{to}")) };
        list("Commits", vec![entry]);
    }
    for (platform, changed) in &delta.platforms {
        let of = |title: &str| {
            if delta.platforms.len() > 1 { format!("{title}, {}", escape(platform)) } else { title.to_owned() }
        };
        if let Some(vulnerabilities) = &changed.vulnerabilities {
            list(&of("New vulnerabilities"), vulnerabilities.introduced.iter().map(Finding::line).collect());
            list(&of("Vulnerabilities removed"), vulnerabilities.resolved.iter().map(Finding::line).collect());
        }
        if let Some(packages) = &changed.packages {
            let versioned = |package: &crate::evidence::packages::Package| {
                escape(format!("{} {}", package.name, package.version).trim_end())
            };
            list(&of("Packages added"), packages.added.iter().map(versioned).collect());
            list(&of("Packages removed"), packages.removed.iter().map(versioned).collect());
            let changes = packages.changed.iter();
            let changes = changes.map(|change| escape(&format!("{} {} → {}", change.name, change.from, change.to)));
            list(&of("Packages changed"), changes.collect());
        }
        let changes = changed.config.iter().chain(&changed.base).map(|change| {
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
            escape(&format!("{}: {} → {}", change.field, value(&change.from), value(&change.to)))
        });
        list(&of("Configuration"), changes.collect());
    }
    list("Deployed by", delta.deployed_by.iter().map(|place| escape(place)).collect());
    list("Not known", delta.missing.iter().map(|sentence| escape(sentence)).collect());
    lines.join("\n")
}

/// Returns whether an address only has characters without a meaning in Markdown.
fn is_plain_address(url: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/:".contains(&byte);
    url.starts_with("https://") && url.bytes().all(is_plain)
}

impl CommitRange {
    fn sentence(&self) -> String {
        let short = |commit: &str| commit.chars().take(SHORT).collect::<String>();
        if self.from == self.to {
            "the same".to_owned()
        } else {
            format!("{}...{}", short(&self.from), short(&self.to))
        }
    }
}

impl PlatformDelta {
    fn packages_sentence(&self) -> String {
        let Some(packages) = &self.packages else { return "not known".to_owned() };
        let counts =
            [(packages.added.len(), "added"), (packages.removed.len(), "removed"), (packages.changed.len(), "changed")];
        let counts: Vec<String> =
            counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
    }

    fn vulnerabilities_sentence(&self) -> String {
        let Some(vulnerabilities) = &self.vulnerabilities else { return "not known".to_owned() };
        let counted = |findings: &[Finding], sign: &str| -> Vec<String> {
            let mut counts: BTreeMap<Severity, usize> = BTreeMap::new();
            findings.iter().for_each(|finding| *counts.entry(finding.severity).or_default() += 1);
            counts.into_iter().rev().map(|(severity, count)| format!("{sign}{count} {}", severity.name())).collect()
        };
        let all = [counted(&vulnerabilities.introduced, "+"), counted(&vulnerabilities.resolved, "−")].concat();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    }

    fn config_sentence(&self) -> String {
        self.config.iter().chain(&self.base).map(|change| change.field.clone()).collect::<Vec<_>>().join(", ")
    }
}

impl SizeChange {
    /// Formats the difference with its sign.
    pub fn sentence(self) -> String {
        let size = |bytes: u64| humansize::format_size(bytes, humansize::BINARY);
        match self.to.cmp(&self.from) {
            std::cmp::Ordering::Equal => "the same".to_owned(),
            std::cmp::Ordering::Greater => format!("+{}", size(self.to - self.from)),
            std::cmp::Ordering::Less => format!("−{}", size(self.from - self.to)),
        }
    }
}

impl Finding {
    fn line(&self) -> String {
        let package = self.package.as_ref().map(|package| format!(" in {package}")).unwrap_or_default();
        escape(&format!("{} ({}){package}", self.id, self.severity.name()))
    }
}
