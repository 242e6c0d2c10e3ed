use std::fmt;
use std::str::FromStr;

/// A semantic version as a tag can hold it: `1.2.3` or `1.2.3-rc.1`, without build metadata.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(semver::Version);

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('v').unwrap_or(text);
        let version = semver::Version::parse(bare)
            .map_err(|error| format!("a semantic version, as in 1.2.3 or v1.2.3-rc.1 ({error})"))?;
        match version.build.is_empty() {
            true => Ok(Self(version)),
            false => Err("a semantic version without `+`, which a tag can't hold".to_owned()),
        }
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
    fn versions() {
        assert_eq!("v1.2.3".parse::<Version>().unwrap().to_string(), "1.2.3");
        assert!("1.2.3-rc.1".parse::<Version>().unwrap() < "1.2.3".parse().unwrap());
        assert!("1.10.0".parse::<Version>().unwrap() > "1.9.0".parse().unwrap());
        for text in ["", "1", "1.2", "1.2.3+build", "vv1.2.3", "1.2.3/../x", "latest"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
