//! The source of a digest: the tag in the source environment, or the history of the target environment.

use cfn_images::Version;
use lifecycle::ActionError;
use lifecycle::access::{OpenRepository, RegistryAccess};
use lifecycle::delivery::Delivery;
use lifecycle::evidence::{RecordKind, Recorded};
use lifecycle::naming::Named;
use oci::{Manifest, Reference, StoreError};
use registry::EcrHost;

use super::Promotion;
use crate::environment_history::{EnvironmentHistory, HistoryEntry, is_target_of};
use crate::request::{Request, Transition};
use crate::rollback_targets::{Presence, presence, restore_hint, rollback_targets, sentence};

impl Promotion {
    /// Refuses a source whose name moves from version to version and holds another one, according to the newest record of
    /// the source environment.
    pub(super) async fn check_version(
        &self,
        transition: &Transition,
        from: &Reference,
        named: &Named,
    ) -> anyhow::Result<()> {
        if transition.rollback {
            return Ok(());
        }
        let version = transition.version.to_string();
        let failed = |message: String| ActionError::failure(message).at(named.source_location.clone());
        let Delivery { source, graph, .. } = &self.delivery;
        let records = Recorded::of_environment(source, &graph.root.digest, &transition.from).await;
        let records = records.map_err(|error| failed(format!("cannot read which version `{from}` holds: {error}")))?;
        let newest = records.iter().map(|found| &found.record).find(|record| is_target_of(record, from));
        match newest {
            Some(record) if record.version != version => {
                let message =
                    format!("`{from}` has held version {} since {}, not {version}", record.version, record.time);
                Err(failed(message).hint("promote the version that it holds, or publish this one").into())
            }
            _ => Ok(()),
        }
    }
}

/// Returns the records of the publication of a version, newest first.
///
/// # Errors
/// If the source cannot be read.
pub(crate) async fn publications(delivery: &Delivery, version: &Version) -> Result<Vec<Recorded>, StoreError> {
    let mut records = Recorded::all(&delivery.source, delivery.digest()).await?;
    let version = version.to_string();
    records.retain(|found| found.record.kind == RecordKind::Publish && found.record.version == version);
    Ok(records)
}

/// Returns the manifest that the target environment held of a version. A rollback brings back nothing else.
///
/// # Errors
/// If no record says that the version was there, or its image is archived or has been deleted.
pub(super) async fn rollback_root(
    request: &Request,
    named: &Named,
    target: &OpenRepository,
    history: Option<&Result<EnvironmentHistory, StoreError>>,
) -> anyhow::Result<Manifest> {
    let Transition { to, version, .. } = &request.transition;
    let failed = |message: String| ActionError::failure(message).at(named.source_location.clone());
    let history = match history {
        Some(Ok(history)) => history,
        Some(Err(error)) => return Err(failed(format!("cannot read which versions were in {to}: {error}")).into()),
        None => return Err(failed(format!("cannot read which versions were in {to}")).into()),
    };
    let matches = |entry: &&HistoryEntry| entry.version == *version && entry.tag == named.reference.tag;
    let Some(entry) = history.entries.iter().find(matches) else {
        let (reference, tag) = (&named.reference, &named.reference.tag);
        if history.archived.contains_key(tag) || is_archived(&request.target, reference).await {
            let message = format!(
                "image `{}` can't go back to {version}: `{reference}` is archived and cannot be read",
                named.key
            );
            return Err(failed(message).hint(restore_hint(reference, &format!("imageTag={tag}"))).into());
        }
        let mut versions: Vec<String> = Vec::new();
        for entry in history.entries.iter().rev() {
            let version = entry.version.to_string();
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
        let hint = if versions.is_empty() {
            format!("{to} has no record of any version of it")
        } else {
            format!("{to} has records of {}", versions.join(", "))
        };
        let missing = if history.digest_of(tag).is_some() {
            String::new()
        } else {
            format!(", and there is no tag `{tag}`, which a lifecycle rule may have deleted")
        };
        let key = &named.key;
        let message = format!("image `{key}` can't go back to {version}: no record says that it was in {to}{missing}");
        return Err(failed(message).hint(hint).into());
    };
    if let Some(manifest) = target.store.manifest(&entry.digest).await? {
        return Ok(manifest);
    }
    let (key, digest) = (&named.key, &entry.digest);
    let refused = |what: &str| failed(format!("image `{key}` can't go back to {version}: {digest} {what}"));
    if presence(&request.target, &named.reference, digest).await == Presence::Archived {
        let hint = restore_hint(&named.reference, &format!("imageDigest={digest}"));
        return Err(refused("is archived and cannot be read").hint(hint).into());
    }
    let refused = refused("is no longer in the registry");
    let targets = rollback_targets(&request.target, &named.reference, &named.pattern, history, None).await;
    Err(match sentence(&targets) {
        Some(said) => refused.hint(format!("{to} {said}")).into(),
        None => refused.into(),
    })
}

/// Returns whether ECR says that the image of a tag is archived. This only improves a message, so a failure is ignored.
async fn is_archived(access: &RegistryAccess, reference: &Reference) -> bool {
    let Some(host) = EcrHost::parse(&reference.location.to_string()) else { return false };
    let image = access.aws.image_by_tag(&host, &reference.repository, &reference.tag).await;
    image.ok().flatten().is_some_and(|image| image.archived)
}

/// Returns the error for a source that the registry says is missing. ECR says so of an archived image too.
pub(super) async fn missing_source(source: &RegistryAccess, transition: &Transition, from: &Reference) -> ActionError {
    if is_archived(source, from).await {
        let error = ActionError::failure(format!("`{from}` is archived and cannot be read"));
        return error.hint(restore_hint(from, &format!("imageTag={}", from.tag)));
    }
    let (version, environment) = (&transition.version, &transition.from);
    let remedy = match &transition.before_from {
        Some(before) => format!("promote it there from {before} with `to: {environment}`"),
        None => "the action publish puts it there".to_owned(),
    };
    ActionError::failure(format!("`{from}` does not exist"))
        .hint(format!("version {version} must be in {environment} first: {remedy}"))
}
