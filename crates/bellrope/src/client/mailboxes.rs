//! The calls of a shared connection: what has come for each one, and which caller waits for it.
//!
//! **Absent on purpose**: the connection. Nothing here sends or receives.

use std::{
    collections::{HashMap, VecDeque},
    task::Waker,
};

use super::free_list::FreeList;
use crate::error::CallError;

/// Names a call for as long as the client lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    /// The link that the call was sent on.
    pub(super) generation: u64,
    /// The call's number on that link.
    pub(super) id: u64,
}

/// What can come for a call. Each one but a chunk is the last.
#[derive(Debug)]
pub(crate) enum Event {
    Response(Vec<u8>),
    Chunk(Vec<u8>),
    End,
    Failed(CallError),
}

/// What a caller waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// An event.
    Reader,
    /// Credit to send a chunk.
    Writer,
}

/// What has come for a call and which callers wait for it. Bounded by the credit of its stream.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    events: VecDeque<Event>,
    /// Wakes the caller that waits for an event.
    reader: Option<Waker>,
    /// Wakes the caller that waits for credit.
    writer: Option<Waker>,
    /// Whether the last event is in.
    ended: bool,
}

/// The mailboxes of all calls.
#[derive(Debug, Default)]
pub(super) struct Mailboxes {
    by_ticket: HashMap<Ticket, Mailbox>,
}

impl Mailboxes {
    /// The number of calls.
    pub(super) fn len(&self) -> usize {
        self.by_ticket.len()
    }

    /// Begins to track a call. `events` is an empty queue.
    pub(super) fn open(&mut self, ticket: Ticket, events: VecDeque<Event>) {
        self.by_ticket.insert(ticket, Mailbox { events, ..Mailbox::default() });
    }

    /// The mailbox of a call, until its last event was taken.
    pub(super) fn of(&mut self, ticket: Ticket) -> Option<&mut Mailbox> {
        self.by_ticket.get_mut(&ticket)
    }

    /// Takes the next event of a call. The call is forgotten after its last event.
    pub(super) fn take(&mut self, ticket: Ticket, free_list: &mut FreeList<Event>) -> Option<Event> {
        let mailbox = self.by_ticket.get_mut(&ticket)?;
        let event = mailbox.events.pop_front()?;
        if mailbox.ended && mailbox.events.is_empty() {
            self.by_ticket.remove(&ticket).into_iter().for_each(|mailbox| free_list.keep_events(mailbox.events));
        }
        Some(event)
    }

    /// Registers the caller that is to be woken when something comes for a call. Returns `false` if the call has ended: then a
    /// writer has nothing to wait for.
    pub(super) fn wait_for(&mut self, ticket: Ticket, role: Role, waker: &Waker) -> bool {
        let Some(mailbox) = self.by_ticket.get_mut(&ticket) else { return false };
        *mailbox.waker(role) = Some(waker.clone());
        !(mailbox.ended && role == Role::Writer)
    }

    /// Forgets the caller that waited in this role.
    pub(super) fn stop_waiting(&mut self, ticket: Ticket, role: Role) {
        if let Some(mailbox) = self.by_ticket.get_mut(&ticket) {
            *mailbox.waker(role) = None;
        }
    }

    /// Wakes one of all waiting callers.
    pub(super) fn wake_one(&mut self) {
        let mut wakers =
            self.by_ticket.values_mut().filter_map(|mailbox| mailbox.reader.take().or(mailbox.writer.take()));
        if let Some(waker) = wakers.next() {
            waker.wake();
        }
    }

    /// Forgets a call. Returns whether it was still under way.
    pub(super) fn forget(&mut self, ticket: Ticket) -> bool {
        self.by_ticket.remove(&ticket).is_some_and(|mailbox| !mailbox.ended)
    }

    /// Ends a call as cancelled. Returns whether it was still under way.
    pub(super) fn cancel(&mut self, ticket: Ticket) -> bool {
        let Some(mailbox) = self.by_ticket.get_mut(&ticket).filter(|mailbox| !mailbox.ended) else { return false };
        mailbox.deliver(Event::Failed(CallError::Cancelled));
        true
    }

    /// Ends all calls of a link that are still under way. `error` tells how, given the number of the call.
    pub(super) fn end_all(&mut self, generation: u64, mut error: impl FnMut(u64) -> CallError) {
        for (ticket, mailbox) in &mut self.by_ticket {
            if ticket.generation == generation && !mailbox.ended {
                mailbox.deliver(Event::Failed(error(ticket.id)));
            }
        }
    }
}

impl Mailbox {
    /// Stores an event and wakes the caller that waits for it.
    pub(super) fn deliver(&mut self, event: Event) {
        self.ended |= !matches!(event, Event::Chunk(_));
        self.events.push_back(event);
        self.wake(Role::Reader);
        if self.ended {
            self.wake(Role::Writer);
        }
    }

    /// Wakes the caller that waits in this role.
    pub(super) fn wake(&mut self, role: Role) {
        if let Some(waker) = self.waker(role).take() {
            waker.wake();
        }
    }

    fn waker(&mut self, role: Role) -> &mut Option<Waker> {
        match role {
            Role::Reader => &mut self.reader,
            Role::Writer => &mut self.writer,
        }
    }
}
