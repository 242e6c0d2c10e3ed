//! Matches usages to the images that they deploy.

use std::collections::{BTreeSet, HashMap};

use super::given::may_be_path;
use super::image_definition::{ImageDefinition, ImageSource};
use super::reference::EvaluatedReference;
use super::usage::Usage;
use super::value::{MappingRead, Unresolved};
use super::{Error, Template};

/// A reference under which an image is deployed, and the usages that deploy it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// The image's key.
    pub key: String,
    /// The reference, or why it cannot be decided.
    pub reference: Result<EvaluatedReference, Unresolved>,
    /// The usages that deploy the image under this reference.
    pub usages: Vec<Usage>,
}

impl Template {
    /// Returns the references under which the images are deployed, one entry for each image and reference, in the
    /// order of the usages. Usages of other images are left out.
    ///
    /// # Errors
    /// Returns an error if a usage may mean several images.
    pub fn deployed(&self, images: &[ImageDefinition], usages: &[Usage]) -> Result<Vec<Deployed>, Error> {
        let images = ImageIndex::of(images);
        let mut found: Vec<(&ImageDefinition, &Usage)> = Vec::new();
        let mut by_key: HashMap<&str, Vec<&Usage>> = HashMap::new();
        for usage in usages {
            if let Some(image) = images.image_of(usage)? {
                found.push((image, usage));
                by_key.entry(image.key.value.as_str()).or_default().push(usage);
            }
        }
        let of_image = |image: &ImageDefinition| by_key.get(image.key.value.as_str()).map(Vec::as_slice);
        let kept =
            found.into_iter().filter(|(image, usage)| !is_of_other(image, usage, of_image(image).unwrap_or_default()));
        Ok(Deployed::joined(kept.map(|(image, usage)| {
            let (key, reference) = (image.key.value.clone(), usage.reference.clone());
            Deployed { key, reference, usages: vec![usage.clone()] }
        })))
    }
}

impl Usage {
    /// Returns whether this usage may deploy the image, because more conditions than are tried decide which image it
    /// is.
    pub fn may_be(&self, image: &ImageDefinition) -> bool {
        self.any && self.path.as_ref().is_none_or(|path| path.contains('?') || is_suffix(self, &image.image_name.value))
    }

    /// Returns whether this usage may deploy the image, because the name of its repository is not known.
    pub fn is_unknown_and_may_be(&self, image: &ImageDefinition) -> bool {
        let is_open = self.path.as_ref().is_none_or(|path| path.contains('?'));
        let name = &image.image_name.value;
        let may_be = |path: &str| may_be_path(path, name) || self.without_environment(path, name);
        // An unclear name already belongs to one image.
        let is_wrong = !self.mistakes.is_empty() || self.metadata || self.place.is_unclear();
        self.reference.is_err() && is_open && !is_wrong && self.path.as_deref().is_none_or(may_be)
    }

    /// Returns whether the repository has this name apart from the name of an environment: `dev-app` and `app`.
    fn without_environment(&self, path: &str, name: &str) -> bool {
        self.paths_without_environment(path).iter().any(|shorter| ends_with(shorter, name))
    }

    /// Returns the path without the name of an environment in it, if it has one.
    fn paths_without_environment(&self, path: &str) -> Vec<String> {
        const SEPARATORS: [char; 4] = ['/', '-', '_', '.'];
        let of_environment = |environment: &String| {
            let shortened = path.match_indices(environment.as_str()).filter_map(|(at, _)| {
                let (before, after) = (&path[..at], &path[at + environment.len()..]);
                // `app-dev`, and `dev-app` or `team/dev-app`.
                match (before.chars().last(), after.chars().next()) {
                    (Some(c), None) if SEPARATORS.contains(&c) => Some(before[..before.len() - 1].to_owned()),
                    (Some(c), Some(d)) if SEPARATORS.contains(&c) && SEPARATORS.contains(&d) => {
                        Some(format!("{before}{}", &after[1..]))
                    }
                    (None, Some(d)) if SEPARATORS.contains(&d) => Some(after[1..].to_owned()),
                    _ => None,
                }
            });
            shortened.collect::<Vec<_>>()
        };
        self.environments.iter().flat_map(of_environment).collect()
    }
}

impl Deployed {
    /// Merges entries into a list that has one entry for each image and reference.
    pub fn joined(entries: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        let mut positions: HashMap<String, Vec<usize>> = HashMap::new();
        for entry in entries {
            let of_image = positions.entry(entry.key.clone()).or_default();
            match of_image.iter().find(|position| same(&all[**position].reference, &entry.reference)) {
                Some(position) => {
                    let known = &mut all[*position];
                    if let (Ok(known), Ok(other)) = (&mut known.reference, &entry.reference) {
                        known.pattern = known.pattern.clone().joined(&other.pattern);
                    }
                    known.usages.extend(entry.usages);
                }
                None => {
                    of_image.push(all.len());
                    all.push(entry);
                }
            }
        }
        all
    }
}

/// Returns whether two references are the same, apart from whether `latest` is written out.
fn same(one: &Result<EvaluatedReference, Unresolved>, other: &Result<EvaluatedReference, Unresolved>) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => (&one.repository, &one.tag, &one.pin) == (&other.repository, &other.tag, &other.pin),
        (one, other) => one == other,
    }
}

/// The images of a template by key and by name, so that not every image is compared with every usage.
pub(super) struct ImageIndex<'i> {
    images: &'i [ImageDefinition],
    /// Positions in `images`, in ascending order.
    by_key: HashMap<&'i str, Vec<usize>>,
    by_name: HashMap<&'i str, Vec<usize>>,
    /// By the functions whose SAM metadata declares the image.
    by_function: HashMap<&'i str, usize>,
}

impl<'i> ImageIndex<'i> {
    pub(super) fn of(images: &'i [ImageDefinition]) -> Self {
        let mut index = Self { images, by_key: HashMap::new(), by_name: HashMap::new(), by_function: HashMap::new() };
        for (position, image) in images.iter().enumerate() {
            index.by_key.entry(image.key.value.as_str()).or_default().push(position);
            index.by_name.entry(image.image_name.value.as_str()).or_default().push(position);
            if let ImageSource::Metadata(functions) = &image.source {
                functions.iter().for_each(|function| {
                    index.by_function.entry(function.as_str()).or_insert(position);
                });
            }
        }
        index
    }

    /// Returns the image that a usage deploys. What the expression read from the mapping decides first, then SAM's
    /// metadata, then the name of the repository.
    pub(super) fn image_of(&self, usage: &Usage) -> Result<Option<&'i ImageDefinition>, Error> {
        let by_name = self.read_by(usage, |read| read.attribute == "imageName");
        let candidates = if by_name.is_empty() { self.read_by(usage, |_| true) } else { by_name };
        if candidates.len() == 1 {
            return Ok(self.first(&candidates));
        }
        if usage.metadata && candidates.is_empty() {
            let declared = self.by_function.get(usage.resource.as_str());
            return Ok(declared.map(|position| &self.images[*position]));
        }
        let among = |named: BTreeSet<usize>| match candidates.is_empty() {
            true => named,
            false => named.intersection(&candidates).copied().collect(),
        };
        let mut matching = among(usage.path.iter().flat_map(|path| self.named_at_end(path)).collect());
        if let (true, Some(path)) = (matching.is_empty(), &usage.path) {
            let shorter = usage.paths_without_environment(path);
            matching = among(shorter.iter().flat_map(|path| self.named_at_end(path)).collect());
        }
        if matching.len() <= 1 {
            return Ok(self.first(&matching));
        }
        let keys: Vec<&str> = matching.iter().map(|position| self.images[*position].key.value.as_str()).collect();
        Err(Error::hinted(
            usage.source_location.clone(),
            format!("this may be any of the images {}", super::error::listed(&keys)),
            "take the name from the mapping: !FindInMap [mapping, key, imageName]",
        ))
    }

    fn first(&self, positions: &BTreeSet<usize>) -> Option<&'i ImageDefinition> {
        positions.first().map(|position| &self.images[*position])
    }

    /// Returns the images of which a usage read something that `matches` from their mapping.
    fn read_by(&self, usage: &Usage, matches: impl Fn(&MappingRead) -> bool) -> BTreeSet<usize> {
        let positions = |read: &MappingRead| {
            let with_key = self.by_key.get(read.key.as_str()).map(Vec::as_slice).unwrap_or_default();
            let is_of_mapping = |position: &usize| match &self.images[*position].source {
                ImageSource::Mapping(mapping) => *mapping == read.mapping,
                ImageSource::Metadata(_) => false,
            };
            with_key.iter().copied().filter(is_of_mapping).collect::<Vec<_>>()
        };
        usage.reads.iter().filter(|read| matches(read)).flat_map(positions).collect()
    }

    /// Returns the images whose name a path ends with, below any registry.
    fn named_at_end(&self, path: &str) -> impl Iterator<Item = usize> {
        ends(path).flat_map(|end| self.by_name.get(end).map(Vec::as_slice).unwrap_or_default()).copied()
    }
}

/// Returns the parts of a path that begin at its start or after a slash, and reach to its end.
pub(super) fn ends(path: &str) -> impl Iterator<Item = &str> {
    [path].into_iter().chain(path.match_indices('/').map(|(slash, _)| &path[slash + 1..]))
}

/// Returns whether a usage only ends in the name of the image, as `vendor/agent` in `agent`, and others tell the image's
/// repository: those that read its name from the mapping, or else those with nothing before it. `of_image` are the
/// image's usages.
fn is_of_other(image: &ImageDefinition, usage: &Usage, of_image: &[&Usage]) -> bool {
    let is_read = |usage: &Usage| {
        let of_image = |read: &MappingRead| {
            matches!(&image.source, ImageSource::Mapping(mapping) if *mapping == read.mapping)
                && read.key == image.key.value
        };
        usage.metadata || usage.reads.iter().any(of_image)
    };
    let is_whole = |usage: &Usage| usage.path.as_deref() == Some(image.image_name.value.as_str());
    if is_read(usage) || is_whole(usage) || usage.path.is_none() {
        return false;
    }
    let of_image = || of_image.iter().copied();
    let is_known = |usage: &&Usage| usage.path.as_deref().is_some_and(|path| !path.contains('?'));
    let read: Vec<&Usage> = of_image().filter(|usage| is_read(usage)).filter(is_known).collect();
    let certain = if read.is_empty() { of_image().filter(|usage| is_whole(usage)).collect() } else { read };
    !certain.is_empty() && certain.iter().all(|certain| certain.path != usage.path)
}

/// Returns whether the usage's repository has this name, below any registry.
fn is_suffix(usage: &Usage, name: &str) -> bool {
    usage.path.as_deref().is_some_and(|path| ends_with(path, name))
}

fn ends_with(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('/'))
}
