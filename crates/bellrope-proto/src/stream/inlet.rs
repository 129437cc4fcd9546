//! Records that come as bytes, on their way into the ring that this side reads.

use super::{
    record::{Head, is_control},
    scratch::{READ_AHEAD, Scratch},
};
use crate::{
    Violation,
    frame::{Header, Kind, RawHeader},
    ring::{Producer, RecordClass, Wake},
};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Inlet {
    ring: Producer,
    /// What came and found no room in the ring, or is no whole head. At most [`READ_AHEAD`] bytes.
    kept: Vec<u8>,
    /// The record that is being written into the ring as its bytes come, and how many are lacking.
    begun: Option<(Head, usize)>,
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
        Self { ring, kept: Vec::new(), begun: None, came: 0, requests: 0, from_server, admitted: None }
    }

    pub(super) fn put(&mut self) -> Result<bool, Violation> {
        if self.kept.is_empty() {
            return Ok(true);
        }
        let kept = std::mem::take(&mut self.kept);
        let (used, wants_more) = self.absorb(&kept)?;
        self.kept = if used == 0 { kept } else { kept[used..].to_vec() };
        Ok(wants_more)
    }

    /// Writes bytes into the ring, as far as they make records and there is room. Answers how many, and whether there is
    /// room for what comes next.
    fn absorb(&mut self, bytes: &[u8]) -> Result<(usize, bool), Violation> {
        let mut rest = bytes;
        let wants_more = loop {
            let (head, lacking) = match self.begun {
                Some(begun) => begun,
                None => {
                    let Some(header) = self.header(rest)? else { break true };
                    let Some(head) = Head::of(header, rest) else { break true };
                    if header.kind == Kind::Admitted {
                        self.admitted = Some(admitted(head)?);
                        rest = &rest[head.size()..];
                        continue;
                    }
                    let class = if is_control(header.kind) { RecordClass::Control } else { RecordClass::Bulk };
                    if self.ring.begin(class, header.extended, header.len as usize)?.is_none() {
                        if self.ring.await_room()? {
                            break false;
                        }
                        continue;
                    }
                    rest = &rest[head.size()..];
                    (head, header.len as usize)
                }
            };
            let (piece, after) = rest.split_at(lacking.min(rest.len()));
            rest = after;
            let mut draft = self.ring.resume();
            let fits = draft.append(piece);
            debug_assert!(fits, "room was made for all of it");
            if piece.len() < lacking {
                self.begun = Some((head, lacking - piece.len()));
                break true;
            }
            let Head { header, id, extension } = head;
            draft.stage(header.kind, header.message_type, id, extension.unwrap_or(0));
            self.begun = None;
            self.requests += u64::from(header.kind.is_request());
        };
        Ok((bytes.len() - rest.len(), wants_more))
    }

    /// The checked header of the record at the front of these bytes, if all of it is there.
    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, Violation> {
        let Some(bytes) = bytes.first_chunk() else { return Ok(None) };
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

    /// What was kept stands before the place for more. What is lacking of a record finds its room for certain, so only what
    /// is behind it may have to be kept.
    pub(super) fn space<'a>(&self, scratch: &'a mut Scratch) -> &'a mut [u8] {
        let lacking = self.begun.map_or(0, |(_, lacking)| lacking);
        let (kept, space) = scratch.0.split_at_mut(self.kept.len());
        kept.copy_from_slice(&self.kept);
        let most = (lacking + READ_AHEAD - kept.len()).min(space.len());
        &mut space[..most]
    }

    pub(super) fn came(&mut self, scratch: &Scratch, count: usize) -> Result<(), Violation> {
        self.came += count as u64;
        let bytes = &scratch.0[..self.kept.len() + count];
        let (used, _) = self.absorb(bytes)?;
        self.kept = bytes[used..].to_vec();
        debug_assert!(self.kept.len() <= READ_AHEAD);
        Ok(())
    }

    pub(super) fn unfinished(&self) -> Option<u64> {
        (self.begun.is_some() || !self.kept.is_empty()).then_some(self.came)
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    pub(super) fn admitted(&self) -> Option<u64> {
        self.admitted
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.kept.capacity()
    }
}

/// How many requests were taken, from the record that says so.
fn admitted(Head { header, id, extension }: Head) -> Result<u64, Violation> {
    let bare = header.len == 0 && header.message_type == 0 && id == 0;
    extension.filter(|_| bare).ok_or(Violation::Form(header.kind as u8))
}
