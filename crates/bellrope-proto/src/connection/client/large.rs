//! Requests that are too large for a record: how they are sent in parts.

use super::{ClientConnection, Sending, SubmitError};
use crate::{
    Violation, frame::Kind, kill_points::KillPoint, metadata::Metadata, ring::RecordClass, style::Style, terms::PART,
};

impl ClientConnection {
    /// Begins a call whose request of `size` bytes may be too large for a record. It is to be sent with
    /// [`Self::push_large`], or given up with [`Self::cancel`]; meanwhile there can be no other.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was begun then.
    pub fn begin_large(&mut self, style: Style, size: usize) -> Result<Sending, SubmitError> {
        if size > self.max_message() {
            return Err(SubmitError::TooLarge { size, limit: self.max_message() });
        }
        if self.sending.is_some() {
            return Err(SubmitError::Full);
        }
        self.check_slots()?;
        let id = self.calls.next_id();
        self.calls.insert(id, u64::MAX, style, self.terms.stream_window);
        self.sending = Some(id);
        Ok(Sending { id, sent: 0 })
    }

    /// Sends and commits as many further parts of a large request as there is room for, or fewer if the server must be
    /// woken first. Answers whether that was all; it is, too, when the call has ended meanwhile, because the server
    /// refused it.
    ///
    /// # Errors
    /// The server's [`Violation`]; the connection must be closed.
    pub fn push_large(
        &mut self,
        sending: &mut Sending,
        message_type: u16,
        payload: &[u8],
        deadline_us: Option<u64>,
    ) -> Result<bool, Violation> {
        self.push_large_described(sending, message_type, None, payload, deadline_us)
    }

    /// As [`Self::push_large`], with metadata if the server reads them. They are to be the same for all parts.
    ///
    /// # Errors
    /// As there.
    pub fn push_large_described(
        &mut self,
        sending: &mut Sending,
        message_type: u16,
        metadata: Option<&Metadata>,
        payload: &[u8],
        deadline_us: Option<u64>,
    ) -> Result<bool, Violation> {
        let id = sending.id;
        if self.calls.find(id).is_none() {
            // The server is to know that no more of it comes.
            self.give_up(id, None)?;
            return Ok(true);
        }
        // The cancel of the large request before this one has to arrive first, or the server sees two at a time.
        self.flush()?;
        if !self.waiting.is_empty() {
            return Ok(false);
        }
        let metadata = self.told(metadata);
        let part = if metadata.is_some() { self.terms.max_described().min(PART) } else { self.terms.part() };
        loop {
            let rest = &payload[sending.sent..];
            if rest.len() <= part {
                let pushed = match metadata {
                    Some(metadata) => self.push_described(message_type, id, metadata, rest, deadline_us)?,
                    None => {
                        self.requests.push(RecordClass::Bulk, Kind::Request, message_type, id, deadline_us, rest)?
                    }
                };
                if pushed {
                    self.sending = None;
                    self.calls.sent(id, self.requests.position());
                }
                return Ok(pushed);
            }
            let whole = Some(payload.len() as u64);
            if !self.requests.push(RecordClass::Bulk, Kind::Fragment, 0, id, whole, &rest[..part])? {
                return Ok(false);
            }
            sending.sent += part;
            // The server copies this part while we copy the next. If it sleeps, it is to be woken now.
            self.wake |= self.requests.publish();
            KillPoint::ClientPartSent.reached();
            if self.wake.needed() {
                return Ok(false);
            }
        }
    }
}
