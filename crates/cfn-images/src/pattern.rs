//! The positions of environment and version in an image's name.

use super::traced_text::{Dependence, TracedText};
use super::value::looks_like_host;
use super::version::Version;
use oci::Tag;

/// How an image's names in one environment differ from version to version. Code that relates names and versions asks
/// a pattern, and never inspects the text of a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamePattern {
    /// The registry and repository.
    repository: TracedText,
    /// The tag.
    tag: TracedText,
    /// What the choice of this name over others depends on, if a condition makes it.
    chosen: Dependence,
}

/// Where the version is in the names of one environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionPosition {
    /// Nowhere: all versions have the same name, which moves from one to the next.
    Nowhere,
    /// In the tag: it can be read from there. The tag may contain a commit or a run number instead, which stands for the
    /// version.
    Tag,
    /// In the repository's name: it can be read from there.
    Repository,
    /// In an altered form that cannot be inverted: a part of it, another spelling, a value that was looked up by it, or
    /// several values of the build. Versions cannot be told apart.
    Altered,
    /// In a condition that decides between names. Versions cannot be told apart.
    Condition,
}

impl NamePattern {
    /// Returns the pattern of `registry/repository[:tag][@digest]`. If a condition chose the name, `chosen` is what
    /// the choice depends on.
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

    /// Returns the pattern of `registry/repository[:tag]`.
    pub fn of(name: &TracedText) -> Self {
        Self::of_choice(name, Dependence::default())
    }

    /// Replaces the tag.
    pub fn with_tag(&self, tag: TracedText) -> Self {
        Self { tag, ..self.clone() }
    }

    /// Adapts the pattern to a run for a version. A tag in which the template writes this version out, as in `dev-1.0.0`,
    /// belongs to the version: another build of the version must not overwrite it.
    pub fn in_run_for(self, version: &Version) -> Self {
        Self { tag: self.tag.written_out(version), ..self }
    }

    /// Returns whether the name belongs to a single version. Such a name never moves to another image. Any other name
    /// moves from version to version.
    pub fn is_of_version(&self) -> bool {
        self.tag.dependence().version || self.repository.dependence().version
    }

    /// Returns whether the tag belongs to a single version.
    pub fn tag_is_of_version(&self) -> bool {
        self.tag.dependence().version
    }

    /// Returns whether the repository differs between environments.
    pub fn repository_is_of_environment(&self) -> bool {
        self.repository.dependence().environment || self.chosen.environment
    }

    /// Returns whether the tag belongs to a build and not to a version: it contains a commit, a run number or a digest.
    pub fn tag_is_of_build(&self) -> bool {
        self.tag.is_of_build()
    }

    /// Returns the full version that the tag begins with, if the tag depends on no version and this is another one. The
    /// name of the environment and the words of the image's name may precede it.
    pub fn other_version(&self, environment: &str, version: &Version) -> Option<Version> {
        let environment = environment.to_ascii_lowercase();
        let name = self.repository.rsplit('/').next().unwrap_or_default();
        let words: Vec<&str> = name.split(['-', '_', '.']).chain(environment.split(['-', '_'])).collect();
        self.tag.full_version(&words).filter(|found| found != version)
    }

    /// Returns the first of the environments `others` whose name is written out in the tag, as a folder of the
    /// repository, or beside the image's own name in it. Returns `None` if the name has the environment of the run as well. `registry` is
    /// what the name starts with.
    pub fn other_environment<'e>(
        &self,
        environment: &str,
        others: impl IntoIterator<Item = &'e str>,
        registry: &str,
        image: &str,
    ) -> Option<&'e str> {
        let is_registry = |rest: &str| rest.starts_with('/') && !registry.is_empty();
        let start = match self.repository.strip_prefix(registry).filter(|rest| is_registry(rest)) {
            Some(_) => registry.len(),
            None => self
                .repository
                .split_once("/")
                .filter(|(host, _)| looks_like_host(host))
                .map_or(0, |(host, _)| host.len()),
        };
        let registry_part = self.repository.slice(0..start);
        // The name of an image may contain any word: `load-test`.
        let path = self.repository.suffix(start).replace(image, &TracedText::from("\0"));
        let is_own = [&path, &self.tag].iter().any(|part| part.has_environment(environment))
            || (!registry.starts_with("oci:") && registry_part.has_environment(environment));
        // A folder such as `acme-prod` may be shared by environments.
        let components = path.split("/");
        let is_in_path = |other: &str| {
            let is_it = |component: &TracedText| component.as_str() == other || component.contains('\0');
            components.iter().filter(|component| is_it(component)).any(|component| component.has_word(other))
        };
        let is_in = |other: &&str| is_in_path(other) || self.tag.has_word(other);
        others.into_iter().find(is_in).filter(|_| !is_own)
    }

    /// Returns the first of the environments `others` whose name is written out in the tag. Returns `None` if the tag has
    /// the environment of the run as well, or if environments have different repositories.
    pub fn other_environment_in_tag<'e>(
        &self,
        environment: &str,
        others: impl IntoIterator<Item = &'e str>,
    ) -> Option<&'e str> {
        let is_own = self.tag.has_environment(environment) || self.repository_is_of_environment();
        let is_in = |other: &&str| self.tag.has_word(other);
        others.into_iter().find(is_in).filter(|_| !is_own)
    }

    /// Returns whether the tag depends on no version, but this one is written out in it.
    pub fn tag_writes_out(&self, version: &Version) -> bool {
        !self.tag_is_of_version() && self.tag.clone().written_out(version).dependence().version
    }

    /// Returns whether the tag is a part of a version, such as `v1` or `1.2` of 1.2.3.
    pub fn tag_is_part_of(&self, version: &Version) -> bool {
        !self.tag_is_of_version() && self.tag.has_part_of(version)
    }

    /// Returns whether the tag is meant for releases only: a part of this or any version, such as `v1` or `1.2`.
    pub fn tag_is_for_releases(&self, version: &Version) -> bool {
        self.tag_is_part_of(version) || self.tag.is_version_part()
    }

    /// Returns where the version is in the name.
    pub fn version_position(&self) -> VersionPosition {
        let altered = self.repository.alteration() | self.tag.alteration();
        let is_of_build = self.repository.has_build_value() || (self.tag.has_build_value() && !self.tag.is_of_build());
        match (self.tag_is_of_version(), self.repository.dependence().version) {
            _ if altered.version || is_of_build => VersionPosition::Altered,
            _ if self.chosen.version => VersionPosition::Condition,
            (_, true) => VersionPosition::Repository,
            (true, false) => VersionPosition::Tag,
            (false, false) => VersionPosition::Nowhere,
        }
    }

    /// Returns the version that another tag of the same environment belongs to, or `None` if there is none or it
    /// cannot be determined. Any text can be a version, so unless it is a semantic one, the tag may mean something else.
    pub fn version_of(&self, tag: &Tag) -> Option<Version> {
        match self.version_position() {
            VersionPosition::Tag => self.tag.version_in(tag.as_str()),
            VersionPosition::Repository
            | VersionPosition::Nowhere
            | VersionPosition::Altered
            | VersionPosition::Condition => None,
        }
    }

    /// Returns the version that a repository, given with its registry, belongs to, or `None` if there is none or it
    /// cannot be determined.
    pub fn version_of_repository(&self, repository: &str) -> Option<Version> {
        match self.version_position() {
            VersionPosition::Repository => self.repository.version_in(repository).filter(Version::is_semantic),
            VersionPosition::Tag | VersionPosition::Nowhere | VersionPosition::Altered | VersionPosition::Condition => {
                None
            }
        }
    }

    /// Returns the name for another environment and version, or `None` if it cannot be determined.
    pub fn render(&self, environment: &str, version: &Version) -> Option<String> {
        let version = version.to_string();
        let parts = [&self.repository, &self.tag].map(|part| part.render(Some(environment), &version));
        match (parts, self.chosen.is_any()) {
            ([Some(repository), Some(tag)], false) => Some(format!("{repository}:{tag}")),
            _ => None,
        }
    }

    /// Returns the pattern of a name that two expressions produce. If their patterns differ, it is unknown what they
    /// would produce for another version.
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
