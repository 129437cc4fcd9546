//! What both directions know of records among bytes.

use crate::{
    frame::{Header, Kind},
    layout::{RECORD_HEAD, WORD},
};

/// Bytes of a record before its payload, at most: one that has an extension.
pub(super) const LONGEST_HEAD: usize = (RECORD_HEAD + WORD) as usize;

/// What a record says before its payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) header: Header,
    pub(super) id: u64,
    pub(super) extension: Option<u64>,
}

impl Head {
    /// The head of the record with this header at the front of these bytes, if they have all of it.
    pub(super) fn of(header: Header, bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..head_size(header))?;
        let extension = header.extended.then(|| word(&bytes[RECORD_HEAD as usize..]));
        Some(Self { header, id: word(&bytes[WORD as usize..]), extension })
    }

    /// It as it travels, and how many of these bytes it has.
    pub(super) fn bytes(self) -> ([u8; LONGEST_HEAD], usize) {
        let mut bytes = [0; LONGEST_HEAD];
        let words = [self.header.encode(), self.id, self.extension.unwrap_or(0)];
        for (place, word) in bytes.chunks_exact_mut(WORD as usize).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        (bytes, self.size())
    }

    /// Bytes of it as it travels.
    pub(super) fn size(self) -> usize {
        head_size(self.header)
    }
}

/// Bytes of a record as it travels.
pub(super) fn size_of_record(header: Header) -> usize {
    head_size(header) + header.len as usize
}

/// Whether records of this kind may use the room that bulk leaves, as where their sender puts them into the ring.
pub(super) fn is_control(kind: Kind) -> bool {
    matches!(kind, Kind::Cancel | Kind::Credit | Kind::End)
}

fn head_size(header: Header) -> usize {
    RECORD_HEAD as usize + usize::from(header.extended) * WORD as usize
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("a head has all of its words"))
}
