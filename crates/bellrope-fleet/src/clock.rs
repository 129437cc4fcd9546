//! What another process's clock says, as far as that can be known.
//!
//! Wall clocks of two machines may be hours apart, so none is asked. An importing server says what its monotonic clock said
//! when it sent a message. That took some time, so its clock says more by now: what is kept is a lower bound, as good as the
//! fastest message was.

use std::time::{Duration, Instant};

use crate::times::{ANSWERED_WITHIN, EXACT};

/// The clock of this process, in microseconds since some moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// A clock that does not begin at 0, so that a while ago is a number too.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn at(self, moment: Instant) -> u64 {
        const BEGINNING_US: u64 = 3_600_000_000;
        let since = moment.saturating_duration_since(self.0).as_micros();
        BEGINNING_US.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

/// What is known of a peer's clock.
#[derive(Debug, Default)]
pub(crate) struct PeerClock {
    /// At our moment, its clock said at least so much.
    known: Option<(Instant, u64)>,
    /// By how much it may have said more, in microseconds, where that counts: where the answer took longer than [`EXACT`].
    spread_us: u64,
    /// When it was asked last, and by which number.
    asked: Option<(Instant, u64)>,
    /// When it answered last, exactly enough.
    answered: Option<Instant>,
}

impl PeerClock {
    /// Notes a question that is sent now.
    pub(crate) fn ask(&mut self, now: Instant, nonce: u64) {
        self.asked = Some((now, nonce));
    }

    /// Whether a question is under way that may still be answered.
    pub(crate) fn is_asked(&self, now: Instant) -> bool {
        self.asked.is_some_and(|(at, _)| now.saturating_duration_since(at) <= ANSWERED_WITHIN)
    }

    /// It said what its clock says, and which question that answers; 0 for none.
    pub(crate) fn hear(&mut self, now: Instant, clock_us: u64, nonce: u64) {
        match self.asked {
            Some((at, asked)) if nonce != 0 && asked == nonce => {
                self.asked = None;
                let took = now.saturating_duration_since(at);
                if took <= ANSWERED_WITHIN {
                    (self.known, self.answered) = (Some((now, clock_us)), Some(now));
                    self.spread_us = if took <= EXACT { 0 } else { took.as_micros() as u64 };
                }
            }
            // One that was under way for long says less than is known already.
            _ => {
                if let Some(more) =
                    self.says(now).and_then(|known| clock_us.checked_sub(known)).filter(|more| *more > 0)
                {
                    self.known = Some((now, clock_us));
                    self.spread_us = self.spread_us.saturating_sub(more);
                }
            }
        }
    }

    /// What its clock says now, at least.
    pub(crate) fn says(&self, now: Instant) -> Option<u64> {
        let (at, clock_us) = self.known?;
        let since = now.saturating_duration_since(at).as_micros();
        Some(clock_us.saturating_add(u64::try_from(since).unwrap_or(u64::MAX)))
    }

    /// What its clock says now, at most, as far as that counts.
    pub(crate) fn says_at_most(&self, now: Instant) -> Option<u64> {
        Some(self.says(now)?.saturating_add(self.spread_us))
    }

    /// Whether it answered a question within this time.
    pub(crate) fn is_fresh(&self, now: Instant, within: Duration) -> bool {
        self.answered.is_some_and(|at| now.saturating_duration_since(at) <= within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_waited_says_nothing_and_one_that_did_not_is_a_lower_bound() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut clock = PeerClock::default();
        clock.hear(start, 5_000, 0);
        assert_eq!(clock.says(start), None, "without a question it may be as old as can be");
        clock.ask(start, 7);
        clock.hear(start + ms(900), 1_000, 7);
        assert_eq!(clock.says(start + ms(900)), None);
        // One that took long is as far off as it may be.
        clock.ask(start, 9);
        clock.hear(start + ms(300), 1_000, 9);
        assert_eq!(clock.says(start + ms(310)), Some(11_000));
        assert_eq!(clock.says_at_most(start + ms(310)), Some(311_000));
        clock.hear(start + ms(310), 111_000, 0);
        assert_eq!((clock.says(start + ms(310)), clock.says_at_most(start + ms(310))), (Some(111_000), Some(311_000)));
        let mut clock = PeerClock::default();
        clock.ask(start, 8);
        clock.hear(start + ms(10), 1_000, 8);
        assert_eq!((clock.says(start + ms(20)), clock.says_at_most(start + ms(20))), (Some(11_000), Some(11_000)));
        assert!(clock.is_fresh(start + ms(20), ms(10)) && !clock.is_fresh(start + ms(21), ms(10)));
        // An old message changes nothing, a faster one does.
        clock.hear(start + ms(30), 2_000, 0);
        assert_eq!(clock.says(start + ms(30)), Some(21_000));
        clock.hear(start + ms(30), 25_000, 0);
        assert_eq!(clock.says(start + ms(30)), Some(25_000));
    }
}
