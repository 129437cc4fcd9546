mod described;
mod inbound;
mod large;
mod plain;
mod rarer;
mod streams;

use std::{mem::offset_of, ops::Range, sync::Arc};

use bellrope_shm::SharedMemory;
pub use inbound::{Announced, Inbound, InboundChunk, InboundRequest};

use super::{
    assembly::Assembly,
    ids::Ids,
    outbox::{Outbox, answer::Unsent},
    reply::Reply,
};
use crate::{
    Reservation, Violation,
    failure::Failure,
    frame::Kind,
    kill_points::KillPoint,
    ring::{Armed, Consumer, Producer, Wake},
    style::Style,
    terms::Terms,
};

/// Records handled in one go that are nobody's call or chunk. A client that floods us with them does not hold the
/// worker.
const CONTROL_BUDGET: usize = 64;

/// The server's end of a connection. `B` is what a body that has to wait for room is kept in; it is dropped as soon as
/// its bytes are in the ring, so a body may carry a permit that bounds how many of them there are.
///
/// What a small call needs comes first, in the [lines](Self::SMALL_CALL) that it touches.
#[derive(Debug)]
#[repr(C)]
pub struct ServerConnection<B> {
    requests: Consumer,
    wake: Wake,
    /// Whether the client may say something of its calls.
    hears_metadata: bool,
    /// Whether the client may say [`LEAVING`] in its cancels.
    hears_leaving: bool,
    outbox: Outbox<B>,
    /// Calls whose handler has not answered yet, but for those answered with a stream, which the outbox has.
    open: Ids,
    /// The request that is on its way in parts, if one is.
    assembly: Option<Assembly>,
}

impl<B> ServerConnection<B> {
    /// The bytes of it that a small call touches: from the first to the last.
    pub const SMALL_CALL: Range<usize> =
        offset_of!(Self, requests)..offset_of!(Self, outbox) + Outbox::<B>::SMALL_ANSWER;
}

impl<B: AsRef<[u8]>> ServerConnection<B> {
    /// The server's end over a fresh mapping.
    ///
    /// # Panics
    /// If the memory is smaller than the terms' geometry.
    #[must_use]
    pub fn new(memory: &Arc<SharedMemory>, terms: Terms) -> Self {
        let geometry = terms.geometry;
        Self {
            requests: Consumer::new(memory.view(geometry.requests()), geometry),
            wake: Wake::NO,
            outbox: Outbox::new(Producer::new(memory.view(geometry.responses()), geometry), terms),
            open: Ids::default(),
            assembly: None,
            hears_metadata: false,
            hears_leaving: false,
        }
    }

    /// Bytes of the largest message that travels in one record, and of the largest chunk.
    #[must_use]
    pub fn max_record(&self) -> usize {
        self.outbox.terms.max_record()
    }

    /// Calls and streams whose handler has not answered yet, or whose answer has not been sent whole.
    #[must_use]
    pub fn open_calls(&self) -> usize {
        self.open.len() + self.outbox.streams()
    }

    /// Whether so many answers wait for room that no request is admitted: any that fit a record, or more of the others than
    /// a megabyte.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.outbox.is_stalled()
    }

    /// Whether a request is on its way in parts.
    #[must_use]
    pub fn is_assembling(&self) -> bool {
        self.assembly.is_some()
    }

    /// Up to where requests and what else the client sent were taken: grows with each record.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.requests.position()
    }

    /// How far the client has read, if there is something that it has to read before the rest can be sent: answers, or
    /// chunks of streams. What it sends meanwhile is no progress.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn unread(&mut self) -> Result<Option<u64>, Violation> {
        self.outbox.unread()
    }

    /// The streams of which something has waited for their reader's credit for `patience_us`, as far as was seen from
    /// here: to be asked now and then. The client may read everything else meanwhile.
    pub fn unread_streams(&mut self, now_us: u64, patience_us: u64) -> Vec<u64> {
        self.outbox.unread_streams(now_us, patience_us)
    }

    /// What the server waits for of the client, if it waits for something, as a number that changes as the client goes on:
    /// to read its answers and chunks, or to send the next chunk of a stream whose handler has consumed all that came.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn awaited(&mut self) -> Result<Option<u64>, Violation> {
        Ok(self.outbox.awaits_reader()?.or_else(|| self.outbox.uploads.awaited()))
    }

    /// How much came of the request that is on its way in parts, if one is. What else comes meanwhile is no progress.
    #[must_use]
    pub fn assembled(&self) -> Option<u64> {
        self.assembly.as_ref().map(|assembly| assembly.unfinished().map_or(self.requests.position(), |it| it.filled))
    }

    /// Commits all answers since the last commit, and says whether the client must be woken because of what was done
    /// since then. To be called before anything is waited for.
    #[inline(always)]
    pub fn commit(&mut self) -> Wake {
        let published = self.outbox.publish();
        if !published.needed() && !self.wake.needed() {
            return Wake::NO;
        }
        self.wake = Wake::NO;
        Wake::YES
    }

    /// Whether something came in, as cheaply as can be told.
    #[inline(always)]
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.requests.is_ready()
    }

    /// Fetches what the next look will look at. A hint: nothing else happens.
    #[inline(always)]
    pub fn prefetch(&self) {
        self.requests.prefetch();
    }

    /// The call at the front, if that is what is there, whole, and it may be admitted. To whatever else is there,
    /// [`Self::next_inbound`] has an answer.
    #[inline(always)]
    pub fn next_call(&mut self) -> Option<InboundRequest> {
        if !self.admits_calls() {
            return None;
        }
        self.requests.peek_for(Kind::Request).map(|record| InboundRequest::new(record, false))
    }

    /// Whether calls are admitted that came whole.
    #[inline(always)]
    #[must_use]
    pub fn admits_calls(&self) -> bool {
        debug_assert!(self.outbox.special || !self.has_more(), "whatever begins something special says so");
        !(self.outbox.special && (self.assembly.is_some() || self.is_stalled()))
    }

    /// Whether nothing waits for room and no large request is on its way.
    #[inline(always)]
    pub fn is_plain(&mut self) -> bool {
        if self.outbox.special {
            self.outbox.special = self.has_more();
        }
        !self.outbox.special
    }

    /// Whether there is nothing for [`Self::next_inbound`] to answer with, as cheaply as can be told. If there is nothing,
    /// the client gets the room that it may wait for.
    #[inline(always)]
    pub fn is_drained(&mut self) -> bool {
        let Some(wake) = self.requests.relieve_if_drained() else { return false };
        self.wake |= wake;
        true
    }

    /// What came in next, if anything did.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn next_inbound(&mut self) -> Result<Option<Inbound>, Violation> {
        if let Some(request) = self.next_call() {
            return Ok(Some(Inbound::Call(request)));
        }
        for _ in 0..CONTROL_BUDGET {
            let Some(record) = self.requests.peek()? else {
                self.wake |= self.requests.relieve();
                break;
            };
            if record.header.kind.is_request() {
                if self.is_stalled() {
                    break;
                }
                let large = self.is_assembling_of(record.id);
                if !large || !self.drop_if_discarded(&record) {
                    return self.call(InboundRequest::new(record, large)).map(Some);
                }
            } else if record.header.kind == Kind::Fragment && self.assembly.is_none() && self.is_stalled() {
                break;
            } else if let Some(inbound) = self.rarer(&record)? {
                return Ok(Some(inbound));
            }
        }
        Ok(None)
    }

    /// Takes the request that [`Self::next_inbound`] answered with: copies its payload, frees its place in the ring,
    /// and notes it as admitted, so that a client that outlives us knows that it may have run.
    ///
    /// # Panics
    /// If `into` is not exactly `request.len` bytes long.
    #[inline(always)]
    pub fn take(&mut self, request: &InboundRequest, into: &mut [u8]) {
        // Not by reference, as `assert_eq` would: the request would have to lie in memory for it.
        assert!(into.len() == request.len, "a request is taken whole");
        self.requests.read(&request.record, request.skip, into);
        self.wake |= self.requests.advance(&request.record);
        self.requests.admit();
    }

    /// Takes the chunk that [`Self::next_inbound`] answered with.
    ///
    /// # Panics
    /// If `into` is not exactly `chunk.len` bytes long.
    pub fn take_chunk(&mut self, chunk: &InboundChunk, into: &mut [u8]) {
        assert!(into.len() == chunk.len, "a chunk is taken whole");
        self.requests.read(&chunk.record, 0, into);
        self.wake |= self.requests.advance(&chunk.record);
        self.outbox.uploads.took(chunk.id, chunk.len);
        KillPoint::ServerChunkTaken.reached();
    }

    /// Says that the handler has consumed a chunk of `len` bytes, so that the client may send more.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn consumed(&mut self, id: u64, len: usize) -> Result<(), Violation> {
        self.outbox.consumed(id, len)
    }

    /// Answers a call on the spot: `fill` writes the reply straight into the ring, or fails. A reply that finds no room
    /// goes through `spill`, a scratch buffer that is empty and is so again afterwards, and then `keep` makes a body of
    /// it that may wait, or refuses to. Returns the failure that the caller gets instead of a reply, if any.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed. A failure of `fill` or `keep` is no error here.
    #[inline(always)]
    pub fn answer(
        &mut self,
        id: u64,
        hint: usize,
        spill: &mut Vec<u8>,
        keep: impl FnOnce(Vec<u8>) -> Result<B, Failure>,
        fill: impl FnOnce(&mut Reply<'_>) -> Result<(), Box<Failure>>,
    ) -> Result<Option<Box<Failure>>, Violation> {
        match self.answer_at_once(id, hint, spill, fill)? {
            None => Ok(None),
            Some(unsent) => self.answer_late(id, unsent, spill, keep),
        }
    }

    /// The common part of [`Self::answer`]: `None` if the reply was sent. If it was not, nothing was, and
    /// [`Self::answer_late`] must be called with what this returns and the same buffer.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    #[inline(always)]
    pub fn answer_at_once(
        &mut self,
        id: u64,
        hint: usize,
        spill: &mut Vec<u8>,
        fill: impl FnOnce(&mut Reply<'_>) -> Result<(), Box<Failure>>,
    ) -> Result<Option<Unsent>, Violation> {
        self.outbox.answer(id, hint, spill, fill)
    }

    /// The rest of [`Self::answer`], of a reply that [was not sent](Self::answer_at_once).
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn answer_late(
        &mut self,
        id: u64,
        unsent: Unsent,
        spill: &mut Vec<u8>,
        keep: impl FnOnce(Vec<u8>) -> Result<B, Failure>,
    ) -> Result<Option<Box<Failure>>, Violation> {
        self.outbox.answer_late(id, unsent, spill, keep)
    }

    /// Refuses a call, or answers it with an error.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn fail(&mut self, id: u64, failure: Failure) -> Result<(), Violation> {
        self.outbox.respond(id, Err(failure))
    }

    /// Notes that a call of this style will be answered later. Answers `false` if too many are open.
    ///
    /// # Errors
    /// [`Violation::DuplicateCall`] if the id is in use.
    pub fn open(&mut self, id: u64, style: Style) -> Result<bool, Violation> {
        if self.open_calls() >= self.outbox.terms.max_in_flight as usize {
            return Ok(false);
        }
        if self.open.contains(id) || self.outbox.has_stream(id) {
            return Err(Violation::DuplicateCall(id));
        }
        if style.streams() {
            self.outbox.open_stream(id);
        } else {
            self.open.insert(id);
        }
        if style.uploads() {
            self.outbox.uploads.open(id, self.outbox.terms.stream_window);
        }
        KillPoint::Opened.reached();
        Ok(true)
    }

    /// Answers an open call. A call that was cancelled meanwhile is left alone.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn respond(&mut self, id: u64, outcome: Result<B, Failure>) -> Result<(), Violation> {
        if !self.open.remove(id) {
            return Ok(());
        }
        self.outbox.uploads.close(id);
        let limit = u64::from(self.outbox.terms.max_message);
        let outcome = outcome.and_then(|body| match body.as_ref().len() as u64 {
            size if size > limit => Err(Failure::too_large("reply", size, limit)),
            _ => Ok(body),
        });
        self.outbox.respond(id, outcome)?;
        KillPoint::Responded.reached();
        Ok(())
    }

    /// Answers an open call with an error, which has room in the budget for its text until it was sent. A call that was
    /// cancelled meanwhile is left alone.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn fail_open(&mut self, id: u64, failure: Failure, held: Option<Reservation>) -> Result<(), Violation> {
        if !self.open.remove(id) {
            return Ok(());
        }
        self.outbox.uploads.close(id);
        self.outbox.fail(id, failure, held)?;
        KillPoint::Responded.reached();
        Ok(())
    }

    /// Says why this side is about to close the connection, if there is room for it. Nothing may be sent after it.
    pub fn say_why(&mut self, failure: &Failure) {
        self.outbox.say_why(failure);
    }

    /// Ends an open stream after everything parked.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn finish(&mut self, id: u64, outcome: Result<(), Failure>) -> Result<(), Violation> {
        self.outbox.uploads.close(id);
        self.outbox.finish(id, outcome)
    }

    /// Ends an open stream at once: what is parked of it is dropped.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn abort(&mut self, id: u64, failure: Failure) -> Result<(), Violation> {
        self.outbox.uploads.close(id);
        self.outbox.abort(id, failure)
    }

    /// Keeps room in the budget for a stream until its end has been sent. To be called before [`Self::finish`].
    pub fn hold(&mut self, id: u64, reservation: Reservation) {
        self.outbox.hold(id, reservation);
    }

    /// Sends what waits, as far as room and credit go, or less if the client must be woken first. Answers whether that
    /// was anything.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn flush(&mut self) -> Result<bool, Violation> {
        let before = self.outbox.sent();
        self.outbox.flush()?;
        Ok(self.outbox.sent() != before)
    }

    /// Tells a client that agreed to hear it of a [change](crate::table) of the message types, of which there are `entries`
    /// then. Answers `false` if it is to be told later, because it has not read enough of what it was sent.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn tell_types(&mut self, entries: u64, change: &[u8]) -> Result<bool, Violation> {
        self.outbox.tell_types(entries, change)
    }

    /// Most bytes that [`Self::tell_types`] takes at once.
    #[must_use]
    pub fn max_types_change(&self) -> usize {
        self.outbox.terms.geometry.max_payload() as usize
    }

    /// Whether something waits for room in the response ring.
    #[inline(always)]
    #[must_use]
    pub fn wants_room(&self) -> bool {
        self.outbox.wants_room()
    }

    /// How many requests were not taken: to be asked when nothing will be, as they are gone then.
    pub fn untaken_requests(&mut self) -> u64 {
        let mut untaken = 0;
        while let Ok(Some(record)) = self.requests.peek() {
            untaken += u64::from(record.header.kind.is_request());
            self.wake |= self.requests.advance(&record);
        }
        untaken
    }

    /// Prepares to sleep until the client rings; commits what was not. The wake-up that may need is told by the next
    /// [commit](Self::commit).
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn arm(&mut self) -> Result<Armed, Violation> {
        // To sleep until there is more room than there is would be to sleep over what could be sent.
        while self.wants_room() && self.flush()? {}
        self.wake |= self.outbox.publish();
        if self.wants_room() && !self.outbox.await_room()? {
            return Ok(Armed::Ready);
        }
        let (armed, wake) = self.requests.arm();
        self.wake |= wake;
        // A stalled connection admits nothing, so what lies in the request ring is no reason to stay awake.
        Ok(if self.is_stalled() { Armed::Asleep } else { armed })
    }

    /// Takes the sleep tag back.
    pub fn disarm(&self) {
        self.requests.disarm();
    }

    /// Takes the rings out of this process's resident set until they are next used, and lets go of what was made for answers
    /// that had to wait.
    #[cfg(not(loom))]
    pub fn give_back(&mut self) {
        self.requests.release_pages();
        self.outbox.release_pages();
        self.outbox.shrink();
    }

    /// Whether anything waits for room, or a large request is on its way.
    fn has_more(&self) -> bool {
        self.assembly.is_some() || self.is_stalled() || self.wants_room()
    }

    #[inline(always)]
    fn is_assembling_of(&self, id: u64) -> bool {
        self.assembly.as_ref().is_some_and(|assembly| assembly.id() == id)
    }
}
