mod compact;
mod place;
mod state;

use std::mem::offset_of;

use bellrope_shm::{View, sync::Ordering};
use state::Compact;

use super::wake::Wake;
use crate::{
    Violation,
    frame::{EXTENDED, Header, Kind, record_size},
    kill_points::KillPoint,
    layout::{ASLEEP, AWAITED, CONSUMER_POSITION, EMPTY, Geometry, LINE, RECORDS},
};

/// Bytes that bulk records leave free, so that a ring full of them still takes cancels and credits.
const CONTROL_ROOM: u64 = 512;

/// Bytes that one copy stores back to front, and from how many on.
const SMALL: usize = 64;
const FEW: usize = 16;

/// How far behind a record that is one of many the lines of the next ones are fetched, in bytes.
const AHEAD: u64 = 4 * LINE;
/// How much of a long record is fetched before it is written: one of 1 KB whole.
const FETCHED: u64 = 17 * LINE;

/// What a record is for, which decides how close to the end of the room it may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordClass {
    /// Requests, responses, chunks.
    Bulk,
    /// Cancels and credits: they may use the room that bulk leaves free.
    Control,
}

/// The writing end of a ring.
///
/// What every record needs comes first, in the lines that a small one touches.
#[derive(Debug)]
#[repr(C)]
pub struct Producer {
    view: View,
    /// Where the next record goes. Ours alone.
    position: u64,
    /// A record that ends up to here goes right where we stand: nothing has to be thought of. In a lap to come there is no
    /// such place, so a position that has moved on to one is beyond it.
    clear: u64,
    /// Up to here a record that begins before `clear` may grow.
    reach: u64,
    /// Where the position 0 would lie in the view if the lap that `clear` is in went back as far as that.
    origin: usize,
    /// The word that will make every staged record visible, [`EMPTY`] if none is staged, and where it goes in the view.
    staged: u64,
    staged_at: usize,
    /// The record that is being written, if one is.
    draft: Outline,
    /// Bytes of the largest payload of a record.
    max_payload: u32,
    geometry: Geometry,
    /// Where the lap that we write in begins in the view, and how many bytes it has: none if every place in it is to be
    /// found with care, as in the front of a compact ring.
    base: usize,
    limit: u64,
    /// Where the lap of the place that was found last begins in the view, and the flag that a record gets there: `base` and
    /// none, but in a compact ring.
    place_base: usize,
    restart: u64,
    /// What counts of the consumer's position for room in this lap: `consumer`, or more in a compact ring.
    behind: u64,
    /// The last position of the consumer that we accepted. It may be behind the real one.
    consumer: u64,
    /// Before this position it does not pay to look whether the start of the ring is free.
    next_look: u64,
    spare: u64,
    /// What more is known of a ring with a front and a back, once it has been written to: most connections are idle.
    compact: Option<Box<Compact>>,
}

/// Where a record being written lies, and how far it has got. Kept here rather than in the [`Draft`], because moving it
/// around would make the processor wait for the stores into shared memory before it.
#[derive(Debug, Default)]
struct Outline {
    /// Where it lies in the view, and where its payload does.
    at: usize,
    payload: usize,
    /// The flags of its header word, and [`WRAPS`]: 0 for nearly all.
    flags: u64,
    /// Payload bytes written so far, at most `room`. There [may be more](Draft::widen).
    len: u32,
    room: u32,
    /// The size of the record for which the header word after it has been emptied.
    emptied: u32,
}

/// Among an outline's flags: it lies elsewhere than at our position, so that committing starts a new lap.
const WRAPS: u64 = 1;

impl Producer {
    /// So many of its first bytes a small record touches, where nothing has to be thought of.
    pub const SMALL_RECORD: usize = offset_of!(Self, geometry);

    /// The writing end of the ring in `view`, which must be fresh (zeroed).
    ///
    /// # Panics
    /// If the view is smaller than the geometry says.
    #[must_use]
    pub fn new(view: View, geometry: Geometry) -> Self {
        assert!(view.len() as u64 >= RECORDS as u64 + geometry.capacity);
        // A ring too small for the reserve (only models have one) does without.
        let spare = if geometry.capacity >= 8 * CONTROL_ROOM { CONTROL_ROOM } else { 0 };
        let max_payload = u32::try_from(geometry.max_payload()).expect("a record is far below 4 GiB");
        Self {
            base: RECORDS,
            place_base: RECORDS,
            restart: 0,
            limit: if geometry.compact { 0 } else { geometry.capacity },
            view,
            geometry,
            position: 0,
            clear: 0,
            reach: 0,
            origin: 0,
            staged: EMPTY,
            staged_at: 0,
            draft: Outline::default(),
            max_payload,
            behind: 0,
            consumer: 0,
            next_look: 0,
            spare,
            compact: None,
        }
    }

    /// Our position: the end of the last record that was committed or staged.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The last position of the consumer that we know of.
    #[must_use]
    pub fn consumer(&self) -> u64 {
        self.consumer
    }

    /// Looks how far the consumer is by now.
    ///
    /// # Errors
    /// A [`Violation`] if the consumer published an impossible position.
    pub fn look(&mut self) -> Result<(), Violation> {
        self.accept(self.view.load(CONSUMER_POSITION, Ordering::Acquire))
    }

    /// Largest payload that [`Self::push`] takes.
    #[must_use]
    pub fn max_payload(&self) -> u64 {
        self.max_payload.into()
    }

    /// Writes one record and stages it: it becomes visible with the next [`Self::publish`]. Answers `false` if there is
    /// no room now.
    ///
    /// # Errors
    /// A [`Violation`] if the consumer published an impossible position.
    ///
    /// # Panics
    /// If the payload is larger than [`Self::max_payload`].
    #[inline(always)]
    pub fn push(
        &mut self,
        class: RecordClass,
        kind: Kind,
        message_type: u16,
        id: u64,
        extension: Option<u64>,
        payload: &[u8],
    ) -> Result<bool, Violation> {
        let extended = extension.is_some();
        let size = record_size(payload.len() as u64, extended);
        if self.position + size <= self.clear {
            // All of it is known, so there is no need for a draft.
            assert!(payload.len() <= self.max_payload as usize, "a record holds at most a quarter of the ring");
            let at = self.origin.wrapping_add(self.position as usize);
            self.open_at(at, size);
            self.write_payload(at + record_size(0, extended) as usize, payload, true);
            let header = Header { len: payload.len() as u32, message_type, kind, extended };
            self.describe(at, id, extension);
            self.stage_word(at, header.encode(), size);
            return Ok(true);
        }
        let Some(mut draft) = self.begin(class, extended, payload.len())? else {
            return Ok(false);
        };
        let fits = draft.append(payload);
        debug_assert!(fits, "begin made room for it");
        draft.stage(kind, message_type, id, extension.unwrap_or(0));
        Ok(true)
    }

    /// Makes every staged record visible, by one swap of one word: of the first record's header, or of the pad before
    /// it. A batch costs one locked instruction however many records it has.
    #[inline(always)]
    pub fn publish(&mut self) -> Wake {
        let (word, at) = (self.staged, self.staged_at);
        if word == EMPTY {
            return Wake::NO;
        }
        self.staged = EMPTY;
        KillPoint::CommitDue.reached();
        // Releases all that was staged to the consumer's acquire-load in `Consumer::peek`.
        let old = self.view.swap(at, word, Ordering::AcqRel);
        KillPoint::CommitDone.reached();
        if old == ASLEEP { Wake::YES } else { Wake::NO }
    }

    /// Begins a record that has room for at least `hint` payload bytes, and possibly more. A draft that is dropped
    /// instead of [staged](Draft::stage) never was. `None` if there is no room now.
    ///
    /// # Errors
    /// A [`Violation`] if the consumer published an impossible position.
    ///
    /// # Panics
    /// If `hint` is larger than [`Self::max_payload`].
    #[inline(always)]
    pub fn begin(&mut self, class: RecordClass, extended: bool, hint: usize) -> Result<Option<Draft<'_>>, Violation> {
        assert!(hint <= self.max_payload as usize, "a record holds at most a quarter of the ring");
        let size = record_size(hint as u64, extended);
        let head = record_size(0, extended);
        if self.position + size <= self.clear {
            self.draft.at = self.origin.wrapping_add(self.position as usize);
            self.draft.flags = if extended { EXTENDED } else { 0 };
            self.draft.room = (size - head) as u32;
        } else {
            if !self.find(class, size, head)? {
                return Ok(None);
            }
            if extended {
                self.draft.flags |= EXTENDED;
            }
        }
        let at = self.draft.at;
        self.draft.payload = at + head as usize;
        self.draft.len = 0;
        self.draft.emptied = size as u32;
        self.open_at(at, size);
        Ok(Some(Draft { producer: self }))
    }

    /// Goes on with the record that was begun last. To be called only if that was neither staged nor given up: what lies in
    /// the ring before it may have been published and taken meanwhile.
    pub(crate) fn resume(&mut self) -> Draft<'_> {
        Draft { producer: self }
    }

    /// Tags the consumer's position, so that the consumer wakes us when it moves on. Answers `false` if it has moved
    /// already: then look again instead of sleeping.
    ///
    /// # Errors
    /// A [`Violation`] if the consumer published an impossible position.
    pub fn await_room(&mut self) -> Result<bool, Violation> {
        let known = self.consumer;
        // Failing is the acquire-load that `look` would make; succeeding orders nothing, since no data hangs on it.
        match self.view.compare_exchange(CONSUMER_POSITION, known, known | AWAITED, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => {
                KillPoint::RoomAwaited.reached();
                Ok(true)
            }
            Err(found) => {
                self.accept(found)?;
                Ok(found == known | AWAITED)
            }
        }
    }

    /// Takes the ring out of this process's resident set until it is next used.
    #[cfg(not(loom))]
    pub fn release_pages(&self) {
        self.view.release_pages();
    }

    /// Begins a record of `size` bytes.
    #[inline(always)]
    fn open_at(&self, at: usize, size: u64) {
        // Where the next header will be if the size is right: first, for the same reason as in `Self::write_payload`.
        self.view.store(at + size as usize, EMPTY, Ordering::Relaxed);
        if self.staged != EMPTY {
            // One of many: the lines after it will be written too, and are still in the consumer's cache.
            self.view.prefetch_to_write(at + (size + AHEAD) as usize);
        }
        if size > AHEAD {
            // A long one: its lines come all at once, and not one after the other as the copy gets to them.
            for line in (LINE..size.min(FETCHED)).step_by(LINE as usize) {
                self.view.prefetch_to_write(at + line as usize);
            }
        }
        KillPoint::PushBegun.reached();
    }

    /// Writes payload, or the first part of it.
    #[inline(always)]
    fn write_payload(&self, at: usize, bytes: &[u8], first: bool) {
        if bytes.len() > SMALL {
            self.write_long(at, bytes, first);
        } else {
            self.view.write(at, bytes);
        }
        KillPoint::PushWritten.reached();
    }

    /// Writes more than one copy stores back to front.
    #[inline(never)]
    fn write_long(&self, at: usize, bytes: &[u8], first: bool) {
        // The consumer polls the line of the header: what lies beyond goes first, so that we take that line away from it
        // once, at the very end. A copy of a few bytes does that by itself; so many go beyond the line.
        let to_next_line = at.next_multiple_of(LINE as usize) - at;
        if first {
            let (head, tail) = bytes.split_at(to_next_line);
            self.view.write(at + to_next_line, tail);
            self.view.write(at, head);
        } else {
            self.view.write(at, bytes);
        }
    }

    /// Writes what a record has beside its header word and its payload.
    #[inline(always)]
    fn describe(&self, at: usize, id: u64, extension: Option<u64>) {
        self.view.store(at + 8, id, Ordering::Relaxed);
        if let Some(extension) = extension {
            self.view.store(at + 16, extension, Ordering::Relaxed);
        }
        KillPoint::PushDescribed.reached();
    }

    /// Moves on past a record of `size` bytes, which the word at `at` leads to.
    #[inline(always)]
    fn stage_word(&mut self, at: usize, word: u64, size: u64) {
        self.position += size;
        // The consumer cannot get past the first staged record, so only that one's word is held back. The others'
        // stores are released by its swap.
        if self.staged == EMPTY {
            (self.staged_at, self.staged) = (at, word);
        } else {
            self.view.store(at, word, Ordering::Relaxed);
        }
        KillPoint::PushStaged.reached();
    }
}

/// A record that is being written.
#[derive(Debug)]
pub struct Draft<'a> {
    producer: &'a mut Producer,
}

impl Draft<'_> {
    /// Appends payload. Answers `false`, and leaves the draft as it was, if it does not fit.
    #[inline(always)]
    #[must_use]
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        self.append_few(bytes) || self.append_rest(bytes)
    }

    /// As [`Self::append`], for what is nearly always appended: no more than one copy stores, where there is room. Answers
    /// `false` to all else.
    #[inline(always)]
    #[must_use]
    pub(crate) fn append_few(&mut self, bytes: &[u8]) -> bool {
        let Outline { payload, len, room, .. } = self.producer.draft;
        // One comparison, where a range would be two.
        if bytes.len().wrapping_sub(FEW) > SMALL - FEW || bytes.len() > (room - len) as usize {
            return false;
        }
        self.producer.view.write(payload + len as usize, bytes);
        KillPoint::PushWritten.reached();
        self.producer.draft.len = len + bytes.len() as u32;
        true
    }

    /// The rest of [`Self::append`]. Not inlined: handlers have no use for it.
    #[inline(never)]
    fn append_rest(&mut self, bytes: &[u8]) -> bool {
        let Outline { payload, len, room, .. } = self.producer.draft;
        if bytes.len() > (room - len) as usize && !self.widen(bytes.len()) {
            return false;
        }
        self.producer.write_payload(payload + len as usize, bytes, len == 0);
        self.producer.draft.len = len + bytes.len() as u32;
        true
    }

    /// Takes all the room that there is where the draft lies, if it was not found with all of that. Answers whether so many
    /// more bytes fit.
    fn widen(&mut self, more: usize) -> bool {
        let Producer { draft, position, clear, reach, max_payload, .. } = &mut *self.producer;
        // One that begins right where we stand and before `clear` may grow up to `reach`.
        if draft.flags & !EXTENDED == 0 && *position < *clear {
            let head = (draft.payload - draft.at) as u64;
            draft.room = draft.room.max((*reach - *position - head).min((*max_payload).into()) as u32);
        }
        more <= (draft.room - draft.len) as usize
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
        self.producer.view.read(self.producer.draft.payload, into);
    }

    /// Completes the record; it becomes visible with the next [`Producer::publish`]. `extension` is ignored if the draft
    /// was begun without one.
    #[inline(always)]
    pub fn stage(self, kind: Kind, message_type: u16, id: u64, extension: u64) {
        let producer = self.producer;
        let Outline { at, flags, len, emptied, .. } = producer.draft;
        let header = Header { len, message_type, kind, extended: false }.encode();
        if flags != 0 {
            return producer.stage_with_care(header, id, extension);
        }
        let size = record_size(len.into(), false);
        if size != u64::from(emptied) {
            producer.view.store(at + size as usize, EMPTY, Ordering::Relaxed);
        }
        producer.describe(at, id, None);
        producer.stage_word(at, header, size);
    }
}

impl Producer {
    /// Stages the record that was written, where it has flags or begins a new lap.
    #[inline(never)]
    fn stage_with_care(&mut self, header: u64, id: u64, extension: u64) {
        let Outline { at, flags, len, emptied, .. } = self.draft;
        let extended = flags & EXTENDED != 0;
        let word = header | flags & !WRAPS;
        let size = record_size(len.into(), extended);
        if size != u64::from(emptied) {
            self.view.store(at + size as usize, EMPTY, Ordering::Relaxed);
        }
        self.describe(at, id, extended.then_some(extension));
        let (at, word) = if flags & WRAPS != 0 { self.wrap(at, word) } else { (at, word) };
        self.stage_word(at, word, size);
    }
}
