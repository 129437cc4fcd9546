//! What a connection wants or has of the buffer budget, and when it loses that again.
//!
//! A request that finds no room waits in its ring. While any does, room that was reserved for a request is taken away when
//! its client keeps the server waiting for too long: [`keeps_for`] has the rule. A connection that lost its room that way
//! comes after all that wait, until a large request of it came whole.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bellrope_proto::{
    BudgetWaiter, BufferBudget, Holder, Reservation,
    connection::{Failure, Unfinished},
    frame::Rejection,
    keeps_for,
};

/// One connection's claim.
#[derive(Debug)]
pub(crate) struct BudgetClaim {
    holder: Arc<Holder>,
    /// Its next request, if that waits. Those of most connections never do.
    starved: Option<Box<Starved>>,
    /// How long its large request that was let in has kept us waiting.
    idle: Option<Duration>,
    /// Whether its room was taken away and no large request came whole since then.
    forfeited: bool,
}

/// A request that waits.
#[derive(Debug)]
struct Starved {
    since: Instant,
    /// Counts it among those who wait, unless it comes after them.
    waiting: Option<BudgetWaiter>,
}

/// What came of asking the budget.
pub(crate) enum Reserve {
    Granted(Reservation),
    /// The request waits; whether it has just begun to.
    Wait {
        first: bool,
    },
    Refused(Failure),
}

impl BudgetClaim {
    /// The claim of one who has nothing yet.
    pub(crate) fn new(holder: Arc<Holder>) -> Self {
        Self { holder, starved: None, idle: None, forfeited: false }
    }

    /// Whose claim it is.
    pub(crate) fn holder(&self) -> &Arc<Holder> {
        &self.holder
    }

    /// Whether the next request waits.
    pub(crate) fn is_starved(&self) -> bool {
        self.starved.is_some()
    }

    /// Reserves memory for a request, which otherwise waits in its ring, and not for ever.
    pub(crate) fn reserve(&mut self, bytes: u64, patience: Duration) -> Reserve {
        let budget = Arc::clone(self.holder.budget());
        let its_turn = !(self.forfeited && budget.is_wanted());
        if let Some(reservation) = its_turn.then(|| self.holder.reserve(bytes)).flatten() {
            self.wait_no_more();
            return Reserve::Granted(reservation);
        }
        let first = self.starved.is_none();
        let starved = self.starved.get_or_insert_with(|| Box::new(Starved { since: Instant::now(), waiting: None }));
        if bytes <= budget.limit() && starved.since.elapsed() < patience {
            if !self.forfeited {
                starved.waiting.get_or_insert_with(|| self.holder.wait(bytes));
            }
            return Reserve::Wait { first };
        }
        self.wait_no_more();
        let text = format!(
            "{bytes} bytes found no room in the buffer budget of {} bytes (buffer_budget_bytes) for {patience:?}",
            budget.limit()
        );
        Reserve::Refused(Failure::rejected(Rejection::Busy, text))
    }

    /// A large request is there and wants in. If the one before it was let in and given up by its client, it comes after
    /// all who wait: to give up and ask anew is no way to keep room.
    pub(crate) fn announced(&mut self) {
        self.forfeited |= self.idle.take().is_some();
    }

    /// A large request was let in.
    pub(crate) fn began(&mut self) {
        self.idle = Some(Duration::ZERO);
    }

    /// A large request came whole.
    pub(crate) fn came_whole(&mut self) {
        self.idle = None;
        self.forfeited = false;
    }

    /// Nothing of a request that is not there whole is there to be taken, and that for `waited`. Why its room is to be
    /// taken away, if it is: the claim is forfeited then.
    pub(crate) fn forfeit(
        &mut self,
        budget: &BufferBudget,
        unfinished: &Unfinished,
        grace: Duration,
        waited: Duration,
    ) -> Option<Failure> {
        let idle = self.idle.as_mut()?;
        *idle = idle.saturating_add(waited);
        if !budget.is_wanted() || *idle < keeps_for(grace, unfinished.filled) {
            return None;
        }
        let idle = self.idle.take()?;
        self.forfeited = true;
        let text = format!(
            "{} of {} bytes came, and the server waited {idle:?} for more, while others waited for the buffer budget \
             (budget_grace_ms); the call has not run",
            unfinished.filled, unfinished.size
        );
        Some(Failure::rejected(Rejection::Busy, text))
    }

    fn wait_no_more(&mut self) {
        self.starved = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(60);

    /// The claim of somebody who belongs to nobody else.
    fn claim(budget: &Arc<BufferBudget>) -> BudgetClaim {
        BudgetClaim::new(Holder::new(budget, None))
    }

    fn granted(claim: &mut BudgetClaim, bytes: u64) -> Option<Reservation> {
        match claim.reserve(bytes, LONG) {
            Reserve::Granted(reservation) => Some(reservation),
            Reserve::Wait { .. } => None,
            Reserve::Refused(failure) => panic!("{failure:?}"),
        }
    }

    // Fault 34.
    #[test]
    fn room_that_is_not_filled_is_forfeited_only_while_others_wait() {
        let budget = BufferBudget::new(1000);
        let (mut idler, mut other) = (claim(&budget), claim(&budget));
        let held = granted(&mut idler, 1000).unwrap();
        idler.began();
        let unfinished = Unfinished { id: 1, size: 1000, filled: 10 };
        assert!(idler.forfeit(&budget, &unfinished, GRACE, GRACE / 2).is_none(), "nobody wants it");
        assert!(granted(&mut other, 10).is_none() && other.is_starved());
        assert!(idler.forfeit(&budget, &unfinished, GRACE, GRACE / 4).is_none(), "it has its grace");
        let failure = idler.forfeit(&budget, &unfinished, GRACE, GRACE / 2).unwrap();
        assert!(failure.text.contains("10 of 1000 bytes") && failure.text.contains("budget_grace_ms"));
        assert!(idler.forfeit(&budget, &unfinished, GRACE, LONG).is_none(), "once is enough");
        drop(held);
        assert!(granted(&mut idler, 10).is_none(), "it comes after those who wait");
        let _served = granted(&mut other, 10).unwrap();
        assert!(granted(&mut idler, 10).is_some(), "nobody waits any more");
    }

    // Fault 34.
    #[test]
    fn to_give_up_and_ask_anew_is_no_way_to_keep_room() {
        let budget = BufferBudget::new(1000);
        let (mut turner, mut other) = (claim(&budget), claim(&budget));
        turner.announced();
        let held = granted(&mut turner, 1000).unwrap();
        turner.began();
        assert!(granted(&mut other, 1000).is_none());
        drop(held);
        turner.announced();
        assert!(granted(&mut turner, 1000).is_none());
        let _served = granted(&mut other, 1000).unwrap();
    }

    // Fault 34.
    #[test]
    fn two_that_forfeited_do_not_wait_for_each_other_and_one_that_delivers_is_like_any_other_again() {
        let budget = BufferBudget::new(1000);
        let held = budget.reserve(1000).unwrap();
        let (mut one, mut two) = (claim(&budget), claim(&budget));
        (one.forfeited, two.forfeited) = (true, true);
        assert!(granted(&mut one, 10).is_none() && granted(&mut two, 10).is_none());
        assert!(!budget.is_wanted(), "they take nobody's room away");
        drop(held);
        assert!(granted(&mut one, 500).is_some());
        one.came_whole();
        let _held = budget.reserve(1000).unwrap();
        assert!(granted(&mut one, 10).is_none() && budget.is_wanted());
        drop(one);
        assert!(!budget.is_wanted(), "who is gone does not wait");
    }
}
