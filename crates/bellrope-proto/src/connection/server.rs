use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bellrope_shm::SharedMemory;

use super::{Credit, Failure, Reply, Terms};
use crate::{
    Violation,
    frame::{ErrorCode, Kind},
    ring::{Armed, Class, Consumer, Producer, Record, Wake},
};

/// Cancels and credits handled in one go. A client that floods us with them does not hold the worker.
const CONTROL_BUDGET: usize = 64;

/// The server's end of a connection. `B` is what a body that has to wait for room is kept in; it is dropped as soon as
/// its bytes are in the ring, so a body may carry a permit that bounds how many of them there are.
#[derive(Debug)]
pub struct ServerConnection<B> {
    requests: Consumer,
    responses: Producer,
    terms: Terms,
    /// Calls and streams whose handler has not answered yet.
    open: HashMap<u64, Option<Outflow<B>>>,
    /// Answers that found no room in the ring. While there are any, no request is admitted.
    waiting: VecDeque<(u64, Ending<B>)>,
    /// Streams that have something to send and credit for it.
    runnable: VecDeque<u64>,
    wake: Wake,
}

/// The sending end of a stream.
#[derive(Debug)]
struct Outflow<B> {
    credit: Credit,
    /// Number of the next chunk.
    next: u32,
    parked: VecDeque<B>,
    /// How it ends once everything parked has been sent.
    ending: Option<Ending<B>>,
    /// Whether its id stands in `runnable`.
    listed: bool,
}

/// How a call or stream ends.
#[derive(Debug)]
enum Ending<B> {
    Response(B),
    End,
    Failed(Failure),
}

/// A call at the front of the request ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Call id, the client's choice.
    pub id: u64,
    /// Message type.
    pub message_type: u16,
    /// Payload bytes.
    pub len: usize,
    /// Time left for the answer in microseconds, if the caller set a deadline.
    pub time_left_us: Option<u64>,
    record: Record,
}

/// What came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inbound {
    /// A call. It must be [taken](ServerConnection::take) before anything else is asked of the connection.
    Call(Request),
    /// The caller no longer wants the answer to this open call, which is closed by now.
    Cancelled(u64),
}

impl<B: AsRef<[u8]> + From<Vec<u8>>> ServerConnection<B> {
    /// The server's end over a fresh mapping.
    ///
    /// # Panics
    /// If the memory is smaller than the terms' geometry.
    #[must_use]
    pub fn new(memory: &Arc<SharedMemory>, terms: Terms) -> Self {
        let geometry = terms.geometry;
        Self {
            requests: Consumer::new(memory.view(geometry.requests()), geometry),
            responses: Producer::new(memory.view(geometry.responses()), geometry),
            terms,
            open: HashMap::new(),
            waiting: VecDeque::new(),
            runnable: VecDeque::new(),
            wake: Wake::NO,
        }
    }

    /// Largest payload of one message, in bytes.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.terms.geometry.max_payload() as usize
    }

    /// Calls and streams whose handler has not answered yet.
    #[must_use]
    pub fn open_calls(&self) -> usize {
        self.open.len()
    }

    /// Whether answers wait for room, so that no request is admitted.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Commits all answers since the last commit, and says whether the client must be woken because of what was done
    /// since then. To be called before anything is waited for.
    #[inline(always)]
    pub fn commit(&mut self) -> Wake {
        self.wake |= self.responses.publish();
        std::mem::take(&mut self.wake)
    }

    /// Whether something came in, as cheaply as can be told.
    #[inline(always)]
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.requests.is_ready()
    }

    /// What came in next, if anything did.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    #[inline(always)]
    pub fn next_inbound(&mut self) -> Result<Option<Inbound>, Violation> {
        for _ in 0..CONTROL_BUDGET {
            let Some(record) = self.requests.peek()? else {
                self.wake |= self.requests.relieve();
                break;
            };
            match record.header.kind {
                Kind::Request => {
                    if self.is_stalled() {
                        return Ok(None);
                    }
                    return Ok(Some(Inbound::Call(Request {
                        id: record.id,
                        message_type: record.header.message_type,
                        len: record.header.len as usize,
                        time_left_us: record.header.extended.then_some(record.extension),
                        record,
                    })));
                }
                Kind::Cancel => {
                    self.expect_form(&record, false)?;
                    self.wake |= self.requests.advance(&record);
                    if self.open.remove(&record.id).is_some() {
                        let failure = Failure::new(ErrorCode::Cancelled, "cancelled by the caller");
                        self.send_ending(record.id, Ending::Failed(failure))?;
                        return Ok(Some(Inbound::Cancelled(record.id)));
                    }
                }
                Kind::Credit => {
                    self.expect_form(&record, true)?;
                    self.wake |= self.requests.advance(&record);
                    self.credit(record.id, record.extension)?;
                }
                kind => return Err(Violation::Direction(kind as u8)),
            }
        }
        Ok(None)
    }

    /// Takes the request that [`Self::next_inbound`] answered with: copies its payload, frees its place in the ring, and notes
    /// it as admitted, so that a client that outlives us knows that it may have run.
    ///
    /// # Panics
    /// If `into` is not exactly `request.len` bytes long.
    #[inline(always)]
    pub fn take(&mut self, request: &Request, into: &mut [u8]) {
        assert_eq!(into.len(), request.len);
        self.requests.read(&request.record, 0, into);
        self.wake |= self.requests.advance(&request.record);
        self.requests.admit();
    }

    /// Answers a call on the spot: `fill` writes the reply straight into the ring, or fails. Replies that find no room
    /// go through `spill`, a scratch buffer whose contents are of no further use. Returns the failure that the caller
    /// gets instead of a reply, if any.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed. A failure of `fill` is no error here.
    #[inline(always)]
    pub fn answer(
        &mut self,
        id: u64,
        hint: usize,
        spill: &mut Vec<u8>,
        fill: impl FnOnce(&mut Reply<'_>) -> Result<(), Failure>,
    ) -> Result<Option<Failure>, Violation> {
        let limit = self.max_payload();
        spill.clear();
        let draft = self.responses.begin(Class::Bulk, false, hint.min(limit))?;
        let mut reply = Reply { draft, spill, len: 0, limit };
        let outcome = fill(&mut reply);
        match (outcome, reply.draft.take()) {
            (Ok(()), Some(draft)) => {
                draft.stage(Kind::Response, 0, id, 0);
                Ok(None)
            }
            (Ok(()), None) if reply.len <= limit => {
                let body = std::mem::take(reply.spill);
                self.send_ending(id, Ending::Response(B::from(body)))?;
                Ok(None)
            }
            (Ok(()), None) => {
                let failure = too_large(reply.len, limit);
                self.send_ending(id, Ending::Failed(failure.clone()))?;
                Ok(Some(failure))
            }
            (Err(failure), _) => {
                self.send_ending(id, Ending::Failed(failure.clone()))?;
                Ok(Some(failure))
            }
        }
    }

    /// Refuses a call, or answers it with an error.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn fail(&mut self, id: u64, failure: Failure) -> Result<(), Violation> {
        self.send_ending(id, Ending::Failed(failure))
    }

    /// Notes that a call will be answered later, as a stream or at once. Answers `false` if too many are open.
    ///
    /// # Errors
    /// [`Violation::DuplicateCall`] if the id is in use.
    pub fn open(&mut self, id: u64, stream: bool) -> Result<bool, Violation> {
        if self.open.len() >= self.terms.max_in_flight as usize {
            return Ok(false);
        }
        let outflow = stream.then(|| Outflow {
            credit: Credit::new(self.terms.stream_window),
            next: 0,
            parked: VecDeque::new(),
            ending: None,
            listed: false,
        });
        match self.open.insert(id, outflow) {
            None => Ok(true),
            Some(_) => Err(Violation::DuplicateCall(id)),
        }
    }

    /// Answers an open call. A call that was cancelled meanwhile is left alone.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn respond(&mut self, id: u64, outcome: Result<B, Failure>) -> Result<(), Violation> {
        if self.open.remove(&id).is_none() {
            return Ok(());
        }
        let limit = self.max_payload();
        let ending = match outcome {
            Ok(body) if body.as_ref().len() > limit => Ending::Failed(too_large(body.as_ref().len(), limit)),
            Ok(body) => Ending::Response(body),
            Err(failure) => Ending::Failed(failure),
        };
        self.send_ending(id, ending)
    }

    /// Sends a chunk of an open stream, or parks it until there is credit and room. A chunk of a stream that was
    /// cancelled meanwhile, or that is larger than [`Self::max_payload`], is dropped; the caller checks sizes.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn chunk(&mut self, id: u64, body: B) -> Result<(), Violation> {
        let limit = self.max_payload();
        if let Some(Some(outflow)) = self.open.get_mut(&id)
            && outflow.ending.is_none()
            && body.as_ref().len() <= limit
        {
            outflow.parked.push_back(body);
            self.list(id);
        }
        self.flush()
    }

    /// Ends an open stream after everything parked.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn finish(&mut self, id: u64, outcome: Result<(), Failure>) -> Result<(), Violation> {
        if let Some(Some(outflow)) = self.open.get_mut(&id) {
            outflow.ending.get_or_insert(match outcome {
                Ok(()) => Ending::End,
                Err(failure) => Ending::Failed(failure),
            });
            self.list(id);
        }
        self.flush()
    }

    /// Sends what waits, as far as room and credit go.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn flush(&mut self) -> Result<(), Violation> {
        while let Some((id, ending)) = self.waiting.pop_front() {
            if let Some(ending) = self.push_ending(id, ending, 0)? {
                self.waiting.push_front((id, ending));
                return Ok(());
            }
        }
        while let Some(id) = self.runnable.pop_front() {
            match self.push_stream(id)? {
                Progress::NoRoom => {
                    self.runnable.push_front(id);
                    return Ok(());
                }
                Progress::More => self.runnable.push_back(id),
                Progress::Idle => {}
            }
        }
        Ok(())
    }

    /// Whether something waits for room in the response ring.
    #[must_use]
    pub fn wants_room(&self) -> bool {
        !self.waiting.is_empty() || !self.runnable.is_empty()
    }

    /// Prepares to sleep until the client rings; commits what was not. The wake-up that may need is told by the next
    /// [commit](Self::commit).
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn arm(&mut self) -> Result<Armed, Violation> {
        self.wake |= self.responses.publish();
        if self.wants_room() && !self.responses.await_room()? {
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

    /// Takes the rings out of this process's resident set until they are next used.
    #[cfg(not(loom))]
    pub fn release_pages(&self) {
        self.requests.release_pages();
        self.responses.release_pages();
    }

    fn expect_form(&self, record: &Record, extended: bool) -> Result<(), Violation> {
        if record.header.extended == extended && record.header.len == 0 && record.header.message_type == 0 {
            Ok(())
        } else {
            Err(Violation::Form(record.header.kind as u8))
        }
    }

    fn credit(&mut self, id: u64, amount: u64) -> Result<(), Violation> {
        if let Some(Some(outflow)) = self.open.get_mut(&id) {
            if !outflow.credit.refill(amount) {
                return Err(Violation::CreditOverflow(id));
            }
            self.list(id);
            return self.flush();
        }
        // Credit for a stream that has ended crossed its end on the way.
        Ok(())
    }

    /// Puts a stream on the list of those that can send, if it can and is not there yet.
    fn list(&mut self, id: u64) {
        if let Some(Some(outflow)) = self.open.get_mut(&id)
            && !outflow.listed
            && outflow.can_send()
        {
            outflow.listed = true;
            self.runnable.push_back(id);
        }
    }

    /// Sends one record of a stream.
    fn push_stream(&mut self, id: u64) -> Result<Progress, Violation> {
        let Some(Some(outflow)) = self.open.get_mut(&id) else {
            return Ok(Progress::Idle);
        };
        if let Some(body) = outflow.parked.front() {
            let bytes = body.as_ref();
            if outflow.credit.available() {
                let number = u64::from(outflow.next);
                if !self.responses.push(Class::Bulk, Kind::Chunk, 0, id, Some(number), bytes)? {
                    return Ok(Progress::NoRoom);
                }
                let paid = outflow.credit.spend(bytes.len());
                debug_assert!(paid);
                outflow.next = outflow.next.wrapping_add(1);
                outflow.parked.pop_front();
            }
        } else if let Some(ending) = outflow.ending.take() {
            let chunks = outflow.next;
            if let Some(unsent) = self.push_ending(id, ending, chunks)? {
                if let Some(Some(outflow)) = self.open.get_mut(&id) {
                    outflow.ending = Some(unsent);
                }
                return Ok(Progress::NoRoom);
            }
            self.open.remove(&id);
            return Ok(Progress::Idle);
        }
        if outflow.can_send() {
            return Ok(Progress::More);
        }
        outflow.listed = false;
        Ok(Progress::Idle)
    }

    /// Sends the end of a call, or lets it wait for room.
    fn send_ending(&mut self, id: u64, ending: Ending<B>) -> Result<(), Violation> {
        let unsent = if self.is_stalled() { Some(ending) } else { self.push_ending(id, ending, 0)? };
        if let Some(ending) = unsent {
            self.waiting.push_back((id, ending));
        }
        Ok(())
    }

    /// Writes the end of a call into the ring. Gives it back if there is no room.
    fn push_ending(&mut self, id: u64, ending: Ending<B>, chunks: u32) -> Result<Option<Ending<B>>, Violation> {
        let (kind, code, extension, bytes) = match &ending {
            Ending::Response(body) => (Kind::Response, 0, None, body.as_ref()),
            Ending::End => (Kind::End, 0, Some(u64::from(chunks)), &[][..]),
            Ending::Failed(failure) => (Kind::Error, failure.code.to_bits(), None, failure.bounded_text().as_bytes()),
        };
        let pushed = self.responses.push(Class::Bulk, kind, code, id, extension, bytes)?;
        Ok(if pushed { None } else { Some(ending) })
    }
}

impl<B> Outflow<B> {
    fn can_send(&self) -> bool {
        if self.parked.is_empty() { self.ending.is_some() } else { self.credit.available() }
    }
}

#[cold]
fn too_large(size: usize, limit: usize) -> Failure {
    let text = format!("the reply of {size} bytes exceeds the limit of {limit} bytes");
    Failure::new(ErrorCode::MessageTooLarge, text)
}

/// What came of one try to send for a stream.
enum Progress {
    NoRoom,
    More,
    Idle,
}
