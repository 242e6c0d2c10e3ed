//! Versions of an application.

use std::fmt;
use std::str::FromStr;

use oci::Reference;

/// A semantic version that can be used as a tag: `1.2.3` or `1.2.3-rc.1`, without build metadata.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(semver::Version);

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('v').unwrap_or(text);
        match semver::Version::parse(bare) {
            Ok(version) if version.build.is_empty() => Ok(Self(version)),
            Ok(_) => Err(format!("a tag cannot hold the `+` of build metadata{}", instead(&bare.replace('+', "-")))),
            Err(_) => Err(accepted(bare)),
        }
    }
}

/// Explains what a valid version looks like, depending on what is wrong.
fn accepted(text: &str) -> String {
    let numbers: Vec<&str> = text.split('.').collect();
    let are_numbers = numbers.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    if are_numbers && numbers.len() < 3 {
        let padded = [text, "0", "0"][..4 - numbers.len()].join(".");
        return format!("a semantic version has three numbers{}", instead(&padded));
    }
    if are_numbers && numbers.len() == 3 {
        let bare = |part: &&str| part.trim_start_matches('0').to_owned();
        let bare = numbers.iter().map(bare).map(|part| if part.is_empty() { "0".to_owned() } else { part });
        let bare = bare.collect::<Vec<_>>().join(".");
        return format!("the numbers of a semantic version have no leading zeros{}", instead(&bare));
    }
    "a semantic version is three numbers and, if it is one, the name of a pre-release, as in 1.2.3 or v1.2.3-rc.1"
        .to_owned()
}

/// Suggests a version to use instead, if the text is one.
fn instead(text: &str) -> String {
    match semver::Version::parse(text) {
        Ok(version) => format!(": use `{version}`"),
        Err(_) => ", as in 1.2.3".to_owned(),
    }
}

impl Version {
    /// Returns a release version.
    pub const fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self(semver::Version::new(major, minor, patch))
    }

    /// Returns whether this is a pre-release, such as `1.2.3-rc.1`.
    pub fn is_prerelease(&self) -> bool {
        !self.0.pre.is_empty()
    }

    /// Returns why a moving tag keeps its version instead of moving to this one, or `None` if it moves.
    pub fn keeps_off(&self, tag: &Reference, held: Option<&Self>) -> Option<String> {
        let holds = held.map_or_else(|| "an unrecorded version".to_owned(), |held| format!("version {held}"));
        if held.is_some_and(|held| held > self) {
            return Some(format!("`{tag}` holds {holds}, and would go back to {self}: it stays where it is"));
        }
        let released = tag.tag.as_str() == "latest" && !held.is_some_and(Self::is_prerelease);
        (self.is_prerelease() && released)
            .then(|| format!("`{tag}` holds {holds}, and {self} is a pre-release: it stays where it is"))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_version_off_a_tag() {
        let keeps_off = |tag: &str, version: &str, held: &str| {
            let tag = Reference::parse(&format!("h.example/shop:{tag}"), None).unwrap();
            version.parse::<Version>().unwrap().keeps_off(&tag, held.parse().ok().as_ref()).is_some()
        };
        for (tag, version, held, expected) in [
            ("latest", "1.3.0", "1.2.0", false),
            ("latest", "1.2.0", "1.3.0", true),
            ("latest", "1.3.0", "unknown", false),
            ("latest", "1.3.0-rc.1", "1.2.0", true),
            ("latest", "1.3.0-rc.1", "unknown", true),
            ("latest", "1.3.0-rc.2", "1.3.0-rc.1", false),
            ("latest", "1.3.0", "1.3.0-rc.1", false),
            ("dev", "1.3.0-rc.1", "1.2.0", false),
            ("dev", "1.3.0-rc.1", "1.3.0", true),
        ] {
            assert_eq!(keeps_off(tag, version, held), expected, "{tag} {version} {held}");
        }
    }

    #[test]
    fn what_is_no_version_is_told_with_one_that_is() {
        for (text, told) in [
            ("1.2", "a semantic version has three numbers: use `1.2.0`"),
            ("v1", "a semantic version has three numbers: use `1.0.0`"),
            ("2026.01.05", "the numbers of a semantic version have no leading zeros: use `2026.1.5`"),
            ("1.2.3+b1", "a tag cannot hold the `+` of build metadata: use `1.2.3-b1`"),
            ("1.2.3-rc.1+b1", "a tag cannot hold the `+` of build metadata: use `1.2.3-rc.1-b1`"),
        ] {
            assert_eq!(text.parse::<Version>().unwrap_err(), told, "{text}");
        }
        for text in ["latest", "1.2.3.4", "1.2.x", "", "99999999999999999999.0.0"] {
            let told = text.parse::<Version>().unwrap_err();
            assert!(told.contains("as in 1.2.3"), "{text}: {told}");
        }
    }

    #[test]
    fn versions() {
        assert_eq!("v1.2.3".parse::<Version>().unwrap().to_string(), "1.2.3");
        assert!("1.2.3-rc.1".parse::<Version>().unwrap() < "1.2.3".parse().unwrap());
        assert!("1.10.0".parse::<Version>().unwrap() > "1.9.0".parse().unwrap());
        for text in ["", "1", "1.2", "1.2.3+build", "vv1.2.3", "1.2.3/../x", "latest"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
