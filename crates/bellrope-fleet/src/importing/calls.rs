//! The calls under way, as what arrives finds them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_nats::{Message, StatusCode};
use bellrope::server::Cancelled;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::programs::Programs;
use crate::{
    clock::Clock,
    counters::{Counters, count},
    flow::{Credit, MOST_PART, WINDOW, cost},
    frame::{self, Down, DownKind, ItemPart, SIGNED, Up, UpKind, bounded},
    link::Link,
    signing::Signer,
    times::LOST,
};

/// What may wait for the reader of one call; more is against the rules.
const MOST_QUEUED: usize = WINDOW + WINDOW / 2;
/// Of so many calls it is known that they were left.
const MOST_LEFT: usize = 1024;
/// Most calls that an instance says in one message that it has: as many as fit into a part.
const MOST_HELD: usize = MOST_PART / 8;
/// Questions for our clock that are answered between two beats, of instances that calls were sent to and of others. An instance
/// asks once in that time, and an answer may be signed.
const MOST_ANSWERS: [usize; 2] = [1024, 256];

/// The calls of this server that were handed to the fleet.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) clock: Clock,
    calls: Mutex<Calls>,
    /// The name of this server, told with each call.
    pub(super) name: String,
    pub(super) counters: Arc<Counters>,
    /// The names of processes that called lately.
    pub(super) programs: Programs,
    /// What signs who asks.
    pub(super) signer: Option<Signer>,
    /// Questions for our clock that were answered since the last beat.
    answers: [AtomicUsize; 2],
}

#[derive(Debug, Default)]
struct Calls {
    last: u64,
    open: HashMap<u64, Slot>,
    /// Calls that their callers left, those that did so last: whoever has one may not have heard of that, or not be known yet.
    left: VecDeque<u64>,
}

/// A call under way, as what arrives finds it.
#[derive(Debug)]
struct Slot {
    events: mpsc::UnboundedSender<Event>,
    queued: Arc<AtomicUsize>,
    credit: Credit,
    /// When something of it was heard last.
    heard: Instant,
    /// Whom it was sent to, if that is one.
    to: Option<u64>,
    /// Who has it, once that is known.
    instance: Option<u64>,
    /// Whether it was said that somebody has it.
    is_taken: bool,
    /// Whether its end was said: nothing follows.
    has_ended: bool,
}

impl Slot {
    /// Tells the call, which may not read for long: of what may come any number of times, once.
    fn tell(&mut self, event: Event) {
        let is_again = matches!(event, Event::Taken(_)) && std::mem::replace(&mut self.is_taken, true);
        if self.has_ended || is_again {
            return;
        }
        self.has_ended = event.is_last();
        let _ = self.events.send(event);
    }
}

/// What happened to a call.
#[derive(Debug)]
pub(super) enum Event {
    Taken(u64),
    Data {
        part: ItemPart,
        end: bool,
        bytes: Bytes,
    },
    /// Several chunks in one message.
    Chunks {
        seq: u64,
        bytes: Bytes,
    },
    End {
        items: u64,
    },
    Failed {
        code: u16,
        detail: u64,
        text: String,
    },
    Refused {
        code: u16,
        detail: u64,
        text: String,
    },
    NoResponders,
    /// Nothing was heard of it for too long, or the link is lost, or rules were broken.
    Lost(&'static str),
}

impl Event {
    /// Whether nothing of the call follows.
    fn is_last(&self) -> bool {
        match self {
            Self::Taken(_) | Self::Chunks { .. } => false,
            Self::Data { end, .. } => *end,
            Self::End { .. } | Self::Failed { .. } | Self::Refused { .. } | Self::NoResponders | Self::Lost(_) => true,
        }
    }
}

impl Calls {
    /// Its caller has left.
    fn note_left(&mut self, call: u64) {
        if self.left.len() >= MOST_LEFT {
            self.left.pop_front();
        }
        self.left.push_back(call);
    }

    /// What is to be said to whoever has a call that is not under way any more. An instance of an older version does not know
    /// that a caller leaves: it hears of a cancel the next time.
    fn orphaned(&mut self, call: u64) -> UpKind<'static> {
        match self.left.iter().position(|left| *left == call) {
            Some(at) => {
                self.left.remove(at);
                UpKind::Left
            }
            None => UpKind::Cancel,
        }
    }
}

impl Table {
    pub(super) fn new(name: String, clock: Clock, counters: Arc<Counters>, signer: Option<Signer>) -> Self {
        let calls = Mutex::new(Calls { last: crate::link::random() >> 2, ..Calls::default() });
        Self { clock, calls, name, counters, programs: Programs::default(), signer, answers: Default::default() }
    }

    /// The link is lost, and with it all that was handed over.
    pub(super) fn lose_all(&self) {
        for slot in self.calls().open.values_mut() {
            slot.tell(Event::Lost("the connection to NATS was lost"));
        }
    }

    /// Who has a call, if that is known.
    pub(super) fn instance_of(&self, call: u64) -> Option<u64> {
        self.calls().open.get(&call).and_then(|slot| slot.instance)
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what NATS brought for this side.
    pub(super) fn take(&self, link: &Arc<Link>, message: &Message) {
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            let call = message.subject.rsplit('.').next().and_then(|number| u64::from_str_radix(number, 16).ok());
            let mut calls = self.calls();
            if let Some(slot) = call.and_then(|call| calls.open.get_mut(&call)).filter(|slot| slot.instance.is_none()) {
                slot.tell(Event::NoResponders);
            }
            return;
        }
        let Ok((down, rest)) = frame::read::<Down<'_>>(&message.payload) else {
            return count(&self.counters.foreign);
        };
        match down.what {
            DownKind::Ask { nonce } => {
                let is_known = self.is_asked_by(down.from);
                if !self.may_answer(is_known) || link.room_for_posts() == 0 {
                    return count(&self.counters.foreign);
                }
                let clock_us = self.clock.at(Instant::now());
                let beat = Up { from: link.id, call: 0, what: UpKind::Beat { clock_us, nonce } };
                let (subject, beat) = (link.inbox(down.from, "up"), frame::write(&beat, &[]));
                let headers = self.signer.as_ref().map(|signer| signer.hello(&subject, &beat));
                link.post_signed(subject, headers, beat);
            }
            DownKind::Holding => self.held(link, down.from, rest),
            what => {
                let bytes = message.payload.slice(message.payload.len() - rest.len()..);
                self.deliver(down.from, down.call, &what, bytes);
            }
        }
    }

    /// An instance lives, and has calls that wait for our clock. Answers whether any was sent to just that one.
    fn is_asked_by(&self, instance: u64) -> bool {
        let (now, mut is_known) = (Instant::now(), false);
        for slot in self.calls().open.values_mut().filter(|slot| slot.instance.or(slot.to) == Some(instance)) {
            (slot.heard, is_known) = (now, true);
        }
        is_known
    }

    /// Whether one more question for our clock is answered now. Those of strangers leave room for those of instances.
    fn may_answer(&self, is_known: bool) -> bool {
        let kind = usize::from(!is_known);
        self.answers[kind].fetch_add(1, Relaxed) < MOST_ANSWERS[kind]
    }

    /// An instance says which calls it has.
    fn held(&self, link: &Arc<Link>, instance: u64, numbers: &[u8]) {
        let now = Instant::now();
        let mut orphans = Vec::new();
        // Those of which nothing can be said now are said to be there again.
        // Half of the room stays for other things that are to be said.
        let room = link.room_for_posts() / 2;
        let mut calls = self.calls();
        for number in frame::numbers(numbers).take(MOST_HELD) {
            match calls.open.get_mut(&number) {
                Some(slot) if slot.instance.or(slot.to).is_none_or(|known| known == instance) => {
                    slot.heard = now;
                    slot.instance = Some(instance);
                }
                None if orphans.len() < room => orphans.push((number, calls.orphaned(number))),
                _ => {}
            }
        }
        drop(calls);
        // Given up before it was known who has them.
        for (call, what) in orphans {
            let gone = Up { from: link.id, call, what };
            link.post(link.inbox(instance, "up"), frame::write(&gone, &[]));
        }
    }

    fn deliver(&self, instance: u64, call: u64, what: &DownKind<'_>, bytes: Bytes) {
        let mut calls = self.calls();
        // The call may have ended meanwhile.
        let Some(slot) = calls.open.get_mut(&call) else { return };
        // What was sent to one instance that one answers: what another one says is of a copy.
        if slot.instance.or(slot.to).is_some_and(|known| known != instance) {
            return count(&self.counters.foreign);
        }
        slot.heard = Instant::now();
        let refused = matches!(what, DownKind::Refused { .. });
        if !refused {
            slot.instance = Some(instance);
        }
        if slot.has_ended {
            return;
        }
        let event = match *what {
            DownKind::Taken => Event::Taken(instance),
            DownKind::Data { .. } | DownKind::Chunks { .. }
                // One that is longer than a part would cost as much as a part.
                if bytes.len() > MOST_PART || slot.queued.fetch_add(cost(bytes.len()), Relaxed) > MOST_QUEUED =>
            {
                Event::Lost("the instance sent more than it was allowed to")
            }
            DownKind::Data { part, end } => Event::Data { part, end, bytes },
            DownKind::Chunks { seq } => Event::Chunks { seq, bytes },
            DownKind::End { items } => Event::End { items },
            DownKind::Failed { code, detail, text } => Event::Failed { code, detail, text: bounded(text).to_owned() },
            DownKind::Refused { code, detail, text } => Event::Refused { code, detail, text: bounded(text).to_owned() },
            DownKind::Credit(bytes) if slot.credit.add(bytes) => return,
            DownKind::Credit(_) => Event::Lost("the instance gave back more credit than it had"),
            DownKind::Ask { .. } | DownKind::Holding | DownKind::Load { .. } | DownKind::Leaving => return,
        };
        slot.tell(event);
    }

    /// Ends calls of which nothing was heard for too long. Answers who is to hear that this side lives.
    fn sweep(&self) -> HashSet<u64> {
        let now = Instant::now();
        let mut calls = self.calls();
        for slot in calls.open.values_mut().filter(|slot| now.saturating_duration_since(slot.heard) > LOST) {
            slot.tell(Event::Lost("nothing was heard of whoever has the call"));
        }
        calls.open.values().filter_map(|slot| slot.instance).collect()
    }

    /// Ends what is lost, and says to everybody who has calls of this side that it lives.
    pub(super) async fn beat(&self, link: &Link) {
        self.answers.iter().for_each(|answers| answers.store(0, Relaxed));
        for instance in self.sweep() {
            let clock_us = self.clock.at(Instant::now());
            let beat = Up { from: link.id, call: 0, what: UpKind::Beat { clock_us, nonce: 0 } };
            if link.publish(link.inbox(instance, "up"), None, frame::write(&beat, &[])).await.is_err() {
                return;
            }
        }
    }

    /// This side stood still for so long.
    pub(super) fn stood_still(&self, still: Duration) {
        let now = Instant::now();
        self.calls().open.values_mut().for_each(|slot| slot.heard = now.min(slot.heard + still));
    }

    /// Calls under way.
    pub(super) fn under_way(&self) -> usize {
        self.calls().open.len()
    }
}

/// A call in the table of those under way, as long as this lives. Whoever has the call is told if it ends before its end.
pub(super) struct Open<'a> {
    table: &'a Table,
    link: &'a Arc<Link>,
    pub(super) number: u64,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    pub(super) queued: Arc<AtomicUsize>,
    pub(super) credit: Credit,
    pub(super) handed_over: bool,
    pub(super) ended: bool,
    /// What tells whether the caller does not want the answer, or has just gone.
    caller: Cancelled,
    /// Whom it was sent to, if that is one.
    to: Option<u64>,
}

impl<'a> Open<'a> {
    pub(super) fn new(
        table: &'a Table,
        link: &'a Arc<Link>,
        caller: Cancelled,
        to: Option<u64>,
        is_signed: bool,
    ) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let (queued, credit) = (Arc::<AtomicUsize>::default(), Credit::new());
        let mut calls = table.calls();
        calls.last += 1;
        let number = if is_signed { calls.last | SIGNED } else { calls.last };
        let slot = Slot {
            events: sender,
            queued: Arc::clone(&queued),
            credit: credit.clone(),
            heard: Instant::now(),
            to,
            instance: None,
            is_taken: false,
            has_ended: false,
        };
        calls.open.insert(number, slot);
        drop(calls);
        Self { table, link, number, events, queued, credit, handed_over: false, ended: false, caller, to }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut calls = self.table.calls();
        let slot = calls.open.remove(&self.number);
        if !self.handed_over || self.ended {
            return;
        }
        let is_left = !self.caller.is_withdrawn();
        let instance = slot.and_then(|slot| slot.instance).or(self.to);
        if is_left {
            calls.note_left(self.number);
        }
        drop(calls);
        if let Some(instance) = instance {
            let what = if is_left { UpKind::Left } else { UpKind::Cancel };
            let gone = Up { from: self.link.id, call: self.number, what };
            self.link.post(self.link.inbox(instance, "up"), frame::write(&gone, &[]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call that was sent to this instance, and what it is told.
    fn slot(to: Option<u64>) -> (Slot, mpsc::UnboundedReceiver<Event>) {
        let (events, told) = mpsc::unbounded_channel();
        let (queued, credit, heard) = (Arc::default(), Credit::new(), Instant::now());
        (Slot { events, queued, credit, heard, to, instance: None, is_taken: false, has_ended: false }, told)
    }

    #[test]
    fn whoever_says_to_have_a_call_that_was_left_hears_that_and_not_that_nobody_wants_it() {
        let mut calls = Calls::default();
        calls.note_left(7);
        assert_eq!((calls.orphaned(7), calls.orphaned(8)), (UpKind::Left, UpKind::Cancel));
        assert_eq!(calls.orphaned(7), UpKind::Cancel, "whoever does not know the word hears one that it knows");
        calls.note_left(7);
        (0..MOST_LEFT as u64).for_each(|later| calls.note_left(100 + later));
        assert_eq!((calls.orphaned(7), calls.left.len()), (UpKind::Cancel, MOST_LEFT));
    }

    #[test]
    fn of_what_may_come_any_number_of_times_a_call_is_told_once_and_nothing_after_its_end() {
        let (mut slot, mut told) = slot(None);
        (0..1_000_000).for_each(|_| slot.tell(Event::Taken(7)));
        for _ in 0..1000 {
            slot.tell(Event::Failed { code: 1, detail: 0, text: String::new() });
            slot.tell(Event::End { items: 1 });
            slot.tell(Event::Lost("once more"));
        }
        assert!(matches!(told.try_recv(), Ok(Event::Taken(7))));
        assert!(matches!(told.try_recv(), Ok(Event::Failed { .. })));
        assert!(told.try_recv().is_err());
        assert_eq!(bounded(&"ü".repeat(900_000)).len(), 1024);
    }

    #[test]
    fn a_message_that_is_longer_than_a_part_ends_its_call() {
        let table = Table::new(String::new(), Clock::start(), Arc::default(), None);
        for len in [MOST_PART, MOST_PART + 1] {
            let (slot, mut told) = slot(None);
            table.calls().open.insert(7, slot);
            table.deliver(1, 7, &DownKind::Chunks { seq: 0 }, Bytes::from(vec![0; len]));
            assert_eq!(matches!(told.try_recv(), Ok(Event::Lost(_))), len > MOST_PART);
        }
    }

    #[test]
    fn of_a_call_that_was_sent_to_one_instance_no_other_one_has_a_say() {
        let table = Table::new(String::new(), Clock::start(), Arc::default(), None);
        let (slot, mut told) = slot(Some(9));
        table.calls().open.insert(7, slot);
        let refused = DownKind::Refused { code: 1, detail: 0, text: "" };
        table.deliver(8, 7, &refused, Bytes::new());
        assert!(told.try_recv().is_err(), "it is a copy's");
        table.deliver(9, 7, &refused, Bytes::new());
        assert!(matches!(told.try_recv(), Ok(Event::Refused { .. })));
    }

    #[test]
    fn strangers_that_ask_for_the_clock_leave_room_for_instances_that_have_calls() {
        let table = Table::new(String::new(), Clock::start(), Arc::default(), None);
        let (slot, _told) = slot(Some(9));
        table.calls().open.insert(7, slot);
        assert_eq!((table.is_asked_by(8), table.is_asked_by(9)), (false, true));
        let answered = |is_known| (0..100_000).filter(|_| table.may_answer(is_known)).count();
        assert_eq!([answered(false), answered(true)], [MOST_ANSWERS[1], MOST_ANSWERS[0]]);
    }
}
