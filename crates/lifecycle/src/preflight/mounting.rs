//! Whether blobs are mounted from the source's repository, or each is uploaded.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt};

use super::check::{Check, CheckStatus};
use super::repositories::Repositories;
use super::scope::{PlannedRun, Registry};
use oci::{Reference, RepositoryName};

pub(super) async fn check(
    run: &PlannedRun<'_>,
    registry: &Registry<'_>,
    repositories: &Repositories<'_>,
) -> Option<Check> {
    let pairs = pairs(registry);
    if pairs.is_empty() || !registry.is_own_account() {
        return None;
    }
    let (aws, host, about) = (&registry.access.aws, &registry.host, registry.subject());
    match aws.mounts_blobs(host).await {
        Err(error) => {
            return Some(Check::unknown("mounting", about, ("ecr:GetAccountSetting", "*".to_owned()), &error));
        }
        Ok(false) => {
            let detail = "blobs are not mounted from one repository into another, so each one is uploaded";
            let region = &host.region;
            let remedy = format!("aws ecr put-account-setting --region {region} --name BLOB_MOUNTING --value ENABLED");
            return Some(Check::new("mounting", about, CheckStatus::Note, detail).remedy(remedy));
        }
        Ok(true) => {}
    }
    let sources: BTreeSet<&RepositoryName> = pairs.iter().map(|(source, _)| *source).collect();
    let sources: Vec<_> =
        sources.into_iter().map(|name| async move { (name, aws.describe_repository(host, name).await) }).collect();
    let sources: Vec<_> = stream::iter(sources).buffered(run.concurrency).collect().await;
    let mut others = Vec::new();
    for (source, described) in &sources {
        let described = match described {
            Ok(Some(described)) => described,
            Ok(None) => continue,
            Err(error) => {
                let about = registry.about([*source]);
                let call = ("ecr:DescribeRepositories", registry.arn(source));
                return Some(Check::unknown("mounting", about, call, error));
            }
        };
        let targets = pairs.iter().filter(|(from, _)| from == source);
        others.extend(targets.filter_map(|(_, target)| {
            let (_, to) = repositories.existing().find(|(name, _)| name == target)?;
            let is_same = (&to.encryption, &to.kms_key) == (&described.encryption, &described.kms_key);
            (!is_same).then(|| format!("{source} and {target}"))
        }));
    }
    if others.is_empty() {
        return Some(Check::new("mounting", about, CheckStatus::Passed, "blobs are mounted"));
    }
    let detail = format!("blobs are uploaded and not mounted, because the encryption differs: {}", others.join("; "));
    Some(Check::new("mounting", about, CheckStatus::Note, detail).remedy("create both repositories with the same key"))
}

/// Returns the pairs of repositories in this registry between which content is copied.
fn pairs<'a>(registry: &Registry<'a>) -> BTreeSet<(&'a RepositoryName, &'a RepositoryName)> {
    let images = registry.repositories.values().flatten();
    let pairs = images.filter_map(|image| {
        let (source, target): (&Reference, &Reference) = (image.source?, &image.named.reference);
        let is_copied = image.writes.is_some_and(|writes| writes.content.is_some());
        (is_copied && source.location == target.location).then_some((&source.repository, &target.repository))
    });
    pairs.collect()
}
