//! Images with the names that a deployment pulls them by.

use crate::SourceLocation;
use cfn_images::{NamePattern, Pin, Usage, Version};
use oci::{Digest, Reference, Tag};

/// A version in an environment.
#[derive(Debug, Clone, Copy)]
pub struct Release<'a> {
    /// The environment.
    pub environment: &'a str,
    /// The version.
    pub version: &'a Version,
}

/// An image with a name in an environment.
#[derive(Debug, Clone)]
pub struct Named {
    /// Its key in the mapping.
    pub key: String,
    /// Its name in the mapping.
    pub image: String,
    /// The reference that the deployment pulls.
    pub reference: Reference,
    /// The positions of environment and version in the name.
    pub pattern: NamePattern,
    /// The digest that a deployment is given, if it does not pull by the tag.
    pub pin: Option<Pin>,
    /// The resources that deploy it under this name.
    pub usages: Vec<Usage>,
    /// Whether the input `reference` gives the name although there is a template, and nothing in it deploys the image.
    pub is_given: bool,
    /// The location of the name in the template. If nothing deploys the image, that of its definition.
    pub source_location: SourceLocation,
}

/// A tag of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedTag {
    /// The tag.
    pub tag: Tag,
    /// The positions of environment and version in the tag.
    pub pattern: NamePattern,
}

impl Named {
    /// Returns what to tell if the template writes out the digest of another image.
    pub fn other_digest_warning(&self, digest: &Digest) -> Option<String> {
        let Some(Pin::Literal(written)) = &self.pin else { return None };
        let deployed = format!("{}@{written}", self.reference.repository_address());
        (*written != digest.to_string()).then(|| {
            format!("the template deploys it as `{deployed}`, which is another image (hint: let a parameter give the digest, and pass `{digest}`)")
        })
    }

    /// Returns the tag that a deployment pulls.
    pub fn tag(&self) -> NamedTag {
        NamedTag { tag: self.reference.tag.clone(), pattern: self.pattern.clone() }
    }
}
