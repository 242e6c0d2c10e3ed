use std::sync::Arc;

use crate::clock;
use crate::evidence::{Record, RecordKind};
use crate::naming::{Project, Release};
use oci::transfer::copy;
use oci::{BlobSource, Digest, Manifest, Reference, Store, StoreError};
use runner_protocol::Variables;

/// Attaches a record to the image that it tells of, whose root has to be there, and says what it has become.
///
/// # Errors
/// When it would be over the limit, and those of the write.
pub async fn attach(record: &Record, target: &Arc<dyn Store>, root: &Manifest) -> Result<Digest, StoreError> {
    let artifact = record.artifact(&root.descriptor())?;
    let manifest = artifact.manifest.clone();
    let artifact: Arc<dyn BlobSource> = Arc::new(artifact);
    copy::artifact(target, &manifest, &artifact).await?;
    Ok(manifest.digest)
}

impl Project {
    /// What a run does now to a digest: with the time, the template, and who does it and where as the runner says.
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
            commit: text(run.commit()),
            run: run.run_url(),
            actor: text(run.actor()),
            time: clock::moment(),
            gates: Vec::new(),
            overridden: None,
        }
    }
}
