//! A record that is being written: its payload, and then the words that make a record of it.

use bellrope_shm::sync::Ordering;

use super::{Outline, Producer};
use crate::{
    frame::{EXTENDED, Header, Kind, record_size},
    layout::EMPTY,
};

/// A record that is being written.
#[derive(Debug)]
pub struct Draft<'a> {
    pub(super) producer: &'a mut Producer,
}

impl Draft<'_> {
    /// Appends payload. Answers `false`, and leaves the draft as it was, if it does not fit.
    #[inline(always)]
    #[must_use]
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let Outline { len, room, .. } = self.producer.draft;
        if bytes.len() > (room - len) as usize {
            return false;
        }
        self.producer.write_payload(self.producer.draft.payload() + len as usize, bytes, len == 0);
        self.producer.draft.len = len + bytes.len() as u32;
        true
    }

    /// Payload bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.producer.draft.len as usize
    }

    /// Whether no payload has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads back what was written. The peer may have changed it meanwhile; it is good for nobody but that peer.
    pub fn read_back(&self, into: &mut [u8]) {
        self.producer.view.read(self.producer.draft.payload(), into);
    }

    /// Completes the record; it becomes visible with the next [`Producer::publish`]. `extension` is ignored if the draft
    /// was begun without one.
    #[inline(always)]
    pub fn stage(self, kind: Kind, message_type: u16, id: u64, extension: u64) {
        let producer = self.producer;
        let Outline { at, wraps, flags, len, emptied, .. } = producer.draft;
        let extended = flags & EXTENDED != 0;
        let word = Header { len, message_type, kind, extended: false }.encode() | flags;

        let size = record_size(len.into(), extended);
        if size != emptied.into() {
            producer.view.store(at + size as usize, EMPTY, Ordering::Relaxed);
        }
        producer.describe(at, id, extended.then_some(extension));
        let (at, word) = if wraps { producer.wrap(at, word) } else { (at, word) };
        producer.stage_word(at, word, size);
    }
}
