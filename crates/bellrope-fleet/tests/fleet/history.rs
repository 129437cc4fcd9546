//! Instances are killed at random moments while calls go on. Afterwards the notes of all instances, dead and alive, are put
//! beside what the callers were told: no call ran twice, none that was answered did not run, and none ran of which it was said
//! that it had not.
//!
//! A run says its seed. `BELLROPE_FLEET_KILLS=n` asks for so many kills.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bellrope::{CallError, Client};
use fastrand::Rng;

use bellrope_testkit::nats::{Nats, Way, eventually};

use crate::servers::{Process, importing, notes};

const KILLS: u64 = 30;
const CALLERS: u64 = 4;

/// What a caller was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Told {
    Answered,
    NotExecuted,
    Unknown,
}

/// What callers were told of each call.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<HashMap<u64, Told>>);

impl History {
    pub(crate) fn note(&self, call: u64, told: Told) {
        self.0.lock().unwrap().insert(call, told);
    }

    /// How many were told this.
    pub(crate) fn count(&self, outcome: Told) -> usize {
        self.0.lock().unwrap().values().filter(|told| **told == outcome).count()
    }

    /// Puts the notes of these members beside it. Answers how many were told what.
    pub(crate) fn check(&self, members: &[(&str, &Path)]) -> HashMap<Told, u64> {
        let mut ran = HashMap::<u64, u32>::new();
        for (member, home) in members {
            let noted = std::fs::read(notes(home, member)).unwrap_or_default();
            for call in noted.chunks_exact(8) {
                *ran.entry(u64::from_le_bytes(call.try_into().unwrap())).or_default() += 1;
            }
        }
        let mut tally = HashMap::<Told, u64>::new();
        for (call, told) in &*self.0.lock().unwrap() {
            let ran = ran.get(call).copied().unwrap_or(0);
            let is_true = match told {
                Told::Answered => ran == 1,
                Told::NotExecuted => ran == 0,
                Told::Unknown => ran <= 1,
            };
            assert!(is_true, "call {call} was told as {told:?} and ran {ran} times");
            *tally.entry(*told).or_default() += 1;
        }
        tally
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a run says how it can be repeated, and what it has seen")]
fn after_any_kill_every_call_has_one_outcome_and_it_is_true() {
    let Some(nats) = Nats::start() else { return };
    let seed = std::env::var("BELLROPE_FLEET_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    let kills = std::env::var("BELLROPE_FLEET_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    eprintln!("BELLROPE_FLEET_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let way = Way::to(nats.port);
    let mut members: Vec<_> =
        (0..3_u64).map(|n| Process::start("offer", &nats.url(), nats.home(), &n.to_string())).collect();
    let mut started = 3_u64;
    let here = importing(&way.url());
    let client = here.client();
    let (stop, number, told) = (AtomicBool::new(false), AtomicU64::new(1), History::default());
    let mut slowest = Duration::ZERO;
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (client, stop, number, told) = (&client, &stop, &number, &told);
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let call = number.fetch_add(1, Ordering::SeqCst);
                    let outcome = if caller == 0 { stream(client, call) } else { unary(client, call) };
                    told.note(call, outcome);
                }
            });
        }
        for _ in 0..kills {
            let (killed, place) = (Instant::now(), rng.usize(..members.len()));
            // When, is a matter of chance: nothing is waited for.
            std::thread::sleep(Duration::from_millis(rng.u64(..60)));
            if rng.u8(..8) == 0 {
                way.cut();
                way.heal();
            }
            members[place].kill();
            members[place] = Process::start("offer", &nats.url(), nats.home(), &started.to_string());
            started += 1;
            let before = told.count(Told::Answered);
            eventually("calls are answered again", || told.count(Told::Answered) > before);
            slowest = slowest.max(killed.elapsed());
        }
        stop.store(true, Ordering::SeqCst);
    });
    members.iter_mut().for_each(Process::kill);

    let names: Vec<_> = (0..started).map(|member| member.to_string()).collect();
    let members: Vec<_> = names.iter().map(|name| (name.as_str(), nats.home())).collect();
    let tally = told.check(&members);
    eprintln!("{kills} kills; answered again within {slowest:.1?}; {tally:?}");
    assert!(tally.get(&Told::Answered).is_some_and(|answered| *answered > kills), "too little happened: {tally:?}");
}

pub(crate) fn unary(client: &Client, call: u64) -> Told {
    match client.call("echo", &call.to_le_bytes()) {
        Ok(answer) => {
            assert_eq!(answer, call.to_le_bytes());
            Told::Answered
        }
        Err(error) => outcome(&error),
    }
}

pub(crate) fn stream(client: &Client, call: u64) -> Told {
    let mut due = 0_u32;
    for chunk in client.stream("count", &call.to_le_bytes()).unwrap() {
        match chunk {
            Ok(chunk) => {
                assert_eq!(chunk, due.to_le_bytes(), "a chunk is missing");
                due += 1;
            }
            Err(error) => return outcome(&error),
        }
    }
    assert_eq!(due, 50, "half a stream was told as whole");
    Told::Answered
}

fn outcome(error: &CallError) -> Told {
    match error {
        CallError::NotExecuted | CallError::Rejected { .. } => Told::NotExecuted,
        CallError::Unknown => Told::Unknown,
        other => panic!("an outcome that nobody can do anything with: {other:?}"),
    }
}
