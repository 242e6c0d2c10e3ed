//! Where environment and version stand in an image's name.

use super::traced_text::{Dependence, TracedText};
use super::version::Version;
use oci::Tag;

/// How an image's names in one environment differ from version to version. What is to be known of a version by a name is
/// asked here, and never of the name's text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamePattern {
    /// Registry and repository.
    repository: TracedText,
    /// The tag.
    tag: TracedText,
    /// What decides that the name is this one and not another, by a condition.
    chosen: Dependence,
}

/// How the names of one environment's versions are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionPosition {
    /// All versions have one name, which moves from one to the next.
    Nowhere,
    /// Each has a tag, in which the version can be read.
    Tag,
    /// Each has a repository, in whose name the version can be read.
    Repository,
    /// Not at all: the version goes into the name in a way that cannot be turned back, as a part of it, in another spelling,
    /// or by a value that is found by it.
    Altered,
    /// Not at all: a condition on the version decides which name it is.
    Condition,
}

impl NamePattern {
    /// The pattern of `registry/repository[:tag][@digest]`, which a condition that depends on `chosen` may have chosen.
    pub(super) fn of_choice(name: &TracedText, chosen: Dependence) -> Self {
        let name = name.split_once("@").map_or_else(|| name.clone(), |(name, _)| name);
        let path = name.rfind('/').map_or(0, |slash| slash + 1);
        let colon = name[path..].rfind(':').map(|colon| path + colon);
        let (repository, tag) = match colon {
            Some(colon) => (name.slice(0..colon), name.slice(colon + 1..name.len())),
            None => (name.clone(), TracedText::from("latest")),
        };
        Self { repository, tag, chosen }
    }

    /// The pattern of `registry/repository[:tag]`.
    pub fn of(name: &TracedText) -> Self {
        Self::of_choice(name, Dependence::default())
    }

    /// The same repository, another tag.
    pub fn with_tag(&self, tag: TracedText) -> Self {
        Self { tag, ..self.clone() }
    }

    /// The pattern in a run for a version. A tag that is this version and nothing more, as a template may write it out, is
    /// of the version.
    pub fn in_run_for(self, version: &Version) -> Self {
        Self { tag: self.tag.written_out(version), ..self }
    }

    /// Whether the name belongs to one version. Then it never moves to another image; otherwise it moves from version to
    /// version.
    pub fn is_of_version(&self) -> bool {
        self.tag.dependence().version || self.repository.dependence().version
    }

    /// Whether the tag alone belongs to one version.
    pub fn tag_is_of_version(&self) -> bool {
        self.tag.dependence().version
    }

    /// How the versions of the environment are told apart.
    pub fn version_position(&self) -> VersionPosition {
        let altered = self.repository.alteration() | self.tag.alteration();
        match (self.tag_is_of_version(), self.repository.dependence().version) {
            _ if altered.version => VersionPosition::Altered,
            _ if self.chosen.version => VersionPosition::Condition,
            (_, true) => VersionPosition::Repository,
            (true, false) => VersionPosition::Tag,
            (false, false) => VersionPosition::Nowhere,
        }
    }

    /// The version that another tag of the same environment is of; none where it is of no version, or that cannot be told.
    pub fn version_of(&self, tag: &Tag) -> Option<Version> {
        match self.version_position() {
            VersionPosition::Tag => self.tag.version_in(tag.as_str()),
            VersionPosition::Repository
            | VersionPosition::Nowhere
            | VersionPosition::Altered
            | VersionPosition::Condition => None,
        }
    }

    /// The version whose repository this is, given with its registry; none where it is of no version, or that cannot be told.
    pub fn version_of_repository(&self, repository: &str) -> Option<Version> {
        match self.version_position() {
            VersionPosition::Repository => self.repository.version_in(repository),
            VersionPosition::Tag | VersionPosition::Nowhere | VersionPosition::Altered | VersionPosition::Condition => {
                None
            }
        }
    }

    /// The name in another environment and for another version; none where that cannot be told.
    pub fn render(&self, environment: &str, version: &Version) -> Option<String> {
        let version = version.to_string();
        let parts = [&self.repository, &self.tag].map(|part| part.render(Some(environment), &version));
        match (parts, self.chosen.is_any()) {
            ([Some(repository), Some(tag)], false) => Some(format!("{repository}:{tag}")),
            _ => None,
        }
    }

    /// The pattern of a name that two expressions make. Where they do it differently, it cannot be told what either would
    /// make of another version.
    pub(super) fn joined(self, other: &Self) -> Self {
        let join = |one: TracedText, other: &TracedText| {
            let by = Dependence { environment: one != *other, version: !one.is_alike_by_version(other) };
            one.altered(by)
        };
        Self {
            repository: join(self.repository, &other.repository),
            tag: join(self.tag, &other.tag),
            chosen: self.chosen | other.chosen,
        }
    }
}
