//! Days and windows, all in UTC: the same everywhere, and no table of zones is needed.

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;

/// A span of the calendar, in UTC, in which a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// From one full minute to the next.
    Minute,
    /// From one full hour to the next.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From Monday to Monday.
    Week,
    /// From the first of a month to the first of the next.
    Month,
}

impl Window {
    /// Every window.
    pub const ALL: [Self; 5] = [Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month];

    /// The window in one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The window around a moment, in milliseconds since 1970.
    pub(crate) fn around(self, at_ms: i64) -> Range<i64> {
        let of = |length: i64, offset: i64| {
            let begin = at_ms - (at_ms - offset).rem_euclid(length);
            begin..begin + length
        };
        match self {
            Self::Minute => of(MINUTE, 0),
            Self::Hour => of(HOUR, 0),
            Self::Day => of(DAY, 0),
            // 1970 began with a Thursday.
            Self::Week => of(7 * DAY, 4 * DAY),
            Self::Month => {
                let Date { year, month, .. } = Date::of(at_ms.div_euclid(DAY));
                let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                let first = |year, month| Date { year, month, day: 1 }.number() * DAY;
                first(year, month)..first(next_year, next_month)
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Date {
    year: i64,
    month: i64,
    day: i64,
}

impl Date {
    /// Of a number of days since 1970. Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
    fn of(days: i64) -> Self {
        let days = days + 719_468;
        let era = days.div_euclid(146_097);
        let of_era = days.rem_euclid(146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        Self { year: year + era * 400 + i64::from(month <= 2), month, day }
    }

    /// Days since 1970: `days_from_civil` of the same.
    fn number(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let of_era = year.rem_euclid(400);
        let month = (self.month + 9) % 12;
        let of_year = (153 * month + 2) / 5 + self.day - 1;
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
    }
}

/// The number of a day since 1970 that is written as `2026-11-30`. `None`: there is no such day.
///
/// ```
/// assert_eq!(bellrope_books::day_of("1970-01-02"), Some(1));
/// assert_eq!(bellrope_books::day_of("2026-02-29"), None);
/// ```
#[must_use]
pub fn day_of(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-');
    let mut next = |digits: usize| {
        let part =
            parts.next().filter(|part| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit()))?;
        part.parse::<i64>().ok()
    };
    let date = Date { year: next(4)?, month: next(2)?, day: next(2)? };
    let number = date.number();
    ((1..=12).contains(&date.month) && Date::of(number) == date).then_some(number)
}

/// A moment in milliseconds since 1970; negative before.
pub(crate) fn millis_of(moment: SystemTime) -> i64 {
    match moment.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis),
    }
}

/// A day as `2026-11-30`.
pub(crate) fn shown_day(day: i64) -> String {
    let Date { year, month, day } = Date::of(day);
    format!("{year:04}-{month:02}-{day:02}")
}

/// A moment as `2026-11-30 12:00 UTC`.
pub(crate) fn shown(at_ms: i64) -> String {
    let of_day = at_ms.rem_euclid(DAY);
    format!("{} {:02}:{:02} UTC", shown_day(at_ms.div_euclid(DAY)), of_day / HOUR, of_day % HOUR / MINUTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        day_of(text).unwrap() * DAY
    }

    #[test]
    fn every_day_of_four_centuries_is_written_and_read_as_itself() {
        for day in -1_000..146_097 {
            let text = shown_day(day);
            assert_eq!(day_of(&text), Some(day), "{text}");
        }
        for wrong in
            ["", "2026", "2026-1-1", "2026-13-01", "2026-00-10", "2025-02-29", "2026-11-31", "2026-11-1x", "-026-01-01"]
        {
            assert_eq!(day_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_window_holds_its_moment_and_the_next_begins_where_it_ends() {
        let at = ms("2026-11-30") + 13 * HOUR + 5 * MINUTE + 7;
        for window in Window::ALL {
            let span = window.around(at);
            assert!(span.contains(&at), "{window:?}");
            assert_eq!(window.around(span.end).start, span.end, "{window:?}");
            assert_eq!(window.around(span.start - 1).end, span.start, "{window:?}");
        }
        assert_eq!(Window::Month.around(at), ms("2026-11-01")..ms("2026-12-01"));
        // A Monday.
        assert_eq!(Window::Week.around(at), ms("2026-11-30")..ms("2026-12-07"));
        assert_eq!(Window::Month.around(ms("2024-12-31")), ms("2024-12-01")..ms("2025-01-01"));
        assert_eq!(shown(at), "2026-11-30 13:05 UTC");
        assert_eq!(Window::Day.around(-1).start, -DAY);
    }
}
