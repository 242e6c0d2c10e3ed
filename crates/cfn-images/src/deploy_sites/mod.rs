//! The properties in which resource types name their images, and what decides the platform of each type.

mod platforms;
mod table;

use std::fmt;

pub(super) use platforms::PlatformRule;
use table::TABLE;

/// A property in which a resource type names an image.
#[derive(Debug)]
pub(super) struct DeploySite {
    /// The type in a template.
    pub(super) resource_type: &'static str,
    /// The path from `Properties` to the object that names the image. `*` stands for each item of a list, or each value
    /// of a map.
    pub(super) path: &'static [&'static str],
    /// The property with the image's name.
    pub(super) image: &'static str,
    /// The property with the container's name.
    pub(super) name: Option<&'static str>,
}

/// The section of outputs, and the kind of its entries.
pub(super) const OUTPUTS: &str = "Outputs";

/// The type of a resource that names an image, such as `AWS::ECS::TaskDefinition`, or `Outputs` for an output.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKind(String);

impl ResourceKind {
    pub(super) fn new(resource_type: &str) -> Self {
        Self(resource_type.to_owned())
    }

    /// Returns the type as templates write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is_output(&self) -> bool {
        self.as_str() == OUTPUTS
    }

    /// Returns whether the service accepts only a single manifest, and no index.
    pub(super) fn takes_single_manifest(&self) -> bool {
        // Lambda's documentation: a function's image has one architecture, and multi-architecture images are not
        // supported.
        matches!(self.as_str(), "AWS::Serverless::Function" | "AWS::Lambda::Function")
    }

    /// Returns the properties in which resources of this type name images.
    pub(super) fn sites(&self) -> &'static [DeploySite] {
        let start = TABLE.partition_point(|site| site.resource_type < self.as_str());
        let end = TABLE.partition_point(|site| site.resource_type <= self.as_str());
        &TABLE[start..end]
    }

    /// Returns what decides the platform of an image in one of the [sites](Self::sites).
    pub(super) fn platform_rule(&self) -> PlatformRule {
        platforms::rule(self.as_str())
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
