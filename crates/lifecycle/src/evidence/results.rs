//! What evidence says, as gates use it.

use time::format_description::well_known::Rfc3339;
use time::{Date, OffsetDateTime};

use super::{lint, scan};

/// What a linter said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LintResult {
    /// Findings by level.
    pub counts: lint::Counts,
    /// The lowest level that failed the build; none where it says nothing or `off`.
    pub threshold: Option<lint::Level>,
    /// The linter could not look: nothing found means nothing.
    pub failed: Option<LintFailure>,
}

/// That a linter could not look at a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LintFailure {
    /// The last day on which that is accepted.
    pub waived_until: Option<Date>,
}

/// What a scanner said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanResult {
    /// The scanner, as it names itself.
    pub scanner: String,
    /// When it finished.
    pub finished: Option<OffsetDateTime>,
    /// What it found.
    pub vulnerabilities: Vec<Reported>,
}

/// A vulnerability in a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// Its id.
    pub id: String,
    /// How bad it is: the worst of what is said.
    pub severity: scan::Severity,
    /// The package, where it is said.
    pub package: Option<String>,
    /// Whether there is a fix.
    pub has_fix: bool,
    /// The last day on which it is accepted.
    pub waived_until: Option<Date>,
}

impl ScanResult {
    /// What counts on a day: all but what is accepted until then.
    pub fn counting(&self, today: Date) -> impl Iterator<Item = &Reported> {
        self.vulnerabilities.iter().filter(move |reported| reported.waived_until.is_none_or(|day| day < today))
    }

    /// What counts on a day, by severity.
    pub fn counts(&self, today: Date) -> scan::Counts {
        let mut counts = scan::Counts::default();
        self.counting(today).for_each(|reported| counts.add(reported.severity));
        counts
    }
}

/// Formats of an SBOM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SbomFormat {
    /// CycloneDX.
    CycloneDx,
    /// SPDX.
    Spdx,
}

/// How an image says it was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The repository's address, where it is said, without `git+` and the ref.
    pub repository: Option<String>,
    /// The commit, where it is said.
    pub commit: Option<String>,
    /// What built it.
    pub builder: Option<String>,
}

/// Reads a time of RFC 3339.
pub(super) fn time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}
