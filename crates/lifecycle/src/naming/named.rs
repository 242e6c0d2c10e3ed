//! Images with the names that a deployment pulls them by.

use crate::SourceLocation;
use cfn_images::{NamePattern, Usage, Version};
use oci::{Reference, Tag};

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
    /// The resources that deploy it under this name.
    pub usages: Vec<Usage>,
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
    /// Returns the tag that a deployment pulls.
    pub fn tag(&self) -> NamedTag {
        NamedTag { tag: self.reference.tag.clone(), pattern: self.pattern.clone() }
    }
}
