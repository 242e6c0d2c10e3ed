use std::cmp::Ordering;

use time::OffsetDateTime;

use super::{Record, Recorded};
use cfn_images::Version;

/// When a version was first recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstRecord {
    /// At this time.
    At(OffsetDateTime),
    /// Not before this run, which publishes it.
    Now,
    /// Unknown: it has no record.
    Unknown,
}

/// A version with the time of its first record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatedVersion {
    /// The version.
    pub version: Version,
    /// When it was first recorded.
    pub first: FirstRecord,
}

impl FirstRecord {
    /// Returns the time of a version's first record among records.
    pub fn of<'r>(version: &Version, records: impl IntoIterator<Item = &'r Record>) -> Self {
        let version = version.to_string();
        let times = records.into_iter().filter(|record| record.version == version).filter_map(Record::at);
        times.min().map_or(Self::Unknown, Self::At)
    }

    /// Returns this time if it is known, and otherwise another.
    pub fn or(self, other: Self) -> Self {
        if self == Self::Unknown { other } else { self }
    }

    fn order(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::At(one), Self::At(other)) => Some(one.cmp(&other)),
            (Self::Now, Self::At(_)) => Some(Ordering::Greater),
            (Self::At(_), Self::Now) => Some(Ordering::Less),
            _ => None,
        }
    }
}

impl DatedVersion {
    /// Returns the versions in the records of an image, each with the time of its first record.
    pub fn of_records(records: &[Recorded]) -> Vec<Self> {
        let mut dated: Vec<Self> = Vec::new();
        for found in records {
            let Ok(version) = found.record.version.parse::<Version>() else { continue };
            if dated.iter().all(|known| known.version != version) {
                let first = FirstRecord::of(&version, records.iter().map(|found| &found.record));
                dated.push(Self { version, first });
            }
        }
        dated
    }

    /// Compares two versions: semantic versions by their numbers, and others by the time of their first records. Returns
    /// `None` if a time is unknown.
    pub fn order(&self, other: &Self) -> Option<Ordering> {
        self.version.order(&other.version).or_else(|| self.first.order(other.first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn versions_are_ordered_by_number_or_by_time() {
        let dated = |version: &str, first| DatedVersion { version: version.parse().unwrap(), first };
        let at = |second| FirstRecord::At(OffsetDateTime::UNIX_EPOCH + Duration::from_secs(second));
        let order =
            |one: (&str, FirstRecord), other: (&str, FirstRecord)| dated(one.0, one.1).order(&dated(other.0, other.1));
        // A fix of an older release is lower, however late it is published.
        assert_eq!(order(("1.0.1", at(9)), ("1.1.0", at(1))), Some(Ordering::Less));
        assert_eq!(order(("4f2c0de", at(1)), ("9abcdef", at(2))), Some(Ordering::Less));
        assert_eq!(order(("10", FirstRecord::Now), ("9", at(2))), Some(Ordering::Greater));
        assert_eq!(order(("4f2c0de", at(3)), ("1.0.0", at(2))), Some(Ordering::Greater));
        assert_eq!(order(("4f2c0de", FirstRecord::Unknown), ("9abcdef", at(2))), None);
        assert_eq!(order(("4f2c0de", FirstRecord::Unknown), ("4f2c0de", FirstRecord::Unknown)), Some(Ordering::Equal));
    }
}
