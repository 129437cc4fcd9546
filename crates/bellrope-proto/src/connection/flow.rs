//! The two ends of a stream of chunks, whichever way it goes.

use super::credit::Credit;
use crate::Violation;

/// The receiving end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inflow {
    credit: Credit,
    /// Number of the chunk due next.
    next: u32,
    /// Credit used by chunks that the application has consumed and that was not returned yet.
    owed: i64,
    /// Whether so much is owed that it is to be returned as soon as there is room to say so.
    due: bool,
}

impl Inflow {
    pub(super) fn new(window: u32) -> Self {
        Self { credit: Credit::new(window), next: 0, owed: 0, due: false }
    }

    /// Checks the number of a chunk or end, and whether a chunk may come.
    pub(super) fn check(&self, id: u64, number: u64, is_chunk: bool) -> Result<(), Violation> {
        let found = u32::try_from(number).unwrap_or(u32::MAX);
        if found != self.next || u64::from(found) != number {
            return Err(Violation::Sequence { id, expected: self.next, found });
        }
        if is_chunk && !self.credit.available() {
            return Err(Violation::CreditExceeded(id));
        }
        Ok(())
    }

    /// Notes a chunk that was checked.
    pub(super) fn took(&mut self, len: usize) {
        let paid = self.credit.spend(len);
        debug_assert!(paid, "checked when the chunk was looked at");
        self.next = self.next.wrapping_add(1);
    }

    /// Notes that the application has consumed a chunk. Answers whether credit has become due by that.
    pub(super) fn consumed(&mut self, len: usize) -> bool {
        // A peer that uses an id again while its last stream is still being read owes this one nothing: what is beyond
        // the window was never spent here.
        self.owed = self.owed.saturating_add(Credit::cost(len)).min(self.credit.spent());
        let due = !self.due && self.credit.worth_returning(self.owed);
        self.due |= due;
        due
    }

    /// Whether the application has consumed all that came.
    pub(super) fn is_consumed(&self) -> bool {
        self.owed == self.credit.spent()
    }

    /// Credit that is due, all of it in one, however long it had to wait.
    pub(super) fn due(&self) -> Option<u64> {
        self.due.then(|| u64::try_from(self.owed).unwrap_or(0))
    }

    /// Notes that the credit that was due has been sent. Only now may the peer use it: one that sends more than it was told
    /// of breaks the protocol, or what it makes us owe would grow without bound while it does not read.
    pub(super) fn returned(&mut self) {
        let refilled = self.credit.refill(u64::try_from(self.owed).unwrap_or(0));
        debug_assert!(refilled, "no more is owed than was spent");
        (self.owed, self.due) = (0, false);
    }
}

/// The sending end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outflow {
    credit: Credit,
    /// Number of the next chunk, and so how many were sent.
    next: u32,
}

impl Outflow {
    pub(super) fn new(window: u32) -> Self {
        Self { credit: Credit::new(window), next: 0 }
    }

    /// Whether a chunk may be sent.
    pub(super) fn available(&self) -> bool {
        self.credit.available()
    }

    /// The number of the next chunk, or of the end.
    pub(super) fn number(&self) -> u64 {
        self.next.into()
    }

    /// Notes a chunk that was sent.
    pub(super) fn sent(&mut self, len: usize) {
        let paid = self.credit.spend(len);
        debug_assert!(paid, "a chunk is sent only if one may be");
        self.next = self.next.wrapping_add(1);
    }

    /// Takes credit back.
    pub(super) fn refill(&mut self, id: u64, amount: u64) -> Result<(), Violation> {
        if self.credit.refill(amount) { Ok(()) } else { Err(Violation::CreditOverflow(id)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_spent_is_given_back() {
        let mut inflow = Inflow::new(1000);
        assert!(!inflow.consumed(900), "of a stream that had the same id");
        inflow.took(900);
        assert!(inflow.consumed(900));
        assert_eq!(inflow.due(), Some(964));
        inflow.returned();
        assert_eq!((inflow.due(), inflow.check(1, 1, true)), (None, Ok(())));
    }

    // Fault 69.
    #[test]
    fn credit_is_the_peers_only_once_it_was_sent_and_waits_as_one() {
        let mut inflow = Inflow::new(640);
        let mut times_due = 0;
        for number in 0..10 {
            assert_eq!(inflow.check(1, number, true), Ok(()));
            inflow.took(0);
            times_due += u32::from(inflow.consumed(0));
        }
        assert_eq!((times_due, inflow.due()), (1, Some(640)), "all in one");
        assert_eq!(inflow.check(1, 10, true), Err(Violation::CreditExceeded(1)), "it was not told yet");
        inflow.returned();
        assert_eq!(inflow.check(1, 10, true), Ok(()));
    }
}
