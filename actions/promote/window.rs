//! Windows: the days and hours in which images may be promoted, in the local time of a time zone.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use time::OffsetDateTime;

use lifecycle::nearest;

/// An example, for the message about a window that cannot be parsed.
pub(crate) const EXAMPLE: &str = "mon-fri 08:00-16:00 Europe/Berlin";

/// Days of the week, as they are written.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

const MINUTES_OF_DAY: u16 = 24 * 60;

/// The days and hours in which images may be promoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    periods: Vec<Period>,
    zone: TimeZone,
}

/// Hours that apply to some days of the week.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Period {
    /// Whether each day has these hours, from Monday on.
    days: [bool; 7],
    hours: Vec<Hours>,
}

/// A time range in minutes after midnight. It includes the start but not the end. If the end is not after the start, it is
/// on the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hours {
    start: u16,
    end: u16,
}

/// A moment in the time zone of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LocalTime(DateTime);

impl Window {
    /// Parses days, hours and a time zone: `mon-fri 08:00-16:00 Europe/Berlin`. Several days or hours are separated by
    /// commas or spaces, and days after hours begin another period: `mon-thu 08:00-16:00, fri 08:00-12:00 UTC`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words: Vec<&str> = words(text).collect();
        let zone = TimeZoneDatabase::bundled().get(words.pop()?).ok()?;
        let mut periods = vec![Period::default()];
        for word in words {
            let period = match (periods.last_mut()?, Hours::parse(word)) {
                (period, Some(hours)) => {
                    period.hours.push(hours);
                    continue;
                }
                (period, None) if period.hours.is_empty() => period,
                _ => {
                    periods.push(Period::default());
                    periods.last_mut()?
                }
            };
            let (first, last) = days(word)?;
            // A range may cross the end of the week, as in `sat-mon`.
            let length = (last + 7 - first) % 7;
            (0..=length).for_each(|offset| period.days[(first + offset) % 7] = true);
        }
        let is_complete = |period: &Period| period.days.contains(&true) && !period.hours.is_empty();
        periods.iter().all(is_complete).then_some(Self { periods, zone })
    }

    /// Returns the window that a malformed text probably means, otherwise the example.
    pub(crate) fn suggestion(text: &str) -> String {
        let database = TimeZoneDatabase::bundled();
        let mut repaired: Vec<String> = Vec::new();
        for word in words(text) {
            repaired.push(if Hours::parse(word).is_some() || days(word).is_some() || database.get(word).is_ok() {
                word.to_owned()
            } else if word.starts_with(|first: char| first.is_ascii_digit()) {
                whole_hours(word)
            } else if let Some(range) = long_days(word) {
                range
            } else {
                let zones: Vec<_> = database.available().collect();
                nearest(word, zones.iter().map(|zone| zone.as_str())).unwrap_or(word).to_owned()
            });
        }
        let repaired = repaired.join(" ");
        let candidates = [repaired.clone(), format!("{repaired} UTC"), format!("mon-fri {repaired}")];
        let valid = candidates.into_iter().find(|candidate| Self::parse(candidate).is_some());
        valid.unwrap_or_else(|| EXAMPLE.to_owned())
    }

    /// Returns a moment in the window's time zone.
    pub(crate) fn local(&self, moment: OffsetDateTime) -> LocalTime {
        let timestamp = Timestamp::from_second(moment.unix_timestamp()).unwrap_or(Timestamp::UNIX_EPOCH);
        LocalTime(self.zone.to_datetime(timestamp))
    }

    /// Returns whether the window is open.
    pub(crate) fn is_open(&self, LocalTime(now): LocalTime) -> bool {
        let minute = minute(now.time());
        let yesterday = now.date().yesterday();
        self.periods.iter().any(|period| {
            let began_yesterday = yesterday.as_ref().is_ok_and(|yesterday| period.includes(*yesterday));
            period.hours.iter().any(|hours| {
                let today = period.includes(now.date()) && hours.contains_on_first_day(minute);
                today || (began_yesterday && hours.contains_on_next_day(minute))
            })
        })
    }

    /// Returns when the window opens next.
    pub(crate) fn next_opening(&self, now: LocalTime) -> Option<LocalTime> {
        let week = now.0.date().series(jiff::Span::new().days(1)).take(8);
        let openings = week.flat_map(|date| {
            let periods = self.periods.iter().filter(move |period| period.includes(date));
            periods.flat_map(move |period| period.hours.iter().map(move |hours| hours.opening(date)))
        });
        openings.filter(|opening| *opening > now).min()
    }
}

impl Period {
    fn includes(&self, date: Date) -> bool {
        self.days[usize::from(date.weekday().to_monday_zero_offset().unsigned_abs())]
    }
}

impl Hours {
    fn parse(word: &str) -> Option<Self> {
        let (start, end) = word.split_once('-')?;
        let (start, end) = (minute_of_day(start)?, minute_of_day(end)?);
        (start != end && start < MINUTES_OF_DAY).then_some(Self { start, end })
    }

    fn contains_on_first_day(self, minute: u16) -> bool {
        self.start <= minute && (minute < self.end || self.end < self.start)
    }

    fn contains_on_next_day(self, minute: u16) -> bool {
        self.end < self.start && minute < self.end
    }

    fn opening(self, date: Date) -> LocalTime {
        let part = |value: u16| i8::try_from(value).unwrap_or_default();
        LocalTime(date.at(part(self.start / 60), part(self.start % 60), 0, 0))
    }
}

impl std::fmt::Display for LocalTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(moment) = self;
        let day = DAYS[usize::from(moment.weekday().to_monday_zero_offset().unsigned_abs())];
        write!(f, "{day} {} {:02}:{:02}", moment.date(), moment.hour(), moment.minute())
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty())
}

/// Parses a day, or the first and last day of a range.
fn days(word: &str) -> Option<(usize, usize)> {
    let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    Some((day(first)?, day(last)?))
}

/// Shortens the full names of days: `Monday-Friday`.
fn long_days(word: &str) -> Option<String> {
    let lower = word.to_ascii_lowercase();
    let short = |name: &str| DAYS.into_iter().find(|day| name.starts_with(day) && name.ends_with("day"));
    let parts: Option<Vec<&str>> = lower.split('-').map(short).collect();
    parts.map(|parts| parts.join("-"))
}

/// Completes whole hours: `8-16` becomes `08:00-16:00`.
fn whole_hours(word: &str) -> String {
    let complete = |time: &str| match time.parse::<u16>() {
        Ok(hour) => format!("{hour:02}:00"),
        Err(_) => time.to_owned(),
    };
    word.split('-').map(complete).collect::<Vec<_>>().join("-")
}

/// Parses a time of the day from `00:00` to `24:00`.
fn minute_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !(1..=2).contains(&hours.len()) || minutes.len() != 2 || !is_number(hours) || !is_number(minutes) {
        return None;
    }
    let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= MINUTES_OF_DAY).then_some(minute)
}

fn minute(time: Time) -> u16 {
    u16::from(time.hour().unsigned_abs()) * 60 + u16::from(time.minute().unsigned_abs())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn window(text: &str) -> Window {
        Window::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    fn is_open(text: &str, moment: OffsetDateTime) -> bool {
        let window = window(text);
        window.is_open(window.local(moment))
    }

    #[test]
    fn the_start_belongs_to_the_window_and_the_end_does_not() {
        // A Friday in winter: Berlin is one hour ahead of UTC.
        let open = |moment| is_open("mon-fri 08:00-16:00 Europe/Berlin", moment);
        assert!(!open(datetime!(2026-11-27 06:59:59 UTC)) && open(datetime!(2026-11-27 07:00 UTC)));
        assert!(open(datetime!(2026-11-27 14:59:59 UTC)) && !open(datetime!(2026-11-27 15:00 UTC)));
        assert!(!open(datetime!(2026-11-28 09:00 UTC)), "a Saturday");
        // In summer Berlin is two hours ahead.
        assert!(open(datetime!(2026-07-03 06:00 UTC)) && !open(datetime!(2026-07-03 14:00 UTC)));
        // The day is that of the zone: late on Sunday in UTC it is Monday in Tokyo.
        assert!(is_open("mon 08:00-09:00 Asia/Tokyo", datetime!(2026-11-29 23:30 UTC)));
        assert!(is_open("mon-sun 00:00-24:00 UTC", datetime!(2026-11-29 23:59:59 UTC)));
    }

    #[test]
    fn hours_over_midnight_belong_to_the_day_on_which_they_begin() {
        let open = |moment| is_open("fri 22:00-04:00 UTC", moment);
        assert!(!open(datetime!(2026-11-27 03:00 UTC)), "early on Friday belongs to Thursday");
        assert!(!open(datetime!(2026-11-27 21:59 UTC)) && open(datetime!(2026-11-27 22:00 UTC)));
        assert!(open(datetime!(2026-11-28 03:59 UTC)) && !open(datetime!(2026-11-28 04:00 UTC)));
        assert!(!open(datetime!(2026-11-28 22:30 UTC)));
        assert!(is_open("sun 23:00-00:00 UTC", datetime!(2026-11-29 23:59 UTC)));
        assert!(!is_open("sun 23:00-00:00 UTC", datetime!(2026-11-30 00:00 UTC)));
    }

    #[test]
    fn hours_are_those_of_the_clock_on_the_days_when_it_changes() {
        let open = |moment| is_open("sun 02:00-03:00 Europe/Berlin", moment);
        // On 29 March 2026 the clock goes from 02:00 to 03:00, so there is no such hour.
        assert!(!open(datetime!(2026-03-29 00:59 UTC)) && !open(datetime!(2026-03-29 01:00 UTC)));
        // On 25 October 2026 it goes from 03:00 back to 02:00, so there are two.
        assert!(!open(datetime!(2026-10-24 23:59 UTC)) && open(datetime!(2026-10-25 00:00 UTC)));
        assert!(open(datetime!(2026-10-25 01:59 UTC)) && !open(datetime!(2026-10-25 02:00 UTC)));
    }

    #[test]
    fn days_and_hours_are_lists_and_periods_follow_each_other() {
        let text = "mon-wed,fri 08:00-12:00, 13:00-16:00, sat-mon 20:00-22:00 America/New_York";
        let open = |moment| is_open(text, moment);
        assert!(open(datetime!(2026-11-27 16:59 UTC)) && !open(datetime!(2026-11-27 17:30 UTC)));
        assert!(open(datetime!(2026-11-27 18:00 UTC)) && !open(datetime!(2026-11-26 18:00 UTC)), "no Thursday");
        assert!(open(datetime!(2026-11-29 01:00 UTC)) && open(datetime!(2026-11-30 01:00 UTC)), "Saturday, Sunday");
        assert!(open(datetime!(2026-12-01 01:00 UTC)) && !open(datetime!(2026-12-02 01:00 UTC)), "Monday, Tuesday");
    }

    #[test]
    fn the_next_opening_is_the_first_one_after_now() {
        let next = |text: &str, moment| {
            let window = window(text);
            window.next_opening(window.local(moment)).map(|next| next.to_string())
        };
        let office = "mon-fri 08:00-12:00 13:00-16:00 Europe/Berlin";
        let expected = [
            (datetime!(2026-11-27 11:30 UTC), "fri 2026-11-27 13:00"),
            (datetime!(2026-11-27 19:00 UTC), "mon 2026-11-30 08:00"),
            (datetime!(2026-11-29 23:30 UTC), "mon 2026-11-30 08:00"),
        ];
        for (moment, opening) in expected {
            assert_eq!(next(office, moment).as_deref(), Some(opening));
        }
        let weekly = next("fri 08:00-09:00 UTC", datetime!(2026-11-27 09:00 UTC));
        assert_eq!(weekly.as_deref(), Some("fri 2026-12-04 08:00"));
    }

    #[test]
    fn a_mistake_gets_a_window_that_was_probably_meant() {
        for (text, meant) in [
            ("", EXAMPLE),
            ("office hours", EXAMPLE),
            ("mon-fri 08:00-16:00", "mon-fri 08:00-16:00 UTC"),
            ("08:00-16:00 Europe/Berlin", "mon-fri 08:00-16:00 Europe/Berlin"),
            ("Monday-Friday 8-16 Europe/Berlni", EXAMPLE),
            ("mon-fri 08:00-16:00 Berlin", EXAMPLE),
            ("mon-fri 08:00-08:00 UTC", EXAMPLE),
            ("mon-fri 08:00-25:00 UTC", EXAMPLE),
            ("mon-fri 24:00-08:00 UTC", EXAMPLE),
            ("mon-fri 08:60-16:00 UTC", EXAMPLE),
            ("mon-fry 08:00-16:00 UTC", EXAMPLE),
            ("mon-fri UTC", EXAMPLE),
            ("mon-fri 08:00-16:00 sat UTC", EXAMPLE),
        ] {
            assert_eq!(Window::parse(text), None, "{text}");
            assert_eq!(Window::suggestion(text), meant, "{text}");
            assert!(Window::parse(meant).is_some(), "{meant}");
        }
    }
}
