//! Connections whose every answer is compared with what was sent.

use bellrope::{
    CallError,
    client::{ClientConfig, Connection, MessageType},
};

/// What became of calls.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    /// Answered with what was sent.
    pub(super) answered: u64,
    /// Answered with something else.
    pub(super) wrong: u64,
    /// Refused, by a limit that said so.
    pub(super) refused: u64,
    /// Ended in any other way.
    pub(super) failed: u64,
    /// What the first of those said.
    pub(super) first_failure: Option<String>,
}

/// A connection, and the one call that is under way on it at a time.
pub(super) struct Caller {
    connection: Connection,
    echo: MessageType,
    /// What was sent last: numbers that only this call has, then bytes that only this caller has.
    sent: Vec<u8>,
    calls: u64,
    ended: u64,
    waiting: bool,
    /// It is of no more use.
    broken: bool,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.wrong += other.wrong;
        self.refused += other.refused;
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }

    pub(super) fn count(&mut self, outcome: Result<bool, CallError>) {
        match outcome {
            Ok(true) => self.answered += 1,
            Ok(false) => self.wrong += 1,
            Err(CallError::Rejected { .. } | CallError::Exhausted { .. }) => self.refused += 1,
            Err(error) => {
                self.failed += 1;
                self.first_failure.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

impl Caller {
    /// Connects. Each caller has a `number` of its own; its calls have `size` bytes, at least 16.
    pub(super) fn connect(config: &ClientConfig, number: u64, size: usize) -> anyhow::Result<Self> {
        let connection = Connection::with(config)?;
        let echo = connection.message_type("echo")?;
        let mut sent: Vec<u8> = (0..size as u64).map(|index| (number.wrapping_mul(31) + index) as u8).collect();
        sent[8..16].copy_from_slice(&number.to_le_bytes());
        Ok(Self { connection, echo, sent, calls: 0, ended: 0, waiting: false, broken: false })
    }

    /// Calls begun.
    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    /// Calls that ended, however, on a connection that goes on.
    pub(super) fn ended(&self) -> u64 {
        self.ended
    }

    /// Whether nothing is under way, or ever will be again.
    pub(super) fn is_idle(&self) -> bool {
        self.broken || !self.waiting
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Takes the answer if it has come, and sends the next call if one is `due` and the last is answered. For calls that
    /// fit a record.
    pub(super) fn turn(&mut self, due: bool, reply: &mut Vec<u8>, tally: &mut Tally) {
        if self.broken {
            return;
        }
        if self.waiting {
            match self.connection.poll(reply) {
                Ok(None) => return,
                Ok(Some(completion)) => self.settle(completion.outcome, reply, tally),
                Err(error) => return self.give_up(error, tally),
            }
            self.waiting = false;
        }
        if due {
            self.number_call();
            match self.connection.submit(self.echo, &self.sent) {
                Ok(_) => self.waiting = true,
                Err(error) => self.give_up(error, tally),
            }
        }
    }

    /// Calls and waits for the answer.
    pub(super) fn call(&mut self, reply: &mut Vec<u8>, tally: &mut Tally) {
        if self.broken {
            return;
        }
        self.number_call();
        let outcome = self.connection.call(self.echo, &self.sent, reply);
        self.settle(outcome, reply, tally);
        self.broken = !self.connection.is_healthy();
    }

    /// Sends a call whose answer nobody will take.
    pub(super) fn send_and_forget(&mut self) -> Result<(), CallError> {
        self.number_call();
        self.connection.submit(self.echo, &self.sent).map(drop)
    }

    fn number_call(&mut self) {
        self.calls += 1;
        self.sent[..8].copy_from_slice(&self.calls.to_le_bytes());
    }

    fn settle(&mut self, outcome: Result<(), CallError>, reply: &[u8], tally: &mut Tally) {
        self.ended += 1;
        tally.count(outcome.map(|()| reply == self.sent));
    }

    fn give_up(&mut self, error: CallError, tally: &mut Tally) {
        tally.count(Err(error));
        (self.waiting, self.broken) = (false, true);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use bellrope_testkit::local_server::LocalServer;

    use super::*;

    #[test]
    fn a_caller_whose_server_is_gone_counts_what_failed_and_calls_no_more() {
        let server = LocalServer::echo();
        let (mut tally, mut reply) = (Tally::default(), Vec::new());
        let mut caller = Caller::connect(&ClientConfig::new(server.socket()), 1, 64).unwrap();
        caller.call(&mut reply, &mut tally);
        assert_eq!((tally.answered, tally.failed, caller.is_broken()), (1, 0, false));
        server.stop();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !caller.is_broken() {
            assert!(Instant::now() < deadline, "the loss is not noticed: {tally:?}");
            caller.turn(true, &mut reply, &mut tally);
        }
        assert!(caller.is_idle() && tally.failed > 0 && tally.first_failure.is_some(), "{tally:?}");
        let (calls, failed) = (caller.calls(), tally.failed);
        caller.turn(true, &mut reply, &mut tally);
        caller.call(&mut reply, &mut tally);
        assert_eq!((caller.calls(), tally.failed, tally.answered), (calls, failed, 1));
    }
}
