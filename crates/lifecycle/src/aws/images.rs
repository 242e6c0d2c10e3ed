//! The images of a repository, and the lifecycle policy that removes them.

use aws_sdk_ecr::types::ImageDetail;
use time::OffsetDateTime;

use super::{Aws, AwsErrorKind, Error};
use crate::retention::StoredImage;
use oci::RepositoryName;
use registry::EcrHost;

/// The maximum number of images on a page: the service's own limit.
const PAGE: i32 = 1000;

/// The maximum number of pages that are read of one repository. ECR allows 20,000 images by default.
const PAGES: usize = 100;

impl Aws {
    /// Returns the text of a repository's lifecycle policy, or `None` if it has none.
    ///
    /// # Errors
    /// If the request fails, or the repository does not exist.
    pub async fn lifecycle_policy(&self, host: &EcrHost, repository: &RepositoryName) -> Result<Option<String>, Error> {
        let request = self.ecr(&host.region).await?.get_lifecycle_policy().registry_id(&host.account);
        match request.repository_name(repository.as_str()).send().await {
            Ok(answer) => Ok(answer.lifecycle_policy_text().map(str::to_owned)),
            Err(error) if super::error::code(&error).as_deref() == Some("LifecyclePolicyNotFoundException") => Ok(None),
            Err(error) => Err(Error::of("ecr:GetLifecyclePolicy", &host.repository_arn(repository.as_str()), error)),
        }
    }

    /// Returns the images of a repository, without referrers, which ECR removes with their subject.
    ///
    /// # Errors
    /// If a request fails, or there are too many images.
    pub async fn stored_images(&self, host: &EcrHost, repository: &RepositoryName) -> Result<Vec<StoredImage>, Error> {
        let (client, arn) = (self.ecr(&host.region).await?, host.repository_arn(repository.as_str()));
        let (mut images, mut next) = (Vec::new(), None);
        for _ in 0..PAGES {
            let request = client.describe_images().registry_id(&host.account).repository_name(repository.as_str());
            let request = request.max_results(PAGE).set_next_token(next.take());
            let answer = request.send().await.map_err(|error| Error::of("ecr:DescribeImages", &arn, error))?;
            images.extend(answer.image_details().iter().filter_map(stored));
            match answer.next_token {
                Some(token) => next = Some(token),
                None => return Ok(images),
            }
        }
        let limit = PAGES * usize::try_from(PAGE).unwrap_or_default();
        Err(Error::new(AwsErrorKind::Other, format!("{arn} has more than {limit} images")))
    }
}

/// Converts an image of ECR. Returns `None` for a referrer, or if ECR does not say which image it is or when it was pushed.
fn stored(detail: &ImageDetail) -> Option<StoredImage> {
    let is_archived = detail.image_status().is_some_and(|status| status.as_str() == "ARCHIVED");
    let pushed = time(detail.image_pushed_at())?;
    if detail.subject_manifest_digest().is_some() {
        return None;
    }
    Some(StoredImage {
        digest: detail.image_digest()?.parse().ok()?,
        tags: detail.image_tags().to_vec(),
        pushed,
        pulled: time(detail.last_recorded_pull_time()),
        archived: is_archived.then(|| time(detail.last_archived_at()).unwrap_or(pushed)),
        restored: time(detail.last_activated_at()),
        is_in_index: false,
    })
}

fn time(time: Option<&aws_smithy_types::DateTime>) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(time?.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn referrers_are_no_images_of_their_own() {
        let at = aws_smithy_types::DateTime::from_secs(1_700_000_000);
        let digest = format!("sha256:{}", "0".repeat(64));
        let image = ImageDetail::builder().image_digest(&digest).image_tags("dev-1").image_pushed_at(at);
        let plain = stored(&image.clone().build()).unwrap();
        assert_eq!(
            (plain.pushed.unix_timestamp(), plain.tags, plain.archived),
            (1_700_000_000, vec!["dev-1".into()], None)
        );
        assert_eq!(stored(&image.clone().subject_manifest_digest(&digest).build()), None);
        let archived = image.image_status("ARCHIVED".into()).last_archived_at(at).build();
        assert_eq!(stored(&archived).unwrap().archived.map(OffsetDateTime::unix_timestamp), Some(1_700_000_000));
    }
}
