//! The straight way to a small record: from its header word to a private copy of its payload, in a few values that fit the
//! processor's registers. Whatever is not as nearly all records are goes the [other way](Consumer::peek).

use bellrope_shm::sync::Ordering;

use super::Consumer;
use crate::{
    frame::{EXTENDED, Kind, RESTART, record_size},
    kill_points::KillPoint,
    layout::{ASLEEP, EMPTY, WORD},
    ring::Wake,
};

/// What one look at the front of a ring saw: a header word, unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Front {
    word: u64,
    /// Where it lies in the view.
    at: usize,
}

impl Front {
    /// Whether there is no record.
    #[inline(always)]
    #[must_use]
    pub fn is_nothing(self) -> bool {
        self.word == EMPTY || self.word == ASLEEP
    }

    /// Whether there is a record that lets the ring start over, as far as its flag says.
    #[inline(always)]
    #[must_use]
    pub fn starts_over(self) -> bool {
        self.word & RESTART != 0 && self.word != ASLEEP
    }
}

/// A record at the front of a ring that is of the kind that was looked for, and as it must be. Its payload still lies in
/// shared memory and may change at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainRecord {
    /// The call it belongs to.
    pub id: u64,
    /// The extension word; 0 if there is none.
    pub extension: u64,
    /// Message type of a request.
    pub message_type: u16,
    /// Payload bytes.
    pub len: usize,
    /// Where the payload lies in the view.
    payload: usize,
    /// The position right behind the record.
    end: u64,
}

impl Consumer {
    /// What a look at a record saw that lets the ring start over behind it, without the flag that says so: it goes the straight
    /// way as others do, and [`Self::take`] starts over. `None`: it saw something else.
    #[inline(never)]
    pub fn starting_over(&mut self, Front { word, at }: Front) -> Option<Front> {
        let word = self.without_restart(word);
        (word != EMPTY).then_some(Front { word, at })
    }

    /// Looks at the front, once.
    #[inline(always)]
    pub fn front(&mut self) -> Front {
        let (word, at) = self.look();
        Front { word, at }
    }

    /// The record that a look saw, if it is of this kind, has no flag but that it is `extended`, if so, and is as it must be.
    /// To whatever else is there, [`Self::peek`] has an answer. Each of the two is code of its own: what an extension takes
    /// is nothing to a record without one.
    #[inline(always)]
    pub fn plain(&mut self, Front { word, at }: Front, kind: Kind, extended: bool) -> Option<PlainRecord> {
        if word >> 48 != kind as u64 | if extended { EXTENDED >> 48 } else { 0 } {
            return None;
        }
        self.fetch_ahead(at);
        let len = word as u32;
        if len > self.max_payload {
            return None;
        }
        // In 32 bits, now that it is bounded: a mask of 64 costs an instruction of its own.
        let size = record_size(0, extended) + u64::from((len + 7) & !7);
        if at as u64 + size + WORD > self.end {
            return None;
        }
        let id = self.view.load(at + 8, Ordering::Relaxed);
        let extension = if extended { self.view.load(at + 16, Ordering::Relaxed) } else { 0 };
        KillPoint::PopSeen.reached();
        Some(PlainRecord {
            id,
            extension,
            message_type: (word >> 32) as u16,
            len: len as usize,
            payload: at + record_size(0, extended) as usize,
            end: self.position + size,
        })
    }

    /// Copies the payload of the record at the front out of shared memory, and moves on past it, as [`Self::advance`] does.
    ///
    /// # Panics
    /// If `into` is not exactly as long as the payload.
    #[inline(always)]
    pub fn take(&mut self, record: &PlainRecord, into: &mut [u8]) -> Wake {
        assert!(into.len() == record.len, "a record is taken whole");
        self.view.read(record.payload, into);
        KillPoint::PopRead.reached();
        self.advance_to(record.end)
    }
}
