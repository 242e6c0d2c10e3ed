//! Gates on the evidence that is attached to the image in its source.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use time::{Date, OffsetDateTime};

use lifecycle::clock;
use lifecycle::evidence::lint::LintLevel;
use lifecycle::evidence::read::{self, Evidence};
use lifecycle::evidence::results::{LintFailure, LintResult, Provenance, ReportedVulnerability, ScanResult};
use lifecycle::evidence::scan::Threshold;
use lifecycle::plural;
use oci::{Digest, StoreError};

use super::{Candidate, GateOutcome, blocked, platforms, unanswered};
use crate::requirement::Requirement;

/// How many vulnerabilities a sentence lists.
const LISTED: usize = 3;

/// How far the clock of the scanner may be ahead of this machine's.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// How to get new evidence.
const REBUILD: &str = "build and publish the image again";

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
        (kind, requirement): (EvidenceKind, &Requirement),
        subject: &str,
        found: Result<Vec<Evidence<T>>, StoreError>,
    ) -> Result<Evidence<T>, String> {
        let found = found.map_err(|error| unanswered(&format!("{kind} of {subject}"), error))?;
        if found.is_empty() {
            let remedy = format!("{}, or {}", kind.remedy(), self.without(requirement));
            return Err(blocked(format!("needs {kind} of {subject}, which is missing"), remedy));
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
        let has = plural(count, kind.noun());
        Err(format!("{subject} has {has}, but none is signed as `signature` requires: {reason}"))
    }

    /// Returns the content of the newest trusted evidence of a kind.
    async fn newest_content<T>(
        &self,
        (kind, requirement): (EvidenceKind, &Requirement),
        subject: &str,
        found: Result<Vec<Evidence<T>>, StoreError>,
    ) -> Result<T, String> {
        let newest = self.newest((kind, requirement), subject, found).await?;
        newest.content.map_err(|reason| unreadable(kind, subject, &reason))
    }

    /// Checks that the linter found nothing at or above the threshold of the build.
    pub(super) async fn lint(&self, requirement: &Requirement) -> GateOutcome {
        let (store, today) = (&self.delivery.source, self.gates.now.date());
        let of_image = read::lint(store, self.root()).await;
        let is_missing = of_image.as_ref().is_ok_and(Vec::is_empty);
        if !is_missing || !self.delivery.graph.root.is_index() {
            return lint_outcome(
                "the image",
                self.newest_content((EvidenceKind::Lint, requirement), "the image", of_image).await?,
                today,
            );
        }
        // Platforms that were built in separate jobs were linted separately.
        let mut sentences = Vec::new();
        for (name, digest) in platforms(&self.delivery.graph)? {
            let result =
                self.newest_content((EvidenceKind::Lint, requirement), &name, read::lint(store, digest).await).await?;
            sentences.push(lint_outcome(&name, result, today)?);
        }
        Ok(sentences.join("; "))
    }

    /// Returns the newest scan of every platform, with the time at which it was attached.
    pub(super) async fn scans(
        &self,
        requirement: &Requirement,
    ) -> Result<Vec<(String, ScanResult, Option<OffsetDateTime>)>, String> {
        let mut scans = Vec::new();
        for (name, digest) in platforms(&self.delivery.graph)? {
            let found = read::scan(&self.delivery.source, digest).await;
            let found = found.map_err(|error| unanswered(&format!("a scan of {name}"), error))?;
            // A scan without a time may be the newest, so each of them counts beside the newest one that has a time.
            let dated = found.iter().position(|scan| scan.created.is_some());
            let (undated, dated) = found.split_at(dated.unwrap_or(found.len()));
            let mut counting: Vec<Vec<_>> = undated.iter().map(|scan| vec![scan.clone()]).collect();
            if !dated.is_empty() || counting.is_empty() {
                counting.push(dated.to_vec());
            }
            for found in counting {
                let newest = self.newest((EvidenceKind::Scan, requirement), &name, Ok(found)).await?;
                let created = newest.created;
                if created.is_some_and(|created| created > self.gates.now + CLOCK_SKEW) {
                    let time = created.map(|created| clock::at_seconds(created.unix_timestamp())).unwrap_or_default();
                    let why = format!("needs a scan, but the newest one of {name} has a time in the future, {time}");
                    return Err(blocked(why, format!("check the clock of the machine that scanned it, and {REBUILD}")));
                }
                let result = newest.content.map_err(|reason| unreadable(EvidenceKind::Scan, &name, &reason))?;
                scans.push((name.clone(), result, created));
            }
        }
        Ok(scans)
    }

    /// Checks that the scan of every platform found nothing at or above a severity.
    pub(super) async fn scan(&self, threshold: Threshold, requirement: &Requirement) -> GateOutcome {
        let today = self.gates.now.date();
        let (mut lines, mut expired) = (Vec::new(), BTreeSet::new());
        let mut fails = false;
        for (name, scan, _) in self.scans(requirement).await? {
            let counts = scan.counts(today);
            let reaches = |reported: &&ReportedVulnerability| threshold.is_reached_by(reported.severity);
            let mut worst: Vec<_> = scan.counting(today).filter(reaches).collect();
            worst.sort_by(|a, b| (b.severity, &a.id).cmp(&(a.severity, &b.id)));
            worst.dedup_by(|a, b| a.id == b.id);
            let ids: Vec<&str> = worst.iter().take(LISTED).map(|reported| reported.id.as_str()).collect();
            let listed = if ids.is_empty() { String::new() } else { format!(" ({})", ids.join(", ")) };
            lines.push(format!("{name} has {}{listed}", counts.sentence()));
            expired.extend(worst.iter().filter_map(|reported| reported.expired(today)));
            fails |= counts.reaching(threshold) > 0;
        }
        let found = format!("{}; threshold: {}", lines.join(", "), threshold.sentence());
        if !fails {
            return Ok(found);
        }
        if expired.is_empty() {
            return Err(blocked(
                found,
                "build it with the fixes, or accept what cannot be fixed in `.image-waivers.yaml` and build it again",
            ));
        }
        let expired: Vec<String> = expired.into_iter().take(LISTED).collect();
        let why = format!("{found}; {}", expired.join(", "));
        Err(blocked(why, "build it with the fixes, or with a waiver that its owner has renewed"))
    }

    /// Checks that the oldest scan is no older than a limit.
    pub(super) async fn scan_age(&self, limit: Duration, requirement: &Requirement) -> GateOutcome {
        let (now, typed) = (self.gates.now, requirement.value());
        let mut oldest = Duration::ZERO;
        for (name, scan, created) in self.scans(requirement).await? {
            let Some(at) = scan.finished.or(created) else {
                let why = format!("needs scans that are at most {typed} old, but the newest one of {name} has no time");
                return Err(blocked(why, REBUILD));
            };
            if at > now + CLOCK_SKEW {
                let why = format!(
                    "needs scans that are at most {typed} old, but the newest one of {name} has a time in the future, {}",
                    clock::at_seconds(at.unix_timestamp())
                );
                return Err(blocked(why, format!("check the clock of the machine that scanned it, and {REBUILD}")));
            }
            oldest = oldest.max(Duration::try_from(now - at).unwrap_or(Duration::ZERO));
        }
        let age = rounded(oldest);
        if oldest > limit {
            let why = format!("needs scans that are at most {typed} old; the oldest one was made {age} ago");
            return Err(blocked(why, REBUILD));
        }
        Ok(format!("the oldest scan was made {age} ago; required: at most {typed}"))
    }

    /// Checks that every platform has an SBOM.
    pub(super) async fn sbom(&self, requirement: &Requirement) -> GateOutcome {
        let mut formats = Vec::new();
        for (name, digest) in platforms(&self.delivery.graph)? {
            let format = self
                .newest_content(
                    (EvidenceKind::Sbom, requirement),
                    &name,
                    read::sbom(&self.delivery.source, digest).await,
                )
                .await?;
            formats.push(format!("{name} has an SBOM in {}", format.name()));
        }
        Ok(formats.join(", "))
    }

    /// Checks that the image was built from this repository.
    pub(super) async fn provenance(&self, requirement: &Requirement) -> GateOutcome {
        let Some(required) = self.gates.runner.variables.repository_url() else {
            let why = "needs the repository of this run, but its variables do not name one";
            return Err(blocked(why, "run it on a CI system, or set GITHUB_REPOSITORY to OWNER/REPO, for build too"));
        };
        let store = &self.delivery.source;
        let of_root = read::provenance(store, self.root()).await;
        let of_root = of_root.map_err(|error| unanswered("the provenance of the image", error))?;
        let subjects: Vec<(String, &Digest)> = if of_root.is_empty() {
            // Builders attach their own provenance to each platform.
            platforms(&self.delivery.graph)?
        } else {
            vec![("the image".to_owned(), self.root())]
        };
        let mut commits = Vec::new();
        for (name, digest) in subjects {
            let found = read::provenance(store, digest).await.map(those_with_repository);
            let provenance = self.newest_content((EvidenceKind::Provenance, requirement), &name, found).await?;
            let Some(repository) = provenance.repository else {
                let why = format!(
                    "needs an image that was built from {required}; the provenance of {name} names no repository"
                );
                return Err(blocked(
                    why,
                    "set GITHUB_REPOSITORY to OWNER/REPO before build, and publish a new version",
                ));
            };
            if !same_repository(&repository, &required) {
                let why = format!(
                    "needs an image that was built from {required}; the provenance of {name} names {repository}"
                );
                return Err(blocked(why, "promote it from a workflow of that repository, or build it in this one"));
            }
            commits.extend(provenance.commit.filter(|commit| !commits.contains(commit)));
        }
        let commit = if commits.is_empty() { String::new() } else { format!(" at commit {}", commits.join(", ")) };
        Ok(format!("built from {required}{commit}"))
    }
}

/// Returns the provenance that names a repository, if there is any. BuildKit's own often names none, and belongs to the
/// same digest as that of this project if the image has one platform.
fn those_with_repository(mut found: Vec<Evidence<Provenance>>) -> Vec<Evidence<Provenance>> {
    let has_repository =
        |content: &Result<Provenance, String>| content.as_ref().is_ok_and(|one| one.repository.is_some());
    if found.iter().any(|evidence| has_repository(&evidence.content)) {
        found.retain(|evidence| evidence.content.is_err() || has_repository(&evidence.content));
    }
    found
}

impl EvidenceKind {
    /// Returns what to do about missing evidence. Only a new build can add it, since evidence belongs to what was built.
    fn remedy(self) -> &'static str {
        match self {
            Self::Lint => "build and publish it again, with `lint` other than `off`",
            Self::Scan => {
                "let build install or find a scanner (`scan: trivy`, `grype` or `snyk`; `auto` skips the scan without one) \
                 and publish it again"
            }
            Self::Sbom => {
                "let build install or find syft (`sbom: cyclonedx` or `spdx`; `auto` skips the SBOM without it) and publish \
                 it again"
            }
            Self::Provenance => "build and publish it again, with `provenance: true`",
        }
    }

    /// Returns the noun without an article.
    fn noun(self) -> &'static str {
        match self {
            Self::Lint => "lint result",
            Self::Scan => "scan",
            Self::Sbom => "SBOM",
            Self::Provenance => "provenance statement",
        }
    }
}

impl fmt::Display for EvidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let article = if *self == Self::Sbom { "an" } else { "a" };
        write!(f, "{article} {}", self.noun())
    }
}

fn unreadable(kind: EvidenceKind, subject: &str, reason: &str) -> String {
    blocked(format!("needs {kind} of {subject}, but the newest one cannot be read (it {reason})"), REBUILD)
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
fn lint_outcome(subject: &str, result: LintResult, today: Date) -> GateOutcome {
    if let Some(LintFailure { waived_until }) = result.failed {
        let failed = format!("hadolint could not read the Dockerfile of {subject}");
        return match waived_until {
            Some(day) if day >= today => Ok(format!("{failed}, which is accepted until {day}")),
            Some(day) => {
                let why = format!("needs a lint result; {failed}, and the waiver of this expired on {day}");
                Err(blocked(why, "correct the file, or let the owner of the waiver renew it, and build it again"))
            }
            None => {
                let remedy = "correct the file, or accept it in `.image-waivers.yaml`, and build it again";
                Err(blocked(format!("needs a lint result; {failed}"), remedy))
            }
        };
    }
    let (threshold, counts) = (result.threshold.unwrap_or(LintLevel::Error), result.counts);
    let count = |number: u64, noun| plural(usize::try_from(number).unwrap_or(usize::MAX), noun);
    let found = format!("{} and {}", count(counts.error, "error"), count(counts.warning, "warning"));
    let sentence = format!("the linter found {found} in {subject}; threshold: {}", threshold.name());
    if counts.at_least(threshold) == 0 {
        return Ok(sentence);
    }
    Err(blocked(sentence, "correct the Dockerfile and build it again"))
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
