//! Whether ECR scans the images.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt};

use super::check::{Check, CheckStatus, Side};
use super::scope::{PlannedRun, Registry};
use oci::RepositoryName;

pub(super) async fn check(run: &PlannedRun<'_>, registry: &Registry<'_>) -> Vec<Check> {
    // The gate on scans reads those of the source, which may be in the target's repository.
    let is_needed = run.reads_scans;
    if registry.side == Side::Source && !is_needed {
        return Vec::new();
    }
    if !registry.is_own_account() {
        return vec![other_account("scanning", registry)];
    }
    let (aws, host) = (&registry.access.aws, &registry.host);
    let scanning = match aws.scanning(host).await {
        Ok(scanning) => scanning,
        Err(error) => {
            let call = ("ecr:GetRegistryScanningConfiguration", "*".to_owned());
            return vec![Check::unknown("scanning", registry.subject(), call, &error)];
        }
    };
    // The setting of a repository itself counts only with basic scanning, and if no rule of the registry matches.
    let settings = &scanning;
    let asked = registry.repositories.keys().map(|name| async move {
        let by_rule = settings.frequency(name, false);
        if by_rule != "MANUAL" || settings.kind != "BASIC" {
            return (*name, by_rule);
        }
        let described = aws.describe_repository(host, name).await.ok().flatten();
        (*name, settings.frequency(name, described.is_some_and(|described| described.scan_on_push)))
    });
    let asked: Vec<_> = asked.collect();
    let asked: Vec<(&RepositoryName, &str)> = stream::iter(asked).buffered(run.concurrency).collect().await;
    let mut by_frequency: BTreeMap<&str, Vec<&RepositoryName>> = BTreeMap::new();
    for (name, frequency) in asked {
        by_frequency.entry(frequency).or_default().push(name);
    }
    let kind = scanning.kind.to_lowercase();
    let checks = by_frequency.into_iter().map(|(frequency, names)| {
        let about = registry.about(names);
        match frequency {
            "CONTINUOUS_SCAN" => {
                Check::new("scanning", about, CheckStatus::Passed, format!("{kind} scanning, continuously"))
            }
            "SCAN_ON_PUSH" => Check::new("scanning", about, CheckStatus::Passed, format!("{kind} scanning, on push")),
            _ => {
                let status = if is_needed { CheckStatus::Warning } else { CheckStatus::Note };
                let detail = format!("{kind} scanning, and no rule matches: ECR does not scan the images on push");
                let remedy =
                    "add a rule to the registry's scanning configuration: aws ecr put-registry-scanning-configuration";
                Check::new("scanning", about, status, detail).remedy(remedy)
            }
        }
    });
    checks.collect()
}

/// Returns the check of a setting that only the registry's own account can read.
pub(super) fn other_account(check: &'static str, registry: &Registry<'_>) -> Check {
    let account = &registry.host.account;
    let detail = format!("only credentials of account {account} can read this setting of its registry");
    Check::new(check, registry.subject(), CheckStatus::Unknown, detail)
        .remedy(format!("use credentials of account {account}"))
}
