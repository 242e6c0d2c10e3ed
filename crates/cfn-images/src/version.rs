//! Versions of an application.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The longest version in characters: the distribution specification's limit of a tag.
const LIMIT: usize = 128;

/// A version: any text that can be in a tag.
///
/// Semantic versions such as `1.2.3` and `1.2.3-rc.1` are ordered by their numbers, and lose a leading `v`. Any other
/// text, such as a commit, a run number or a date, stays as it is, and has no order of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(Form);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Text(String),
    Semantic(semver::Version),
}

/// A part of a version that a tag can consist of: `1` or `1.2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VersionPart {
    pub(super) major: u64,
    pub(super) minor: Option<u64>,
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('v').unwrap_or(text);
        match semver::Version::parse(bare) {
            Ok(version) if version.build.is_empty() && bare.len() <= LIMIT => return Ok(Self(Form::Semantic(version))),
            Ok(version) if !version.build.is_empty() => {
                return Err(format!("a tag cannot hold the `+` of build metadata: use `{}`", bare.replace('+', "-")));
            }
            _ => {}
        }
        let is_digest = text.strip_prefix("sha256-").is_some_and(|hex| hex.len() >= 64);
        if is_digest {
            return Err("tags of this form belong to the signatures and the evidence of an image".to_owned());
        }
        if !text.is_empty() && text.len() <= LIMIT && text.chars().all(is_tag_character) {
            return Ok(Self(Form::Text(text.to_owned())));
        }
        Err(format!("a tag holds at most {LIMIT} letters, digits, `_`, `.` and `-`{}", instead(text)))
    }
}

/// Returns whether a character may be in a tag.
fn is_tag_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// Suggests a version in place of a text with other characters, such as a branch.
fn instead(text: &str) -> String {
    let bare = ["refs/tags/", "refs/heads/"].iter().find_map(|folder| text.strip_prefix(folder)).unwrap_or(text);
    let replaced = bare.replace(|c| !is_tag_character(c), "-");
    let replaced = replaced.trim_matches('-');
    if replaced.is_empty() || replaced.len() > LIMIT {
        return ", as in 1.2.3 or 4f2c0de".to_owned();
    }
    format!(": use `{replaced}`")
}

/// Explains what a semantic version looks like, depending on what is wrong.
fn semantic_form(text: &str) -> String {
    let numbers: Vec<&str> = text.split('.').collect();
    let are_numbers = numbers.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    let example = |text: &str| match semver::Version::parse(text) {
        Ok(version) => format!(": use `{version}`"),
        Err(_) => ", as in 1.2.3".to_owned(),
    };
    if are_numbers && numbers.len() < 3 {
        let padded = [text, "0", "0"][..4 - numbers.len()].join(".");
        return format!("a semantic version has three numbers{}", example(&padded));
    }
    if are_numbers && numbers.len() == 3 {
        let bare = |part: &&str| part.trim_start_matches('0').to_owned();
        let bare = numbers.iter().map(bare).map(|part| if part.is_empty() { "0".to_owned() } else { part });
        let bare = bare.collect::<Vec<_>>().join(".");
        return format!("the numbers of a semantic version have no leading zeros{}", example(&bare));
    }
    "a semantic version is three numbers and, if it is one, the name of a pre-release, as in 1.2.3 or v1.2.3-rc.1"
        .to_owned()
}

impl Version {
    /// Returns a release version.
    pub const fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self(Form::Semantic(semver::Version::new(major, minor, patch)))
    }

    /// Parses a semantic version.
    ///
    /// # Errors
    /// Says what a semantic version looks like if the text is anything else.
    pub fn parse_semantic(text: &str) -> Result<Self, String> {
        let version = text.parse::<Self>()?;
        if version.is_semantic() { Ok(version) } else { Err(semantic_form(text.strip_prefix('v').unwrap_or(text))) }
    }

    /// Returns whether this is a semantic version.
    pub fn is_semantic(&self) -> bool {
        self.semantic().is_some()
    }

    fn semantic(&self) -> Option<&semver::Version> {
        match &self.0 {
            Form::Semantic(version) => Some(version),
            Form::Text(_) => None,
        }
    }

    /// Returns whether this is a pre-release, such as `1.2.3-rc.1`.
    pub fn is_prerelease(&self) -> bool {
        self.semantic().is_some_and(|version| !version.pre.is_empty())
    }

    /// Compares two versions as far as they have an order of their own: two semantic versions, or two equal texts.
    pub fn order(&self, other: &Self) -> Option<Ordering> {
        match (self.semantic(), other.semantic()) {
            (Some(one), Some(other)) => Some(one.cmp(other)),
            _ => (self == other).then_some(Ordering::Equal),
        }
    }

    /// Returns a total order for sorting. Semantic versions are above all others, whose order means nothing.
    pub fn sorting_order(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }

    /// Returns whether a part such as `1.2` is one of this version.
    pub(super) fn has_part(&self, part: VersionPart) -> bool {
        self.semantic()
            .is_some_and(|version| version.major == part.major && part.minor.is_none_or(|minor| version.minor == minor))
    }
}

impl VersionPart {
    /// Parses `1` or `1.2`, with or without `v`.
    pub(super) fn parse(word: &str) -> Option<Self> {
        let bare = word.strip_prefix('v').unwrap_or(word);
        let number = |text: &str| text.parse().ok().filter(|number: &u64| number.to_string() == text);
        match bare.split_once('.') {
            Some((major, minor)) => Some(Self { major: number(major)?, minor: Some(number(minor)?) }),
            None => Some(Self { major: number(bare)?, minor: None }),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Text(text) => f.write_str(text),
            Form::Semantic(version) => version.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn any_text_that_a_tag_can_hold_is_a_version() {
        for text in
            ["4f2c0de", "1234", "1.2", "v1", "2026-11-27", "2026.01.05", "main", "1.2.3.4", "_x", &"a".repeat(128)]
        {
            assert_eq!((version(text).to_string().as_str(), version(text).is_semantic()), (text, false));
        }
        for (text, kept) in [("v1.2.3", "1.2.3"), ("1.2.3-rc.1", "1.2.3-rc.1"), ("2026.11.27", "2026.11.27")] {
            assert_eq!((version(text).to_string().as_str(), version(text).is_semantic()), (kept, true));
        }
    }

    #[test]
    fn what_no_tag_can_hold_is_refused_with_what_it_can() {
        let refused = |text: &str| text.parse::<Version>().unwrap_err();
        let limit = "a tag holds at most 128 letters, digits, `_`, `.` and `-`";
        for (text, end) in [
            ("feature/x", ": use `feature-x`"),
            ("refs/tags/v1.2.3", ": use `v1.2.3`"),
            ("refs/heads/feature/x", ": use `feature-x`"),
            ("a b", ": use `a-b`"),
            ("", ", as in 1.2.3 or 4f2c0de"),
            ("é", ", as in 1.2.3 or 4f2c0de"),
        ] {
            assert_eq!(refused(text), format!("{limit}{end}"), "{text}");
        }
        assert!(refused(&"a".repeat(129)).starts_with(limit));
        assert!(refused(&format!("1.2.3-{}", "a".repeat(123))).starts_with(limit));
        assert!(refused(&format!("sha256-{}", "0".repeat(64))).contains("belong to the signatures"));
        assert_eq!(refused("1.2.3+b1"), "a tag cannot hold the `+` of build metadata: use `1.2.3-b1`");
    }

    #[test]
    fn what_is_no_semantic_version_is_told_with_one_that_is() {
        for (text, told) in [
            ("1.2", "a semantic version has three numbers: use `1.2.0`"),
            ("v1", "a semantic version has three numbers: use `1.0.0`"),
            ("2026.01.05", "the numbers of a semantic version have no leading zeros: use `2026.1.5`"),
            ("1.2.3-rc.1+b1", "a tag cannot hold the `+` of build metadata: use `1.2.3-rc.1-b1`"),
        ] {
            assert_eq!(Version::parse_semantic(text).unwrap_err(), told, "{text}");
        }
        for text in ["latest", "1.2.3.4", "1.2.x", "", "99999999999999999999.0.0"] {
            let told = Version::parse_semantic(text).unwrap_err();
            assert!(told.contains("as in 1.2.3"), "{text}: {told}");
        }
        assert!(Version::parse_semantic("v1.2.3").is_ok());
    }

    #[test]
    fn only_semantic_versions_have_an_order_of_their_own() {
        let order = |one: &str, other: &str| version(one).order(&version(other));
        assert_eq!(order("1.2.3-rc.1", "1.2.3"), Some(Ordering::Less));
        assert_eq!(order("1.10.0", "1.9.0"), Some(Ordering::Greater));
        assert_eq!(order("4f2c0de", "4f2c0de"), Some(Ordering::Equal));
        for (one, other) in [("4f2c0de", "9abcdef"), ("2", "10"), ("1.0.0", "4f2c0de"), ("1.2", "1.2.0")] {
            assert_eq!((order(one, other), order(other, one)), (None, None), "{one} {other}");
        }
    }

    #[test]
    fn parts_of_a_version() {
        let is_part = |word: &str, of: &str| VersionPart::parse(word).is_some_and(|part| version(of).has_part(part));
        for word in ["1", "v1", "1.2", "v1.2"] {
            assert!(is_part(word, "1.2.3") && is_part(word, "1.2.4-rc.1"), "{word}");
        }
        for word in ["2", "1.3", "1.2.3", "x1", "1.", "01", "", "v", "1.02", "latest"] {
            assert!(!is_part(word, "1.2.3"), "{word}");
        }
        assert!(!is_part("1", "1"));
    }
}
