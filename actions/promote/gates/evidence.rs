//! Gates that read what is attached to the image in its source.

use std::time::Duration;

use time::OffsetDateTime;

use lifecycle::evidence::lint::LintLevel;
use lifecycle::evidence::read::{self, Evidence};
use lifecycle::evidence::results::{LintFailure, LintResult, ReportedVulnerability, ScanResult};
use lifecycle::evidence::scan::Threshold;
use oci::{Digest, StoreError};

use super::{Image, Verdict, could_not_look, platforms};

/// Vulnerabilities that a sentence names.
const NAMED: usize = 3;

/// How far the clock of what scanned may be ahead of ours.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

impl Image<'_> {
    /// The newest piece that is to be trusted.
    async fn newest<T>(
        &self,
        what: &str,
        of: &str,
        found: Result<Vec<Evidence<T>>, StoreError>,
    ) -> Result<Evidence<T>, String> {
        let found = found.map_err(could_not_look)?;
        if found.is_empty() {
            return Err(format!("{of} has no {what}: one was wanted{}", remedy(what)));
        }
        let count = found.len();
        let mut refusal = None;
        for piece in found {
            match self.trust.statement(&piece.referrer).await {
                Ok(()) => return Ok(piece),
                Err(reason) => refusal = refusal.or(Some(reason)),
            }
        }
        let reason = refusal.unwrap_or_default();
        Err(format!("{of} has {count} of {what}, and none that is signed as `signature` wants it: {reason}"))
    }

    /// What the newest piece says.
    async fn content<T>(&self, what: &str, of: &str, found: Result<Vec<Evidence<T>>, StoreError>) -> Result<T, String> {
        let newest = self.newest(what, of, found).await?;
        newest.content.map_err(|reason| format!("the newest {what} of {of} can't be read: it {reason}"))
    }

    pub(super) async fn lint(&self) -> Verdict {
        let store = &self.delivery.source;
        let of_image = read::lint(store, self.root()).await;
        let nothing = of_image.as_ref().is_ok_and(Vec::is_empty);
        if !nothing || !self.delivery.graph.root.is_index() {
            return clean("the image", self.content("lint result", "the image", of_image).await?);
        }
        // Platforms that were built in jobs of their own were linted there.
        let mut sentences = Vec::new();
        for (name, digest) in platforms(&self.delivery.graph)? {
            let result = self.content("lint result", &name, read::lint(store, digest).await).await?;
            sentences.push(clean(&name, result)?);
        }
        Ok(sentences.join("; "))
    }

    /// The newest scan of every platform.
    async fn scans(&self) -> Result<Vec<(String, ScanResult, Option<OffsetDateTime>)>, String> {
        let mut scans = Vec::new();
        for (name, digest) in platforms(&self.delivery.graph)? {
            let newest =
                self.newest("vulnerability scan", &name, read::scan(&self.delivery.source, digest).await).await?;
            let created = newest.created;
            let result = newest
                .content
                .map_err(|reason| format!("the newest vulnerability scan of {name} can't be read: it {reason}"))?;
            scans.push((name, result, created));
        }
        Ok(scans)
    }

    pub(super) async fn scan(&self, threshold: Threshold) -> Verdict {
        let today = OffsetDateTime::now_utc().date();
        let mut lines = Vec::new();
        let mut fails = false;
        for (name, scan, _) in self.scans().await? {
            let counts = scan.counts(today);
            let reaches = |reported: &&ReportedVulnerability| threshold.is_reached_by(reported.severity);
            let mut worst: Vec<_> = scan.counting(today).filter(reaches).collect();
            worst.sort_by(|a, b| (b.severity, &a.id).cmp(&(a.severity, &b.id)));
            worst.dedup_by(|a, b| a.id == b.id);
            let ids: Vec<&str> = worst.iter().take(NAMED).map(|reported| reported.id.as_str()).collect();
            let named = if ids.is_empty() { String::new() } else { format!(" ({})", ids.join(", ")) };
            lines.push(format!("{name} has {}{named}", counts.sentence()));
            fails |= counts.reaching(threshold) > 0;
        }
        let sentence = format!("{}; none of {} was wanted", lines.join(", "), threshold.sentence());
        if fails { Err(sentence) } else { Ok(sentence) }
    }

    pub(super) async fn scan_age(&self, limit: Duration, typed: &str) -> Verdict {
        let now = OffsetDateTime::now_utc();
        let mut oldest = Duration::ZERO;
        for (name, scan, created) in self.scans().await? {
            let Some(at) = scan.finished.or(created) else {
                return Err(format!("the newest scan of {name} doesn't say when it was made"));
            };
            if at > now + CLOCK_SKEW {
                return Err(format!("the newest scan of {name} says that it was made in the future, at {at}"));
            }
            oldest = oldest.max(Duration::try_from(now - at).unwrap_or(Duration::ZERO));
        }
        let sentence = format!("the oldest scan was made {} ago; at most {typed} was wanted", rounded(oldest));
        if oldest > limit { Err(sentence) } else { Ok(sentence) }
    }

    pub(super) async fn sbom(&self) -> Verdict {
        let mut formats = Vec::new();
        for (name, digest) in platforms(&self.delivery.graph)? {
            let format = self.content("SBOM", &name, read::sbom(&self.delivery.source, digest).await).await?;
            formats.push(format!("{name} has one in {format:?}"));
        }
        Ok(format!("{}; one of each platform was wanted", formats.join(", ")))
    }

    pub(super) async fn provenance(&self) -> Verdict {
        let Some(wanted) = self.runner.variables.repository_url() else {
            return Err("it can't be decided: GITHUB_REPOSITORY doesn't say which repository this is".to_owned());
        };
        let store = &self.delivery.source;
        let of_root = read::provenance(store, self.root()).await.map_err(could_not_look)?;
        let subjects: Vec<(String, &Digest)> = match of_root.is_empty() {
            false => vec![("the image".to_owned(), self.root())],
            // A builder's own hangs on each platform.
            true => platforms(&self.delivery.graph)?,
        };
        let mut commits = Vec::new();
        for (name, digest) in subjects {
            let provenance = self.content("provenance", &name, read::provenance(store, digest).await).await?;
            let repository = provenance.repository.unwrap_or_else(|| "no repository".to_owned());
            if !same_repository(&repository, &wanted) {
                return Err(format!("the provenance of {name} names {repository}; {wanted} was wanted"));
            }
            commits.extend(provenance.commit.filter(|commit| !commits.contains(commit)));
        }
        let commit = if commits.is_empty() { String::new() } else { format!(" at commit {}", commits.join(", ")) };
        Ok(format!("built from {wanted}{commit}, as was wanted"))
    }
}

/// How an image gets what it lacks: another build, since evidence is of what was built.
fn remedy(what: &str) -> &'static str {
    match what {
        "lint result" => " (build and publish it again, with `lint` other than `off`)",
        "vulnerability scan" => {
            " (build and publish it again, with `scan: trivy`, `grype` or `snyk`: `auto` skips the scan where no scanner is found)"
        }
        "SBOM" => {
            " (build and publish it again, with `sbom: cyclonedx` or `spdx`: `auto` skips it where syft is not found)"
        }
        "provenance" => " (build and publish it again, with `provenance: true`)",
        _ => "",
    }
}

/// GitHub does not tell names apart by their case.
fn same_repository(one: &str, other: &str) -> bool {
    let bare = |address: &str| address.trim_end_matches('/').trim_end_matches(".git").to_ascii_lowercase();
    bare(one) == bare(other)
}

/// To the second, in words.
pub(super) fn rounded(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

/// What the linter found, and what was wanted.
fn clean(of: &str, result: LintResult) -> Verdict {
    if let Some(LintFailure { waived_until }) = result.failed {
        let today = OffsetDateTime::now_utc().date();
        return match waived_until {
            Some(day) if day >= today => {
                Ok(format!("the Dockerfile of {of} could not be linted, which is accepted until {day}"))
            }
            Some(day) => Err(format!("the Dockerfile of {of} could not be linted, which was accepted until {day}")),
            None => Err(format!("the Dockerfile of {of} could not be linted; a lint result was wanted")),
        };
    }
    let (threshold, counts) = (result.threshold.unwrap_or(LintLevel::Error), result.counts);
    let found = format!("{} errors, {} warnings", counts.error, counts.warning);
    let sentence = format!("the linter found {found} in {of}; none of level {} or worse was wanted", threshold.name());
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
