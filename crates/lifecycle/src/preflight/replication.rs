//! Whether replication deletes: what is deleted in one registry is then deleted in others too.

use super::check::{Check, CheckStatus, Side};
use super::scanning::other_account;
use super::scope::{PlannedRun, Registry};
use crate::aws::ReplicationRule;
use oci::{Location, RepositoryName};
use registry::EcrHost;

pub(super) async fn check(run: &PlannedRun<'_>, registry: &Registry<'_>) -> Vec<Check> {
    if !registry.is_own_account() {
        return vec![other_account("replication", registry)];
    }
    let rules = match registry.access.aws.replication_rules(&registry.host).await {
        Ok(rules) => rules,
        Err(error) => {
            let call = ("ecr:DescribeRegistry", "*".to_owned());
            return vec![Check::unknown("replication", registry.subject(), call, &error)];
        }
    };
    let mut checks = Vec::new();
    for (number, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.deletes) {
        for name in registry.repositories.keys().filter(|name| rule.is_for(name)) {
            let detail = match registry.side {
                Side::Target => outgoing(number, rule),
                Side::Source => incoming(run, name, number, rule),
            };
            checks.extend(detail.map(|detail| {
                Check::new("replication", registry.about([*name]), CheckStatus::Warning, detail).remedy(
                    "set `deleteReplication` of the rule to `{\"enabled\": false}`: aws ecr put-replication-configuration",
                )
            }));
        }
    }
    if checks.is_empty() {
        let detail = "no rule of the replication copies deletions of these repositories";
        checks.push(Check::new("replication", registry.subject(), CheckStatus::Passed, detail));
    }
    checks
}

/// Describes what a rule does with deletions in the target.
fn outgoing(number: usize, rule: &ReplicationRule) -> Option<String> {
    let places: Vec<String> = rule.destinations.iter().map(place).collect();
    Some(format!(
        "replication rule {} copies deletions: an image that is deleted or expires here is deleted in {} too",
        number + 1,
        places.join(", ")
    ))
}

/// Describes what a rule of the source does to the target's repository of the same name.
fn incoming(run: &PlannedRun<'_>, name: &RepositoryName, number: usize, rule: &ReplicationRule) -> Option<String> {
    let hosts = run.images.iter().filter(|image| image.named.reference.repository == *name);
    let mut hosts = hosts.filter_map(|image| match &image.named.reference.location {
        Location::Host(host) => EcrHost::parse(host),
        Location::Directory(_) => None,
    });
    let target = hosts.find(|host| rule.destinations.contains(host))?;
    Some(format!(
        "replication rule {} copies deletions to {}: an image that is deleted or expires here is deleted there, where this run puts it",
        number + 1,
        place(&target)
    ))
}

fn place(host: &EcrHost) -> String {
    format!("{}/{}", host.account, host.region)
}
