//! The gate on vulnerabilities that the target environment does not have yet.

use std::collections::BTreeSet;

use lifecycle::evidence::read;
use lifecycle::evidence::results::ReportedVulnerability;
use lifecycle::evidence::scan::Threshold;
use oci::transfer::Graph;

use super::{Candidate, GateOutcome, blocked, platforms, unanswered};
use crate::requirement::Requirement;

/// How many vulnerabilities a sentence lists.
const LISTED: usize = 3;

impl Candidate<'_> {
    /// Checks that no platform of the image has a vulnerability at or above a severity that the same platform of the
    /// environment's current image does not have. If it has no image, every vulnerability is new.
    pub(super) async fn no_new(&self, threshold: Threshold, requirement: &Requirement) -> GateOutcome {
        let (to, today) = (&self.gates.transition.to, self.gates.now.date());
        let before = match &self.trusted {
            None => self.planned.held_before(),
            Some(trusted) => trusted.as_ref().map_err(Clone::clone).and_then(|history| self.planned.held_in(history)),
        };
        let before = before.map_err(|reason| {
            let why =
                format!("needs to know which image {to} has now, to tell which vulnerabilities are new ({reason})");
            blocked(why, self.without(requirement))
        })?;
        if before.as_ref() == Some(self.root()) {
            return Ok(format!("{to} has this image already"));
        }
        let store = &self.delivery.target.store;
        let current = match &before {
            None => None,
            Some(digest) => {
                let needed = format!("the image that {to} has now, {}", digest.short());
                let root = store.manifest(digest).await.map_err(|error| unanswered(&needed, error))?;
                let root = root.ok_or_else(|| {
                    let why = format!("needs {needed}, which is no longer in the registry");
                    blocked(why, self.without(requirement))
                })?;
                Some(Graph::read(store, root).await.map_err(|error| unanswered(&needed, error))?)
            }
        };
        let mut introduced: Vec<ReportedVulnerability> = Vec::new();
        for (platform, scan, _) in self.scans(requirement).await? {
            let known = match &current {
                None => BTreeSet::new(),
                Some(graph) => self.known_vulnerabilities(graph, &platform, threshold, requirement).await?,
            };
            let is_new = |reported: &&ReportedVulnerability| {
                threshold.is_reached_by(reported.severity)
                    && !known.contains(&(reported.id.clone(), reported.package.clone()))
            };
            introduced.extend(scan.counting(today).filter(is_new).cloned());
        }
        introduced.sort_by(|a, b| (b.severity, &a.id).cmp(&(a.severity, &b.id)));
        introduced.dedup_by(|a, b| a.id == b.id);
        let required = threshold.sentence();
        if introduced.is_empty() {
            return Ok(format!("it introduces no vulnerability of {required} that {to} does not have"));
        }
        let ids: Vec<&str> = introduced.iter().take(LISTED).map(|reported| reported.id.as_str()).collect();
        let more = if introduced.len() > LISTED { ", …" } else { "" };
        let count = lifecycle::plural(introduced.len(), "vulnerability");
        let why = format!("it introduces {count} of {required} that {to} does not have ({}{more})", ids.join(", "));
        Err(blocked(why, "fix or waive them, and build again"))
    }

    /// Returns the vulnerabilities at or above a severity that the current image has on a platform, by its newest trusted
    /// scan.
    async fn known_vulnerabilities(
        &self,
        current: &Graph,
        platform: &str,
        threshold: Threshold,
        requirement: &Requirement,
    ) -> Result<BTreeSet<(String, Option<String>)>, String> {
        let to = &self.gates.transition.to;
        let named = platforms(current)?;
        // An image without an index has no platform names: its only platform is compared.
        let digest = match named.iter().find(|(name, _)| name == platform) {
            Some((_, digest)) => *digest,
            None if named.len() == 1 => named[0].1,
            // A platform that the environment does not have yet: everything on it is new.
            None => return Ok(BTreeSet::new()),
        };
        let needed = format!("the scan of the image that {to} has now for {platform}");
        let scans = read::scan(&self.delivery.target.store, digest).await;
        let scans = scans.map_err(|error| unanswered(&needed, error))?;
        let mut refusal = String::new();
        for scan in scans {
            match self.target_trust.statement(&scan.referrer).await {
                Ok(()) => {
                    let scan = scan.content.map_err(|reason| {
                        blocked(format!("needs {needed}, but the newest one {reason}"), self.without(requirement))
                    })?;
                    let known = scan.vulnerabilities.into_iter();
                    let known = known.filter(|found| threshold.is_reached_by(found.severity));
                    return Ok(known.map(|found| (found.id, found.package)).collect());
                }
                Err(reason) => refusal = format!(" that is signed as `signature` requires ({reason})"),
            }
        }
        let why = format!("needs {needed}{refusal}, which is missing");
        let remedy = format!("promote an image with a scan to {to} first, or {}", self.without(requirement));
        Err(blocked(why, remedy))
    }
}
