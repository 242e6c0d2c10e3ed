//! The gate on ECR's lifecycle policies: whether one of them will remove an image that an environment holds.

use lifecycle::aws::Error;
use lifecycle::retention::{LifecyclePolicy, LiveImage, StoredImage, hazard};
use oci::Digest;
use registry::EcrHost;

use super::{Candidate, GateOutcome, blocked, unanswered};
use crate::requirement::Requirement;

/// How many images of an environment have to stay: the current one, and two to roll back to.
const KEPT: usize = 3;

impl Candidate<'_> {
    /// Checks that the lifecycle policy of the target's repository removes neither the promoted image, nor what the
    /// environment holds and can roll back to.
    pub(super) async fn retained(&self, requirement: &Requirement) -> GateOutcome {
        let target = &self.planned.image.named.reference;
        let Some(host) = EcrHost::parse(&target.location.to_string()) else {
            let elsewhere = target.repository_address();
            let why = format!("needs the lifecycle policy of a repository in ECR, but `{elsewhere}` is not in ECR");
            return Err(blocked(why, self.without(requirement)));
        };
        let (aws, repository) = (&self.gates.target.aws, &target.repository);
        let needed = format!("the lifecycle policy and the images of `{repository}`");
        let failed = |error: Error| unanswered(&needed, error);
        let Some(text) = aws.lifecycle_policy(&host, repository).await.map_err(failed)? else {
            return Ok("the repository has no lifecycle policy".to_owned());
        };
        let policy = LifecyclePolicy::parse(&text).map_err(|error| {
            let why = format!("needs to understand the lifecycle policy of `{repository}`, but {}", chain(&error));
            blocked(why, self.without(requirement))
        })?;
        let mut images = aws.stored_images(&host, repository).await.map_err(failed)?;
        self.add_promoted(&mut images);
        let environment = &self.gates.transition.to;
        for (digest, tag) in self.live_images() {
            let live = LiveImage { digest: &digest, environment, tag: &tag, kept: KEPT };
            if let Some(hazard) = hazard(&policy, &images, live, self.gates.now) {
                let why = format!("needs `{tag}` to stay in `{repository}`, but {hazard}");
                let remedy = format!("before the other rules, add one for `{environment}-*` that keeps enough images");
                return Err(blocked(why, remedy));
            }
        }
        Ok(format!("no rule of the lifecycle policy removes it or the {} images before it", KEPT - 1))
    }

    /// Adds the promoted image and its tag to the images of the repository, as they will be.
    fn add_promoted(&self, images: &mut Vec<StoredImage>) {
        let (digest, tag) = (self.root(), self.planned.image.named.reference.tag.to_string());
        for image in images.iter_mut() {
            image.tags.retain(|held| *held != tag);
        }
        match images.iter_mut().find(|image| image.digest == *digest) {
            Some(image) => image.tags.push(tag),
            None => images.push(StoredImage {
                digest: digest.clone(),
                tags: vec![tag],
                pushed: self.gates.now,
                pulled: None,
                archived: None,
                restored: None,
                is_in_index: false,
            }),
        }
    }

    /// Returns the promoted image and those that the environment can roll back to, with their tags.
    fn live_images(&self) -> Vec<(Digest, String)> {
        let mut live = vec![(self.root().clone(), self.planned.image.named.reference.tag.to_string())];
        if let Some(Ok(history)) = &self.planned.history {
            for entry in &history.entries {
                if live.len() < KEPT && live.iter().all(|(digest, _)| *digest != entry.digest) {
                    live.push((entry.digest.clone(), entry.tag.to_string()));
                }
            }
        }
        live
    }
}

/// Formats an error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
