use std::collections::BTreeMap;

use aws_sdk_ecr::types::{
    DescribeImagesFilter, ImageIdentifier, ImageStatusFilter, ImageTagMutability, ImageTagMutabilityExclusionFilterType,
};

use super::{Aws, AwsErrorKind, Error};
use oci::{Digest, RepositoryName, Tag};
use registry::EcrHost;
use wildmatch::WildMatch;

/// The tag mutability of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutability {
    /// Whether a tag that matches no filter can be moved.
    pub mutable: bool,
    /// Wildcard filters. For a tag that matches one of them the opposite holds.
    pub exclusions: Vec<String>,
}

/// An image as ECR describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcrImage {
    /// When the image was pushed, in RFC 3339.
    pub pushed_at: Option<String>,
    /// Whether the image is archived. An archived image cannot be pulled.
    pub archived: bool,
}

impl Mutability {
    /// Returns whether a tag can be moved.
    pub fn allows(&self, tag: &Tag) -> bool {
        // ECR supports no wildcard but `*`, and rejects a filter with `?`.
        let excluded = self.exclusions.iter().any(|filter| WildMatch::new(filter).matches(tag.as_str()));
        self.mutable != excluded
    }
}

impl Aws {
    /// Returns the tag mutability of a repository, or `None` if the repository does not exist.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn mutability(&self, host: &EcrHost, repository: &RepositoryName) -> Result<Option<Mutability>, Error> {
        let request = self.ecr(&host.region).await?.describe_repositories().registry_id(&host.account);
        let answer = match request.repository_names(repository.as_str()).send().await {
            Ok(answer) => answer,
            Err(error) => {
                let error = Error::of("ecr:DescribeRepositories", &host.repository_arn(repository.as_str()), error);
                return if error.kind == AwsErrorKind::NotFound { Ok(None) } else { Err(error) };
            }
        };
        let Some(found) = answer.repositories().first() else { return Ok(None) };
        let mutable = !matches!(
            found.image_tag_mutability(),
            Some(ImageTagMutability::Immutable | ImageTagMutability::ImmutableWithExclusion)
        );
        let filters = found.image_tag_mutability_exclusion_filters().iter();
        let exclusions = filters
            .filter(|filter| *filter.filter_type() == ImageTagMutabilityExclusionFilterType::Wildcard)
            .map(|filter| filter.filter().to_owned())
            .collect();
        Ok(Some(Mutability { mutable, exclusions }))
    }

    /// Describes the image with a digest. Returns `None` if ECR does not know it.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn image_by_digest(
        &self,
        host: &EcrHost,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<EcrImage>, Error> {
        let image = ImageIdentifier::builder().image_digest(digest.to_string()).build();
        self.describe_image(host, repository, image).await
    }

    /// Describes the image that a tag points to. Returns `None` if ECR does not know it.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn image_by_tag(
        &self,
        host: &EcrHost,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<EcrImage>, Error> {
        let image = ImageIdentifier::builder().image_tag(tag.as_str()).build();
        self.describe_image(host, repository, image).await
    }

    /// Returns the tags of all archived images in a repository, with their digests.
    ///
    /// # Errors
    /// If a request fails.
    pub async fn archived_tags(
        &self,
        host: &EcrHost,
        repository: &RepositoryName,
    ) -> Result<BTreeMap<Tag, Digest>, Error> {
        let filter = DescribeImagesFilter::builder().image_status(ImageStatusFilter::Archived).build();
        let request = self.ecr(&host.region).await?.describe_images().registry_id(&host.account).filter(filter);
        let mut pages = request.repository_name(repository.as_str()).into_paginator().send();
        let mut tags = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page
                .map_err(|error| Error::of("ecr:DescribeImages", &host.repository_arn(repository.as_str()), error))?;
            for image in page.image_details() {
                let digest: Option<Digest> = image.image_digest().and_then(|digest| digest.parse().ok());
                let of_image = image.image_tags().iter().filter_map(|tag| tag.parse().ok());
                tags.extend(of_image.filter_map(|tag: Tag| Some((tag, digest.clone()?))));
            }
        }
        Ok(tags)
    }

    async fn describe_image(
        &self,
        host: &EcrHost,
        repository: &RepositoryName,
        image: ImageIdentifier,
    ) -> Result<Option<EcrImage>, Error> {
        let request = self.ecr(&host.region).await?.describe_images().registry_id(&host.account);
        match request.repository_name(repository.as_str()).image_ids(image).send().await {
            Ok(answer) => Ok(answer.image_details().first().map(|image| EcrImage {
                pushed_at: image
                    .image_pushed_at()
                    .and_then(|at| at.fmt(aws_smithy_types::date_time::Format::DateTime).ok()),
                archived: image.image_status().is_some_and(|status| status.as_str() == "ARCHIVED"),
            })),
            Err(error) => {
                let error = Error::of("ecr:DescribeImages", &host.repository_arn(repository.as_str()), error);
                if error.kind == AwsErrorKind::NotFound { Ok(None) } else { Err(error) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_invert_mutability() {
        let tag = |text: &str| text.parse::<Tag>().unwrap();
        let immutable = Mutability { mutable: false, exclusions: vec!["latest".into(), "dev-*".into()] };
        for (text, allowed) in [("latest", true), ("latest2", false), ("dev-1", true), ("test-1", false)] {
            assert_eq!(immutable.allows(&tag(text)), allowed, "{text}");
        }
        let mutable = Mutability { mutable: true, exclusions: vec!["*-1.*.0".into()] };
        assert!(!mutable.allows(&tag("prod-1.2.0")));
        assert!(mutable.allows(&tag("prod-1.2.1")));
        assert!(mutable.allows(&tag("1.2.0")));
    }
}
