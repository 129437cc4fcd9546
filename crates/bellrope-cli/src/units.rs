//! Numbers as columns of a terminal have room for them.

use std::time::Duration;

/// Calls a second.
pub(crate) fn rate(calls: f64) -> String {
    match calls {
        calls if calls >= 1e6 => format!("{:.2} M", calls / 1e6),
        calls if calls >= 1e4 => format!("{:.1} k", calls / 1e3),
        calls if calls >= 100.0 || calls == 0.0 => format!("{calls:.0}"),
        calls => format!("{calls:.1}"),
    }
}

/// A time in whole microseconds.
pub(crate) fn whole_micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The upper bound of a bucket, in microseconds.
pub(crate) fn micros(us: Option<u64>) -> String {
    match us {
        None => "-".to_owned(),
        Some(us) if us >= 1_000_000 => format!("{} s", us / 1_000_000),
        Some(us) if us >= 1_000 => format!("{} ms", us / 1_000),
        Some(us) => format!("{us} us"),
    }
}

/// Seconds.
pub(crate) fn duration(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_enough_for_their_columns() {
        assert_eq!(
            [rate(0.0), rate(0.5), rate(123.4), rate(12_345.0), rate(5.2e6)],
            ["0", "0.5", "123", "12.3 k", "5.20 M"]
        );
        assert_eq!(
            [micros(None), micros(Some(10)), micros(Some(5_000)), micros(Some(10_000_000))],
            ["-", "10 us", "5 ms", "10 s"]
        );
        assert_eq!(
            [duration(5), duration(65), duration(3_700), duration(90_000)],
            ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]
        );
    }
}
