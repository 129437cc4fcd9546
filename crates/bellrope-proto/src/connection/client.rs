use std::{collections::VecDeque, sync::Arc};

use bellrope_shm::{SharedMemory, View};

use super::{
    Credit, Terms,
    slots::{Inflow, Slots},
};
use crate::{
    Violation,
    frame::{ErrorCode, Kind},
    ring::{Armed, Class, Consumer, Producer, Record, Wake, admitted},
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
    /// Cancels and credits that found no room. At most one of each a call under way.
    waiting: VecDeque<(Kind, u64, Option<u64>)>,
    /// Answers for calls that nobody waits for any more.
    dropped: u64,
    wake: Wake,
}

/// What a call is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// One response.
    Response,
    /// Chunks, then an end.
    Stream,
}

/// Why a call was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The request ring is full.
    #[error("the request ring is full")]
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
    /// The server broke the protocol; the connection must be closed.
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// An answer at the front of the response ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The call it is for.
    pub id: u64,
    /// What it is.
    pub kind: AnswerKind,
    /// Payload bytes.
    pub len: usize,
    record: Record,
}

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerKind {
    /// The response: the call is over.
    Response,
    /// The call failed and is over; the payload is a text for people.
    Error(ErrorCode),
    /// The next chunk of a stream.
    Chunk,
    /// The stream is done.
    End,
}

impl AnswerKind {
    /// Whether the call is over with this.
    #[must_use]
    pub fn is_last(self) -> bool {
        self != Self::Chunk
    }
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
            waiting: VecDeque::new(),
            dropped: 0,
            wake: Wake::NO,
        }
    }

    /// Largest payload of one message, in bytes.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.terms.geometry.max_payload() as usize
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

    /// Sends a call, with the next [commit](Self::commit), and returns its id. `time_left_us` is the time left for the answer, in microseconds.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was sent then.
    #[inline(always)]
    pub fn submit(
        &mut self,
        message_type: u16,
        expect: Expect,
        payload: &[u8],
        time_left_us: Option<u64>,
    ) -> Result<u64, SubmitError> {
        if payload.len() > self.max_payload() {
            return Err(SubmitError::TooLarge { size: payload.len(), limit: self.max_payload() });
        }
        if self.calls.is_full() {
            return Err(SubmitError::TooManyInFlight { limit: self.terms.max_in_flight });
        }
        if !self.waiting.is_empty() {
            self.flush()?;
        }
        let id = self.calls.next_id();
        if !self.requests.push(Class::Bulk, Kind::Request, message_type, id, time_left_us, payload)? {
            return Err(SubmitError::Full);
        }
        let stream = (expect == Expect::Stream).then(|| Inflow {
            credit: Credit::new(self.terms.stream_window),
            next: 0,
            owed: 0,
        });
        let inserted = self.calls.insert(self.requests.position(), stream);
        debug_assert_eq!(inserted, id);
        Ok(id)
    }

    /// Whether an answer came, as cheaply as can be told.
    #[inline(always)]
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.responses.is_ready()
    }

    /// The next answer, if one came. It must be [taken](Self::take) before the next is asked for.
    ///
    /// # Errors
    /// The server's [`Violation`]; the connection must be closed.
    #[inline(always)]
    pub fn next_answer(&mut self) -> Result<Option<Answer>, Violation> {
        for _ in 0..DROP_BUDGET {
            let Some(record) = self.responses.peek()? else {
                self.wake |= self.responses.relieve();
                break;
            };
            let kind = match record.header.kind {
                Kind::Response => AnswerKind::Response,
                Kind::Error => AnswerKind::Error(ErrorCode::from_bits(record.header.message_type)),
                Kind::Chunk => AnswerKind::Chunk,
                Kind::End => AnswerKind::End,
                kind => return Err(Violation::Direction(kind as u8)),
            };
            let answer = Answer { id: record.id, kind, len: record.header.len as usize, record };
            if self.check(&answer)? {
                return Ok(Some(answer));
            }
            self.dropped += 1;
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
        assert_eq!(into.len(), answer.len);
        self.responses.read(&answer.record, 0, into);
        self.wake |= self.responses.advance(&answer.record);
        if answer.kind.is_last() {
            self.calls.remove(answer.id);
        } else if let Some(inflow) = self.calls.stream(answer.id) {
            let paid = inflow.credit.spend(answer.len);
            debug_assert!(paid, "checked when the answer was looked at");
            inflow.next = inflow.next.wrapping_add(1);
        }
    }

    /// Says that the application has consumed a chunk of `len` bytes, so that the server may send more.
    ///
    /// # Errors
    /// The server's [`Violation`]; the connection must be closed.
    pub fn consumed(&mut self, id: u64, len: usize) -> Result<(), Violation> {
        let Some(inflow) = self.calls.stream(id) else {
            return Ok(());
        };
        inflow.owed += Credit::cost(len);
        if inflow.credit.worth_returning(inflow.owed) {
            let amount = u64::try_from(std::mem::take(&mut inflow.owed)).unwrap_or(0);
            let refilled = inflow.credit.refill(amount);
            debug_assert!(refilled, "only what was spent is given back");
            self.waiting.push_back((Kind::Credit, id, Some(amount)));
            self.flush()?;
        }
        Ok(())
    }

    /// Gives up a call: its answer will be dropped, and the server told. Answers whether it was under way.
    ///
    /// # Errors
    /// The server's [`Violation`]; the connection must be closed.
    pub fn cancel(&mut self, id: u64) -> Result<bool, Violation> {
        if !self.calls.remove(id) {
            return Ok(false);
        }
        self.waiting.retain(|(_, waiting, _)| *waiting != id);
        self.waiting.push_back((Kind::Cancel, id, None));
        self.flush()?;
        Ok(true)
    }

    /// Sends cancels and credits that wait, as far as there is room.
    ///
    /// # Errors
    /// The server's [`Violation`]; the connection must be closed.
    pub fn flush(&mut self) -> Result<(), Violation> {
        while let Some(&(kind, id, extension)) = self.waiting.front() {
            if !self.requests.push(Class::Control, kind, 0, id, extension, &[])? {
                break;
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

    /// What can be said of a call under way after the server has died and every answer it left was taken.
    #[must_use]
    pub fn loss(&self, id: u64) -> Loss {
        let admitted = admitted(&self.request_view);
        match self.calls.find(id) {
            Some(slot) if slot.end > admitted => Loss::NotExecuted,
            _ => Loss::Unknown,
        }
    }

    /// Checks an answer against what is known of its call. `false`: nobody waits for it.
    #[inline(always)]
    fn check(&mut self, answer: &Answer) -> Result<bool, Violation> {
        let header = answer.record.header;
        let numbered = matches!(answer.kind, AnswerKind::Chunk | AnswerKind::End);
        if header.extended != numbered || (answer.kind == AnswerKind::End && header.len != 0) {
            return Err(Violation::Form(header.kind as u8));
        }
        let Some(slot) = self.calls.find(answer.id) else {
            return Ok(false);
        };
        match (slot.stream, answer.kind) {
            (_, AnswerKind::Error(_)) | (false, AnswerKind::Response) => Ok(true),
            (true, AnswerKind::Chunk | AnswerKind::End) => self.check_stream(answer).map(|()| true),
            (false, AnswerKind::Chunk | AnswerKind::End) | (true, AnswerKind::Response) => {
                Err(Violation::Form(header.kind as u8))
            }
        }
    }

    /// Checks the number and the credit of a stream's record.
    fn check_stream(&mut self, answer: &Answer) -> Result<(), Violation> {
        let (id, extension) = (answer.id, answer.record.extension);
        let Some(inflow) = self.calls.stream(id) else { return Err(Violation::Form(Kind::Chunk as u8)) };
        let found = u32::try_from(extension).unwrap_or(u32::MAX);
        if found != inflow.next || u64::from(found) != extension {
            return Err(Violation::Sequence { id, expected: inflow.next, found });
        }
        if answer.kind == AnswerKind::Chunk && !inflow.credit.available() {
            return Err(Violation::CreditExceeded(id));
        }
        Ok(())
    }
}
