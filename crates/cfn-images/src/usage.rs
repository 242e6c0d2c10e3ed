//! A place where a template deploys an image, and the platforms that it runs on.

use std::collections::BTreeSet;

use super::deploy_sites::ResourceKind;
use super::reference::{EvaluatedReference, RegistryPart};
use super::value::{MappingRead, Need, Unresolved};
use crate::SourceLocation;
use oci::Platform;

/// A place in the template where an image is deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The resource's logical ID. In a nested template, it follows the ID of the nesting resource: `Service/Task`.
    pub resource: String,
    /// The kind of resource.
    pub kind: ResourceKind,
    /// The kind of place in the resource.
    pub place: UsagePlace,
    /// The container's name, if it has one and it is known.
    pub container: Option<String>,
    /// The location of the image's expression.
    pub source_location: SourceLocation,
    /// The evaluated expression, with [`Context::stand_in`](crate::Context::stand_in) in place of its registry part.
    pub reference: Result<EvaluatedReference, Unresolved>,
    /// Mistakes in the expression, such as a key that is not in the mapping.
    pub mistakes: Vec<Unresolved>,
    /// The leading part of the expression that a registry can replace.
    pub registry_part: Option<RegistryPart>,
    /// The repository's path below the registry, such as `team/app`. It may be known even if the reference is not.
    /// Unknown parts are `?`.
    pub path: Option<String>,
    /// The environments whose names the path may contain. `?` in it may be the environment too if it is one of them.
    pub environments: Vec<String>,
    /// Why the repository's name is not known, apart from its registry.
    pub missing: Option<Unresolved>,
    /// The known and the missing parts of the expression.
    pub(super) pieces: Vec<Piece>,
    /// The values that the expression read from mappings.
    pub reads: BTreeSet<MappingRead>,
    /// The missing values that the reference depends on.
    pub needs: BTreeSet<Need>,
    /// The platforms that it runs on.
    pub runtime: Runtime,
    /// A condition that cannot be decided. The image may not be deployed at all.
    pub undecided: Option<Unresolved>,
    /// Whether this may be any image, because more conditions than are tried decide which one.
    pub any: bool,
    /// Whether SAM builds the image according to the function's metadata.
    pub metadata: bool,
}

/// The kind of place in which an image's name stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsagePlace {
    /// A property in which this type of resource names an image that it runs.
    DeploySite,
    /// Another property or output, which takes the name from the mapping.
    Reader,
    /// A property that takes the name from the mapping, and may deploy the image under a name that cannot be evaluated.
    Unclear,
    /// A property that contains the name alone, and may deploy the image under a name that cannot be evaluated.
    Mention,
}

impl UsagePlace {
    /// Returns whether the image may be deployed there under a name that cannot be evaluated, or not at all.
    pub fn is_unclear(self) -> bool {
        matches!(self, Self::Unclear | Self::Mention)
    }
}

/// The platforms that a usage runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The platforms. Empty if they cannot be decided.
    pub platforms: Vec<Platform>,
    /// The platforms that it may run on, if they cannot be decided and are known.
    pub alternatives: Vec<Platform>,
    /// The location of the declaration, or that of the resource.
    pub source_location: SourceLocation,
    /// Whether the template declares the platforms or the service has only one. Otherwise they are a default.
    pub certain: bool,
    /// Whether nothing in the template can say the platforms: the mapping does, or other resources that run the image.
    pub open: bool,
    /// Why the platforms cannot be decided.
    pub unresolved: Option<Unresolved>,
}

/// A part of an image's expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Known(String),
    /// The value of this name is missing: of a parameter, `export:NAME`, or a placeholder.
    Missing(String),
    /// The value of this parameter is looked up by the name of an SSM parameter.
    LookedUp(String),
    /// Something that this part depends on is missing.
    Behind(Option<Need>),
}

/// Stands for a missing piece in the text of an expression.
pub(super) const MISSING: char = '\u{0}';

impl Runtime {
    /// Returns the platforms, or the alternatives if they cannot be decided.
    pub fn possible(&self) -> &[Platform] {
        if self.platforms.is_empty() { &self.alternatives } else { &self.platforms }
    }
}

impl Usage {
    /// Marks the usage as one of several, of which it cannot be decided which one applies.
    pub(super) fn one_of_several(self, why: &Unresolved) -> Self {
        let mut needs = self.needs;
        needs.extend(why.need.clone());
        Self { needs, reference: Err(why.clone()), undecided: self.undecided.or_else(|| Some(why.clone())), ..self }
    }

    /// Returns the reference with a registry in place of its registry part. Without such a part, returns it unchanged.
    ///
    /// # Errors
    /// Returns an error if another part of the reference is unknown.
    pub fn with_registry(&self, registry: &str) -> Result<EvaluatedReference, Unresolved> {
        match &self.registry_part {
            Some(registry_part) => registry_part.with_registry(registry, &self.source_location),
            None => self.reference.clone(),
        }
    }

    /// Returns why the image is not known, if it is not.
    pub fn why_unknown(&self) -> Option<&Unresolved> {
        self.missing.as_ref().or(self.reference.as_ref().err())
    }

    /// Returns whether the service accepts only a single manifest, and no index.
    pub fn takes_single_manifest(&self) -> bool {
        self.place == UsagePlace::DeploySite && self.kind.takes_single_manifest()
    }

    /// Returns whether this is an output of the template, and not a resource.
    pub fn is_output(&self) -> bool {
        self.kind.is_output()
    }

    /// Returns the keys of a mapping that the expression read.
    pub fn keys<'u>(&'u self, mapping: &'u str) -> impl Iterator<Item = &'u str> {
        self.reads.iter().filter(move |read| read.mapping == mapping).map(|read| read.key.as_str())
    }
}

impl Piece {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Known(text) => text.clone(),
            Self::Missing(_) | Self::Behind(_) | Self::LookedUp(_) => MISSING.to_string(),
        }
    }
}
