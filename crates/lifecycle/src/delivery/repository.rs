//! Whether a target's repository exists, and how it is created.

use crate::ActionError;
use crate::SourceLocation;
use crate::aws::{Aws, Kind, RepositorySettings, prefix_matches};
use crate::inputs::{CreateRepositories};
use oci::Reference;
use registry::EcrHost;

/// What is known about a repository before anything is written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryState {
    /// It exists.
    Exists,
    /// It is missing, and this run creates it.
    ToBeCreated,
    /// It is not in ECR, ECR does not say, or nobody had to ask: the first write shows it.
    Unknown,
}

impl RepositoryState {
    /// Looks up the repository of a reference.
    ///
    /// # Errors
    /// When it is missing and must not be created, with how to create it; when ECR cannot be asked.
    pub async fn of(
        aws: &Aws,
        reference: &Reference,
        create: CreateRepositories,
        place: &SourceLocation,
    ) -> anyhow::Result<Self> {
        let Some(host) = EcrHost::parse(&reference.location.to_string()) else { return Ok(Self::Unknown) };
        let name = &reference.repository;
        match aws.mutability(&host, name).await {
            Ok(Some(_)) => return Ok(Self::Exists),
            Ok(None) => {}
            // The right to describe is not needed to push.
            Err(error) if error.kind == Kind::Denied => return Ok(Self::Unknown),
            Err(error) => return Err(error.into()),
        }
        let (account, region) = (&host.account, &host.region);
        let missing = ActionError::failure(format!("repository `{name}` does not exist in {account}/{region}"));
        let missing = missing.at(place.clone());
        match create {
            CreateRepositories::Missing => Ok(Self::ToBeCreated),
            CreateRepositories::Never => {
                let command = format!("aws ecr create-repository --region {region} --repository-name {name}");
                Err(missing.hint(format!("set `create-repositories: missing`, or create it: {command}")).into())
            }
            CreateRepositories::Template => {
                let prefixes = aws.create_on_push_prefixes(&host).await?;
                if prefixes.iter().any(|prefix| prefix_matches(prefix, name)) {
                    return Ok(Self::Unknown);
                }
                let known = if prefixes.is_empty() { "none".to_owned() } else { prefixes.join(", ") };
                let hint = format!("no repository creation template for create on push matches it (prefixes: {known})");
                Err(missing.hint(hint).into())
            }
        }
    }

    /// Creates it if that is left to this run; returns whether it did.
    ///
    /// # Errors
    /// When ECR refuses it.
    pub async fn create(self, aws: &Aws, reference: &Reference, settings: &RepositorySettings) -> anyhow::Result<bool> {
        match EcrHost::parse(&reference.location.to_string()) {
            Some(host) if self == Self::ToBeCreated => {
                aws.create_repository(&host, &reference.repository, settings).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}
