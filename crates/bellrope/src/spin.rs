//! How long a waiter spins before it sleeps.

use std::time::{Duration, Instant};

use bellrope_shm::process;

/// When to spin while waiting. Spinning answers in a fraction of a microsecond and costs a CPU; waking a sleeper costs
/// tens of microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpinPolicy {
    /// Sleep at once.
    Never,
    /// Spin while that lately paid, up to a cap; never on a machine with one CPU.
    #[default]
    Adaptive,
    /// Spin for as long as it takes.
    Always,
}

/// Polls between two looks at the clock.
const POLLS_PER_LOOK: u32 = 32;
/// Chunks of streams that are told after the last call until only streams are taken to be under way: what brings the next chunk
/// wakes a sleeper or does its work, and a waiter that spins for it takes the CPU from whoever makes chunks.
const STREAMS_ALONE: u32 = 64;
/// The budget that the first success after a bad time starts from.
const FIRST_BUDGET: Duration = Duration::from_micros(5);

/// Decides for one waiter. Its budget doubles whenever spinning paid or would have, and halves whenever it did not.
#[derive(Debug)]
pub(crate) struct Spinner {
    policy: SpinPolicy,
    cap: Duration,
    budget: Duration,
    polls: u32,
    /// Chunks that were told since the last call.
    chunks: u32,
    /// When this wait began, once the clock has been looked at.
    since: Option<Instant>,
    looked: Option<Instant>,
}

impl Spinner {
    pub(crate) fn new(policy: SpinPolicy, cap: Duration) -> Self {
        let alone = process::online_cpus() < 2;
        let policy = if alone && policy == SpinPolicy::Adaptive { SpinPolicy::Never } else { policy };
        Self { policy, cap, budget: cap, polls: 0, chunks: 0, since: None, looked: None }
    }

    /// After a poll that found nothing: whether to poll again. `false` means to sleep.
    #[inline]
    pub(crate) fn keep_on(&mut self) -> bool {
        match self.policy {
            SpinPolicy::Never => return false,
            SpinPolicy::Always => return true,
            SpinPolicy::Adaptive if self.chunks >= STREAMS_ALONE => return false,
            SpinPolicy::Adaptive => {}
        }
        self.polls += 1;
        if self.polls % POLLS_PER_LOOK != 0 {
            return true;
        }
        self.look(Instant::now())
    }

    #[cold]
    fn look(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        // A gap this long between two looks means that somebody else needed the CPU: give it to them.
        let taken_away = self.looked.is_some_and(|looked| now - looked > self.cap);
        self.looked = Some(now);
        if taken_away {
            self.budget = Duration::ZERO;
        }
        now - since < self.budget
    }

    /// Something came while polling.
    #[inline]
    pub(crate) fn found(&mut self) {
        if self.polls >= POLLS_PER_LOOK {
            self.budget = self.doubled();
        }
        (self.polls, self.since, self.looked) = (0, None, None);
    }

    /// A handler has told of chunks of a stream, in one message.
    #[cfg(all(feature = "server", feature = "tokio"))]
    pub(crate) fn told_chunks(&mut self) {
        self.chunks = self.chunks.saturating_add(1);
    }

    /// A call came, or what else a caller sends, if `any`: who may send the next one is worth looking out for.
    #[cfg(feature = "server")]
    #[inline]
    pub(crate) fn heard_calls(&mut self, any: bool) {
        if any {
            self.chunks = 0;
        }
    }

    /// Twice the budget, within the cap: that may be below what a first success brings, or without end.
    fn doubled(&self) -> Duration {
        self.budget.saturating_mul(2).max(FIRST_BUDGET).min(self.cap)
    }

    /// A sleep of this length ended.
    pub(crate) fn slept(&mut self, length: Duration) {
        self.budget = if length < self.cap { self.doubled() } else { self.budget / 2 };
        (self.polls, self.since, self.looked) = (0, None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: Duration = Duration::from_micros(50);

    fn adaptive() -> Spinner {
        Spinner { policy: SpinPolicy::Adaptive, ..Spinner::new(SpinPolicy::Always, CAP) }
    }

    #[test]
    fn any_cap_is_kept() {
        for cap in [Duration::ZERO, Duration::from_micros(1), Duration::MAX] {
            let mut spinner = Spinner { policy: SpinPolicy::Adaptive, ..Spinner::new(SpinPolicy::Always, cap) };
            spinner.slept(Duration::ZERO);
            (0..POLLS_PER_LOOK).for_each(|_| {
                let _ = spinner.keep_on();
            });
            spinner.found();
            assert_eq!(spinner.budget, cap);
        }
    }

    #[test]
    fn long_sleeps_shrink_the_budget_and_short_ones_grow_it() {
        let mut spinner = adaptive();
        for _ in 0..30 {
            spinner.slept(Duration::from_millis(1));
        }
        assert!(spinner.budget < Duration::from_nanos(10));
        for _ in 0..10 {
            spinner.slept(Duration::from_micros(3));
        }
        assert_eq!(spinner.budget, CAP);
    }

    #[test]
    fn the_budget_ends_the_spinning() {
        let mut spinner = adaptive();
        let start = Instant::now();
        assert!(spinner.look(start) && spinner.look(start + CAP / 2));
        assert!(!spinner.look(start + CAP));
    }

    #[test]
    fn a_cpu_that_was_taken_away_ends_the_spinning() {
        let mut spinner = adaptive();
        let start = Instant::now();
        assert!(spinner.look(start));
        assert!(!spinner.look(start + CAP * 3));
        assert_eq!(spinner.budget, Duration::ZERO);
    }

    #[cfg(all(feature = "server", feature = "tokio"))]
    #[test]
    fn where_only_streams_are_under_way_nobody_spins_until_a_call_comes() {
        let adaptive = || Spinner { policy: SpinPolicy::Adaptive, ..Spinner::new(SpinPolicy::Always, Duration::MAX) };
        let mut spinner = adaptive();
        let mut always = Spinner { policy: SpinPolicy::Always, ..adaptive() };
        for told in 0..2 * STREAMS_ALONE {
            assert_eq!(spinner.keep_on(), told < STREAMS_ALONE);
            spinner.told_chunks();
            always.told_chunks();
        }
        spinner.heard_calls(false);
        assert!(!spinner.keep_on() && always.keep_on());
        spinner.heard_calls(true);
        assert!(spinner.keep_on());
    }

    #[test]
    fn never_and_always_mean_it() {
        let mut never = Spinner::new(SpinPolicy::Never, CAP);
        let mut always = Spinner::new(SpinPolicy::Always, CAP);
        assert!(!never.keep_on());
        assert!((0..100_000).all(|_| always.keep_on()));
    }
}
