//! Newcomers for whom there was no place, while a process with more than its share of the places gives one up: a handshake of
//! which it takes no pages, else a connection. They wait for a worker to close that, which takes a moment, and never for longer than half a handshake.
//!
//! It knows no thread: who asks the workers, and what they close, is their own business.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Instant,
};

use bellrope_proto::handshake::Hello;
use bellrope_shm::socket::{PeerCredentials, Socket};

use super::{
    by_process::ByProcess,
    connection_limits::{Giver, NoPlace},
};

/// A client that has said hello, and waits for a place.
pub(crate) struct Newcomer {
    pub(crate) socket: Socket,
    pub(crate) peer: PeerCredentials,
    pub(crate) hello: Hello,
    pub(crate) deadline: Instant,
    /// Which limit is in the way.
    pub(crate) text: String,
}

/// What every worker is asked: to close one connection of this process, if none of them has yet.
#[derive(Debug)]
pub(crate) struct GiveWay {
    pub(crate) giver: Giver,
    /// Whether it may be one with calls under way.
    pub(crate) busy_too: bool,
    /// Workers that have not answered.
    unanswered: AtomicUsize,
    claimed: AtomicBool,
}

/// Those who wait, of each process in turn, and what the workers were asked for the first.
#[derive(Default)]
pub(crate) struct Newcomers {
    waiting: ByProcess<Newcomer>,
    asked: Option<Arc<GiveWay>>,
}

/// What is to be done about the first.
pub(crate) enum Step {
    Wait,
    Ask(Arc<GiveWay>),
    Refuse,
}

impl GiveWay {
    /// Whether the worker that asks is the one that closes a connection: the first.
    pub(crate) fn claim(&self) -> bool {
        !self.claimed.swap(true, SeqCst)
    }

    /// To be called once for each worker, when it has closed what it was to close. Answers whether it was the last.
    pub(crate) fn answered(&self) -> bool {
        self.unanswered.fetch_sub(1, SeqCst) == 1
    }
}

impl Newcomers {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether workers are about to close a connection for the first.
    pub(crate) fn is_asking(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.unanswered.load(SeqCst) > 0)
    }

    pub(crate) fn push(&mut self, newcomer: Newcomer) {
        self.waiting.push(newcomer.peer, newcomer);
    }

    pub(crate) fn first(&self) -> Option<&Newcomer> {
        self.waiting.first()
    }

    pub(crate) fn pop(&mut self) -> Option<Newcomer> {
        self.waiting.pop().map(|(_, newcomer)| newcomer)
    }

    /// Takes one out that is to make room for this one.
    pub(crate) fn give_way(&mut self, newcomer: PeerCredentials) -> Option<Newcomer> {
        self.waiting.give_way(newcomer).map(|(_, last)| last)
    }

    /// Takes one out that has waited for too long, whosever turn it is.
    pub(crate) fn take_late(&mut self, now: Instant) -> Option<Newcomer> {
        self.waiting.take_one(|newcomer| newcomer.deadline <= now).map(|(_, late)| late)
    }

    /// When the next of them has waited for too long.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.waiting.iter().map(|newcomer| newcomer.deadline).min()
    }

    /// What is to be done about the first, for whom there is still no place.
    pub(crate) fn step(&mut self, shortage: &NoPlace, workers: usize) -> Step {
        let Some(giver) = shortage.giver else { return Step::Refuse };
        let mut busy_too = false;
        match self.asked.take() {
            Some(asked) if asked.unanswered.load(SeqCst) > 0 => {
                self.asked = Some(asked);
                return Step::Wait;
            }
            // None of its connections is idle.
            Some(asked) if asked.giver.peer == giver.peer && !asked.claimed.load(SeqCst) => {
                if asked.busy_too || !giver.has_most {
                    return Step::Refuse;
                }
                busy_too = true;
            }
            _ => {}
        }
        let (unanswered, claimed) = (AtomicUsize::new(workers), AtomicBool::new(false));
        let asked = Arc::new(GiveWay { giver, busy_too, unanswered, claimed });
        self.asked = Some(Arc::clone(&asked));
        Step::Ask(asked)
    }
}
