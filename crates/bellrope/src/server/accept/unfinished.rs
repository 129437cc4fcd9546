//! A handshake under way, and how its hello is read.

use std::{
    io,
    time::{Duration, Instant},
};

use bellrope_proto::handshake::{HELLO_LEN, HandshakeError, HandshakeStatus, Hello, VERSION};
use bellrope_shm::socket::{PeerCredentials, Socket};

use super::pages::Paging;

/// A handshake under way.
pub(crate) enum UnfinishedHandshake {
    /// Its hello is awaited.
    Hello(HalfOpen),
    /// Its client has yet to take all pages of the table.
    Pages(Paging),
}

/// A handshake of which the hello is awaited.
pub(crate) struct HalfOpen {
    pub(crate) socket: Socket,
    pub(crate) peer: PeerCredentials,
    pub(crate) hello: [u8; HELLO_LEN],
    pub(crate) filled: usize,
    pub(crate) deadline: Instant,
}

/// A handshake that has to wait because of what its process did.
pub(crate) struct WaitingHandshake {
    pub(crate) socket: Socket,
    pub(crate) peer: PeerCredentials,
    pub(crate) due: Instant,
    /// How long its process has to stay away, if it is turned away then.
    pub(crate) turned_away: Option<Duration>,
}

/// What came of reading a hello.
pub(crate) enum HelloOutcome {
    NotYet,
    Hello(Hello),
    Refuse(HandshakeStatus, String),
    /// The client hung up first, or its socket failed.
    Gone(Option<io::Error>),
}

impl UnfinishedHandshake {
    pub(crate) fn socket(&self) -> &Socket {
        match self {
            Self::Hello(half_open) => &half_open.socket,
            Self::Pages(paging) => &paging.socket,
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        match self {
            Self::Hello(half_open) => half_open.deadline,
            Self::Pages(paging) => paging.deadline,
        }
    }
}

impl HalfOpen {
    /// Reads what there is of the hello.
    pub(crate) fn read(&mut self) -> HelloOutcome {
        while self.filled < HELLO_LEN {
            match self.socket.receive(&mut self.hello[self.filled..]) {
                Ok(count @ 1..) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return HelloOutcome::NotYet,
                Ok(0) => return HelloOutcome::Gone(None),
                Err(error) => return HelloOutcome::Gone(Some(error)),
            }
        }
        match Hello::decode(&self.hello) {
            Ok(hello) => HelloOutcome::Hello(hello),
            Err(HandshakeError::Version { theirs }) => {
                let (ours_major, ours_minor) = VERSION;
                let text = format!(
                    "this server speaks version {ours_major}.{ours_minor}, the client {}.{}",
                    theirs.0, theirs.1
                );
                HelloOutcome::Refuse(HandshakeStatus::Version, text)
            }
            Err(error) => HelloOutcome::Refuse(HandshakeStatus::Malformed, error.to_string()),
        }
    }
}
