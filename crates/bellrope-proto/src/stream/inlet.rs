//! Records that come as bytes, on their way into the ring that this side reads.

use super::record::{BATCH, size_of_record};
use crate::{
    Violation,
    frame::{Header, Kind, RawHeader},
    layout::{RECORD_HEAD, WORD},
    ring::{Producer, RecordClass, Wake},
};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Inlet {
    ring: Producer,
    /// What came and is in no ring yet lies from `start` to `end`.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes that came in all.
    came: u64,
    /// Requests that were put into the ring.
    requests: u64,
    /// Whether the other side may say how many requests it took.
    from_server: bool,
    /// What it said.
    admitted: Option<u64>,
}

impl Inlet {
    pub(super) fn new(ring: Producer, from_server: bool) -> Self {
        Self { ring, bytes: Vec::new(), start: 0, end: 0, came: 0, requests: 0, from_server, admitted: None }
    }

    pub(super) fn put(&mut self) -> Result<bool, Violation> {
        loop {
            let Some(header) = self.header()? else { return Ok(true) };
            let size = size_of_record(header);
            let Some(record) = self.bytes[self.start..self.end].get(..size) else { return Ok(true) };
            let id = word(&record[WORD as usize..]);
            let extension = header.extended.then(|| word(&record[RECORD_HEAD as usize..]));
            if header.kind == Kind::Admitted {
                self.admitted = Some(admitted(header, id, extension)?);
            } else {
                let payload = &record[size - header.len as usize..];
                // Cancels and credits may use the room that bulk leaves, as where their sender puts them into the ring.
                let class = match header.kind {
                    Kind::Cancel | Kind::Credit | Kind::End => RecordClass::Control,
                    _ => RecordClass::Bulk,
                };
                if !self.ring.push(class, header.kind, header.message_type, id, extension, payload)? {
                    if self.ring.await_room()? {
                        return Ok(false);
                    }
                    continue;
                }
                self.requests += u64::from(header.kind.is_request());
            }
            self.start += size;
        }
    }

    /// The checked header of the record at the front, if its bytes are there.
    fn header(&self) -> Result<Option<Header>, Violation> {
        let Some(bytes) = self.bytes[self.start..self.end].first_chunk() else { return Ok(None) };
        let raw = u64::from_le_bytes(*bytes);
        let header = Header::try_from(RawHeader(raw))?;
        match header.kind {
            Kind::Pad => return Err(Violation::Header(raw)),
            Kind::Admitted if !self.from_server => return Err(Violation::Direction(header.kind as u8)),
            // It is the last that a server says.
            kind if self.admitted.is_some() => return Err(Violation::Form(kind as u8)),
            _ => {}
        }
        if u64::from(header.len) > self.ring.max_payload() {
            return Err(Violation::RecordTooLong { len: header.len, limit: self.ring.max_payload() });
        }
        Ok(Some(header))
    }

    pub(super) fn publish(&mut self) -> Wake {
        self.ring.publish()
    }

    pub(super) fn position(&self) -> u64 {
        self.ring.position()
    }

    pub(super) fn pause(&mut self) -> Result<bool, Violation> {
        self.ring.await_room()
    }

    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.bytes.len() {
            // It grows with what has really come, and never beyond the largest record.
            let most = BATCH.max(RECORD_HEAD as usize + WORD as usize + self.ring.max_payload() as usize);
            self.bytes.resize((2 * self.end).clamp(BATCH, most), 0);
        }
        &mut self.bytes[self.end..]
    }

    pub(super) fn came(&mut self, count: usize) {
        assert!(count <= self.bytes.len() - self.end, "no more came than there was room for");
        self.end += count;
        self.came += count as u64;
    }

    pub(super) fn unfinished(&self) -> Option<u64> {
        (self.start < self.end).then_some(self.came)
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    pub(super) fn admitted(&self) -> Option<u64> {
        self.admitted
    }

    pub(super) fn release(&mut self) {
        if self.start == self.end {
            (self.bytes, self.start, self.end) = (Vec::new(), 0, 0);
        }
    }
}

/// How many requests were taken, from the record that says so.
fn admitted(header: Header, id: u64, extension: Option<u64>) -> Result<u64, Violation> {
    let bare = header.len == 0 && header.message_type == 0 && id == 0;
    extension.filter(|_| bare).ok_or(Violation::Form(header.kind as u8))
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("a record has all of its words"))
}
