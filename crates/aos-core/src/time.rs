//! Points in time as a person writes them: RFC 3339 in UTC and whole seconds, in one spelling.
//!
//! The crate has no clock: who compares a time with the present says what the present is.

use crate::macros::serde_as_text;
use crate::quoted::Quoted;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
const SECONDS_MAX: u64 = 253_402_300_799;
const DAY: u64 = 86_400;

/// A text that is not a time.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("time {} is not valid, expected UTC in whole seconds from 1970 on, such as 2027-01-31T18:00:00Z", Quoted(.0))]
pub struct BadTime(String);

/// A point in time: whole seconds since 1970-01-01T00:00:00Z, up to the end of the year 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UtcTime(u64);

impl UtcTime {
    /// The time so many seconds after the epoch; `None` after the year 9999.
    pub const fn from_epoch_seconds(seconds: u64) -> Option<Self> {
        if seconds > SECONDS_MAX { None } else { Some(Self(seconds)) }
    }

    /// Seconds since the epoch.
    pub const fn epoch_seconds(self) -> u64 {
        self.0
    }
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the first day of a year, for years from 1970 on.
const fn days_before_year(year: u64) -> u64 {
    let before = year - 1;
    // Leap years up to `before`, less the 477 up to 1969.
    (year - 1970) * 365 + before / 4 - before / 100 + before / 400 - 477
}

/// The number in `width` digits at the start of `rest`, which becomes what is after them and `separator`.
fn part(rest: &mut &str, width: usize, separator: &str) -> Option<u64> {
    let (number, after) = rest.split_at_checked(width)?;
    *rest = after.strip_prefix(separator)?;
    if number.bytes().all(|b| b.is_ascii_digit()) { number.parse().ok() } else { None }
}

fn seconds_of(text: &str) -> Option<u64> {
    let mut rest = text;
    let year = part(&mut rest, 4, "-")?;
    let month = part(&mut rest, 2, "-")?;
    let day = part(&mut rest, 2, "T")?;
    let hour = part(&mut rest, 2, ":")?;
    let minute = part(&mut rest, 2, ":")?;
    let second = part(&mut rest, 2, "Z")?;
    // A leap second has no number of its own since the epoch, so that 60 is refused.
    let good = year >= 1970
        && (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && rest.is_empty();
    let months: u64 = (1..month).map(|before| days_in_month(year, before)).sum();
    good.then(|| (days_before_year(year) + months + day - 1) * DAY + hour * 3_600 + minute * 60 + second)
}

impl FromStr for UtcTime {
    type Err = BadTime;

    fn from_str(text: &str) -> Result<Self, BadTime> {
        seconds_of(text).and_then(Self::from_epoch_seconds).ok_or_else(|| BadTime(text.to_owned()))
    }
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut day, second) = (self.0 / DAY, self.0 % DAY);
        // No year has fewer than 365 days, so that the first guess is never too early.
        let mut year = 1970 + day / 365;
        while days_before_year(year) > day {
            year -= 1;
        }
        day -= days_before_year(year);
        let mut month = 1;
        while day >= days_in_month(year, month) {
            day -= days_in_month(year, month);
            month += 1;
        }
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", day + 1)
    }
}

serde_as_text!(UtcTime);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The numbers are those of `date -u -d TEXT +%s`.
    #[test]
    fn known_times() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1972-02-29T12:00:00Z", 68_212_800),
            ("2000-03-01T00:00:00Z", 951_868_800),
            ("2026-11-20T16:00:01Z", 1_795_190_401),
            ("2100-02-28T23:59:59Z", 4_107_542_399),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
            ("9999-12-31T23:59:59Z", SECONDS_MAX),
        ] {
            assert_eq!(text.parse::<UtcTime>().unwrap().epoch_seconds(), seconds, "{text}");
            assert_eq!(UtcTime(seconds).to_string(), text);
        }
        assert_eq!(UtcTime::from_epoch_seconds(SECONDS_MAX + 1), None);
    }

    #[test]
    fn one_spelling() {
        for bad in [
            "",
            "2026-11-20",
            "2026-11-20T16:00:00",
            "2026-11-20t16:00:00z",
            "2026-11-20 16:00:00Z",
            "2026-11-20T16:00:00+00:00",
            "2026-11-20T16:00:00.0Z",
            "2026-11-20T16:00Z",
            "2026-11-20T16:00:00Z ",
            "1969-12-31T23:59:59Z",
            "2026-00-20T16:00:00Z",
            "2026-13-20T16:00:00Z",
            "2026-02-29T16:00:00Z",
            "2100-02-29T16:00:00Z",
            "2026-11-31T16:00:00Z",
            "2026-11-00T16:00:00Z",
            "2026-11-20T24:00:00Z",
            "2026-11-20T16:60:00Z",
            "2026-11-20T16:00:60Z",
            "+026-11-20T16:00:00Z",
            "10000-01-01T00:00:00Z",
            "２026-11-20T16:00:00Z",
        ] {
            assert!(bad.parse::<UtcTime>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips_and_keeps_the_order(a in 0..=SECONDS_MAX, b in 0..=SECONDS_MAX) {
            let (a, b) = (UtcTime(a), UtcTime(b));
            prop_assert_eq!(a.to_string().parse::<UtcTime>().unwrap(), a);
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }
}
