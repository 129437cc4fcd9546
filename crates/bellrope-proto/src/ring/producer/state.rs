//! What is known of a place in the ring, and of a ring with a front and a back.

use bellrope_shm::View;

use crate::layout::Geometry;

/// Where a record will go, and how far it may reach.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    /// Offset of the record.
    pub(super) offset: u64,
    /// Offset that nothing of the record and the header word after it may reach beyond.
    pub(super) end: u64,
    /// We would rather start over but do not know yet that we may.
    pub(super) would_wrap: bool,
}

/// For how many records a large one is remembered, and how exactly, in bytes.
pub(super) const MEMORY: u32 = 64;
const GRAIN: u64 = 128;

/// What the producer of a ring with a front and a back knows beyond others.
#[derive(Debug)]
pub(super) struct Compact {
    /// Where the back begins in the view, and bytes of the front.
    pub(super) back: usize,
    pub(super) front_len: u64,
    /// Where we stood when we left the back, if we did: it is free once the consumer is beyond that.
    pub(super) left_back: Option<u64>,
    /// The consumer is here at least, since it let the ring start over.
    pub(super) seen: u64,
    /// The lap that this one follows lies elsewhere, so that nothing before this position takes room from it.
    pub(super) apart: u64,
    /// The last record, if it lets the ring start over.
    pub(super) restarting: Option<Restarting>,
    /// Size of the largest of the last records, and how many came after it.
    pub(super) largest: u64,
    pub(super) since: u32,
    /// How many in a row were so small that they find room in the front without starting over.
    pub(super) small: u32,
    /// How often in a row the back was found empty.
    pub(super) calm: u32,
    /// The place that was found last.
    pub(super) place: Place,
}

/// A record whose header word lets the ring start over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Restarting {
    /// Where it lies in the view.
    pub(super) at: usize,
    /// Our position before it was written: one that was not staged left no trace.
    pub(super) before: u64,
}

impl Compact {
    pub(super) fn new(view: &View, geometry: &Geometry) -> Self {
        Self {
            back: geometry.back_of(view.len()),
            front_len: geometry.window,
            left_back: None,
            seen: 0,
            apart: 0,
            restarting: None,
            largest: 0,
            since: 0,
            small: 0,
            calm: 0,
            place: Place::default(),
        }
    }

    /// Notes the size of a record, rounded up, since the next one may be a little larger.
    pub(super) fn note(&mut self, size: u64) {
        let size = size.next_multiple_of(GRAIN);
        self.since += 1;
        if size >= self.largest || self.since > MEMORY {
            (self.largest, self.since) = (size, 0);
        }
    }
}
