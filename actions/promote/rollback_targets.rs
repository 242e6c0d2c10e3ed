//! What an environment can be rolled back to: whether the images that it held are still there.

use serde::Serialize;

use cfn_images::NamePattern;
use lifecycle::access::RegistryAccess;
use oci::{Digest, Reference, Tag};
use registry::EcrHost;

use crate::environment_history::EnvironmentHistory;

/// How many images before the current one are looked at.
const SHOWN: usize = 5;

/// Whether an image is still in its repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Presence {
    /// It is.
    Available,
    /// ECR has archived it, so it cannot be read until it is restored.
    Archived,
    /// It has been deleted.
    Deleted,
    /// It could not be looked up.
    Unknown,
}

/// An image that an environment held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RollbackTarget {
    /// The version. An image that cannot be read has no record that says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    digest: Digest,
    state: Presence,
}

/// Returns the images that an environment has held, newest first, and whether they are still there. The one that it holds,
/// `current`, is left out; by default, that is the newest one.
pub(crate) async fn rollback_targets(
    access: &RegistryAccess,
    reference: &Reference,
    pattern: &NamePattern,
    history: &EnvironmentHistory,
    current: Option<&Digest>,
) -> Vec<RollbackTarget> {
    let current = current.or_else(|| history.current().map(|entry| &entry.digest));
    let version_of = |tag: &Tag| pattern.version_of(tag).map(|version| version.to_string());
    let mut held: Vec<(Option<String>, &Digest)> = Vec::new();
    for entry in &history.entries {
        held.push((Some(entry.version.to_string()), &entry.digest));
        // The record of an image that cannot be read cannot be read either. Only the next one names the digest.
        if let Some(replaced) = entry.record.replaced.as_ref().filter(|digest| !history.has_held(digest)) {
            let archived = history.archived.iter().find(|(_, digest)| *digest == replaced);
            held.push((archived.and_then(|(tag, _)| version_of(tag)), replaced));
        }
    }
    held.extend(history.archived.iter().map(|(tag, digest)| (version_of(tag), digest)));
    let mut targets: Vec<RollbackTarget> = Vec::new();
    for (version, digest) in held {
        let is_known = current == Some(digest) || targets.iter().any(|target| target.digest == *digest);
        if !is_known && targets.len() < SHOWN {
            let is_archived = history.archived.values().any(|archived| archived == digest);
            let state = match history.tag_of(digest) {
                Some(_) => Presence::Available,
                None if is_archived => Presence::Archived,
                None => presence(access, reference, digest).await,
            };
            targets.push(RollbackTarget { version, digest: digest.clone(), state });
        }
    }
    targets
}

/// Returns whether an image is in the repository of a reference.
pub(crate) async fn presence(access: &RegistryAccess, reference: &Reference, digest: &Digest) -> Presence {
    let Ok(repository) = access.stores.open(reference) else { return Presence::Unknown };
    match repository.store.manifest(digest).await {
        Ok(Some(_)) => return Presence::Available,
        Ok(None) => {}
        Err(_) => return Presence::Unknown,
    }
    // ECR answers the same for an archived image and for one that does not exist.
    let Some(host) = EcrHost::parse(&reference.location.to_string()) else { return Presence::Deleted };
    match access.aws.image_by_digest(&host, &reference.repository, digest).await {
        Ok(Some(image)) if image.archived => Presence::Archived,
        Ok(None) => Presence::Deleted,
        Ok(Some(_)) | Err(_) => Presence::Unknown,
    }
}

/// Formats the command that restores an archived image. `image` is `imageTag=…` or `imageDigest=…`.
pub(crate) fn restore_hint(reference: &Reference, image: &str) -> String {
    let repository = &reference.repository;
    format!(
        "restore it: aws ecr update-image-storage-class --target-storage-class STANDARD --repository-name {repository} --image-id {image}"
    )
}

/// Says which of these images a rollback can return to. `None` without images.
pub(crate) fn sentence(targets: &[RollbackTarget]) -> Option<String> {
    let (there, lost): (Vec<_>, Vec<_>) = targets.iter().partition(|target| target.state == Presence::Available);
    let there: Vec<String> = there.into_iter().map(RollbackTarget::name).collect();
    let lost: Vec<String> =
        lost.into_iter().map(|target| format!("{} ({})", target.name(), target.state.name())).collect();
    match (there.is_empty(), lost.is_empty()) {
        (true, true) => None,
        (false, true) => Some(format!("can be rolled back to {}", there.join(", "))),
        (true, false) => Some(format!("cannot be rolled back to {}", lost.join(", "))),
        (false, false) => Some(format!("can be rolled back to {}, but not to {}", there.join(", "), lost.join(", "))),
    }
}

impl RollbackTarget {
    /// Returns its version, or else its digest.
    fn name(&self) -> String {
        self.version.clone().unwrap_or_else(|| self.digest.short())
    }
}

impl Presence {
    /// Returns its name in outputs and messages.
    fn name(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Archived => "archived",
            Self::Deleted => "deleted",
            Self::Unknown => "unknown",
        }
    }
}
