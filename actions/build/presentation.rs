//! How findings are shown: annotations in the log, tables in the summary.

use lifecycle::AtSourceLocation;
use lifecycle::evidence::lint::{LintFinding, LintLevel};
use lifecycle::evidence::scan::{Assessed, Standing};
use oci::listed;
use runner_protocol::{Annotation, Cell, Level, Table};

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
            Cell::code(&vulnerability.id),
            Cell::code(&vulnerability.package),
            Cell::code(&vulnerability.version),
            Cell::code(vulnerability.fixed.clone().unwrap_or_default()),
            Cell::text(listed(platforms)),
            Cell::text(standing),
        ]);
    }
    table
}
