//! A process that breaks the protocol over and over waits before it may connect again.
//!
//! Each break is charged to the process that it came from, which works off one in every period of the [`Rate`], the
//! setting `violation_pause_ms`. As long as it owes no more than the burst, `violation_allowance`, nothing happens. Above
//! that its handshakes wait, one a period, and each of them is charged too, so that handshakes that come at once wait for
//! each other. Those that would wait for too long are turned away late. A period of zero lets nothing wait.
//!
//! By process and not by user: nearly all who may open the socket are of one user, and an honest process must never wait
//! for what another one did. It knows neither sockets nor messages, and is told the time.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::rate::{Debt, Rate};

/// Processes that are remembered. Where there are more, the one that owes least is forgotten.
const PROCESSES: usize = 256;
/// Breaks beyond the allowance that a process can owe: it is forgiven after so many pauses, whatever it did.
const MOST_OWED: u32 = 100;

/// What each process that broke the protocol lately owes for it.
#[derive(Debug, Default)]
pub(crate) struct Penalties(Mutex<HashMap<i32, Debt>>);

/// When a handshake may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Now,
    /// At this moment.
    At(Instant),
    /// Not at all: its process would have to wait for so long.
    TurnedAway(Duration),
}

impl Penalties {
    /// Charges a break of the protocol to a process. Answers whether its handshakes wait from now on, if they did not
    /// before. A process that cannot be told from others, because it lives in another namespace, is charged nothing.
    pub(crate) fn charge(&self, pid: i32, rate: Rate, now: Instant) -> bool {
        if pid == 0 || rate.period.is_zero() {
            return false;
        }
        let mut debts = self.lock();
        if !debts.contains_key(&pid) && debts.len() >= PROCESSES {
            forget_the_least(&mut debts);
        }
        let debt = debts.entry(pid).or_insert(Debt::none(now));
        let before = debt.wait(rate, now);
        *debt = debt.and_one(rate, now).at_most(MOST_OWED, rate, now);
        before.is_zero() && !debt.wait(rate, now).is_zero()
    }

    /// When a handshake of this process may begin, if that is within `patience`.
    pub(crate) fn admission(&self, pid: i32, rate: Rate, patience: Duration, now: Instant) -> Start {
        let mut debts = self.lock();
        let Some(debt) = debts.get_mut(&pid) else { return Start::Now };
        if debt.is_paid(now) || rate.period.is_zero() {
            debts.remove(&pid);
            return Start::Now;
        }
        let wait = debt.wait(rate, now);
        if wait.is_zero() {
            return Start::Now;
        }
        if wait > patience {
            return Start::TurnedAway(wait);
        }
        *debt = debt.and_one(rate, now);
        Start::At(now + wait)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Debt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget_the_least(debts: &mut HashMap<i32, Debt>) {
    if let Some(least) = debts.iter().min_by_key(|(_, debt)| **debt).map(|(pid, _)| *pid) {
        debts.remove(&least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(100);
    const PATIENCE: Duration = Duration::from_millis(500);
    const RATE: Rate = Rate { burst: 10, period: PAUSE };
    const OFFENDER: i32 = 7;

    fn charge(penalties: &Penalties, count: u32, at: Instant) -> Vec<bool> {
        (0..count).map(|_| penalties.charge(OFFENDER, RATE, at)).collect()
    }

    // Fault 20.
    #[test]
    fn whoever_breaks_the_protocol_once_too_often_waits_and_nobody_else_does() {
        let (penalties, start) = (Penalties::default(), Instant::now());
        let admission = |pid, at| penalties.admission(pid, RATE, PATIENCE, at);
        assert_eq!(charge(&penalties, 10, start), [false; 10]);
        assert_eq!(admission(OFFENDER, start), Start::Now, "that much is overlooked");
        assert_eq!(charge(&penalties, 2, start), [true, false], "it is told once that it waits");
        assert_eq!(admission(OFFENDER, start), Start::At(start + 2 * PAUSE));
        for _ in 0..1_000 {
            assert_eq!(admission(8, start), Start::Now, "whoever breaks no rule may come as often as it likes");
        }
        // Those who come at once wait for each other, and then for too long.
        let others: Vec<_> = (0..5).map(|_| admission(OFFENDER, start)).collect();
        let [third, fourth, fifth] = [3, 4, 5].map(|pauses| Start::At(start + pauses * PAUSE));
        assert_eq!(others[..3], [third, fourth, fifth]);
        assert_eq!(others[3..], [Start::TurnedAway(6 * PAUSE); 2]);
        assert_eq!(admission(OFFENDER, start + 6 * PAUSE), Start::Now, "and then it is as before");
    }

    // Fault 20.
    #[test]
    fn a_process_that_breaks_the_protocol_each_time_gets_a_handshake_for_every_two_pauses() {
        let (penalties, start) = (Penalties::default(), Instant::now());
        let mut now = start;
        let (mut at_once, mut later) = (0, 0);
        loop {
            match penalties.admission(OFFENDER, RATE, PATIENCE, now) {
                Start::Now => at_once += 1,
                Start::At(due) if due >= start + 600 * PAUSE => break,
                Start::At(due) => (now, later) = (due, later + 1),
                Start::TurnedAway(wait) => panic!("one that waits for its turn is turned away for {wait:?}"),
            }
            penalties.charge(OFFENDER, RATE, now);
        }
        assert_eq!((at_once, later), (RATE.burst + 1, 600 / 2), "in a minute");
    }

    // Fault 20.
    #[test]
    fn what_a_process_can_owe_is_bounded_and_so_is_who_is_remembered() {
        let (penalties, start) = (Penalties::default(), Instant::now());
        charge(&penalties, 10_000, start);
        let owed = PAUSE * MOST_OWED;
        assert_eq!(penalties.admission(OFFENDER, RATE, PATIENCE, start), Start::TurnedAway(owed));
        for pid in 1_000..11_000 {
            penalties.charge(pid, RATE, start);
        }
        assert!(penalties.lock().len() <= PROCESSES);
        assert_eq!(penalties.admission(OFFENDER, RATE, PATIENCE, start), Start::TurnedAway(owed), "still known");
        assert_eq!(penalties.admission(OFFENDER, RATE, PATIENCE, start + owed), Start::Now, "forgiven");
        let later = start + owed + RATE.burst_time();
        assert_eq!(penalties.admission(OFFENDER, RATE, PATIENCE, later), Start::Now);
        assert!(!penalties.lock().contains_key(&OFFENDER), "and forgotten");
    }

    // Fault 20.
    #[test]
    fn without_a_pause_nobody_waits_nor_does_who_cannot_be_told_from_others() {
        let (penalties, start) = (Penalties::default(), Instant::now());
        let never = Rate { period: Duration::ZERO, ..RATE };
        for _ in 0..100 {
            assert!(!penalties.charge(OFFENDER, never, start) && !penalties.charge(0, RATE, start));
        }
        assert!(penalties.lock().is_empty());
        charge(&penalties, 100, start);
        assert_eq!(penalties.admission(OFFENDER, never, PATIENCE, start), Start::Now, "the setting has changed");
    }
}
