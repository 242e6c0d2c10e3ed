//! Gates on the evidence that is attached to the image in its source.

use std::fmt;
use std::time::Duration;

use time::OffsetDateTime;

use lifecycle::evidence::lint::LintLevel;
use lifecycle::evidence::read::{self, Evidence};
use lifecycle::evidence::results::{LintFailure, LintResult, ReportedVulnerability, ScanResult};
use lifecycle::evidence::scan::Threshold;
use oci::{Digest, StoreError};

use super::{Candidate, GateOutcome, platforms, undecided};

/// How many vulnerabilities a sentence lists.
const LISTED: usize = 3;

/// How far the clock of the scanner may be ahead of this machine's.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// A kind of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EvidenceKind {
    Lint,
    Scan,
    Sbom,
    Provenance,
}

impl Candidate<'_> {
    /// Returns the newest trusted evidence of a kind. `subject` is the image or the platform that it is of.
    async fn newest<T>(
        &self,
        kind: EvidenceKind,
        subject: &str,
        found: Result<Vec<Evidence<T>>, StoreError>,
    ) -> Result<Evidence<T>, String> {
        let found = found.map_err(undecided)?;
        if found.is_empty() {
            return Err(format!("{subject} has no {kind}, which is required{}", kind.remedy()));
        }
        let count = found.len();
        let mut refusal = None;
        for evidence in found {
            match self.trust.statement(&evidence.referrer).await {
                Ok(()) => return Ok(evidence),
                Err(reason) => refusal = refusal.or(Some(reason)),
            }
        }
        let reason = refusal.unwrap_or_default();
        Err(format!("{subject} has {count} of {kind}, but none is signed as `signature` requires: {reason}"))
    }

    /// Returns the content of the newest trusted evidence of a kind.
    async fn newest_content<T>(
        &self,
        kind: EvidenceKind,
        subject: &str,
        found: Result<Vec<Evidence<T>>, StoreError>,
    ) -> Result<T, String> {
        let newest = self.newest(kind, subject, found).await?;
        newest.content.map_err(|reason| unreadable(kind, subject, &reason))
    }

    /// Checks that the linter found nothing at or above the threshold of the build.
    pub(super) async fn lint(&self) -> GateOutcome {
        let store = &self.delivery.source;
        let of_image = read::lint(store, self.root()).await;
        let is_missing = of_image.as_ref().is_ok_and(Vec::is_empty);
        if !is_missing || !self.delivery.graph.root.is_index() {
            return lint_outcome("the image", self.newest_content(EvidenceKind::Lint, "the image", of_image).await?);
        }
        // Platforms that were built in separate jobs were linted separately.
        let mut sentences = Vec::new();
        for (name, digest) in platforms(&self.delivery.graph)? {
            let result = self.newest_content(EvidenceKind::Lint, &name, read::lint(store, digest).await).await?;
            sentences.push(lint_outcome(&name, result)?);
        }
        Ok(sentences.join("; "))
    }

    /// Returns the newest scan of every platform, with the time at which it was attached.
    async fn scans(&self) -> Result<Vec<(String, ScanResult, Option<OffsetDateTime>)>, String> {
        let mut scans = Vec::new();
        for (name, digest) in platforms(&self.delivery.graph)? {
            let newest =
                self.newest(EvidenceKind::Scan, &name, read::scan(&self.delivery.source, digest).await).await?;
            let created = newest.created;
            let result = newest.content.map_err(|reason| unreadable(EvidenceKind::Scan, &name, &reason))?;
            scans.push((name, result, created));
        }
        Ok(scans)
    }

    /// Checks that the scan of every platform found nothing at or above a severity.
    pub(super) async fn scan(&self, threshold: Threshold) -> GateOutcome {
        let today = OffsetDateTime::now_utc().date();
        let mut lines = Vec::new();
        let mut fails = false;
        for (name, scan, _) in self.scans().await? {
            let counts = scan.counts(today);
            let reaches = |reported: &&ReportedVulnerability| threshold.is_reached_by(reported.severity);
            let mut worst: Vec<_> = scan.counting(today).filter(reaches).collect();
            worst.sort_by(|a, b| (b.severity, &a.id).cmp(&(a.severity, &b.id)));
            worst.dedup_by(|a, b| a.id == b.id);
            let ids: Vec<&str> = worst.iter().take(LISTED).map(|reported| reported.id.as_str()).collect();
            let listed = if ids.is_empty() { String::new() } else { format!(" ({})", ids.join(", ")) };
            lines.push(format!("{name} has {}{listed}", counts.sentence()));
            fails |= counts.reaching(threshold) > 0;
        }
        let sentence = format!("{}; threshold: {}", lines.join(", "), threshold.sentence());
        if fails { Err(sentence) } else { Ok(sentence) }
    }

    /// Checks that the oldest scan is no older than a limit.
    pub(super) async fn scan_age(&self, limit: Duration, typed: &str) -> GateOutcome {
        let now = OffsetDateTime::now_utc();
        let mut oldest = Duration::ZERO;
        for (name, scan, created) in self.scans().await? {
            let Some(at) = scan.finished.or(created) else {
                return Err(format!("the newest scan of {name} has no time"));
            };
            if at > now + CLOCK_SKEW {
                return Err(format!("the time of the newest scan of {name} is in the future: {at}"));
            }
            oldest = oldest.max(Duration::try_from(now - at).unwrap_or(Duration::ZERO));
        }
        let sentence = format!("the oldest scan was made {} ago; required: at most {typed}", rounded(oldest));
        if oldest > limit { Err(sentence) } else { Ok(sentence) }
    }

    /// Checks that every platform has an SBOM.
    pub(super) async fn sbom(&self) -> GateOutcome {
        let mut formats = Vec::new();
        for (name, digest) in platforms(&self.delivery.graph)? {
            let format =
                self.newest_content(EvidenceKind::Sbom, &name, read::sbom(&self.delivery.source, digest).await).await?;
            formats.push(format!("{name} has an SBOM in {format:?}"));
        }
        Ok(formats.join(", "))
    }

    /// Checks that the image was built from this repository.
    pub(super) async fn provenance(&self) -> GateOutcome {
        let Some(required) = self.gates.runner.variables.repository_url() else {
            return Err("it can't be decided: GITHUB_REPOSITORY is not set".to_owned());
        };
        let store = &self.delivery.source;
        let of_root = read::provenance(store, self.root()).await.map_err(undecided)?;
        let subjects: Vec<(String, &Digest)> = if of_root.is_empty() {
            // Builders attach their own provenance to each platform.
            platforms(&self.delivery.graph)?
        } else {
            vec![("the image".to_owned(), self.root())]
        };
        let mut commits = Vec::new();
        for (name, digest) in subjects {
            let provenance =
                self.newest_content(EvidenceKind::Provenance, &name, read::provenance(store, digest).await).await?;
            let repository = provenance.repository.unwrap_or_else(|| "no repository".to_owned());
            if !same_repository(&repository, &required) {
                return Err(format!("the provenance of {name} names {repository}; required: {required}"));
            }
            commits.extend(provenance.commit.filter(|commit| !commits.contains(commit)));
        }
        let commit = if commits.is_empty() { String::new() } else { format!(" at commit {}", commits.join(", ")) };
        Ok(format!("built from {required}{commit}"))
    }
}

impl EvidenceKind {
    /// Returns the hint for missing evidence. Only a new build can add it, since evidence belongs to what was built.
    fn remedy(self) -> &'static str {
        match self {
            Self::Lint => " (build and publish it again, with `lint` other than `off`)",
            Self::Scan => {
                " (build and publish it again, with `scan: trivy`, `grype` or `snyk`: `auto` skips the scan if no scanner is found)"
            }
            Self::Sbom => {
                " (build and publish it again, with `sbom: cyclonedx` or `spdx`: `auto` skips the SBOM if syft is not found)"
            }
            Self::Provenance => " (build and publish it again, with `provenance: true`)",
        }
    }
}

impl fmt::Display for EvidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lint => "lint result",
            Self::Scan => "vulnerability scan",
            Self::Sbom => "SBOM",
            Self::Provenance => "provenance",
        })
    }
}

fn unreadable(kind: EvidenceKind, subject: &str, reason: &str) -> String {
    format!("cannot read the newest {kind} of {subject}: it {reason}")
}

/// Compares addresses of repositories. On GitHub, names are case-insensitive.
pub(crate) fn same_repository(one: &str, other: &str) -> bool {
    let bare = |address: &str| address.trim_end_matches('/').trim_end_matches(".git").to_ascii_lowercase();
    bare(one) == bare(other)
}

/// Formats a duration in whole seconds.
pub(super) fn rounded(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

/// Formats what the linter found. `Err` if that is at or above the threshold.
fn lint_outcome(subject: &str, result: LintResult) -> GateOutcome {
    if let Some(LintFailure { waived_until }) = result.failed {
        let today = OffsetDateTime::now_utc().date();
        return match waived_until {
            Some(day) if day >= today => {
                Ok(format!("the Dockerfile of {subject} could not be linted, which is accepted until {day}"))
            }
            Some(day) => {
                Err(format!("the Dockerfile of {subject} could not be linted, which was accepted until {day}"))
            }
            None => Err(format!("the Dockerfile of {subject} could not be linted, and a lint result is required")),
        };
    }
    let (threshold, counts) = (result.threshold.unwrap_or(LintLevel::Error), result.counts);
    let found = format!("{} errors, {} warnings", counts.error, counts.warning);
    let sentence = format!("the linter found {found} in {subject}; threshold: {}", threshold.name());
    if counts.at_least(threshold) == 0 { Ok(sentence) } else { Err(sentence) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_compared_as_github_does() {
        assert!(same_repository("https://github.com/Owner/Name.git", "https://github.com/owner/name"));
        assert!(!same_repository("https://github.com/owner/name2", "https://github.com/owner/name"));
        assert!(!same_repository("no repository", "https://github.com/owner/name"));
    }
}
