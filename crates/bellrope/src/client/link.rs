use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bellrope_proto::{
    Violation,
    connection::{Answer, ClientConnection, Expect, Loss, SubmitError},
    ring::Armed,
};
use bellrope_shm::{
    socket::{Drained, Socket},
    sync::spin_loop,
    wait,
};

use super::{ClientConfig, MessageType, handshake::Established, types::TypeTable};
use crate::{CallError, spin::Spinner};

/// Most doorbell bytes read at once; far more than an honest server ever sends.
const RINGS: usize = 64 * 1024;
/// Looks at the header word between two rounds of everything else.
const LINGER_POLLS: u32 = 8;
/// Fruitless polls between two looks for a hang-up, for a waiter that always spins.
const POLLS_PER_LOOK: u32 = 100_000;

/// One connection and how to wait on it.
#[derive(Debug)]
pub(crate) struct Link {
    socket: Arc<Socket>,
    pub(crate) connection: ClientConnection,
    pub(crate) types: TypeTable,
    spinner: Spinner,
    polls: u32,
    /// Set once the server is known to be gone, or to have broken the protocol.
    pub(crate) broken: Option<Broken>,
}

/// Why a link is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    HungUp,
    Violation(Violation),
}

/// What a waiter should do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Look again.
    Look,
    /// Look at the deadline and for a hang-up, then look again.
    Check,
    /// Sleep on the socket: the ring is armed.
    Sleep,
}

impl Link {
    pub(crate) fn new(established: Established, config: &ClientConfig) -> Self {
        let Established { socket, connection, types } = established;
        Self {
            socket: Arc::new(socket),
            connection,
            types,
            spinner: Spinner::new(config.spin, config.spin_cap),
            polls: 0,
            broken: None,
        }
    }

    pub(crate) fn socket(&self) -> Arc<Socket> {
        Arc::clone(&self.socket)
    }

    /// Sends a call, with the next [commit](Self::commit). `None`: the ring is full.
    #[inline(always)]
    pub(crate) fn submit(
        &mut self,
        message_type: MessageType,
        expect: Expect,
        payload: &[u8],
        time_left: Option<Duration>,
    ) -> Result<Option<u64>, CallError> {
        let time_left_us = time_left.map(|left| u64::try_from(left.as_micros()).unwrap_or(u64::MAX));
        match self.connection.submit(message_type.number, expect, payload, time_left_us) {
            Ok(id) => Ok(Some(id)),
            Err(SubmitError::Full) => Ok(None),
            Err(SubmitError::TooManyInFlight { limit }) => Err(CallError::TooManyInFlight { limit }),
            Err(SubmitError::TooLarge { size, limit }) => Err(CallError::TooLarge { size, limit }),
            Err(SubmitError::Violation(violation)) => Err(self.violated(violation)),
        }
    }

    /// The next answer, if one came.
    #[inline(always)]
    pub(crate) fn next_answer(&mut self) -> Result<Option<Answer>, CallError> {
        self.connection.next_answer().map_err(|violation| self.violated(violation))
    }

    /// Takes an answer that [`Self::next_answer`] gave.
    #[inline(always)]
    pub(crate) fn take(&mut self, answer: &Answer, into: &mut [u8]) {
        self.connection.take(answer, into);
        self.spinner.found();
    }

    pub(crate) fn consumed(&mut self, id: u64, len: usize) -> Result<(), CallError> {
        let consumed = self.connection.consumed(id, len);
        self.commit();
        consumed.map_err(|violation| self.violated(violation))
    }

    pub(crate) fn cancel(&mut self, id: u64) {
        let cancelled = self.connection.cancel(id);
        self.commit();
        if let Err(violation) = cancelled {
            self.violated(violation);
        }
    }

    /// After a look that found nothing: spins a little, or arms the ring for sleep.
    #[inline]
    pub(crate) fn rest(&mut self, for_room: bool) -> Result<Rest, CallError> {
        if self.spinner.keep_on() {
            for _ in 0..LINGER_POLLS {
                if self.connection.is_ready() {
                    return Ok(Rest::Look);
                }
                spin_loop();
            }
            return self.idle();
        }
        self.arm(for_room)
    }

    /// Counts a fruitless poll; now and then looks for a hang-up.
    #[inline]
    pub(crate) fn idle(&mut self) -> Result<Rest, CallError> {
        self.polls += 1;
        if self.polls < POLLS_PER_LOOK {
            return Ok(Rest::Look);
        }
        self.polls = 0;
        self.hear()?;
        Ok(Rest::Check)
    }

    /// Arms the ring, so that the server will ring for what comes next.
    pub(crate) fn arm(&mut self, for_room: bool) -> Result<Rest, CallError> {
        let armed = self.connection.arm(for_room);
        self.commit();
        match armed.map_err(|violation| self.violated(violation))? {
            Armed::Ready => Ok(Rest::Look),
            Armed::Asleep => Ok(Rest::Sleep),
        }
    }

    /// After a sleep: takes the rings, notes a hang-up, and prepares to look again.
    pub(crate) fn woke(&mut self, slept: Duration) -> Result<(), CallError> {
        self.spinner.slept(slept);
        self.hear()?;
        self.connection.disarm();
        self.connection.flush().map_err(|violation| self.violated(violation))?;
        self.commit();
        Ok(())
    }

    /// Takes the rings and notes a hang-up.
    pub(crate) fn hear(&mut self) -> Result<(), CallError> {
        if self.socket.drain(RINGS)? == Drained::HungUp {
            self.broken.get_or_insert(Broken::HungUp);
        }
        Ok(())
    }

    /// How a call under way ends now that the link is broken and every answer that came was taken.
    pub(crate) fn loss(&mut self, id: u64) -> CallError {
        match (self.broken, self.connection.loss(id)) {
            (Some(Broken::Violation(violation)), _) => CallError::Violation(violation),
            (_, Loss::NotExecuted) => CallError::NotExecuted,
            (_, Loss::Unknown) => CallError::Unknown,
        }
    }

    /// Sleeps until the server rings, at most `timeout`.
    pub(crate) fn sleep(&mut self, timeout: Duration) -> Result<(), CallError> {
        let since = Instant::now();
        sleep(&self.socket, timeout)?;
        self.woke(since.elapsed())
    }

    /// Commits what was sent, and rings if the server sleeps.
    #[inline(always)]
    pub(crate) fn commit(&mut self) {
        if self.connection.commit().needed() {
            self.socket.ring();
        }
    }

    #[cold]
    fn violated(&mut self, violation: Violation) -> CallError {
        self.broken = Some(Broken::Violation(violation));
        CallError::Violation(violation)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Others may hold the socket to sleep on it; they and the server are to learn of the end at once.
        self.socket.shutdown();
    }
}

/// Sleeps until the socket has something, at most `timeout`.
pub(crate) fn sleep(socket: &Socket, timeout: Duration) -> io::Result<()> {
    wait::readable(socket, Some(timeout)).map(drop)
}
