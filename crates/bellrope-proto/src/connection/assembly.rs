//! A request that comes in parts, as the server puts it together.

use crate::{
    Reservation, Violation,
    ring::{Consumer, Record},
};

/// A large request that was let in and is not there whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfinished {
    /// Call id, the client's choice.
    pub id: u64,
    /// Bytes of the whole, which are reserved.
    pub size: u64,
    /// Bytes that came.
    pub filled: u64,
}

/// The one large request that is on its way.
#[derive(Debug)]
pub(super) enum Assembly {
    /// It is being put together.
    Filling(Box<Filling>),
    /// It was refused: what still comes of it is dropped.
    Discarding {
        /// The call.
        id: u64,
    },
}

/// A request that is being put together, in memory that was reserved for all of it. In a box: most connections have none.
#[derive(Debug)]
pub(super) struct Filling {
    id: u64,
    /// Bytes of the whole.
    size: usize,
    /// Has room for the whole, and grows with what comes: what was only announced is not worth clearing memory for. What lies
    /// from `filled` on means nothing.
    buffer: Vec<u8>,
    filled: usize,
    reservation: Reservation,
}

impl Assembly {
    pub(super) fn fill(id: u64, size: usize, buffer: Vec<u8>, reservation: Reservation) -> Self {
        Self::Filling(Box::new(Filling { id, size, buffer, filled: 0, reservation }))
    }

    pub(super) fn id(&self) -> u64 {
        match self {
            Self::Filling(filling) => filling.id,
            Self::Discarding { id } => *id,
        }
    }

    pub(super) fn unfinished(&self) -> Option<Unfinished> {
        let Self::Filling(filling) = self else { return None };
        let Filling { id, size, filled, .. } = **filling;
        Some(Unfinished { id, size: size as u64, filled: filled as u64 })
    }

    /// Takes a part that is not the last.
    pub(super) fn part(&mut self, requests: &Consumer, record: &Record) -> Result<(), Violation> {
        let Self::Filling(filling) = self else { return Ok(()) };
        let announced = filling.size as u64;
        // The last part is a record of its own kind, so something has to be left for it.
        let left = filling.size - filling.filled;
        if record.extension != announced || record.header.len as usize >= left {
            return Err(Violation::PartialSize { id: record.id, announced });
        }
        filling.append(requests, record, 0);
        Ok(())
    }
}

impl Filling {
    /// Takes the last part, which is behind so many other bytes of its record, and gives the whole out.
    pub(super) fn last(
        mut self,
        requests: &Consumer,
        record: &Record,
        skip: usize,
    ) -> Result<(Vec<u8>, Reservation), Violation> {
        if record.header.len as usize - skip != self.size - self.filled {
            return Err(Violation::PartialSize { id: record.id, announced: self.size as u64 });
        }
        self.append(requests, record, skip);
        self.buffer.truncate(self.size);
        Ok((self.buffer, self.reservation))
    }

    /// Bytes of the buffer that were ever cleared or written.
    #[cfg(test)]
    pub(super) fn touched(&self) -> usize {
        self.buffer.len()
    }

    fn append(&mut self, requests: &Consumer, record: &Record, skip: usize) {
        let len = record.header.len as usize - skip;
        let filled = self.filled + len;
        // A buffer that was used before is as long already as it was then.
        if self.buffer.len() < filled {
            self.buffer.resize(filled, 0);
        }
        requests.read(record, skip, &mut self.buffer[self.filled..filled]);
        self.filled = filled;
    }
}
