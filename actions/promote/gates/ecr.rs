//! The gate that asks ECR for its own scan.

use std::time::Duration;

use lifecycle::Diagnosis;
use lifecycle::evidence::scan::Threshold;
use lifecycle::registry::EcrHost;

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
        let asked = platforms(&self.edge.graph)?.into_iter().map(|(name, digest)| {
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
            let (name, found) =
                answer.map_err(|error| format!("it can't be decided: {}", Diagnosis::of(&error.into()).line()))?;
            let counts = found.counts();
            let mut ids: Vec<&str> = found
                .findings
                .iter()
                .filter(|finding| threshold.is_reached_by(finding.severity))
                .map(|finding| finding.id.as_str())
                .collect();
            ids.dedup();
            ids.truncate(NAMED);
            let named = if ids.is_empty() { String::new() } else { format!(" ({})", ids.join(", ")) };
            let suppressed =
                if found.suppressed > 0 { format!(", {} suppressed", found.suppressed) } else { String::new() };
            lines.push(format!("{name} has {}{suppressed}{named}", counts.sentence()));
            fails |= counts.reaching(threshold) > 0;
        }
        let sentence = format!("{}; none of {} was wanted", lines.join(", "), threshold.sentence());
        if fails { Err(sentence) } else { Ok(sentence) }
    }
}
