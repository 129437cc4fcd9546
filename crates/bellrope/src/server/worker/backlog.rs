//! What a worker puts off: events of its connections, newcomers, connections that end, and turns for which a round had no time. What is done of it in each round is the
//! [rounds'](super::rounds) business.
//!
//! Nothing is lost here: events of connections over the socket come once each, so those that were taken from the kernel stay
//! until they were heard.

use std::{collections::VecDeque, sync::Arc};

use bellrope_shm::wait::{EVENTS, PollEvent};

use super::{closing::Closing, session::Session};
use crate::server::{
    accept::{by_process::ByProcess, newcomers::GiveWay},
    message::NewConnection,
};

/// What was put off.
#[derive(Default)]
pub(super) struct Backlog {
    /// What epoll reported, in its order.
    pub(super) events: VecDeque<PollEvent>,
    /// Whether epoll may have more to report than it was asked for.
    pub(super) more_events: bool,
    /// In turns by process, so that nobody stands behind all that another process has begun.
    pub(super) newcomers: ByProcess<Newcomer>,
    /// Connections that end, and why. Nobody visits them any more, and nobody hears them.
    pub(super) ending: VecDeque<(usize, Closing)>,
}

/// Which rounds were cut short, so that the next ones go by process.
#[derive(Debug, Default)]
pub(super) struct CutShort {
    pub(super) visits: Option<Cut>,
    #[cfg(feature = "tokio")]
    pub(super) deliveries: bool,
}

/// Where a round over the hot list was cut short.
#[derive(Debug)]
pub(super) struct Cut {
    /// How many had no turn. They are first on the list; those that came in meanwhile are its end.
    pub(super) unvisited: usize,
    /// How often a connection had come onto a list until then.
    pub(super) heated: u64,
}

/// What the acceptor has for the worker, of each process in its order: the connection that is to give way may be among those before.
pub(super) enum Newcomer {
    Connection(Box<NewConnection>),
    Wants(Arc<GiveWay>),
}

impl Backlog {
    /// Whether nothing was put off.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.newcomers.is_empty() && self.ending.is_empty()
    }

    /// Whether no connection waits to be taken over.
    pub(super) fn has_no_newcomers(&self) -> bool {
        self.newcomers.is_empty()
    }

    /// Puts off what epoll reported.
    pub(super) fn note(&mut self, events: &[PollEvent]) {
        self.more_events = events.len() == EVENTS;
        self.events.extend(events);
    }

    pub(super) fn newcomer(&mut self, newcomer: Newcomer) {
        let of = match &newcomer {
            Newcomer::Connection(connection) => connection.peer,
            Newcomer::Wants(way) => way.giver.peer,
        };
        self.newcomers.push(of, newcomer);
    }
}

/// What epoll is to report a connection's events under. Places are used again, numbers are not: so no event of one that is gone
/// is taken for another's.
pub(super) fn key(index: usize, serial: u64) -> u64 {
    serial << 32 | index as u64
}

/// Those that are looked after: all but those that end.
pub(super) fn looked_after(session: &mut Option<Box<Session>>) -> Option<&mut Session> {
    session.as_deref_mut().filter(|session| !session.ending)
}
