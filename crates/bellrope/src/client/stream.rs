//! A link over transport 1: whoever holds it moves its records between the socket and private rings.

use std::{io, sync::Arc};

use bellrope_proto::stream::{Scratch, StreamEnd};
use bellrope_shm::{
    socket::Socket,
    wait::{Interest, Notifier},
};

use crate::{
    kill_points::KillPoint,
    pump::{Pump, PumpFault},
};

/// What moves the records of one link.
#[derive(Debug)]
pub(super) struct LinkStream {
    pump: Pump,
    scratch: Scratch,
    /// Who is to be woken when the socket takes no more: it may sleep on its bytes alone.
    sleeper: Option<Arc<Notifier>>,
}

impl LinkStream {
    pub(super) fn new(end: StreamEnd) -> Self {
        Self { pump: Pump::new(end), scratch: Scratch::new(), sleeper: None }
    }

    pub(super) fn wake_when_blocked(&mut self, sleeper: &Arc<Notifier>) {
        self.sleeper = Some(Arc::clone(sleeper));
    }

    /// The socket may have something to say: moves what can be moved.
    pub(super) fn hear(&mut self, socket: &Socket) -> io::Result<()> {
        self.pump.heard();
        self.turn(socket);
        match self.pump.fault() {
            Some(PumpFault::Io(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// The server has hung up: moves what it sent before.
    pub(super) fn hear_hang_up(&mut self, socket: &Socket) {
        self.pump.heard_hang_up();
        self.turn(socket);
    }

    /// Moves what can be moved.
    pub(super) fn turn(&mut self, socket: &Socket) {
        let was_blocked = self.pump.is_blocked();
        self.pump.turn(socket, &mut self.scratch);
        if let (false, true, Some(sleeper)) = (was_blocked, self.pump.is_blocked(), &self.sleeper) {
            sleeper.wake();
        }
        KillPoint::ClientStreamMoved.reached();
    }

    /// Whether the connection has to look at its rings again since this was last asked.
    pub(super) fn moved(&mut self) -> bool {
        self.pump.end().woke()
    }

    /// Why nothing more comes, once everything that came is in the ring.
    pub(super) fn fault(&self) -> Option<PumpFault> {
        self.pump.fault()
    }

    pub(super) fn interest(&self) -> Interest {
        self.pump.interest()
    }
}
