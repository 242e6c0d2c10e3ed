//! Where the digest of an image comes from: the tag of the environment below, or what the environment itself has held.

use std::collections::BTreeSet;

use cfn_images::Version;
use lifecycle::ActionError;
use lifecycle::access::OpenRepository;
use lifecycle::delivery::Delivery;
use lifecycle::evidence::Recorded;
use lifecycle::naming::Named;
use oci::{Manifest, Reference, StoreError};
use registry::EcrHost;

use super::Promotion;
use crate::environment::{EnvironmentHistory, HistoryEntry, tells_of};
use crate::inputs::Request;

impl Promotion {
    /// Refuses a name that moves from version to version and holds another one, by the newest record of the environment that it
    /// comes from.
    pub(super) async fn check_version(&self, request: &Request, from: &Reference, named: &Named) -> anyhow::Result<()> {
        if request.rollback {
            return Ok(());
        }
        let version = request.version.to_string();
        let failed = |message: String| ActionError::failure(message).at(named.place.clone());
        let Delivery { source, graph, .. } = &self.delivery;
        let records = Recorded::of_environment(source, &graph.root.digest, &request.from).await;
        let records =
            records.map_err(|error| failed(format!("it can't be decided which version `{from}` holds: {error}")))?;
        let newest = records.iter().find(|found| tells_of(&found.record, from));
        match newest.map(|found| &found.record).filter(|record| record.version != version) {
            None => Ok(()),
            Some(record) => {
                let message =
                    format!("`{from}` holds version {} since {}, and not {version}", record.version, record.time);
                Err(failed(message).hint("promote the version that it holds, or publish this one").into())
            }
        }
    }
}

/// What the environment had of a version before: the only thing that a rollback may bring back.
pub(super) async fn before(
    request: &Request,
    named: &Named,
    target: &OpenRepository,
    held: Option<&Result<EnvironmentHistory, StoreError>>,
) -> anyhow::Result<Manifest> {
    let (to, version) = (&request.to, &request.version);
    let held = match held {
        Some(Ok(held)) => held,
        Some(Err(error)) => {
            let message = format!("it can't be decided what was in {to}: {error}");
            return Err(ActionError::failure(message).at(named.place.clone()).into());
        }
        None => return Err(ActionError::failure(format!("it is not known what was in {to}")).into()),
    };
    let matches = |stay: &&HistoryEntry| stay.version == *version && stay.tag == named.reference.tag;
    let Some(stay) = held.stays.iter().find(matches) else {
        let versions: BTreeSet<&Version> = held.stays.iter().map(|stay| &stay.version).collect();
        let versions: Vec<String> = versions.into_iter().map(ToString::to_string).collect();
        let hint = match versions.is_empty() {
            true => format!("no record tells of any version of it in {to}"),
            false => format!("the records tell of {}", versions.join(", ")),
        };
        let message = format!("image `{}` can't go back to {version}: no record says that it was in {to}", named.key);
        return Err(ActionError::failure(message).at(named.place.clone()).hint(hint).into());
    };
    let gone = || {
        let message = format!(
            "image `{}` can't go back to {version}: {} is not in the registry any more",
            named.key, stay.digest
        );
        ActionError::failure(message).at(named.place.clone())
    };
    Ok(target.store.manifest(&stay.digest).await?.ok_or_else(gone)?)
}

/// Why a source can't be read that the registry says is not there: ECR says so of an archived image too.
pub(super) async fn absent(request: &Request, from: &Reference) -> ActionError {
    let archived = match EcrHost::parse(&from.location.to_string()) {
        // Only for the message: that it can't be known changes nothing.
        Some(host) => request.source.aws.image_by_tag(&host, &from.repository, &from.tag).await.ok().flatten(),
        None => None,
    };
    match archived {
        Some(image) if image.archived => ActionError::failure(format!("`{from}` is archived, so it can't be read")).hint(format!(
            "restore it: aws ecr update-image-storage-class --target-storage-class STANDARD --repository-name {} --image-id imageTag={}",
            from.repository, from.tag
        )),
        _ => ActionError::failure(format!("`{from}` does not exist"))
            .hint(format!("version {} has to be in {} first", request.version, request.from)),
    }
}
