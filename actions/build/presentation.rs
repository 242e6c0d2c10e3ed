//! How findings are shown: annotations in the log, tables in the summary.

use std::cmp::Reverse;

use lifecycle::AtSourceLocation;
use lifecycle::evidence::lint::{LintFinding, LintLevel};
use lifecycle::evidence::scan::{Assessed, Standing};
use oci::listed;
use runner_protocol::{Annotation, Cell, Level, Table, Variables};

/// Returns the annotation of a lint finding, at its line.
pub(crate) fn lint_annotation(finding: &LintFinding) -> Annotation {
    let level = match finding.level {
        LintLevel::Error => Level::Error,
        LintLevel::Warning => Level::Warning,
        LintLevel::Info | LintLevel::Style => Level::Notice,
    };
    Annotation::new(level, format!("{}: {}", finding.rule, finding.message))
        .titled(format!("lint: {}", finding.rule))
        .at(finding.source_location.clone())
}

/// Returns a table of lint findings by rule, the worst first, with at most `rows` rows. Each rule has a link to its
/// documentation, and each finding to its line.
pub(crate) fn lint_table(findings: &[LintFinding], rows: usize, variables: &Variables) -> Table {
    let mut sorted: Vec<&LintFinding> = findings.iter().collect();
    sorted.sort_by_key(|finding| (Reverse(finding.level), &finding.rule, finding.source_location.line));
    let mut table = Table::new(["level", "rule", "message", "line"]);
    for finding in sorted.into_iter().take(rows) {
        let location = &finding.source_location;
        let line = format!("{}:{}", location.file.display(), location.line);
        table.row([
            Cell::text(finding.level.name()),
            linked(&finding.rule, finding.url.clone()),
            Cell::text(&finding.message),
            linked(&line, variables.line_url(&location.file, location.line)),
        ]);
    }
    table
}

/// Returns a cell with a link, or with code if there is no URL.
fn linked(text: &str, address: Option<String>) -> Cell {
    address.map_or_else(|| Cell::code(text), |address| Cell::Linked(text.to_owned(), address))
}

/// Returns the URL of a vulnerability in the database that its ID belongs to.
fn advisory(id: &str) -> Option<String> {
    let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    match id.split('-').next() {
        Some("CVE") if is_plain => Some(format!("https://nvd.nist.gov/vuln/detail/{id}")),
        Some("GHSA") if is_plain => Some(format!("https://github.com/advisories/{id}")),
        _ => None,
    }
}

/// Returns a table of the worst vulnerabilities, with at most `rows` rows.
pub(crate) fn vulnerability_table(findings: &[Assessed], rows: usize) -> Table {
    let mut table = Table::new(["severity", "id", "package", "version", "fixed in", "platforms", "standing"]);
    for Assessed { vulnerability, platforms, standing } in findings.iter().take(rows) {
        let standing = match standing {
            Standing::Fails => "fails".to_owned(),
            Standing::Counts => String::new(),
            Standing::Unfixed => "no fix".to_owned(),
            Standing::Waived(waiver) => format!("waived until {} by {}", waiver.expires, waiver.owner),
        };
        table.row([
            Cell::text(vulnerability.severity.name()),
            linked(&vulnerability.id, advisory(&vulnerability.id)),
            Cell::code(&vulnerability.package),
            Cell::code(&vulnerability.version),
            Cell::code(vulnerability.fixed.clone().unwrap_or_default()),
            Cell::text(listed(platforms)),
            Cell::text(standing),
        ]);
    }
    table
}
