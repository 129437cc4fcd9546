//! A client process: threads that call in every way there is, and note how each call ends.

use std::{
    collections::HashMap,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use bellrope::{
    CallError, Client,
    client::{
        CallOptions, CancelToken, ClientConfig, ConnectError, Connection, Rejection, Retry, SpinPolicy, Transport,
    },
};
use fastrand::Rng;

use super::{
    conventions::{PATIENCE, chunks_of, until_dismissed},
    journal::Journal,
};
use crate::{
    ledger::{Event, Flow, Outcome},
    payload,
};

/// Threads of a client process that call and are answered. One more watches.
pub(super) const CALLERS: u64 = 5;
const WATCHER: u64 = CALLERS;
/// Bits of a call's number: its client's, its thread's, and one of its own.
const CLIENT: u32 = 40;
const CALLER: u32 = 32;
/// A request that travels in one record, and one that may need several.
const SMALL: usize = 500;
const LARGE: usize = 40_000;
/// Most microseconds between two calls of a thread: there is to be time for kills on a small machine.
const THOUGHT_US: u64 = 2_000;
/// Most calls under way at once on an exclusive connection.
const DEPTH: usize = 12;
/// How long a watch lasts at the most: longer than any run.
const WATCH: Duration = Duration::from_secs(3600);
/// Turns on an exclusive connection, on average, before it is closed for another.
const TURNS: u32 = 200;

/// The thread that made a call.
pub(super) fn caller_of(call: u64) -> u64 {
    (call >> CALLER) & 0xFF
}

/// The client that made a call.
pub(super) fn client_of(call: u64) -> u64 {
    call >> CLIENT
}

/// Whether a call is one of those that are never answered.
pub(super) fn is_watch(call: u64) -> bool {
    caller_of(call) == WATCHER
}

pub(super) fn run(number: u64, seed: u64, socket: &Path, journal: &Path) {
    let journal = Journal::create(journal);
    let mut config = ClientConfig::new(socket);
    config.reconnect_timeout = PATIENCE;
    config.call_timeout = PATIENCE;
    if number.is_multiple_of(2) {
        config.spin = SpinPolicy::Never;
    }
    if number.is_multiple_of(3) {
        config.transport = Transport::Stream;
    }
    let (dismissed, end_of_watch) = (AtomicBool::new(false), CancelToken::new());
    let client = patiently(|| Client::with(config.clone()));
    std::thread::scope(|scope| {
        for caller in 0..=WATCHER {
            let (client, journal, config, dismissed) = (client.clone(), &journal, &config, &dismissed);
            let end_of_watch = &end_of_watch;
            scope.spawn(move || {
                let first = (number << CLIENT) | (caller << CALLER);
                let mut caller = Caller { rng: Rng::with_seed(seed ^ first), journal, next: first, dismissed };
                match caller_of(first) {
                    0 | 1 => caller.call_by(&client),
                    2 | 3 => caller.stream_by(&client),
                    WATCHER => caller.watch(&client, end_of_watch),
                    _ => caller.call_over_connections(config),
                }
            });
        }
        until_dismissed();
        dismissed.store(true, Ordering::Release);
        end_of_watch.cancel();
    });
}

/// A thread that calls.
struct Caller<'a> {
    rng: Rng,
    journal: &'a Journal,
    next: u64,
    dismissed: &'a AtomicBool,
}

impl Caller<'_> {
    fn goes_on(&self) -> bool {
        !self.dismissed.load(Ordering::Acquire)
    }

    /// A fresh call and its request, of so many bytes at most.
    fn draw(&mut self, most: usize) -> (u64, Vec<u8>) {
        self.next += 1;
        (self.next, payload::of(self.next, self.rng.usize(payload::LEAST..=most)))
    }

    /// Begins a call, after a moment's thought.
    fn begin(&mut self) -> (u64, Vec<u8>) {
        std::thread::sleep(Duration::from_micros(self.rng.u64(0..THOUGHT_US)));
        let most = if self.rng.u32(0..24) == 0 { LARGE } else { SMALL };
        let (call, request) = self.draw(most);
        self.journal.note(&Event::Begun { call, deadline_us: None });
        (call, request)
    }

    fn end(&self, call: u64, outcome: Outcome) {
        self.journal.note(&Event::Ended { call, outcome });
    }

    /// Calls over the connection that threads share; what was proven not to have run is sent again, more often than not.
    fn call_by(&mut self, client: &Client) {
        while self.goes_on() {
            let (call, request) = self.begin();
            let name = if self.rng.bool() { "now" } else { "later" };
            let mut options = CallOptions::new();
            if self.rng.u32(0..4) > 0 {
                options = options.retry(Retry::NotExecuted);
            }
            if self.rng.u32(0..16) == 0 {
                options = options.timeout(Duration::from_micros(self.rng.u64(0..2_000)));
            }
            let ended = match client.call_with(name, &request, &options) {
                Ok(reply) => Outcome::Answered { by: payload::call_of(&reply) },
                Err(error) => outcome_of(&error),
            };
            self.end(call, ended);
        }
    }

    /// Has a stream under way that nothing comes of but the news that the server is gone.
    fn watch(&mut self, client: &Client, end: &CancelToken) {
        let options = CallOptions::new().timeout(WATCH).cancel(end);
        while self.goes_on() {
            let (call, request) = self.draw(payload::LEAST);
            self.journal.note(&Event::Begun { call, deadline_us: None });
            let news = client.stream_with("watch", &request, &options).map(|mut stream| stream.next());
            let ended = match news {
                Ok(Some(Err(error))) | Err(error) => outcome_of(&error),
                Ok(other) => panic!("{other:?} came of a call that is never answered"),
            };
            self.end(call, ended);
        }
    }

    fn stream_by(&mut self, client: &Client) {
        while self.goes_on() {
            let (call, request) = self.begin();
            let ended = match self.rng.u32(0..3) {
                0 => self.download(client, call, &request),
                1 => self.upload(client, call, &request),
                _ => self.exchange(client, call, &request),
            };
            self.end(call, ended.unwrap_or_else(|error| outcome_of(&error)));
        }
    }

    /// A stream from the server, now and then not read to its end.
    fn download(&mut self, client: &Client, call: u64, request: &[u8]) -> Result<Outcome, CallError> {
        let stream = client.stream("count", request)?;
        self.read(stream, call)
    }

    fn read(
        &mut self,
        stream: impl Iterator<Item = Result<Vec<u8>, CallError>>,
        call: u64,
    ) -> Result<Outcome, CallError> {
        let enough = if self.rng.u32(0..8) == 0 { self.rng.u64(0..20) } else { u64::MAX };
        let flow = Flow::Down;
        for (count, chunk) in (0..).zip(stream) {
            let (made_for, number) = payload::chunk_of(&chunk?);
            assert_eq!(made_for, call, "a chunk reaches its caller");
            self.journal.note(&Event::Chunk { call, flow, number });
            if count >= enough {
                return Ok(Outcome::GivenUp);
            }
        }
        self.journal.note(&Event::Whole { call, flow, total: chunks_of(call) });
        Ok(Outcome::Finished)
    }

    /// A stream to the server, now and then given up before its end.
    fn upload(&mut self, client: &Client, call: u64, request: &[u8]) -> Result<Outcome, CallError> {
        let mut upload = client.client_stream("sum", request)?;
        let enough = if self.rng.u32(0..4) == 0 { self.rng.u64(0..20) } else { u64::MAX };
        for number in 0..chunks_of(call) {
            if number >= enough {
                return Ok(Outcome::GivenUp);
            }
            if !upload.send(&payload::chunk(call, number, payload::LEAST_CHUNK))? {
                break;
            }
        }
        Ok(Outcome::Answered { by: payload::call_of(&upload.finish()?) })
    }

    fn exchange(&mut self, client: &Client, call: u64, request: &[u8]) -> Result<Outcome, CallError> {
        let (mut sink, stream) = client.duplex("both", request)?;
        for number in 0..chunks_of(call) {
            if !sink.send(&payload::chunk(call, number, payload::LEAST_CHUNK))? {
                break;
            }
        }
        sink.finish();
        self.read(stream, call)
    }

    /// Calls over connections of this thread's own, one at a time or many at once.
    fn call_over_connections(&mut self, config: &ClientConfig) {
        // Numbers of connections are as unique as those of calls.
        let mut connection_number = self.next;
        while self.goes_on() {
            let mut config = config.clone();
            config.transport = if self.rng.bool() { Transport::Stream } else { Transport::Shm };
            let mut connection = patiently(|| Connection::with(&config));
            connection_number += 1;
            let mut alive = true;
            while alive && self.goes_on() && self.rng.u32(0..TURNS) > 0 {
                alive = if self.rng.bool() {
                    self.call_once(&mut connection, connection_number)
                } else {
                    self.call_at_once(&mut connection, connection_number)
                };
            }
        }
    }

    /// Answers whether the connection is still there.
    fn call_once(&mut self, connection: &mut Connection, number: u64) -> bool {
        let message_type = connection.message_type("now").unwrap();
        let (call, request) = self.begin();
        self.journal.note(&Event::Sent { call, connection: number });
        let mut reply = Vec::new();
        match connection.call(message_type, &request, &mut reply) {
            Ok(()) => self.end(call, Outcome::Answered { by: payload::call_of(&reply) }),
            Err(error) => {
                self.end(call, outcome_of(&error));
                return false;
            }
        }
        true
    }

    /// Answers whether the connection is still there.
    fn call_at_once(&mut self, connection: &mut Connection, number: u64) -> bool {
        let message_type = connection.message_type("now").unwrap();
        let mut under_way = HashMap::new();
        for _ in 0..self.rng.usize(1..DEPTH) {
            let (call, request) = self.draw(SMALL);
            // It may leave before it is flushed.
            self.journal.note(&Event::Begun { call, deadline_us: None });
            self.journal.note(&Event::Sent { call, connection: number });
            match connection.queue(message_type, &request).unwrap() {
                Some(id) => drop(under_way.insert(id, call)),
                None => self.end(call, Outcome::NotExecuted),
            }
        }
        connection.flush();
        let mut reply = Vec::new();
        while !under_way.is_empty() {
            match connection.wait(&mut reply) {
                Ok(completion) => {
                    let call = under_way.remove(&completion.id).expect("a call ends once");
                    self.end(
                        call,
                        match completion.outcome {
                            Ok(()) => Outcome::Answered { by: payload::call_of(&reply) },
                            Err(error) => outcome_of(&error),
                        },
                    );
                }
                Err(error) => panic!("{} calls have not ended: {error}", under_way.len()),
            }
        }
        connection.is_healthy()
    }
}

/// What an error says of its call. One that no kill explains ends the process, and with it the test.
fn outcome_of(error: &CallError) -> Outcome {
    match error {
        CallError::NotExecuted | CallError::Connect(_) => Outcome::NotExecuted,
        CallError::Unknown => Outcome::Unknown,
        CallError::DeadlineExceeded | CallError::Cancelled => Outcome::GivenUp,
        CallError::Rejected { reason: Rejection::Draining, .. } => Outcome::Refused,
        error => panic!("{error}"),
    }
}

/// Tries until there is a server.
fn patiently<T>(mut connect: impl FnMut() -> Result<T, ConnectError>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match connect() {
            Ok(connected) => return connected,
            Err(error) => assert!(Instant::now() < deadline, "not connected within {PATIENCE:?}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
