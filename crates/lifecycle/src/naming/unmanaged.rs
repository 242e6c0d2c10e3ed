//! References that a template deploys but a run does not write.

use std::collections::{HashMap, HashSet};
use std::fmt;

use wildmatch::WildMatch;

use super::Named;
use cfn_images::{Origin, RegistryPart, Usage};
use oci::{Digest, Location, Reference};

/// A reference that the template deploys but a run does not write: an image that was not selected, or one that is not
/// in the mapping.
#[derive(Debug, Clone)]
pub struct UnmanagedReference {
    /// The reference. If it is pinned to a digest, its tag has no meaning.
    pub reference: Reference,
    /// The digest that the reference is pinned to.
    pub digest: Option<Digest>,
    /// Whether the image is one of the mapping.
    pub is_in_mapping: bool,
    /// The resource that deploys it.
    pub usage: Usage,
}

/// The names that a run writes, so that not every one of them is compared with every usage.
pub(super) struct Written<'n> {
    references: HashSet<String>,
    locations: HashSet<String>,
    /// The usages of the names, by resource.
    usages: HashMap<&'n str, Vec<&'n Usage>>,
    /// The different origins of the registries in the usages.
    origins: Vec<&'n Origin>,
}

impl<'n> Written<'n> {
    pub(super) fn of(names: &'n [Named]) -> Self {
        let mut usages: HashMap<&str, Vec<&Usage>> = HashMap::new();
        let mut origins: Vec<&Origin> = Vec::new();
        for usage in names.iter().flat_map(|named| &named.usages) {
            usages.entry(usage.resource.as_str()).or_default().push(usage);
            let origin = usage.registry_part.as_ref().map(|part| &part.origin);
            origins.extend(origin.filter(|origin| !origins.contains(origin)));
        }
        Self {
            references: names.iter().map(|named| named.reference.to_string()).collect(),
            locations: names.iter().map(|named| named.reference.location.to_string()).collect(),
            usages,
            origins,
        }
    }

    fn has_usage(&self, usage: &Usage) -> bool {
        self.usages.get(usage.resource.as_str()).is_some_and(|usages| usages.contains(&usage))
    }
}

impl UnmanagedReference {
    /// Creates the reference of a usage, if its name is known and its registry is one that the run writes to. `written`
    /// are the names that the run writes. A `registry` that replaces theirs replaces this one only if both names start
    /// with the same parameter.
    pub(super) fn of(
        usage: &Usage,
        is_in_mapping: bool,
        written: &Written<'_>,
        registry: Option<&str>,
    ) -> Option<Self> {
        let text = usage.reference.as_ref().ok()?;
        let (name, digest) = match text.text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().ok()?)),
            // A deployment is given the digest.
            None if text.pin.is_some() => return None,
            None => (text.text.as_str(), None),
        };
        // What the run writes is not another reference, whatever digest a deployment is given.
        if digest.is_some() && written.has_usage(usage) {
            return None;
        }
        let origin = |registry_part: &'_ RegistryPart| written.origins.contains(&&registry_part.origin);
        let has_same_origin = || match written.origins.is_empty() {
            true => is_in_registry(usage, registry),
            false => usage.registry_part.as_ref().is_some_and(origin),
        };
        if registry.is_some() && usage.registry_part.is_some() && !has_same_origin() {
            return None;
        }
        let value = usage.registry_part.as_ref().and_then(|registry_part| registry_part.value.clone().ok());
        let reference = Reference::parse(name, registry.or(value.as_deref())).ok()?;
        let is_written_to = |location: &Location| written.locations.contains(&location.to_string());
        // Other registries may need other credentials, so they are not checked.
        let is_relevant = is_written_to(&reference.location)
            && (digest.is_some() || !written.references.contains(&reference.to_string()));
        is_relevant.then(|| Self { reference, digest, is_in_mapping, usage: usage.clone() })
    }
}

/// Returns whether a usage may be of the registry that a run writes to. The value at the start of its name is not looked
/// up if `registry` replaces it.
pub(super) fn is_in_registry(usage: &Usage, registry: Option<&str>) -> bool {
    let (Some(registry), Some(part)) = (registry, &usage.registry_part) else { return true };
    let host = |text: &str| text.split('/').next().unwrap_or_default().to_owned();
    match (&part.origin, &part.value) {
        // An unknown account or region is `?`.
        (Origin::Host(named), _) => WildMatch::new(&named.replace('?', "*")).matches(&host(registry)),
        (_, Ok(value)) => host(value) == host(registry),
        (_, Err(_)) => true,
    }
}

impl fmt::Display for UnmanagedReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.digest {
            Some(digest) => write!(f, "{}@{digest}", self.reference.repository_address()),
            None => self.reference.fmt(f),
        }
    }
}
