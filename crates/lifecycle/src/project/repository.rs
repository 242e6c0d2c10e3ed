use super::CreateRepositories;
use crate::Place;
use crate::Problem;
use crate::aws::{Aws, Kind, Mutability, RepositorySettings, prefix_matches};
use crate::oci::{Reference, Tag};
use crate::registry::EcrHost;

/// What is known of a repository before anything is written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repository {
    /// It is there, with what it allows.
    There(Mutability),
    /// It is to be made by this run.
    ToBeMade,
    /// It is of no ECR, or ECR does not tell: what it allows shows at the write.
    Unknown,
}

impl Repository {
    /// Looks at the repository of a reference.
    ///
    /// # Errors
    /// When it is missing and is not to be made, with how to make it; when ECR can't be asked.
    pub async fn of(
        aws: &Aws,
        reference: &Reference,
        create: CreateRepositories,
        place: &Place,
    ) -> anyhow::Result<Self> {
        let Some(host) = EcrHost::parse(&reference.location.to_string()) else { return Ok(Self::Unknown) };
        let name = &reference.repository;
        match aws.mutability(&host, name).await {
            Ok(Some(mutability)) => return Ok(Self::There(mutability)),
            Ok(None) => {}
            // The right to describe is not needed to push.
            Err(error) if error.kind == Kind::Denied => return Ok(Self::Unknown),
            Err(error) => return Err(error.into()),
        }
        let (account, region) = (&host.account, &host.region);
        let missing = Problem::failure(format!("repository `{name}` does not exist in {account}/{region}"));
        let missing = missing.at(place.clone());
        match create {
            CreateRepositories::Missing => Ok(Self::ToBeMade),
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

    /// Whether a tag may move, as far as that is known.
    pub fn allows(&self, tag: &Tag) -> bool {
        match self {
            Self::There(mutability) => mutability.allows(tag),
            Self::ToBeMade | Self::Unknown => true,
        }
    }

    /// Makes it where it is to be made; whether it was.
    ///
    /// # Errors
    /// When ECR refuses it.
    pub async fn make(&self, aws: &Aws, reference: &Reference, settings: &RepositorySettings) -> anyhow::Result<bool> {
        match EcrHost::parse(&reference.location.to_string()) {
            Some(host) if *self == Self::ToBeMade => {
                aws.create_repository(&host, &reference.repository, settings).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}
