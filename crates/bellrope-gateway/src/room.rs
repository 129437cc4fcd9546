//! Where the room of a whole answer comes from, as it grows.
//!
//! A whole answer is collected before it leaves: how large it becomes is up to the provider, and how many are collected at the same
//! time up to whoever asks. So each takes room for what came of it, from what bounds its requests.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bellrope::server::{ClaimedRoom, RoomClaims};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How often an answer counts: as it is collected, and as JSON.
const WEIGHT: u64 = 2;
/// What is claimed at the least: a longer answer claims as much again as it has.
const STEP: u64 = 16 * 1024;

/// There is no room for an answer: what is full, and of what.
#[derive(Debug)]
pub(crate) struct NoRoom(pub(crate) String);

/// What an answer takes its room from. It is no part of what is asked, so all are equal.
///
/// ```
/// use bellrope_gateway::AnswerRoom;
///
/// // One that is taken from nothing has no bound of its own.
/// assert_eq!(AnswerRoom::default(), AnswerRoom::of_all(std::sync::Arc::new(tokio::sync::Semaphore::new(1))));
/// ```
#[derive(Clone, Default)]
pub struct AnswerRoom(Option<Arc<Inner>>);

struct Inner {
    source: Source,
    held: Mutex<Held>,
}

enum Source {
    /// The buffer budget of a server, as one call claims of it.
    Call(RoomClaims),
    /// What all answers may take together, in KiB.
    All(Arc<Semaphore>),
}

#[derive(Default)]
struct Held {
    bytes: u64,
    claimed: Vec<ClaimedRoom>,
    permits: Vec<OwnedSemaphorePermit>,
}

impl AnswerRoom {
    /// From the budget that a call's own room is from.
    #[must_use]
    pub fn of_call(claims: RoomClaims) -> Self {
        Self(Some(Arc::new(Inner { source: Source::Call(claims), held: Mutex::default() })))
    }

    /// From what all answers may take together, in KiB. Where there is none left, an answer fails.
    #[must_use]
    pub fn of_all(kib: Arc<Semaphore>) -> Self {
        Self(Some(Arc::new(Inner { source: Source::All(kib), held: Mutex::default() })))
    }

    /// Makes room for so many bytes in all that count once, as they are held as they are.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn hold(&self, bytes: usize) -> Result<(), NoRoom> {
        self.grow_to(bytes.div_ceil(WEIGHT as usize))
    }

    /// Makes room for an answer of so many bytes in all. It is held as long as a clone of this is.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn grow_to(&self, bytes: usize) -> Result<(), NoRoom> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let (held, needed) = (inner.held().bytes, WEIGHT * bytes as u64);
        if needed <= held {
            return Ok(());
        }
        // Twice as much each time, so that it is seldom asked; where that is not left, what is lacking.
        let lacking = needed - held;
        let ample = lacking.max(held).max(STEP);
        inner.take(ample).or_else(|_| inner.take(lacking))
    }
}

impl Inner {
    fn take(&self, bytes: u64) -> Result<(), NoRoom> {
        let bytes = bytes.next_multiple_of(1024);
        let none = |reason: &str| NoRoom(reason.to_owned());
        match &self.source {
            Source::Call(claims) => {
                let claimed = claims.claim_now(bytes).map_err(|error| none(&error.to_string()))?;
                self.held().claimed.push(claimed);
            }
            Source::All(kib) => {
                let taken = u32::try_from(bytes / 1024)
                    .ok()
                    .and_then(|kib_more| Arc::clone(kib).try_acquire_many_owned(kib_more).ok());
                let taken =
                    taken.ok_or_else(|| none("too much is held of the answers that are under way; ask for fewer at once, or for shorter ones"))?;
                self.held().permits.push(taken);
            }
        }
        self.held().bytes += bytes;
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartialEq for AnswerRoom {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for AnswerRoom {}

impl fmt::Debug for AnswerRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerRoom").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 58.
    #[test]
    fn an_answer_takes_room_in_steps_and_gives_all_of_it_back() {
        let all = Arc::new(Semaphore::new(128));
        let (one, other) = (AnswerRoom::of_all(Arc::clone(&all)), AnswerRoom::of_all(Arc::clone(&all)));
        for (bytes, left) in [(1, 112), (8 * 1024, 112), (8 * 1024 + 1, 96), (16 * 1024, 96), (20_000, 64)] {
            one.grow_to(bytes).unwrap();
            assert_eq!(all.available_permits(), left, "{bytes}");
        }
        other.grow_to(100).unwrap();
        let NoRoom(words) = other.grow_to(60_000).unwrap_err();
        assert!(words.starts_with("too much is held of the answers"), "{words}");
        drop(one);
        other.grow_to(50_000).unwrap();
        drop(other);
        assert_eq!(all.available_permits(), 128);
        // Where twice as much is not left, what is lacking is enough.
        let last = AnswerRoom::of_all(Arc::clone(&all));
        for (bytes, left) in [(30_000, 69), (40_000, 10), (65_000, 1)] {
            last.grow_to(bytes).unwrap();
            assert_eq!(all.available_permits(), left, "{bytes}");
        }
        AnswerRoom::default().grow_to(usize::MAX / 4).unwrap();
    }
}
