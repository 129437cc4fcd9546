//! A circuit breaker: a provider that fails again and again is not asked for a while.
//!
//! Closed, every request goes through and consecutive failures are counted; at the threshold it opens. Open, every
//! request is refused until the pause is over. Half open, a few may try: enough successes close it, one failure opens it
//! for twice as long. A request holds a [`Permit`], which counts once or, when it is dropped, not at all.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The longest pause, whatever doubles.
const MAX_PAUSE: Duration = Duration::from_secs(15 * 60);

/// When a breaker opens and closes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BreakerConfig {
    /// So many failures in a row open it. Default: 5.
    pub failure_threshold: u32,
    /// So many successes close it again. Default: 2.
    pub success_threshold: u32,
    /// How long it stays open before the first try, in milliseconds; twice as long after each try that failed, to at most
    /// 15 minutes, less up to a quarter by chance. Default: 60,000.
    pub timeout_ms: u32,
    /// How many may try at a time when the pause is over. Default: 3.
    pub half_open_max_requests: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failure_threshold: 5, success_threshold: 2, timeout_ms: 60_000, half_open_max_requests: 3 }
    }
}

/// A setting of a breaker that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BreakerSetting {
    pub(crate) key: &'static str,
    pub(crate) expected: &'static str,
}

impl BreakerConfig {
    pub(crate) fn check(&self) -> Result<(), BreakerSetting> {
        let settings = [
            ("failure_threshold", self.failure_threshold),
            ("success_threshold", self.success_threshold),
            ("timeout_ms", self.timeout_ms),
            ("half_open_max_requests", self.half_open_max_requests),
        ];
        match settings.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(BreakerSetting { key, expected: "and must be at least 1" }),
            None => Ok(()),
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.into())
    }
}

/// What a breaker does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// They go through.
    Closed,
    /// They are refused.
    Open,
    /// A few may try.
    HalfOpen,
}

/// No permit: the breaker is open, or half open with as many tries as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rejected {
    /// After how long it is worth asking again.
    pub(crate) retry_after: Duration,
}

/// A circuit breaker.
#[derive(Debug)]
pub(crate) struct Breaker {
    config: BreakerConfig,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// Grows with every transition, so that a permit of an earlier state settles nothing.
    generation: u64,
    /// The next pause.
    pause: Duration,
}

#[derive(Debug)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { trying: u32, successes: u32 },
}

/// Leave for one request.
#[must_use = "dropped, it counts for nothing"]
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    breaker: &'a Breaker,
    generation: u64,
    settled: bool,
}

impl Breaker {
    /// A closed breaker.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub(crate) fn new(config: BreakerConfig) -> Result<Self, BreakerSetting> {
        config.check()?;
        let inner = Inner { phase: Phase::Closed { failures: 0 }, generation: 0, pause: config.timeout() };
        Ok(Self { config, inner: Mutex::new(inner) })
    }

    /// Leave for a request.
    ///
    /// # Errors
    /// It must not be sent now.
    pub(crate) fn acquire(&self, now: Instant) -> Result<Permit<'_>, Rejected> {
        let mut inner = self.lock();
        if let Phase::Open { until } = inner.phase {
            if now < until {
                return Err(Rejected { retry_after: until - now });
            }
            inner.enter(Phase::HalfOpen { trying: 0, successes: 0 });
        }
        if let Phase::HalfOpen { trying, .. } = &mut inner.phase {
            if *trying == self.config.half_open_max_requests {
                return Err(Rejected { retry_after: Duration::from_secs(1).min(self.config.timeout()) });
            }
            *trying += 1;
        }
        Ok(Permit { breaker: self, generation: inner.generation, settled: false })
    }

    /// What a request that came now would meet.
    pub(crate) fn state(&self, now: Instant) -> State {
        match self.lock().phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { until } if now < until => State::Open,
            Phase::Open { .. } | Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, generation: u64, outcome: Option<bool>, now: Instant) {
        let mut inner = self.lock();
        if inner.generation != generation {
            return;
        }
        let config = &self.config;
        match (&mut inner.phase, outcome) {
            (Phase::Closed { failures }, Some(true)) => *failures = 0,
            (Phase::Closed { failures }, Some(false)) => {
                *failures = failures.saturating_add(1);
                if *failures == config.failure_threshold {
                    inner.open(now);
                }
            }
            (Phase::HalfOpen { trying, .. }, None) => *trying -= 1,
            (Phase::HalfOpen { trying, successes }, Some(true)) => {
                *trying -= 1;
                *successes += 1;
                if *successes >= config.success_threshold {
                    inner.pause = config.timeout();
                    inner.enter(Phase::Closed { failures: 0 });
                }
            }
            (Phase::HalfOpen { .. }, Some(false)) => inner.open(now),
            (Phase::Closed { .. }, None) | (Phase::Open { .. }, _) => {}
        }
    }
}

impl Inner {
    fn open(&mut self, now: Instant) {
        let pause = self.pause.mul_f64(1.0 - fastrand::f64() / 4.0);
        self.pause = (self.pause * 2).min(MAX_PAUSE.max(self.pause));
        self.enter(Phase::Open { until: now + pause });
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
    }
}

impl Permit<'_> {
    /// The request was answered.
    pub(crate) fn succeed(mut self, now: Instant) {
        self.settled = true;
        self.breaker.settle(self.generation, Some(true), now);
    }

    /// The provider failed.
    pub(crate) fn fail(mut self, now: Instant) {
        self.settled = true;
        self.breaker.settle(self.generation, Some(false), now);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.settled {
            // The time is of no use where nothing is counted.
            self.breaker.settle(self.generation, None, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &Breaker, now: Instant) {
        breaker.acquire(now).unwrap().fail(now);
    }

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::new(BreakerConfig::default()).unwrap();
        for _ in 0..5 {
            assert_eq!(breaker.state(now), State::Closed);
            fail(&breaker, now);
        }
        assert_eq!(breaker.state(now), State::Open);
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_in_between_does_not() {
        let now = Instant::now();
        let breaker = Breaker::new(BreakerConfig::default()).unwrap();
        for _ in 0..10 {
            for _ in 0..4 {
                fail(&breaker, now);
            }
            breaker.acquire(now).unwrap().succeed(now);
        }
        assert_eq!(breaker.state(now), State::Closed);
        let after = opened(now).acquire(now).unwrap_err().retry_after;
        assert!((Duration::from_secs(45)..=Duration::from_secs(60)).contains(&after), "{after:?}");
    }

    #[test]
    fn after_the_pause_three_may_try_and_two_successes_close_it() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + Duration::from_secs(61);
        let tries = [0, 1, 2].map(|_| breaker.acquire(later).unwrap());
        assert!(breaker.acquire(later).is_err());
        let [first, second, third] = tries;
        drop(third);
        first.succeed(later);
        assert_eq!(breaker.state(later), State::HalfOpen);
        second.succeed(later);
        assert_eq!(breaker.state(later), State::Closed);
    }

    #[test]
    fn a_try_that_fails_opens_it_for_twice_as_long_up_to_a_bound() {
        let mut now = Instant::now();
        let breaker = opened(now);
        for longest in [120, 240, 480, 900, 900] {
            now += MAX_PAUSE;
            fail(&breaker, now);
            let after = breaker.acquire(now).unwrap_err().retry_after.as_secs_f64();
            assert!((f64::from(longest) * 0.75..=f64::from(longest)).contains(&after), "{after} of {longest}");
        }
    }

    #[test]
    fn a_dropped_permit_counts_for_nothing_and_gives_its_place_back() {
        let now = Instant::now();
        let breaker = Breaker::new(BreakerConfig::default()).unwrap();
        for _ in 0..20 {
            drop(breaker.acquire(now).unwrap());
        }
        assert_eq!(breaker.state(now), State::Closed);
        let breaker = opened(now);
        let later = now + Duration::from_secs(61);
        for _ in 0..20 {
            drop(breaker.acquire(later).unwrap());
        }
        assert_eq!(breaker.state(later), State::HalfOpen);
    }

    #[test]
    fn a_permit_of_an_earlier_state_settles_nothing() {
        let now = Instant::now();
        let breaker = Breaker::new(BreakerConfig::default()).unwrap();
        let (old_success, old_failure) = (breaker.acquire(now).unwrap(), breaker.acquire(now).unwrap());
        for _ in 0..5 {
            fail(&breaker, now);
        }
        let later = now + Duration::from_secs(61);
        let trying = breaker.acquire(later).unwrap();
        old_success.succeed(later);
        old_failure.fail(later);
        assert_eq!(breaker.state(later), State::HalfOpen);
        drop(trying);
    }

    #[test]
    fn settings_that_would_keep_it_open_for_ever_are_refused() {
        let config = BreakerConfig { half_open_max_requests: 0, ..BreakerConfig::default() };
        assert_eq!(Breaker::new(config).unwrap_err().key, "half_open_max_requests");
    }
}
