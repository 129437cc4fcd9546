//! Mailboxes against a model that searches: whatever happens in whatever order, both say the same, and the same callers are
//! woken.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::Wake,
};

use super::*;

const RUNS: u64 = 300;
const STEPS: usize = 400;
/// Places on the model's link.
const PLACES: usize = 6;

#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        assert!(!self.0.swap(true, SeqCst), "nobody is woken twice for one registration");
    }
}

/// A call as the model knows it.
#[derive(Default)]
struct Call {
    place: usize,
    /// One byte for each event that was not taken.
    events: VecDeque<u8>,
    ended: bool,
    /// Who waits, by role.
    waiting: [Option<Arc<Bell>>; 2],
}

impl Call {
    fn deliver(&mut self, event: u8, last: bool) {
        self.events.push_back(event);
        self.ended |= last;
        self.expect_woken(0);
        if last {
            self.expect_woken(1);
        }
    }

    fn expect_woken(&mut self, role: usize) {
        if let Some(bell) = self.waiting[role].take() {
            assert!(bell.0.load(SeqCst), "who waits in this role is woken");
        }
    }
}

struct Run {
    random: fastrand::Rng,
    mailboxes: Mailboxes,
    free_list: FreeList<Arrival>,
    calls: BTreeMap<u64, (Ticket, Call)>,
    /// Tickets of calls that were forgotten.
    stale: Vec<Ticket>,
    /// Places whose call has got its last event, or whose link is lost: the next call may have them.
    free_places: BTreeSet<usize>,
    generation: u64,
    next_id: u64,
}

#[test]
fn mailboxes_do_what_a_model_does_that_searches_all_calls() {
    for seed in 0..RUNS {
        let mut run = Run {
            random: fastrand::Rng::with_seed(seed),
            mailboxes: Mailboxes::default(),
            free_list: FreeList::default(),
            calls: BTreeMap::new(),
            stale: Vec::new(),
            free_places: (0..PLACES).collect(),
            generation: 1,
            next_id: 1,
        };
        for _ in 0..STEPS {
            run.step();
            run.check();
        }
    }
}

impl Run {
    fn step(&mut self) {
        match self.random.u32(..20) {
            0..5 => self.open(),
            5..9 => self.deliver(),
            9..13 => self.take(),
            13..15 => self.wait(),
            15 => self.give_up(),
            16 => self.cancel(),
            17 => self.stop_waiting(),
            18 => self.wake_one(),
            _ => self.lose(),
        }
    }

    /// A call of the model: any, or one that is under way.
    fn some_call(&mut self, under_way: bool) -> Option<u64> {
        let ids: Vec<_> =
            self.calls.iter().filter(|(_, (_, call))| !(under_way && call.ended)).map(|(id, _)| *id).collect();
        self.random.choice(ids)
    }

    fn open(&mut self) {
        let Some(place) = self.free_places.pop_last() else { return };
        // Ids begin anew with each link, as a server's do.
        let id = self.next_id;
        self.next_id += 1;
        let ticket = self.mailboxes.open(self.generation, id, place, self.free_list.events());
        assert!(self.calls.values().all(|(other, _)| other.slot != ticket.slot), "no two calls share a slot");
        self.calls.insert(key(ticket), (ticket, Call { place, ..Call::default() }));
    }

    fn deliver(&mut self) {
        let Some(id) = self.some_call(true) else { return };
        let (ticket, call) = self.calls.get_mut(&id).unwrap();
        let found = self.mailboxes.find(ticket.generation, ticket.id, call.place);
        assert_eq!(found, Some(*ticket), "a call under way is found by its place");
        let last = self.random.bool();
        let event = self.random.u8(..);
        let payload = vec![event];
        self.mailboxes.deliver(*ticket, if last { Arrival::Response(payload) } else { Arrival::Chunk(payload) });
        self.mailboxes.told.take().tell();
        call.deliver(event, last);
        if last {
            self.free_places.insert(call.place);
        }
    }

    fn take(&mut self) {
        let Some(id) = self.some_call(false) else { return };
        let (ticket, call) = self.calls.get_mut(&id).unwrap();
        let taken = self.mailboxes.take(*ticket, &mut self.free_list);
        assert_eq!(taken.as_ref().map(byte_of), call.events.pop_front());
        if taken.is_some() && call.ended && call.events.is_empty() {
            self.forget(id);
        }
    }

    fn wait(&mut self) {
        let Some(id) = self.some_call(false) else { return };
        let (ticket, call) = self.calls.get_mut(&id).unwrap();
        let (role, index) = if self.random.bool() { (Waiter::Reader, 0) } else { (Waiter::Writer, 1) };
        let bell = Arc::new(Bell::default());
        let waits = self.mailboxes.wait_for(*ticket, role, &Waker::from(Arc::clone(&bell)));
        assert_eq!(waits, !(call.ended && role == Waiter::Writer));
        call.waiting[index] = Some(bell);
    }

    fn stop_waiting(&mut self) {
        let Some(id) = self.some_call(false) else { return };
        let (ticket, call) = self.calls.get_mut(&id).unwrap();
        self.mailboxes.stop_waiting(*ticket, Waiter::Reader);
        call.waiting[0] = None;
    }

    fn give_up(&mut self) {
        let Some(id) = self.some_call(false) else { return };
        let (ticket, call) = &self.calls[&id];
        assert_eq!(self.mailboxes.forget(*ticket), !call.ended);
        if !call.ended && ticket.generation == self.generation {
            self.free_places.insert(call.place);
        }
        self.forget(id);
    }

    fn cancel(&mut self) {
        let Some(id) = self.some_call(false) else { return };
        let (ticket, call) = self.calls.get_mut(&id).unwrap();
        assert_eq!(self.mailboxes.cancel(*ticket), !call.ended);
        self.mailboxes.told.take().tell();
        if !call.ended {
            call.deliver(CANCELLED, true);
            self.free_places.insert(call.place);
        }
    }

    fn wake_one(&mut self) {
        let waiting = || self.calls.values().flat_map(|(_, call)| call.waiting.iter().flatten());
        let before = waiting().count();
        self.mailboxes.wake_one();
        self.mailboxes.told.take().tell();
        let woken = waiting().filter(|bell| bell.0.load(SeqCst)).count();
        assert_eq!(woken, before.min(1), "one, if any waits");
        for (_, call) in self.calls.values_mut() {
            call.waiting.iter_mut().for_each(|bell| *bell = bell.take().filter(|bell| !bell.0.load(SeqCst)));
        }
    }

    /// The server is lost, and found again: ids and places begin anew.
    fn lose(&mut self) {
        self.mailboxes.end_all(self.generation, |id| CallError::Handler { code: id as u32, text: String::new() });
        self.mailboxes.told.take().tell();
        for (ticket, call) in self.calls.values_mut() {
            if !call.ended {
                call.deliver(ticket.id as u8, true);
            }
        }
        self.generation += 1;
        self.next_id = 1;
        self.free_places = (0..PLACES).collect();
    }

    fn forget(&mut self, id: u64) {
        let (ticket, _) = self.calls.remove(&id).unwrap();
        self.stale.push(ticket);
    }

    fn check(&mut self) {
        assert_eq!(self.mailboxes.len(), self.calls.len());
        let waiting = self.calls.values().filter(|(_, call)| call.waiting.iter().any(Option::is_some)).count();
        assert_eq!(self.mailboxes.waiting.len(), waiting);
        let bells = self.calls.values().flat_map(|(_, call)| call.waiting.iter().flatten());
        assert!(bells.filter(|bell| bell.0.load(SeqCst)).count() == 0, "nobody is woken for nothing");
        // What was forgotten stays so, whoever has its slot and its place now.
        if let Some(stale) = self.random.choice(&self.stale).copied() {
            assert!(self.mailboxes.take(stale, &mut self.free_list).is_none());
            assert!(!self.mailboxes.cancel(stale) && !self.mailboxes.forget(stale));
            assert!(!self.mailboxes.wait_for(stale, Waiter::Reader, Waker::noop()));
            assert!((0..=PLACES).all(|place| self.mailboxes.find(stale.generation, stale.id, place).is_none()));
            self.mailboxes.deliver(stale, Arrival::End);
        }
    }
}

const CANCELLED: u8 = 255;

fn key(ticket: Ticket) -> u64 {
    ticket.generation << 32 | ticket.id
}

fn byte_of(event: &Arrival) -> u8 {
    match event {
        Arrival::Response(payload) | Arrival::Chunk(payload) => payload[0],
        Arrival::Failed(CallError::Handler { code, .. }) => *code as u8,
        Arrival::Failed(CallError::Cancelled) => CANCELLED,
        other => panic!("{other:?}"),
    }
}

#[test]
fn slots_are_used_again_and_never_more_than_calls_at_once() {
    let (mut mailboxes, mut free_list) = (Mailboxes::default(), FreeList::default());
    for id in 1..1000 {
        // The place is free as soon as the answer is in, and the slot when it was taken.
        let first = mailboxes.open(1, 2 * id, 0, free_list.events());
        mailboxes.deliver(first, Arrival::End);
        let second = mailboxes.open(1, 2 * id + 1, 0, free_list.events());
        assert_eq!(mailboxes.find(1, 2 * id, 0), None);
        assert_eq!(mailboxes.find(1, 2 * id + 1, 0), Some(second));
        assert!(matches!(mailboxes.take(first, &mut free_list), Some(Arrival::End)));
        assert!(mailboxes.forget(second));
    }
    assert_eq!((mailboxes.len(), mailboxes.slots.len(), mailboxes.by_place.len()), (0, 2, 1));
}

#[test]
fn of_a_call_whose_reader_and_writer_wait_one_is_woken_and_the_other_waits_on() {
    let mut mailboxes = Mailboxes::default();
    let ticket = mailboxes.open(1, 1, 0, VecDeque::new());
    let bells = [Waiter::Reader, Waiter::Writer].map(|role| {
        let bell = Arc::new(Bell::default());
        assert!(mailboxes.wait_for(ticket, role, &Waker::from(Arc::clone(&bell))));
        bell
    });
    let woken = || bells.iter().filter(|bell| bell.0.load(SeqCst)).count();
    for count in 1..=2 {
        mailboxes.wake_one();
        mailboxes.told.take().tell();
        assert_eq!(woken(), count);
    }
}
