//! Whoever breaks the protocol over and over waits before it may come again.
//!
//! Each break is charged to the process that it came from, which works off one for every *pause*. As long as it owes no
//! more than the *allowance*, nothing happens. Above that its handshakes wait, one a pause, and each of them is charged
//! too, so that those who come at once wait for each other. Those that would wait for too long are turned away late.
//!
//! By process and not by user: whoever may open the socket is nearly always of one user, and an honest process must
//! never wait for what another one did. It knows neither sockets nor messages, and is told the time.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Processes that are remembered. Where there are more, the one that owes least is forgotten.
const PROCESSES: usize = 256;
/// Breaks beyond the allowance that a process can owe: it is forgiven after so many pauses, whatever it did.
const MOST_OWED: u32 = 100;

/// For each process that broke the protocol lately, when it will have worked that off.
#[derive(Debug, Default)]
pub(super) struct Pacing(Mutex<HashMap<i32, Instant>>);

/// How much is overlooked, and how quickly what is owed is worked off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// Breaks of the protocol that cost nothing.
    pub(super) allowance: u32,
    /// What each further one costs; zero lets nobody wait.
    pub(super) pause: Duration,
}

/// When a handshake may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Now,
    /// At this moment.
    At(Instant),
    /// Not at all: its process would have to wait for so long.
    TurnedAway(Duration),
}

impl Pacing {
    /// Charges a break of the protocol to a process. Answers whether its handshakes wait from now on, if they did not
    /// before. A process that the kernel does not name, because it lives in another namespace, is charged nothing: it
    /// could not be told from others.
    pub(super) fn charge(&self, pid: i32, pace: Pace, now: Instant) -> bool {
        if pid <= 0 || pace.pause.is_zero() {
            return false;
        }
        let mut debts = self.lock();
        if !debts.contains_key(&pid) && debts.len() >= PROCESSES {
            forget_the_least(&mut debts);
        }
        let debt = debts.entry(pid).or_insert(now);
        let before = pace.wait(*debt, now);
        let most = now + pace.overlooked() + pace.pause * MOST_OWED;
        *debt = ((*debt).max(now) + pace.pause).min(most);
        before.is_zero() && !pace.wait(*debt, now).is_zero()
    }

    /// When a handshake of this process may begin, if that is within `patience`.
    pub(super) fn admission(&self, pid: i32, pace: Pace, patience: Duration, now: Instant) -> Admission {
        let mut debts = self.lock();
        let Some(debt) = debts.get_mut(&pid) else { return Admission::Now };
        if *debt <= now || pace.pause.is_zero() {
            debts.remove(&pid);
            return Admission::Now;
        }
        let wait = pace.wait(*debt, now);
        if wait.is_zero() {
            return Admission::Now;
        }
        if wait > patience {
            return Admission::TurnedAway(wait);
        }
        *debt += pace.pause;
        Admission::At(now + wait)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    /// How long it takes to work off what is overlooked.
    fn overlooked(self) -> Duration {
        self.pause * self.allowance
    }

    /// How long a handshake of a process with this debt has to wait.
    fn wait(self, debt: Instant, now: Instant) -> Duration {
        debt.saturating_duration_since(now).saturating_sub(self.overlooked())
    }
}

fn forget_the_least(debts: &mut HashMap<i32, Instant>) {
    if let Some(least) = debts.iter().min_by_key(|(_, debt)| **debt).map(|(pid, _)| *pid) {
        debts.remove(&least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(100);
    const PATIENCE: Duration = Duration::from_millis(500);
    const PACE: Pace = Pace { allowance: 10, pause: PAUSE };
    const OFFENDER: i32 = 7;

    fn charge(pacing: &Pacing, count: u32, at: Instant) -> Vec<bool> {
        (0..count).map(|_| pacing.charge(OFFENDER, PACE, at)).collect()
    }

    // Fault 20.
    #[test]
    fn whoever_breaks_the_protocol_once_too_often_waits_and_nobody_else_does() {
        let (pacing, start) = (Pacing::default(), Instant::now());
        let admission = |pid, at| pacing.admission(pid, PACE, PATIENCE, at);
        assert_eq!(charge(&pacing, 10, start), [false; 10]);
        assert_eq!(admission(OFFENDER, start), Admission::Now, "that much is overlooked");
        assert_eq!(charge(&pacing, 2, start), [true, false], "it is told once that it waits");
        assert_eq!(admission(OFFENDER, start), Admission::At(start + 2 * PAUSE));
        for _ in 0..1_000 {
            assert_eq!(admission(8, start), Admission::Now, "whoever breaks no rule may come as often as it likes");
        }
        // Those who come at once wait for each other, and then for too long.
        let others: Vec<_> = (0..5).map(|_| admission(OFFENDER, start)).collect();
        let [third, fourth, fifth] = [3, 4, 5].map(|pauses| Admission::At(start + pauses * PAUSE));
        assert_eq!(others[..3], [third, fourth, fifth]);
        assert_eq!(others[3..], [Admission::TurnedAway(6 * PAUSE); 2]);
        assert_eq!(admission(OFFENDER, start + 6 * PAUSE), Admission::Now, "and then it is as before");
    }

    // Fault 20.
    #[test]
    fn a_process_that_breaks_the_protocol_each_time_gets_a_handshake_for_every_two_pauses() {
        let (pacing, start) = (Pacing::default(), Instant::now());
        let mut now = start;
        let (mut at_once, mut later) = (0, 0);
        loop {
            match pacing.admission(OFFENDER, PACE, PATIENCE, now) {
                Admission::Now => at_once += 1,
                Admission::At(due) if due >= start + 600 * PAUSE => break,
                Admission::At(due) => (now, later) = (due, later + 1),
                Admission::TurnedAway(wait) => panic!("one that waits for its turn is turned away for {wait:?}"),
            }
            pacing.charge(OFFENDER, PACE, now);
        }
        assert_eq!((at_once, later), (PACE.allowance + 1, 600 / 2), "in a minute");
    }

    // Fault 20.
    #[test]
    fn what_a_process_can_owe_is_bounded_and_so_is_who_is_remembered() {
        let (pacing, start) = (Pacing::default(), Instant::now());
        charge(&pacing, 10_000, start);
        let owed = PAUSE * MOST_OWED;
        assert_eq!(pacing.admission(OFFENDER, PACE, PATIENCE, start), Admission::TurnedAway(owed));
        for pid in 1_000..11_000 {
            pacing.charge(pid, PACE, start);
        }
        assert!(pacing.lock().len() <= PROCESSES);
        assert_eq!(pacing.admission(OFFENDER, PACE, PATIENCE, start), Admission::TurnedAway(owed), "still known");
        assert_eq!(pacing.admission(OFFENDER, PACE, PATIENCE, start + owed), Admission::Now, "forgiven");
        let later = start + owed + PACE.overlooked();
        assert_eq!(pacing.admission(OFFENDER, PACE, PATIENCE, later), Admission::Now);
        assert!(!pacing.lock().contains_key(&OFFENDER), "and forgotten");
    }

    // Fault 20.
    #[test]
    fn without_a_pause_nobody_waits_nor_does_who_cannot_be_told_from_others() {
        let (pacing, start) = (Pacing::default(), Instant::now());
        let never = Pace { pause: Duration::ZERO, ..PACE };
        for _ in 0..100 {
            assert!(!pacing.charge(OFFENDER, never, start) && !pacing.charge(0, PACE, start));
        }
        assert!(pacing.lock().is_empty());
        charge(&pacing, 100, start);
        assert_eq!(pacing.admission(OFFENDER, never, PATIENCE, start), Admission::Now, "the setting has changed");
    }
}
