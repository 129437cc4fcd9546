//! Days of the calendar, in UTC: the same everywhere, and no table of zones is needed.
//!
//! ```
//! use bellrope::date::{Date, rfc_3339};
//!
//! let date = Date::parse("2026-11-30").unwrap();
//! assert_eq!((date.year(), date.month(), date.day(), date.number()), (2026, 11, 30, 20_787));
//! assert_eq!((Date::of(20_787), Date::new(2026, 11, 30)), (date, Some(date)));
//! assert_eq!(date.to_string(), "2026-11-30");
//! assert_eq!(rfc_3339(951_782_400), "2000-02-29T00:00:00Z");
//! ```

use std::fmt;

/// Years further away than this are written by nobody.
const FARTHEST: i64 = 999_999;

/// A day of the Gregorian calendar, which is taken to have been in use at all times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    year: i64,
    month: i64,
    day: i64,
}

impl Date {
    /// The day with this number: days since 1970-01-01, negative before. Howard Hinnant, "chrono-Compatible Low-Level Date
    /// Algorithms", `civil_from_days`: years begin in March, so that the day of a leap year comes last.
    #[must_use]
    pub fn of(number: i64) -> Self {
        let days = number.saturating_add(719_468);
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        Self { year: year + era * 400 + i64::from(month <= 2), month, day }
    }

    /// The day of this year, month (1 to 12) and day (from 1 on). `None`: there is no such day, or it is a million years away.
    #[must_use]
    pub fn new(year: i64, month: i64, day: i64) -> Option<Self> {
        let is_near = (-FARTHEST..=FARTHEST).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        let date = is_near.then_some(Self { year, month, day })?;
        (Self::of(date.number()) == date).then_some(date)
    }

    /// The day that is written as `2026-11-30`. `None`: there is no such day, or it is written otherwise.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let mut next = |digits: usize| parts.next().filter(|part| part.len() == digits).and_then(number);
        Self::new(next(4)?, next(2)?, next(2)?)
    }

    /// Days since 1970-01-01, negative before: `days_from_civil` of the same.
    #[must_use]
    pub fn number(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let month = (self.month + 9) % 12;
        let of_year = (153 * month + 2) / 5 + self.day - 1;
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
    }

    /// The year.
    #[must_use]
    pub fn year(self) -> i64 {
        self.year
    }

    /// The month, from 1 to 12.
    #[must_use]
    pub fn month(self) -> i64 {
        self.month
    }

    /// The day of the month, from 1 on.
    #[must_use]
    pub fn day(self) -> i64 {
        self.day
    }
}

/// As in `2026-11-30`.
impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// A moment as RFC 3339 writes it, of whole seconds since 1970: `2026-11-30T22:50:00Z`.
#[must_use]
pub fn rfc_3339(seconds: u64) -> String {
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // So many days fit at any time: a number of seconds has 86,400 times as many values.
    let date = Date::of(i64::try_from(day).unwrap_or(i64::MAX));
    format!("{date}T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

/// Digits and nothing else.
fn number(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_four_centuries_is_written_and_read_as_itself() {
        for number in -1_000..146_097 {
            let date = Date::of(number);
            assert_eq!((date.number(), Date::parse(&date.to_string())), (number, Some(date)));
            assert_eq!(Date::new(date.year(), date.month(), date.day()), Some(date));
            assert!(date < Date::of(number + 1), "{date}");
        }
    }

    #[test]
    fn what_is_no_day_is_none() {
        for wrong in [
            "",
            "2026",
            "2026-1-1",
            "2026-13-01",
            "2026-00-10",
            "2025-02-29",
            "2026-11-31",
            "2026-11-1x",
            "-026-01-01",
            "+026-01-01",
            "2026-11-30 ",
            "2026-11-é",
        ] {
            assert_eq!(Date::parse(wrong), None, "{wrong}");
        }
        for (year, month, day) in
            [(2026, 0, 1), (2026, 1, 0), (1900, 2, 29), (i64::MAX, 1, 1), (i64::MIN, 1, 1), (2026, i64::MIN, i64::MAX)]
        {
            assert_eq!(Date::new(year, month, day), None);
        }
        // Far away there are days, too.
        assert!(Date::of(i64::MIN) < Date::of(-1) && Date::of(i64::MAX) > Date::of(1));
    }

    #[test]
    fn moments_are_written_to_the_second() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_780_000_000, "2026-05-28T20:26:40Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc_3339(seconds), text);
        }
        assert!(rfc_3339(u64::MAX).ends_with('Z'));
    }
}
