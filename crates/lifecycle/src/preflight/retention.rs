//! Whether a lifecycle policy removes an image that the environment holds: by the rules that ECR documents, and by ECR's
//! own preview.

use futures::stream::{self, StreamExt};

use super::check::{Check, CheckStatus, chain};
use super::repositories::Repositories;
use super::scope::{PlannedImage, PlannedRun, Registry};
use crate::aws::{AwsErrorKind, LifecyclePreview};
use crate::retention::{LifecyclePolicy, LiveImage, StoredImage, hazard, put_tag, removals};
use oci::RepositoryName;

/// How many images of an environment have to stay: the current one, and two to roll back to.
const KEPT: usize = 3;

pub(super) async fn check(
    run: &PlannedRun<'_>,
    registry: &Registry<'_>,
    repositories: &Repositories<'_>,
) -> Vec<Check> {
    let checks = repositories.existing().map(|(name, _)| of_repository(run, registry, name));
    let checks: Vec<_> = checks.collect();
    let checks: Vec<Vec<Check>> = stream::iter(checks).buffered(run.concurrency).collect().await;
    checks.into_iter().flatten().collect()
}

async fn of_repository(run: &PlannedRun<'_>, registry: &Registry<'_>, name: &RepositoryName) -> Vec<Check> {
    let (aws, host, about) = (&registry.access.aws, &registry.host, registry.about([name]));
    let unknown = |action: &str, error| {
        vec![Check::unknown("retention", registry.about([name]), (action, registry.arn(name)), error)]
    };
    let text = match aws.lifecycle_policy(host, name).await {
        Ok(Some(text)) => text,
        Ok(None) => {
            return vec![Check::new("retention", about, CheckStatus::Passed, "it has no lifecycle policy")];
        }
        Err(error) => return unknown("ecr:GetLifecyclePolicy", &error),
    };
    let policy = match LifecyclePolicy::parse(&text) {
        Ok(policy) => policy,
        Err(error) => {
            let detail = format!("its lifecycle policy is not understood: {}", chain(&error));
            return vec![Check::new("retention", about, CheckStatus::Unknown, detail)];
        }
    };
    let stored = match aws.stored_images(host, name).await {
        Ok(stored) => stored,
        Err(error) => return unknown("ecr:DescribeImages", &error),
    };
    let mut checks = Vec::new();
    for image in registry.images(name) {
        checks.extend(of_image(run, registry, (image, name), (&policy, &stored)));
    }
    // Where nothing is known of any image, the check of the image says why.
    let is_any_known = registry.images(name).any(|image| image.delivery.is_ok() || !image.held.is_empty());
    if checks.is_empty() && is_any_known {
        let detail = format!("no rule of its lifecycle policy removes {}", examined(run));
        checks.push(Check::new("retention", about, CheckStatus::Passed, detail));
    }
    checks.push(match aws.lifecycle_preview(host, name).await {
        Ok(preview) => compare(run, registry, name, (&policy, &stored), &preview),
        Err(error) => {
            let about = registry.about([name]);
            let mut check = Check::unknown(
                "retention-preview",
                about,
                ("ecr:StartLifecyclePolicyPreview", registry.arn(name)),
                &error,
            );
            if error.kind == AwsErrorKind::Denied {
                let both = ["ecr:GetLifecyclePolicyPreview", "ecr:StartLifecyclePolicyPreview"];
                check = check.allow(both, &[registry.arn(name)]);
            }
            check
        }
    });
    checks
}

/// Returns a warning if a rule removes the delivered image, or one that the environment holds or can roll back to.
fn of_image(
    run: &PlannedRun<'_>,
    registry: &Registry<'_>,
    (image, name): (&PlannedImage<'_>, &RepositoryName),
    (policy, stored): (&LifecyclePolicy, &[StoredImage]),
) -> Option<Check> {
    let (named, environment) = (image.named, run.environment);
    let mut images = stored.to_vec();
    let mut live = image.held.clone();
    if let Ok(delivery) = image.delivery.as_ref().map(|delivery| delivery.digest()) {
        put_tag(&mut images, delivery, &named.reference.tag.to_string(), run.now);
        live.retain(|(digest, _)| digest != delivery);
        live.insert(0, (delivery.clone(), named.reference.tag.to_string()));
    }
    live.truncate(KEPT);
    let is_own = |tag: &str| tag.parse().is_ok_and(|tag| named.pattern.version_of(&tag).is_some());
    live.iter().find_map(|(digest, tag)| {
        let live = LiveImage { digest, environment, tag, is_own: &is_own, kept: KEPT };
        let hazard = hazard(policy, &images, live, run.now)?;
        let about = registry.about([name]);
        // That images which were just built go after some time is what most policies are for.
        let status = if run.source.is_some() { CheckStatus::Warning } else { CheckStatus::Note };
        Some(
            Check::new("retention", about, status, format!("`{tag}`: {hazard}"))
                .remedy(format!("before the other rules, add one for `{environment}-*` that keeps enough images")),
        )
    })
}

/// Names what was examined: publish does not read what the environment holds.
fn examined(run: &PlannedRun<'_>) -> String {
    match run.source {
        Some(_) => format!("what {} holds", run.environment),
        None => "the image of this run".to_owned(),
    }
}

/// Compares ECR's own preview with the evaluation here, for the images that the environment holds.
fn compare(
    run: &PlannedRun<'_>,
    registry: &Registry<'_>,
    name: &RepositoryName,
    (policy, stored): (&LifecyclePolicy, &[StoredImage]),
    preview: &LifecyclePreview,
) -> Check {
    let about = registry.about([name]);
    let ours = removals(policy, stored, run.now);
    let held: Vec<_> = registry.images(name).flat_map(|image| &image.held).collect();
    for (digest, tag) in &held {
        let theirs = preview.removed.iter().find(|(removed, _)| *removed == *digest).map(|(_, priority)| *priority);
        let own = ours.get(digest).map(|removal| removal.priority);
        if theirs == own {
            continue;
        }
        let rule = |priority: Option<u64>| {
            priority.map_or_else(
                || "no rule removes it now".to_owned(),
                |priority| format!("rule {priority} removes it now"),
            )
        };
        let detail = format!(
            "`{tag}`: in ECR's own preview {}, and by the rules that ECR documents {}",
            rule(theirs),
            rule(own)
        );
        return Check::new("retention-preview", about, CheckStatus::Warning, detail)
            .remedy("compare the policy with ECR's console before the next evaluation, within a day");
    }
    let removes = format!("ECR's own preview removes {}", crate::plural(preview.removed.len(), "image"));
    // The image of this run is not in the preview. Without others, nothing was compared.
    if held.is_empty() {
        let why = match run.source {
            Some(_) => format!("no image is known that {} holds", run.environment),
            None => format!("publish does not read what {} holds", run.environment),
        };
        let detail = format!("{removes} now; nothing was compared: {why}");
        return Check::new("retention-preview", about, CheckStatus::Note, detail);
    }
    let detail = format!("{removes}, and agrees on {}", examined(run));
    Check::new("retention-preview", about, CheckStatus::Passed, detail)
}
