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
}

impl Inflow {
    pub(super) fn new(window: u32) -> Self {
        Self { credit: Credit::new(window), next: 0, owed: 0 }
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

    /// Notes that the application has consumed a chunk. Answers how much credit is to be returned now, if any.
    pub(super) fn consumed(&mut self, len: usize) -> Option<u64> {
        self.owed += Credit::cost(len);
        if !self.credit.worth_returning(self.owed) {
            return None;
        }
        let amount = u64::try_from(std::mem::take(&mut self.owed)).unwrap_or(0);
        // A peer that uses an id again while its last stream is still being read owes this one nothing: what is beyond
        // the window was never spent here.
        self.credit.refill(amount).then_some(amount)
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
        assert_eq!(inflow.consumed(900), None, "of a stream that had the same id");
        inflow.took(900);
        assert_eq!(inflow.consumed(900), Some(964));
        assert_eq!(inflow.check(1, 1, true), Ok(()));
    }
}
