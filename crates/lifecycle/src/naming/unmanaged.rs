//! References that a template deploys and a run does not write.

use std::fmt;

use super::Named;
use cfn_images::{Lead, Usage};
use oci::{Digest, Location, Reference};

/// A reference that the template deploys, and that a run does not write: an image that was not chosen, or one that is in
/// no mapping.
#[derive(Debug, Clone)]
pub struct UnmanagedReference {
    /// Where it is; of one that is pinned, the tag says nothing.
    pub reference: Reference,
    /// The digest that it is pinned to.
    pub digest: Option<Digest>,
    /// The image is one of the mapping.
    pub is_ours: bool,
    /// What deploys it.
    pub usage: Usage,
}

impl UnmanagedReference {
    /// A usage whose reference is known. `written` are the names that a run writes: a registry that stands in for theirs
    /// stands in for others only where the same parameter leads them.
    pub(super) fn of(usage: &Usage, is_ours: bool, written: &[Named], stands_in: Option<&str>) -> Option<Self> {
        let text = usage.reference.as_ref().ok()?;
        let (name, digest) = match text.text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().ok()?)),
            None => (text.text.as_str(), None),
        };
        let origin = |lead: &Lead| lead.origin.clone();
        let led_alike = || {
            let leads = written.iter().flat_map(|named| &named.usages).filter_map(|usage| usage.lead.as_ref());
            leads.map(origin).any(|written| usage.lead.as_ref().map(origin) == Some(written))
        };
        if stands_in.is_some() && usage.lead.is_some() && !led_alike() {
            return None;
        }
        let value = usage.lead.as_ref().and_then(|lead| lead.value.clone().ok());
        let reference = Reference::parse(name, stands_in.or(value.as_deref())).ok()?;
        let here = |location: &Location| written.iter().any(|named| named.reference.location == *location);
        // Other registries have other credentials: whether they answer is no matter of this run.
        let other = here(&reference.location) && (digest.is_some() || written.iter().all(|n| n.reference != reference));
        other.then(|| Self { reference, digest, is_ours, usage: usage.clone() })
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
