//! The consumer's side of a ring with a front and a back: where the next lap lies, and whether the ring starts over.

use bellrope_shm::sync::Ordering;

use super::{Consumer, Record};
use crate::{
    Violation,
    frame::{Header, Kind, RESTART},
    kill_points::KillPoint,
    layout::{ASLEEP, EMPTY, RECORDS},
};

impl Consumer {
    /// The header word of a record that lets the ring start over, without the flag that says so. Where there can be no
    /// such record, a word that is no header.
    #[inline(never)]
    pub(super) fn without_restart(&mut self, word: u64) -> u64 {
        if !self.geometry.compact || self.base != RECORDS || word & RESTART == 0 {
            return EMPTY;
        }
        self.restart = word;
        // So that `Self::advance` comes to `Self::restart_past`.
        self.published = self.position.wrapping_sub(self.geometry.capacity);
        self.publish_at = 0;
        word & !RESTART
    }

    /// Lets the ring start over behind the record at `before`, which has been read, if it may: unless the producer has
    /// withdrawn that. Exactly one of the two exchanges of that word succeeds.
    pub(super) fn restart_past(&mut self, before: u64) {
        let word = std::mem::replace(&mut self.restart, EMPTY);
        if word == EMPTY || self.base != RECORDS {
            return;
        }
        let at = self.base + (before & (self.geometry.capacity - 1)) as usize;
        // Releases the bytes we have read to the producer's acquire in `Producer::settle`.
        if self.view.compare_exchange(at, word, EMPTY, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.go_to((before | (self.geometry.capacity - 1)) + 1);
            KillPoint::PopRestarted.reached();
        }
    }

    /// Follows a pad that leads to the other part of the ring, and looks there.
    #[inline(never)]
    pub(super) fn turn(&mut self, word: u64, at: usize) -> Result<Option<Record>, Violation> {
        let in_front = self.base == RECORDS;
        let leads = if in_front { Header::pad() } else { Header::pad() | RESTART };
        if !self.geometry.compact || word != leads {
            return Err(self.violation(word, at));
        }
        let back = self.geometry.back_of(self.view.len());
        let (base, len) = if in_front { (back, self.geometry.capacity) } else { (RECORDS, self.geometry.window) };
        let next = self.lap_after();
        self.base = base;
        self.go_to(next);
        self.publish_at = 0;
        self.end = base as u64 + len;
        self.pad = if in_front { Header::pad() } else { Header::pad() | RESTART };
        self.window = if in_front { self.geometry.back_window() } else { len };
        let word = self.view.load(base, Ordering::Acquire);
        if word == EMPTY || word == ASLEEP {
            return Ok(None);
        }
        match self.record(word, base) {
            Some(record) if record.header.kind != Kind::Pad => Ok(Some(record)),
            _ => Err(self.violation(word, base)),
        }
    }
}
