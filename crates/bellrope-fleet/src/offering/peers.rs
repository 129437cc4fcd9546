//! The importing servers that an instance hears of: whether they live, and what their clocks say.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::replay::{Begun, Lately, Number};
use crate::{
    clock::PeerClock,
    signing::{Importing, Signed},
    times::{BEGIN_WITHIN, LOST},
};

/// Most importing servers that are known at once.
const MOST_PEERS: usize = 16_384;
/// Calls of one of them that may wait until its clock is known; of all of them, which is 32 MiB at most.
const MOST_WAITING: usize = 256;
const ALL_WAITING: usize = 1024;
/// Cancelled calls that are remembered in case they are still to come.
const MOST_CANCELLED: usize = 64;
/// One that was silent for so long is forgotten; the clocks of two machines drift apart meanwhile by less than what counts.
const FORGET: Duration = Duration::from_secs(120);
/// A call that seems to be too late is refused if the clock was asked within this time, and else the clock is asked again: an
/// importing machine that slept has a clock that stood still.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Peer {
    clock: PeerClock,
    heard: Instant,
    /// Calls that came before its clock was known.
    waiting: Vec<Waiting>,
    /// The last number by which its clock was asked.
    nonce: u64,
    /// Who it is, if it has said so in a way that is believed.
    who: Option<Arc<Importing>>,
    /// Its calls that have begun here, of those that it has signed.
    begun: Option<Box<Begun>>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    call: u64,
    came: Came,
}

/// A call as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Came {
    pub(super) message: Bytes,
    /// What it says of who asks.
    pub(super) signed: Option<Arc<Signed>>,
}

/// All of them, by the number of their link.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: HashMap<u64, Peer>,
    /// Calls that wait, of all of them.
    waiting: usize,
    /// Calls that were cancelled and are not here: a cancel may overtake its call. The number of the link, that of the call.
    cancelled: VecDeque<(u64, u64)>,
    /// Calls that nobody signed and that have begun.
    lately: Lately,
}

/// Whether a call may begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may, and its importing server's clock says this.
    Begin(u64),
    TooLate,
    /// That is not known yet. With a number, the clock is to be asked by it.
    Wait(Option<u64>),
    /// Too many wait.
    Full,
}

impl Peers {
    /// Judges a call that came now.
    pub(super) fn judge(&mut self, from: u64, call: u64, begin_by_us: u64, came: &Came, now: Instant) -> Verdict {
        // Of whom nothing is known, nothing is remembered but the call that waits.
        let is_full = self.peers.len() >= MOST_PEERS || self.waiting >= ALL_WAITING;
        if is_full && !self.peers.contains_key(&from) {
            return Verdict::Full;
        }
        let peer = self.peers.entry(from).or_insert_with(|| Peer::new(now));
        peer.heard = now;
        match peer.clock.says(now) {
            Some(theirs) if peer.clock.says_at_most(now).is_some_and(|latest| latest <= begin_by_us) => {
                return Verdict::Begin(theirs);
            }
            Some(_) if peer.clock.is_fresh(now, FRESH) => return Verdict::TooLate,
            _ => {}
        }
        if peer.waiting.len() >= MOST_WAITING || self.waiting >= ALL_WAITING {
            return Verdict::Full;
        }
        self.waiting += 1;
        peer.waiting.push(Waiting { since: now, call, came: came.clone() });
        Verdict::Wait(peer.ask(now))
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// Something came from it.
    pub(super) fn heard(&mut self, from: u64, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.heard = now;
        }
    }

    /// It said what its clock says. Answers with the calls that waited for that, and a number by which to ask again.
    /// `who`: who has signed that, for an answer to a question.
    pub(super) fn beat(
        &mut self,
        from: u64,
        clock_us: u64,
        nonce: u64,
        who: Option<Importing>,
        now: Instant,
    ) -> (Vec<Came>, Option<u64>) {
        let Some(peer) = self.peers.get_mut(&from) else { return (Vec::new(), None) };
        peer.heard = now;
        if nonce != 0 {
            // A link belongs to whom it was first believed to belong. After that only its own answers count.
            match (&peer.who, who) {
                (Some(known), who) if who.as_ref().is_none_or(|who| who.number != known.number) => {
                    return (Vec::new(), None);
                }
                (None, Some(who)) => peer.who = Some(Arc::new(who)),
                _ => {}
            }
        }
        peer.clock.hear(now, clock_us, nonce);
        if peer.waiting.is_empty() {
            return (Vec::new(), None);
        }
        if peer.clock.is_fresh(now, FRESH) {
            self.waiting -= peer.waiting.len();
            return (std::mem::take(&mut peer.waiting).into_iter().map(|waiting| waiting.came).collect(), None);
        }
        (Vec::new(), peer.ask(now))
    }

    /// Whether this is the number by which its clock was asked last.
    pub(super) fn asked_by(&self, from: u64, nonce: u64) -> bool {
        nonce != 0 && self.peers.get(&from).is_some_and(|peer| peer.nonce == nonce)
    }

    /// Who it is, if that is known.
    pub(super) fn who(&self, from: u64) -> Option<Arc<Importing>> {
        self.peers.get(&from)?.who.clone()
    }

    /// A call that nobody signed is about to begin. Answers `false` if it began before.
    pub(super) fn note_unsigned(&mut self, from: u64, call: u64, now: Instant) -> bool {
        self.lately.note((from, call), now)
    }

    /// A call that it has signed is about to begin.
    pub(super) fn note_begun(&mut self, from: u64, call: u64) -> Number {
        self.peers.get_mut(&from).map_or(Number::TooOld, |peer| peer.begun.get_or_insert_default().note(call))
    }

    /// A call that does not run here was cancelled: it will not, if it waits or is still to come.
    pub(super) fn cancel(&mut self, from: u64, call: u64) {
        if let Some(peer) = self.peers.get_mut(&from) {
            let before = peer.waiting.len();
            peer.waiting.retain(|waiting| waiting.call != call);
            self.waiting -= before - peer.waiting.len();
            if before != peer.waiting.len() {
                return;
            }
        }
        if self.cancelled.len() >= MOST_CANCELLED {
            self.cancelled.pop_front();
        }
        self.cancelled.push_back((from, call));
    }

    /// Whether a call that came just now was cancelled before.
    pub(super) fn was_cancelled(&self, from: u64, call: u64) -> bool {
        self.cancelled.contains(&(from, call))
    }

    /// The calls that wait for a clock, each by its link's number and its own.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.peers.iter().flat_map(|(from, peer)| peer.waiting.iter().map(|waiting| (*from, waiting.call)))
    }

    /// No call begins any more. Answers with those that waited for a clock.
    pub(super) fn give_up(&mut self) -> Vec<Came> {
        self.waiting = 0;
        let all = self.peers.values_mut().flat_map(|peer| std::mem::take(&mut peer.waiting));
        all.map(|waiting| waiting.came).collect()
    }

    /// This side stood still for so long.
    pub(super) fn stood_still(&mut self, still: Duration, now: Instant) {
        self.peers.values_mut().for_each(|peer| peer.heard = now.min(peer.heard + still));
    }

    /// Whether it was silent for too long to be there still.
    pub(super) fn is_gone(&self, from: u64, now: Instant) -> bool {
        self.peers.get(&from).is_none_or(|peer| now.saturating_duration_since(peer.heard) > LOST)
    }

    /// Forgets whom nobody has heard of for long. Answers with the calls that waited too long for a clock.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<Came> {
        let mut late = Vec::new();
        for peer in self.peers.values_mut() {
            // By then it may not begin any more, whatever the clock says.
            let is_late = |waiting: &mut Waiting| now.saturating_duration_since(waiting.since) > BEGIN_WITHIN;
            late.extend(peer.waiting.extract_if(.., is_late).map(|waiting| waiting.came));
        }
        self.waiting -= late.len();
        // Who has never said what its clock says may be nobody: it keeps no place that others need.
        let keeps = |peer: &Peer| if peer.clock.says(now).is_some() { FORGET } else { LOST };
        self.peers
            .retain(|_, peer| now.saturating_duration_since(peer.heard) <= keeps(peer) || !peer.waiting.is_empty());
        late
    }
}

#[cfg(feature = "fuzzing")]
impl Peers {
    /// Claims that nothing is over its bound, and that what waits is counted as it is.
    pub(super) fn check(&self) {
        let waiting: usize = self.peers.values().map(|peer| peer.waiting.len()).sum();
        assert_eq!(waiting, self.waiting);
        assert!(waiting <= ALL_WAITING && self.peers.values().all(|peer| peer.waiting.len() <= MOST_WAITING));
        assert!(self.peers.len() <= MOST_PEERS && self.cancelled.len() <= MOST_CANCELLED);
    }
}

impl Peer {
    fn new(now: Instant) -> Self {
        Self { clock: PeerClock::default(), heard: now, waiting: Vec::new(), nonce: 0, who: None, begun: None }
    }

    fn ask(&mut self, now: Instant) -> Option<u64> {
        if self.clock.is_asked(now) {
            return None;
        }
        let nonce = crate::link::random();
        self.clock.ask(now, nonce);
        self.nonce = nonce;
        Some(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::times::EXACT;

    const MS: Duration = Duration::from_millis(1);

    fn came() -> Came {
        Came { message: Bytes::from_static(b"call"), signed: None }
    }

    #[test]
    fn a_call_that_was_cancelled_while_it_waited_or_before_it_came_does_not_begin() {
        let (mut peers, start, call) = (Peers::default(), Instant::now(), came());
        let Verdict::Wait(Some(nonce)) = peers.judge(1, 5, 750_000, &call, start) else { panic!() };
        peers.judge(1, 6, 750_000, &call, start);
        peers.cancel(1, 5);
        assert!(!peers.was_cancelled(1, 5), "it has no call any more to be remembered for");
        peers.cancel(1, 7);
        assert!(peers.was_cancelled(1, 7) && !peers.was_cancelled(2, 7));
        let (calls, _) = peers.beat(1, 1_000, nonce, None, start + MS);
        assert_eq!((calls.len(), peers.waiting), (1, 0));
        (0..1_000_000).for_each(|call| peers.cancel(9, call));
        assert_eq!(peers.cancelled.len(), MOST_CANCELLED);
    }

    #[test]
    fn a_call_begins_only_while_its_importing_server_waits_whatever_its_clock_says() {
        for hours in [0, 3_600_000_000, 10 * 3_600_000_000] {
            let (mut peers, start, call) = (Peers::default(), Instant::now(), came());
            // Unknown: it waits, and the clock is asked once.
            let Verdict::Wait(Some(nonce)) = peers.judge(1, 5, hours + 750_000, &call, start) else { panic!() };
            assert_eq!(peers.judge(1, 5, hours + 750_000, &call, start), Verdict::Wait(None));
            let (calls, again) = peers.beat(1, hours + 1_000, nonce, None, start + MS);
            assert_eq!((calls.len(), again), (2, None));
            assert_eq!(peers.judge(1, 5, hours + 750_000, &call, start + MS), Verdict::Begin(hours + 1_000));
            // Late, as far as is known: it is asked again, and then it is refused.
            let late = start + 5_000 * MS;
            let Verdict::Wait(Some(nonce)) = peers.judge(1, 5, hours + 750_000, &call, late) else { panic!() };
            let (calls, _) = peers.beat(1, hours + 5_000_000, nonce, None, late + MS);
            assert_eq!(calls.len(), 1);
            assert_eq!(peers.judge(1, 5, hours + 750_000, &call, late + MS), Verdict::TooLate);
            // A clock that stood still, of a machine that slept.
            let slept = late + 60_000 * MS;
            let Verdict::Wait(Some(nonce)) = peers.judge(1, 5, hours + 5_800_000, &call, slept) else { panic!() };
            peers.beat(1, hours + 5_100_000, nonce, None, slept + MS);
            assert_eq!(peers.judge(1, 5, hours + 5_800_000, &call, slept + MS), Verdict::Begin(hours + 5_100_000));
        }
    }

    #[test]
    fn what_was_given_up_never_begins_however_long_the_answer_of_the_clock_took() {
        let (mut peers, start, call) = (Peers::default(), Instant::now(), came());
        let Verdict::Wait(Some(nonce)) = peers.judge(1, 5, 0, &call, start) else { panic!() };
        // Read at once, and as long on its way as an answer may be.
        peers.beat(1, 1_000_000, nonce, None, start + EXACT);
        let handed_over = 1_000_000 + 500_000;
        let (begin_by, given_up) = (handed_over + BEGIN_WITHIN.as_micros() as u64, start + 500 * MS + LOST);
        assert!(matches!(peers.judge(1, 5, begin_by, &call, start + 500 * MS), Verdict::Begin(_)));
        assert!(!matches!(peers.judge(1, 5, begin_by, &call, given_up), Verdict::Begin(_)));
    }

    #[test]
    fn over_a_slow_line_a_call_begins_if_it_is_in_time_even_if_the_clock_was_asked_for_long() {
        for (there, begins) in [(120 * MS, true), (180 * MS, false)] {
            let (mut peers, start, call) = (Peers::default(), Instant::now(), came());
            // Handed over when their clock says 1 s; the question and its answer take as long as the call.
            let handed_over = 1_000_000;
            let (begin_by, came_at) = (handed_over + BEGIN_WITHIN.as_micros() as u64, start + there);
            let Verdict::Wait(Some(nonce)) = peers.judge(1, 5, begin_by, &call, came_at) else { panic!() };
            assert_eq!(peers.judge(1, 6, begin_by, &call, came_at + 2 * EXACT), Verdict::Wait(None));
            let answered = came_at + 2 * there;
            let said = handed_over + 2 * there.as_micros() as u64;
            assert_eq!(peers.beat(1, said, nonce, None, answered).0.len(), 2);
            let verdict = peers.judge(1, 5, begin_by, &call, answered);
            assert_eq!(matches!(verdict, Verdict::Begin(_)), begins, "{verdict:?}");
            // A later one, whose clock is known, begins in either case.
            let next = begin_by + 1_000_000;
            assert!(matches!(peers.judge(1, 7, next, &call, came_at + 1_000 * MS), Verdict::Begin(_)));
        }
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_time() {
        let (mut peers, start, call) = (Peers::default(), Instant::now(), came());
        for _ in 0..MOST_WAITING {
            assert!(matches!(peers.judge(1, 5, 0, &call, start), Verdict::Wait(_)));
        }
        assert_eq!(peers.judge(1, 5, 0, &call, start), Verdict::Full);
        let mut going = Peers::default();
        for from in 0..9 {
            going.judge(from, 5, 0, &call, start);
        }
        assert_eq!(going.waiting().filter(|waiting| *waiting == (8, 5)).count(), 1);
        assert_eq!((going.give_up().len(), going.waiting, going.give_up().len()), (9, 0, 0));
        assert!(peers.sweep(start + BEGIN_WITHIN).is_empty());
        assert_eq!(peers.sweep(start + BEGIN_WITHIN + MS).len(), MOST_WAITING);
        assert!(!peers.is_gone(1, start + LOST) && peers.is_gone(1, start + LOST + MS) && peers.is_gone(2, start));
        for peer in 0..2 * MOST_PEERS as u64 {
            peers.judge(peer, 5, 0, &call, start);
        }
        assert_eq!((peers.peers.len(), peers.waiting), (ALL_WAITING, ALL_WAITING));
        let mut strangers = Peers::default();
        let Verdict::Wait(Some(nonce)) = strangers.judge(1, 5, 750_000, &call, start) else { panic!() };
        strangers.beat(1, 1_000, nonce, None, start);
        for from in 2..2 * MOST_PEERS as u64 {
            strangers.judge(from, 5, 0, &call, start);
        }
        assert_eq!(strangers.peers.len(), 1 + ALL_WAITING, "a stranger whose call may not wait takes no place");
        assert!(matches!(strangers.judge(1, 6, 750_000, &call, start + MS), Verdict::Begin(_)), "who is known goes on");
        strangers.sweep(start + LOST);
        strangers.sweep(start + LOST + MS);
        assert_eq!(strangers.peers.len(), 1, "only of whom a clock is known is anything remembered");
    }
}
