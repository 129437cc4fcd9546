//! Which calls of a link have begun, so that nobody sends one of them again in its name.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

/// So far behind the highest number a call may come; calls of one server overtake each other by less.
const BEHIND: u64 = 4096;
const WORDS: usize = (BEHIND / 64) as usize;

/// How long a call that nobody signed is remembered. One that comes later than that is too late to begin.
const REMEMBERED: Duration = Duration::from_secs(2);
/// Most of them.
const MOST_REMEMBERED: usize = 32_768;

/// Calls that nobody signed and that began a moment ago, of all links. Their numbers are not believed to grow: a stranger who
/// sends a high one in the name of a link would end all that this link calls.
#[derive(Debug, Default)]
pub(super) struct Lately {
    in_order: VecDeque<(Instant, Call)>,
    calls: HashSet<Call>,
}

/// The number of a link, and that of a call of it.
type Call = (u64, u64);

impl Lately {
    /// Notes a call that is about to begin. Answers `false` if it was there before.
    pub(super) fn note(&mut self, call: Call, now: Instant) -> bool {
        let is_old = |(began, _): &(Instant, Call)| now.saturating_duration_since(*began) > REMEMBERED;
        while self.in_order.len() >= MOST_REMEMBERED || self.in_order.front().is_some_and(is_old) {
            if let Some((_, old)) = self.in_order.pop_front() {
                self.calls.remove(&old);
            }
        }
        let is_new = self.calls.insert(call);
        if is_new {
            self.in_order.push_back((now, call));
        }
        is_new
    }
}

/// The numbers of the calls of one link, of which each grows by one.
#[derive(Debug)]
pub(super) struct Begun {
    highest: u64,
    /// A ring of bits: that of number `n` is the one at `n` modulo [`BEHIND`].
    bits: [u64; WORDS],
}

/// What a number says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    New,
    /// It was there before.
    Again,
    /// It is so old that nothing is known of it.
    TooOld,
}

impl Default for Begun {
    fn default() -> Self {
        Self { highest: 0, bits: [0; WORDS] }
    }
}

impl Begun {
    /// Notes a call that is about to begin.
    pub(super) fn note(&mut self, number: u64) -> Number {
        if number > self.highest {
            if number - self.highest >= BEHIND {
                self.bits.fill(0);
            } else {
                for skipped in self.highest + 1..=number {
                    self.set(skipped, false);
                }
            }
            self.highest = number;
        } else if self.highest - number >= BEHIND {
            return Number::TooOld;
        } else if self.is_set(number) {
            return Number::Again;
        }
        self.set(number, true);
        Number::New
    }

    fn place(number: u64) -> (usize, u64) {
        let at = number % BEHIND;
        ((at / 64) as usize, 1 << (at % 64))
    }

    fn is_set(&self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        self.bits[word] & bit != 0
    }

    fn set(&mut self, number: u64, to: bool) {
        let (word, bit) = Self::place(number);
        if to { self.bits[word] |= bit } else { self.bits[word] &= !bit }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_call_that_nobody_signed_is_remembered_for_as_long_as_it_may_begin_and_there_is_a_bound() {
        let (mut lately, start) = (Lately::default(), Instant::now());
        assert!(lately.note((1, 5), start) && lately.note((2, 5), start) && lately.note((1, u64::MAX), start));
        assert!(!lately.note((1, 5), start + REMEMBERED) && lately.note((1, 6), start));
        assert!(lately.note((1, 5), start + 2 * REMEMBERED));
        assert!((0..100_000).all(|call| lately.note((3, call), start)));
        assert_eq!((lately.in_order.len(), lately.calls.len()), (MOST_REMEMBERED, MOST_REMEMBERED));
    }

    proptest! {
        #[test]
        fn no_number_is_new_twice_and_one_that_is_near_is_new_once(
            first in any::<u64>(), steps in proptest::collection::vec(-6000_i64..6000, 1..200),
        ) {
            let (mut begun, mut seen, mut number, mut highest) = (Begun::default(), HashSet::new(), first, 0);
            for step in steps {
                number = number.saturating_add_signed(step).max(1);
                highest = highest.max(number);
                let expected = match (highest - number >= BEHIND, seen.insert(number)) {
                    (true, _) => Number::TooOld,
                    (false, true) => Number::New,
                    (false, false) => Number::Again,
                };
                prop_assert_eq!(begun.note(number), expected);
            }
        }
    }
}
