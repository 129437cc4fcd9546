mod compact;
pub(super) mod plain;

use bellrope_shm::{View, sync::Ordering};

use super::wake::Wake;
use crate::{
    Violation,
    frame::{Header, Kind, RESTART, RawHeader, record_size},
    kill_points::KillPoint,
    layout::{ADMITTED, ASLEEP, AWAITED, CONSUMER_POSITION, EMPTY, Geometry, LINE, RECORDS, WORD},
};

/// How far ahead of a record that is one of many the next ones are fetched, in bytes: what one small record is worked
/// on takes about as long as a line takes from the other side's cache.
const AHEAD: usize = 5 * LINE as usize;

/// The reading end of a ring.
///
/// What every record needs comes first, in the lines that a small one touches.
#[derive(Debug)]
#[repr(C)]
pub struct Consumer {
    view: View,
    /// Where the next record is. Ours alone.
    position: u64,
    /// Where the position 0 would lie in the view if our lap went back as far as that.
    origin: usize,
    /// Before this position it is too early to publish ours.
    publish_at: u64,
    /// Where the lap that we read in ends in the view.
    end: u64,
    /// The pad that leads to the next lap beside this one.
    pad: u64,
    /// Bytes of the largest payload of a record.
    max_payload: u32,
    /// Whether the last look found a record: then there are likely more.
    burst: bool,
    geometry: Geometry,
    /// Where the lap that we read in begins in the view.
    base: usize,
    /// What counts as the window in the part of the ring that the lap lies in.
    window: u64,
    /// The position that the producer can see, or one so far back that the next record is published for sure.
    published: u64,
    /// In a ring with a front and a back: the header word of the last record that was seen to let the ring start over, until
    /// we are past it.
    restart: u64,
}

/// A record at the front of the ring. Its header, id and extension are private copies; its payload still lies in shared
/// memory and may change at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The checked header.
    pub header: Header,
    /// The call it belongs to.
    pub id: u64,
    /// The extension word, 0 if there is none.
    pub extension: u64,
    /// Position of the record, and the one right behind it.
    position: u64,
    end: u64,
}

impl Record {
    /// The position right behind the record.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }
}

/// What [`Consumer::arm`] achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Armed {
    /// The producer's next commit will ask for a wake-up: it is safe to sleep.
    Asleep,
    /// A record came in: do not sleep.
    Ready,
}

impl Consumer {
    /// The reading end of the ring in `view`, which must be fresh (zeroed).
    ///
    /// # Panics
    /// If the view is smaller than the geometry says.
    #[must_use]
    pub fn new(view: View, geometry: Geometry) -> Self {
        assert!(view.len() as u64 >= RECORDS as u64 + geometry.capacity);
        let (base, end) =
            (RECORDS, RECORDS as u64 + if geometry.compact { geometry.window } else { geometry.capacity });
        let window = geometry.window;
        let max_payload = u32::try_from(geometry.max_payload()).expect("a record is far below 4 GiB");
        let pad = Header::pad() | if geometry.compact { RESTART } else { 0 };
        Self {
            view,
            position: 0,
            origin: base,
            publish_at: 0,
            end,
            pad,
            max_payload,
            burst: false,
            geometry,
            base,
            window,
            published: 0,
            restart: EMPTY,
        }
    }

    /// Our position: the end of the last record that was read.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The record at the front, if there is one. It stays there until [`Self::advance`].
    ///
    /// # Errors
    /// A [`Violation`] if what is there cannot be a record.
    #[inline(always)]
    pub fn peek(&mut self) -> Result<Option<Record>, Violation> {
        let (word, at) = self.look();
        if word == EMPTY || word == ASLEEP {
            self.burst = false;
            return Ok(None);
        }
        match self.record(word, at) {
            Some(record) if record.header.kind != Kind::Pad => Ok(Some(record)),
            _ => self.turn(word, at),
        }
    }

    /// The record at the front, if it is of this kind and as it must be. To whatever else is there,
    /// [`Self::peek`] has an answer.
    #[inline(always)]
    pub fn peek_for(&mut self, kind: Kind) -> Option<Record> {
        let (word, at) = self.look();
        if word >> 48 == kind as u64 {
            // No flag is set, so this is a header word of that kind as it must be.
            let header = Header { len: word as u32, message_type: (word >> 32) as u16, kind, extended: false };
            self.fetch_ahead(at);
            return self.bounded(header, at);
        }
        if (word >> 48) as u8 == kind as u8 { self.record(word, at) } else { None }
    }

    /// Where nothing is at the front, as [`Self::peek`] would say, does what [`Self::relieve`] does.
    #[inline(always)]
    pub fn relieve_if_drained(&mut self) -> Option<Wake> {
        let word = self.view.load(self.at(0), Ordering::Relaxed);
        if word != EMPTY && word != ASLEEP {
            return None;
        }
        Some(self.note_drained())
    }

    /// A look found nothing: does what [`Self::relieve`] does.
    #[inline(always)]
    pub(crate) fn note_drained(&mut self) -> Wake {
        self.burst = false;
        self.relieve()
    }

    /// The header word at the front, where a pad has been stepped over, and where it lies in the view.
    #[inline(always)]
    fn look(&mut self) -> (u64, usize) {
        let at = self.at(0);
        // Pairs with the releasing swap in `Producer::publish`.
        let word = self.view.load(at, Ordering::Acquire);
        if word == self.pad { self.start_lap(word, at) } else { (word, at) }
    }

    /// As [`Self::look`] where a pad stands, which leads nowhere at the start of a lap.
    #[cold]
    #[inline(never)]
    fn start_lap(&mut self, word: u64, at: usize) -> (u64, usize) {
        if at == self.base {
            return (word, at);
        }
        self.go_to(self.lap_after());
        // Less of the new lap is in use than of the last: when the position is due is to be told anew.
        self.publish_at = 0;
        (self.view.load(self.base, Ordering::Acquire), self.base)
    }

    /// Whether [`Self::peek`] would find something: the cheapest look there is.
    #[inline(always)]
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let word = self.view.load(self.at(0), Ordering::Relaxed);
        if word == EMPTY || word == ASLEEP {
            // The producer writes the header's line last, so the line after it can already be on its way to us.
            self.view.prefetch(self.at(LINE));
            return false;
        }
        true
    }

    /// Fetches what [`Self::peek`] will look at. A hint: nothing else happens.
    #[inline(always)]
    pub fn prefetch(&self) {
        self.view.prefetch(self.at(0));
        self.view.prefetch(self.at(LINE));
    }

    /// Copies the payload of the record at the front out of shared memory, from byte `offset` of it on.
    ///
    /// # Panics
    /// If `into` asks for bytes beyond the payload.
    #[inline(always)]
    pub fn read(&self, record: &Record, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= record.header.len as usize, "only the payload is to be read");
        self.view.read(self.at(record_size(0, record.header.extended)) + offset, into);
        KillPoint::PopRead.reached();
    }

    /// Moves on past the record at the front. The producer learns of it lazily: every quarter of the window in use.
    #[inline(always)]
    pub fn advance(&mut self, record: &Record) -> Wake {
        debug_assert_eq!(record.position, self.position);
        self.advance_to(record.end())
    }

    #[inline(always)]
    fn advance_to(&mut self, end: u64) -> Wake {
        let before = self.position;
        self.position = end;
        KillPoint::PopAdvanced.reached();
        if self.position < self.publish_at { Wake::NO } else { self.publish_past(before) }
    }

    /// Looks past the record at the front, which stays: [`Self::step_back`] returns to it.
    pub(crate) fn step(&mut self, record: &Record) {
        self.position = record.end();
    }

    /// Returns to where we stood before we [stepped](Self::step) past records. The producer has learned nothing of it.
    pub(crate) fn step_back(&mut self, position: u64) {
        debug_assert!((self.published..=self.position).contains(&position));
        self.go_to(position);
    }

    /// Notes that everything before our position has been taken for good, before it is acted upon. The producer's side
    /// reads it only after this side has died.
    #[inline(always)]
    pub fn admit(&self) {
        self.view.store(ADMITTED, self.position, Ordering::Release);
        KillPoint::Admitted.reached();
    }

    /// To be called when there is nothing to read: publishes our position if the producer waits for it.
    #[inline(always)]
    pub fn relieve(&mut self) -> Wake {
        if self.position != self.published && self.view.load(CONSUMER_POSITION, Ordering::Relaxed) & AWAITED != 0 {
            return self.publish();
        }
        Wake::NO
    }

    /// Prepares to sleep: publishes our position and leaves the sleep tag in the header word that comes next.
    pub fn arm(&mut self) -> (Armed, Wake) {
        let wake = if self.position == self.published { self.relieve() } else { self.publish() };
        // Failing is an acquire-load like the one in `peek`.
        let exchange = self.view.compare_exchange(self.at(0), EMPTY, ASLEEP, Ordering::AcqRel, Ordering::Acquire);
        KillPoint::SleepArmed.reached();
        match exchange {
            Ok(_) | Err(ASLEEP) => (Armed::Asleep, wake),
            Err(_) => (Armed::Ready, wake),
        }
    }

    /// Takes the sleep tag back, so that the producer need not ring while we look for ourselves.
    pub fn disarm(&self) {
        // If it fails, a record came in and the tag is gone already.
        let _ = self.view.compare_exchange(self.at(0), ASLEEP, EMPTY, Ordering::AcqRel, Ordering::Relaxed);
        KillPoint::SleepDisarmed.reached();
    }

    /// Takes the ring out of this process's resident set until it is next used.
    #[cfg(not(loom))]
    pub fn release_pages(&self) {
        self.view.release_pages();
    }

    /// Publishes our position, which is right behind the record at `before`, unless that lets the ring start over, or it is
    /// too early for that.
    #[inline(never)]
    fn publish_past(&mut self, before: u64) -> Wake {
        let in_use = self.window.max(self.position & (self.geometry.capacity - 1));
        if self.position.wrapping_sub(self.published) < in_use / 4 {
            // Within a lap the use grows with the position, so it is not due before this.
            self.publish_at = self.published + in_use / 4;
            return Wake::NO;
        }
        if self.geometry.compact {
            self.restart_past(before);
        }
        self.publish()
    }

    /// The position at which the lap after ours begins.
    fn lap_after(&self) -> u64 {
        (self.position | (self.geometry.capacity - 1)) + 1
    }

    fn publish(&mut self) -> Wake {
        self.published = self.position;
        self.publish_at = self.position + self.window / 4;
        // Releases the bytes we have read to the producer's acquire-load in `Producer::place`.
        let old = self.view.swap(CONSUMER_POSITION, self.position, Ordering::AcqRel);
        KillPoint::PopPublished.reached();
        if old & AWAITED != 0 { Wake::YES } else { Wake::NO }
    }

    /// Makes a record of a header word that is neither empty nor a sleep tag, if it is as it must be. It may be a pad.
    #[inline(always)]
    fn record(&mut self, word: u64, at: usize) -> Option<Record> {
        self.fetch_ahead(at);
        let header = match Header::try_from(RawHeader(word)) {
            Ok(header) => header,
            // Not by a record, which would have to lie in memory for it.
            Err(_) => Header::try_from(RawHeader(self.without_restart(word))).ok()?,
        };
        self.bounded(header, at)
    }

    /// Fetches what comes after a record that was found, if it is one of many.
    #[inline(always)]
    fn fetch_ahead(&mut self, at: usize) {
        if std::mem::replace(&mut self.burst, true) {
            self.view.prefetch(at + AHEAD);
        }
        KillPoint::PopLooked.reached();
    }

    /// The record at `at` whose header is as it must be, if it ends where it may.
    #[inline(always)]
    fn bounded(&self, header: Header, at: usize) -> Option<Record> {
        let size = header.record_size();
        if header.len > self.max_payload || at as u64 + size + WORD > self.end {
            return None;
        }
        let id = self.view.load(at + 8, Ordering::Relaxed);
        let extension = if header.extended { self.view.load(at + 16, Ordering::Relaxed) } else { 0 };
        KillPoint::PopSeen.reached();
        Some(Record { header, id, extension, position: self.position, end: self.position + size })
    }

    /// What is wrong with a header word of which [`Self::record`] made nothing.
    #[cold]
    fn violation(&self, word: u64, at: usize) -> Violation {
        // In the front of a compact ring the flag is no fault.
        let is_front = self.geometry.compact && self.base == RECORDS;
        match Header::try_from(RawHeader(if is_front { word & !RESTART } else { word })) {
            Err(violation) => violation,
            Ok(Header { kind: Kind::Pad, .. }) => Violation::PadAtStart,
            Ok(Header { len, .. }) => Violation::RecordBeyondRing { len, offset: (at - self.base) as u64 },
        }
    }

    /// Where `skip` bytes behind our position lie in the view.
    #[inline(always)]
    fn at(&self, skip: u64) -> usize {
        self.origin.wrapping_add((self.position + skip) as usize)
    }

    /// Goes to a position in a lap that begins where `base` says.
    fn go_to(&mut self, position: u64) {
        self.position = position;
        self.origin = self.base.wrapping_sub((position & !(self.geometry.capacity - 1)) as usize);
    }
}

/// What the consumer of a ring had admitted when it died, as its producer reads it from the mapping that outlives it.
#[must_use]
pub fn admitted(view: &View) -> u64 {
    view.load(ADMITTED, Ordering::Acquire)
}
