//! Honest clients: each has a connection of its own, calls in every way there is, and notes what it sees.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use bellrope::{
    CallError, Client,
    client::{ClientConfig, Transport},
};
use bellrope_testkit::{
    ledger::{Event, Flow, Outcome},
    payload,
};
use fastrand::Rng;

use crate::field::{Field, LARGEST, chunks_of};

/// Bits of a call's number that are its own; those above are its client's.
pub(crate) const OWN_BITS: u32 = 32;
const SMALL: usize = 500;
/// Milliseconds between two calls of a client: fifty of them are not to fill two processors.
const PAUSE_MS: std::ops::Range<u64> = 4..20;

/// What all honest clients share.
#[derive(Default)]
pub(crate) struct Crowd {
    pub(crate) stop: AtomicBool,
    /// Calls that have ended well.
    pub(crate) served: AtomicU64,
    /// What goes on beside them: a [`Phase`].
    phase: AtomicUsize,
}

/// What goes on beside the honest clients.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Phase {
    Peace,
    /// As many threads as there are noisy peers later use the processors, and touch no server.
    BusyThreads,
    Attacks,
    /// Noise of a process that may come as often as it likes.
    FreeNoise,
    /// The same, under the settings that hold by default.
    Noise,
}

impl Crowd {
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as usize, Relaxed);
    }
}

/// What a client has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) events: Vec<Event>,
    /// Microseconds that small calls took in each [`Phase`].
    pub(crate) took: [Vec<u64>; 5],
}

/// Calls until told to stop.
///
/// # Errors
/// The first call that ends as it should not.
pub(crate) fn live(field: &Field, crowd: &Crowd, number: u64, seed: u64) -> Result<Seen, String> {
    let mut config = ClientConfig::new(&field.path);
    config.call_timeout = Duration::from_secs(30);
    // Every fifth has no shared memory.
    if number % 5 == 0 {
        config.transport = Transport::Stream;
    }
    let client = Client::with(config).map_err(|error| format!("client {number}: {error}"))?;
    let mut seen = Seen::default();
    let mut rng = Rng::with_seed(seed ^ number);
    for call in 1.. {
        if crowd.stop.load(Relaxed) {
            break;
        }
        let call = number << OWN_BITS | call;
        let outcome = seen.call(&client, &mut rng, crowd, call).map_err(|error| format!("call {call:#x}: {error}"))?;
        seen.events.push(Event::Ended { call, outcome });
        crowd.served.fetch_add(1, Relaxed);
        std::thread::sleep(Duration::from_millis(rng.u64(PAUSE_MS)));
    }
    Ok(seen)
}

impl Seen {
    fn call(&mut self, client: &Client, rng: &mut Rng, crowd: &Crowd, call: u64) -> Result<Outcome, CallError> {
        self.events.push(Event::Begun { call, deadline_us: None });
        let kind = rng.u32(0..64);
        let len = if kind == 0 { LARGEST } else { rng.usize(payload::LEAST..SMALL) };
        let request = payload::of(call, len);
        match kind {
            0..=39 => {
                let began = Instant::now();
                let reply = client.call("now", &request)?;
                if kind > 0 {
                    let took = u64::try_from(began.elapsed().as_micros()).unwrap();
                    self.took[crowd.phase.load(Relaxed)].push(took);
                }
                assert_eq!(reply.len(), len);
                Ok(Outcome::Answered { by: payload::call_of(&reply) })
            }
            40..=51 => Ok(Outcome::Answered { by: payload::call_of(&client.call("delayed", &request)?) }),
            52..=57 => {
                let mut total = 0;
                for chunk in client.stream("numbers", &request)? {
                    let (made_for, number) = payload::chunk_of(&chunk?);
                    assert_eq!(made_for, call, "a chunk reaches its caller");
                    self.events.push(Event::Chunk { call, flow: Flow::Down, number });
                    total += 1;
                }
                assert_eq!(total, chunks_of(call));
                self.events.push(Event::Whole { call, flow: Flow::Down, total });
                Ok(Outcome::Finished)
            }
            _ => {
                let mut upload = client.client_stream("sum", &request)?;
                for number in 0..chunks_of(call) {
                    upload.send(&payload::chunk(call, number, payload::LEAST_CHUNK))?;
                }
                Ok(Outcome::Answered { by: payload::call_of(&upload.finish()?) })
            }
        }
    }
}
