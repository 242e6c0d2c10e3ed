//! The gate that asks ECR for its own scan.

use std::time::Duration;

use lifecycle::Diagnosis;
use lifecycle::evidence::scan::Severity;
use lifecycle::registry::EcrHost;

use super::{Image, Verdict, platforms};

/// How long a scan that is under way is waited for. A basic one takes a minute or two.
const DEADLINE: Duration = Duration::from_secs(600);

/// Vulnerabilities that a sentence names.
const NAMED: usize = 3;

impl Image<'_> {
    pub(super) async fn ecr_scan(&self, severity: Severity) -> Verdict {
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
                .filter(|finding| finding.severity >= severity)
                .map(|finding| finding.id.as_str())
                .collect();
            ids.dedup();
            ids.truncate(NAMED);
            let named = if ids.is_empty() { String::new() } else { format!(" ({})", ids.join(", ")) };
            let suppressed =
                if found.suppressed > 0 { format!(", {} suppressed", found.suppressed) } else { String::new() };
            lines.push(format!(
                "{name} has {} critical, {} high, {} medium, {} low{suppressed}{named}",
                counts.critical, counts.high, counts.medium, counts.low
            ));
            fails |= counts.at_least(severity) > 0;
        }
        let sentence = format!("{}; none of severity {} or worse was wanted", lines.join(", "), severity.name());
        if fails { Err(sentence) } else { Ok(sentence) }
    }
}
