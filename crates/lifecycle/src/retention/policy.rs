//! Lifecycle policies, as their JSON text describes them.

use serde::Deserialize;
use time::Duration;
use wildmatch::WildMatchPattern;

/// The maximum number of wildcards in a pattern.
const WILDCARDS: usize = 4;

/// Why a policy cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The text is not a policy.
    #[error("the lifecycle policy cannot be read")]
    Syntax(#[from] serde_json::Error),
    /// A rule is not one that ECR documents, or is of an unknown kind.
    #[error("rule {priority} of the lifecycle policy {reason}")]
    Rule {
        /// The rule's priority.
        priority: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// A lifecycle policy: its rules by ascending priority, which is the order in which they are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecyclePolicy {
    /// The rules.
    pub rules: Vec<LifecycleRule>,
}

/// A rule: which images it is about, which of these it removes, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecycleRule {
    /// The priority. The lowest is applied first.
    pub priority: u64,
    /// The description, or an empty string.
    pub description: String,
    /// The tags of the images.
    pub(super) tags: TagCondition,
    /// Whether the rule is about archived images. Otherwise it is about active ones.
    pub(super) is_of_archive: bool,
    /// Which of the images are removed.
    pub(super) criterion: Criterion,
    /// What happens to them.
    pub action: RuleAction,
}

/// What a rule does to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleAction {
    /// It is deleted.
    Expire,
    /// It is moved to the archive, from which it cannot be pulled.
    Archive,
}

/// The tags of the images that a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TagCondition {
    /// All images.
    Any,
    /// Images without a tag.
    Untagged,
    /// Images that have a tag for each of the patterns.
    Tagged(Vec<TagPattern>),
}

/// A pattern for tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TagPattern {
    /// Tags that begin with a text.
    Prefix(String),
    /// Tags that match a text with the wildcard `*`.
    Wildcard(String),
}

/// Which of the images that a rule is about are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Criterion {
    /// All but this number of the youngest.
    CountMoreThan(usize),
    /// Those that were pushed longer ago than this.
    SincePushed(Duration),
    /// Those that were last pulled longer ago than this.
    SincePulled(Duration),
    /// Those that were archived longer ago than this.
    SinceArchived(Duration),
}

#[derive(Deserialize)]
struct PolicyText {
    rules: Vec<RuleText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleText {
    rule_priority: u64,
    #[serde(default)]
    description: String,
    selection: SelectionText,
    action: ActionText,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SelectionText {
    tag_status: String,
    #[serde(default)]
    tag_prefix_list: Vec<String>,
    #[serde(default)]
    tag_pattern_list: Vec<String>,
    storage_class: Option<String>,
    count_type: String,
    count_unit: Option<String>,
    count_number: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ActionText {
    #[serde(rename = "type")]
    kind: String,
    target_storage_class: Option<String>,
}

impl LifecyclePolicy {
    /// Parses the text of a policy.
    ///
    /// # Errors
    /// If it is not JSON of the documented form, or has a rule of an unknown kind, whose effect could not be determined.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let policy: PolicyText = serde_json::from_str(text)?;
        let mut rules = policy.rules.into_iter().map(LifecycleRule::of).collect::<Result<Vec<_>, _>>()?;
        rules.sort_by_key(|rule| rule.priority);
        let repeated = rules.iter().zip(rules.iter().skip(1)).find(|(one, next)| one.priority == next.priority);
        match repeated {
            Some((rule, _)) => Err(rule.refuse("is there twice")),
            None => Ok(Self { rules }),
        }
    }
}

impl LifecycleRule {
    fn of(text: RuleText) -> Result<Self, PolicyError> {
        let RuleText { rule_priority: priority, description, selection, action } = text;
        let refuse = |reason: String| PolicyError::Rule { priority, reason };
        let tags = selection.tags().map_err(refuse)?;
        let criterion = selection.criterion().map_err(refuse)?;
        let is_of_archive = match selection.storage_class.as_deref() {
            None | Some("standard") => false,
            Some("archive") => true,
            Some(other) => return Err(refuse(format!("has the unknown storage class `{other}`"))),
        };
        let action = match (action.kind.as_str(), action.target_storage_class.as_deref()) {
            ("expire", None) => RuleAction::Expire,
            ("transition", Some("archive")) => RuleAction::Archive,
            (kind, _) => return Err(refuse(format!("has the unknown action `{kind}`"))),
        };
        Ok(Self { priority, description, tags, is_of_archive, criterion, action })
    }

    fn refuse(&self, reason: &str) -> PolicyError {
        PolicyError::Rule { priority: self.priority, reason: reason.to_owned() }
    }

    /// Returns whether a rule is about images with these tags.
    pub fn is_about(&self, tags: &[String]) -> bool {
        match &self.tags {
            TagCondition::Any => true,
            TagCondition::Untagged => tags.is_empty(),
            TagCondition::Tagged(patterns) => {
                patterns.iter().all(|pattern| tags.iter().any(|tag| pattern.matches(tag)))
            }
        }
    }
}

impl LifecycleRule {
    /// Returns whether a rule counts or selects images by a tag.
    pub(super) fn names(&self, tag: &str) -> bool {
        match &self.tags {
            TagCondition::Any => true,
            TagCondition::Untagged => false,
            TagCondition::Tagged(patterns) => patterns.iter().any(|pattern| pattern.matches(tag)),
        }
    }
}

impl SelectionText {
    fn tags(&self) -> Result<TagCondition, String> {
        let prefixes = self.tag_prefix_list.iter().cloned().map(TagPattern::Prefix);
        let patterns: Vec<TagPattern> =
            prefixes.chain(self.tag_pattern_list.iter().cloned().map(TagPattern::Wildcard)).collect();
        match (self.tag_status.as_str(), patterns.is_empty()) {
            ("any", true) => Ok(TagCondition::Any),
            ("untagged", true) => Ok(TagCondition::Untagged),
            ("tagged", false) if !self.tag_prefix_list.is_empty() && !self.tag_pattern_list.is_empty() => {
                Err("has both `tagPrefixList` and `tagPatternList`".to_owned())
            }
            ("tagged", false) => match self.tag_pattern_list.iter().find(|p| p.matches('*').count() > WILDCARDS) {
                Some(pattern) => Err(format!("has the pattern `{pattern}` with more than {WILDCARDS} wildcards")),
                None => Ok(TagCondition::Tagged(patterns)),
            },
            ("tagged", true) => Err("has neither `tagPrefixList` nor `tagPatternList`".to_owned()),
            ("any" | "untagged", false) => Err("has tags, but its `tagStatus` is not `tagged`".to_owned()),
            (other, _) => Err(format!("has the unknown tag status `{other}`")),
        }
    }

    fn criterion(&self) -> Result<Criterion, String> {
        let days = || match self.count_unit.as_deref() {
            Some("days") => Ok(Duration::days(self.count_number.into())),
            other => Err(format!("has the unknown unit `{}`", other.unwrap_or_default())),
        };
        match self.count_type.as_str() {
            "imageCountMoreThan" => Ok(Criterion::CountMoreThan(self.count_number as usize)),
            "sinceImagePushed" => days().map(Criterion::SincePushed),
            "sinceImagePulled" => days().map(Criterion::SincePulled),
            "sinceImageTransitioned" => days().map(Criterion::SinceArchived),
            other => Err(format!("has the unknown count type `{other}`")),
        }
    }
}

impl TagPattern {
    fn matches(&self, tag: &str) -> bool {
        match self {
            Self::Prefix(prefix) => tag.starts_with(prefix),
            // A question mark cannot be in a tag, so it stands for itself.
            Self::Wildcard(pattern) => WildMatchPattern::<'*', '?'>::new(pattern).matches(tag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(selection: &str, action: &str) -> Result<LifecyclePolicy, PolicyError> {
        LifecyclePolicy::parse(&format!(
            r#"{{"rules": [{{"rulePriority": 7, "selection": {selection}, "action": {action}}}]}}"#
        ))
    }

    const EXPIRE: &str = r#"{"type": "expire"}"#;

    #[test]
    fn every_documented_kind_is_read() {
        let counted = r#"{"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 3}"#;
        assert_eq!(rule(counted, EXPIRE).unwrap().rules[0].criterion, Criterion::CountMoreThan(3));
        let pulled =
            r#"{"tagStatus": "untagged", "countType": "sinceImagePulled", "countUnit": "days", "countNumber": 2}"#;
        let policy = rule(pulled, r#"{"type": "transition", "targetStorageClass": "archive"}"#).unwrap();
        assert_eq!(policy.rules[0].action, RuleAction::Archive);
        assert_eq!(policy.rules[0].criterion, Criterion::SincePulled(Duration::days(2)));
        let archived = r#"{"tagStatus": "tagged", "tagPatternList": ["v*"], "storageClass": "archive",
            "countType": "sinceImageTransitioned", "countUnit": "days", "countNumber": 90}"#;
        assert!(rule(archived, EXPIRE).unwrap().rules[0].is_of_archive);
    }

    #[test]
    fn a_rule_that_is_not_understood_is_named() {
        for (selection, action, reason) in [
            (
                r#"{"tagStatus": "any", "countType": "sinceFullMoon", "countNumber": 1}"#,
                EXPIRE,
                "count type `sinceFullMoon`",
            ),
            (
                r#"{"tagStatus": "some", "countType": "imageCountMoreThan", "countNumber": 1}"#,
                EXPIRE,
                "tag status `some`",
            ),
            (r#"{"tagStatus": "tagged", "countType": "imageCountMoreThan", "countNumber": 1}"#, EXPIRE, "neither"),
            (
                r#"{"tagStatus": "tagged", "tagPrefixList": ["a"], "tagPatternList": ["b"], "countType": "imageCountMoreThan", "countNumber": 1}"#,
                EXPIRE,
                "both",
            ),
            (
                r#"{"tagStatus": "tagged", "tagPatternList": ["*a*b*c*d*"], "countType": "imageCountMoreThan", "countNumber": 1}"#,
                EXPIRE,
                "wildcards",
            ),
            (
                r#"{"tagStatus": "any", "countType": "sinceImagePushed", "countUnit": "weeks", "countNumber": 1}"#,
                EXPIRE,
                "unit",
            ),
            (
                r#"{"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 1}"#,
                r#"{"type": "sell"}"#,
                "action `sell`",
            ),
        ] {
            let error = rule(selection, action).unwrap_err().to_string();
            assert!(
                error.starts_with("rule 7 of the lifecycle policy ") && error.contains(reason),
                "{reason}: {error}"
            );
        }
        assert!(matches!(LifecyclePolicy::parse("{}"), Err(PolicyError::Syntax(_))));
    }

    #[test]
    fn an_image_needs_a_tag_for_each_pattern() {
        let about = |patterns: &str, tags: &[&str]| {
            let selection = format!(
                r#"{{"tagStatus": "tagged", {patterns}, "countType": "imageCountMoreThan", "countNumber": 1}}"#
            );
            let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
            rule(&selection, EXPIRE).unwrap().rules[0].is_about(&tags)
        };
        let both = r#""tagPrefixList": ["alpha", "beta"]"#;
        assert!(about(both, &["alpha-1", "beta-2"]));
        assert!(!about(both, &["alpha-1"]) && !about(both, &[]));
        let pattern = r#""tagPatternList": ["*-1.0.*"]"#;
        assert!(about(pattern, &["x", "dev-1.0.7"]));
        assert!(!about(pattern, &["dev-1.1.0"]));
        // A prefix has no wildcards.
        assert!(!about(r#""tagPrefixList": ["*"]"#, &["dev"]));
    }
}
