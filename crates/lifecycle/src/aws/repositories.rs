//! Creates missing repositories, and reads the registry's own templates that create them.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use aws_sdk_ecr::types::{
    EncryptionConfiguration, EncryptionType, ImageScanningConfiguration, ImageTagMutability,
    ImageTagMutabilityExclusionFilter, ImageTagMutabilityExclusionFilterType, RctAppliedFor, Tag,
};
use serde::Deserialize;

use super::{Aws, AwsErrorKind, Error};
use crate::retention::safe_policy;
use crate::workspace;
use cfn_images::NamePattern;
use oci::RepositoryName;
use registry::EcrHost;
use runner_protocol::{Input, InputError};

/// The largest policy that is read from a file, in bytes; ECR's own limits are lower.
const POLICY_LIMIT: u64 = 1024 * 1024;

/// The settings of a repository that is created: the input `repository-settings`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RepositorySettings {
    mutability: Option<String>,
    exclusion_filters: Vec<String>,
    scan_on_push: Option<bool>,
    encryption: Option<String>,
    kms_key: Option<String>,
    lifecycle: Option<String>,
    lifecycle_policy: Option<String>,
    repository_policy: Option<String>,
    tags: BTreeMap<String, String>,
}

/// The most exclusion filters of one repository; ECR's own limit.
const FILTERS: usize = 5;

impl RepositorySettings {
    /// Parses the input, which is YAML. Reads the files that `lifecyclePolicy` and `repositoryPolicy` name; `inside`
    /// resolves their paths.
    ///
    /// # Errors
    /// If the input is not such YAML, a value is not one of ECR's, or a file cannot be read or lies outside the
    /// checkout.
    pub fn parse(input: &Input<'_>, inside: impl Fn(&str) -> io::Result<PathBuf>) -> Result<Self, InputError> {
        let Some(text) = input.text() else { return Ok(Self::default()) };
        let value = cfn_images::yaml_to_json(text).map_err(|problem| input.refuse(format!("YAML ({problem})")))?;
        // serde would accept a list as the fields in their order.
        if !value.is_object() {
            return Err(input.refuse("YAML with settings by name, as in `mutability: IMMUTABLE`"));
        }
        let mut settings: Self = serde_json::from_value(value).map_err(|error| input.refuse(error))?;
        let words = ["MUTABLE", "IMMUTABLE", "MUTABLE_WITH_EXCLUSION", "IMMUTABLE_WITH_EXCLUSION"];
        one_of(input, settings.mutability.as_deref(), &words)?;
        one_of(input, settings.encryption.as_deref(), &["AES256", "KMS", "KMS_DSSE"])?;
        one_of(input, settings.lifecycle.as_deref(), &["safe"])?;
        if settings.lifecycle.is_some() && settings.lifecycle_policy.is_some() {
            return Err(input.refuse("`lifecycle` or `lifecyclePolicy`, and not both"));
        }
        let excludes = settings.mutability.as_deref().is_some_and(|word| word.ends_with("_WITH_EXCLUSION"));
        if excludes == settings.exclusion_filters.is_empty() || settings.exclusion_filters.len() > FILTERS {
            let accepted =
                format!("`exclusionFilters`, at most {FILTERS}, with a mutability `…_WITH_EXCLUSION`, and not without");
            return Err(input.refuse(accepted));
        }
        for policy in [&mut settings.lifecycle_policy, &mut settings.repository_policy].into_iter().flatten() {
            let text = inside(policy)
                .and_then(|path| workspace::read(&path, POLICY_LIMIT))
                .map_err(|error| input.refuse_value(policy, format!("a file that can be read ({error})")))?;
            serde_json::from_str::<serde::de::IgnoredAny>(&text)
                .map_err(|error| input.refuse_value(policy, format!("a policy in JSON ({error})")))?;
            *policy = text;
        }
        Ok(settings)
    }

    /// Returns the settings of a repository whose images have this name: with `lifecycle: safe`, the policy is made for it.
    /// Returns `None` if there is no safe policy for the name.
    pub fn made_for(&self, name: &NamePattern) -> Option<Self> {
        if self.lifecycle.is_none() {
            return Some(self.clone());
        }
        Some(Self { lifecycle_policy: Some(safe_policy(name)?), ..self.clone() })
    }
}

impl RepositorySettings {
    /// Returns the key of the account's own that repositories are encrypted with.
    pub(crate) fn kms_key(&self) -> Option<&str> {
        self.kms_key.as_deref()
    }

    /// Returns whether creating a repository with these settings takes an action.
    pub(crate) fn uses(&self, action: &str) -> bool {
        match action {
            "ecr:PutLifecyclePolicy" => self.lifecycle_policy.is_some(),
            "ecr:SetRepositoryPolicy" => self.repository_policy.is_some(),
            "ecr:TagResource" => !self.tags.is_empty(),
            _ => true,
        }
    }
}

fn one_of(input: &Input<'_>, word: Option<&str>, words: &[&str]) -> Result<(), InputError> {
    match word.filter(|word| !words.contains(word)) {
        Some(word) => Err(input.refuse_value(word, format!("one of {}", words.join(", ")))),
        None => Ok(()),
    }
}

impl Aws {
    /// Creates a missing repository and sets its policies. If it has been created in the meantime, only the policies
    /// are set.
    ///
    /// # Errors
    /// If ECR refuses the repository or a policy. If only a policy was refused, the message names the incomplete
    /// repository.
    pub async fn create_repository(
        &self,
        host: &EcrHost,
        name: &RepositoryName,
        settings: &RepositorySettings,
    ) -> Result<(), Error> {
        let ecr = self.ecr(&host.region).await?;
        let arn = host.repository_arn(name.as_str());
        let mut request = ecr.create_repository().registry_id(&host.account).repository_name(name.as_str());
        if let Some(mutability) = &settings.mutability {
            request = request.image_tag_mutability(ImageTagMutability::from(mutability.as_str()));
        }
        for filter in &settings.exclusion_filters {
            let filter = ImageTagMutabilityExclusionFilter::builder()
                .filter_type(ImageTagMutabilityExclusionFilterType::Wildcard)
                .filter(filter)
                .build()
                .map_err(|error| Error::new(AwsErrorKind::Other, "a filter can't be sent").because(error))?;
            request = request.image_tag_mutability_exclusion_filters(filter);
        }
        if let Some(scan) = settings.scan_on_push {
            let scanning = ImageScanningConfiguration::builder().scan_on_push(scan).build();
            request = request.image_scanning_configuration(scanning);
        }
        if let Some(encryption) = &settings.encryption {
            let encryption = EncryptionConfiguration::builder()
                .encryption_type(EncryptionType::from(encryption.as_str()))
                .set_kms_key(settings.kms_key.clone())
                .build()
                .map_err(|error| Error::new(AwsErrorKind::Other, "the encryption can't be sent").because(error))?;
            request = request.encryption_configuration(encryption);
        }
        for (key, value) in &settings.tags {
            let tag = Tag::builder().key(key).value(value).build();
            request = request
                .tags(tag.map_err(|error| Error::new(AwsErrorKind::Other, "a tag can't be sent").because(error))?);
        }
        if let Err(error) = request.send().await {
            let error = Error::of("ecr:CreateRepository", &arn, error);
            // It was missing a moment ago. Either a retry of the SDK lost the first response, or a concurrent job
            // created it.
            if error.kind != AwsErrorKind::Exists {
                return Err(error);
            }
        }
        let mut failures = Vec::new();
        if let Some(text) = &settings.lifecycle_policy {
            let request = ecr.put_lifecycle_policy().registry_id(&host.account).repository_name(name.as_str());
            let answer = request.lifecycle_policy_text(text).send().await;
            let failed = |error| ("lifecycle", Error::of("ecr:PutLifecyclePolicy", &arn, error));
            failures.extend(answer.map_err(failed).err());
        }
        if let Some(text) = &settings.repository_policy {
            let request = ecr.set_repository_policy().registry_id(&host.account).repository_name(name.as_str());
            let answer = request.policy_text(text).send().await;
            let failed = |error| ("repository", Error::of("ecr:SetRepositoryPolicy", &arn, error));
            failures.extend(answer.map_err(failed).err());
        }
        let policies: Vec<&str> = failures.iter().map(|(policy, _)| *policy).collect();
        let policies = policies.join(" and its ");
        match failures.into_iter().next() {
            None => Ok(()),
            Some((_, error)) => Err(incomplete_repository(&policies, host, name, error)),
        }
    }

    /// Returns the prefixes of the creation templates that create a repository at its first push.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn create_on_push_prefixes(&self, host: &EcrHost) -> Result<Vec<String>, Error> {
        let ecr = self.ecr(&host.region).await?;
        let mut pages = ecr.describe_repository_creation_templates().into_paginator().send();
        let mut prefixes = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| {
                Error::of(
                    "ecr:DescribeRepositoryCreationTemplates",
                    &format!("{}/{}", host.account, host.region),
                    error,
                )
            })?;
            let on_push = |applied: &RctAppliedFor| applied.as_str() == "CREATE_ON_PUSH";
            let templates = page.repository_creation_templates().iter();
            let templates = templates.filter(|template| template.applied_for().iter().any(on_push));
            prefixes.extend(templates.filter_map(|template| template.prefix().map(str::to_owned)));
        }
        Ok(prefixes)
    }
}

/// Creates the error for a repository without its policies. The next run would find the repository and not set them, so
/// the hint says to delete it.
fn incomplete_repository(policies: &str, host: &EcrHost, name: &RepositoryName, error: Error) -> Error {
    let (account, region) = (&host.account, &host.region);
    let message = format!("repository `{name}` was made in {account}/{region}, without its {policies} policy");
    let allow = error.hint.as_ref().map(|hint| format!("{hint}, then ")).unwrap_or_default();
    let hint = format!(
        "{allow}delete it, so that the next run makes it whole: aws ecr delete-repository --region {region} --repository-name {name}"
    );
    Error::new(error.kind, message).hint(hint).because(error)
}

/// Returns whether a template's prefix matches a repository. `ROOT` matches every one, `team` matches `team/service`.
pub fn prefix_matches(prefix: &str, name: &RepositoryName) -> bool {
    let rest = name.as_str().strip_prefix(prefix.trim_end_matches('/'));
    prefix == "ROOT" || rest.is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(typed: &str) -> Result<RepositorySettings, String> {
        let inside = |path: &str| Ok(PathBuf::from("/").join(path));
        RepositorySettings::parse(&Input::new("repository-settings", typed), inside).map_err(|e| e.to_string())
    }

    #[test]
    fn settings() {
        let read = parse("mutability: IMMUTABLE_WITH_EXCLUSION\nexclusionFilters: [latest, 'dev-*']\nscanOnPush: true\ntags:\n  team: a\n").unwrap();
        assert_eq!(read.exclusion_filters, ["latest", "dev-*"]);
        assert_eq!(read.scan_on_push, Some(true));
        assert_eq!(read.tags["team"], "a");
        assert_eq!(parse("").unwrap(), RepositorySettings::default());
    }

    #[test]
    fn mistakes_are_named() {
        for (typed, named) in [
            ("mutability: SOMETIMES", "SOMETIMES"),
            ("exclusionFilters: [a]", "WITH_EXCLUSION"),
            ("mutability: IMMUTABLE_WITH_EXCLUSION", "exclusionFilters"),
            ("scanonpush: true", "scanOnPush"),
            ("lifecycle: none", "safe"),
            ("lifecycle: safe\nlifecyclePolicy: a.json", "and not both"),
            ("lifecyclePolicy: no/such/file.json", "no/such/file.json"),
            ("- a", "repository-settings"),
            ("a: [", "YAML"),
        ] {
            let error = parse(typed).unwrap_err();
            assert!(error.contains(named), "{typed}: {error}");
        }
    }

    #[test]
    fn prefixes() {
        let name: RepositoryName = "team/service".parse().unwrap();
        for (prefix, matches) in
            [("ROOT", true), ("team", true), ("team/", true), ("tea", false), ("team/service", false)]
        {
            assert_eq!(prefix_matches(prefix, &name), matches, "{prefix}");
        }
    }
}
