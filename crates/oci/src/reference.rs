use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::Digest;

/// The location of repositories: a registry's host, or a folder of OCI layouts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Location {
    /// `host[:port]` of a registry.
    Host(String),
    /// A folder with one OCI layout per repository, written as `oci:DIR`.
    Directory(PathBuf),
}

/// A repository's name, which is its path in the registry, without the host: `team/service` ([distribution
/// specification](https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests)).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(String);

/// A tag: at most 128 letters, digits, `_`, `.` and `-`. The first is a letter, digit or `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

/// A tag in a repository of a registry or of a folder of layouts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The registry or folder.
    pub location: Location,
    /// The repository.
    pub repository: RepositoryName,
    /// The tag. Defaults to `latest`.
    pub tag: Tag,
}

/// Why a string is not a reference, or not a part of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// It is not a repository name.
    #[error("`{0}` is not a repository name: lower-case words joined by `/`, `.`, `_`, `__` or `-`")]
    Repository(String),
    /// It is not a tag.
    #[error("`{0}` is not a tag: at most 128 letters, digits, `_`, `.` or `-`, not beginning with `.` or `-`")]
    Tag(String),
    /// It is neither a host nor `oci:DIR`.
    #[error("`{0}` is neither a registry's host nor oci:DIR")]
    Location(String),
    /// It has no `/` between a host and a repository.
    #[error("`{0}` does not name a registry: use host/repository:tag")]
    NoHost(String),
    /// It has a digest where a tag is required.
    #[error("`{0}` is pinned to a digest, so no tag can be published under it")]
    Pinned(String),
}

/// The longest repository name: the distribution specification leaves 255 characters for host and name.
const REPOSITORY_LIMIT: usize = 255;

impl RepositoryName {
    /// Returns the name as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let valid = !text.is_empty() && text.len() <= REPOSITORY_LIMIT && text.split('/').all(is_component);
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidReference::Repository(text.to_owned())) }
    }
}

/// Matches `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return false;
    }
    bytes.split(alphanumeric).all(|separator| match separator {
        [] | b"." | b"_" | b"__" => true,
        dashes => dashes.iter().all(|b| *b == b'-'),
    })
}

impl Tag {
    /// Returns the tag as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the tag that lists a digest's referrers in a registry without the referrers API ([referrers tag
    /// schema](https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#referrers-tag-schema)).
    pub fn of_referrers(subject: &Digest) -> Self {
        Self(format!("sha256-{}", subject.hex()))
    }

    /// Returns the tags that cosign before version 3 uses for the signature, attestations and SBOM of a digest.
    pub fn of_cosign(subject: &Digest) -> [Self; 3] {
        ["sig", "att", "sbom"].map(|kind| Self(format!("sha256-{}.{kind}", subject.hex())))
    }

    /// Returns whether the tag may name the list of a digest's referrers, or an artifact of cosign.
    pub fn is_of_evidence(&self) -> bool {
        self.0.split('.').next().is_some_and(is_list_of_referrers)
    }

    /// Returns whether the tag may name the list of a digest's referrers.
    pub fn is_list_of_referrers(&self) -> bool {
        is_list_of_referrers(&self.0)
    }
}

fn is_list_of_referrers(tag: &str) -> bool {
    let hex = tag.strip_prefix("sha256-");
    hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl FromStr for Tag {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let valid = text.len() <= 128
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|b| word(b) || b == b'.' || b == b'-');
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidReference::Tag(text.to_owned())) }
    }
}

impl FromStr for Location {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if let Some(directory) = text.strip_prefix("oci:") {
            return match directory.trim_end_matches('/') {
                // Paths are printed in single lines.
                directory if directory.is_empty() || directory.contains(char::is_control) => {
                    Err(InvalidReference::Location(text.to_owned()))
                }
                directory => Ok(Self::Directory(directory.into())),
            };
        }
        if is_host(text) { Ok(Self::Host(text.to_owned())) } else { Err(InvalidReference::Location(text.to_owned())) }
    }
}

/// Matches a host name, an IPv4 address or a bracketed IPv6 address, with an optional port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let name = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).map_or_else(
        || {
            host.split('.').all(|label| {
                !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            })
        },
        |v6| v6.parse::<std::net::Ipv6Addr>().is_ok(),
    );
    name && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

impl Reference {
    /// Parses a reference. If it begins with `registry`, which is `host[/prefix]` or `oci:DIR`, that is its location.
    /// Otherwise, the first component of `text` is the host.
    ///
    /// # Errors
    /// Returns an error that names the invalid part.
    pub fn parse(text: &str, registry: Option<&str>) -> Result<Self, InvalidReference> {
        let directory = registry.filter(|r| r.starts_with("oci:")).map(|r| r.trim_end_matches('/'));
        if let Some((directory, rest)) = directory.and_then(|d| Some((d, text.strip_prefix(d)?.strip_prefix('/')?))) {
            return Self::below(directory.parse()?, rest, text);
        }
        let (host, rest) = text.split_once('/').ok_or_else(|| InvalidReference::NoHost(text.to_owned()))?;
        if !host.contains(['.', ':']) && host != "localhost" {
            return Err(InvalidReference::NoHost(text.to_owned()));
        }
        Self::below(host.parse()?, rest, text)
    }

    fn below(location: Location, rest: &str, whole: &str) -> Result<Self, InvalidReference> {
        if rest.contains('@') {
            return Err(InvalidReference::Pinned(whole.to_owned()));
        }
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) => (repository, tag),
            None => (rest, "latest"),
        };
        Ok(Self { location, repository: repository.parse()?, tag: tag.parse()? })
    }

    /// Replaces the tag.
    pub fn with_tag(&self, tag: Tag) -> Self {
        Self { tag, ..self.clone() }
    }

    /// Returns the location and repository without the tag.
    pub fn repository_address(&self) -> String {
        format!("{}/{}", self.location, self.repository)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => f.write_str(host),
            Self::Directory(directory) => write!(f, "oci:{}", directory.display()),
        }
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.location, self.repository, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_tools_write() {
        for (text, registry, location, repository, tag) in [
            (
                "1.dkr.ecr.eu-west-1.amazonaws.com/a/b:dev-1.0.0",
                None,
                "1.dkr.ecr.eu-west-1.amazonaws.com",
                "a/b",
                "dev-1.0.0",
            ),
            ("localhost:5000/app", None, "localhost:5000", "app", "latest"),
            ("[::1]:5000/app:x", None, "[::1]:5000", "app", "x"),
            ("oci:/tmp/store/shop/api:dev-1", Some("oci:/tmp/store/"), "oci:/tmp/store", "shop/api", "dev-1"),
            ("h.example/p/app:1", Some("h.example/p"), "h.example", "p/app", "1"),
        ] {
            let reference = Reference::parse(text, registry).unwrap();
            assert_eq!(reference.location.to_string(), location);
            assert_eq!(reference.repository.as_str(), repository);
            assert_eq!(reference.tag.as_str(), tag);
        }
    }

    #[test]
    fn names_the_part_that_is_wrong() {
        let error = |text| Reference::parse(text, None).unwrap_err();
        assert_eq!(error("app:1"), InvalidReference::NoHost("app:1".into()));
        assert_eq!(error("library/app:1"), InvalidReference::NoHost("library/app:1".into()));
        assert_eq!(error("h.io/App:1"), InvalidReference::Repository("App".into()));
        assert_eq!(error("h.io/a/../b:1"), InvalidReference::Repository("a/../b".into()));
        assert_eq!(error("h.io/a:1+2"), InvalidReference::Tag("1+2".into()));
        assert_eq!(error("h.io/a@sha256:00"), InvalidReference::Pinned("h.io/a@sha256:00".into()));
        assert_eq!(error("h.io:port/a"), InvalidReference::Location("h.io:port".into()));
        assert_eq!(error("oci:a\nb/c:1"), InvalidReference::Location("oci:a\nb".into()));
    }

    #[test]
    fn repository_names_follow_the_specification() {
        for good in ["a", "a/b", "a.b_c__d---e/f0"] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "a___b", "a..b", "-a", "a-", "A", "a b", "a:b"] {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad}");
        }
    }
}
