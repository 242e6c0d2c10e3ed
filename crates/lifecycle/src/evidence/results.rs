//! The content of evidence, as far as gates need it.

use time::format_description::well_known::Rfc3339;
use time::{Date, OffsetDateTime};

use super::{lint, scan};

/// The result of a linter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LintResult {
    /// The number of findings by level.
    pub counts: lint::LintCounts,
    /// The lowest level that failed the build. None if it was `off` or is not recorded.
    pub threshold: Option<lint::LintLevel>,
    /// Set if the linter could not read the file. Then an absence of findings means nothing.
    pub failed: Option<LintFailure>,
}

/// The failure of a linter to read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LintFailure {
    /// The last day on which a waiver accepts the failure.
    pub waived_until: Option<Date>,
}

/// The result of a scanner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanResult {
    /// The scanner, as it identifies itself.
    pub scanner: String,
    /// When the scan finished.
    pub finished: Option<OffsetDateTime>,
    /// The vulnerabilities that it found.
    pub vulnerabilities: Vec<ReportedVulnerability>,
}

/// A vulnerability in a scan result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedVulnerability {
    /// Its id.
    pub id: String,
    /// The worst of the severities that the result lists for it.
    pub severity: scan::Severity,
    /// The package, if recorded.
    pub package: Option<String>,
    /// Whether there is a fix.
    pub has_fix: bool,
    /// The last day on which a waiver accepts it.
    pub waived_until: Option<Date>,
    /// Who accepted it.
    pub waiver_owner: Option<String>,
}

impl ReportedVulnerability {
    /// Formats the sentence that the waiver of the vulnerability expired on a day, if it had a waiver.
    pub fn expired(&self, today: Date) -> Option<String> {
        let day = self.waived_until.filter(|day| *day < today)?;
        let owner = self.waiver_owner.as_ref().map(|owner| format!(" by {owner}")).unwrap_or_default();
        Some(format!("the waiver of `{}`{owner} expired on {day}", self.id))
    }
}

impl ScanResult {
    /// Returns the vulnerabilities that count on a day: all except those that a waiver still accepts.
    pub fn counting(&self, today: Date) -> impl Iterator<Item = &ReportedVulnerability> {
        self.vulnerabilities.iter().filter(move |reported| reported.waived_until.is_none_or(|day| day < today))
    }

    /// Counts by severity the vulnerabilities that count on a day.
    pub fn counts(&self, today: Date) -> scan::ScanCounts {
        let mut counts = scan::ScanCounts::default();
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

impl SbomFormat {
    /// Returns the name of the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::CycloneDx => "CycloneDX",
            Self::Spdx => "SPDX",
        }
    }
}

/// How an image was built, according to its provenance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The repository's address, if recorded, without `git+` and the ref.
    pub repository: Option<String>,
    /// The commit, if recorded.
    pub commit: Option<String>,
    /// The builder's identity, if recorded.
    pub builder: Option<String>,
}

/// Parses a time in RFC 3339.
pub(super) fn time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}
