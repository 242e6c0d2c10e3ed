//! Images for the tests of this folder.

use time::{Duration, OffsetDateTime};

use super::StoredImage;
use oci::Digest;

/// The time at which the tests evaluate policies.
pub(super) const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// Returns an image that was pushed so many days ago.
pub(super) fn image(name: &str, tags: &[&str], days: i64) -> StoredImage {
    StoredImage {
        digest: Digest::of(name.as_bytes()),
        tags: tags.iter().map(ToString::to_string).collect(),
        pushed: NOW - Duration::days(days),
        pulled: None,
        archived: None,
        restored: None,
        is_in_index: false,
    }
}
