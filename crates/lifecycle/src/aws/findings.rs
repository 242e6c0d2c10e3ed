//! Findings of ECR's own scanning: basic scans, and enhanced scans by Amazon Inspector.

use std::time::Duration;

use aws_sdk_ecr::operation::describe_image_scan_findings::DescribeImageScanFindingsOutput;
use aws_sdk_ecr::types::{EnhancedImageScanFinding, ImageIdentifier, ScanStatus};
use tokio::time::{Instant, sleep};

use super::{Aws, AwsErrorKind, Error, error};
use crate::evidence::scan::{ScanCounts, Severity};
use oci::{Digest, RepositoryName};
use registry::EcrHost;

/// The most findings of one page; the service's own limit.
const PAGE: i32 = 1000;

/// The most pages that are read for one digest.
const PAGES: usize = 100;

/// The first pause between two requests for an unfinished scan. Each later pause is twice as long, up to
/// [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between two requests for an unfinished scan.
const LAST_PAUSE: Duration = Duration::from_secs(15);

/// The vulnerabilities that ECR's scan found in one digest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanFindings {
    /// The findings that count, worst first.
    pub findings: Vec<ScanFinding>,
    /// How many findings Inspector's suppression rules exclude.
    pub suppressed: u64,
    /// When the scan was completed, in RFC 3339.
    pub completed: Option<String>,
}

/// A vulnerability that ECR's scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanFinding {
    /// Its id: `CVE-2024-1234`.
    pub id: String,
    /// Other IDs of the same vulnerability.
    pub aliases: Vec<String>,
    /// Its severity.
    pub severity: Severity,
}

impl ScanFinding {
    /// Returns the ID and all aliases.
    pub fn names(&self) -> Vec<&str> {
        [&self.id].into_iter().chain(&self.aliases).map(String::as_str).collect()
    }
}

impl ScanFindings {
    /// Counts the findings by severity.
    pub fn counts(&self) -> ScanCounts {
        let mut counts = ScanCounts::default();
        self.findings.iter().for_each(|finding| counts.add(finding.severity));
        counts
    }

    /// Removes the findings that a waiver accepts, and returns their IDs without duplicates.
    pub fn waive(&mut self, accepts: impl Fn(&ScanFinding) -> bool) -> Vec<String> {
        let (waived, counting) = std::mem::take(&mut self.findings).into_iter().partition(accepts);
        self.findings = counting;
        let mut ids: Vec<String> = Vec::<ScanFinding>::into_iter(waived).map(|finding| finding.id).collect();
        ids.sort();
        ids.dedup();
        ids
    }
}

/// The state of a scan.
enum ScanProgress {
    Done(ScanFindings),
    /// The scan is not finished; the service's name for its status.
    Pending(String),
}

impl Aws {
    /// Returns the findings of one digest, basic and enhanced. Waits until `deadline` for a scan that is in progress.
    ///
    /// # Errors
    /// If there is no scan, the scan failed or takes too long, or a request fails. An image that was not scanned must
    /// not look like one without findings.
    pub async fn scan_findings(
        &self,
        host: &EcrHost,
        repository: &RepositoryName,
        digest: &Digest,
        deadline: Duration,
    ) -> Result<ScanFindings, Error> {
        let end = Instant::now() + deadline;
        let mut pause = FIRST_PAUSE;
        loop {
            let word = match self.scan_progress(host, repository, digest).await? {
                ScanProgress::Done(findings) => return Ok(findings),
                ScanProgress::Pending(word) => word,
            };
            if Instant::now() + pause > end {
                let message = format!("ECR's scan of {digest} is not done after {} s ({word})", deadline.as_secs());
                return Err(Error::new(AwsErrorKind::Other, message));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn scan_progress(
        &self,
        host: &EcrHost,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<ScanProgress, Error> {
        let client = self.ecr(&host.region).await?;
        let mut findings = ScanFindings::default();
        let mut token: Option<String> = None;
        for _ in 0..PAGES {
            let image = ImageIdentifier::builder().image_digest(digest.to_string()).build();
            let request = client.describe_image_scan_findings().registry_id(&host.account);
            let request = request.repository_name(repository.as_str()).image_id(image);
            let page =
                request.max_results(PAGE).set_next_token(token).send().await.map_err(|error| {
                    match error::code(&error).as_deref() {
                        Some("ScanNotFoundException") => unscanned(host, repository, digest),
                        _ => {
                            Error::of("ecr:DescribeImageScanFindings", &host.repository_arn(repository.as_str()), error)
                        }
                    }
                })?;
            if let Some(word) = unfinished(&page, digest)? {
                return Ok(ScanProgress::Pending(word));
            }
            read(&page, &mut findings);
            token = page.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
            if token.is_none() {
                findings.findings.sort_by(|a, b| (b.severity, &a.id).cmp(&(a.severity, &b.id)));
                return Ok(ScanProgress::Done(findings));
            }
        }
        Err(Error::new(AwsErrorKind::Other, format!("ECR lists more than {PAGES} pages of findings of {digest}")))
    }
}

fn unscanned(host: &EcrHost, repository: &RepositoryName, digest: &Digest) -> Error {
    Error::new(AwsErrorKind::NotFound, format!("ECR has not scanned {digest} of `{repository}`")).hint(format!(
        "turn on scanning in the registry's settings, or: aws ecr start-image-scan --region {} --registry-id {} --repository-name {repository} --image-id imageDigest={digest}",
        host.region, host.account
    ))
}

/// Returns the status of a scan that is not finished yet, and `None` for a finished one. A scan that will never finish
/// is an error.
fn unfinished(page: &DescribeImageScanFindingsOutput, digest: &Digest) -> Result<Option<String>, Error> {
    let status = page.image_scan_status();
    let word = status.and_then(|status| status.status()).cloned();
    match word {
        Some(ScanStatus::Complete | ScanStatus::Active) => {
            // An enhanced scan has this status even before Inspector has scanned the image. Then it has neither a time
            // nor a count.
            let looked = page.image_scan_findings().is_some_and(|found| {
                found.image_scan_completed_at().is_some()
                    || found.finding_severity_counts().is_some()
                    || !found.findings().is_empty()
                    || !found.enhanced_findings().is_empty()
            });
            Ok((!looked).then(|| "no result yet".to_owned()))
        }
        Some(word @ (ScanStatus::InProgress | ScanStatus::Pending)) => Ok(Some(word.as_str().to_owned())),
        word => {
            let word = word.as_ref().map_or("no status", ScanStatus::as_str);
            let why = status.and_then(|status| status.description()).map(|why| format!(": {why}")).unwrap_or_default();
            Err(Error::new(AwsErrorKind::Other, format!("ECR's scan of {digest} says nothing of it ({word}{why})")))
        }
    }
}

fn read(page: &DescribeImageScanFindingsOutput, findings: &mut ScanFindings) {
    let Some(found) = page.image_scan_findings() else { return };
    let format = aws_smithy_types::date_time::Format::DateTime;
    findings.completed =
        found.image_scan_completed_at().and_then(|at| at.fmt(format).ok()).or(findings.completed.take());
    let mut add = |id: Option<&str>, aliases: &[String], word: &str| {
        if let Some(severity) = severity(word) {
            let id = id.unwrap_or("a finding without a name").to_owned();
            findings.findings.push(ScanFinding { id, aliases: aliases.to_vec(), severity });
        }
    };
    for finding in found.findings() {
        add(finding.name(), &[], finding.severity().map(|severity| severity.as_str()).unwrap_or_default());
    }
    for finding in found.enhanced_findings() {
        match finding.status() {
            Some("CLOSED") => {}
            Some("SUPPRESSED") => findings.suppressed += 1,
            _ => {
                let details = finding.package_vulnerability_details();
                let aliases = details.map(|details| details.related_vulnerabilities()).unwrap_or_default();
                add(name(finding), aliases, finding.severity().unwrap_or_default());
            }
        }
    }
}

fn name(finding: &EnhancedImageScanFinding) -> Option<&str> {
    let vulnerability = finding.package_vulnerability_details().and_then(|details| details.vulnerability_id());
    vulnerability.or(finding.title())
}

/// Parses the service's name of a severity. Returns `None` for an informational finding. `UNDEFINED` and `UNTRIAGED`
/// are unknown.
fn severity(word: &str) -> Option<Severity> {
    match word {
        "INFORMATIONAL" => None,
        word => Some(Severity::read(word)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ecr::types::{FindingSeverity, ImageScanFinding, ImageScanFindings, ImageScanStatus};

    fn page(status: &str, found: Option<ImageScanFindings>) -> DescribeImageScanFindingsOutput {
        let status = ImageScanStatus::builder().status(ScanStatus::from(status)).build();
        DescribeImageScanFindingsOutput::builder().image_scan_status(status).set_image_scan_findings(found).build()
    }

    #[test]
    fn only_a_finished_scan_counts() {
        let digest = Digest::of(b"image");
        let done = || {
            Some(ImageScanFindings::builder().image_scan_completed_at(aws_smithy_types::DateTime::from_secs(0)).build())
        };
        let hollow = || Some(ImageScanFindings::builder().set_findings(Some(Vec::new())).build());
        let state = |status, found| match unfinished(&page(status, found), &digest) {
            Ok(None) => "done",
            Ok(Some(_)) => "later",
            Err(_) => "never",
        };
        for status in ["COMPLETE", "ACTIVE"] {
            assert_eq!(state(status, done()), "done");
            assert_eq!(state(status, hollow()), "later");
            assert_eq!(state(status, None), "later");
        }
        for status in ["IN_PROGRESS", "PENDING"] {
            assert_eq!(state(status, None), "later");
        }
        let never = [
            "FAILED",
            "UNSUPPORTED_IMAGE",
            "SCAN_ELIGIBILITY_EXPIRED",
            "FINDINGS_UNAVAILABLE",
            "LIMIT_EXCEEDED",
            "IMAGE_ARCHIVED",
            "NEW",
        ];
        for status in never {
            assert_eq!(state(status, done()), "never", "{status}");
        }
    }

    #[test]
    fn closed_and_suppressed_findings_do_not_count() {
        let basic = |name: &str, severity: &str| {
            ImageScanFinding::builder().name(name).severity(FindingSeverity::from(severity)).build()
        };
        let enhanced = |title: &str, severity: &str, status: &str| {
            EnhancedImageScanFinding::builder().title(title).severity(severity).status(status).build()
        };
        let found = ImageScanFindings::builder()
            .findings(basic("A", "LOW"))
            .findings(basic("B", "UNDEFINED"))
            .findings(basic("C", "INFORMATIONAL"))
            .enhanced_findings(enhanced("D", "CRITICAL", "ACTIVE"))
            .enhanced_findings(enhanced("E", "CRITICAL", "SUPPRESSED"))
            .enhanced_findings(enhanced("F", "CRITICAL", "CLOSED"))
            .enhanced_findings(enhanced("G", "UNTRIAGED", "ACTIVE"))
            .build();
        let mut findings = ScanFindings::default();
        read(&page("COMPLETE", Some(found)), &mut findings);
        let names: Vec<(&str, Severity)> = findings.findings.iter().map(|f| (f.id.as_str(), f.severity)).collect();
        assert_eq!(
            names,
            [("A", Severity::Low), ("B", Severity::Unknown), ("D", Severity::Critical), ("G", Severity::Unknown)]
        );
        assert_eq!(
            (findings.suppressed, findings.counts()),
            (1, ScanCounts { critical: 1, low: 1, unknown: 2, ..ScanCounts::default() })
        );
    }
}
