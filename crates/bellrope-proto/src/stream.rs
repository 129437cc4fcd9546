//! Transport 1: the records of a connection over a stream of bytes instead of through memory that both sides map.
//!
//! Each side keeps the two rings of its connection in memory of its own, so that [`ServerConnection`] and
//! [`ClientConnection`] are the very same as over shared memory. In place of the other process stands a [`StreamEnd`]: it
//! takes records out of the ring that this side writes and makes bytes of them, and puts what comes as bytes into the
//! ring that this side reads.
//!
//! ```text
//! +0     header (u64), as in a ring: payload length [0..32), type [32..48), kind [48..56), flags [56..64)
//! +8     call id (u64)
//! +16    extension (u64), if the header's flag says so
//! +16/24 payload; the next record begins with the byte behind it
//! ```
//!
//! There are no pads, no positions, no sleep tags and no doorbell. What the admitted word says of a dead server, a server
//! that ends the connection by itself says in a last record of the kind [`Admitted`](crate::frame::Kind::Admitted): how
//! many requests it took. Of one that was killed nothing is known.
//!
//! **Bounds.** Beside the rings there are [`READ_AHEAD`] bytes, however long the records are: what comes is written into the ring
//! piece by piece, and what leaves stays in the ring until it was sent. When a ring is full, nothing more is read, and the
//! socket fills. Bytes on their way lie in a [`Scratch`], which the connections of a thread share.
//!
//! **Wake-ups.** A ring says whether its other end must be woken, here as everywhere. To wake a `StreamEnd` is to give it a
//! turn: the end of the connection that commits does that. Whether the connection has to look again shows in
//! [`StreamEnd::woke`].
//!
//! **Absent on purpose**: no socket. Its owner moves the bytes.
//!
//! [`ServerConnection`]: crate::connection::ServerConnection
//! [`ClientConnection`]: crate::connection::ClientConnection

mod admission;
mod inlet;
mod outlet;
mod record;
mod scratch;

use std::sync::Arc;

use admission::Admission;
use bellrope_shm::SharedMemory;
use inlet::Inlet;
use outlet::Outlet;
use record::Head;
pub use scratch::{READ_AHEAD, Scratch};

use crate::{
    Violation,
    frame::{Header, Kind},
    layout::Geometry,
    ring::{Consumer, Producer, Wake},
};

/// What stands in place of the other process at the private rings of a connection.
#[derive(Debug)]
pub struct StreamEnd {
    inlet: Inlet,
    outlet: Outlet,
    /// Of a client: which of its requests may have been taken.
    admission: Option<Admission>,
    /// Whether the connection has to look at its rings again.
    wake: Wake,
}

impl StreamEnd {
    /// Serves the rings of a [`ServerConnection`](crate::connection::ServerConnection) in fresh memory.
    ///
    /// # Panics
    /// If the memory is smaller than the geometry says.
    #[must_use]
    pub fn of_server(memory: &Arc<SharedMemory>, geometry: Geometry) -> Self {
        Self {
            inlet: Inlet::new(Producer::new(memory.view(geometry.requests()), geometry), false),
            outlet: Outlet::new(Consumer::new(memory.view(geometry.responses()), geometry)),
            admission: None,
            wake: Wake::NO,
        }
    }

    /// Serves the rings of a [`ClientConnection`](crate::connection::ClientConnection) in fresh memory.
    ///
    /// # Panics
    /// If the memory is smaller than the geometry says.
    #[must_use]
    pub fn of_client(memory: &Arc<SharedMemory>, geometry: Geometry) -> Self {
        let requests = memory.view(geometry.requests());
        Self {
            inlet: Inlet::new(Producer::new(memory.view(geometry.responses()), geometry), true),
            outlet: Outlet::new(Consumer::new(requests.clone(), geometry)),
            admission: Some(Admission::new(requests)),
            wake: Wake::NO,
        }
    }

    /// Puts the records that came whole into the ring, as far as there is room. Answers whether more bytes are wanted;
    /// if not, the connection has to take something first, and the next commit of its end says so.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed. What came before it is in the ring.
    pub fn put(&mut self) -> Result<bool, Violation> {
        let put = self.inlet.put();
        self.wake |= self.inlet.publish();
        let wants_more = put?;
        self.heed()?;
        Ok(wants_more)
    }

    /// How far the ring is filled: another number than before if records were put into it.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.inlet.position()
    }

    /// Has the connection take something before more is read, though there may be room. To be called only after records
    /// were [put](Self::put). Answers `false` if it has taken something already.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn pause(&mut self) -> Result<bool, Violation> {
        self.inlet.pause()
    }

    /// Where the next bytes belong. Never empty after [`Self::put`] wanted more.
    pub fn space<'a>(&self, scratch: &'a mut Scratch) -> &'a mut [u8] {
        self.inlet.space(scratch)
    }

    /// So many bytes came into the front of [`Self::space`]: puts their records into the ring, and keeps the rest.
    ///
    /// # Errors
    /// As [`Self::put`].
    ///
    /// # Panics
    /// If that had not so much room.
    pub fn came(&mut self, scratch: &Scratch, count: usize) -> Result<(), Violation> {
        let came = self.inlet.came(scratch, count);
        self.wake |= self.inlet.publish();
        came?;
        self.heed()
    }

    /// Heeds what the server said of the requests it took.
    fn heed(&self) -> Result<(), Violation> {
        match (&self.admission, self.inlet.admitted()) {
            (Some(admission), Some(taken)) => admission.settle(taken),
            _ => Ok(()),
        }
    }

    /// Whether the server has said what it says last: it hangs up then.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.inlet.admitted().is_some()
    }

    /// How many bytes came in all, if the last record of them is not whole yet.
    #[must_use]
    pub fn unfinished(&self) -> Option<u64> {
        self.inlet.unfinished()
    }

    /// Bytes to be sent, of the next records in the ring. If there are none, the next commit of the connection's end says that
    /// there are.
    ///
    /// # Errors
    /// A [`Violation`] if the ring is not as its own end must have left it.
    pub fn outgoing<'a>(&mut self, scratch: &'a mut Scratch) -> Result<&'a [u8], Violation> {
        let (len, wake) = self.outlet.gather(scratch)?;
        self.wake |= wake;
        Ok(&scratch.0[..len])
    }

    /// The first so many of these bytes were sent.
    ///
    /// # Errors
    /// As [`Self::outgoing`].
    ///
    /// # Panics
    /// If there were not so many.
    pub fn sent(&mut self, count: usize) -> Result<(), Violation> {
        let Self { outlet, admission, wake, .. } = self;
        *wake |= outlet.sent(count, |position| {
            if let Some(admission) = admission {
                admission.sent(position);
            }
        })?;
        Ok(())
    }

    /// Whether something in the ring, or the rest of it, was not sent.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.outlet.has_unsent()
    }

    /// Requests that were put into the ring.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.inlet.requests()
    }

    /// The bytes that say as the last thing how many requests were taken. To be sent by a server that ends the connection, when
    /// nothing else waits to be sent.
    #[must_use]
    pub fn last_words(taken: u64) -> Vec<u8> {
        let header = Header { len: 0, message_type: 0, kind: Kind::Admitted, extended: true };
        let (bytes, size) = Head { header, id: 0, extension: Some(taken) }.bytes();
        bytes[..size].to_vec()
    }

    /// Whether the connection has to look at its rings again because of what was done since this was last asked: a record
    /// came where it slept, or there is room that it waited for.
    pub fn woke(&mut self) -> bool {
        std::mem::take(&mut self.wake).needed()
    }
}

#[cfg(test)]
mod tests;
