//! GitHub's records of images: where they are stored, and where they are deployed.
//!
//! Only the registry counts: if GitHub cannot be updated, the run continues with a warning.

use secrecy::SecretString;

use super::Planned;
use crate::Diagnostic;
use crate::github::{ArtifactInRegistry, DeployedArtifact, Error, GitHub};
use crate::naming::Release;
use runner_protocol::{Annotation, Input, InputError, Level, Runner};

/// The records of a run, if the input `records` asks for them.
pub struct GitHubRecords {
    token: SecretString,
}

/// Which record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitHubRecord {
    /// Where the image is stored.
    Storage,
    /// The environment that it was promoted to.
    Deployment,
}

impl GitHubRecords {
    /// Parses the inputs `records` and `github-token`.
    ///
    /// # Errors
    /// If `records` is not a boolean, or the token is missing.
    pub fn parse(records: &Input<'_>, token: &Input<'_>) -> Result<Option<Self>, InputError> {
        if !records.boolean(false)? {
            return Ok(None);
        }
        Ok(Some(Self { token: SecretString::from(token.required()?) }))
    }

    /// Writes a record of each image that was delivered. An image without a change gets a storage record if GitHub has
    /// none yet, because an earlier run may have ended before it wrote one. A failure is one warning per run.
    pub async fn write<'p>(
        &self,
        kind: GitHubRecord,
        release: Release<'_>,
        images: impl IntoIterator<Item = &'p Planned>,
        runner: &Runner,
    ) {
        if let Err(error) = self.try_write(kind, release, images, runner).await {
            let message = format!("cannot write GitHub's record: {}", Diagnostic::of(&error.into()).line());
            runner.annotate(Annotation::new(Level::Warning, message).titled("records"));
        }
    }

    async fn try_write<'p>(
        &self,
        kind: GitHubRecord,
        release: Release<'_>,
        images: impl IntoIterator<Item = &'p Planned>,
        runner: &Runner,
    ) -> Result<(), Error> {
        let github = GitHub::of(&runner.variables, &self.token)?;
        let version = release.version.to_string();
        for planned in images {
            let Some(delivery) = planned.delivery.as_ref().ok().filter(|delivery| delivery.kept().is_none()) else {
                continue;
            };
            let (reference, digest) = (&planned.named.reference, delivery.digest());
            let image = ArtifactInRegistry { reference, digest, version: &version };
            let written = match kind {
                GitHubRecord::Storage => github.record_storage(image).await?,
                // A version that is there already may be older than the current one.
                GitHubRecord::Deployment if delivery.is_done() => false,
                GitHubRecord::Deployment => {
                    let (key, environment) = (planned.named.key.as_str(), release.environment);
                    github.record_deployment(DeployedArtifact { image, key, environment }).await?
                }
            };
            if written {
                runner.say(format!("{}: GitHub has a record of {digest}", planned.named.key));
            }
        }
        Ok(())
    }
}
