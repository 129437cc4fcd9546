mod compact;

use bellrope_shm::{View, sync::Ordering};

use super::wake::Wake;
use crate::{
    Violation,
    frame::{EXTENDED, Header, Kind, record_size},
    kill_points::KillPoint,
    layout::{ASLEEP, AWAITED, CONSUMER_POSITION, EMPTY, Geometry, LINE, RECORDS, WORD},
};

/// Bytes that bulk records leave free, so that a ring full of them still takes cancels and credits.
const CONTROL_ROOM: u64 = 512;

/// How far behind a record that is one of many the lines of the next ones are fetched, in bytes.
const AHEAD: u64 = 4 * LINE;
/// How much of a long record is fetched before it is written: one of 1 KB whole.
const FETCHED: u64 = 17 * LINE;

/// For how many records a large one is remembered, and how exactly, in bytes.
const MEMORY: u32 = 64;
const GRAIN: u64 = 128;

/// What a record is for, which decides how close to the end of the room it may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordClass {
    /// Requests, responses, chunks.
    Bulk,
    /// Cancels and credits: they may use the room that bulk leaves free.
    Control,
}

/// The writing end of a ring.
#[derive(Debug)]
pub struct Producer {
    view: View,
    geometry: Geometry,
    /// Where the next record goes. Ours alone.
    position: u64,
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
    /// The record that is being written, if one is.
    draft: Outline,
    /// The word that will make every staged record visible: where it goes in the view and what it is.
    staged: Option<(usize, u64)>,
    /// What more is known of a ring with a front and a back, once it has been written to: most connections are idle.
    compact: Option<Box<Compact>>,
}

/// Where a record being written lies, and how far it has got. Kept here rather than in the [`Draft`], because moving it
/// around would make the processor wait for the stores into shared memory before it.
#[derive(Debug, Default)]
struct Outline {
    /// Where it lies in the view; elsewhere than our position means that committing starts a new lap.
    at: usize,
    /// Where its payload lies in the view.
    payload: usize,
    /// The flags of its header word.
    flags: u64,
    /// Payload bytes written so far, at most `room`.
    len: u64,
    room: u64,
    /// The size of the record for which the header word after it has been emptied.
    emptied: u64,
}

/// Where a record will go, and how far it may reach.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Offset of the record.
    offset: u64,
    /// Offset that nothing of the record and the header word after it may reach beyond.
    end: u64,
    /// We would rather start over but do not know yet that we may.
    would_wrap: bool,
}

/// What the producer of a ring with a front and a back knows beyond others.
#[derive(Debug)]
struct Compact {
    /// Where the back begins in the view, and bytes of the front.
    back: usize,
    front_len: u64,
    /// Where we stood when we left the back, if we did: it is free once the consumer is beyond that.
    left_back: Option<u64>,
    /// The consumer is here at least, since it let the ring start over.
    seen: u64,
    /// The lap that this one follows lies elsewhere, so that nothing before this position takes room from it.
    apart: u64,
    /// The last record, if it lets the ring start over.
    restarting: Option<Restarting>,
    /// Size of the largest of the last records, and how many came after it.
    largest: u64,
    since: u32,
    /// How many in a row were so small that they find room in the front without starting over.
    small: u32,
    /// How often in a row the back was found empty.
    calm: u32,
    /// The place that was found last.
    place: Place,
}

/// A record whose header word lets the ring start over.
#[derive(Debug, Clone, Copy)]
struct Restarting {
    /// Where it lies in the view.
    at: usize,
    /// Our position before it was written: one that was not staged left no trace.
    before: u64,
}

impl Compact {
    fn new(view: &View, geometry: &Geometry) -> Self {
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
    fn note(&mut self, size: u64) {
        let size = size.next_multiple_of(GRAIN);
        self.since += 1;
        if size >= self.largest || self.since > MEMORY {
            (self.largest, self.since) = (size, 0);
        }
    }
}

impl Producer {
    /// The writing end of the ring in `view`, which must be fresh (zeroed).
    ///
    /// # Panics
    /// If the view is smaller than the geometry says.
    #[must_use]
    pub fn new(view: View, geometry: Geometry) -> Self {
        assert!(view.len() as u64 >= RECORDS as u64 + geometry.capacity);
        // A ring too small for the reserve (only models have one) does without.
        let spare = if geometry.capacity >= 8 * CONTROL_ROOM { CONTROL_ROOM } else { 0 };
        Self {
            base: RECORDS,
            place_base: RECORDS,
            restart: 0,
            limit: if geometry.compact { 0 } else { geometry.capacity },
            view,
            geometry,
            position: 0,
            behind: 0,
            consumer: 0,
            next_look: 0,
            spare,
            draft: Outline::default(),
            staged: None,
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
        self.geometry.max_payload()
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
        let Some(mut draft) = self.begin(class, extension.is_some(), payload.len())? else {
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
        let Some((at, word)) = self.staged.take() else { return Wake::NO };
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
        assert!(hint as u64 <= self.geometry.max_payload(), "a record holds at most a quarter of the ring");
        let spare = if class == RecordClass::Bulk { self.spare } else { 0 };
        let size = record_size(hint as u64, extended);
        let Some(place) = self.place(size, spare)? else {
            return Ok(None);
        };
        let Place { offset, end, .. } = place;
        let head = record_size(0, extended);
        let room = (end - spare - WORD - offset - head).min(self.geometry.max_payload());
        let at = self.place_base + offset as usize;
        // Where the next header will be if the hint is right: first, for the same reason as in `Draft::append`.
        self.view.store(at + size as usize, EMPTY, Ordering::Relaxed);
        if self.staged.is_some() {
            // One of many: the lines after it will be written too, and are still in the consumer's cache.
            self.view.prefetch_to_write(at + (size + AHEAD) as usize);
        }
        if size > AHEAD {
            // A long one: its lines come all at once, and not one after the other as the copy gets to them.
            for line in (LINE..size.min(FETCHED)).step_by(LINE as usize) {
                self.view.prefetch_to_write(at + line as usize);
            }
        }
        let payload = at + head as usize;
        let flags = self.restart | if extended { EXTENDED } else { 0 };
        self.draft = Outline { at, payload, flags, len: 0, room, emptied: size };
        KillPoint::PushBegun.reached();
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

    /// Finds the place of a record of `size` bytes, with the header word after it and `spare` bytes to be left free.
    #[inline(always)]
    fn place(&mut self, size: u64, spare: u64) -> Result<Option<Place>, Violation> {
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
    fn fit(&self, size: u64, need: u64) -> Option<Place> {
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
    fn accept(&mut self, found: u64) -> Result<(), Violation> {
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

    /// Moves our position to the start of the next lap, where a record was written at `at`. Answers with the pad that leads
    /// there.
    fn start_lap(&mut self, at: usize) -> u64 {
        let stand = self.position;
        self.position = self.lap_after();
        if self.compact.is_some() { self.turn_to(at, stand) } else { Header::pad() }
    }

    /// The position at which the lap after ours begins.
    fn lap_after(&self) -> u64 {
        (self.position | (self.geometry.capacity - 1)) + 1
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
        let Producer { view, draft, .. } = &mut *self.producer;
        if bytes.len() as u64 > draft.room - draft.len {
            return false;
        }
        let at = draft.payload + draft.len as usize;
        let to_next_line = at.next_multiple_of(LINE as usize) - at;
        if draft.len == 0 && bytes.len() > to_next_line {
            // The consumer polls the line of the header: what lies beyond goes first, so that we take that line away
            // from it once, at the very end.
            let (head, tail) = bytes.split_at(to_next_line);
            view.write(at + to_next_line, tail);
            view.write(at, head);
        } else {
            view.write(at, bytes);
        }
        draft.len += bytes.len() as u64;
        KillPoint::PushWritten.reached();
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
        self.producer.view.read(self.producer.draft.payload, into);
    }

    /// Completes the record; it becomes visible with the next [`Producer::publish`]. `extension` is ignored if the draft
    /// was begun without one.
    #[inline(always)]
    pub fn stage(self, kind: Kind, message_type: u16, id: u64, extension: u64) {
        let producer = self.producer;
        let Outline { at, flags, len, emptied, .. } = producer.draft;
        let extended = flags & EXTENDED != 0;
        let len = u32::try_from(len).expect("a record is far below 4 GiB");
        let word = Header { len, message_type, kind, extended: false }.encode() | flags;

        let size = record_size(len.into(), extended);
        if size != emptied {
            producer.view.store(at + size as usize, EMPTY, Ordering::Relaxed);
        }
        producer.view.store(at + 8, id, Ordering::Relaxed);
        if extended {
            producer.view.store(at + 16, extension, Ordering::Relaxed);
        }
        KillPoint::PushDescribed.reached();
        let stand = producer.base + (producer.position & (producer.geometry.capacity - 1)) as usize;
        let word = if at == stand {
            (at, word)
        } else {
            // The new lap becomes visible through the pad, and all at once.
            producer.view.store(at, word, Ordering::Relaxed);
            KillPoint::PushWrapped.reached();
            (stand, producer.start_lap(at))
        };
        producer.position += size;
        // The consumer cannot get past the first staged record, so only that one's word is held back. The others'
        // stores are released by its swap.
        match &producer.staged {
            None => producer.staged = Some(word),
            Some(_) => producer.view.store(word.0, word.1, Ordering::Relaxed),
        }
        KillPoint::PushStaged.reached();
    }
}
