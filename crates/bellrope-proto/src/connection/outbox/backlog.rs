//! What of a connection's answers and chunks waits for room or credit, and the streams that there are.

use std::collections::{HashMap, VecDeque};

use super::super::flow::Outflow;
use crate::{Reservation, failure::Failure};

/// Bytes of large responses that may wait while further requests are admitted: enough that the next request is taken and
/// worked on while parts of the last answer are on their way. What waits is in the budget.
const LARGE_AHEAD: u64 = 1024 * 1024;

/// What one connection has beyond small answers that are sent at once.
#[derive(Debug)]
pub(super) struct Backlog<B> {
    /// Ends of calls that found no room. While there are any, no request is admitted.
    pub(super) waiting: VecDeque<(u64, Ending<B>)>,
    /// Responses that are too large for a record. Parts of the first are on their way.
    pub(super) large: VecDeque<LargeResponse<B>>,
    /// Bytes of them that were not sent.
    pub(super) large_unsent: u64,
    /// Streams from the server.
    pub(super) streams: HashMap<u64, Stream<B>>,
    /// Those of them that have something to send and credit for it.
    pub(super) runnable: VecDeque<u64>,
}

/// A stream from the server.
#[derive(Debug)]
pub(super) struct Stream<B> {
    pub(super) flow: Outflow,
    pub(super) parked: VecDeque<B>,
    /// How it ends once everything parked has been sent.
    pub(super) ending: Option<Ending<B>>,
    /// Whether its id stands in `runnable`.
    pub(super) listed: bool,
    /// Since when something of it waits for its reader's credit, on the clock of whoever
    /// [asks](super::Outbox::unread_streams).
    pub(super) unread_since_us: Option<u64>,
    /// Room in the budget that is its own until its end has been sent.
    pub(super) held: Option<Reservation>,
}

/// How a call or stream ends.
#[derive(Debug)]
pub(super) enum Ending<B> {
    Response(B),
    End,
    Failed {
        failure: Failure,
        /// Room in the budget for its text, until it was sent.
        _held: Option<Reservation>,
    },
}

/// A response that travels in parts.
#[derive(Debug)]
pub(super) struct LargeResponse<B> {
    pub(super) id: u64,
    pub(super) body: B,
    pub(super) sent: usize,
}

impl<B> Default for Backlog<B> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            large: VecDeque::new(),
            large_unsent: 0,
            streams: HashMap::new(),
            runnable: VecDeque::new(),
        }
    }
}

impl<B> Backlog<B> {
    /// Whether so many answers wait for room that no request is admitted.
    pub(super) fn is_stalled(&self) -> bool {
        !self.waiting.is_empty() || self.large_unsent > LARGE_AHEAD
    }

    /// Whether answers wait for room.
    pub(super) fn has_unsent_answers(&self) -> bool {
        !self.waiting.is_empty() || !self.large.is_empty()
    }

    /// Whether anything of it waits for room.
    pub(super) fn wants_room(&self) -> bool {
        self.has_unsent_answers() || !self.runnable.is_empty()
    }

    /// Whether nothing waits and there is no stream.
    #[cfg(not(loom))]
    pub(super) fn is_empty(&self) -> bool {
        !self.has_unsent_answers() && self.streams.is_empty()
    }
}

impl<B: AsRef<[u8]>> Backlog<B> {
    /// Forgets a call: its stream, or what was not sent yet of a large response. Answers whether there was a stream.
    pub(super) fn forget(&mut self, id: u64) -> bool {
        let unsent = &mut self.large_unsent;
        self.large.retain(|large| {
            let stays = large.id != id;
            *unsent -= if stays { 0 } else { (large.body.as_ref().len() - large.sent) as u64 };
            stays
        });
        let Some(stream) = self.streams.remove(&id) else { return false };
        if stream.listed {
            // Or ids of streams that are gone would pile up behind a chunk that finds no room.
            self.runnable.retain(|listed| *listed != id);
        }
        true
    }
}

impl<B> Stream<B> {
    /// One of which nothing was sent.
    pub(super) fn new(window: u32) -> Self {
        let flow = Outflow::new(window);
        Self { flow, parked: VecDeque::new(), ending: None, listed: false, unread_since_us: None, held: None }
    }

    pub(super) fn can_send(&self) -> bool {
        if self.parked.is_empty() { self.ending.is_some() } else { self.flow.available() }
    }
}
