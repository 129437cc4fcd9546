//! Whether the loops of a server's threads still turn, asked of the loops themselves.
//!
//! Who wants to know writes a number into the word of each loop and wakes it; a loop copies the number into its answer
//! once a turn. A loop that has no answer after a while is stuck, or its thread is gone. The liveness knows no thread and
//! no socket.

use std::{
    sync::{
        OnceLock,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

/// The answer of a loop that has ended as it should.
const ENDED: u64 = u64::MAX;
/// How often a blocking question looks for its answers.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Wakes a loop that sleeps.
type Wake = Box<dyn Fn() + Send + Sync>;

/// The words of all loops.
#[derive(Debug)]
pub(crate) struct Liveness {
    asked: AtomicU64,
    loops: Box<[Beat]>,
}

/// One loop's words, on a line of their own.
#[derive(Default)]
#[repr(align(64))]
struct Beat {
    /// What it is asked.
    asked: AtomicU64,
    /// What it answered last.
    answered: AtomicU64,
    wake: OnceLock<Wake>,
}

impl std::fmt::Debug for Beat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Beat").field("asked", &self.asked).field("answered", &self.answered).finish_non_exhaustive()
    }
}

impl Liveness {
    pub(crate) fn new(loops: usize) -> Self {
        Self { asked: AtomicU64::new(0), loops: (0..loops).map(|_| Beat::default()).collect() }
    }

    /// Says how a loop is woken. Until then it counts as one that has not begun, and answers nothing.
    pub(crate) fn wake_with(&self, index: usize, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.loops[index].wake.set(Box::new(wake));
    }

    /// Wakes one loop.
    pub(crate) fn wake(&self, index: usize) {
        if let Some(wake) = self.loops.get(index).and_then(|beat| beat.wake.get()) {
            wake();
        }
    }

    /// To be called by a loop once a turn: answers what was asked. Two loads if nothing was.
    #[inline]
    pub(crate) fn beat(&self, index: usize) {
        let beat = &self.loops[index];
        let asked = beat.asked.load(Relaxed);
        if beat.answered.load(Relaxed) != asked {
            // Release pairs with the acquire in `unanswered`: whoever sees the answer sees what the loop wrote before.
            beat.answered.store(asked, Release);
        }
    }

    /// To be called by a loop that ends as it should.
    pub(crate) fn end(&self, index: usize) {
        self.loops[index].answered.store(ENDED, Release);
    }

    /// Asks every loop, and returns the number of the question.
    pub(crate) fn ask(&self) -> u64 {
        let number = self.asked.fetch_add(1, Relaxed) + 1;
        for beat in &self.loops {
            // A later question may have been written meanwhile; its answer is as good.
            beat.asked.fetch_max(number, Release);
            if let Some(wake) = beat.wake.get() {
                wake();
            }
        }
        number
    }

    /// The loops that have not answered this question.
    pub(crate) fn unanswered(&self, number: u64) -> impl Iterator<Item = usize> {
        self.loops
            .iter()
            .enumerate()
            .filter(move |(_, beat)| beat.answered.load(Acquire) < number)
            .map(|(index, _)| index)
    }

    /// Asks and waits, at most so long. Returns the loops without an answer.
    pub(crate) fn listen(&self, patience: Duration) -> Vec<usize> {
        let (number, began) = (self.ask(), Instant::now());
        loop {
            let silent: Vec<_> = self.unanswered(number).collect();
            if silent.is_empty() || began.elapsed() >= patience {
                return silent;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    #[test]
    fn a_loop_that_turns_answers_and_one_that_does_not_is_named() {
        let liveness = Arc::new(Liveness::new(2));
        let (wake, woken) = mpsc::channel();
        liveness.wake_with(0, move || _ = wake.send(()));
        let turning = {
            let liveness = Arc::clone(&liveness);
            std::thread::spawn(move || {
                for () in woken {
                    liveness.beat(0);
                }
            })
        };
        assert_eq!(liveness.listen(Duration::from_millis(1_000)), [1]);
        liveness.end(1);
        assert_eq!(liveness.listen(Duration::from_secs(10)), [0_usize; 0], "a loop that has ended is not stuck");
        drop(liveness);
        drop(turning); // it ends when the last question's waker is gone
    }

    #[test]
    fn an_answer_to_an_older_question_is_none_to_a_newer_one() {
        let liveness = Liveness::new(1);
        let first = liveness.ask();
        liveness.beat(0);
        let second = liveness.ask();
        assert_eq!(liveness.unanswered(first).count(), 0);
        assert_eq!(liveness.unanswered(second).count(), 1);
        liveness.beat(0);
        assert_eq!(liveness.unanswered(second).count(), 0);
    }
}
