//! Images with the names that a deployment calls them by.

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
    /// What the deployment calls it.
    pub reference: Reference,
    /// Where environment and version stand in this name.
    pub pattern: NamePattern,
    /// What deploys it under this name.
    pub usages: Vec<Usage>,
    /// Where the name, or else the image, is written.
    pub place: SourceLocation,
}

/// A tag of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedTag {
    /// The tag.
    pub tag: Tag,
    /// It belongs to one version, and so never moves to another image.
    pub is_of_version: bool,
}

impl Named {
    /// The tag that a deployment pulls.
    pub fn tag(&self) -> NamedTag {
        NamedTag { tag: self.reference.tag.clone(), is_of_version: self.pattern.is_of_version() }
    }
}
