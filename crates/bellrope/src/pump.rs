//! Moves the bytes of a connection over transport 1 between its socket and the rings of its end, in whatever thread owns
//! the connection. It never waits: what the socket does not take stays, and what finds no room in a ring is not read.

use std::io;

use bellrope_proto::{
    Violation,
    stream::{Scratch, StreamEnd},
};
use bellrope_shm::{socket::Socket, wait::Interest};

/// Bytes that are read in one turn before the connection has to take some, and at the least a record.
const TURN_BYTES: usize = 256 * 1024;

/// What moves the bytes of one connection.
#[derive(Debug)]
pub(crate) struct Pump {
    end: StreamEnd,
    /// Whether the socket may have bytes: it was said to, and not all were read.
    readable: bool,
    /// Whether the other side is known to have hung up, so that its bytes have an end.
    ending: bool,
    /// Whether the socket took no more when that was last tried.
    blocked: bool,
    /// Whether the other side takes nothing any more.
    deaf: bool,
    fault: Option<PumpFault>,
}

/// Why a connection is of no more use.
#[derive(Debug)]
pub(crate) enum PumpFault {
    /// The other side has hung up, and everything that came before is in the ring.
    HungUp,
    Violation(Violation),
    Io(io::Error),
}

impl Pump {
    pub(crate) fn new(end: StreamEnd) -> Self {
        Self { end, readable: true, ending: false, blocked: false, deaf: false, fault: None }
    }

    /// The socket has bytes, or room.
    pub(crate) fn heard(&mut self) {
        self.readable = true;
    }

    /// The other side has hung up. What it sent before is read all the same.
    #[cfg(feature = "client")]
    pub(crate) fn heard_hang_up(&mut self) {
        (self.readable, self.ending) = (true, true);
    }

    /// Moves what can be moved, both ways.
    pub(crate) fn turn(&mut self, socket: &Socket, scratch: &mut Scratch) {
        let moved = self.send(socket, scratch).and_then(|()| self.receive(socket, scratch));
        if let Err(fault) = moved {
            self.fault.get_or_insert(fault);
        }
    }

    /// Sends what the connection has committed, as far as the socket takes it.
    fn send(&mut self, socket: &Socket, scratch: &mut Scratch) -> Result<(), PumpFault> {
        while !self.deaf {
            let bytes = self.end.outgoing(scratch)?;
            if bytes.is_empty() {
                self.blocked = false;
                return Ok(());
            }
            let len = bytes.len();
            match socket.send(bytes) {
                Ok(count) => {
                    self.end.sent(count)?;
                    // A socket that takes a part takes no more, and gathering the rest for it again would be for nothing.
                    if count < len {
                        self.blocked = true;
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(());
                }
                Err(error) if is_hang_up(&error) => self.deaf = true,
                Err(error) => return Err(PumpFault::Io(error)),
            }
        }
        self.blocked = false;
        Ok(())
    }

    /// Reads what there is, as far as the ring has room.
    fn receive(&mut self, socket: &Socket, scratch: &mut Scratch) -> Result<(), PumpFault> {
        if self.fault.is_some() {
            return Ok(());
        }
        let (mut bytes, began) = (0, self.end.position());
        while self.end.put()? && self.readable {
            // As long as no record is whole, there is nothing that the connection could take.
            if bytes >= TURN_BYTES && self.end.position() != began && self.end.pause()? {
                return Ok(());
            }
            match socket.receive_some(self.end.space(scratch)) {
                Ok((0, _)) => return Err(PumpFault::HungUp),
                Ok((count, more)) => {
                    self.end.came(scratch, count)?;
                    bytes += count;
                    // What comes from now on is reported anew, but for a hang-up that was reported or announced.
                    self.readable = more || self.ending || self.end.is_last();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if is_hang_up(&error) => return Err(PumpFault::HungUp),
                Err(error) => return Err(PumpFault::Io(error)),
            }
        }
        Ok(())
    }

    /// Says something after all else, as far as the socket takes it now.
    #[cfg(feature = "server")]
    pub(crate) fn say_last(&self, socket: &Socket, bytes: &[u8]) {
        if !self.deaf && !self.end.has_unsent() {
            let _ = socket.send(bytes);
        }
    }

    /// Whether the socket may have bytes that were not read.
    #[cfg(feature = "server")]
    pub(crate) fn is_readable(&self) -> bool {
        self.readable
    }

    /// What the socket is to be watched for.
    pub(crate) fn interest(&self) -> Interest {
        if self.blocked { Interest::BytesOrRoom } else { Interest::Bytes }
    }

    /// Whether bytes wait for the socket to take them.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Why the connection is of no more use, if so. What came before is in its ring.
    pub(crate) fn fault(&self) -> Option<PumpFault> {
        self.fault.as_ref().map(PumpFault::again)
    }

    /// The end that is served.
    pub(crate) fn end(&mut self) -> &mut StreamEnd {
        &mut self.end
    }
}

impl PumpFault {
    /// The same, to be kept and told more than once.
    fn again(&self) -> Self {
        match self {
            Self::HungUp => Self::HungUp,
            Self::Violation(violation) => Self::Violation(*violation),
            Self::Io(error) => Self::Io(io::Error::new(error.kind(), error.to_string())),
        }
    }
}

impl From<Violation> for PumpFault {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}
