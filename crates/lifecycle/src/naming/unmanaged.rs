//! References that a template deploys but a run does not write.

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

impl UnmanagedReference {
    /// Creates the reference of a usage, if its name is known and its registry is one that the run writes to. `written`
    /// are the names that the run writes. A `registry` that replaces theirs replaces this one only if both names start
    /// with the same parameter.
    pub(super) fn of(usage: &Usage, is_in_mapping: bool, written: &[Named], registry: Option<&str>) -> Option<Self> {
        let text = usage.reference.as_ref().ok()?;
        let (name, digest) = match text.text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().ok()?)),
            // A deployment is given the digest.
            None if text.pin.is_some() => return None,
            None => (text.text.as_str(), None),
        };
        // What the run writes is not another reference, whatever digest a deployment is given.
        if digest.is_some() && written.iter().any(|named| named.usages.contains(usage)) {
            return None;
        }
        let origin = |registry_part: &RegistryPart| registry_part.origin.clone();
        let has_same_origin = || {
            let leads = written.iter().flat_map(|named| &named.usages).filter_map(|usage| usage.registry_part.as_ref());
            if leads.clone().next().is_none() {
                return is_in_registry(usage, registry);
            }
            leads.map(origin).any(|written| usage.registry_part.as_ref().map(origin) == Some(written))
        };
        if registry.is_some() && usage.registry_part.is_some() && !has_same_origin() {
            return None;
        }
        let value = usage.registry_part.as_ref().and_then(|registry_part| registry_part.value.clone().ok());
        let reference = Reference::parse(name, registry.or(value.as_deref())).ok()?;
        let is_written_to = |location: &Location| written.iter().any(|named| named.reference.location == *location);
        // Other registries may need other credentials, so they are not checked.
        let is_relevant = is_written_to(&reference.location)
            && (digest.is_some() || written.iter().all(|n| n.reference != reference));
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
