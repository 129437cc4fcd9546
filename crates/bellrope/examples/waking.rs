//! What a call costs that comes 1 ms after the last, by how both sides wait, beside two threads that wake each other over a
//! futex. Placed by the scheduler, as most programs are. `docs/performance.md` has the figures.
//!
//! ```sh
//! cargo run --release -p bellrope --example waking
//! ```
//!
//! The ways take turns, and each figure is over all turns. Another pause than 1 ms may be given in microseconds, 0 for none. With
//! `taskset -c 0` both sides share a CPU.
#![expect(clippy::print_stdout, reason = "an example prints what it found")]

use std::{
    error::Error,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bellrope::{
    Server,
    client::{ClientConfig, Connection, SpinPolicy},
    server::ServerConfig,
};
use bellrope_shm::{SharedMemory, View, sync::Ordering};

const TURNS: usize = 5;
const CALLS: usize = 200;
/// Calls of a turn that are not counted: whoever adapts needs some.
const WARM_UP: usize = 20;
const GAP_US: u64 = 1000;
const PATIENCE: Duration = Duration::from_secs(5);
/// Where the futex's two words lie.
const THERE: usize = 0;
const BACK: usize = 128;

/// How the two sides wait; `None`: over a futex, without any call.
type Way = Option<(SpinPolicy, SpinPolicy)>;

const WAYS: [(&str, Way); 5] = [
    ("futex", None),
    ("both adaptive", Some((SpinPolicy::Adaptive, SpinPolicy::Adaptive))),
    ("both never spin", Some((SpinPolicy::Never, SpinPolicy::Never))),
    ("the client alone adapts", Some((SpinPolicy::Never, SpinPolicy::Adaptive))),
    ("the server alone adapts", Some((SpinPolicy::Adaptive, SpinPolicy::Never))),
];

fn main() -> Result<(), Box<dyn Error>> {
    let gap_us = std::env::args().nth(1).map_or(Ok(GAP_US), |given| given.parse())?;
    let gap = Duration::from_micros(gap_us);
    let mut took: Vec<Vec<Duration>> = vec![Vec::new(); WAYS.len()];
    for _ in 0..TURNS {
        for (all, (_, way)) in took.iter_mut().zip(WAYS) {
            all.extend(match way {
                None => over_a_futex(gap)?,
                Some((server, client)) => calls(server, client, gap)?,
            });
        }
    }
    println!(
        "{:<28} {:>8} {:>8} {:>8} {:>12}",
        format!("{gap_us} us apart"),
        "p10 us",
        "p50 us",
        "p99 us",
        "x the futex"
    );
    let mut limit = None;
    for (all, (name, _)) in took.iter_mut().zip(WAYS) {
        all.sort_unstable();
        let at = |share: usize| all.get(all.len() * share / 100).map_or(0.0, |took| took.as_secs_f64() * 1e6);
        let times = at(50) / *limit.get_or_insert(at(50));
        println!("{name:<28} {:>8.1} {:>8.1} {:>8.1} {times:>12.2}", at(10), at(50), at(99));
    }
    Ok(())
}

/// One turn of calls.
fn calls(server: SpinPolicy, client: SpinPolicy, gap: Duration) -> Result<Vec<Duration>, Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("private").join("waking.sock");
    let server = Server::builder()
        .config(ServerConfig::new().spin(server))
        .unary("echo", |call, reply| {
            reply.put(call.payload());
            Ok(())
        })
        .bind(&path)?;
    let mut connection = Connection::with(&ClientConfig::new(&path).spin(client))?;
    let echo = connection.message_type("echo")?;
    let mut reply = Vec::new();
    let mut took = Vec::with_capacity(CALLS);
    for call in 0..WARM_UP + CALLS {
        pause(gap);
        let began = Instant::now();
        connection.call(echo, &[7; 64], &mut reply)?;
        if call >= WARM_UP {
            took.push(began.elapsed());
        }
    }
    server.shutdown();
    Ok(took)
}

/// One turn of two threads that sleep on a word each.
fn over_a_futex(gap: Duration) -> Result<Vec<Duration>, Box<dyn Error>> {
    let words = Arc::new(SharedMemory::private(4096)?.view(0..4096));
    let other = {
        let words = Arc::clone(&words);
        thread::spawn(move || -> std::io::Result<()> {
            for round in 1..=CALLS as u64 {
                sleep_for(&words, THERE, round)?;
                tell(&words, BACK, round);
            }
            Ok(())
        })
    };
    let mut took = Vec::with_capacity(CALLS);
    for round in 1..=CALLS as u64 {
        pause(gap);
        let began = Instant::now();
        tell(&words, THERE, round);
        sleep_for(&words, BACK, round)?;
        took.push(began.elapsed());
    }
    other.join().map_err(|_| "the other side panicked")??;
    Ok(took)
}

fn pause(gap: Duration) {
    if !gap.is_zero() {
        thread::sleep(gap);
    }
}

fn tell(words: &View, word: usize, value: u64) {
    words.store(word, value, Ordering::Release);
    words.futex_wake(word);
}

fn sleep_for(words: &View, word: usize, value: u64) -> std::io::Result<()> {
    while words.load(word, Ordering::Acquire) != value {
        words.futex_wait(word, value - 1, PATIENCE)?;
    }
    Ok(())
}
