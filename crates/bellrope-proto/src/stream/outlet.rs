//! Records out of the ring that this side writes, on their way as bytes.

use super::record::{BATCH, size_of_record};
use crate::{
    Violation,
    frame::{Header, Kind},
    ring::{Armed, Consumer, Wake},
};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Outlet {
    ring: Consumer,
    bytes: Vec<u8>,
    /// How many of these were sent.
    gone: usize,
    /// Bytes that were sent in all.
    sent: u64,
}

impl Outlet {
    pub(super) fn new(ring: Consumer) -> Self {
        Self { ring, bytes: Vec::new(), gone: 0, sent: 0 }
    }

    /// If nothing waits, makes bytes of the next records; if there are none, arms the ring. Of each request, tells where it
    /// ends among all bytes and in the ring.
    pub(super) fn fill(&mut self, mut on_request: impl FnMut(u64, u64)) -> Result<Wake, Violation> {
        let mut wake = Wake::NO;
        while self.bytes.is_empty() {
            loop {
                let next = self.ring.peek()?;
                // One that is longer than all of them together may be goes alone.
                let fits = |size| self.bytes.is_empty() || self.bytes.len() + size <= BATCH;
                let Some(record) = next.filter(|record| fits(size_of_record(record.header))) else { break };
                let Header { len, kind, extended, .. } = record.header;
                self.head(record.header, record.id, extended.then_some(record.extension));
                let at = self.bytes.len();
                self.bytes.resize(at + len as usize, 0);
                self.ring.read(&record, 0, &mut self.bytes[at..]);
                wake |= self.ring.advance(&record);
                if kind.is_request() {
                    on_request(self.sent + self.bytes.len() as u64, record.end());
                }
            }
            if self.bytes.is_empty() {
                let (armed, room) = self.ring.arm();
                wake |= room;
                if armed == Armed::Asleep {
                    break;
                }
            } else {
                wake |= self.ring.relieve();
            }
        }
        Ok(wake)
    }

    /// Appends a record that comes out of no ring and has no payload.
    pub(super) fn append(&mut self, kind: Kind, extension: u64) {
        self.head(Header { len: 0, message_type: 0, kind, extended: true }, 0, Some(extension));
    }

    fn head(&mut self, header: Header, id: u64, extension: Option<u64>) {
        // In the usual case all of it at once, so that the buffer grows once.
        self.bytes.reserve(size_of_record(header));
        self.bytes.extend_from_slice(&header.encode().to_le_bytes());
        self.bytes.extend_from_slice(&id.to_le_bytes());
        if let Some(extension) = extension {
            self.bytes.extend_from_slice(&extension.to_le_bytes());
        }
    }

    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.gone..]
    }

    /// Notes that so many bytes were sent, and answers how many were in all.
    pub(super) fn sent(&mut self, count: usize) -> u64 {
        assert!(count <= self.bytes.len() - self.gone, "no more was sent than there was");
        self.gone += count;
        let all = self.sent + self.gone as u64;
        if self.gone == self.bytes.len() {
            self.bytes.clear();
            (self.sent, self.gone) = (all, 0);
        }
        all
    }

    pub(super) fn release(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }
}
