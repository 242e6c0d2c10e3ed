//! An image that a template declares, and how it is built.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use super::document::Node;
use super::usage::Usage;
use super::{Error, File};
use crate::SourceLocation;
use oci::Platform;

/// A value with its location in the template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// The location. For a default, that of the image's declaration.
    pub source_location: SourceLocation,
}

/// An image that the template declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDefinition {
    /// The mapping's key, such as `BusyBoxService`. For an image that SAM's metadata declares, its `ImageKey`, or the
    /// logical ID of the first function that uses it.
    pub key: Placed<String>,
    /// The repository's path below the registry: `exemplar-busybox`.
    pub image_name: Placed<String>,
    /// The Dockerfile, relative to the template's folder. Defaults to `<context>/Dockerfile`.
    pub dockerfile: Placed<PathBuf>,
    /// The build context, relative to the template's folder, which is the default.
    pub context: Placed<PathBuf>,
    /// The stage to build. Without one, the last stage is built.
    pub target: Option<Placed<String>>,
    /// The platforms to build. If empty, the image is built for the platforms of the resources that deploy it.
    pub platforms: Vec<Placed<Platform>>,
    /// Build arguments: key and value.
    pub build_args: Vec<Placed<(String, String)>>,
    /// What declares the image.
    pub source: ImageSource,
}

/// What declares an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// A key of the mapping with this name.
    Mapping(String),
    /// SAM's `Metadata` of the functions with these logical IDs.
    Metadata(Vec<String>),
}

impl ImageDefinition {
    /// Returns the platforms to build: those of the mapping or, without any, all platforms that the usages run on or
    /// may run on. Empty if the template does not say.
    pub fn platforms_for<'u>(&self, usages: impl IntoIterator<Item = &'u Usage>) -> Vec<Platform> {
        let mut platforms: Vec<Platform> = match self.platforms.as_slice() {
            [] => usages.into_iter().flat_map(|usage| usage.runtime.possible().iter().cloned()).collect(),
            declared => declared.iter().map(|platform| platform.value.clone()).collect(),
        };
        platforms.sort();
        platforms.dedup();
        platforms
    }

    /// Decides the platforms of usages about which the template cannot say them: those of the mapping or, if the type of
    /// resource has no default either, those of all usages of the image.
    pub fn settle_platforms(&self, usages: &mut [Usage], all: &[Usage]) {
        let settled = self.platforms_for(all);
        for Usage { runtime, .. } in usages.iter_mut().filter(|usage| usage.runtime.open) {
            if !settled.is_empty() && (runtime.platforms.is_empty() || !self.platforms.is_empty()) {
                runtime.platforms.clone_from(&settled);
                runtime.unresolved = None;
            }
        }
    }

    /// Makes the paths relative to the folder of an outer template.
    pub(super) fn relative_to(mut self, outer: &File) -> Self {
        let folder = |file: &Path| file.parent().map(Path::to_owned).unwrap_or_default();
        let (from, to) = (folder(&outer.display), folder(&self.key.source_location.file));
        if from != to {
            let up = from.components().map(|_| "..").collect::<PathBuf>();
            let source_location = |path: &PathBuf| normalized(&up.join(&to).join(path));
            let below = |path: &PathBuf| match to.strip_prefix(&from) {
                Ok(way) => normalized(&way.join(path)),
                Err(_) => source_location(path),
            };
            (self.context.value, self.dockerfile.value) = (below(&self.context.value), below(&self.dockerfile.value));
        }
        self
    }

    /// Prefixes the paths with a folder.
    pub fn below(mut self, folder: &Path) -> Self {
        self.context.value = normalized(&folder.join(&self.context.value));
        self.dockerfile.value = normalized(&folder.join(&self.dockerfile.value));
        self
    }

    /// Returns whether another definition builds the same image, wherever it is declared.
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
    /// Replaces the value and keeps the location.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Placed<U> {
        Placed { value: change(self.value), source_location: self.source_location }
    }
}

impl<T: fmt::Display> fmt::Display for Placed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// Reads a literal string that is not empty. Mappings cannot contain functions.
pub(super) fn string(file: &File, node: &Node, name: &str) -> Result<Placed<String>, Error> {
    let source_location = file.source_location(node.mark);
    match node.text() {
        Some("") => Err(Error::invalid(source_location, format!("`{name}` is empty"))),
        Some(text) => Ok(Placed { value: text.to_owned(), source_location }),
        None => Err(Error::invalid(source_location, format!("`{name}` is {}, not a string", node.noun()))),
    }
}

/// Removes `.` components, and `..` components together with the folder before them.
pub(super) fn normalized(path: &Path) -> PathBuf {
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
