mod answer;
mod check;
mod described;
mod large;
mod leave;
mod lost;
mod plain;

use std::{collections::VecDeque, sync::Arc};

pub use answer::{Answer, AnswerKind};
use bellrope_shm::{SharedMemory, View};
use check::{Receiving, check, check_types};

use super::slots::{Slots, index_of};
use crate::{
    Violation,
    frame::{Kind, WHOLE_CONNECTION},
    kill_points::KillPoint,
    ring::{Armed, Consumer, Producer, RecordClass, Wake},
    style::Style,
    terms::Terms,
};

/// Answers that nobody waits for, dropped in one go. A server that sends them without end does not hold us for ever.
const DROP_BUDGET: usize = 256;

/// The client's end of a connection.
#[derive(Debug)]
pub struct ClientConnection {
    requests: Producer,
    responses: Consumer,
    /// The request ring again, for the admitted word after the server has died.
    request_view: View,
    calls: Slots,
    terms: Terms,
    /// The call whose request is on its way in parts, if one is.
    sending: Option<u64>,
    /// The response that comes in parts, if one does.
    receiving: Option<Receiving>,
    /// Cancels, credits and ends that found no room: a cancel, or a credit and an end, of each call that was under way
    /// when room ran out, since none is begun before they have left. How much a credit is shows when it is sent.
    waiting: VecDeque<(Kind, u64, Option<u64>)>,
    /// Answers for calls that nobody waits for any more.
    dropped: u64,
    /// What the server said of why it closes the connection.
    closed_because: Option<Box<str>>,
    /// Whether the server may tell of changes of its message types.
    hears_types: bool,
    /// Whether the server reads metadata of calls.
    tells_metadata: bool,
    /// Whether the server reads [`LEAVING`] in cancels.
    tells_leaving: bool,
    wake: Wake,
}

/// A request that is too large for one record and on its way in parts. See [`ClientConnection::begin_large`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sending {
    /// The call.
    pub id: u64,
    sent: usize,
}

/// Why a call was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The request ring is full, a stream lacks credit, or another large request is on its way: try again later.
    #[error("there is no room for it now")]
    Full,
    /// As many calls are under way as the server allows.
    #[error("{limit} calls are under way, as many as the server allows")]
    TooManyInFlight {
        /// The limit.
        limit: u32,
    },
    /// The payload is larger than a message may be.
    #[error("the message of {size} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// Payload bytes.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The chunk is larger than a quarter of the ring.
    #[error("the chunk of {size} bytes exceeds the limit of {limit} bytes (a quarter of ring_bytes)")]
    ChunkTooLarge {
        /// Payload bytes.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The server broke the protocol; the connection must be closed.
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// What can be said of a call whose server died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// No handler saw it; it is safe to send it again.
    NotExecuted,
    /// It may have run, at most once.
    Unknown,
}

impl ClientConnection {
    /// The client's end over a mapping that the server made.
    ///
    /// # Panics
    /// If the memory is smaller than the terms' geometry.
    #[must_use]
    pub fn new(memory: &Arc<SharedMemory>, terms: Terms) -> Self {
        let geometry = terms.geometry;
        let request_view = memory.view(geometry.requests());
        Self {
            requests: Producer::new(request_view.clone(), geometry),
            responses: Consumer::new(memory.view(geometry.responses()), geometry),
            request_view,
            calls: Slots::new(terms.max_in_flight),
            terms,
            sending: None,
            receiving: None,
            waiting: VecDeque::new(),
            dropped: 0,
            closed_because: None,
            hears_types: false,
            tells_metadata: false,
            tells_leaving: false,
            wake: Wake::NO,
        }
    }

    /// The same, of a client that both sides agreed is told of changes of the message types.
    #[must_use]
    pub fn hearing_types(mut self) -> Self {
        self.hears_types = true;
        self
    }

    /// The same, of a client whose server agreed to read metadata of calls.
    #[must_use]
    pub fn telling_metadata(mut self) -> Self {
        self.tells_metadata = true;
        self
    }

    /// Bytes of the largest message.
    #[must_use]
    pub fn max_message(&self) -> usize {
        self.terms.max_message as usize
    }

    /// Bytes of the largest message that travels in one record, and of the largest chunk.
    #[inline(always)]
    #[must_use]
    pub fn max_record(&self) -> usize {
        self.terms.max_record()
    }

    /// Most calls and streams under way.
    #[must_use]
    pub fn max_in_flight(&self) -> u32 {
        self.terms.max_in_flight
    }

    /// Calls and streams under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.calls.len()
    }

    /// The ids of all calls and streams under way.
    pub fn calls(&self) -> impl Iterator<Item = u64> + '_ {
        self.calls.ids()
    }

    /// The place of a call among those under way: no two of them share one, and it is below [`Self::max_in_flight`]. A
    /// later call may have it as soon as this one has ended, so it finds a call only together with its id.
    #[inline(always)]
    #[must_use]
    pub fn place_of(id: u64) -> usize {
        index_of(id)
    }

    /// Answers that came for calls nobody waits for any more.
    #[must_use]
    pub fn dropped_answers(&self) -> u64 {
        self.dropped
    }

    /// Commits all that was sent since the last commit, and says whether the server must be woken because of what was
    /// done since then. To be called before anything is waited for.
    #[inline(always)]
    pub fn commit(&mut self) -> Wake {
        self.wake |= self.requests.publish();
        std::mem::take(&mut self.wake)
    }

    /// Sends a call whose request fits a record, with the next [commit](Self::commit), and returns its id.
    /// `deadline_us` is the moment on the server's clock at which the answer is no longer wanted.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was sent then.
    #[inline(always)]
    pub fn submit(
        &mut self,
        message_type: u16,
        style: Style,
        payload: &[u8],
        deadline_us: Option<u64>,
    ) -> Result<u64, SubmitError> {
        if payload.len() > self.max_record() {
            return Err(SubmitError::TooLarge { size: payload.len(), limit: self.max_record() });
        }
        self.check_slots()?;
        let id = self.calls.next_id();
        if !self.requests.push(RecordClass::Bulk, Kind::Request, message_type, id, deadline_us, payload)? {
            return Err(SubmitError::Full);
        }
        self.calls.insert(id, self.requests.position(), style, self.terms.stream_window);
        Ok(id)
    }

    /// Sends a chunk of a stream to the server. Answers `false` if the call has ended or its stream has been ended.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was sent then.
    pub fn send_chunk(&mut self, id: u64, payload: &[u8]) -> Result<bool, SubmitError> {
        if payload.len() > self.max_record() {
            return Err(SubmitError::ChunkTooLarge { size: payload.len(), limit: self.max_record() });
        }
        let Some(outflow) = self.calls.outflow(id) else { return Ok(false) };
        let number = Some(outflow.number());
        if !outflow.available() || !self.requests.push(RecordClass::Bulk, Kind::Chunk, 0, id, number, payload)? {
            return Err(SubmitError::Full);
        }
        outflow.sent(payload.len());
        KillPoint::ClientChunkSent.reached();
        Ok(true)
    }

    /// Whether a chunk of this stream waits for the server's credit, and not for room.
    #[must_use]
    pub fn lacks_credit(&mut self, id: u64) -> bool {
        self.calls.outflow(id).is_some_and(|outflow| !outflow.available())
    }

    /// Ends a stream to the server: no more chunks will come. The call itself goes on.
    ///
    /// # Errors
    /// The server's [`Violation`]; the connection must be closed.
    pub fn end_upload(&mut self, id: u64) -> Result<(), Violation> {
        if let Some(outflow) = self.calls.outflow(id) {
            let chunks = outflow.number();
            self.calls.end_outflow(id);
            self.waiting.push_back((Kind::End, id, Some(chunks)));
            self.flush()?;
            KillPoint::ClientEndSent.reached();
        }
        Ok(())
    }

    /// Whether an answer came, as cheaply as can be told.
    #[inline(always)]
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.responses.is_ready()
    }

    /// The response at the front, if that is what is there, in one piece, and somebody waits for it. To whatever else is
    /// there, [`Self::next_answer`] has an answer. It must be [taken](Self::take) before the next is asked for.
    #[inline(always)]
    pub fn next_response(&mut self) -> Option<Answer> {
        if self.receiving.is_some() {
            return None;
        }
        let record = self.responses.peek_for(Kind::Response)?;
        let slot = self.calls.find(record.id)?;
        let fits = !slot.style.streams() && !record.header.extended;
        fits.then(|| Answer::new(record, AnswerKind::Response, 0))
    }

    /// Whether there is nothing for [`Self::next_answer`] to do, as cheaply as can be told. If there is nothing, the server
    /// gets the room that it may wait for.
    #[inline(always)]
    pub fn is_drained(&mut self) -> bool {
        if !self.waiting.is_empty() {
            return false;
        }
        let Some(wake) = self.responses.relieve_if_drained() else { return false };
        self.wake |= wake;
        true
    }

    /// The next answer, if one came. It must be [taken](Self::take) before the next is asked for.
    ///
    /// # Errors
    /// The server's [`Violation`]; the connection must be closed.
    pub fn next_answer(&mut self) -> Result<Option<Answer>, Violation> {
        if let Some(answer) = self.next_response() {
            return Ok(Some(answer));
        }
        for _ in 0..DROP_BUDGET {
            let Some(record) = self.responses.peek()? else {
                self.wake |= self.responses.relieve();
                // One who spins never arms, so this is where what waits for room gets another try.
                if !self.waiting.is_empty() {
                    self.flush()?;
                }
                break;
            };
            if record.header.kind == Kind::Types {
                return check_types(&record, self.hears_types).map(|kind| Some(Answer::new(record, kind, 0)));
            }
            if let Some((kind, at)) = check(&record, &mut self.calls, self.receiving, &self.terms)? {
                return Ok(Some(Answer::new(record, kind, at)));
            }
            if record.header.kind == Kind::Error && record.id == WHOLE_CONNECTION {
                self.hear_why(&record);
            } else {
                self.dropped += 1;
            }
            self.wake |= self.responses.advance(&record);
        }
        Ok(None)
    }

    /// Takes the answer that [`Self::next_answer`] gave: copies its payload and frees its place in the ring.
    ///
    /// # Panics
    /// If `into` is not exactly `answer.len` bytes long.
    #[inline(always)]
    pub fn take(&mut self, answer: &Answer, into: &mut [u8]) {
        // Not by reference, as `assert_eq` would: the answer would have to lie in memory for it.
        assert!(into.len() == answer.len, "an answer is taken whole");
        self.responses.read(&answer.record, 0, into);
        self.wake |= self.responses.advance(&answer.record);
        if answer.kind.is_last() {
            self.forget(answer.id);
            KillPoint::ClientAnswerTaken.reached();
        } else if let AnswerKind::Part { size } = answer.kind {
            let filled = (answer.at + answer.len) as u64;
            self.receiving = Some(Receiving { id: answer.id, size: size as u64, filled });
            KillPoint::ClientPartTaken.reached();
        } else if answer.kind == AnswerKind::Chunk {
            if let Some(inflow) = self.calls.inflow(answer.id) {
                inflow.took(answer.len);
                KillPoint::ClientChunkTaken.reached();
            }
        }
    }

    /// Says that the application has consumed a chunk of `len` bytes, so that the server may send more.
    ///
    /// # Errors
    /// The server's [`Violation`]; the connection must be closed.
    pub fn consumed(&mut self, id: u64, len: usize) -> Result<(), Violation> {
        if self.calls.inflow(id).is_some_and(|inflow| inflow.consumed(len)) {
            self.waiting.push_back((Kind::Credit, id, None));
            self.flush()?;
            KillPoint::ClientCreditSent.reached();
        }
        Ok(())
    }

    /// Gives up a call: its answer will be dropped, and the server told. Answers whether it was under way.
    ///
    /// # Errors
    /// The server's [`Violation`]; the connection must be closed.
    pub fn cancel(&mut self, id: u64) -> Result<bool, Violation> {
        self.cancel_as(id, None)
    }

    fn cancel_as(&mut self, id: u64, how: Option<u64>) -> Result<bool, Violation> {
        if !self.forget(id) {
            return Ok(false);
        }
        self.give_up(id, how)?;
        KillPoint::ClientCancelSent.reached();
        Ok(true)
    }

    /// Sends cancels and credits that wait, as far as there is room.
    ///
    /// # Errors
    /// The server's [`Violation`]; the connection must be closed.
    pub fn flush(&mut self) -> Result<(), Violation> {
        while let Some(&(kind, id, mut extension)) = self.waiting.front() {
            if kind == Kind::Credit {
                extension = self.calls.inflow(id).and_then(|inflow| inflow.due());
            }
            // The stream of a credit may have ended meanwhile.
            if kind != Kind::Credit || extension.is_some() {
                if !self.requests.push(RecordClass::Control, kind, 0, id, extension, &[])? {
                    break;
                }
                if let Some(inflow) = self.calls.inflow(id).filter(|_| kind == Kind::Credit) {
                    inflow.returned();
                }
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Prepares to sleep until the server rings: for an answer, and also for room if `for_room` or if cancels and
    /// credits wait for it. Commits what was not; the wake-up that may need is told by the next [commit](Self::commit).
    ///
    /// # Errors
    /// The server's [`Violation`]; the connection must be closed.
    pub fn arm(&mut self, for_room: bool) -> Result<Armed, Violation> {
        // What waited may have room by now. To sleep until there is more would be to sleep over it.
        self.flush()?;
        self.wake |= self.requests.publish();
        if (for_room || !self.waiting.is_empty()) && !self.requests.await_room()? {
            return Ok(Armed::Ready);
        }
        let (armed, wake) = self.responses.arm();
        self.wake |= wake;
        Ok(armed)
    }

    /// Takes the sleep tag back.
    pub fn disarm(&self) {
        self.responses.disarm();
    }

    /// Forgets a call without telling the server, which has died, broke the protocol, or ended the call. Answers whether it
    /// was under way.
    #[inline(always)]
    pub fn forget(&mut self, id: u64) -> bool {
        let was_under_way = self.calls.remove(id);
        self.stop_receiving(id);
        was_under_way
    }

    #[inline(always)]
    fn check_slots(&mut self) -> Result<(), SubmitError> {
        if self.calls.is_full() {
            return Err(SubmitError::TooManyInFlight { limit: self.terms.max_in_flight });
        }
        if !self.waiting.is_empty() {
            self.flush()?;
            // What is said of earlier calls goes first, or it would pile up.
            if !self.waiting.is_empty() {
                return Err(SubmitError::Full);
            }
        }
        Ok(())
    }

    /// Tells the server that nothing more comes for a call, and that nothing is wanted.
    fn give_up(&mut self, id: u64, how: Option<u64>) -> Result<(), Violation> {
        if self.sending == Some(id) {
            self.sending = None;
        }
        self.waiting.retain(|(_, waiting, _)| *waiting != id);
        self.waiting.push_back((Kind::Cancel, id, how));
        self.flush()
    }

    #[inline(always)]
    fn stop_receiving(&mut self, id: u64) {
        if self.receiving.is_some_and(|receiving| receiving.id == id) {
            self.receiving = None;
        }
    }
}
