//! An image that a template declares, and how it is built.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use super::document::Node;
use super::usage::Usage;
use super::{Error, File};
use crate::SourceLocation;
use oci::Platform;

/// A value and where the template says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Where it stands; of a default, where the image is declared.
    pub place: SourceLocation,
}

/// An image that the template declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDefinition {
    /// The mapping's key, `BusyBoxService`; of an image that SAM declares, the logical id of the first function that uses it.
    pub key: Placed<String>,
    /// The repository's path below the registry: `exemplar-busybox`.
    pub image_name: Placed<String>,
    /// The Dockerfile, relative to the template's folder; `<context>/Dockerfile` where none is named.
    pub dockerfile: Placed<PathBuf>,
    /// The build context, relative to the template's folder; that folder where none is named.
    pub context: Placed<PathBuf>,
    /// The stage to build; none: the last.
    pub target: Option<Placed<String>>,
    /// The platforms to build; empty: those of what deploys it.
    pub platforms: Vec<Placed<Platform>>,
    /// `KEY`, `value`.
    pub build_args: Vec<Placed<(String, String)>>,
    /// What declares it.
    pub source: ImageSource,
}

/// What declares an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// A key of the mapping of this name.
    Mapping(String),
    /// SAM's `Metadata` of these functions, by logical id.
    Metadata(Vec<String>),
}

impl ImageDefinition {
    /// The platforms to build: the mapping's own, or else all that the usages run on or may run on. Empty: the template
    /// doesn't say.
    pub fn platforms_for<'u>(&self, usages: impl IntoIterator<Item = &'u Usage>) -> Vec<Platform> {
        let mut platforms: Vec<Platform> = match self.platforms.as_slice() {
            [] => usages.into_iter().flat_map(|usage| usage.runtime.possible().iter().cloned()).collect(),
            declared => declared.iter().map(|platform| platform.value.clone()).collect(),
        };
        platforms.sort();
        platforms.dedup();
        platforms
    }

    /// The same with paths that are relative to the folder of the template that nests its own.
    pub(super) fn seen_from(mut self, outer: &File) -> Self {
        let folder = |file: &Path| file.parent().map(Path::to_owned).unwrap_or_default();
        let (from, to) = (folder(&outer.display), folder(&self.key.place.file));
        if from != to {
            let up = from.components().map(|_| "..").collect::<PathBuf>();
            let place = |path: &PathBuf| normal(&up.join(&to).join(path));
            let below = |path: &PathBuf| match to.strip_prefix(&from) {
                Ok(way) => normal(&way.join(path)),
                Err(_) => place(path),
            };
            (self.context.value, self.dockerfile.value) = (below(&self.context.value), below(&self.dockerfile.value));
        }
        self
    }

    /// The same with paths from a folder on, to which they are relative.
    pub fn below(mut self, folder: &Path) -> Self {
        self.context.value = normal(&folder.join(&self.context.value));
        self.dockerfile.value = normal(&folder.join(&self.dockerfile.value));
        self
    }

    /// Whether another definition makes the same image, wherever it stands.
    pub fn is_built_as(&self, other: &Self) -> bool {
        let platforms = |image: &Self| image.platforms.iter().map(|p| p.value.clone()).collect::<Vec<_>>();
        let args = |image: &Self| image.build_args.iter().map(|arg| arg.value.clone()).collect::<Vec<_>>();
        let target = |image: &Self| image.target.as_ref().map(|target| target.value.clone());
        self.image_name.value == other.image_name.value
            && self.context.value == other.context.value
            && self.dockerfile.value == other.dockerfile.value
            && (platforms(self), args(self), target(self)) == (platforms(other), args(other), target(other))
    }
}

impl<T> Placed<T> {
    /// Another value at the same place.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Placed<U> {
        Placed { value: change(self.value), place: self.place }
    }
}

impl<T: fmt::Display> fmt::Display for Placed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// A string that is written out and not empty: mappings hold no functions.
pub(super) fn string(file: &File, node: &Node, name: &str) -> Result<Placed<String>, Error> {
    let place = file.place(node.mark);
    match node.text() {
        Some("") => Err(Error::invalid(place, format!("`{name}` is empty"))),
        Some(text) => Ok(Placed { value: text.to_owned(), place }),
        None => Err(Error::invalid(place, format!("`{name}` is {}, not a string", node.noun()))),
    }
}

/// A path without `.` and, where a folder precedes them, without `..`.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut parts: Vec<Component> = Vec::new();
    for part in path.components() {
        match (part, parts.last()) {
            (Component::CurDir, _) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => {
                parts.pop();
            }
            (Component::ParentDir, Some(Component::RootDir)) => {}
            _ => parts.push(part),
        }
    }
    if parts.is_empty() { PathBuf::from(".") } else { parts.into_iter().collect() }
}
