//! Vulnerability scans of all scanners, and the verdict of a policy on them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use super::vulnerability::{Severity, Threshold, Vulnerability};
use super::waivers::{Waiver, Waivers};
use super::{Artifact, attest, predicate_type, statement};
use crate::plural;
use oci::{Descriptor, Platform, StoreError};

/// The most vulnerabilities that an error message lists.
const NAMED: usize = 5;

/// Removes duplicates and sorts the vulnerabilities, worst first. Scanners list a vulnerability once for every path to
/// the package; the entry with the worst severity is kept.
pub fn distinct(mut vulnerabilities: Vec<Vulnerability>) -> Vec<Vulnerability> {
    vulnerabilities.sort_by(|a, b| a.key().cmp(&b.key()).then(b.severity.cmp(&a.severity)).then(b.fixed.cmp(&a.fixed)));
    vulnerabilities.dedup_by(|later, kept| later.key() == kept.key());
    vulnerabilities.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.key().cmp(&b.key())));
    vulnerabilities
}

/// A scanner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tool {
    /// Its command: `trivy`.
    pub name: String,
    /// Its address, which identifies it.
    pub uri: String,
    /// Its version, if it reports one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When its database was updated, in RFC 3339, if it reports that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
}

/// The scan of one platform of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The platform.
    pub platform: Platform,
    /// The platform's manifest.
    pub subject: Descriptor,
    /// The scanner.
    pub tool: Tool,
    /// When the scan started, in RFC 3339.
    pub started: String,
    /// When the scan finished, in RFC 3339.
    pub finished: String,
    /// The vulnerabilities, without duplicates.
    pub vulnerabilities: Vec<Vulnerability>,
}

/// The number of vulnerabilities by severity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanCounts {
    /// Of severity `critical`.
    pub critical: u64,
    /// Of severity `high`.
    pub high: u64,
    /// Of severity `medium`.
    pub medium: u64,
    /// Of severity `low`.
    pub low: u64,
    /// Of unknown severity.
    #[serde(default)]
    pub unknown: u64,
}

impl ScanCounts {
    pub(crate) fn add(&mut self, severity: Severity) {
        let count = match severity {
            Severity::Critical => &mut self.critical,
            Severity::High => &mut self.high,
            Severity::Medium => &mut self.medium,
            Severity::Low => &mut self.low,
            Severity::Unknown => &mut self.unknown,
        };
        *count += 1;
    }

    /// Returns how many have a severity.
    fn of(&self, severity: Severity) -> u64 {
        match severity {
            Severity::Critical => self.critical,
            Severity::High => self.high,
            Severity::Medium => self.medium,
            Severity::Low => self.low,
            Severity::Unknown => self.unknown,
        }
    }

    /// Returns how many reach a threshold.
    pub fn reaching(&self, threshold: Threshold) -> u64 {
        let reaching = Severity::ALL.into_iter().filter(|severity| threshold.is_reached_by(*severity));
        reaching.map(|severity| self.of(severity)).sum()
    }

    /// Formats the counts: `0 critical, 1 high, 0 medium, 4 low`. Those of unknown severity are added if there are any.
    pub fn sentence(&self) -> String {
        let Self { critical, high, medium, low, unknown } = self;
        let unknown = if *unknown > 0 { format!(", {unknown} of unknown severity") } else { String::new() };
        format!("{critical} critical, {high} high, {medium} medium, {low} low{unknown}")
    }
}

/// The rules by which a vulnerability fails an image.
#[derive(Debug, Clone, Default)]
pub struct ScanPolicy {
    /// The severities that fail an image. None: no vulnerability fails it.
    pub threshold: Option<Threshold>,
    /// Whether vulnerabilities without a fix are ignored.
    pub only_fixed: bool,
    /// The accepted vulnerabilities.
    pub waivers: Waivers,
}

/// The verdict of a policy on the scans of all platforms of an image.
#[derive(Debug, Clone)]
pub struct ScanVerdict {
    /// The image's key in the mapping.
    pub key: String,
    /// The image's name.
    pub name: String,
    /// The scanner.
    pub tool: Option<Tool>,
    /// The severities that fail the image.
    pub threshold: Option<Threshold>,
    /// The vulnerabilities of all platforms without duplicates, worst first.
    pub findings: Vec<Assessed>,
    /// The number of those that count, by severity.
    pub counts: ScanCounts,
}

/// A vulnerability with its standing under a policy.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Assessed {
    /// The vulnerability.
    #[serde(flatten)]
    pub vulnerability: Vulnerability,
    /// The platforms that have it.
    pub platforms: Vec<Platform>,
    /// Its standing.
    #[serde(flatten)]
    pub standing: Standing,
}

/// The standing of a vulnerability under a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "standing", content = "waiver")]
pub enum Standing {
    /// It fails the image.
    Fails,
    /// It counts, but does not reach the threshold.
    Counts,
    /// It has no fix, and the policy ignores such vulnerabilities.
    Unfixed,
    /// A waiver accepts it.
    Waived(Waiver),
}

impl ScanVerdict {
    /// Judges the scans of an image.
    pub fn of(key: &str, name: &str, scans: &[Scan], policy: &ScanPolicy) -> Self {
        let mut platforms: BTreeMap<(&str, &str, &str), Vec<Platform>> = BTreeMap::new();
        for scan in scans {
            for vulnerability in &scan.vulnerabilities {
                platforms.entry(vulnerability.key()).or_default().push(scan.platform.clone());
            }
        }
        let all = scans.iter().flat_map(|scan| scan.vulnerabilities.iter().cloned()).collect();
        let mut counts = ScanCounts::default();
        let mut findings = Vec::new();
        for vulnerability in distinct(all) {
            let standing = policy.standing(&vulnerability, key, name);
            if matches!(standing, Standing::Fails | Standing::Counts) {
                counts.add(vulnerability.severity);
            }
            let platforms = platforms.get(&vulnerability.key()).cloned().unwrap_or_default();
            findings.push(Assessed { vulnerability, platforms, standing });
        }
        Self {
            key: key.to_owned(),
            name: name.to_owned(),
            tool: scans.first().map(|scan| scan.tool.clone()),
            threshold: policy.threshold,
            findings,
            counts,
        }
    }

    /// Returns the vulnerabilities that fail the image, worst first.
    pub fn failing(&self) -> impl Iterator<Item = &Assessed> {
        self.findings.iter().filter(|finding| finding.standing == Standing::Fails)
    }

    /// Returns whether the image fails.
    pub fn fails(&self) -> bool {
        self.failing().next().is_some()
    }

    /// Formats on one line why the image fails. Returns `None` if it does not.
    pub fn failure(&self) -> Option<String> {
        let threshold = self.threshold?;
        let failing: Vec<&Assessed> = self.failing().collect();
        if failing.is_empty() {
            return None;
        }
        let name = |finding: &&Assessed| {
            let Vulnerability { id, package, version, fixed, severity, .. } = &finding.vulnerability;
            let fixed = fixed.as_ref().map_or("no fix".to_owned(), |fixed| format!("fixed in {fixed}"));
            format!("{} {id} in {package} {version} ({fixed})", severity.name())
        };
        let mut named = failing.iter().take(NAMED).map(name).collect::<Vec<_>>().join("; ");
        if failing.len() > NAMED {
            named += &format!("; and {} more", failing.len() - NAMED);
        }
        let number = plural(failing.len(), "vulnerability");
        Some(format!("{number} of {}: {named}", threshold.sentence()))
    }

    /// Formats a note about vulnerabilities that pass the threshold only because their severity is unknown. Returns
    /// `None` if there are none, or no threshold.
    pub fn unrated(&self) -> Option<String> {
        let threshold = self.threshold.filter(|threshold| !threshold.includes_unknown())?;
        let counts = |finding: &&Assessed| {
            finding.vulnerability.severity == Severity::Unknown && finding.standing == Standing::Counts
        };
        let unrated: Vec<&Assessed> = self.findings.iter().filter(counts).collect();
        let named: Vec<&str> = unrated.iter().take(NAMED).map(|finding| finding.vulnerability.id.as_str()).collect();
        let more = if unrated.len() > NAMED { format!(" and {} more", unrated.len() - NAMED) } else { String::new() };
        (!unrated.is_empty()).then(|| {
            let number = plural(unrated.len(), "vulnerability");
            format!("{number} of unknown severity, below every threshold: {}{more}; `scan-threshold: {threshold},unknown` lets them fail the image", named.join(", "))
        })
    }

    /// Returns how many vulnerabilities a waiver accepts.
    pub fn waived(&self) -> usize {
        self.findings.iter().filter(|finding| matches!(finding.standing, Standing::Waived(_))).count()
    }

    /// Returns how many vulnerabilities are ignored because they have no fix.
    pub fn unfixed(&self) -> usize {
        self.findings.iter().filter(|finding| finding.standing == Standing::Unfixed).count()
    }
}

impl ScanPolicy {
    fn standing(&self, vulnerability: &Vulnerability, key: &str, name: &str) -> Standing {
        if let Some(waiver) = self.waivers.of(vulnerability, key, name) {
            return Standing::Waived(waiver.clone());
        }
        if self.only_fixed && vulnerability.fixed.is_none() {
            return Standing::Unfixed;
        }
        match self.threshold {
            Some(threshold) if threshold.is_reached_by(vulnerability.severity) => Standing::Fails,
            _ => Standing::Counts,
        }
    }
}

impl Scan {
    /// Returns the scan as a referrer of its platform's manifest
    /// ([vulnerabilities predicate](https://github.com/in-toto/attestation/tree/main/spec/predicates)).
    /// Accepted vulnerabilities are included, with their waivers.
    ///
    /// # Errors
    /// If the manifest would exceed the size limit.
    pub fn artifact(&self, key: &str, name: &str, waivers: &Waivers) -> Result<Artifact, StoreError> {
        let result = |vulnerability: &Vulnerability| {
            let mut annotations = serde_json::Map::new();
            let mut annotate = |name: &str, value: &str| annotations.insert(name.to_owned(), value.into());
            annotate("package", &vulnerability.package);
            annotate("version", &vulnerability.version);
            if let Some(fixed) = &vulnerability.fixed {
                annotate("fixed", fixed);
            }
            if !vulnerability.aliases.is_empty() {
                annotate("aliases", &vulnerability.aliases.join(" "));
            }
            if let Some(waiver) = waivers.of(vulnerability, key, name) {
                annotate("waiver.expires", &waiver.expires.to_string());
                annotate("waiver.owner", &waiver.owner);
                annotate("waiver.reason", &waiver.reason);
            }
            serde_json::json!({
                "id": vulnerability.id,
                "severity": [{"method": self.tool.name, "score": vulnerability.severity.name()}],
                "annotations": [annotations],
            })
        };
        let mut scanner = serde_json::json!({"uri": self.tool.uri});
        if let Some(version) = &self.tool.version {
            scanner["version"] = version.as_str().into();
        }
        if let Some(database) = &self.tool.database {
            scanner["db"] = serde_json::json!({"lastUpdate": database});
        }
        scanner["result"] = self.vulnerabilities.iter().map(result).collect();
        let predicate = serde_json::json!({
            "scanner": scanner,
            "metadata": {"scanStartedOn": self.started, "scanFinishedOn": self.finished},
        });
        let statement = statement(name, &self.subject.digest, predicate_type::VULNERABILITIES, predicate);
        attest(&self.subject, &statement, BTreeMap::new(), &self.finished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::media_type;

    fn vulnerability(id: &str, severity: &str, fixed: Option<&str>) -> Vulnerability {
        Vulnerability {
            id: id.into(),
            aliases: vec![],
            package: "openssl".into(),
            version: "3.0.1".into(),
            fixed: fixed.map(str::to_owned),
            severity: Severity::read(severity),
            title: None,
            url: None,
        }
    }

    fn scan(architecture: &str, vulnerabilities: Vec<Vulnerability>) -> Scan {
        Scan {
            platform: Platform::linux(architecture),
            subject: Descriptor::of(media_type::IMAGE, architecture.as_bytes()),
            tool: Tool { name: "trivy".into(), uri: "https://trivy.dev".into(), version: None, database: None },
            started: "2026-01-01T00:00:00Z".into(),
            finished: "2026-01-01T00:00:09Z".into(),
            vulnerabilities: distinct(vulnerabilities),
        }
    }

    #[test]
    fn words_and_scores_read_as_severities_and_anything_else_as_unknown() {
        use Severity::{Critical, High, Low, Medium, Unknown};
        let words = ["CRITICAL", "high", "Medium", "low", "Negligible", "Important", "9.8", "7", "5.0", "0.1"];
        let read = [Critical, High, Medium, Low, Low, High, Critical, High, Medium, Low];
        assert_eq!(words.map(Severity::read), read);
        for word in ["UNKNOWN", "", " ", "Unassigned", "none", "UNDEFINED", "UNTRIAGED", "0.0", "-1", "NaN", "hihg"] {
            assert_eq!(Severity::read(word), Unknown, "{word:?}");
        }
    }

    #[test]
    fn a_threshold_includes_unknown_severity_only_if_named() {
        use Severity::{Critical, High, Low, Medium, Unknown};
        let reached = |text: &str| {
            let threshold = Threshold::parse(text).unwrap();
            assert_eq!(threshold.to_string(), text.replace(' ', ""));
            Severity::ALL.into_iter().filter(|severity| threshold.is_reached_by(*severity)).collect::<Vec<_>>()
        };
        assert_eq!(reached("high"), [Critical, High]);
        assert_eq!(reached("high, unknown"), [Critical, High, Unknown]);
        assert_eq!(reached("low"), [Critical, High, Medium, Low]);
        assert_eq!(reached("low,unknown"), Severity::ALL);
        for text in ["", "unknown", "unknown,high", "high,low", "high,unknown,unknown", "hihg", "off", "HIGH", "high,"]
        {
            assert_eq!(Threshold::parse(text), None, "{text:?}");
        }
        let counts = ScanCounts { critical: 1, high: 2, medium: 3, low: 4, unknown: 5 };
        let number = |text| counts.reaching(Threshold::parse(text).unwrap());
        assert_eq!((number("high"), number("medium,unknown"), number("low")), (3, 11, 10));
    }

    #[test]
    fn unrated_vulnerabilities_are_reported_and_fail_only_on_request() {
        let vulnerabilities = ["A", "B"].map(|id| vulnerability(id, "unknown", None));
        let scans = [scan("amd64", vulnerabilities.into())];
        let judge = |threshold: Option<&str>| {
            let threshold = threshold.and_then(Threshold::parse);
            ScanVerdict::of("Web", "shop/web", &scans, &ScanPolicy { threshold, ..ScanPolicy::default() })
        };
        let lenient = judge(Some("low"));
        assert_eq!((lenient.counts.unknown, lenient.fails()), (2, false));
        insta::assert_snapshot!(lenient.unrated().unwrap(), @"2 vulnerabilities of unknown severity, below every threshold: A, B; `scan-threshold: low,unknown` lets them fail the image");
        let strict = judge(Some("critical,unknown"));
        insta::assert_snapshot!(strict.failure().unwrap(), @"2 vulnerabilities of severity critical or worse, or of unknown severity: unknown A in openssl 3.0.1 (no fix); unknown B in openssl 3.0.1 (no fix)");
        assert_eq!((strict.unrated(), judge(None).unrated()), (None, None));
    }

    #[test]
    fn findings_of_all_platforms_are_merged_with_the_worst_first() {
        let amd64 = scan("amd64", vec![vulnerability("A", "low", None), vulnerability("B", "high", Some("4"))]);
        let arm64 = scan("arm64", vec![vulnerability("B", "high", Some("4")), vulnerability("C", "critical", None)]);
        let scans = [amd64, arm64];
        let judge = |threshold: Option<Severity>, only_fixed| {
            let threshold = threshold.map(Threshold::from);
            ScanVerdict::of(
                "Web",
                "shop/web",
                &scans,
                &ScanPolicy { threshold, only_fixed, waivers: Waivers::default() },
            )
        };
        let verdict = judge(Some(Severity::High), false);
        assert_eq!(verdict.counts, ScanCounts { critical: 1, high: 1, low: 1, ..ScanCounts::default() });
        assert_eq!(verdict.findings[1].platforms, [Platform::linux("amd64"), Platform::linux("arm64")]);
        insta::assert_snapshot!(verdict.failure().unwrap(), @"2 vulnerabilities of severity high or worse: critical C in openssl 3.0.1 (no fix); high B in openssl 3.0.1 (fixed in 4)");
        let fixed = judge(Some(Severity::Critical), true);
        assert_eq!(fixed.counts, ScanCounts { high: 1, ..ScanCounts::default() });
        assert!(!fixed.fails() && fixed.failure().is_none());
        assert!(!judge(None, false).fails());
    }
}
