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
use crate::request::Transition;

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
pub(super) async fn rollback_root(
    transition: &Transition,
    named: &Named,
    target: &OpenRepository,
    history: Option<&Result<EnvironmentHistory, StoreError>>,
) -> anyhow::Result<Manifest> {
    let (to, version) = (&transition.to, &transition.version);
    let failed = |message: String| ActionError::failure(message).at(named.source_location.clone());
    let history = match history {
        Some(Ok(history)) => history,
        Some(Err(error)) => return Err(failed(format!("cannot read which versions were in {to}: {error}")).into()),
        None => return Err(failed(format!("cannot read which versions were in {to}")).into()),
    };
    let matches = |entry: &&HistoryEntry| entry.version == *version && entry.tag == named.reference.tag;
    let Some(entry) = history.entries.iter().find(matches) else {
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
        let message = format!("image `{}` can't go back to {version}: no record says that it was in {to}", named.key);
        return Err(failed(message).hint(hint).into());
    };
    let deleted = || {
        failed(format!(
            "image `{}` can't go back to {version}: {} is no longer in the registry",
            named.key, entry.digest
        ))
    };
    Ok(target.store.manifest(&entry.digest).await?.ok_or_else(deleted)?)
}

/// Returns the error for a source that the registry says is missing. ECR says so of an archived image too.
pub(super) async fn missing_source(source: &RegistryAccess, transition: &Transition, from: &Reference) -> ActionError {
    let image = match EcrHost::parse(&from.location.to_string()) {
        // This only improves the message, so a failure is ignored.
        Some(host) => source.aws.image_by_tag(&host, &from.repository, &from.tag).await.ok().flatten(),
        None => None,
    };
    if image.is_some_and(|image| image.archived) {
        return ActionError::failure(format!("`{from}` is archived and cannot be read")).hint(format!(
            "restore it: aws ecr update-image-storage-class --target-storage-class STANDARD --repository-name {} --image-id imageTag={}",
            from.repository, from.tag
        ));
    }
    ActionError::failure(format!("`{from}` does not exist"))
        .hint(format!("version {} must be in {} first", transition.version, transition.from))
}
