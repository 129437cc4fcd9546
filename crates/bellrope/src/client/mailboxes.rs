//! The calls of a shared connection: what has come for each one, and which caller waits for it.
//!
//! Mailboxes lie in slots. A ticket says which slot its call has, so its caller finds it without a search; the slot says
//! whose it is, so a ticket whose call was forgotten finds nothing, whoever has the slot by then. What the connection
//! receives says only the id of a call. The connection keeps the calls under way in places, and of each place the slot is
//! noted here. The two numbers differ: a call has its place until its last answer is in, and its slot until that was taken.
//!
//! **Absent on purpose**: the connection. Nothing here sends or receives.

use std::{collections::VecDeque, task::Waker};

use super::{free_list::FreeList, waiters::DueWakers};
use crate::error::CallError;

#[cfg(test)]
mod tests;

/// Names a call for as long as the client lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    /// The link that the call was sent on.
    pub(super) generation: u64,
    /// The call's number on that link, which no other call on it ever has.
    pub(super) id: u64,
    /// Where its mailbox is. Others may have it later.
    slot: usize,
}

/// What can come for a call. Each one but a chunk is the last.
#[derive(Debug)]
pub(crate) enum Arrival {
    Response(Vec<u8>),
    Chunk(Vec<u8>),
    End,
    Failed(CallError),
}

/// What a caller waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// An event.
    Reader,
    /// Credit to send a chunk.
    Writer,
}

/// What has come for a call and which callers wait for it. Bounded by the credit of its stream.
#[derive(Debug)]
struct Mailbox {
    /// Whose it is. `None`: the slot is free.
    ticket: Option<Ticket>,
    events: VecDeque<Arrival>,
    /// Wakes the caller that waits for an event.
    reader: Option<Waker>,
    /// Wakes the caller that waits for credit.
    writer: Option<Waker>,
    /// Whether the last event is in.
    ended: bool,
    /// Where the mailbox stands among those with a caller that waits.
    waits_at: Option<usize>,
}

/// The mailboxes of all calls. There are as many slots as there ever were calls at once.
#[derive(Debug, Default)]
pub(super) struct Mailboxes {
    slots: Vec<Mailbox>,
    free: Vec<usize>,
    /// The slot of the call that has this place on the link, or had it last.
    by_place: Vec<usize>,
    /// The slots for which a caller waits, in no order.
    waiting: Vec<usize>,
    /// Those that are woken, or wait no longer.
    pub(super) told: DueWakers,
}

impl Mailboxes {
    /// The number of calls.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Begins to track a call, sent as `id` on the link of this generation, where it has this place. `events` is an empty
    /// queue.
    pub(super) fn open(&mut self, generation: u64, id: u64, place: usize, events: VecDeque<Arrival>) -> Ticket {
        let slot = self.free.pop().unwrap_or(self.slots.len());
        let ticket = Ticket { generation, id, slot };
        let mailbox =
            Mailbox { ticket: Some(ticket), events, reader: None, writer: None, ended: false, waits_at: None };
        match self.slots.get_mut(slot) {
            Some(free) => *free = mailbox,
            None => self.slots.push(mailbox),
        }
        if self.by_place.len() <= place {
            self.by_place.resize(place + 1, usize::MAX);
        }
        self.by_place[place] = slot;
        ticket
    }

    /// The call that was sent as `id` on the link of this generation, where it has this place, if it is tracked.
    pub(super) fn find(&self, generation: u64, id: u64, place: usize) -> Option<Ticket> {
        let ticket = self.slots.get(*self.by_place.get(place)?)?.ticket?;
        (ticket.generation == generation && ticket.id == id).then_some(ticket)
    }

    /// Stores an event and has the caller woken that waits for it.
    pub(super) fn deliver(&mut self, ticket: Ticket, event: Arrival) {
        let Some(mailbox) = self.of(ticket) else { return };
        mailbox.ended |= !matches!(event, Arrival::Chunk(_));
        mailbox.events.push_back(event);
        let ended = mailbox.ended;
        self.wake(ticket, Waiter::Reader);
        if ended {
            self.wake(ticket, Waiter::Writer);
        }
    }

    /// Takes the next event of a call. The call is forgotten after its last event.
    pub(super) fn take(&mut self, ticket: Ticket, free_list: &mut FreeList<Arrival>) -> Option<Arrival> {
        let mailbox = self.of(ticket)?;
        let event = mailbox.events.pop_front()?;
        if mailbox.ended && mailbox.events.is_empty() {
            free_list.keep_events(self.release(ticket.slot));
        }
        Some(event)
    }

    /// Registers the caller that is to be woken when something comes for a call. Returns `false` if the call has ended: then a
    /// writer has nothing to wait for.
    pub(super) fn wait_for(&mut self, ticket: Ticket, role: Waiter, waker: &Waker) -> bool {
        let Some(mailbox) = self.of(ticket) else { return false };
        let waits = !(mailbox.ended && role == Waiter::Writer);
        let known = mailbox.waker(role);
        if known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            return waits;
        }
        if let Some(before) = known.replace(waker.clone()) {
            self.told.forget(before);
        }
        self.note_waiting(ticket.slot);
        waits
    }

    /// Forgets the caller that waited in this role.
    pub(super) fn stop_waiting(&mut self, ticket: Ticket, role: Waiter) {
        if let Some(waker) = self.take_waker(ticket, role) {
            self.told.forget(waker);
        }
    }

    /// Has the caller woken that waits in this role.
    pub(super) fn wake(&mut self, ticket: Ticket, role: Waiter) {
        if let Some(waker) = self.take_waker(ticket, role) {
            self.told.wake(waker);
        }
    }

    /// Has one of all waiting callers woken.
    pub(super) fn wake_one(&mut self) {
        let Some(slot) = self.waiting.last().copied() else { return };
        let mailbox = &mut self.slots[slot];
        // One: the other of the same call waits on.
        let waker = mailbox.reader.take().or_else(|| mailbox.writer.take());
        self.note_waiting(slot);
        waker.into_iter().for_each(|waker| self.told.wake(waker));
    }

    /// Forgets a call. Returns whether it was still under way.
    pub(super) fn forget(&mut self, ticket: Ticket) -> bool {
        let Some(mailbox) = self.of(ticket) else { return false };
        let under_way = !mailbox.ended;
        self.release(ticket.slot);
        under_way
    }

    /// Ends a call as cancelled. Returns whether it was still under way.
    pub(super) fn cancel(&mut self, ticket: Ticket) -> bool {
        let under_way = self.of(ticket).is_some_and(|mailbox| !mailbox.ended);
        if under_way {
            self.deliver(ticket, Arrival::Failed(CallError::Cancelled));
        }
        under_way
    }

    /// Ends all calls of a link that are still under way. `error` tells how, given the number of the call.
    pub(super) fn end_all(&mut self, generation: u64, mut error: impl FnMut(u64) -> CallError) {
        for slot in 0..self.slots.len() {
            let Mailbox { ticket: Some(ticket), ended: false, .. } = self.slots[slot] else { continue };
            if ticket.generation == generation {
                self.deliver(ticket, Arrival::Failed(error(ticket.id)));
            }
        }
    }

    /// The mailbox of a call, until its last event was taken.
    fn of(&mut self, ticket: Ticket) -> Option<&mut Mailbox> {
        self.slots.get_mut(ticket.slot).filter(|mailbox| mailbox.ticket == Some(ticket))
    }

    /// Frees a slot. Returns its queue.
    fn release(&mut self, slot: usize) -> VecDeque<Arrival> {
        let mailbox = &mut self.slots[slot];
        mailbox.ticket = None;
        [mailbox.reader.take(), mailbox.writer.take()].into_iter().flatten().for_each(|waker| self.told.forget(waker));
        let events = std::mem::take(&mut mailbox.events);
        self.note_waiting(slot);
        self.free.push(slot);
        events
    }

    fn take_waker(&mut self, ticket: Ticket, role: Waiter) -> Option<Waker> {
        let waker = self.of(ticket)?.waker(role).take()?;
        self.note_waiting(ticket.slot);
        Some(waker)
    }

    /// Brings the list of those who wait up to date with the wakers of a slot, so that nobody has to look for one who waits.
    fn note_waiting(&mut self, slot: usize) {
        let mailbox = &mut self.slots[slot];
        match (mailbox.reader.is_some() || mailbox.writer.is_some(), mailbox.waits_at) {
            (true, None) => {
                mailbox.waits_at = Some(self.waiting.len());
                self.waiting.push(slot);
            }
            (false, Some(at)) => {
                mailbox.waits_at = None;
                self.waiting.swap_remove(at);
                if let Some(moved) = self.waiting.get(at) {
                    self.slots[*moved].waits_at = Some(at);
                }
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
}

impl Mailbox {
    fn waker(&mut self, role: Waiter) -> &mut Option<Waker> {
        match role {
            Waiter::Reader => &mut self.reader,
            Waiter::Writer => &mut self.writer,
        }
    }
}
