//! Times in the format of statements and annotations: RFC 3339 in UTC.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Returns the current time, truncated to the second.
pub fn now() -> String {
    format(OffsetDateTime::now_utc())
}

/// Returns the current time, truncated to the millisecond. Records use it, because their order matters.
pub fn now_millis() -> String {
    let now = OffsetDateTime::now_utc();
    let truncated = now.replace_nanosecond(u32::from(now.millisecond()) * 1_000_000).unwrap_or(now);
    truncated.format(&Rfc3339).unwrap_or_default()
}

/// Formats a Unix timestamp. A timestamp out of range becomes the Unix epoch.
pub fn at_seconds(seconds: i64) -> String {
    format(OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH))
}

fn format(time: OffsetDateTime) -> String {
    let truncated = time.replace_nanosecond(0).unwrap_or(time);
    truncated.format(&Rfc3339).unwrap_or_default()
}

/// Returns whether a time is later than a Unix timestamp; false if the time cannot be parsed.
pub fn is_after(rfc3339: &str, seconds: i64) -> bool {
    let Ok(time) = OffsetDateTime::parse(rfc3339, &Rfc3339) else { return false };
    OffsetDateTime::from_unix_timestamp(seconds).is_ok_and(|then| time > then)
}

/// Returns the seconds between a time and now, or `None` if the time cannot be parsed.
pub fn age_seconds(rfc3339: &str) -> Option<i64> {
    let then = OffsetDateTime::parse(rfc3339, &Rfc3339).ok()?;
    Some((OffsetDateTime::now_utc() - then).whole_seconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_formatted_and_parsed() {
        assert_eq!(at_seconds(1_700_000_000), "2023-11-14T22:13:20Z");
        assert!(age_seconds(&at_seconds(1_700_000_000)).is_some_and(|age| age > 0));
        assert_eq!(age_seconds("yesterday"), None);
        let times = ["2023-11-14T22:13:20.5Z", "2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00", "yesterday"];
        assert_eq!(times.map(|time| is_after(time, 1_700_000_000)), [true, false, false, false]);
    }
}
