use bellrope_shm::{View, sync::Ordering};

use super::Wake;
use crate::{
    Violation,
    frame::{Header, Kind, RawHeader, record_size},
    layout::{ADMITTED, ASLEEP, AWAITED, CONSUMER_POSITION, EMPTY, Geometry, LINE, RECORDS, WORD},
};

/// The reading end of a ring.
#[derive(Debug)]
pub struct Consumer {
    view: View,
    geometry: Geometry,
    /// Where the next record is. Ours alone.
    position: u64,
    /// The position that the producer can see.
    published: u64,
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
    /// Position of the record.
    position: u64,
}

impl Record {
    /// The position right behind the record.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.position + self.header.record_size()
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
        Self { view, geometry, position: 0, published: 0 }
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
        // Pairs with the releasing swap in `Draft::commit`.
        let mut word = self.view.load(self.at(0), Ordering::Acquire);
        if word == Header::pad() {
            if self.position & (self.geometry.capacity - 1) == 0 {
                return Err(Violation::PadAtStart);
            }
            self.position = (self.position | (self.geometry.capacity - 1)) + 1;
            word = self.view.load(self.at(0), Ordering::Acquire);
        }
        if word == EMPTY || word == ASLEEP {
            return Ok(None);
        }
        self.check(word).map(Some)
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

    /// Copies the payload of the record at the front out of shared memory, from byte `offset` of it on.
    ///
    /// # Panics
    /// If `into` asks for bytes beyond the payload.
    #[inline(always)]
    pub fn read(&self, record: &Record, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= record.header.len as usize, "only the payload is to be read");
        self.view.read(self.at(record_size(0, record.header.extended)) + offset, into);
    }

    /// Moves on past the record at the front. The producer learns of it lazily: every quarter of the window in use.
    #[inline(always)]
    pub fn advance(&mut self, record: &Record) -> Wake {
        debug_assert_eq!(record.position, self.position);
        self.position = record.end();
        let in_use = self.geometry.window.max(self.position & (self.geometry.capacity - 1));
        if self.position - self.published >= in_use / 4 { self.publish() } else { Wake::NO }
    }

    /// Notes that everything before our position has been taken for good, before it is acted upon. The producer's side
    /// reads it only after this side has died.
    #[inline(always)]
    pub fn admit(&self) {
        self.view.store(ADMITTED, self.position, Ordering::Release);
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
        match exchange {
            Ok(_) | Err(ASLEEP) => (Armed::Asleep, wake),
            Err(_) => (Armed::Ready, wake),
        }
    }

    /// Takes the sleep tag back, so that the producer need not ring while we look for ourselves.
    pub fn disarm(&self) {
        // If it fails, a record came in and the tag is gone already.
        let _ = self.view.compare_exchange(self.at(0), ASLEEP, EMPTY, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Takes the ring out of this process's resident set until it is next used.
    #[cfg(not(loom))]
    pub fn release_pages(&self) {
        self.view.release_pages();
    }

    fn publish(&mut self) -> Wake {
        self.published = self.position;
        // Releases the bytes we have read to the producer's acquire-load in `Producer::place`.
        let old = self.view.swap(CONSUMER_POSITION, self.position, Ordering::AcqRel);
        if old & AWAITED != 0 { Wake::YES } else { Wake::NO }
    }

    /// Checks a header word and makes a record of it.
    #[inline(always)]
    fn check(&self, word: u64) -> Result<Record, Violation> {
        let header = Header::try_from(RawHeader(word))?;
        let offset = self.position & (self.geometry.capacity - 1);
        let too_long = u64::from(header.len) > self.geometry.max_payload();
        if too_long || offset + header.record_size() + WORD > self.geometry.capacity {
            return Err(Violation::RecordBeyondRing { len: header.len, offset });
        }
        if header.kind == Kind::Pad {
            return Err(Violation::PadAtStart);
        }
        let id = self.view.load(self.at(8), Ordering::Relaxed);
        let extension = if header.extended { self.view.load(self.at(16), Ordering::Relaxed) } else { 0 };
        Ok(Record { header, id, extension, position: self.position })
    }

    /// Where `skip` bytes behind our position lie in the view.
    #[inline]
    fn at(&self, skip: u64) -> usize {
        RECORDS + ((self.position & (self.geometry.capacity - 1)) + skip) as usize
    }
}

/// What the consumer of a ring had admitted when it died, as its producer reads it from the mapping that outlives it.
#[must_use]
pub fn admitted(view: &View) -> u64 {
    view.load(ADMITTED, Ordering::Acquire)
}
