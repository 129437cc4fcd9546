//! The straight way to an answer that is like nearly all others.

use super::ClientConnection;
use crate::{frame::Kind, kill_points::KillPoint, ring::PlainRecord};

impl ClientConnection {
    /// Takes the answer at the front, as [`Self::take`] does, if that is the response to a unary call, in one piece, and somebody
    /// waits for it, as is nearly always so. `buffer` is asked for as many bytes as it has; returns whose it is. To whatever
    /// else is there, [`Self::next_answer`] has an answer.
    ///
    /// # Panics
    /// If `buffer` gives another number of bytes.
    #[inline(always)]
    pub fn take_response<'b>(&mut self, buffer: impl FnOnce(usize) -> &'b mut [u8]) -> Option<u64> {
        if self.receiving.is_some() {
            return None;
        }
        let front = self.responses.front();
        let record = self.responses.plain(front, Kind::Response, false)?;
        self.take_plain(&record, buffer)
    }

    /// As [`Self::take_response`], of a response that lets the ring start over behind it.
    #[inline(always)]
    pub fn take_long_response<'b>(&mut self, buffer: impl FnOnce(usize) -> &'b mut [u8]) -> Option<u64> {
        let front = self.responses.front();
        if self.receiving.is_some() || !front.starts_over() {
            return None;
        }
        let front = self.responses.starting_over(front)?;
        let record = self.responses.plain(front, Kind::Response, false)?;
        self.take_plain(&record, buffer)
    }

    #[inline(always)]
    fn take_plain<'b>(&mut self, record: &PlainRecord, buffer: impl FnOnce(usize) -> &'b mut [u8]) -> Option<u64> {
        let slot = self.calls.unary(record.id)?;
        self.wake |= self.responses.take(record, buffer(record.len));
        slot.release();
        KillPoint::ClientAnswerTaken.reached();
        Some(record.id)
    }
}
