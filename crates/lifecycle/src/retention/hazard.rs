//! Whether a lifecycle policy may remove an image while an environment holds it.

use std::fmt;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::policy::{Criterion, LifecyclePolicy, LifecycleRule, RuleAction};
use super::{RemovalTime, StoredImage, when_removed};
use oci::Digest;

/// An image that an environment holds, in the repository that its deployment pulls from.
#[derive(Clone, Copy)]
pub struct LiveImage<'a> {
    /// The digest.
    pub digest: &'a Digest,
    /// The environment.
    pub environment: &'a str,
    /// The tag that the deployment pulls.
    pub tag: &'a str,
    /// Whether a tag is of a version in this environment.
    pub is_own: &'a dyn Fn(&str) -> bool,
    /// How many images of this environment have to stay: the current one, and those to roll back to.
    pub kept: usize,
}

/// How a rule removes an image that an environment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hazard {
    /// The priority of the rule.
    pub priority: u64,
    /// Its description, or an empty string.
    pub description: String,
    /// What it does to the image.
    pub action: RuleAction,
    /// When it does this.
    pub time: RemovalTime,
    /// The environment that holds the image.
    pub environment: String,
    /// The image's tag that the rule is about, if the environment does not use that tag. `None` if the rule is about the
    /// environment's own tag, or about all images.
    pub by_tag: Option<String>,
}

/// Returns how a policy removes an image that an environment holds, or `None` if it does not.
///
/// A rule that only counts images of this environment is not a hazard if it keeps enough of them: with each image that is
/// pushed, the environment holds a newer one. A rule that selects by age is a hazard, because an environment may hold an
/// image for any length of time. A rule that is about other tags or about all images is a hazard too, because pushes for
/// other environments bring the removal closer.
pub fn hazard(
    policy: &LifecyclePolicy,
    images: &[StoredImage],
    live: LiveImage<'_>,
    now: OffsetDateTime,
) -> Option<Hazard> {
    let image = images.iter().find(|image| image.digest == *live.digest)?;
    let (rule, time) = when_removed(policy, images, live.digest, now)?;
    let is_about_own_tag = rule.is_about(&[live.tag.to_owned()]);
    let is_about_environment = is_about_own_tag && is_of_environment(rule, images, live);
    if let (Criterion::CountMoreThan(count), true) = (rule.criterion, is_about_environment)
        && count >= live.kept
        && time != RemovalTime::Now
    {
        return None;
    }
    let by_tag = if is_about_own_tag {
        None
    } else {
        image.tags.iter().find(|tag| *tag != live.tag && rule.names(tag)).cloned()
    };
    Some(Hazard {
        priority: rule.priority,
        description: rule.description.clone(),
        action: rule.action,
        time,
        environment: live.environment.to_owned(),
        by_tag,
    })
}

/// Returns whether all images that a rule is about are of the live image's environment: each has one of its tags.
fn is_of_environment(rule: &LifecycleRule, images: &[StoredImage], live: LiveImage<'_>) -> bool {
    let is_own = |tag: &String| *tag == live.tag || (live.is_own)(tag);
    images.iter().filter(|image| rule.is_about(&image.tags)).all(|image| image.tags.iter().any(is_own))
}

impl fmt::Display for Hazard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.action {
            RuleAction::Expire => "deletes",
            RuleAction::Archive => "archives",
        };
        write!(f, "rule {} of the lifecycle policy", self.priority)?;
        if !self.description.is_empty() {
            write!(f, " (`{}`)", self.description)?;
        }
        write!(f, " {verb} it ")?;
        match self.time {
            RemovalTime::Now => f.write_str("within a day")?,
            RemovalTime::At(time) => write!(f, "on {}", time.format(&Rfc3339).unwrap_or_default())?,
            RemovalTime::AfterPushes(1) => f.write_str("after one more push")?,
            RemovalTime::AfterPushes(pushes) => write!(f, "after {pushes} more pushes")?,
        }
        write!(f, ", although {} holds it", self.environment)?;
        match &self.by_tag {
            Some(tag) => write!(f, " (it also has the tag `{tag}`, and a rule acts on the whole image)"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, image};
    use super::*;

    fn rule(priority: u64, selection: &str) -> String {
        format!(
            r#"{{"rulePriority": {priority}, "description": "rule", "selection": {{{selection}}}, "action": {{"type": "expire"}}}}"#
        )
    }

    fn count(pattern: &str, number: u32) -> String {
        format!(
            r#""tagStatus": "tagged", "tagPatternList": ["{pattern}"], "countType": "imageCountMoreThan", "countNumber": {number}"#
        )
    }

    fn said(rules: &[String], images: &[StoredImage], name: &str, tag: &str) -> Option<String> {
        let policy = LifecyclePolicy::parse(&format!(r#"{{"rules": [{}]}}"#, rules.join(", "))).unwrap();
        let digest = Digest::of(name.as_bytes());
        let is_own = |other: &str| match tag.strip_prefix("prod-") {
            Some(_) => other.strip_prefix("prod-").is_some_and(|version| !version.contains('-')),
            None => true,
        };
        let live = LiveImage { digest: &digest, environment: "prod", tag, is_own: &is_own, kept: 3 };
        hazard(&policy, images, live, NOW).map(|hazard| hazard.to_string())
    }

    #[test]
    fn a_rule_for_dev_takes_what_prod_holds() {
        let images = [image("1", &["dev-1", "prod-1"], 3), image("2", &["dev-2"], 2), image("3", &["dev-3"], 1)];
        let dev = rule(1, &count("dev-*", 5));
        insta::assert_snapshot!(
            said(std::slice::from_ref(&dev), &images, "1", "prod-1").unwrap(),
            @"rule 1 of the lifecycle policy (`rule`) deletes it after 3 more pushes, although prod holds it (it also has the tag `dev-1`, and a rule acts on the whole image)"
        );
        // A rule with a lower priority that is about prod's images comes first, and keeps enough of them.
        let prod = rule(1, &count("prod-*", 3));
        let dev = rule(2, &count("dev-*", 5));
        assert_eq!(said(&[prod, dev], &images, "1", "prod-1"), None);
        // One that keeps fewer than a rollback may need does not.
        let prod = rule(1, &count("prod-*", 2));
        assert!(said(&[prod], &images, "1", "prod-1").is_some());
    }

    #[test]
    fn an_age_is_a_hazard_for_an_image_that_stays() {
        let images = [image("1", &["prod-1"], 3)];
        let prod = r#""tagStatus": "any", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 90"#;
        insta::assert_snapshot!(
            said(&[rule(9, prod)], &images, "1", "prod-1").unwrap(),
            @"rule 9 of the lifecycle policy (`rule`) deletes it on 1970-03-29T00:00:00Z, although prod holds it"
        );
    }

    #[test]
    fn counts_of_all_images_are_a_hazard_unless_all_are_of_the_environment() {
        let any = r#""tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 5"#;
        let mixed = [image("1", &["prod-1"], 3), image("2", &["dev-2"], 2)];
        assert!(said(&[rule(1, any)], &mixed, "1", "prod-1").is_some());
        let own = [image("1", &["1.0.0"], 3), image("2", &["1.1.0"], 2)];
        assert_eq!(said(&[rule(1, any)], &own, "1", "1.0.0"), None);
        let many: Vec<StoredImage> = (1..7).map(|n| image(&n.to_string(), &["1.0"], n)).collect();
        assert!(said(&[rule(1, any)], &many, "6", "1.0").unwrap().contains("within a day"));
    }

    #[test]
    fn an_environment_whose_name_begins_alike_is_another() {
        let images = [image("1", &["prod-1"], 3), image("2", &["prod-eu-1"], 2)];
        assert!(said(&[rule(1, &count("prod*", 5))], &images, "1", "prod-1").is_some());
        assert_eq!(said(&[rule(1, &count("prod*", 5))], &images[..1], "1", "prod-1"), None);
        // A tag that moves with the versions of the environment is no other environment's.
        let moving = [image("1", &["prod-1"], 3), image("2", &["prod-2", "prod"], 2)];
        assert_eq!(said(&[rule(1, &count("prod*", 5))], &moving, "1", "prod-1"), None);
    }

    #[test]
    fn an_image_that_no_rule_is_about_stays() {
        let images = [image("1", &["prod-1"], 3)];
        assert_eq!(said(&[rule(1, &count("dev-*", 1))], &images, "1", "prod-1"), None);
        assert_eq!(said(&[], &images, "1", "prod-1"), None);
    }
}
