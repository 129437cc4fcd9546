//! Records that are no whole request.

use super::{super::assembly::Assembly, Announced, Inbound, InboundChunk, ServerConnection};
use crate::{
    Violation,
    frame::{Kind, LEAVING},
    kill_points::KillPoint,
    ring::Record,
};

impl<B: AsRef<[u8]>> ServerConnection<B> {
    /// Drops the last part of a large request that was refused. Answers whether it was one.
    pub(super) fn drop_if_discarded(&mut self, record: &Record) -> bool {
        let discarded = matches!(self.assembly, Some(Assembly::Discarding { .. }));
        if discarded {
            self.assembly = None;
            self.wake |= self.requests.advance(record);
        }
        discarded
    }

    /// Handles a record that is no request. Answers with what of it concerns others than the connection.
    pub(super) fn rarer(&mut self, record: &Record) -> Result<Option<Inbound>, Violation> {
        let id = record.id;
        match record.header.kind {
            Kind::Fragment => return self.fragment(record),
            Kind::Chunk => return self.chunk_in(record),
            Kind::End => {
                expect_form(record, true, true)?;
                self.wake |= self.requests.advance(record);
                if let Some(inflow) = self.outbox.uploads.get(id) {
                    inflow.check(id, record.extension, false)?;
                    self.outbox.uploads.close(id);
                    return Ok(Some(Inbound::Ended(id)));
                }
            }
            Kind::Cancel => {
                let leaves = record.header.extended && self.hears_leaving;
                expect_form(record, leaves, true)?;
                if leaves && record.extension != LEAVING {
                    return Err(Violation::Form(record.header.kind as u8));
                }
                self.wake |= self.requests.advance(record);
                if self.is_assembling_of(id) {
                    self.assembly = None;
                }
                KillPoint::ServerCancelTaken.reached();
                self.outbox.uploads.close(id);
                if self.outbox.forget(id) | self.open.remove(id) {
                    self.outbox.cancelled(id)?;
                    return Ok(Some(if leaves { Inbound::Left(id) } else { Inbound::Cancelled(id) }));
                }
            }
            Kind::Credit => {
                expect_form(record, true, true)?;
                self.wake |= self.requests.advance(record);
                self.outbox.credit(id, record.extension)?;
            }
            kind => return Err(Violation::Direction(kind as u8)),
        }
        Ok(None)
    }

    /// Handles a part of a large request that is not the last.
    fn fragment(&mut self, record: &Record) -> Result<Option<Inbound>, Violation> {
        expect_form(record, true, false)?;
        let Some(assembly) = &mut self.assembly else {
            return Ok(Some(Inbound::Large(Announced { id: record.id, size: record.extension })));
        };
        if assembly.id() != record.id {
            return Err(Violation::Interleaved(record.id));
        }
        assembly.part(&self.requests, record)?;
        self.wake |= self.requests.advance(record);
        KillPoint::ServerPartTaken.reached();
        Ok(Some(Inbound::Part(record.header.len as usize)))
    }

    /// Handles a chunk of a stream from the client.
    fn chunk_in(&mut self, record: &Record) -> Result<Option<Inbound>, Violation> {
        if !record.header.extended || record.header.message_type != 0 {
            return Err(Violation::Form(record.header.kind as u8));
        }
        let Some(inflow) = self.outbox.uploads.get(record.id) else {
            // Its call was answered before the client could know.
            self.wake |= self.requests.advance(record);
            return Ok(None);
        };
        inflow.check(record.id, record.extension, true)?;
        Ok(Some(Inbound::Chunk(InboundChunk { id: record.id, len: record.header.len as usize, record: *record })))
    }
}

/// Checks that a record has an extension or none, and a payload or none.
fn expect_form(record: &Record, extended: bool, empty: bool) -> Result<(), Violation> {
    let header = record.header;
    if header.extended == extended && (header.len == 0) == empty && header.message_type == 0 {
        Ok(())
    } else {
        Err(Violation::Form(header.kind as u8))
    }
}
