//! Where everything lies in the memory that two processes share, and nothing else.
//!
//! ```text
//! mapping of one connection
//! +--------------------------------+--------------------------------+
//! | segment 0: requests            | segment 1: responses           |   each segment is whole pages
//! | (client -> server)             | (server -> client)             |
//! +--------------------------------+--------------------------------+
//!
//! segment
//! 0x000  consumer's position (u64; bit 63: the producer waits for room)   written by the consumer, tagged by the producer
//! 0x080  admitted position (u64)                                          written by the consumer before it dispatches
//! 0x100  records, up to the capacity; the first window ends with the first page
//!
//! record (8-byte aligned)
//! +0     header (u64): payload length [0..32), message type [32..48), kind [48..56), flags [56..64)
//!        0 = nothing here yet, all ones = the consumer sleeps on this word
//! +8     call id (u64)
//! +16    extension (u64), if the header's flag says so
//! +16/24 payload, then up to 7 bytes to the next record
//! ```
//!
//! A *position* counts bytes since the ring was made; its remainder by the capacity is an offset into the records. A
//! producer that wraps moves its position on to the next multiple of the capacity (the next *lap*).
//!
//! ```text
//! compact mapping: the beginnings of both segments share the first page
//! 0x0000  head of requests | 0x0100  front of requests, 1,792 bytes
//! 0x0800  head of responses | 0x0900  front of responses, 1,792 bytes
//! 0x1000  back of requests, capacity bytes
//! ...     back of responses, capacity bytes
//! ```
//!
//! There each lap lies either in the front or in the back. The word that ends a lap says where the next one lies.

use std::ops::Range;

/// Bytes in a shared word.
pub const WORD: u64 = 8;
/// Bytes of a cache line. Nothing depends on it but speed.
pub const LINE: u64 = 64;
/// Offset of the consumer's position in a segment.
pub const CONSUMER_POSITION: usize = 0x000;
/// Offset of the admitted word in a segment.
pub const ADMITTED: usize = 0x080;
/// Offset of the first record in a segment.
pub const RECORDS: usize = 0x100;
/// Bytes before a record's extension or payload: header and call id.
pub const RECORD_HEAD: u64 = 16;
/// What segments are aligned to. A page on every machine we know of is a multiple or this itself.
pub const PAGE: usize = 4096;

/// Smallest and largest capacity that a handshake may name.
pub const CAPACITIES: std::ops::RangeInclusive<u32> = 4096..=16 * 1024 * 1024;
/// Capacity of a ring unless configured otherwise. Address space only: pages are backed when first touched.
pub const DEFAULT_CAPACITY: u32 = 256 * 1024;

/// Bytes that the largest message of a connection may have, whole. One that is too large for a record travels in parts.
pub const MESSAGE_LIMITS: std::ops::RangeInclusive<u32> = 1..=1024 * 1024 * 1024;
/// Bytes of the largest message unless configured otherwise.
pub const DEFAULT_MAX_MESSAGE: u32 = 10 * 1024 * 1024;

/// The position word's tag: the producer waits until the consumer moves on.
pub const AWAITED: u64 = 1 << 63;
/// The header word of a record that is not there yet.
pub const EMPTY: u64 = 0;
/// The header word that a consumer leaves before it sleeps.
pub const ASLEEP: u64 = u64::MAX;
/// Bytes of the front of a compact ring: two heads and two fronts fill a page.
pub const FRONT: u64 = (PAGE / 2 - RECORDS) as u64;

/// Size of a ring's record space and of its first window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of record space, a power of two.
    pub capacity: u64,
    /// A producer past this offset starts over as soon as the start of the ring is free. Of a compact ring: the bytes of
    /// its front.
    pub window: u64,
    /// Whether the ring has a front, which shares a page with that of the other direction, and a back.
    pub compact: bool,
}

impl Geometry {
    /// A ring of `capacity` bytes whose first window ends with its first page. `None` unless the capacity is a power of
    /// two within [`CAPACITIES`].
    #[must_use]
    pub fn new(capacity: u32) -> Option<Self> {
        let valid = capacity.is_power_of_two() && CAPACITIES.contains(&capacity);
        valid.then_some(Self { capacity: u64::from(capacity), window: (PAGE - RECORDS) as u64, compact: false })
    }

    /// The same ring with a front and a back.
    #[must_use]
    pub fn into_compact(self) -> Self {
        Self { window: FRONT, compact: true, ..self }
    }

    /// Bytes of one segment that is not compact, or from the head to the end of the back of one that is.
    #[must_use]
    pub fn segment_len(&self) -> usize {
        let capacity = usize::try_from(self.capacity).expect("capacities are far below 4 GiB");
        if self.compact { PAGE + capacity } else { (RECORDS + capacity).next_multiple_of(PAGE) }
    }

    /// Bytes of the mapping of one connection.
    #[must_use]
    pub fn mapping_len(&self) -> usize {
        2 * self.segment_len() - if self.compact { PAGE } else { 0 }
    }

    /// Where the requests lie in a mapping. A compact ring's range begins with its head and ends with its back; what
    /// lies in between is also the other direction's.
    #[must_use]
    pub fn requests(&self) -> Range<usize> {
        0..self.segment_len()
    }

    /// Where the responses lie in a mapping. As with [`Self::requests`].
    #[must_use]
    pub fn responses(&self) -> Range<usize> {
        let start = if self.compact { PAGE / 2 } else { self.segment_len() };
        start..self.mapping_len()
    }

    /// Where the back of a compact ring begins in a view of so many bytes, which ends with it.
    ///
    /// # Panics
    /// If the view is too small for a front before it.
    pub(crate) fn back_of(&self, view_len: usize) -> usize {
        let back = view_len - self.capacity as usize;
        assert!(back >= RECORDS + self.window as usize, "front and back must fit the view");
        back
    }

    /// What stands for the window in the back of a compact ring.
    pub(crate) fn back_window(&self) -> u64 {
        self.window.max(PAGE as u64).min(self.capacity)
    }

    /// Largest payload of one record: a quarter of the ring, so that an empty ring can always take it, wherever the
    /// producer stands, and a few of them can be on their way at once.
    #[must_use]
    pub fn max_payload(&self) -> u64 {
        self.capacity / 4
    }
}

const _: () = {
    assert!(CONSUMER_POSITION.abs_diff(ADMITTED) >= 128, "words of different use must not share a pair of lines");
    assert!(ADMITTED.abs_diff(RECORDS) >= 128);
    assert!(RECORDS < PAGE && RECORDS % 64 == 0);
    assert!(DEFAULT_CAPACITY.is_power_of_two());
};
