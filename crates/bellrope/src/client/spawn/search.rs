//! Looking for a server, starting one, and waiting for it.

use std::{
    io,
    time::{Duration, Instant},
};

use bellrope_proto::handshake::{HandshakeError, HandshakeStatus};

use super::{error::SpawnError, lock::SpawnLock, program::Spawn, started::StartedServer};
use crate::{
    client::{
        config::ClientConfig,
        deadline::from_now,
        handshake::{self, Established},
    },
    error::ConnectError,
};

/// Between two looks for a server, at first.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// The same after some looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A search for a server.
pub(super) struct Search<'a> {
    config: ClientConfig,
    spawn: &'a Spawn,
    deadline: Instant,
}

/// What there is at the path.
enum Look {
    Found(Box<Established>),
    /// Nobody.
    Nobody,
    /// A server that is about to end.
    Leaving,
}

impl<'a> Search<'a> {
    pub(super) fn new(config: &ClientConfig, spawn: &'a Spawn) -> Self {
        Self { config: config.clone(), spawn, deadline: from_now(spawn.timeout) }
    }

    pub(super) fn run(mut self) -> Result<Established, SpawnError> {
        if let Look::Found(established) = self.look()? {
            return Ok(*established);
        }
        let mut lock = SpawnLock::of(&self.config.path)?;
        let mut started = None::<StartedServer>;
        let mut pause = FIRST_PAUSE;
        loop {
            // In this order: what has ended by now and left nobody here will never answer.
            let ended = started.as_mut().and_then(StartedServer::ended);
            match (self.look()?, ended, &started) {
                (Look::Found(established), ..) => return Ok(*established),
                (Look::Nobody, Some(status), Some(program)) => return Err(program.has_ended(status)),
                // It found another server at its path, and that one is leaving.
                (Look::Leaving, Some(_), _) => started = None,
                // With the lock it is looked again: whoever had it before may have started a server.
                (Look::Nobody, _, None) if !lock.is_held => {
                    if lock.try_take()? {
                        continue;
                    }
                }
                (Look::Nobody, _, None) => started = Some(StartedServer::start(self.spawn, &self.config.path)?),
                (Look::Nobody | Look::Leaving, None, _) => {}
            }
            if Instant::now() >= self.deadline {
                return Err(self.timed_out(started));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn look(&mut self) -> Result<Look, SpawnError> {
        match handshake::connect(&self.config) {
            Ok(established) => Ok(Look::Found(Box::new(established))),
            Err(ConnectError::NoServer { source, .. }) if is_nobody(&source) => Ok(Look::Nobody),
            Err(error) if is_leaving(&error) => Ok(Look::Leaving),
            Err(error) => Err(SpawnError::of_connecting(&self.config.path, error)),
        }
    }

    /// The end of the search, and of a server that did not answer: whoever comes next starts a fresh one.
    fn timed_out(&self, started: Option<StartedServer>) -> SpawnError {
        let (last_line, log) = started.map(StartedServer::give_up).unwrap_or_default();
        SpawnError::TimedOut { path: self.config.path.clone(), waited: self.spawn.timeout, last_line, log }
    }
}

/// Whether an error means that nobody listens, and not that we may not ask.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Whether a server says that it ends, or ended between the connection and its answer.
fn is_leaving(error: &ConnectError) -> bool {
    match error {
        ConnectError::Handshake(HandshakeError::Refused { status, .. }) => *status == HandshakeStatus::Draining,
        ConnectError::Io { source, .. } => matches!(
            source.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        ),
        _ => false,
    }
}
