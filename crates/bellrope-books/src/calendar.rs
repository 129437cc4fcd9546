//! Days and windows, all in UTC: the same everywhere, and no table of zones is needed.

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use bellrope::date::Date;
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
                let first = |day: i64| day + 1 - Date::of(day).day();
                let begin = first(at_ms.div_euclid(DAY));
                begin * DAY..first(begin + 31) * DAY
            }
        }
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
    Date::parse(text).map(Date::number)
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
    Date::of(day).to_string()
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
