//! Calls with metadata.

use super::{ClientConnection, SubmitError};
use crate::{Violation, frame::Kind, metadata::Metadata, ring::RecordClass, style::Style};

impl ClientConnection {
    /// Bytes of the largest request with these metadata that travels in one record.
    #[must_use]
    pub fn max_record_with(&self, metadata: Option<&Metadata>) -> usize {
        if self.told(metadata).is_some() { self.terms.max_described() } else { self.terms.max_record() }
    }

    /// As [`Self::submit`], with metadata if the server reads them.
    ///
    /// # Errors
    /// As there.
    pub fn submit_described(
        &mut self,
        message_type: u16,
        style: Style,
        metadata: &Metadata,
        payload: &[u8],
        deadline_us: Option<u64>,
    ) -> Result<u64, SubmitError> {
        let Some(metadata) = self.told(Some(metadata)) else {
            return self.submit(message_type, style, payload, deadline_us);
        };
        let limit = self.terms.max_described();
        if payload.len() > limit {
            return Err(SubmitError::TooLarge { size: payload.len(), limit });
        }
        self.check_slots()?;
        let id = self.calls.next_id();
        if !self.push_described(message_type, id, metadata, payload, deadline_us)? {
            return Err(SubmitError::Full);
        }
        self.calls.insert(id, self.requests.position(), style, self.terms.stream_window);
        Ok(id)
    }

    /// What of these metadata is to be sent.
    pub(super) fn told<'a>(&self, metadata: Option<&'a Metadata>) -> Option<&'a Metadata> {
        metadata.filter(|metadata| self.tells_metadata && !metadata.is_empty())
    }

    /// Writes a request with metadata. Answers `false` if there is no room.
    pub(super) fn push_described(
        &mut self,
        message_type: u16,
        id: u64,
        metadata: &Metadata,
        payload: &[u8],
        deadline_us: Option<u64>,
    ) -> Result<bool, Violation> {
        let size = metadata.size() + payload.len();
        let Some(mut draft) = self.requests.begin(RecordClass::Bulk, deadline_us.is_some(), size)? else {
            return Ok(false);
        };
        let fits = [&metadata.head()[..], metadata.entries(), payload].iter().all(|bytes| draft.append(bytes));
        debug_assert!(fits, "begin made room for it");
        draft.stage(Kind::Described, message_type, id, deadline_us.unwrap_or(0));
        Ok(true)
    }
}
