//! What ECR's own scanning found in an image: basic scans, and enhanced ones that Amazon Inspector makes.

use std::time::Duration;

use aws_sdk_ecr::operation::describe_image_scan_findings::DescribeImageScanFindingsOutput;
use aws_sdk_ecr::types::{EnhancedImageScanFinding, ImageIdentifier, ScanStatus};
use tokio::time::{Instant, sleep};

use super::{Aws, Error, Kind, error};
use crate::evidence::scan::{Counts, Severity};
use oci::{Digest, RepositoryName};
use registry::EcrHost;

/// The most that one page may hold; the service's own limit.
const PAGE: i32 = 1000;

/// Pages of one digest's findings that are read.
const PAGES: usize = 100;

/// Between the first two looks at a scan that is not done; each later one waits twice as long, up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Between two looks at a scan that takes long.
const LAST_PAUSE: Duration = Duration::from_secs(15);

/// What is known to be wrong with one digest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// What counts, the worst first.
    pub findings: Vec<Finding>,
    /// Those that Inspector's suppression rules set aside.
    pub suppressed: u64,
    /// When the scan was made, RFC 3339.
    pub completed: Option<String>,
}

/// One vulnerability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its id: `CVE-2024-1234`.
    pub id: String,
    /// Its other names.
    pub aliases: Vec<String>,
    /// How bad it is.
    pub severity: Severity,
}

impl Finding {
    /// All its names.
    pub fn names(&self) -> Vec<&str> {
        [&self.id].into_iter().chain(&self.aliases).map(String::as_str).collect()
    }
}

impl Findings {
    /// How many there are of each severity.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.findings.iter().for_each(|finding| counts.add(finding.severity));
        counts
    }

    /// Takes those out that a waiver accepts, and returns the ids of these, each once.
    pub fn waive(&mut self, accepts: impl Fn(&Finding) -> bool) -> Vec<String> {
        let (waived, counting) = std::mem::take(&mut self.findings).into_iter().partition(accepts);
        self.findings = counting;
        let mut ids: Vec<String> = Vec::<Finding>::into_iter(waived).map(|finding| finding.id).collect();
        ids.sort();
        ids.dedup();
        ids
    }
}

/// One look.
enum Look {
    Done(Findings),
    /// Not yet, with the service's word for it.
    Later(String),
}

impl Aws {
    /// The findings of one digest, basic and enhanced, all pages. A scan that is under way is waited for until the deadline.
    ///
    /// # Errors
    /// When there is no scan, it has failed or takes too long, or it can't be known: an image without findings and one
    /// that nobody has looked at are different answers.
    pub async fn scan_findings(
        &self,
        host: &EcrHost,
        repository: &RepositoryName,
        digest: &Digest,
        deadline: Duration,
    ) -> Result<Findings, Error> {
        let end = Instant::now() + deadline;
        let mut pause = FIRST_PAUSE;
        loop {
            let word = match self.look(host, repository, digest).await? {
                Look::Done(findings) => return Ok(findings),
                Look::Later(word) => word,
            };
            if Instant::now() + pause > end {
                let message = format!("ECR's scan of {digest} is not done after {} s ({word})", deadline.as_secs());
                return Err(Error::new(Kind::Other, message));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn look(&self, host: &EcrHost, repository: &RepositoryName, digest: &Digest) -> Result<Look, Error> {
        let client = self.ecr(&host.region).await?;
        let mut findings = Findings::default();
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
                return Ok(Look::Later(word));
            }
            read(&page, &mut findings);
            token = page.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
            if token.is_none() {
                findings.findings.sort_by(|a, b| (b.severity, &a.id).cmp(&(a.severity, &b.id)));
                return Ok(Look::Done(findings));
            }
        }
        Err(Error::new(Kind::Other, format!("ECR lists more than {PAGES} pages of findings of {digest}")))
    }
}

fn unscanned(host: &EcrHost, repository: &RepositoryName, digest: &Digest) -> Error {
    Error::new(Kind::NotFound, format!("ECR has not scanned {digest} of `{repository}`")).hint(format!(
        "turn on scanning in the registry's settings, or: aws ecr start-image-scan --region {} --registry-id {} --repository-name {repository} --image-id imageDigest={digest}",
        host.region, host.account
    ))
}

/// The word for a scan that is not done yet; an error for one that never will be.
fn unfinished(page: &DescribeImageScanFindingsOutput, digest: &Digest) -> Result<Option<String>, Error> {
    let status = page.image_scan_status();
    let word = status.and_then(|status| status.status()).cloned();
    match word {
        Some(ScanStatus::Complete | ScanStatus::Active) => {
            // An enhanced scan says so before Inspector has looked: then there is neither a time nor a count.
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
            Err(Error::new(Kind::Other, format!("ECR's scan of {digest} says nothing of it ({word}{why})")))
        }
    }
}

fn read(page: &DescribeImageScanFindingsOutput, findings: &mut Findings) {
    let Some(found) = page.image_scan_findings() else { return };
    let format = aws_smithy_types::date_time::Format::DateTime;
    findings.completed =
        found.image_scan_completed_at().and_then(|at| at.fmt(format).ok()).or(findings.completed.take());
    let mut add = |id: Option<&str>, aliases: &[String], word: &str| {
        if let Some(severity) = severity(word) {
            let id = id.unwrap_or("a finding without a name").to_owned();
            findings.findings.push(Finding { id, aliases: aliases.to_vec(), severity });
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

/// Reads the service's word; none for what is informational. `UNDEFINED` and `UNTRIAGED` are unknown.
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
    fn only_a_scan_that_was_made_counts() {
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
    fn both_kinds_count_but_what_is_closed_or_set_aside() {
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
        let mut findings = Findings::default();
        read(&page("COMPLETE", Some(found)), &mut findings);
        let names: Vec<(&str, Severity)> = findings.findings.iter().map(|f| (f.id.as_str(), f.severity)).collect();
        assert_eq!(
            names,
            [("A", Severity::Low), ("B", Severity::Unknown), ("D", Severity::Critical), ("G", Severity::Unknown)]
        );
        assert_eq!(
            (findings.suppressed, findings.counts()),
            (1, Counts { critical: 1, low: 1, unknown: 2, ..Counts::default() })
        );
    }
}
