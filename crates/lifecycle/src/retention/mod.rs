//! What an ECR lifecycle policy will do to the images of a repository, by the rules that [ECR
//! documents](https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html).
//!
//! A rule acts on images, not on tags: a rule for `dev-*` deletes an image with all of its tags, even if one of them is
//! `prod-1.0.0`. An image's age counts from its push, however late a tag was added. Referrers do not count as images
//! here, because ECR removes them with their subject.

mod evaluation;
mod hazard;
mod policy;
mod safe;
#[cfg(test)]
mod testing;

pub use evaluation::{Removal, RemovalTime, StoredImage, put_tag, removals, when_removed};
pub use hazard::{Hazard, LiveImage, hazard};
pub use policy::{LifecyclePolicy, LifecycleRule, PolicyError, RuleAction};
pub use safe::safe_policy;
