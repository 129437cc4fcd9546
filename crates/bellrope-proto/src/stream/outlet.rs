//! Records out of the ring that this side writes, on their way as bytes.

use super::{
    record::{Head, size_of_record},
    scratch::Scratch,
};
use crate::{
    Violation,
    ring::{Armed, Consumer, Record, Wake},
};

/// See the [module](self). It keeps no bytes: a record stays in the ring until all of it was sent.
#[derive(Debug)]
pub(super) struct Outlet {
    ring: Consumer,
    /// How many bytes of the record at the front were sent.
    gone: usize,
}

impl Outlet {
    pub(super) fn new(ring: Consumer) -> Self {
        Self { ring, gone: 0 }
    }

    /// Makes bytes of the next records, as many as the scratch can take, and answers how many. If there are none, arms the
    /// ring.
    pub(super) fn gather(&mut self, scratch: &mut Scratch) -> Result<(usize, Wake), Violation> {
        let mut wake = Wake::NO;
        loop {
            let front = self.ring.position();
            let mut bytes = Bytes { space: &mut scratch.0, len: 0 };
            let mut skip = self.gone;
            while let Some(record) = self.ring.peek()? {
                if !bytes.append(&self.ring, &record, skip) {
                    break;
                }
                skip = 0;
                self.ring.step(&record);
            }
            let len = bytes.len;
            self.ring.step_back(front);
            if len > 0 {
                wake |= self.ring.relieve();
                return Ok((len, wake));
            }
            let (armed, room) = self.ring.arm();
            wake |= room;
            if armed == Armed::Asleep {
                return Ok((0, wake));
            }
        }
    }

    /// Notes that so many of the bytes that were gathered are sent. Tells where each request ends that is sent whole by that.
    pub(super) fn sent(&mut self, count: usize, mut on_request: impl FnMut(u64)) -> Result<Wake, Violation> {
        let mut wake = Wake::NO;
        self.gone += count;
        while self.gone > 0 {
            let record = self.ring.peek()?.expect("no more was sent than there was");
            let size = size_of_record(record.header);
            if self.gone < size {
                break;
            }
            self.gone -= size;
            wake |= self.ring.advance(&record);
            if record.header.kind.is_request() {
                on_request(record.end());
            }
        }
        Ok(wake)
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.gone > 0 || self.ring.is_ready()
    }
}

/// Bytes on their way into the scratch.
struct Bytes<'a> {
    space: &'a mut [u8],
    len: usize,
}

impl Bytes<'_> {
    /// Appends a record, without the first bytes of it, as far as there is room. Answers whether that was all of it.
    fn append(&mut self, ring: &Consumer, record: &Record, skip: usize) -> bool {
        let Record { header, id, extension, .. } = *record;
        let head = Head { header, id, extension: header.extended.then_some(extension) };
        let (bytes, size) = head.bytes();
        if !self.write(&bytes[skip.min(size)..size]) {
            return false;
        }
        let from = skip.saturating_sub(size);
        let rest = header.len as usize - from;
        let piece = rest.min(self.space.len() - self.len);
        ring.read(record, from, &mut self.space[self.len..self.len + piece]);
        self.len += piece;
        piece == rest
    }

    /// Heads are not cut: there is always another write.
    fn write(&mut self, bytes: &[u8]) -> bool {
        let Some(place) = self.space[self.len..].get_mut(..bytes.len()) else { return false };
        place.copy_from_slice(bytes);
        self.len += bytes.len();
        true
    }
}
