//! Whose turn it is among the claims of the budget that handlers make and that have to wait.
//!
//! Of each process one asks at a time, the first that came; so what one process wants holds up no other's claims. The one that
//! has asked for longest counts among those who wait, and no other one: while others wait none gets more than its share, so
//! two that both wanted more would wait for each other in vain.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bellrope_proto::{Holder, Reservation};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::breaker::Caller;

/// How long a claim that found no room pauses before it asks again.
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// Processes that are remembered at least before those are looked for of which no claim waits.
const CLEARED_AT: usize = 64;

/// A process, or one of those that it calls for: its user, and what it is to breakers.
pub(crate) type Claimant = (u32, Caller);

/// The claims that wait.
#[derive(Debug)]
pub(crate) struct Claims {
    /// Had by the one that has asked for longest.
    oldest: Semaphore,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    /// Had by the one that asks, of each process.
    of: HashMap<Claimant, Weak<Semaphore>>,
    /// How many were left when those were last forgotten of which no claim waits: half of what there may be before that is done
    /// again, so that it costs a claim next to nothing, however many wait.
    left: usize,
}

impl Default for Claims {
    fn default() -> Self {
        Self { oldest: Semaphore::new(1), lines: Mutex::default() }
    }
}

impl Claims {
    /// Waits for so much room, after those of the same process that wait already.
    pub(crate) async fn room(&self, process: Claimant, holder: &Arc<Holder>, bytes: u64) -> Reservation {
        let line = self.line(process);
        let _turn = line.acquire().await;
        let (mut oldest, mut waiting) = (pin!(self.oldest.acquire()), None);
        loop {
            // Its call is under way, and others may wait for the end of that.
            if let Some(reservation) = holder.reserve_more(bytes) {
                return reservation;
            }
            if waiting.is_some() {
                sleep(ASK_AGAIN).await;
            } else if let Ok(permit) = timeout(ASK_AGAIN, oldest.as_mut()).await {
                waiting = Some((permit, holder.wait(bytes)));
            }
        }
    }

    fn line(&self, process: Claimant) -> Arc<Semaphore> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.of.get(&process).and_then(Weak::upgrade) {
            return line;
        }
        if lines.of.len() >= CLEARED_AT.max(2 * lines.left) {
            lines.of.retain(|_, line| line.strong_count() > 0);
            lines.left = lines.of.len();
        }
        let line = Arc::new(Semaphore::new(1));
        lines.of.insert(process, Arc::downgrade(&line));
        line
    }
}

#[cfg(test)]
mod tests {
    use bellrope_proto::BufferBudget;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Gives the claims so much time that each of them has asked.
    async fn all_have_asked() {
        sleep(4 * ASK_AGAIN).await;
    }

    // Fault 59.
    #[tokio::test]
    async fn what_one_process_waits_for_holds_up_no_claim_of_another() {
        let (budget, claims) = (BufferBudget::new(1000), Arc::new(Claims::default()));
        let [full, greedy, modest] = [(); 3].map(|()| Holder::new(&budget, None));
        let mut most = full.reserve(850).unwrap();
        let claim = |process, holder: &Arc<Holder>, bytes| {
            let (claims, holder) = (Arc::clone(&claims), Arc::clone(holder));
            tokio::spawn(async move { claims.room((7, Caller::Connection(process)), &holder, bytes).await })
        };
        let waiting = [claim(1, &greedy, 500), claim(1, &greedy, 500)];
        all_have_asked().await;
        assert_eq!(budget.waiting(), 1, "the oldest counts, and no other");
        let next = claim(2, &modest, 200);
        all_have_asked().await;
        assert!(!next.is_finished() && budget.waiting() == 1);
        most.shrink_to(600);
        let room = timeout(PATIENCE, next).await.expect("room at once").unwrap();
        assert!(room.bytes() == 200 && waiting.iter().all(|claim| !claim.is_finished()));
        drop((most, room));
        for claim in waiting {
            let room = timeout(PATIENCE, claim).await.expect("room").unwrap();
            assert_eq!((room.bytes(), budget.used()), (500, 500), "one after the other");
        }
        assert_eq!((budget.used(), budget.waiting()), (0, 0));
        assert!(claims.lines.lock().unwrap().of.values().all(|line| line.strong_count() == 0));
    }

    // Fault 59.
    #[tokio::test]
    async fn two_that_want_more_than_their_share_get_it_one_after_the_other() {
        let (budget, claims) = (BufferBudget::new(1000), Arc::new(Claims::default()));
        let holders = [(); 2].map(|()| Holder::new(&budget, None));
        let held = holders.each_ref().map(|holder| holder.reserve(100).unwrap());
        let full = Holder::new(&budget, None);
        let all_else = full.reserve(800).unwrap();
        let claim = |(process, holder): (u64, &Arc<Holder>)| {
            let (claims, holder) = (Arc::clone(&claims), Arc::clone(holder));
            tokio::spawn(async move { drop(claims.room((7, Caller::Connection(process)), &holder, 600).await) })
        };
        let claiming: Vec<_> = (0..).zip(&holders).map(claim).collect();
        all_have_asked().await;
        assert!(claiming.iter().all(|claim| !claim.is_finished()));
        drop(all_else);
        for claim in claiming {
            timeout(PATIENCE, claim).await.expect("none waits for the other").unwrap();
        }
        drop(held);
    }

    // Fault 59.
    #[tokio::test]
    async fn processes_whose_claims_are_over_are_forgotten() {
        let (budget, claims) = (BufferBudget::new(1000), Claims::default());
        let holder = Holder::new(&budget, None);
        for process in 0..10_000 {
            drop(claims.room((7, Caller::Connection(process)), &holder, 1).await);
        }
        assert!(claims.lines.lock().unwrap().of.len() <= CLEARED_AT);
        // Those that wait are looked at as often as their number doubles.
        let (mut looks, mut left) = (0, 0);
        let waiting: Vec<_> = (0..4_096)
            .map(|process| claims.line((7, Caller::Connection(process))))
            .inspect(|_| {
                let now = claims.lines.lock().unwrap().left;
                looks += usize::from(std::mem::replace(&mut left, now) != now);
            })
            .collect();
        assert!((1..=8).contains(&looks), "{looks} looks at up to {} lines", waiting.len());
    }
}
