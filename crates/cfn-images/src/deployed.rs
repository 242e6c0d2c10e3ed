//! Matches usages to the images that they deploy.

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
        let mut all: Vec<Deployed> = Vec::new();
        for usage in usages {
            let Some(image) = image_of(images, usage)? else { continue };
            let (key, reference) = (image.key.value.clone(), usage.reference.clone());
            Deployed { key, reference, usages: vec![usage.clone()] }.join(&mut all);
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
        let name = format!("/{}", image.image_name.value);
        // What follows the last unknown part is known.
        let may_be = |path: &String| {
            let end = path.rsplit_once('?').map(|(_, end)| end);
            end.is_some_and(|end| name.ends_with(end) || end.ends_with(&name))
        };
        let is_wrong = !self.mistakes.is_empty() || self.metadata;
        self.reference.is_err() && !is_wrong && self.path.as_ref().is_none_or(may_be)
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
        (Ok(one), Ok(other)) => {
            (&one.repository, &one.tag, &one.digest) == (&other.repository, &other.tag, &other.digest)
        }
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
    let matching: Vec<&ImageDefinition> =
        among.into_iter().filter(|image| is_suffix(usage, &image.image_name.value)).collect();
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

/// Returns whether the usage's repository has this name, below any registry.
fn is_suffix(usage: &Usage, name: &str) -> bool {
    let prefix = usage.path.as_deref().and_then(|path| path.strip_suffix(name));
    prefix.is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('/'))
}
