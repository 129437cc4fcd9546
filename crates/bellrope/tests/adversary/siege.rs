//! Two hundred hostile connections of every kind at once, niced, in a process of their own. Beside them every honest call,
//! stream and handshake succeeds. How long these took is printed beside what they took next to as many well-behaved
//! connections that make both processes use as much CPU and are made anew as often: a time would judge by luck.
//!
//! `BELLROPE_SIEGE_SECONDS=n` is how long each of the two lasts. `BELLROPE_SIEGE_KINDS=calls,streams` leaves it to the kinds
//! whose names have one of these words (empty: all), and lets them in whatever they break, to find out which delays others.

mod attackers;
mod honest_clients;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bellrope::server::ServerConfig;
use bellrope_testkit::{
    raw::shake_hands,
    role,
    support::{TestServer, eventually, serve},
};
use fastrand::Rng;

use crate::{one_at_a_time, say, say_nothing_of_handlers_that_panic};
use attackers::{AttackKind, KINDS};
use honest_clients::{Task, Took};

const ATTACKERS: &str = "attackers";
const CONTROL: &str = "control";
/// Connections of either.
const CONNECTIONS: usize = 200;
const TEST: &str = "siege::honest_calls_streams_and_handshakes_succeed_beside_two_hundred_hostile_connections";
const SECONDS: &str = "BELLROPE_SIEGE_SECONDS";
const ONLY: &str = "BELLROPE_SIEGE_KINDS";
/// What either is told: how long it lasts, and to how much CPU time in a second of it the two processes may come.
const LENGTH_MS: &str = "BELLROPE_SIEGE_MS";
const CPU_US: &str = "BELLROPE_SIEGE_CPU_US";
/// And how many handshakes in a second there may be, those of the honest clients among them.
const HANDSHAKES: &str = "BELLROPE_SIEGE_HANDSHAKES";
const DID: &str = "what came of it: ";
/// Tasks of each kind that have to be run beside either, at the least.
const FEWEST: usize = 20;

// Faults 31, 32, 33, 47, 59, 60, 62, 63, 65, 69.
#[test]
fn honest_calls_streams_and_handshakes_succeed_beside_two_hundred_hostile_connections() {
    if let Some(path) = role::is_played_here(ATTACKERS) {
        return attack_without_end(Path::new(&path));
    }
    if let Some(path) = role::is_played_here(CONTROL) {
        return honest_clients::keep_busy(Path::new(&path), CONNECTIONS);
    }
    let _alone = one_at_a_time();
    let seconds = std::env::var(SECONDS).ok().map_or(3, |value| value.parse().expect("a number"));
    let length = Duration::from_secs(seconds);
    let mut config = ServerConfig::default();
    // So that it comes to that within the test.
    config.stall_timeout = Duration::from_millis(1_500);
    if std::env::var_os(ONLY).is_some() {
        // They are one process, which does not get in any more after the first few breaks of the protocol: what these cost is
        // to be seen.
        config.violation_pause = Duration::ZERO;
    }
    let server = serve(config);
    say_nothing_of_handlers_that_panic();
    let (hostile, pace, lives) = beside(&server, ATTACKERS, length, Pace::default());
    let lives: BTreeMap<&str, u64> =
        kinds().iter().map(|kind| kind.0).zip(lives.split(' ').map(|n| n.parse().unwrap())).collect();
    let counts = server.server.metrics().snapshot();
    say(&format!(
        "{} violations, {} put out, {} handshakes refused, {} unfinished, {} paced; lives: {lives:?}",
        counts.violations,
        counts.stalled,
        counts.refused_connections,
        counts.unfinished_handshakes,
        counts.paced_handshakes
    ));
    if kinds().len() == KINDS.len() {
        assert!(
            counts.violations > 0 && counts.stalled > 0 && counts.refused_connections > 0,
            "nobody attacked: {counts:?}"
        );
    }
    assert!(lives.values().all(|lives| *lives > 0), "every kind of attack was made: {lives:?}");
    eventually("nobody hostile is left", || server.server.metrics().active_connections() == 0);
    let (peaceful, control, _) = beside(&server, CONTROL, length, pace);
    say(&format!("in a second beside the hostile: {pace:?}; beside the others: {control:?}"));
    for task in Task::ALL {
        let p99 = |took: &Took| took.percentile(task, 99);
        say(&format!(
            "{}: p50 {} us, p99 {} us beside {CONNECTIONS} hostile connections; p50 {} us, p99 {} us beside as many well-behaved ones; p99 {:.2} x",
            task.name(),
            hostile.percentile(task, 50),
            p99(&hostile),
            peaceful.percentile(task, 50),
            p99(&peaceful),
            p99(&hostile) as f64 / p99(&peaceful).max(1) as f64
        ));
    }
}

/// What all of them together did in a second.
#[derive(Debug, Default, Clone, Copy)]
struct Pace {
    /// CPU time of both processes.
    cpu_us: u64,
    handshakes: u64,
}

/// Runs honest tasks while another process plays this part. Answers how long they took, what was done in a second, and what
/// the other says that it did. Those that are well-behaved do as much.
fn beside(server: &TestServer, part: &str, length: Duration, pace: Pace) -> (Took, Pace, String) {
    let more = [
        (LENGTH_MS, length.as_millis().to_string()),
        (CPU_US, pace.cpu_us.to_string()),
        (HANDSHAKES, pace.handshakes.to_string()),
    ];
    let counts = || server.server.metrics().snapshot();
    let paced = counts().paced_handshakes;
    let other = role::start(TEST, part, &server.path, &more, true);
    // Those that break the protocol are few at a time before long: the others of their process stand at the door.
    eventually("they are many", || {
        let counts = counts();
        counts.active_connections + counts.paced_handshakes - paced > CONNECTIONS as u64 / 4
    });
    let cpu_us = || cpu_time_us(other.pid()) + cpu_time_us(std::process::id());
    // Connections are numbered.
    let handshakes = || shake_hands(&server.path, "counter").2.connection;
    let (began, before, first) = (Instant::now(), cpu_us(), handshakes());
    let took = honest_clients::run_tasks(&server.path, length - length / 4, FEWEST);
    let (took_us, used) = (began.elapsed().as_micros().max(1) as u64, cpu_us() - before);
    let a_second = |all: u64| all * 1_000_000 / took_us;
    let pace = Pace { cpu_us: a_second(used), handshakes: a_second(handshakes() - first) };
    (took, pace, other.end(DID))
}

/// The hostile process: each connection makes its attack, and when it is put out, again.
fn attack_without_end(path: &Path) {
    // What is done to them they do not expect, and it is of no interest.
    std::panic::set_hook(Box::new(|_| {}));
    let kinds = kinds();
    let lives: Vec<_> = kinds.iter().map(|_| Arc::new(AtomicU64::new(0))).collect();
    for number in 0..CONNECTIONS {
        let (path, kind) = (path.to_owned(), number % kinds.len());
        let (lives, attack) = (Arc::clone(&lives[kind]), kinds[kind].1);
        std::thread::spawn(move || {
            let mut rng = Rng::with_seed(number as u64);
            loop {
                lives.fetch_add(1, Relaxed);
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| attack(&path, &mut rng)));
                std::thread::sleep(Duration::from_millis(rng.u64(1..20)));
            }
        });
    }
    std::thread::sleep(Duration::from_millis(role::number(LENGTH_MS)));
    let lives: Vec<_> = lives.iter().map(|lives| lives.load(Relaxed).to_string()).collect();
    role::say(DID, lives.join(" "));
    // The others are in the middle of something.
    std::process::exit(0);
}

/// Those that attack.
fn kinds() -> Vec<&'static AttackKind> {
    let only = std::env::var(ONLY).unwrap_or_default();
    KINDS.iter().filter(|kind| only.split(',').any(|word| kind.0.contains(word))).collect()
}

/// CPU time that a process has used, in microseconds. 0 if it is gone.
fn cpu_time_us(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may have blanks and brackets in it: user and system time are the 12th and 13th.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace().skip(11).take(2);
    // In hundredths of a second, whatever the kernel was built with.
    fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * 10_000
}
