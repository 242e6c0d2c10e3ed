//! The lifecycle policy that is safe for a template's names.

use cfn_images::NamePattern;

/// The age at which an untagged image expires, in days. A deployment that pulls by digest has until then to move on from an
/// image that lost its tag.
const UNTAGGED_DAYS: u32 = 30;

/// Returns the text of a policy that removes no image that an environment holds or can roll back to, if images have this
/// name. Only old images without a tag expire: a rule acts on an image with all of its tags, so that a rule for one
/// environment's tags would also delete what another environment holds. Returns `None` if the name moves from version to
/// version, because the image that it leaves has no tag but can still be rolled back to.
pub fn safe_policy(name: &NamePattern) -> Option<String> {
    let keeps_its_tag = name.tag_is_of_version() || name.tag_is_of_build();
    let policy = serde_json::json!({"rules": [{
        "rulePriority": 1,
        "description": "Old images without a tag. What an environment holds or has held has one.",
        "selection": {
            "tagStatus": "untagged",
            "countType": "sinceImagePushed",
            "countUnit": "days",
            "countNumber": UNTAGGED_DAYS,
        },
        "action": {"type": "expire"},
    }]});
    keeps_its_tag.then(|| policy.to_string())
}

#[cfg(test)]
mod tests {
    use cfn_images::{TracedText, Version};
    use proptest::prelude::*;
    use time::Duration;

    use super::super::testing::{NOW, image};
    use super::super::{LifecyclePolicy, LiveImage, StoredImage, hazard, removals};
    use super::*;

    fn name(text: &str) -> NamePattern {
        NamePattern::of(&TracedText::fill(text, Some("prod"), Some(&Version::new(1, 0, 0)), &[]))
    }

    #[test]
    fn a_name_that_moves_has_no_safe_policy() {
        assert!(safe_policy(&name("host/shop/api:{environment}-{version}")).is_some());
        for moving in ["host/shop/api:{environment}", "host/shop/api:stable", "host/shop/api"] {
            assert_eq!(safe_policy(&name(moving)), None, "{moving}");
        }
    }

    prop_compose! {
        fn stored()(
            days in 0_i64..2000,
            tags in proptest::sample::subsequence(vec!["dev-1.0.0", "dev-1.1.0", "test-1.0.0", "prod-1.0.0", "prod"], 0..=5),
            pulled in proptest::option::of(0_i64..2000),
            archived in proptest::option::weighted(0.2, 0_i64..2000),
        ) -> (i64, Vec<&'static str>, Option<i64>, Option<i64>) {
            (days, tags, pulled, archived)
        }
    }

    proptest! {
        #[test]
        fn no_live_image_is_ever_removed(drawn in proptest::collection::vec(stored(), 0..20), later in 0_i64..5000) {
            let policy = safe_policy(&name("host/shop/api:{environment}-{version}")).unwrap();
            let policy = LifecyclePolicy::parse(&policy).unwrap();
            let ago = |days| NOW - Duration::days(days);
            let images: Vec<StoredImage> = drawn.iter().enumerate().map(|(n, (days, tags, pulled, archived))| StoredImage {
                pulled: pulled.map(ago),
                archived: archived.map(ago),
                ..image(&n.to_string(), tags, *days)
            }).collect();
            let removed = removals(&policy, &images, NOW + Duration::days(later));
            for image in &images {
                let is_old = NOW + Duration::days(later) - image.pushed > Duration::days(UNTAGGED_DAYS.into());
                let is_garbage = image.tags.is_empty() && image.archived.is_none();
                prop_assert_eq!(removed.contains_key(&image.digest), is_garbage && is_old);
                for tag in &image.tags {
                    let is_own = |other: &str| other.starts_with("prod");
                    let live = LiveImage { digest: &image.digest, environment: "prod", tag, is_own: &is_own, kept: 3 };
                    prop_assert_eq!(hazard(&policy, &images, live, NOW), None);
                }
            }
        }
    }
}
