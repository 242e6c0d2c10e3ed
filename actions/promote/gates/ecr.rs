//! The gate that asks ECR for its own scan.

use std::collections::BTreeSet;
use std::time::Duration;

use lifecycle::Diagnostic;
use lifecycle::aws::{ScanFinding, ScanFindings};
use lifecycle::evidence::scan::Threshold;
use registry::EcrHost;

use super::{Image, Verdict, platforms};

/// How long a scan that is under way is waited for. A basic one takes a minute or two.
const DEADLINE: Duration = Duration::from_secs(600);

/// Vulnerabilities that a sentence names.
const NAMED: usize = 3;

impl Image<'_> {
    pub(super) async fn ecr_scan(&self, threshold: Threshold) -> Verdict {
        let source = &self.planned.source;
        let Some(host) = EcrHost::parse(&source.location.to_string()) else {
            return Err(format!("it can't be decided: `{}` is not in ECR", source.repository_address()));
        };
        let asked = platforms(&self.delivery.graph)?.into_iter().map(|(name, digest)| {
            let host = &host;
            async move {
                let answer = self.request.source.aws.scan_findings(host, &source.repository, digest, DEADLINE).await;
                answer.map(|findings| (name, findings))
            }
        });
        let answers = futures::future::join_all(asked).await;
        let mut lines = Vec::new();
        let mut fails = false;
        for answer in answers {
            let (name, mut found) =
                answer.map_err(|error| format!("it can't be decided: {}", Diagnostic::of(&error.into()).line()))?;
            let waived = self.waive(&mut found);
            let counts = found.counts();
            let failing = || found.findings.iter().filter(|finding| threshold.is_reached_by(finding.severity));
            let mut ids: Vec<&str> = failing().map(|finding| finding.id.as_str()).collect();
            ids.dedup();
            ids.truncate(NAMED);
            let named = if ids.is_empty() { String::new() } else { format!(" ({})", ids.join(", ")) };
            let suppressed =
                if found.suppressed > 0 { format!(", {} suppressed", found.suppressed) } else { String::new() };
            let expired: BTreeSet<String> = failing().filter_map(|finding| self.expired(finding)).collect();
            let expired: String = expired.iter().take(NAMED).map(|why| format!("; {why}")).collect();
            lines.push(format!("{name} has {}{suppressed}{waived}{named}{expired}", counts.sentence()));
            fails |= counts.reaching(threshold) > 0;
        }
        let sentence = format!("{}; none of {} was wanted", lines.join(", "), threshold.sentence());
        if fails { Err(sentence) } else { Ok(sentence) }
    }

    /// Takes out what the checkout's waivers accept, and says so in words for the sentence.
    fn waive(&self, found: &mut ScanFindings) -> String {
        let named = &self.planned.image.named;
        let waiver = |names: &[&str]| self.waivers.of_names(names, &named.key, &named.image);
        let until = |id: &str, findings: &[ScanFinding]| {
            let names = findings.iter().find(|finding| finding.id == id).map(ScanFinding::names).unwrap_or_default();
            waiver(&names).map(|waiver| format!("{id} until {} by {}", waiver.expires, waiver.owner))
        };
        let all = found.findings.clone();
        let waived = found.waive(|finding| waiver(&finding.names()).is_some());
        let told: Vec<String> = waived.iter().take(NAMED).filter_map(|id| until(id, &all)).collect();
        match waived.len() {
            0 => String::new(),
            number => format!(", {number} waived ({})", told.join(", ")),
        }
    }

    /// That a finding was accepted once, if it was.
    fn expired(&self, finding: &ScanFinding) -> Option<String> {
        let named = &self.planned.image.named;
        let waiver = self.waivers.expired_of_names(&finding.names(), &named.key, &named.image)?;
        Some(format!("the waiver of `{}` expired on {}", waiver.id, waiver.expires))
    }
}
