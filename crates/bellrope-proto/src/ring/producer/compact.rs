//! The producer's side of a ring with a front and a back: where a lap begins, and when the next record may take the
//! place of the last one.

use bellrope_shm::sync::Ordering;

use super::{
    Producer,
    state::{Compact, MEMORY, Place, Restarting},
};
use crate::{
    Violation,
    frame::{Header, RESTART},
    kill_points::KillPoint,
    layout::{ASLEEP, EMPTY, RECORDS},
};

/// How often in a row the back must be found empty before its producer returns to the front: one that sends in bursts
/// stays in the back, where a burst has room.
const CALM: u32 = 4;

impl Producer {
    /// Finds the place of a record where all has to be thought of: the last record may let the ring start over, this one may
    /// do so, and the lap may have to go on elsewhere. It is left in [`Compact::place`], if there is one.
    #[inline(never)]
    pub(super) fn place_with_care(&mut self, size: u64, need: u64) -> Result<bool, Violation> {
        let (view, geometry) = (&self.view, &self.geometry);
        self.compact.get_or_insert_with(|| Box::new(Compact::new(view, geometry)));
        let place = self.find_with_care(size, need)?;
        if let (Some(place), Some(compact)) = (place, &mut self.compact) {
            compact.place = place;
        }
        Ok(place.is_some())
    }

    fn find_with_care(&mut self, size: u64, need: u64) -> Result<Option<Place>, Violation> {
        self.settle()?;
        (self.place_base, self.restart) = (self.base, 0);
        // A lap elsewhere that was not begun left nothing but this.
        self.note_behind();
        let in_front = self.base == RECORDS;
        let Some(compact) = &mut self.compact else { return Ok(None) };
        compact.note(size);
        self.limit = if in_front { compact.front_len } else { self.geometry.capacity };
        let mut place = self.fit(size, need);
        if !in_front || place.is_none() {
            self.look()?;
            place = self.fit(size, need);
        }
        if in_front {
            return self.place_from_front(place, size, need);
        }
        Ok(self.place_from_back(place, size, need))
    }

    /// From a lap in the front: stay there, or go on in the back.
    fn place_from_front(&mut self, place: Option<Place>, size: u64, need: u64) -> Result<Option<Place>, Violation> {
        let capacity = self.geometry.capacity;
        let lap_start = self.position & !(capacity - 1);
        let Some(compact) = &mut self.compact else { return Ok(None) };
        let Some(place) = place else {
            if compact.left_back.is_some_and(|left| self.consumer.max(compact.seen) <= left) {
                return Ok(None);
            }
            self.place_base = compact.back;
            // Until that lap is begun nothing fits, and it is begun with its record.
            (self.limit, self.behind) = (0, lap_start);
            return Ok(Some(Place { offset: 0, end: capacity, would_wrap: false }));
        };
        // Room for a record as large as any of late.
        let reserve = compact.largest + need - size;
        if 2 * reserve <= compact.front_len {
            // They find room by themselves. When enough were such, the next ones need no care.
            compact.small += 1;
            if compact.small < MEMORY {
                self.limit = 0;
            }
            return Ok(Some(place));
        }
        compact.small = 0;
        self.limit = 0;
        let end = place.offset + size;
        if place.offset > 0 {
            if end + reserve <= compact.front_len || reserve <= end {
                return Ok(Some(place));
            }
            // The word at the start has to be emptied first, which is ours to do once the consumer is past it.
            if self.behind <= lap_start {
                self.look()?;
            }
            if self.behind <= lap_start {
                return Ok(Some(place));
            }
            self.view.store(self.base, EMPTY, Ordering::Relaxed);
        }
        let at = self.base + place.offset as usize;
        let wraps = self.position - lap_start != place.offset;
        // Until that is settled nothing fits: say less of the consumer than we know.
        self.behind = if wraps { self.lap_after() } else { lap_start };
        if let Some(compact) = &mut self.compact {
            compact.restarting = Some(Restarting { at, before: self.position });
        }
        self.restart = RESTART;
        Ok(Some(place))
    }

    /// From a lap in the back: stay there, or return to the front if bursts are over.
    fn place_from_back(&mut self, place: Option<Place>, size: u64, need: u64) -> Option<Place> {
        // A consumer that keeps up says where it is every quarter of the window. Once it is in this lap the front is free.
        let lap_start = self.position & !(self.geometry.capacity - 1);
        let keeps_up = self.behind > lap_start && self.position - self.behind <= self.geometry.window / 4 + size;
        let compact = self.compact.as_mut()?;
        if !keeps_up || self.staged != EMPTY || need > compact.front_len {
            compact.calm = 0;
        } else {
            compact.calm += 1;
            if compact.calm >= CALM {
                compact.calm = 0;
                let end = compact.front_len;
                if 2 * (compact.largest + need - size) > end {
                    compact.restarting = Some(Restarting { at: RECORDS, before: self.position });
                    self.restart = RESTART;
                }
                self.place_base = RECORDS;
                (self.limit, self.behind) = (0, lap_start);
                return Some(Place { offset: 0, end, would_wrap: false });
            }
        }
        if place.is_some_and(|place| place.would_wrap) {
            self.next_look = self.position + self.geometry.window / 4;
        }
        place
    }

    /// Finds out whether the ring starts over with the record after the last one, if that one lets it. If the consumer has
    /// not decided, the offer is withdrawn: what comes next lies behind it.
    pub(super) fn settle(&mut self) -> Result<(), Violation> {
        let Some(Restarting { at, before }) = self.compact.as_mut().and_then(|it| it.restarting.take()) else {
            return Ok(());
        };
        self.note_behind();
        if self.position == before {
            // It was never staged.
            return Ok(());
        }
        if self.staged != EMPTY && self.staged_at == at {
            self.staged &= !RESTART;
            return Ok(());
        }
        // Pairs with the release in `Consumer::restart_past`: the payload has been read, and the place is ours again.
        let word = self.view.load(at, Ordering::Acquire);
        let found = if word == EMPTY || word == ASLEEP {
            word
        } else {
            let kept = word & !RESTART;
            match self.view.compare_exchange(at, word, kept, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    KillPoint::PushWithdrawn.reached();
                    return if kept == word { Err(Violation::Header(word)) } else { Ok(()) };
                }
                Err(found) => found,
            }
        };
        if found != EMPTY && found != ASLEEP {
            return Err(Violation::Header(found));
        }
        self.position = self.lap_after();
        if let Some(compact) = &mut self.compact {
            compact.seen = self.position;
        }
        self.behind = self.position;
        Ok(())
    }

    /// Notes what counts of the consumer's position for room in this lap: nothing while the last record may let the ring
    /// start over, or a place elsewhere was found and may not have been taken.
    pub(super) fn note_behind(&mut self) {
        match &self.compact {
            None => self.behind = self.consumer,
            Some(it) if it.restarting.is_none() && self.place_base == self.base => {
                self.behind = self.consumer.max(it.seen).max(it.apart);
            }
            Some(_) => {}
        }
    }

    /// Begins the lap at our position, in the front or in the back, where a record was written at `base`; the last one ended at
    /// `stand`. Answers with the pad that leads there.
    pub(super) fn turn_to(&mut self, base: usize, stand: u64) -> u64 {
        // The first record of a lap lies at its start.
        let to_front = base == RECORDS;
        if base != self.base {
            if let Some(compact) = &mut self.compact {
                compact.apart = self.position;
                if to_front {
                    compact.left_back = Some(stand);
                }
                let len = if to_front { compact.front_len } else { self.geometry.capacity };
                self.limit = if compact.restarting.is_some() { 0 } else { len };
                self.geometry.window = if to_front { len } else { self.geometry.back_window() };
                self.base = base;
            }
            self.behind = self.position;
        }
        Header::pad() | if to_front { RESTART } else { 0 }
    }
}
