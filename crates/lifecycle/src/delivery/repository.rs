//! Checks whether a target's repository exists, and creates it.

use crate::ActionError;
use crate::aws::{Aws, AwsErrorKind, RepositorySettings, prefix_matches};
use crate::inputs::{CreateRepositories, WritingOptions};
use crate::naming::Named;
use registry::EcrHost;

/// What is known about a repository before anything is written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryState {
    /// It exists.
    Exists,
    /// It is missing, and this run creates it.
    ToBeCreated,
    /// Unknown: it is not in ECR, could not be looked up, or need not be. The first write will show.
    Unknown,
}

impl RepositoryState {
    /// Looks up the repository of a reference.
    ///
    /// # Errors
    /// If the repository is missing and must not be created; the hint shows how to create it. If there are no such settings
    /// for it. If the request fails.
    pub async fn of(aws: &Aws, named: &Named, writing: &WritingOptions) -> anyhow::Result<Self> {
        let Named { reference, source_location, .. } = named;
        let Some(host) = EcrHost::parse(&reference.location.to_string()) else { return Ok(Self::Unknown) };
        let name = &reference.repository;
        match aws.mutability(&host, name).await {
            Ok(Some(_)) => return Ok(Self::Exists),
            Ok(None) => {}
            // A role that may push need not be allowed to describe repositories.
            Err(error) if error.kind == AwsErrorKind::Denied => return Ok(Self::Unknown),
            Err(error) => return Err(error.into()),
        }
        let (account, region) = (&host.account, &host.region);
        let missing = ActionError::failure(format!("repository `{name}` does not exist in {account}/{region}"));
        let missing = missing.at(source_location.clone());
        match writing.create_repositories {
            CreateRepositories::Missing => {
                settings(named, &writing.repository_settings)?;
                Ok(Self::ToBeCreated)
            }
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

    /// Creates the repository if its state is [`Self::ToBeCreated`]. Returns whether it did.
    ///
    /// # Errors
    /// If ECR refuses, or there are no such settings for it.
    pub async fn create(self, aws: &Aws, named: &Named, given: &RepositorySettings) -> anyhow::Result<bool> {
        match EcrHost::parse(&named.reference.location.to_string()) {
            Some(host) if self == Self::ToBeCreated => {
                aws.create_repository(&host, &named.reference.repository, &settings(named, given)?).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// Returns the settings of the repository of an image.
fn settings(named: &Named, given: &RepositorySettings) -> Result<RepositorySettings, ActionError> {
    given.made_for(&named.pattern).ok_or_else(|| {
        let (key, name) = (&named.key, &named.reference);
        let message = format!("no lifecycle policy is safe for image `{key}`: its name `{name}` moves from version to version, and only untagged images are left to roll back to");
        let error = ActionError::failure(message).at(named.source_location.clone());
        error.hint("put the version into the tag, or remove `lifecycle: safe` from `repository-settings`")
    })
}
