//! What a provider does for a request. A real one reads and thinks before it answers; how much of that there is decides what
//! share of its answers is left where everything has to be done by the same CPUs.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::asker::Asked;

/// Measurements by which the work is fitted, each on a connection of its own, and how long each of them takes.
const FITTINGS: usize = 12;
const FITTING_TIME: Duration = Duration::from_millis(40);

/// Computing, in rounds, before each answer. It takes CPU time rather than time: a thread that waits for a CPU does none of it.
#[derive(Debug, Default)]
pub(super) struct Work(AtomicU64);

impl Work {
    /// Does it once.
    pub(super) fn perform(&self) {
        let rounds = self.0.load(Relaxed);
        black_box((0..rounds).fold(rounds, |value, round| black_box(value.rotate_left(5) ^ round)));
    }

    /// Chooses how much it is: so that a request takes this long at p50, where one follows the other on one connection. None, if it
    /// takes longer without. What a request takes without is the least of several measurements: threads that the scheduler puts on
    /// different CPUs wait for each other several times as long.
    pub(super) fn fit(&self, asked: &Asked, target: Duration) -> anyhow::Result<()> {
        self.stop();
        let mut least = f64::INFINITY;
        for _ in 0..FITTINGS {
            least = least.min(asked.sequential(FITTING_TIME)?.percentiles().p50_us);
        }
        let rounds = (target.as_secs_f64() * 1e6 - least).max(0.0) / Self::a_round();
        self.0.store(rounds as u64, Relaxed);
        Ok(())
    }

    /// No more work.
    pub(super) fn stop(&self) -> u64 {
        self.0.swap(0, Relaxed)
    }

    /// As much work as there was.
    pub(super) fn resume(&self, rounds: u64) {
        self.0.store(rounds, Relaxed);
    }

    /// How many microseconds a round takes, at best.
    fn a_round() -> f64 {
        const ROUNDS: u32 = 100_000;
        let work = Self(u64::from(ROUNDS).into());
        let times = (0..5).map(|_| {
            let start = Instant::now();
            work.perform();
            start.elapsed()
        });
        times.min().unwrap_or_default().as_secs_f64() * 1e6 / f64::from(ROUNDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_time_and_can_be_stopped_and_taken_up_again() {
        let work = Work::default();
        work.perform();
        assert_eq!(work.stop(), 0);
        work.resume(7);
        assert_eq!(work.stop(), 7);
        assert!(Work::a_round() > 0.0);
    }
}
