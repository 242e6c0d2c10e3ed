use aws_sdk_ecr::types::{ImageIdentifier, ImageTagMutability, ImageTagMutabilityExclusionFilterType};

use super::{Aws, Error, Kind};
use oci::{Digest, RepositoryName, Tag};
use registry::EcrHost;
use wildmatch::WildMatch;

/// Which tags of a repository can be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutability {
    /// Whether a tag that no filter matches can be moved.
    pub mutable: bool,
    /// Wildcard filters of tags for which it is the other way round.
    pub exclusions: Vec<String>,
}

/// What ECR knows of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// When it was pushed, RFC 3339.
    pub at: Option<String>,
    /// Whether it is archived, and so can't be pulled.
    pub archived: bool,
}

impl Mutability {
    /// Whether a tag can be moved.
    pub fn allows(&self, tag: &Tag) -> bool {
        // A filter has no other wildcard than `*`: ECR takes no `?` in it.
        let excluded = self.exclusions.iter().any(|filter| WildMatch::new(filter).matches(tag.as_str()));
        self.mutable != excluded
    }
}

impl Aws {
    /// Which tags of a repository can be moved; none where the repository does not exist.
    ///
    /// # Errors
    /// When that can't be known.
    pub async fn mutability(&self, host: &EcrHost, repository: &RepositoryName) -> Result<Option<Mutability>, Error> {
        let request = self.ecr(&host.region).await?.describe_repositories().registry_id(&host.account);
        let answer = match request.repository_names(repository.as_str()).send().await {
            Ok(answer) => answer,
            Err(error) => {
                let error = Error::of("ecr:DescribeRepositories", &host.repository_arn(repository.as_str()), error);
                return if error.kind == Kind::NotFound { Ok(None) } else { Err(error) };
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

    /// When an image was pushed and whether it is archived; none where ECR does not know it.
    ///
    /// # Errors
    /// When that can't be known.
    pub async fn pushed(
        &self,
        host: &EcrHost,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Pushed>, Error> {
        let image = ImageIdentifier::builder().image_digest(digest.to_string()).build();
        self.described(host, repository, image).await
    }

    /// The same of the image that a tag points to.
    ///
    /// # Errors
    /// When that can't be known.
    pub async fn tagged(
        &self,
        host: &EcrHost,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Pushed>, Error> {
        let image = ImageIdentifier::builder().image_tag(tag.as_str()).build();
        self.described(host, repository, image).await
    }

    async fn described(
        &self,
        host: &EcrHost,
        repository: &RepositoryName,
        image: ImageIdentifier,
    ) -> Result<Option<Pushed>, Error> {
        let request = self.ecr(&host.region).await?.describe_images().registry_id(&host.account);
        match request.repository_name(repository.as_str()).image_ids(image).send().await {
            Ok(answer) => Ok(answer.image_details().first().map(|image| Pushed {
                at: image.image_pushed_at().and_then(|at| at.fmt(aws_smithy_types::date_time::Format::DateTime).ok()),
                archived: image.image_status().is_some_and(|status| status.as_str() == "ARCHIVED"),
            })),
            Err(error) => {
                let error = Error::of("ecr:DescribeImages", &host.repository_arn(repository.as_str()), error);
                if error.kind == Kind::NotFound { Ok(None) } else { Err(error) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_turn_mutability_round() {
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
