//! Evaluates a lifecycle policy against the images of a repository.

use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;

use super::policy::{Criterion, LifecyclePolicy, LifecycleRule, RuleAction};
use oci::Digest;

/// An image in a repository, as ECR describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// The digest.
    pub digest: Digest,
    /// The tags.
    pub tags: Vec<String>,
    /// When the image was pushed. A tag that was added later does not count.
    pub pushed: OffsetDateTime,
    /// When the image was last pulled, if it was.
    pub pulled: Option<OffsetDateTime>,
    /// When it was archived, if it is in the archive.
    pub archived: Option<OffsetDateTime>,
    /// When it was last restored from the archive, if it was.
    pub restored: Option<OffsetDateTime>,
    /// Whether an image index in the repository refers to it. ECR removes it only after the index.
    pub is_in_index: bool,
}

/// Gives a tag to an image of a repository, and takes it from the image that has it. An image that is not in the repository
/// is added, as pushed at this time.
pub fn put_tag(images: &mut Vec<StoredImage>, digest: &Digest, tag: &str, now: OffsetDateTime) {
    for image in images.iter_mut() {
        image.tags.retain(|held| held != tag);
    }
    match images.iter_mut().find(|image| image.digest == *digest) {
        Some(image) => image.tags.push(tag.to_owned()),
        None => images.push(StoredImage {
            digest: digest.clone(),
            tags: vec![tag.to_owned()],
            pushed: now,
            pulled: None,
            archived: None,
            restored: None,
            is_in_index: false,
        }),
    }
}

/// What a policy does to an image, and by which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// The priority of the rule.
    pub priority: u64,
    /// What happens to the image.
    pub action: RuleAction,
}

/// When an image is removed if nothing else happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalTime {
    /// At ECR's next evaluation, within 24 hours.
    Now,
    /// At this time.
    At(OffsetDateTime),
    /// After this number of further images that the rule is about has been pushed. At least one.
    AfterPushes(usize),
}

/// Returns the images that a policy removes at a time.
///
/// Every rule is evaluated against all images, as if no other rule removed one. An image belongs to the first rule that is
/// about it: a later rule cannot remove it, whether or not the first one does.
pub fn removals(policy: &LifecyclePolicy, images: &[StoredImage], at: OffsetDateTime) -> BTreeMap<Digest, Removal> {
    let mut owned: BTreeSet<&Digest> = BTreeSet::new();
    let mut removed = BTreeMap::new();
    for rule in &policy.rules {
        let about: Vec<&StoredImage> = images.iter().filter(|image| is_about(rule, image)).collect();
        for image in selected(rule, &about, at) {
            if !owned.contains(&image.digest) && !image.is_in_index {
                removed.insert(image.digest.clone(), Removal { priority: rule.priority, action: rule.action });
            }
        }
        owned.extend(about.iter().map(|image| &image.digest));
    }
    removed
}

/// Returns the rule that removes an image, and when, assuming that time passes and further images are pushed. Returns `None`
/// if no rule does.
pub fn when_removed<'p>(
    policy: &'p LifecyclePolicy,
    images: &[StoredImage],
    digest: &Digest,
    now: OffsetDateTime,
) -> Option<(&'p LifecycleRule, RemovalTime)> {
    let image = images.iter().find(|image| image.digest == *digest && !image.is_in_index)?;
    // The image belongs to the first rule that is about it.
    let rule = policy.rules.iter().find(|rule| is_about(rule, image))?;
    let time = match rule.criterion {
        Criterion::CountMoreThan(kept) => {
            let is_younger = |other: &&StoredImage| is_about(rule, other) && youth(other) > youth(image);
            match kept.checked_sub(images.iter().filter(is_younger).count()) {
                Some(left @ 1..) => RemovalTime::AfterPushes(left),
                Some(0) | None => RemovalTime::Now,
            }
        }
        Criterion::SincePushed(_) | Criterion::SincePulled(_) | Criterion::SinceArchived(_) => {
            let (since, age) = age_limit(rule.criterion, image)?;
            match since.checked_add(age)? {
                due if due < now => RemovalTime::Now,
                due => RemovalTime::At(due),
            }
        }
    };
    Some((rule, time))
}

fn is_about(rule: &LifecycleRule, image: &StoredImage) -> bool {
    rule.is_of_archive == image.archived.is_some() && rule.is_about(&image.tags)
}

/// The order of images by age. ECR does not document which of two images it takes first if they were pushed at the same
/// time.
fn youth(image: &StoredImage) -> (OffsetDateTime, &Digest) {
    (image.pushed, &image.digest)
}

/// Returns the images that a rule selects by count or age.
fn selected<'i>(rule: &LifecycleRule, about: &[&'i StoredImage], at: OffsetDateTime) -> Vec<&'i StoredImage> {
    if let Criterion::CountMoreThan(kept) = rule.criterion {
        let mut youngest_first = about.to_vec();
        youngest_first.sort_by(|one, other| youth(other).cmp(&youth(one)));
        return youngest_first.split_off(kept.min(youngest_first.len()));
    }
    let is_old = |image: &&&StoredImage| age_limit(rule.criterion, image).is_some_and(|(since, age)| at - since > age);
    about.iter().filter(is_old).copied().collect()
}

/// Returns the time that a criterion counts from, and the age at which it selects an image. An image that was never pulled
/// counts from its restoration or its push.
fn age_limit(criterion: Criterion, image: &StoredImage) -> Option<(OffsetDateTime, time::Duration)> {
    match criterion {
        Criterion::CountMoreThan(_) => None,
        Criterion::SincePushed(age) => Some((image.pushed, age)),
        Criterion::SincePulled(age) => Some((image.pulled.max(image.restored).unwrap_or(image.pushed), age)),
        Criterion::SinceArchived(age) => Some((image.archived?, age)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::Duration;

    use super::super::testing::{NOW, image};
    use super::*;

    fn counted(priority: u64, prefix: &str, kept: u32) -> String {
        format!(
            r#"{{"rulePriority": {priority}, "selection": {{"tagStatus": "tagged", "tagPrefixList": ["{prefix}"],
                "countType": "imageCountMoreThan", "countNumber": {kept}}}, "action": {{"type": "expire"}}}}"#
        )
    }

    fn aged(priority: u64, status: &str, days: u32) -> String {
        format!(
            r#"{{"rulePriority": {priority}, "selection": {{"tagStatus": {status}, "countType": "sinceImagePushed",
                "countUnit": "days", "countNumber": {days}}}, "action": {{"type": "expire"}}}}"#
        )
    }

    fn policy(rules: &[String]) -> LifecyclePolicy {
        LifecyclePolicy::parse(&format!(r#"{{"rules": [{}]}}"#, rules.join(", "))).unwrap()
    }

    /// The names of the images that are removed, with the rule.
    fn removed(rules: &[String], images: &[(&str, StoredImage)]) -> Vec<(String, u64)> {
        let stored: Vec<StoredImage> = images.iter().map(|(_, image)| image.clone()).collect();
        let removals = removals(&policy(rules), &stored, NOW);
        let name =
            |(name, image): &(&str, StoredImage)| Some(((*name).to_owned(), removals.get(&image.digest)?.priority));
        images.iter().filter_map(name).collect()
    }

    fn named<const N: usize>(images: [(&'static str, &[&str], i64); N]) -> [(&'static str, StoredImage); N] {
        images.map(|(name, tags, days)| (name, image(name, tags, days)))
    }

    fn three() -> [(&'static str, StoredImage); 3] {
        named([("A", &["beta-1", "prod-1"], 10), ("B", &["beta-2", "prod-2"], 9), ("C", &["beta-3"], 8)])
    }

    #[test]
    fn the_first_rule_protects_what_it_is_about() {
        let rules = [counted(1, "prod", 1), counted(2, "beta", 1)];
        // The second rule would remove B too, but B belongs to the first one.
        assert_eq!(removed(&rules, &three()), [("A".to_owned(), 1)]);
    }

    #[test]
    fn a_rule_acts_on_images_and_not_on_tags() {
        let rules = [counted(1, "beta", 1), counted(2, "prod", 1)];
        assert_eq!(removed(&rules, &three()), [("A".to_owned(), 1), ("B".to_owned(), 1)]);
    }

    #[test]
    fn ages_count_from_the_push() {
        let images = named([("old", &["dev-1", "prod-1"], 15), ("young", &["dev-2"], 13), ("bare", &[], 20)]);
        let dev = aged(1, r#""tagged", "tagPatternList": ["dev-*"]"#, 14);
        let untagged = aged(2, r#""untagged""#, 30);
        assert_eq!(removed(&[dev.clone(), untagged], &images), [("old".to_owned(), 1)]);
        let any = aged(3, r#""any""#, 14);
        assert_eq!(removed(&[dev, any], &images), [("old".to_owned(), 1), ("bare".to_owned(), 3)]);
    }

    #[test]
    fn manifests_of_an_index_stay_with_it() {
        let mut images = named([("index", &["dev-1"], 3), ("platform", &[], 3)]);
        images[1].1.is_in_index = true;
        assert_eq!(removed(&[aged(1, r#""untagged""#, 1)], &images), []);
        assert_eq!(removed(&[aged(1, r#""any""#, 1)], &images), [("index".to_owned(), 1)]);
    }

    #[test]
    fn archived_images_belong_to_rules_of_the_archive() {
        let archive = r#"{"rulePriority": 1, "selection": {"tagStatus": "any", "countType": "sinceImagePulled",
            "countUnit": "days", "countNumber": 90}, "action": {"type": "transition", "targetStorageClass": "archive"}}"#;
        let delete = r#"{"rulePriority": 2, "selection": {"tagStatus": "any", "storageClass": "archive",
            "countType": "sinceImageTransitioned", "countUnit": "days", "countNumber": 365}, "action": {"type": "expire"}}"#;
        let mut images = named([
            ("idle", &["v1"], 100),
            ("pulled", &["v2"], 100),
            ("restored", &["v3"], 500),
            ("gone", &["v4"], 500),
        ]);
        images[1].1.pulled = Some(NOW - Duration::days(10));
        images[2].1.restored = Some(NOW - Duration::days(10));
        images[3].1.archived = Some(NOW - Duration::days(366));
        let rules = [archive.to_owned(), delete.to_owned()];
        assert_eq!(removed(&rules, &images), [("idle".to_owned(), 1), ("gone".to_owned(), 2)]);
        let policy = policy(&rules);
        let stored: Vec<StoredImage> = images.iter().map(|(_, image)| image.clone()).collect();
        let (rule, time) = when_removed(&policy, &stored, &stored[1].digest, NOW).unwrap();
        assert_eq!((rule.action, time), (RuleAction::Archive, RemovalTime::At(NOW + Duration::days(80))));
    }

    #[test]
    fn the_time_is_told_beforehand() {
        let images = three().map(|(_, image)| image);
        let time = |rules: &[String], position: usize| {
            let policy = policy(rules);
            let (rule, time) = when_removed(&policy, &images, &images[position].digest, NOW)?;
            Some((rule.priority, time))
        };
        let beta = [counted(4, "beta", 2)];
        assert_eq!(time(&beta, 0), Some((4, RemovalTime::Now)));
        assert_eq!(time(&beta, 1), Some((4, RemovalTime::AfterPushes(1))));
        assert_eq!(time(&beta, 2), Some((4, RemovalTime::AfterPushes(2))));
        assert_eq!(time(&[aged(1, r#""any""#, 10)], 2), Some((1, RemovalTime::At(NOW + Duration::days(2)))));
        assert_eq!(time(&[aged(1, r#""any""#, 7)], 2), Some((1, RemovalTime::Now)));
        // Rule 1 is about B and keeps it, so that rule 2 never removes it.
        assert_eq!(time(&[counted(1, "prod", 1), counted(2, "beta", 1)], 1), Some((1, RemovalTime::AfterPushes(1))));
        assert_eq!(time(&[counted(1, "v", 1)], 1), None);
    }

    prop_compose! {
        fn images()(
            drawn in proptest::collection::vec((0_i64..40, proptest::sample::subsequence(vec!["dev-1", "dev-2", "test-1", "prod-1"], 0..=4)), 0..12)
        ) -> Vec<StoredImage> {
            drawn.iter().enumerate().map(|(n, (days, tags))| image(&n.to_string(), tags, *days)).collect()
        }
    }

    fn rules() -> impl Strategy<Value = Vec<String>> {
        let rule = prop_oneof![
            (proptest::sample::select(vec!["dev", "test", "prod", ""]), 1_u32..5)
                .prop_map(|(prefix, kept)| (prefix, kept, true)),
            (proptest::sample::select(vec!["dev", "test", "prod", ""]), 1_u32..40)
                .prop_map(|(prefix, days)| (prefix, days, false)),
        ];
        proptest::collection::vec(rule, 0..4).prop_map(|drawn| {
            drawn
                .iter()
                .enumerate()
                .map(|(n, (prefix, number, is_count))| {
                    let priority = n as u64 + 1;
                    if *is_count {
                        counted(priority, prefix, *number)
                    } else {
                        aged(priority, &format!(r#""tagged", "tagPrefixList": ["{prefix}"]"#), *number)
                    }
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn a_last_rule_never_saves_an_image(images in images(), rules in rules(), number in 1_u32..20) {
            let before = removals(&policy(&rules), &images, NOW);
            let more = [rules, vec![aged(99, r#""any""#, number)]].concat();
            let after = removals(&policy(&more), &images, NOW);
            prop_assert!(before.iter().all(|(digest, removal)| after.get(digest) == Some(removal)));
        }

        #[test]
        fn time_only_removes_more(images in images(), rules in rules(), days in 0_i64..50) {
            let now = removals(&policy(&rules), &images, NOW);
            let later = removals(&policy(&rules), &images, NOW + Duration::days(days));
            prop_assert!(now.keys().all(|digest| later.contains_key(digest)));
        }

        #[test]
        fn what_is_told_beforehand_comes_true(images in images(), rules in rules()) {
            let policy = policy(&rules);
            let now = removals(&policy, &images, NOW);
            for image in &images {
                let told = when_removed(&policy, &images, &image.digest, NOW);
                prop_assert_eq!(
                    now.contains_key(&image.digest),
                    matches!(told, Some((_, RemovalTime::Now))),
                );
                match told {
                    Some((_, RemovalTime::At(time))) => {
                        let moment = Duration::seconds(1);
                        prop_assert!(!removals(&policy, &images, time).contains_key(&image.digest));
                        prop_assert!(removals(&policy, &images, time + moment).contains_key(&image.digest));
                    }
                    Some((rule, RemovalTime::AfterPushes(pushes))) => {
                        // Images with all tags of this one, so that the rule is about them.
                        let push = |n: usize| StoredImage {
                            digest: Digest::of(format!("pushed {n}").as_bytes()),
                            pushed: NOW + Duration::seconds(1),
                            ..image.clone()
                        };
                        let with = |count: usize| [images.clone(), (0..count).map(push).collect()].concat();
                        prop_assert!(!removals(&policy, &with(pushes - 1), NOW).contains_key(&image.digest));
                        let removal = removals(&policy, &with(pushes), NOW);
                        prop_assert_eq!(removal.get(&image.digest).map(|removal| removal.priority), Some(rule.priority));
                    }
                    Some((_, RemovalTime::Now)) | None => {}
                }
            }
        }

        #[test]
        fn at_most_one_rule_takes_an_image_and_protected_ones_stay(images in images(), rules in rules()) {
            let policy = policy(&rules);
            for (digest, removal) in removals(&policy, &images, NOW) {
                let image = images.iter().find(|image| image.digest == digest).unwrap();
                let first = policy.rules.iter().find(|rule| rule.is_about(&image.tags)).unwrap();
                prop_assert_eq!(first.priority, removal.priority);
            }
        }
    }
}
