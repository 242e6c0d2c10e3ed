//! The images that a template declares: its mapping, and SAM's metadata.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use super::document::{Entry, Kind, Mapping, Mark, Node};
use super::error::{one_line, suggestion};
use super::usages::Usage;
use super::{Error, File, Template, metadata};
use crate::SourceLocation;
use oci::{Platform, RepositoryName};

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
    pub source: Source,
}

/// What declares an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A key of the mapping of this name.
    Mapping(String),
    /// SAM's `Metadata` of these functions, by logical id.
    Metadata(Vec<String>),
}

/// What a key of the mapping may hold.
const ATTRIBUTES: [&str; 6] = ["imageName", "dockerfile", "context", "target", "platforms", "buildArgs"];

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
}

impl ImageDefinition {
    /// The same with paths that are relative to the folder of the template that nests its own.
    fn seen_from(mut self, outer: &File) -> Self {
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

impl Template {
    /// The images of the mapping, in its order, those of the mapping in each nested template, then those that SAM's
    /// metadata declares. Paths are relative to this template's folder.
    ///
    /// # Errors
    /// The mapping is missing or not of the documented form, or two templates mean different images by one key.
    pub fn images(&self, mapping: &str) -> Result<Vec<ImageDefinition>, Error> {
        let declared = metadata::images(self, mapping)?;
        let mut images: Vec<ImageDefinition> = Vec::new();
        let mut files = vec![&self.file];
        let mut is_there = false;
        while let Some(file) = files.pop() {
            files.extend(file.nested.values());
            let Some(entry) = file.section("Mappings").and_then(|mappings| mappings.get(mapping)) else { continue };
            is_there = true;
            let keys = mapping_of(file, &entry.value, mapping)?.entries();
            if keys.is_empty() && declared.is_empty() {
                return Err(Error::invalid(file.place(entry.mark), format!("mapping `{mapping}` has no images")));
            }
            for key in keys {
                let image = image(file, mapping, key)?.seen_from(&self.file);
                match images.iter().find(|known| known.key.value == image.key.value) {
                    // One template that is nested twice, or a mapping that was copied.
                    Some(known) if known.is_built_as(&image) => {}
                    Some(known) => {
                        let message = format!("two templates define the image `{}`", image.key);
                        return Err(Error::hinted(
                            image.key.place,
                            message,
                            format!("the other is at {}", known.key.place),
                        ));
                    }
                    None => images.push(image),
                }
            }
        }
        if !is_there && declared.is_empty() {
            return Err(self.no_mapping(mapping));
        }
        images.extend(declared);
        Ok(images)
    }

    fn no_mapping(&self, mapping: &str) -> Error {
        let section = self.file.root.get("Mappings");
        let known =
            section.and_then(|section| section.as_mapping()).map(|mappings| mappings.entries()).unwrap_or_default();
        let hint = match known {
            [] => "add it: it says which images there are and how to build them".to_owned(),
            known => suggestion(mapping, known.iter().map(|entry| entry.key.as_str()), "mappings"),
        };
        let mark = section.map_or(Mark { line: 1, column: 1 }, |section| section.mark);
        Error::UnknownMapping { name: one_line(mapping), place: self.file.place(mark), hint: one_line(&hint) }
    }
}

fn image(file: &File, mapping: &str, entry: &Entry) -> Result<ImageDefinition, Error> {
    let key = &entry.key;
    let place = file.place(entry.mark);
    let name = format!("{mapping}.{key}");
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return Err(Error::invalid(place, format!("mapping key `{key}` has other characters than letters and digits")));
    }
    let attributes = mapping_of(file, &entry.value, &name)?;
    for attribute in attributes.entries() {
        if !ATTRIBUTES.contains(&attribute.key.as_str()) {
            let message = format!("`{name}` has an unknown key `{}`", attribute.key);
            let hint = suggestion(&attribute.key, ATTRIBUTES, "keys");
            return Err(Error::hinted(file.place(attribute.mark), message, hint));
        }
    }
    let one = |attribute: &str| -> Result<Option<Placed<String>>, Error> {
        let Some(node) = attributes.get(attribute).map(|entry| entry.value.as_ref()) else { return Ok(None) };
        string(file, node, &format!("{name}.{attribute}")).map(Some)
    };
    let Some(image_name) = one("imageName")? else {
        let hint = format!("add `imageName: {}`, the repository's path below the registry", key.to_lowercase());
        return Err(Error::hinted(place, format!("`{name}` has no `imageName`"), hint));
    };
    if let Err(invalid) = image_name.value.parse::<RepositoryName>() {
        return Err(Error::invalid(image_name.place, invalid.to_string()));
    }
    let default = |path: PathBuf| Placed { value: path, place: place.clone() };
    let context =
        one("context")?.map_or_else(|| default(".".into()), |given| given.map(|path| normal(Path::new(&path))));
    let dockerfile = one("dockerfile")?;
    let dockerfile = dockerfile.map_or_else(
        || default(normal(&context.value.join("Dockerfile"))),
        |given| given.map(|path| normal(Path::new(&path))),
    );
    let list = |attribute: &str| match attributes.get(attribute) {
        Some(entry) => strings(file, &entry.value, &format!("{name}.{attribute}")),
        None => Ok(Vec::new()),
    };
    Ok(ImageDefinition {
        key: Placed { value: key.clone(), place: place.clone() },
        image_name,
        dockerfile,
        context,
        target: one("target")?,
        platforms: platforms(list("platforms")?)?,
        build_args: list("buildArgs")?.into_iter().map(build_arg).collect::<Result<_, _>>()?,
        source: Source::Mapping(mapping.to_owned()),
    })
}

fn platforms(given: Vec<Placed<String>>) -> Result<Vec<Placed<Platform>>, Error> {
    let mut platforms: Vec<Placed<Platform>> = Vec::new();
    for Placed { value, place } in given {
        for word in value.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let platform: Platform =
                word.parse().map_err(|e: oci::InvalidPlatform| Error::invalid(place.clone(), e.to_string()))?;
            if !platforms.iter().any(|known| known.value == platform) {
                platforms.push(Placed { value: platform, place: place.clone() });
            }
        }
    }
    Ok(platforms)
}

fn build_arg(given: Placed<String>) -> Result<Placed<(String, String)>, Error> {
    match given.value.split_once('=').filter(|(key, _)| !key.trim().is_empty()) {
        Some((key, value)) => Ok(Placed { value: (key.trim().to_owned(), value.to_owned()), place: given.place }),
        None => Err(Error::invalid(given.place, format!("build argument `{}` is not KEY=value", given.value))),
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

fn mapping_of<'n>(file: &File, node: &'n Node, name: &str) -> Result<&'n Mapping, Error> {
    match (node.as_mapping(), node.intrinsic()) {
        (Some(mapping), None) => Ok(mapping),
        _ => Err(Error::invalid(file.place(node.mark), format!("`{name}` is {}, not a mapping", node.noun()))),
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

fn strings(file: &File, node: &Node, name: &str) -> Result<Vec<Placed<String>>, Error> {
    match &node.kind {
        Kind::Sequence(items) => items.iter().map(|item| string(file, item, name)).collect(),
        _ => Ok(vec![string(file, node, name)?]),
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
