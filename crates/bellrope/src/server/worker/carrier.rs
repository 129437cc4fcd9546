//! What moves the records of one connection over transport 1 between its socket and its private rings.

use std::sync::{Arc, Mutex, PoisonError};

use bellrope_proto::stream::{Scratch, StreamEnd};
use bellrope_shm::{socket::Socket, wait::EdgeWatch};

use crate::{
    kill_points::KillPoint,
    pump::{Pump, PumpFault},
    status::Counted,
};

/// What moves the records of one connection.
#[derive(Debug)]
pub(crate) struct Carrier {
    pump: Pump,
    watch: EdgeWatch,
    /// That of its worker: nobody ever waits for it.
    scratch: Arc<Mutex<Scratch>>,
    /// Whether the connection has to look at its rings again.
    moved: bool,
    /// Counts it for as long as it is there.
    _counted: Counted,
}

impl Carrier {
    pub(crate) fn new((end, counted): (StreamEnd, Counted), watch: EdgeWatch, scratch: Arc<Mutex<Scratch>>) -> Self {
        Self { pump: Pump::new(end), watch, scratch, moved: false, _counted: counted }
    }

    /// The socket has something to say: moves what can be moved.
    pub(crate) fn hear(&mut self, socket: &Socket) {
        self.pump.heard();
        self.turn(socket);
    }

    /// Moves what can be moved, and has the socket watched for room if it takes no more.
    pub(crate) fn turn(&mut self, socket: &Socket) {
        self.pump.turn(socket, &mut self.scratch.lock().unwrap_or_else(PoisonError::into_inner));
        self.moved |= self.pump.end().woke();
        // It fails for no socket that is watched.
        let watched = self.watch.watch_for(socket, self.pump.interest());
        debug_assert!(watched.is_ok(), "{watched:?}");
        KillPoint::StreamMoved.reached();
    }

    /// Whether the connection has to look at its rings again since this was last asked, or why it ends.
    pub(crate) fn moved(&mut self) -> Result<bool, PumpFault> {
        match self.pump.fault() {
            Some(fault) => Err(fault),
            None => Ok(std::mem::take(&mut self.moved)),
        }
    }

    /// Whether [`Self::moved`] has something to say.
    #[cfg(feature = "tokio")]
    pub(crate) fn wants_care(&self) -> bool {
        self.moved || self.pump.fault().is_some()
    }

    /// How much came in all, if its client has left half a record there, and nothing else that could be read.
    pub(crate) fn unfinished(&mut self) -> Option<u64> {
        if self.pump.is_readable() { None } else { self.pump.end().unfinished() }
    }

    /// Whether answers wait for the socket to take them.
    pub(crate) fn is_blocked(&self) -> bool {
        self.pump.is_blocked()
    }

    /// Says, once everything else is said, how many requests were taken, of those that came but so many. If the socket does
    /// not take it now, it is left unsaid.
    pub(crate) fn say_farewell(&mut self, socket: &Socket, untaken: u64) {
        let taken = self.pump.end().requests() - untaken;
        self.pump.say_last(socket, &StreamEnd::last_words(taken));
    }
}
