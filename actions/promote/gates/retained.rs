//! The gate on ECR's lifecycle policies: whether one of them will remove an image that an environment holds or something
//! runs.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt, TryStreamExt};

use lifecycle::aws::{Error, Workload, Workloads};
use lifecycle::plural;
use lifecycle::retention::{LifecyclePolicy, LiveImage, StoredImage, hazard, put_tag};
use oci::{Digest, StoreError};
use registry::EcrHost;

use super::{Candidate, GateOutcome, Gates, blocked, unanswered};
use crate::requirement::Requirement;

/// How many images of an environment have to stay: the current one, and two to roll back to.
const KEPT: usize = 3;

/// How many images are read to find the index that a platform's image belongs to, newest first.
const INDEX_LIMIT: usize = 50;

/// Concurrent requests to one repository.
const CONCURRENCY: usize = 16;

/// An image that has to stay.
struct Live {
    digest: Digest,
    /// Its tag in the environment. Empty if it has none.
    tag: String,
    /// The environment that holds it, or what runs it.
    holder: String,
}

impl Candidate<'_> {
    /// Checks that the lifecycle policy of the target's repository removes neither the promoted image, nor what the
    /// environment holds and can roll back to, nor what runs. The workloads of other environments do not count.
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
        let tag = self.planned.image.named.reference.tag.to_string();
        put_tag(&mut images, self.root(), &tag, self.gates.now);
        let workloads = self.workloads(&host).await;
        let running = self.running_images(workloads, &mut images).await;
        let running = running.map_err(|error| unanswered(&needed, error))?;
        let environment = &self.gates.transition.to;
        for Live { digest, tag, holder } in self.live_images().iter().chain(&running) {
            let is_own = |tag: &str| self.is_own(tag);
            let live = LiveImage { digest, environment: holder, tag, is_own: &is_own, kept: KEPT };
            if let Some(hazard) = hazard(&policy, &images, live, self.gates.now) {
                let name = if tag.is_empty() { digest.short() } else { tag.clone() };
                let why = format!("needs `{name}` to stay in `{repository}`, but {hazard}");
                let remedy = if tag.is_empty() {
                    format!("deploy an image that {environment} holds")
                } else {
                    format!("before the other rules, add one for `{environment}-*` that keeps enough images")
                };
                return Err(blocked(why, remedy));
            }
        }
        let before = format!("the {} images before it", KEPT - 1);
        let kept = match running.len() {
            0 => format!("it or {before}"),
            count => format!("it, {before}, or what {} in the account", runs(count)),
        };
        Ok(format!("no rule of the lifecycle policy removes {kept}{}", unread(workloads)))
    }

    /// Returns what runs in the account and region of the target.
    async fn workloads(&self, host: &EcrHost) -> &Workloads {
        let Gates { target, workloads, concurrency, .. } = self.gates;
        let read = async || {
            let mut host = host.clone();
            host.region = target.aws.region().await.unwrap_or(host.region);
            target.aws.workloads(&host, *concurrency, &|_| true).await
        };
        workloads.get_or_init(read).await
    }

    /// Returns whether a tag is that of a version in the target environment.
    fn is_own(&self, tag: &str) -> bool {
        let named = &self.planned.image.named;
        tag == named.reference.tag.as_str() || tag.parse().is_ok_and(|tag| named.pattern.version_of(&tag).is_some())
    }

    /// Returns the images of the target environment that something runs. An image without any tag that is configured by its
    /// digest counts, because it may belong to the environment. Marks the images in the repository that belong to an index.
    async fn running_images(&self, workloads: &Workloads, images: &mut [StoredImage]) -> Result<Vec<Live>, StoreError> {
        let own = workloads.found.iter().filter(|found| found.is_in_repository_of(&self.planned.image.named.reference));
        let stored = |workload: &Workload| match (&workload.digest, workload.tag()) {
            (Some(digest), _) => images.iter().find(|image| image.digest == *digest),
            (None, Some(tag)) => images.iter().find(|image| image.tags.iter().any(|held| *held == tag.as_str())),
            (None, None) => None,
        };
        let found: Vec<(&Workload, Digest, bool)> = own
            .filter_map(|workload| Some((workload, stored(workload)?)))
            .map(|(workload, image)| (workload, image.digest.clone(), image.tags.is_empty()))
            .collect();
        let indexes = if found.iter().any(|(_, _, is_untagged)| *is_untagged) {
            self.indexes(images).await?
        } else {
            BTreeMap::new()
        };
        for image in images.iter_mut() {
            image.is_in_index |= indexes.contains_key(&image.digest);
        }
        let mut running: Vec<Live> = Vec::new();
        for (workload, digest, _) in found {
            let digest = indexes.get(&digest).unwrap_or(&digest);
            let Some(image) = images.iter().find(|image| image.digest == *digest) else { continue };
            // The tag in the configuration decides which environment a workload belongs to.
            let tag = match workload.tag() {
                Some(tag) if self.is_own(tag.as_str()) => tag.to_string(),
                Some(_) => continue,
                None => match image.tags.iter().find(|tag| self.is_own(tag)) {
                    Some(tag) => tag.clone(),
                    None if image.tags.is_empty() => String::new(),
                    None => continue,
                },
            };
            if running.iter().all(|live| live.digest != *digest) {
                let holder = format!("{} `{}`", workload.kind.name(), workload.name);
                running.push(Live { digest: digest.clone(), tag, holder });
            }
        }
        Ok(running)
    }

    /// Returns the indexes of images for single platforms, among the newest images with tags.
    async fn indexes(&self, images: &[StoredImage]) -> Result<BTreeMap<Digest, Digest>, StoreError> {
        let mut roots: Vec<&StoredImage> = images.iter().filter(|image| !image.tags.is_empty()).collect();
        roots.sort_by_key(|image| std::cmp::Reverse(image.pushed));
        roots.truncate(INDEX_LIMIT);
        let store = &self.delivery.target.store;
        let read: Vec<_> = roots.iter().map(|image| store.manifest(&image.digest)).collect();
        let read: Vec<_> = stream::iter(read).buffered(CONCURRENCY).try_collect().await?;
        let mut indexes = BTreeMap::new();
        for manifest in read.into_iter().flatten() {
            for child in manifest.children() {
                indexes.entry(child.digest.clone()).or_insert_with(|| manifest.digest.clone());
            }
        }
        Ok(indexes)
    }

    /// Returns the promoted image and those that the environment can roll back to.
    fn live_images(&self) -> Vec<Live> {
        let live = |digest: &Digest, tag: String| Live {
            digest: digest.clone(),
            tag,
            holder: self.gates.transition.to.clone(),
        };
        let mut images = vec![live(self.root(), self.planned.image.named.reference.tag.to_string())];
        if let Some(Ok(history)) = &self.planned.history {
            for entry in &history.entries {
                if images.len() < KEPT && images.iter().all(|image| image.digest != entry.digest) {
                    images.push(live(&entry.digest, entry.tag.to_string()));
                }
            }
        }
        images
    }
}

fn runs(count: usize) -> String {
    format!("{} {}", plural(count, "workload"), if count == 1 { "runs" } else { "run" })
}

/// Formats what could not be read of the account.
fn unread(workloads: &Workloads) -> String {
    let unread: Vec<String> = workloads.unread.iter().map(|(what, error)| format!("{what} ({error})")).collect();
    if unread.is_empty() { String::new() } else { format!("; not known: {}", unread.join(", ")) }
}

/// Formats an error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
