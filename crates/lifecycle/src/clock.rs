//! The time of day, as statements and annotations hold it.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Now, RFC 3339 in UTC to the second.
pub fn now() -> String {
    at(OffsetDateTime::now_utc())
}

/// Now, RFC 3339 in UTC to the millisecond: for what has to keep its order.
pub fn moment() -> String {
    let now = OffsetDateTime::now_utc();
    let to_the_millisecond = now.replace_nanosecond(u32::from(now.millisecond()) * 1_000_000).unwrap_or(now);
    to_the_millisecond.format(&Rfc3339).unwrap_or_default()
}

/// A number of seconds since 1970, in the same form; the beginning of time where it is no time.
pub fn at_seconds(seconds: i64) -> String {
    at(OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH))
}

fn at(time: OffsetDateTime) -> String {
    let to_the_second = time.replace_nanosecond(0).unwrap_or(time);
    to_the_second.format(&Rfc3339).unwrap_or_default()
}

/// Whether a time in this form is later than a number of seconds since 1970; what is no time is not.
pub fn is_after(rfc3339: &str, seconds: i64) -> bool {
    let Ok(time) = OffsetDateTime::parse(rfc3339, &Rfc3339) else { return false };
    OffsetDateTime::from_unix_timestamp(seconds).is_ok_and(|then| time > then)
}

/// Seconds between a time in this form and now; none where it is no such time.
pub fn age_seconds(rfc3339: &str) -> Option<i64> {
    let then = OffsetDateTime::parse(rfc3339, &Rfc3339).ok()?;
    Some((OffsetDateTime::now_utc() - then).whole_seconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_the_second_and_back() {
        assert_eq!(at_seconds(1_700_000_000), "2023-11-14T22:13:20Z");
        assert!(age_seconds(&at_seconds(1_700_000_000)).is_some_and(|age| age > 0));
        assert_eq!(age_seconds("yesterday"), None);
        let later = ["2023-11-14T22:13:20.5Z", "2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00", "yesterday"];
        assert_eq!(later.map(|time| is_after(time, 1_700_000_000)), [true, false, false, false]);
    }
}
