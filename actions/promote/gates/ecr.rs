//! The gate on ECR's own scan.

use std::collections::BTreeSet;
use std::time::Duration;

use lifecycle::aws::{ScanFinding, ScanFindings};
use lifecycle::evidence::scan::Threshold;
use registry::EcrHost;

use super::{Candidate, GateOutcome, blocked, platforms, unanswered};
use crate::requirement::Requirement;

/// How long to wait for a scan in progress. A basic scan takes a minute or two.
const DEADLINE: Duration = Duration::from_secs(600);

/// How many vulnerabilities a sentence lists.
const LISTED: usize = 3;

impl Candidate<'_> {
    /// Checks that ECR's scan of every platform found nothing at or above a severity.
    pub(super) async fn ecr_scan(&self, threshold: Threshold, requirement: &Requirement) -> GateOutcome {
        let source = &self.planned.source;
        let Some(host) = EcrHost::parse(&source.location.to_string()) else {
            let why = format!("needs ECR's own scan, but `{}` is not in ECR", source.repository_address());
            return Err(blocked(why, self.without(requirement)));
        };
        let requests = platforms(&self.delivery.graph)?.into_iter().map(|(name, digest)| {
            let host = &host;
            async move {
                let findings = self.gates.source.aws.scan_findings(host, &source.repository, digest, DEADLINE).await;
                findings.map(|findings| (name, findings))
            }
        });
        let findings = futures::future::join_all(requests).await;
        let mut lines = Vec::new();
        let mut fails = false;
        for result in findings {
            let (name, mut findings) = result.map_err(|error| unanswered("ECR's own scan of every platform", error))?;
            let waived = self.waive(&mut findings);
            let counts = findings.counts();
            let failing = || findings.findings.iter().filter(|finding| threshold.is_reached_by(finding.severity));
            let mut ids: Vec<&str> = failing().map(|finding| finding.id.as_str()).collect();
            ids.dedup();
            ids.truncate(LISTED);
            let listed = if ids.is_empty() { String::new() } else { format!(" ({})", ids.join(", ")) };
            let suppressed =
                if findings.suppressed > 0 { format!(", {} suppressed", findings.suppressed) } else { String::new() };
            let expired: BTreeSet<String> = failing().filter_map(|finding| self.expired(finding)).collect();
            let expired: String = expired.iter().take(LISTED).map(|text| format!("; {text}")).collect();
            lines.push(format!("{name} has {}{suppressed}{waived}{listed}{expired}", counts.sentence()));
            fails |= counts.reaching(threshold) > 0;
        }
        let sentence = format!("{}; threshold: {}", lines.join(", "), threshold.sentence());
        if !fails {
            return Ok(sentence);
        }
        Err(blocked(sentence, "build it with the fixes, or accept what cannot be fixed in `.image-waivers.yaml`"))
    }

    /// Removes the findings that the waivers of the checkout accept, and formats what was removed.
    fn waive(&self, findings: &mut ScanFindings) -> String {
        let named = &self.planned.image.named;
        let waiver = |names: &[&str]| self.gates.waivers.of_names(names, &named.key, &named.image);
        let describe = |id: &str, findings: &[ScanFinding]| {
            let names = findings.iter().find(|finding| finding.id == id).map(ScanFinding::names).unwrap_or_default();
            waiver(&names).map(|waiver| format!("{id} until {} by {}", waiver.expires, waiver.owner))
        };
        let all = findings.findings.clone();
        let waived = findings.waive(|finding| waiver(&finding.names()).is_some());
        let descriptions: Vec<String> = waived.iter().take(LISTED).filter_map(|id| describe(id, &all)).collect();
        if waived.is_empty() {
            return String::new();
        }
        format!(", {} waived ({})", waived.len(), descriptions.join(", "))
    }

    /// Formats that the waiver of a finding has expired, if it has one.
    fn expired(&self, finding: &ScanFinding) -> Option<String> {
        let named = &self.planned.image.named;
        let waiver = self.gates.waivers.expired_of_names(&finding.names(), &named.key, &named.image)?;
        Some(format!("the waiver of `{}` by {} expired on {}", waiver.id, waiver.owner, waiver.expires))
    }
}
