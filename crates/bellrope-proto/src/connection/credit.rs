/// What a chunk costs beyond its bytes, so that many tiny chunks are bounded too.
const CHUNK_OVERHEAD: i64 = 64;

/// How much a stream's sender may still send. Sender and receiver each keep one; the receiver's is never behind.
///
/// A chunk may be sent whenever the balance is positive, and may take it below zero once; so a chunk larger than the
/// window still travels, and what a receiver must hold is bounded by the window and one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    balance: i64,
    window: i64,
}

impl Credit {
    /// A full window of `window` bytes.
    #[must_use]
    pub fn new(window: u32) -> Self {
        Self { balance: i64::from(window), window: i64::from(window) }
    }

    /// What a chunk of `len` bytes costs.
    #[must_use]
    pub fn cost(len: usize) -> i64 {
        len as i64 + CHUNK_OVERHEAD
    }

    /// Whether a chunk may be sent.
    #[must_use]
    pub fn available(&self) -> bool {
        self.balance > 0
    }

    /// Pays for a chunk of `len` bytes. Answers `false` if none may be sent.
    #[must_use]
    pub fn spend(&mut self, len: usize) -> bool {
        let may = self.available();
        if may {
            self.balance -= Self::cost(len);
        }
        may
    }

    /// Gives back `amount`. Answers `false` if that is more than a window can hold.
    #[must_use]
    pub fn refill(&mut self, amount: u64) -> bool {
        let refilled = i64::try_from(amount).ok().and_then(|amount| self.balance.checked_add(amount));
        match refilled {
            Some(balance) if balance <= self.window => {
                self.balance = balance;
                true
            }
            _ => false,
        }
    }

    /// What of the window has been spent.
    #[must_use]
    pub fn spent(&self) -> i64 {
        self.window - self.balance
    }

    /// Whether `owed` is enough to be worth a credit record: half a window.
    #[must_use]
    pub fn worth_returning(&self, owed: i64) -> bool {
        owed > 0 && owed >= self.window / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_larger_than_the_window_travels_once() {
        let mut credit = Credit::new(100);
        assert!(credit.spend(1000));
        assert!(!credit.spend(0));
        assert!(!credit.refill(1065));
        assert!(credit.refill(1064));
        assert_eq!(credit, Credit::new(100));
    }

    // Fault 7.
    #[test]
    fn hostile_amounts_do_not_overflow() {
        let mut credit = Credit::new(u32::MAX);
        assert!(!credit.refill(u64::MAX));
        assert!(!credit.refill(i64::MAX as u64));
        assert!(credit.refill(0));
    }
}
