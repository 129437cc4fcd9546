//! Clients that attack a server in every way we could think of, one after the other, and then at random, while fifty
//! honest clients call it. Nobody honest may notice, the server must stay what it is, and nothing may be left behind.
//!
//! A run says its seed. `BELLROPE_ADVERSARY_SEED=n` makes the same choices again, though threads meet otherwise;
//! `BELLROPE_ADVERSARY_SECONDS=n` is how long the random part lasts.

mod attacks;
mod field;
mod honest;
mod noise;
mod peer;
mod siege;

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use attacks::{Attack, End};
use bellrope::{Client, server::ServerConfig};
use bellrope_testkit::{ledger, log::Log, support::eventually};
use field::{Field, Holdings};
use honest::{Crowd, Phase, Seen};
use tracing_subscriber::filter::LevelFilter;

const HONEST: u64 = 50;
/// Calls of the honest clients in peace, before anything begins, and then beside busy threads.
const PEACEFUL_CALLS: u64 = 3_000;
/// Beside noise, paced or not, half of the calls must take at most so many times as long as beside threads that are as busy
/// without touching the server; or less than this many microseconds, where the machine has better to do than either.
const NOTICED_TIMES: u64 = 2;
const NOTICED_US: u64 = 5_000;
/// Calls of the honest clients that must go through after each attack.
const CALLS_BETWEEN: u64 = 60;
const TEST: &str = "fifty_honest_clients_notice_nothing_of_any_attack";
const SEED: &str = "BELLROPE_ADVERSARY_SEED";
const SECONDS: &str = "BELLROPE_ADVERSARY_SECONDS";

// Faults 1, 2, 3, 4, 8, 10, 15, 16, 17, 18, 19, 20, 21, 31, 32, 33, 39, 48, 49, 59, 69.
#[test]
fn fifty_honest_clients_notice_nothing_of_any_attack() {
    if noise::is_made_here() {
        return;
    }
    let _alone = one_at_a_time();
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let seed = number(SEED).unwrap_or_else(|| fastrand::u64(..));
    let length = Duration::from_secs(number(SECONDS).unwrap_or(5));
    say(&format!("{SEED}={seed}"));
    say_nothing_of_handlers_that_panic();
    let log = Log::listen(LevelFilter::INFO);
    let field = Field::open();
    let sockets = field::sockets();
    // The first client starts the thread that looks after all of them.
    drop(Client::connect(&field.path).map(|client| client.call("later", b"").unwrap()).unwrap());
    eventually("nobody is connected", || field.connections() == 0);
    eventually("the first connection is gone on both sides", || {
        field::sockets() == sockets && Holdings::count().no_rings()
    });
    let before = Holdings::count();

    let crowd = Crowd::default();
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let honest: Vec<_> = (1..=HONEST)
            .map(|number| {
                let (field, crowd) = (&field, &crowd);
                scope.spawn(move || honest::live(field, crowd, number, seed))
            })
            .collect();
        // However the attacks end, the honest clients do, too.
        let stopping = StopOnDrop(&crowd.stop);
        eventually("peaceful calls", || crowd.served.load(Relaxed) > PEACEFUL_CALLS);
        crowd.enter(Phase::BusyThreads);
        noise::keep_busy(|| {
            eventually("calls beside busy threads", || crowd.served.load(Relaxed) > 2 * PEACEFUL_CALLS);
        });
        crowd.enter(Phase::Attacks);
        for attack in attacks::all() {
            make(&attack, &field, &log);
            is_as_before(&field, &crowd, attack.name);
        }
        crowd.enter(Phase::FreeNoise);
        let before = field.counts().violations;
        let connections = noise::make(TEST, &field.path, seed, length);
        say(&format!("{connections} connections made noise for {length:?}"));
        assert!(connections > 0 && field.counts().violations > before, "the noise was none ({SEED}={seed})");
        is_as_before(&field, &crowd, "noise");
        field.let_offenders_wait();
        crowd.enter(Phase::Noise);
        noise_is_paced(&field, seed, length);
        is_as_before(&field, &crowd, "noise of a process that has to wait");
        drop(stopping);
        honest
            .into_iter()
            .map(|client| client.join().unwrap().unwrap_or_else(|error| panic!("{error} ({SEED}={seed})")))
            .collect()
    });

    eventually("every connection is closed", || field.connections() == 0);
    eventually("every buffer is given back", || field.buffered() == 0);
    eventually("every handler has ended", || field.counts().types.iter().all(|row| row.running == 0));
    eventually("nothing is left behind", || Holdings::count() == before);
    judge(&field, seen, seed);
}

/// Tests of this program count what their whole process holds, or how long calls take beside it.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// They are asked to. Printing it, with a trace of the stack perhaps, takes the worker longer than all else it does.
fn say_nothing_of_handlers_that_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic
            .location()
            .is_some_and(|place| place.file().ends_with("bellrope-testkit/src/support.rs") && is_of_the_server())
        {
            usual(panic);
        }
    }));
}

fn is_of_the_server() -> bool {
    std::thread::current().name().is_some_and(|name| name.starts_with("bellrope-"))
}

/// Makes an attack and looks what comes of it.
fn make(attack: &Attack, field: &Field, log: &Log) {
    let Attack { name, end, .. } = attack;
    let (counts, began) = (field.counts(), Instant::now());
    let peer = attack.run(field);
    match (end, peer) {
        (End::Closed(reason), Some(peer)) => {
            assert!(peer.becomes_hung_up(), "{name}: goes unpunished");
            eventually(name, || field.counts().violations == counts.violations + 1);
            let told = [format!("connection={} ", peer.connection()), format!("reason=\"{reason}\"")];
            eventually(&format!("{name}: a line with {told:?}"), || {
                // Where it logs too much about one process, the server leaves lines out and counts them.
                log.has(&told.each_ref().map(String::as_str))
                    || field.counts().log_lines_dropped > counts.log_lines_dropped
            });
        }
        (End::Evicted, Some(peer)) => {
            assert!(peer.becomes_hung_up(), "{name}: is waited for without end");
            eventually(name, || field.counts().stalled == counts.stalled + 1);
        }
        (End::Served, Some(mut peer)) => {
            peer.is_served();
            assert_eq!(field.counts().violations, counts.violations, "{name}");
        }
        (End::Refused, None) => {
            eventually(name, || field.counts().refused_connections == counts.refused_connections + 1);
        }
        (End::Seen, _) => {}
        (end, peer) => {
            panic!("{name}: an attack that is to be {end:?} has {} peer", if peer.is_some() { "a" } else { "no" })
        }
    }
    say(&format!("{:7.1} ms  {name}", began.elapsed().as_secs_f64() * 1e3));
}

/// The server lives, its loops turn, the honest clients are served, and nobody else is there.
fn is_as_before(field: &Field, crowd: &Crowd, after: &str) {
    let served = crowd.served.load(Relaxed);
    eventually(&format!("after {after}: nobody but the honest clients is connected"), || field.connections() == HONEST);
    assert!(field.is_live(), "after {after}: a worker does not answer");
    eventually(&format!("after {after}: honest clients are served"), || {
        crowd.served.load(Relaxed) > served + CALLS_BETWEEN
    });
}

/// Noise from a process that has to wait, which gets few connections that break the protocol, however long it goes on.
fn noise_is_paced(field: &Field, seed: u64, length: Duration) {
    let (before, began) = (field.counts(), Instant::now());
    let connections = noise::make(TEST, &field.path, seed, length);
    // Some may have been broken by what was written into it just before its peer left.
    eventually("nobody noisy is connected", || field.connections() == HONEST);
    let (after, took) = (field.counts(), began.elapsed());
    let (violations, paced) = (after.violations - before.violations, after.paced_handshakes - before.paced_handshakes);
    say(&format!(
        "{connections} connections made noise for {length:?}, {violations} of them broke the protocol, {paced} handshakes \
         had to wait"
    ));
    let config = ServerConfig::default();
    // What is overlooked, then one a pause at the most; and those that are let in before others are charged.
    let pauses = took.as_millis() as u64 / config.violation_pause.as_millis() as u64 + 1;
    let most = u64::from(config.violation_allowance) + 2 * noise::PEERS + pauses;
    assert!(violations <= most && paced > 0, "{violations} of at most {most} in {took:?} ({SEED}={seed})");
}

/// Checks what the honest clients and their handlers have noted, and says how long calls took.
fn judge(field: &Field, seen: Vec<Seen>, seed: u64) {
    let mut events = Vec::new();
    let mut took: [Vec<u64>; 5] = Default::default();
    for mut of_one in seen {
        events.append(&mut of_one.events);
        took.iter_mut().zip(&mut of_one.took).for_each(|(all, of_one)| all.append(of_one));
    }
    events.append(&mut field.notes.take());
    let tally = ledger::check(&events).unwrap_or_else(|fault| panic!("{fault} ({SEED}={seed})"));
    assert_eq!((tally.acknowledged, tally.runs), (tally.calls, tally.calls), "every honest call has run: {tally:?}");
    took.iter_mut().for_each(|took| took.sort_unstable());
    let at = |phase: Phase, percent: usize| {
        let sorted = &took[phase as usize];
        sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
    };
    say(&format!("{} honest calls, {} chunks", tally.calls, tally.chunks));
    for percent in [50, 99] {
        let of = |phase| at(phase, percent);
        let times = |war: Phase, peace: Phase| of(war) as f64 / of(peace).max(1) as f64;
        say(&format!(
            "small honest calls, p{percent}: in peace {} us, beside single attacks {} us ({:.2} x); beside busy threads {} us, \
             beside noise {} us ({:.2} x), beside noise that need not wait {} us ({:.2} x)",
            of(Phase::Peace),
            of(Phase::Attacks),
            times(Phase::Attacks, Phase::Peace),
            of(Phase::BusyThreads),
            of(Phase::Noise),
            times(Phase::Noise, Phase::BusyThreads),
            of(Phase::FreeNoise),
            times(Phase::FreeNoise, Phase::BusyThreads)
        ));
    }
    let busy = at(Phase::BusyThreads, 50);
    for noise in [at(Phase::Noise, 50), at(Phase::FreeNoise, 50)] {
        assert!(
            noise <= NOTICED_TIMES * busy || noise < NOTICED_US,
            "half of the honest calls take over {noise} us beside noise, {busy} us beside threads as busy ({SEED}={seed})"
        );
    }
}

#[expect(clippy::print_stderr, reason = "a run says how it can be repeated, and what it has seen")]
fn say(text: &str) {
    eprintln!("{text}");
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
