use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use crate::settings::{millis, setters};

/// Callers that a breaker keeps an eye on. A crowd makes no more of them: the least interesting one goes.
pub(super) const ROWS: usize = 32;
/// Half-open with all probes out: somebody else will soon know more, so this is the longest wait that is advised.
pub(super) const PROBES_OUT: Duration = Duration::from_secs(1);

/// When a breaker opens, for how long, and what closes it.
///
/// The two rates are off by default. While one is on, every call that ends is counted in a window, which costs some
/// ten nanoseconds more. Times count in whole milliseconds.
///
/// ```
/// use std::time::Duration;
///
/// use bellrope::breaker::{Breaker, BreakerConfig};
///
/// # fn main() -> Result<(), bellrope::breaker::BreakerSetting> {
/// let config = BreakerConfig::default().failure_threshold(3).timeout(Duration::from_secs(5));
/// let breaker = Breaker::new(config)?;
/// assert_eq!(breaker.config().timeout, Duration::from_secs(5));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BreakerConfig {
    /// Whether it opens by itself. Default true. Where it does not, every call is admitted unless it was opened by hand.
    pub enabled: bool,
    /// Failures in a row that open it. Default 5.
    pub failure_threshold: u32,
    /// Callers (processes) that the failures must come from to open it for all. Default 2, at most 32. Those of fewer
    /// open it for these callers alone. 1: whoever fails opens it for all. Only breakers that tell callers apart, as
    /// those of message types do, look at it.
    pub min_callers: u32,
    /// Probes that must go well to close it. Default 2, at most 65,535.
    pub success_threshold: u32,
    /// How long it stays open before it is probed. Default 60 s. Doubles with every recovery that fails. In files
    /// `timeout_ms`.
    #[serde(rename = "timeout_ms", with = "millis")]
    pub timeout: Duration,
    /// How long it stays open at most, however often recovery failed. Default 600 s. In files `max_timeout_ms`.
    #[serde(rename = "max_timeout_ms", with = "millis")]
    pub max_timeout: Duration,
    /// Percent of a doubled time that may be taken off at random, so that many breakers do not probe together. Default
    /// 10, at most 50.
    pub jitter_percent: u32,
    /// Probes under way at once while it is half-open. Default 3, at most 65,535.
    pub half_open_max_requests: u32,
    /// How long it may stay half-open. Default 60 s. Probes that are still out then count as failed. In files
    /// `half_open_timeout_ms`.
    #[serde(rename = "half_open_timeout_ms", with = "millis")]
    pub half_open_timeout: Duration,
    /// Percent of failed calls in the window that opens it. Default 0, which means that the rate opens nothing.
    pub failure_rate_percent: u32,
    /// Percent of slow calls in the window that opens it. Default 0, which means that slow calls open nothing. While it
    /// is on, a probe that is slow has failed.
    pub slow_rate_percent: u32,
    /// From which on a call is slow. Default 1 s. In files `slow_call_ms`.
    #[serde(rename = "slow_call_ms", with = "millis")]
    pub slow_call: Duration,
    /// How far the window of both rates looks back. Default 10 s. For as long, failures of one caller are in a row although
    /// other callers' calls went well in between. In files `rate_window_ms`.
    #[serde(rename = "rate_window_ms", with = "millis")]
    pub rate_window: Duration,
    /// Calls that must be in the window before a rate says anything. Default 100.
    pub rate_min_calls: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            failure_threshold: 5,
            min_callers: 2,
            success_threshold: 2,
            timeout: Duration::from_secs(60),
            max_timeout: Duration::from_secs(600),
            jitter_percent: 10,
            half_open_max_requests: 3,
            half_open_timeout: Duration::from_secs(60),
            failure_rate_percent: 0,
            slow_rate_percent: 0,
            slow_call: Duration::from_secs(1),
            rate_window: Duration::from_secs(10),
            rate_min_calls: 100,
        }
    }
}

/// A setting of a breaker is out of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the breaker's setting {key} is {value}, {expected}")]
pub struct BreakerSetting {
    /// Its name.
    pub key: &'static str,
    /// Its value; of a time, milliseconds.
    pub value: u64,
    /// What it must be.
    pub expected: &'static str,
}

impl BreakerConfig {
    /// Checks every setting.
    ///
    /// ```
    /// use bellrope::breaker::BreakerConfig;
    ///
    /// assert!(BreakerConfig::default().check().is_ok());
    /// let wrong = BreakerConfig::default().failure_threshold(0).check().unwrap_err();
    /// assert_eq!((wrong.key, wrong.value), ("failure_threshold", 0));
    /// ```
    ///
    /// # Errors
    /// The first one that is out of its range.
    pub fn check(&self) -> Result<(), BreakerSetting> {
        let any = u64::MAX;
        let counts = 1..=65_535;
        let count = |key, value: u32, range, expected| (key, u64::from(value), range, expected);
        let time = |key, value, least, expected| (key, millis::of(value), least..=any, expected);
        let longest = |key, value| (key, millis::of(value), 0..=millis::LONGEST, "and must be at most 4294967295");
        let rules = [
            count("failure_threshold", self.failure_threshold, 1..=any, "and must be at least 1"),
            count("min_callers", self.min_callers, 1..=ROWS as u64, "and must be from 1 to 32"),
            count("success_threshold", self.success_threshold, counts.clone(), "and must be from 1 to 65535"),
            time("timeout_ms", self.timeout, 1, "and must be at least 1"),
            time("max_timeout_ms", self.max_timeout, millis::of(self.timeout), "and must be at least timeout_ms"),
            count("jitter_percent", self.jitter_percent, 0..=50, "and must be at most 50"),
            count("half_open_max_requests", self.half_open_max_requests, counts, "and must be from 1 to 65535"),
            time("half_open_timeout_ms", self.half_open_timeout, 1, "and must be at least 1"),
            count("failure_rate_percent", self.failure_rate_percent, 0..=100, "and must be at most 100"),
            count("slow_rate_percent", self.slow_rate_percent, 0..=100, "and must be at most 100"),
            time("slow_call_ms", self.slow_call, 1, "and must be at least 1"),
            time("rate_window_ms", self.rate_window, 10, "and must be at least 10"),
            count("rate_min_calls", self.rate_min_calls, 1..=any, "and must be at least 1"),
            longest("timeout_ms", self.timeout),
            longest("max_timeout_ms", self.max_timeout),
            longest("half_open_timeout_ms", self.half_open_timeout),
            longest("slow_call_ms", self.slow_call),
            longest("rate_window_ms", self.rate_window),
        ];
        match rules.into_iter().find(|(_, value, range, _)| !range.contains(value)) {
            None => Ok(()),
            Some((key, value, _, expected)) => Err(BreakerSetting { key, value, expected }),
        }
    }

    /// How long it stays open when `failed` recoveries have failed in a row. `random` may be anything.
    pub(super) fn open_for(&self, failed: u32, random: u64) -> Duration {
        if failed == 0 {
            return self.timeout;
        }
        let (shortest, longest) = (millis::of(self.timeout), millis::of(self.max_timeout));
        let longest = (shortest << failed.min(32)).min(longest) * 1_000;
        // At most what the percentage allows, in microseconds.
        let taken_off = longest / 100 * u64::from(self.jitter_percent) * (random % 1_001) / 1_000;
        Duration::from_micros(longest - taken_off)
    }
}

pub(super) fn nanos_of(milliseconds: u32) -> u64 {
    u64::from(milliseconds) * 1_000_000
}

/// Keeps every setting in a word of its own, times in milliseconds.
macro_rules! live {
    (counts: $($count:ident),+; times: $($time:ident),+;) => {
        /// The settings as a breaker reads them. Each may change at any moment, and is right by itself.
        ///
        /// The words are the standard library's under a model checker too: nothing depends on the order of such changes.
        #[derive(Debug)]
        pub(super) struct Live {
            enabled: AtomicBool,
            $($count: AtomicU32,)+
            $($time: AtomicU32,)+
        }

        impl Live {
            pub(super) fn new(config: &BreakerConfig) -> Self {
                Self {
                    enabled: AtomicBool::new(config.enabled),
                    $($count: AtomicU32::new(config.$count),)+
                    $($time: AtomicU32::new(word(config.$time)),)+
                }
            }

            pub(super) fn change(&self, config: &BreakerConfig) {
                self.enabled.store(config.enabled, Relaxed);
                $(self.$count.store(config.$count, Relaxed);)+
                $(self.$time.store(word(config.$time), Relaxed);)+
            }

            pub(super) fn config(&self) -> BreakerConfig {
                BreakerConfig {
                    enabled: self.enabled.load(Relaxed),
                    $($count: self.$count.load(Relaxed),)+
                    $($time: Duration::from_millis(self.$time.load(Relaxed).into()),)+
                }
            }
        }

        setters!(BreakerConfig { enabled: bool, $($count: u32,)+ $($time: Duration,)+ });
    };
}

live!(
    counts: failure_threshold,
        min_callers,
        success_threshold,
        jitter_percent,
        half_open_max_requests,
        failure_rate_percent,
        slow_rate_percent,
        rate_min_calls;
    times: timeout, max_timeout, half_open_timeout, slow_call, rate_window;
);

/// A time that was checked, as it is kept.
fn word(time: Duration) -> u32 {
    u32::try_from(millis::of(time)).unwrap_or(u32::MAX)
}

impl Live {
    /// Whether it opens by itself.
    pub(super) fn enabled(&self) -> bool {
        self.enabled.load(Relaxed)
    }

    pub(super) fn min_callers(&self) -> u32 {
        self.min_callers.load(Relaxed)
    }

    /// [`BreakerConfig::open_for`], in nanoseconds.
    pub(super) fn open_for(&self, failed: u32, random: u64) -> u64 {
        self.config().open_for(failed, random).as_nanos() as u64
    }

    pub(super) fn rate_window_ms(&self) -> u32 {
        self.rate_window.load(Relaxed)
    }

    #[inline]
    pub(super) fn failure_threshold(&self) -> u32 {
        self.failure_threshold.load(Relaxed)
    }

    pub(super) fn success_threshold(&self) -> u32 {
        self.success_threshold.load(Relaxed)
    }

    pub(super) fn half_open_max_requests(&self) -> u32 {
        self.half_open_max_requests.load(Relaxed)
    }

    pub(super) fn half_open_timeout_ms(&self) -> u32 {
        self.half_open_timeout.load(Relaxed)
    }

    pub(super) fn slow_call(&self) -> Duration {
        Duration::from_millis(self.slow_call.load(Relaxed).into())
    }

    /// Whether slow calls are looked at.
    #[inline]
    pub(super) fn has_slow_rate(&self) -> bool {
        self.slow_rate_percent.load(Relaxed) > 0
    }

    /// Whether every call is counted in a window.
    #[inline]
    pub(super) fn has_rates(&self) -> bool {
        self.failure_rate_percent.load(Relaxed) | self.slow_rate_percent.load(Relaxed) > 0
    }

    /// Whether so many calls of a window, failed or slow, reach a rate.
    pub(super) fn is_reached(&self, calls: u64, failed: u64, slow: u64) -> bool {
        let reached = |count: u64, percent: &AtomicU32| {
            let percent = u64::from(percent.load(Relaxed));
            percent > 0 && count * 100 >= calls * percent
        };
        calls >= u64::from(self.rate_min_calls.load(Relaxed))
            && (reached(failed, &self.failure_rate_percent) || reached(slow, &self.slow_rate_percent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_takes_off_up_to_its_percentage_in_proportion_to_the_random_number() {
        let config = BreakerConfig::default();
        let open_for = |failed, random| config.open_for(failed, random).as_millis();
        assert_eq!(open_for(0, 1_000), 60_000, "the first time is never changed");
        assert_eq!([0, 1_001].map(|random| open_for(1, random)), [120_000; 2]);
        assert_eq!([250, 500, 1_000].map(|random| open_for(1, random)), [117_000, 114_000, 108_000]);
        assert_eq!(open_for(2, 500), 228_000);
        assert_eq!(open_for(u32::MAX, 1_000), 540_000, "of the longest time");
        let longest = Duration::from_millis(millis::LONGEST);
        let most = BreakerConfig { timeout: longest, max_timeout: longest, jitter_percent: 50, ..config };
        let half = u128::from(u32::MAX) / 2;
        assert!(most.open_for(u32::MAX, u64::MAX).as_millis() >= half, "nothing overflows");
    }

    #[test]
    fn a_time_too_short_or_too_long_to_be_kept_is_refused_and_named() {
        let text = |config: BreakerConfig| config.check().unwrap_err().to_string();
        let short = BreakerConfig::default().slow_call(Duration::from_micros(999));
        assert_eq!(text(short), "the breaker's setting slow_call_ms is 0, and must be at least 1");
        let long = BreakerConfig::default().rate_window(Duration::MAX);
        let expected = "the breaker's setting rate_window_ms is 18446744073709551615, and must be at most 4294967295";
        assert_eq!(text(long), expected);
    }
}
