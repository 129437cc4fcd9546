use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    time::Duration,
};

/// Callers that a breaker keeps an eye on. A crowd makes no more of them: the least interesting one goes.
pub(super) const ROWS: usize = 32;
/// Half-open with all probes out: somebody else will soon know more, so this is the longest wait that is advised.
pub(super) const PROBES_OUT: Duration = Duration::from_secs(1);

/// When a breaker opens, for how long, and what closes it.
///
/// The two rates are off by default. While one is on, every call that ends is counted in a window, which costs some
/// ten nanoseconds more.
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
    /// Milliseconds it stays open before it is probed. Default 60,000. Doubles with every recovery that fails.
    pub timeout_ms: u32,
    /// Most milliseconds that it stays open, however often recovery failed. Default 600,000.
    pub max_timeout_ms: u32,
    /// Percent of a doubled time that may be taken off at random, so that many breakers do not probe together. Default
    /// 10, at most 50.
    pub jitter_percent: u32,
    /// Probes under way at once while it is half-open. Default 3, at most 65,535.
    pub half_open_max_requests: u32,
    /// Milliseconds it may stay half-open. Default 60,000. Probes that are still out then count as failed.
    pub half_open_timeout_ms: u32,
    /// Percent of failed calls in the window that opens it. Default 0, which means that the rate opens nothing.
    pub failure_rate_percent: u32,
    /// Percent of slow calls in the window that opens it. Default 0, which means that slow calls open nothing. While it
    /// is on, a probe that is slow has failed.
    pub slow_rate_percent: u32,
    /// Milliseconds from which on a call is slow. Default 1,000.
    pub slow_call_ms: u32,
    /// Milliseconds that the window of both rates looks back. Default 10,000. For as long, failures of one caller are in a
    /// row although other callers' calls went well in between.
    pub rate_window_ms: u32,
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
            timeout_ms: 60_000,
            max_timeout_ms: 600_000,
            jitter_percent: 10,
            half_open_max_requests: 3,
            half_open_timeout_ms: 60_000,
            failure_rate_percent: 0,
            slow_rate_percent: 0,
            slow_call_ms: 1_000,
            rate_window_ms: 10_000,
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
    /// Its value.
    pub value: u32,
    /// What it must be.
    pub expected: &'static str,
}

impl BreakerConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first one that is out of its range.
    pub fn check(&self) -> Result<(), BreakerSetting> {
        let counts = 1..=65_535;
        let rules = [
            ("failure_threshold", self.failure_threshold, 1..=u32::MAX, "and must be at least 1"),
            ("min_callers", self.min_callers, 1..=ROWS as u32, "and must be from 1 to 32"),
            ("success_threshold", self.success_threshold, counts.clone(), "and must be from 1 to 65535"),
            ("timeout_ms", self.timeout_ms, 1..=u32::MAX, "and must be at least 1"),
            ("max_timeout_ms", self.max_timeout_ms, self.timeout_ms..=u32::MAX, "and must be at least timeout_ms"),
            ("jitter_percent", self.jitter_percent, 0..=50, "and must be at most 50"),
            ("half_open_max_requests", self.half_open_max_requests, counts, "and must be from 1 to 65535"),
            ("half_open_timeout_ms", self.half_open_timeout_ms, 1..=u32::MAX, "and must be at least 1"),
            ("failure_rate_percent", self.failure_rate_percent, 0..=100, "and must be at most 100"),
            ("slow_rate_percent", self.slow_rate_percent, 0..=100, "and must be at most 100"),
            ("slow_call_ms", self.slow_call_ms, 1..=u32::MAX, "and must be at least 1"),
            ("rate_window_ms", self.rate_window_ms, 10..=u32::MAX, "and must be at least 10"),
            ("rate_min_calls", self.rate_min_calls, 1..=u32::MAX, "and must be at least 1"),
        ];
        match rules.into_iter().find(|(_, value, range, _)| !range.contains(value)) {
            None => Ok(()),
            Some((key, value, _, expected)) => Err(BreakerSetting { key, value, expected }),
        }
    }

    /// How long it stays open when `failed` recoveries have failed in a row. `random` may be anything.
    pub(super) fn open_for(&self, failed: u32, random: u64) -> Duration {
        if failed == 0 {
            return Duration::from_millis(self.timeout_ms.into());
        }
        let doubled = u64::from(self.timeout_ms) << failed.min(32);
        let longest = doubled.min(self.max_timeout_ms.into()) * 1_000;
        // At most what the percentage allows, in microseconds.
        let taken_off = longest / 100 * u64::from(self.jitter_percent) * (random % 1_001) / 1_000;
        Duration::from_micros(longest - taken_off)
    }
}

pub(super) fn nanos_of(milliseconds: u32) -> u64 {
    u64::from(milliseconds) * 1_000_000
}

/// Keeps every setting in a word of its own.
macro_rules! live {
    ($($setting:ident),* $(,)?) => {
        /// The settings as a breaker reads them. Each may change at any moment, and is right by itself.
        ///
        /// The words are the standard library's under a model checker too: nothing depends on the order of such changes.
        #[derive(Debug)]
        pub(super) struct Live {
            enabled: AtomicBool,
            $($setting: AtomicU32,)*
        }

        impl Live {
            pub(super) fn new(config: &BreakerConfig) -> Self {
                Self { enabled: AtomicBool::new(config.enabled), $($setting: AtomicU32::new(config.$setting),)* }
            }

            pub(super) fn change(&self, config: &BreakerConfig) {
                self.enabled.store(config.enabled, Relaxed);
                $(self.$setting.store(config.$setting, Relaxed);)*
            }

            pub(super) fn config(&self) -> BreakerConfig {
                BreakerConfig { enabled: self.enabled.load(Relaxed), $($setting: self.$setting.load(Relaxed),)* }
            }
        }
    };
}

live!(
    failure_threshold,
    min_callers,
    success_threshold,
    timeout_ms,
    max_timeout_ms,
    jitter_percent,
    half_open_max_requests,
    half_open_timeout_ms,
    failure_rate_percent,
    slow_rate_percent,
    slow_call_ms,
    rate_window_ms,
    rate_min_calls,
);

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
        self.rate_window_ms.load(Relaxed)
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
        self.half_open_timeout_ms.load(Relaxed)
    }

    pub(super) fn slow_call(&self) -> Duration {
        Duration::from_millis(self.slow_call_ms.load(Relaxed).into())
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
        let most = BreakerConfig { timeout_ms: u32::MAX, max_timeout_ms: u32::MAX, jitter_percent: 50, ..config };
        let half = u128::from(u32::MAX) / 2;
        assert!(most.open_for(u32::MAX, u64::MAX).as_millis() >= half, "nothing overflows");
    }
}
