//! Where the next record goes, by what is known of the consumer.

use bellrope_shm::sync::Ordering;

use super::{Producer, RecordClass, WRAPS, state::Place};
use crate::{
    Violation,
    frame::Header,
    kill_points::KillPoint,
    layout::{AWAITED, Geometry, WORD},
};

impl Producer {
    /// Finds the place of a record of `size` bytes, `head` of them before its payload, and notes up to where the next ones go
    /// right where we stand then. Answers `false` if there is no room now.
    #[inline(never)]
    pub(super) fn find(&mut self, class: RecordClass, size: u64, head: u64) -> Result<bool, Violation> {
        self.clear = 0;
        let spare = if class == RecordClass::Bulk { self.spare } else { 0 };
        let Some(Place { offset, end, would_wrap }) = self.place(size, spare)? else {
            return Ok(false);
        };
        self.draft.room = (end - spare - WORD - offset - head).min(self.max_payload.into()) as u32;
        self.draft.at = self.place_base + offset as usize;
        let lap_start = self.position & !(self.geometry.capacity - 1);
        let stand = self.base + (self.position - lap_start) as usize;
        let wraps = self.draft.at != stand;
        self.draft.flags = self.restart | if wraps { WRAPS } else { 0 };
        // Where every place is to be found with care, the next one is, too.
        if self.limit != 0 && self.restart == 0 && !wraps && end > self.spare + WORD {
            self.origin = self.base.wrapping_sub(lap_start as usize);
            self.reach = lap_start + end - self.spare - WORD;
            self.clear = match would_wrap {
                // Beyond the window it is worth a look now and then whether the start of the ring is free.
                true => self.reach.min(self.next_look),
                // It is not while the consumer is still in the lap before.
                false if self.behind < lap_start => self.reach,
                false => self.reach.min(lap_start + self.geometry.window - WORD),
            };
        }
        Ok(true)
    }

    /// Finds the place of a record of `size` bytes, with the header word after it and `spare` bytes to be left free.
    #[inline(always)]
    pub(super) fn place(&mut self, size: u64, spare: u64) -> Result<Option<Place>, Violation> {
        let need = size + WORD + spare;
        match self.fit(size, need) {
            Some(place) if !place.would_wrap || self.position < self.next_look => return Ok(Some(place)),
            _ => {}
        }
        if self.geometry.compact {
            // Not by its answer, which would make every place lie in memory.
            let found = self.place_with_care(size, need)?;
            return Ok(self.compact.as_ref().filter(|_| found).map(|compact| compact.place));
        }
        self.look()?;
        let place = self.fit(size, need);
        if place.is_some_and(|place| place.would_wrap) {
            self.next_look = self.position + self.geometry.window / 4;
        }
        Ok(place)
    }

    /// Finds a place in this lap, or at the start of the next one in the same part, by what we know of the consumer.
    #[inline(always)]
    pub(super) fn fit(&self, size: u64, need: u64) -> Option<Place> {
        let Geometry { capacity, window, .. } = self.geometry;
        let limit = self.limit;
        let offset = self.position & (capacity - 1);
        let consumer = self.behind & (capacity - 1);
        if self.behind < self.position - offset {
            // The consumer is still in the lap before: what it has not read begins at `consumer`.
            return (offset + need <= consumer).then_some(Place { offset, end: consumer, would_wrap: false });
        }
        let past_window = offset > 0 && offset + size + WORD > window;
        let fits_here = offset + need <= limit;
        if (past_window || !fits_here) && need <= consumer {
            return Some(Place { offset: 0, end: consumer, would_wrap: false });
        }
        fits_here.then_some(Place { offset, end: limit, would_wrap: past_window })
    }

    /// Checks a position that the consumer published, and keeps it.
    pub(super) fn accept(&mut self, found: u64) -> Result<(), Violation> {
        let position = found & !AWAITED;
        if !self.may_stand_at(position) {
            // It may have started over, of which we have not heard.
            self.settle()?;
            if !self.may_stand_at(position) {
                return Err(Violation::Position { found: position, from: self.consumer, to: self.position });
            }
        }
        self.consumer = position;
        self.note_behind();
        Ok(())
    }

    fn may_stand_at(&self, position: u64) -> bool {
        position >= self.consumer && position <= self.position && position % WORD == 0
    }

    /// Writes the header word of a record that begins the next lap, at `at`. Answers with the pad that leads there, and where
    /// that goes: the new lap becomes visible through it, and all at once.
    #[inline(never)]
    pub(super) fn wrap(&mut self, at: usize, word: u64) -> (usize, u64) {
        let stand = self.base + (self.position & (self.geometry.capacity - 1)) as usize;
        self.view.store(at, word, Ordering::Relaxed);
        KillPoint::PushWrapped.reached();
        (stand, self.start_lap(at))
    }

    /// Moves our position to the start of the next lap, where a record was written at `at`. Answers with the pad that leads
    /// there.
    fn start_lap(&mut self, at: usize) -> u64 {
        let stand = self.position;
        self.position = self.lap_after();
        if self.compact.is_some() { self.turn_to(at, stand) } else { Header::pad() }
    }

    /// The position at which the lap after ours begins.
    pub(super) fn lap_after(&self) -> u64 {
        (self.position | (self.geometry.capacity - 1)) + 1
    }
}
