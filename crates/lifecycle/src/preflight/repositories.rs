//! The repositories of the target: whether they exist or come into being, and whether the tags may be written.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt};

use super::check::{Check, CheckStatus, Side};
use super::scope::{PlannedRun, Registry};
use crate::Diagnostic;
use crate::aws::{Error, RepositoryDescription, prefix_matches};
use crate::inputs::CreateRepositories;
use oci::RepositoryName;

/// The repositories of a registry, as ECR describes them.
pub(super) struct Repositories<'a> {
    described: BTreeMap<&'a RepositoryName, Result<Option<RepositoryDescription>, Error>>,
    /// The prefixes of the templates that create repositories, if a repository is missing and one should.
    templates: Option<Result<Vec<String>, Error>>,
}

impl<'a> Repositories<'a> {
    pub(super) async fn read(run: &PlannedRun<'_>, registry: &Registry<'a>) -> Repositories<'a> {
        let (aws, host) = (&registry.access.aws, &registry.host);
        let described =
            registry.repositories.keys().map(|name| async move { (*name, aws.describe_repository(host, name).await) });
        let described: Vec<_> = described.collect();
        let described: BTreeMap<_, _> = stream::iter(described).buffered(run.concurrency).collect().await;
        let is_missing = described.values().any(|found| matches!(found, Ok(None)));
        let templates = match run.create {
            CreateRepositories::Template if is_missing => Some(aws.create_on_push_prefixes(host).await),
            _ => None,
        };
        Self { described, templates }
    }

    /// Returns the repositories that exist.
    pub(super) fn existing(&self) -> impl Iterator<Item = (&'a RepositoryName, &RepositoryDescription)> {
        self.described.iter().filter_map(|(name, found)| Some((*name, found.as_ref().ok()?.as_ref()?)))
    }

    /// Returns the repositories that do not exist.
    pub(super) fn missing_names(&self) -> impl Iterator<Item = &'a RepositoryName> {
        self.described.iter().filter(|(_, found)| matches!(found, Ok(None))).map(|(name, _)| *name)
    }

    pub(super) fn checks(&self, run: &PlannedRun<'_>, registry: &Registry<'_>) -> Vec<Check> {
        let checks = self.described.iter().map(|(name, found)| match found {
            Ok(Some(described)) => existing(registry, name, described),
            Ok(None) => self.missing(run, registry, name),
            Err(error) => Check::unknown(
                "repository",
                registry.about([*name]),
                ("ecr:DescribeRepositories", registry.arn(name)),
                error,
            ),
        });
        checks.collect()
    }

    fn missing(&self, run: &PlannedRun<'_>, registry: &Registry<'_>, name: &RepositoryName) -> Check {
        let about = registry.about([name]);
        let (account, region) = (&registry.host.account, &registry.host.region);
        let missing = format!("it does not exist in {account}/{region}");
        match (run.create, &self.templates) {
            (CreateRepositories::Missing, _) => {
                Check::new("repository", about, CheckStatus::Passed, format!("{missing}; this run creates it"))
            }
            (CreateRepositories::Never, _) => {
                let command = format!("aws ecr create-repository --region {region} --repository-name {name}");
                Check::new("repository", about, CheckStatus::Failed, missing)
                    .remedy(format!("set `create-repositories: missing`, or create it: {command}"))
            }
            (CreateRepositories::Template, Some(Ok(prefixes))) => {
                match prefixes.iter().filter(|prefix| prefix_matches(prefix, name)).max_by_key(|prefix| prefix.len()) {
                    Some(prefix) => {
                        let detail =
                            format!("{missing}; the creation template `{prefix}` creates it at the first push");
                        Check::new("repository", about, CheckStatus::Passed, detail)
                    }
                    None => {
                        let known = if prefixes.is_empty() { "none".to_owned() } else { prefixes.join(", ") };
                        let detail = format!(
                            "{missing}, and no creation template for create on push matches it (prefixes: {known})"
                        );
                        let first = name.as_str().split('/').next().unwrap_or_default();
                        let remedy = format!(
                            "aws ecr create-repository-creation-template --region {region} --applied-for CREATE_ON_PUSH --prefix {first}"
                        );
                        Check::new("repository", about, CheckStatus::Failed, detail).remedy(remedy)
                    }
                }
            }
            (CreateRepositories::Template, Some(Err(error))) => {
                Check::unknown("repository", about, ("ecr:DescribeRepositoryCreationTemplates", "*".to_owned()), error)
            }
            (CreateRepositories::Template, None) => Check::new("repository", about, CheckStatus::Unknown, missing),
        }
    }
}

/// Checks that the tags that a run moves can be moved.
fn existing(registry: &Registry<'_>, name: &RepositoryName, described: &RepositoryDescription) -> Check {
    let about = registry.about([name]);
    let deliveries = registry.images(name).filter_map(|image| image.delivery.as_ref().ok());
    let moved = deliveries.flat_map(|delivery| delivery.written_tags().filter(|plan| plan.current.is_some()));
    let fixed: Vec<String> =
        moved.filter(|plan| !described.mutability.allows(&plan.tag)).map(|plan| plan.tag.to_string()).collect();
    if !fixed.is_empty() {
        let detail = format!("its tags are immutable, and hold another digest: {}", fixed.join(", "));
        let remedy = "exclude the tags from the repository's immutability, or leave them out";
        return Check::new("repository", about, CheckStatus::Failed, detail).remedy(remedy);
    }
    let tags = match (described.mutability.mutable, described.mutability.exclusions.is_empty()) {
        (true, true) => "tags can be moved".to_owned(),
        (true, false) => format!("tags can be moved, except {}", described.mutability.exclusions.join(", ")),
        (false, true) => "tags are immutable".to_owned(),
        (false, false) => format!("tags are immutable, except {}", described.mutability.exclusions.join(", ")),
    };
    let key = described.kms_key.as_ref().map(|key| format!(" with the key `{key}`")).unwrap_or_default();
    let detail = format!("it exists; {tags}; encrypted by {}{key}", described.encryption);
    Check::new("repository", about, CheckStatus::Passed, detail)
}

/// Returns a check for each image that could not be planned, unless a check of its repository has failed.
pub(super) fn failed_images(run: &PlannedRun<'_>, checks: &[Check]) -> Vec<Check> {
    let failed = run.images.iter().filter_map(|image| {
        let diagnostic = Diagnostic::of(image.delivery.as_ref().err()?);
        let repository = image.named.reference.repository.as_str();
        let is_told = checks.iter().any(|check| {
            check.status == CheckStatus::Failed
                && check.check == "repository"
                && check.side == Side::Target
                && check.subject == repository
        });
        if is_told {
            return None;
        }
        let check = Check::new("image", (Side::Target, &image.named.key), CheckStatus::Failed, diagnostic.message);
        Some(match diagnostic.hint {
            Some(hint) => check.remedy(hint),
            None => check,
        })
    });
    failed.collect()
}
