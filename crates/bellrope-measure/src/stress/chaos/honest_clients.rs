//! Clients that do nothing wrong while everything around them does.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bellrope::{CallError, Client, client::ClientConfig};
use bellrope_shm::clock;

/// Clients, each with a thread.
const MANY: u64 = 4;
const SIZE: usize = 256;
/// Between two calls: they are not the load.
const PAUSE: Duration = Duration::from_micros(200);
/// A call that takes longer has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_micros(100);

/// They call until this is dropped.
pub(super) struct HonestClients {
    record: Arc<Record>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Record {
    stop: AtomicBool,
    /// Even, but for the time in which the server is away.
    away: AtomicU64,
    last_calls: [LastCall; MANY as usize],
    answered: AtomicU64,
    wrong: AtomicU64,
    /// Calls that ended with an error though the server was there all the time.
    failed: AtomicU64,
    /// Calls that a killed server left behind.
    lost: AtomicU64,
    first_failure: Mutex<Option<String>>,
}

/// The last call of one that was answered rightly: when it began and ended, on the monotonic clock.
#[derive(Default)]
struct LastCall {
    began_us: AtomicU64,
    ended_us: AtomicU64,
}

/// What they saw.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) answered: u64,
    pub(super) wrong: u64,
    pub(super) failed: u64,
    pub(super) lost: u64,
    pub(super) first_failure: Option<String>,
}

impl HonestClients {
    pub(super) fn start(config: &ClientConfig) -> anyhow::Result<Self> {
        let mut honest_clients = Self { record: Arc::default(), threads: Vec::new() };
        for number in 0..MANY {
            let mut config = config.clone();
            config.call_timeout = CALL_TIMEOUT;
            let client = Client::with(config)?;
            let record = Arc::clone(&honest_clients.record);
            let thread = std::thread::Builder::new().name(format!("bystander-{number}"));
            honest_clients.threads.push(thread.spawn(move || record.call_on(&client, number))?);
        }
        Ok(honest_clients)
    }

    /// Connections that they have.
    pub(super) fn connections() -> u64 {
        MANY
    }

    /// While `during` runs, the server may be away.
    pub(super) fn forgive<T>(&self, during: impl FnOnce() -> T) -> T {
        self.record.away.fetch_add(1, Release);
        let result = during();
        self.record.away.fetch_add(1, Release);
        result
    }

    /// Waits until every one of them has had a right answer to a call that began at this moment or later. Answers how
    /// long after it the last of them had; `None` if one did not within `patience`.
    pub(super) fn recovered(&self, from_us: u64, patience: Duration) -> Option<Duration> {
        let deadline = Instant::now() + patience;
        loop {
            let ends = self.record.last_calls.iter().map(|last| {
                let began = last.began_us.load(Acquire);
                (began >= from_us).then(|| last.ended_us.load(Relaxed))
            });
            if let Some(ends) = ends.collect::<Option<Vec<_>>>() {
                let last = ends.into_iter().max().unwrap_or(from_us);
                return Some(Duration::from_micros(last.saturating_sub(from_us)));
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(POLL);
        }
    }

    /// Ends them.
    pub(super) fn end(mut self) -> Seen {
        self.stop();
        let record = &self.record;
        Seen {
            answered: record.answered.load(Relaxed),
            wrong: record.wrong.load(Relaxed),
            failed: record.failed.load(Relaxed),
            lost: record.lost.load(Relaxed),
            first_failure: record.first_failure.lock().unwrap_or_else(PoisonError::into_inner).take(),
        }
    }

    fn stop(&mut self) {
        self.record.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked has not answered, and is found out by that.
            let _ = thread.join();
        }
    }
}

impl Drop for HonestClients {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Record {
    fn call_on(&self, client: &Client, number: u64) {
        let last = &self.last_calls[number as usize];
        let mut sent: Vec<u8> = (0..SIZE as u64).map(|index| (number * 31 + index) as u8).collect();
        let mut call = 0_u64;
        while !self.stop.load(Relaxed) {
            call += 1;
            sent[..8].copy_from_slice(&call.to_le_bytes());
            let away = self.away.load(Acquire);
            let began = clock::monotonic_us();
            let outcome = client.call("echo", &sent);
            match outcome {
                Ok(reply) if reply == sent => {
                    self.answered.fetch_add(1, Relaxed);
                    last.ended_us.store(clock::monotonic_us(), Relaxed);
                    // Releases the end to the acquire-load in `recovered`.
                    last.began_us.store(began, Release);
                }
                Ok(_) => drop(self.wrong.fetch_add(1, Relaxed)),
                Err(error) => {
                    let there = away.is_multiple_of(2) && self.away.load(Acquire) == away;
                    self.count_error(&error, there);
                }
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn count_error(&self, error: &CallError, server_was_there: bool) {
        let excused = matches!(error, CallError::NotExecuted | CallError::Unknown | CallError::Connect(_));
        if excused && !server_was_there {
            self.lost.fetch_add(1, Relaxed);
            return;
        }
        self.failed.fetch_add(1, Relaxed);
        let mut first = self.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use bellrope::HandlerError;
    use bellrope_testkit::local_server::LocalServer;

    use super::*;

    #[test]
    fn honest_clients_that_get_errors_have_not_recovered_and_say_why() {
        let server = LocalServer::start(|builder| {
            builder.unary("echo", |_, _| Err(HandlerError::invalid_request("the bell is cracked")))
        });
        let honest_clients = HonestClients::start(&ClientConfig::new(server.socket())).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while honest_clients.record.failed.load(Relaxed) == 0 {
            assert!(Instant::now() < deadline, "nobody calls");
            std::thread::sleep(POLL);
        }
        assert_eq!(honest_clients.recovered(1, Duration::from_millis(1)), None);
        let Seen { answered, wrong, failed, lost, first_failure } = honest_clients.end();
        assert!((answered, wrong, lost) == (0, 0, 0) && failed > 0, "{answered} {wrong} {failed} {lost}");
        assert_eq!(first_failure.as_deref(), Some("invalid_request: the bell is cracked"));
    }
}
