//! A place where a template deploys an image, and the platforms that it runs on.

use std::collections::BTreeSet;

use super::reference::{EvaluatedReference, Lead};
use super::shapes::ResourceKind;
use super::value::{MappingRead, Need, Unresolved};
use crate::SourceLocation;
use oci::Platform;

/// A place in the template where an image is deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The resource's logical id; in a nested template after the nesting resource's, `Service/Task`.
    pub resource: String,
    /// What kind of resource it is.
    pub kind: ResourceKind,
    /// The container's name, where it has one that is known.
    pub container: Option<String>,
    /// The image's expression.
    pub place: SourceLocation,
    /// What the expression says, with [`Context::stand_in`] in place of its lead.
    pub reference: Result<EvaluatedReference, Unresolved>,
    /// What the template gets wrong in the expression, as a key that no mapping has.
    pub mistakes: Vec<Unresolved>,
    /// The value that leads the expression, if one does.
    pub lead: Option<Lead>,
    /// The repository's path below the registry, which may be known where the reference is not: `team/app`. What is not
    /// known of it is `?`.
    pub path: Option<String>,
    /// What the expression read from mappings.
    pub reads: BTreeSet<MappingRead>,
    /// The values that are missing to decide the reference.
    pub needs: BTreeSet<Need>,
    /// What it runs on.
    pub runtime: Runtime,
    /// A condition that can't be decided: it may not be deployed at all.
    pub undecided: Option<Unresolved>,
    /// More conditions decide which image it is than are tried: it may be any.
    pub any: bool,
    /// SAM builds the image by the function's metadata: the logical id, in the outermost template.
    pub metadata: bool,
}

/// The platforms that a usage runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The platforms; empty where they can't be decided.
    pub platforms: Vec<Platform>,
    /// Where they can't be decided, those that it may run on, as far as they can be told.
    pub alternatives: Vec<Platform>,
    /// Where the template says so, or else the resource.
    pub place: SourceLocation,
    /// The template says so, or the service has no other; not a mere default.
    pub certain: bool,
    /// Why they can't be decided.
    pub unresolved: Option<Unresolved>,
}

impl Runtime {
    /// The platforms, or those that may be.
    pub fn possible(&self) -> &[Platform] {
        if self.platforms.is_empty() { &self.alternatives } else { &self.platforms }
    }
}

impl Usage {
    /// The same where it can't be decided whether it is this image or another.
    pub(super) fn one_of_several(self, why: &Unresolved) -> Self {
        let mut needs = self.needs;
        needs.extend(why.need.clone());
        Self { needs, reference: Err(why.clone()), undecided: self.undecided.or_else(|| Some(why.clone())), ..self }
    }

    /// The reference with a registry in place of the value that leads the expression; without such a value, as it is.
    ///
    /// # Errors
    /// Another part of it is not known.
    pub fn with_registry(&self, registry: &str) -> Result<EvaluatedReference, Unresolved> {
        match &self.lead {
            Some(lead) => lead.with_registry(registry, &self.place),
            None => self.reference.clone(),
        }
    }

    /// The service takes a single manifest, no index.
    pub fn takes_single_manifest(&self) -> bool {
        matches!(self.kind, ResourceKind::ServerlessFunction | ResourceKind::LambdaFunction)
    }

    /// The keys of a mapping that the expression read.
    pub fn keys<'u>(&'u self, mapping: &'u str) -> impl Iterator<Item = &'u str> {
        self.reads.iter().filter(move |read| read.mapping == mapping).map(|read| read.key.as_str())
    }
}
