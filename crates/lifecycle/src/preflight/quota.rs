//! Whether the repositories have room: the quota on images counts artifacts too.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt};

use super::check::{Check, CheckStatus};
use super::repositories::Repositories;
use super::scanning::other_account;
use super::scope::{PlannedRun, Registry};
use crate::plural;
use oci::RepositoryName;

/// The share of the quota, in percent, from which on it is time to make room.
const NEARLY_FULL: u64 = 90;

pub(super) async fn check(
    run: &PlannedRun<'_>,
    registry: &Registry<'_>,
    repositories: &Repositories<'_>,
) -> Vec<Check> {
    let writes = |name: &RepositoryName| registry.images(name).any(|image| image.new_manifests(&BTreeSet::new()) > 0);
    let written: Vec<&RepositoryName> =
        repositories.existing().map(|(name, _)| name).filter(|name| writes(name)).collect();
    if written.is_empty() {
        return Vec::new();
    }
    if !registry.is_own_account() {
        return vec![other_account("quota", registry)];
    }
    let quota = match registry.access.aws.images_quota(&registry.host).await {
        Ok(quota) => quota,
        Err(error) => {
            let call = ("servicequotas:GetServiceQuota", "*".to_owned());
            return vec![Check::unknown("quota", registry.subject(), call, &error)];
        }
    };
    let checks = written.into_iter().map(|name| of_repository(registry, name, quota));
    let checks: Vec<_> = checks.collect();
    stream::iter(checks).buffered(run.concurrency).collect().await
}

async fn of_repository(registry: &Registry<'_>, name: &RepositoryName, quota: u64) -> Check {
    let about = registry.about([name]);
    let stored = match registry.access.aws.stored_digests(&registry.host, name).await {
        Ok(stored) => stored,
        Err(error) => return Check::unknown("quota", about, ("ecr:ListImages", registry.arn(name)), &error),
    };
    let new: u64 = registry.images(name).map(|image| image.new_manifests(&stored.digests) as u64).sum();
    let images = stored.digests.len() as u64;
    let at_least = if stored.is_complete { "" } else { "more than " };
    let detail = format!(
        "it holds {at_least}{}, artifacts included, and this run adds {new}; the quota is {quota}",
        plural(stored.digests.len(), "image")
    );
    let remedy = "let a lifecycle rule expire old images, or request a higher quota: aws service-quotas request-service-quota-increase --service-code ecr --quota-code L-03A36CE1";
    let status = if images + new > quota {
        CheckStatus::Failed
    } else if !stored.is_complete {
        CheckStatus::Unknown
    } else if (images + new) * 100 >= quota * NEARLY_FULL {
        CheckStatus::Warning
    } else {
        return Check::new("quota", about, CheckStatus::Passed, detail);
    };
    Check::new("quota", about, status, detail).remedy(remedy)
}
