use std::sync::Arc;

use crate::clock;
use crate::evidence::{Artifact, Record, RecordKind};
use crate::naming::{Project, Release};
use oci::transfer::copy;
use oci::{BlobSource, Digest, Reference, Store, StoreError};
use runner_protocol::Variables;

/// Attaches a statement of this run to its image, whose root must already be in the target. Returns the statement's own
/// digest.
///
/// # Errors
/// If it cannot be written.
pub async fn attach(artifact: Artifact, target: &Arc<dyn Store>) -> Result<Digest, StoreError> {
    let manifest = artifact.manifest.clone();
    let artifact: Arc<dyn BlobSource> = Arc::new(artifact);
    copy::artifact(target, &manifest, &artifact).await?;
    Ok(manifest.digest)
}

impl Project {
    /// Returns the record of what this run does to a digest: with the current time, the template, and the run as
    /// GitHub's runner describes it. The caller adds the commit of the image.
    pub fn record(
        &self,
        run: &Variables,
        kind: RecordKind,
        release: Release<'_>,
        to: &Reference,
        digest: &Digest,
    ) -> Record {
        let text = |value: Option<&str>| value.map(str::to_owned);
        Record {
            kind,
            environment: release.environment.to_owned(),
            from: None,
            to: to.to_string(),
            digest: digest.clone(),
            replaced: None,
            supersedes: Vec::new(),
            version: release.version.to_string(),
            template: self.template_sha256(),
            repository: text(run.repository()),
            image_commit: None,
            run_commit: text(run.commit()),
            run: run.run_url(),
            actor: text(run.actor()),
            time: clock::now_millis(),
            gates: Vec::new(),
            overridden: None,
            lifted_hold: None,
        }
    }
}
