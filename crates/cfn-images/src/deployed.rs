//! Matches usages to the images that they deploy.

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
        let mut found: Vec<(&ImageDefinition, &Usage)> = Vec::new();
        for usage in usages {
            found.extend(image_of(images, usage)?.map(|image| (image, usage)));
        }
        let mut all: Vec<Deployed> = Vec::new();
        for (image, usage) in found.iter().filter(|(image, usage)| !is_of_other(image, usage, &found)) {
            let (key, reference) = (image.key.value.clone(), usage.reference.clone());
            Deployed { key, reference, usages: vec![(*usage).clone()] }.join(&mut all);
        }
        Ok(all)
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
        const SEPARATORS: [char; 4] = ['/', '-', '_', '.'];
        self.environments.iter().any(|environment| {
            path.match_indices(environment.as_str()).any(|(at, _)| {
                let (before, after) = (&path[..at], &path[at + environment.len()..]);
                // `app-dev`, and `dev-app` or `team/dev-app`.
                let shorter = match (before.chars().last(), after.chars().next()) {
                    (Some(c), None) if SEPARATORS.contains(&c) => before[..before.len() - 1].to_owned(),
                    (Some(c), Some(d)) if SEPARATORS.contains(&c) && SEPARATORS.contains(&d) => {
                        format!("{before}{}", &after[1..])
                    }
                    (None, Some(d)) if SEPARATORS.contains(&d) => after[1..].to_owned(),
                    _ => return false,
                };
                ends_with(&shorter, name)
            })
        })
    }
}

impl Deployed {
    /// Merges this entry into a list that has one entry for each image and reference.
    pub fn join(self, all: &mut Vec<Self>) {
        match all.iter_mut().find(|known| known.key == self.key && same(&known.reference, &self.reference)) {
            Some(known) => {
                if let (Ok(known), Ok(other)) = (&mut known.reference, &self.reference) {
                    known.pattern = known.pattern.clone().joined(&other.pattern);
                }
                known.usages.extend(self.usages);
            }
            None => all.push(self),
        }
    }
}

/// Returns whether two references are the same, apart from whether `latest` is written out.
fn same(one: &Result<EvaluatedReference, Unresolved>, other: &Result<EvaluatedReference, Unresolved>) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => (&one.repository, &one.tag, &one.pin) == (&other.repository, &other.tag, &other.pin),
        (one, other) => one == other,
    }
}

/// Returns the image that a usage deploys. What the expression read from the mapping decides first, then SAM's
/// metadata, then the name of the repository.
pub(super) fn image_of<'i>(images: &'i [ImageDefinition], usage: &Usage) -> Result<Option<&'i ImageDefinition>, Error> {
    let reads = |image: &ImageDefinition, matches: &dyn Fn(&MappingRead) -> bool| match &image.source {
        ImageSource::Mapping(mapping) => {
            usage.reads.iter().any(|read| read.mapping == *mapping && read.key == image.key.value && matches(read))
        }
        ImageSource::Metadata(_) => false,
    };
    let by_name: Vec<&ImageDefinition> =
        images.iter().filter(|image| reads(image, &|r| r.attribute == "imageName")).collect();
    let by_key: Vec<&ImageDefinition> = images.iter().filter(|image| reads(image, &|_| true)).collect();
    let candidates = if by_name.is_empty() { by_key } else { by_name };
    if let [image] = candidates.as_slice() {
        return Ok(Some(image));
    }
    if usage.metadata && candidates.is_empty() {
        let declares = |image: &&ImageDefinition| matches!(&image.source, ImageSource::Metadata(functions) if functions.contains(&usage.resource));
        return Ok(images.iter().find(declares));
    }
    let among: Vec<&ImageDefinition> = if candidates.is_empty() { images.iter().collect() } else { candidates };
    let mut matching: Vec<&ImageDefinition> =
        among.iter().copied().filter(|image| is_suffix(usage, &image.image_name.value)).collect();
    if let (true, Some(path)) = (matching.is_empty(), &usage.path) {
        matching = among.into_iter().filter(|image| usage.without_environment(path, &image.image_name.value)).collect();
    }
    match matching.as_slice() {
        [] => Ok(None),
        [image] => Ok(Some(image)),
        several => {
            let keys: Vec<&str> = several.iter().map(|image| image.key.value.as_str()).collect();
            Err(Error::hinted(
                usage.source_location.clone(),
                format!("this may be any of the images {}", super::error::listed(&keys)),
                "take the name from the mapping: !FindInMap [mapping, key, imageName]",
            ))
        }
    }
}

/// Returns whether a usage only ends in the name of the image, as `vendor/agent` in `agent`, and others tell the image's
/// repository: those that read its name from the mapping, or else those with nothing before it.
fn is_of_other(image: &ImageDefinition, usage: &Usage, found: &[(&ImageDefinition, &Usage)]) -> bool {
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
    let of_image = || found.iter().filter(|(other, _)| other.key.value == image.key.value).map(|(_, usage)| *usage);
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
