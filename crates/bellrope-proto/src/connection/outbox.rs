//! What the server has to say on one connection: answers, chunks and credit, and what of it waits for room.

pub(super) mod answer;
mod backlog;
mod errors;

use std::mem::offset_of;

use self::backlog::{Backlog, Ending, LargeResponse, Stream};
use super::uploads::Uploads;
use crate::{
    Reservation, Violation,
    failure::Failure,
    frame::Kind,
    kill_points::KillPoint,
    ring::{Producer, RecordClass, Wake},
    terms::Terms,
};

/// The sending side of a [`ServerConnection`](super::ServerConnection).
///
/// What a small answer needs comes first, in the lines that it touches.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Outbox<B> {
    /// Bytes of the largest message.
    max_message: u32,
    /// What the commits made in between have to say.
    wake: Wake,
    /// Whether more than small calls may be under way: whatever lets answers wait for room, or a large request come, sets it,
    /// and [`is_plain`](super::ServerConnection::is_plain) takes it back.
    pub(super) special: bool,
    responses: Producer,
    pub(super) terms: Terms,
    /// What waits for room or credit, and the streams that there are. Most connections never have any of that, so there is a
    /// word for it until then.
    backlog: Option<Box<Backlog<B>>>,
    /// Streams from the client, whose credit is sent with the rest.
    pub(super) uploads: Uploads,
}

/// What came of one try to send.
#[derive(PartialEq, Eq)]
enum Progress {
    NoRoom,
    More,
    Idle,
}

impl<B> Outbox<B> {
    /// So many of its first bytes a small answer touches.
    pub(super) const SMALL_ANSWER: usize = offset_of!(Self, responses) + Producer::SMALL_RECORD;
}

impl<B: AsRef<[u8]>> Outbox<B> {
    pub(super) fn new(responses: Producer, terms: Terms) -> Self {
        Self {
            max_message: terms.max_message,
            wake: Wake::NO,
            special: false,
            responses,
            terms,
            backlog: None,
            uploads: Uploads::default(),
        }
    }

    /// Whether so many answers wait for room that no request is admitted.
    #[inline(always)]
    pub(super) fn is_stalled(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| backlog.is_stalled())
    }

    /// Whether anything waits for room.
    #[inline(always)]
    pub(super) fn wants_room(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| backlog.wants_room()) || self.uploads.any_due()
    }

    /// How far we have written.
    pub(super) fn sent(&self) -> u64 {
        self.responses.position()
    }

    /// How far the client has read, as far as we know.
    pub(super) fn taken(&self) -> u64 {
        self.responses.consumer()
    }

    #[inline(always)]
    pub(super) fn publish(&mut self) -> Wake {
        let published = self.responses.publish();
        if !published.needed() && !self.wake.needed() {
            return Wake::NO;
        }
        self.wake = Wake::NO;
        Wake::YES
    }

    pub(super) fn await_room(&mut self) -> Result<bool, Violation> {
        self.responses.await_room()
    }

    #[cfg(not(loom))]
    pub(super) fn release_pages(&self) {
        self.responses.release_pages();
    }

    /// Lets go of the room for what waited, if nothing does.
    #[cfg(not(loom))]
    pub(super) fn shrink(&mut self) {
        self.backlog.take_if(|backlog| backlog.is_empty());
    }

    fn backlog(&mut self) -> &mut Backlog<B> {
        self.backlog.get_or_insert_default()
    }

    fn stream(&mut self, id: u64) -> Option<&mut Stream<B>> {
        self.backlog.as_mut()?.streams.get_mut(&id)
    }

    /// Ends a call that is no stream.
    pub(super) fn respond(&mut self, id: u64, outcome: Result<B, Failure>) -> Result<(), Violation> {
        let ending = match outcome {
            Ok(body) if body.as_ref().len() > self.terms.max_record() => {
                self.special = true;
                let backlog = self.backlog();
                backlog.large_unsent += body.as_ref().len() as u64;
                backlog.large.push_back(LargeResponse { id, body, sent: 0 });
                return self.flush();
            }
            Ok(body) => Ending::Response(body),
            Err(failure) => Ending::Failed { failure: failure.bounded(), _held: None },
        };
        self.send_ending(id, ending)
    }

    /// Makes room for a stream.
    pub(super) fn open_stream(&mut self, id: u64) {
        let window = self.terms.stream_window;
        self.backlog().streams.insert(id, Stream::new(window));
    }

    /// Forgets a call: its stream, or what was not sent yet of a large response. Answers whether there was a stream.
    pub(super) fn forget(&mut self, id: u64) -> bool {
        self.backlog.as_mut().is_some_and(|backlog| backlog.forget(id))
    }

    /// Keeps room in the budget until the end of a stream has been sent.
    pub(super) fn hold(&mut self, id: u64, reservation: Reservation) {
        if let Some(stream) = self.stream(id) {
            stream.held = Some(reservation);
        }
    }

    /// How far the client has read, if something waits for room or credit.
    pub(super) fn awaits_reader(&mut self) -> Result<Option<u64>, Violation> {
        let waits = self.backlog.as_ref().is_some_and(|backlog| {
            backlog.has_unsent_answers() || backlog.streams.values().any(|stream| !stream.parked.is_empty())
        });
        if !waits {
            return Ok(None);
        }
        self.responses.look()?;
        Ok(Some(self.taken()))
    }

    /// How far the client has read, if something waits and there is something for it to read.
    pub(super) fn unread(&mut self) -> Result<Option<u64>, Violation> {
        Ok(self.awaits_reader()?.filter(|taken| *taken != self.sent()))
    }

    /// The streams of which something has waited for their reader's credit for so long, as far as was seen from here.
    pub(super) fn unread_streams(&mut self, now_us: u64, patience_us: u64) -> Vec<u64> {
        let mut unread = Vec::new();
        for (id, stream) in self.backlog.iter_mut().flat_map(|backlog| &mut backlog.streams) {
            let waits = !stream.parked.is_empty() && !stream.flow.available();
            let since = waits.then(|| *stream.unread_since_us.get_or_insert(now_us));
            stream.unread_since_us = since;
            if since.is_some_and(|since| now_us.saturating_sub(since) >= patience_us) {
                unread.push(*id);
            }
        }
        unread
    }

    /// Parks chunks, to be sent when there is credit and room.
    pub(super) fn chunks(&mut self, id: u64, bodies: impl IntoIterator<Item = B>) -> Result<(), Violation> {
        let max_record = self.terms.max_record();
        if let Some(stream) = self.stream(id).filter(|stream| stream.ending.is_none()) {
            stream.parked.extend(bodies.into_iter().filter(|body| body.as_ref().len() <= max_record));
            self.list(id);
        }
        self.flush()
    }

    /// Ends a stream after everything parked.
    pub(super) fn finish(&mut self, id: u64, outcome: Result<(), Failure>) -> Result<(), Violation> {
        if let Some(stream) = self.stream(id) {
            stream.ending.get_or_insert(match outcome {
                Ok(()) => Ending::End,
                // The stream holds its room.
                Err(failure) => Ending::Failed { failure: failure.bounded(), _held: None },
            });
            self.list(id);
        }
        self.flush()
    }

    /// Takes credit that the reader of a stream gave back.
    pub(super) fn credit(&mut self, id: u64, amount: u64) -> Result<(), Violation> {
        // Credit for a stream that has ended crossed its end on the way.
        let Some(stream) = self.stream(id) else { return Ok(()) };
        stream.flow.refill(id, amount)?;
        if amount > 0 {
            stream.unread_since_us = None;
        }
        self.list(id);
        self.flush()
    }

    /// Notes that the handler has consumed a chunk of a stream from the client, and gives credit for it in time.
    pub(super) fn consumed(&mut self, id: u64, len: usize) -> Result<(), Violation> {
        if self.uploads.consumed(id, len) {
            self.special = true;
            self.flush()?;
            KillPoint::ServerCreditSent.reached();
        }
        Ok(())
    }

    /// Sends what waits, as far as room and credit go. Streams that can send, and the large response that is on its
    /// way, take turns: a record each.
    pub(super) fn flush(&mut self) -> Result<(), Violation> {
        while let Some((id, amount)) = self.uploads.due() {
            if !self.responses.push(RecordClass::Control, Kind::Credit, 0, id, Some(amount), &[])? {
                break;
            }
            self.uploads.returned();
        }
        while let Some((id, ending)) = self.backlog.as_mut().and_then(|backlog| backlog.waiting.pop_front()) {
            if let Some(ending) = self.push_ending(id, ending, 0)? {
                self.backlog().waiting.push_front((id, ending));
                return Ok(());
            }
        }
        loop {
            let large = self.push_large()?;
            let stream = if large == Progress::NoRoom { Progress::Idle } else { self.push_runnable()? };
            // A client that sleeps is to be woken before the rest is copied.
            if self.wake.needed() || large != Progress::More && stream != Progress::More {
                return Ok(());
            }
        }
    }

    /// Sends the end of a call, or lets it wait for room. It may overtake a large response, and no other end.
    fn send_ending(&mut self, id: u64, ending: Ending<B>) -> Result<(), Violation> {
        let is_first = self.backlog.as_ref().is_none_or(|backlog| backlog.waiting.is_empty());
        let unsent = if is_first { self.push_ending(id, ending, 0)? } else { Some(ending) };
        if let Some(ending) = unsent {
            self.special = true;
            self.backlog().waiting.push_back((id, ending));
        }
        Ok(())
    }

    /// Writes the end of a call into the ring. Gives it back if there is no room.
    fn push_ending(&mut self, id: u64, ending: Ending<B>, chunks: u64) -> Result<Option<Ending<B>>, Violation> {
        let (kind, code, extension, bytes) = match &ending {
            Ending::Response(body) => (Kind::Response, 0, None, body.as_ref()),
            Ending::End => (Kind::End, 0, Some(chunks), &[][..]),
            Ending::Failed { failure, .. } => {
                let detail = (failure.detail != 0).then_some(failure.detail);
                (Kind::Error, failure.code.to_bits(), detail, failure.bounded_text().as_bytes())
            }
        };
        let pushed = self.responses.push(RecordClass::Bulk, kind, code, id, extension, bytes)?;
        Ok(if pushed { None } else { Some(ending) })
    }

    /// Sends the next part of the first large response.
    fn push_large(&mut self) -> Result<Progress, Violation> {
        let Some(backlog) = &mut self.backlog else { return Ok(Progress::Idle) };
        let Some(LargeResponse { id, body, sent }) = backlog.large.front_mut() else { return Ok(Progress::Idle) };
        let bytes = body.as_ref();
        let (whole, rest) = (bytes.len() as u64, &bytes[*sent..]);
        let part = self.terms.part();
        let pushed = if rest.len() > part {
            self.responses.push(RecordClass::Bulk, Kind::Fragment, 0, *id, Some(whole), &rest[..part])?
        } else {
            self.responses.push(RecordClass::Bulk, Kind::Response, 0, *id, None, rest)?
        };
        if !pushed {
            return Ok(Progress::NoRoom);
        }
        let now = rest.len().min(part);
        *sent += now;
        backlog.large_unsent -= now as u64;
        // The client copies this part while we copy the next.
        self.wake |= self.responses.publish();
        KillPoint::ServerPartSent.reached();
        if *sent as u64 == whole {
            backlog.large.pop_front();
        }
        Ok(Progress::More)
    }

    /// Sends one record of the stream whose turn it is.
    fn push_runnable(&mut self) -> Result<Progress, Violation> {
        let first = self.backlog.as_mut().and_then(|backlog| backlog.runnable.pop_front());
        let Some(id) = first else { return Ok(Progress::Idle) };
        match self.push_stream(id)? {
            Progress::NoRoom => {
                self.backlog().runnable.push_front(id);
                Ok(Progress::NoRoom)
            }
            Progress::More => {
                self.backlog().runnable.push_back(id);
                Ok(Progress::More)
            }
            // This one is done for now; others may not be.
            Progress::Idle => Ok(Progress::More),
        }
    }

    /// Sends one record of a stream.
    fn push_stream(&mut self, id: u64) -> Result<Progress, Violation> {
        let Some(backlog) = &mut self.backlog else { return Ok(Progress::Idle) };
        let Some(stream) = backlog.streams.get_mut(&id) else { return Ok(Progress::Idle) };
        if let Some(body) = stream.parked.front() {
            let bytes = body.as_ref();
            if stream.flow.available() {
                if !self.responses.push(RecordClass::Bulk, Kind::Chunk, 0, id, Some(stream.flow.number()), bytes)? {
                    return Ok(Progress::NoRoom);
                }
                stream.flow.sent(bytes.len());
                KillPoint::ServerChunkSent.reached();
                stream.parked.pop_front();
            }
        } else if let Some(ending) = stream.ending.take() {
            let chunks = stream.flow.number();
            if let Some(unsent) = self.push_ending(id, ending, chunks)? {
                if let Some(stream) = self.stream(id) {
                    stream.ending = Some(unsent);
                }
                return Ok(Progress::NoRoom);
            }
            KillPoint::ServerEndSent.reached();
            self.backlog().streams.remove(&id);
            return Ok(Progress::Idle);
        }
        if stream.can_send() {
            return Ok(Progress::More);
        }
        stream.listed = false;
        Ok(Progress::Idle)
    }

    /// Puts a stream on the list of those that can send, if it can and is not there yet.
    fn list(&mut self, id: u64) {
        let Some(backlog) = &mut self.backlog else { return };
        let Some(stream) = backlog.streams.get_mut(&id) else { return };
        if !stream.listed && stream.can_send() {
            stream.listed = true;
            backlog.runnable.push_back(id);
            self.special = true;
        }
    }

    /// See [`ServerConnection::tell_types`](super::ServerConnection::tell_types). A client that calls nothing reads nothing,
    /// and may have half of the ring unread before it is told no more.
    pub(super) fn tell_types(&mut self, entries: u64, change: &[u8]) -> Result<bool, Violation> {
        if self.is_stalled() {
            return Ok(false);
        }
        self.responses.look()?;
        if self.sent() - self.taken() > self.terms.geometry.capacity / 2 {
            return Ok(false);
        }
        self.responses.push(RecordClass::Bulk, Kind::Types, 0, 0, Some(entries), change)
    }

    /// Whether this stream is there: it goes when its end has been sent.
    pub(super) fn has_stream(&self, id: u64) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| backlog.streams.contains_key(&id))
    }

    /// How many streams there are.
    pub(super) fn streams(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.streams.len())
    }
}

#[cfg(test)]
mod tests;
