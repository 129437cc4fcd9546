//! What it costs to wake the other side, without any call: the part of a call 1 ms after the last that is not Bellrope's.
//! `docs/performance.md` has the figures.
//!
//! ```sh
//! cargo run --release -p bellrope-measure --no-default-features --example doorbells
//! ```
//!
//! Two threads wake each other and sleep, placed by the scheduler, with a gap before each ring: 1 ms, or as many microseconds as
//! the first argument says. Nothing else is there: no record, no worker, no handler. The ways take turns, and each figure is the
//! median over all rounds. With `taskset -c 0` both threads share a CPU: where they run decides what a ring costs, more than how
//! they ring.

use std::{
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use bellrope_shm::{
    SharedMemory, View,
    socket::Socket,
    sync::Ordering,
    wait::{self, Notifier, Poller},
};

const TURNS: usize = 5;
const ROUNDS: usize = 200;
const GAP_US: u64 = 1000;
const PATIENCE: Duration = Duration::from_secs(5);
/// Where the two words lie.
const THERE: usize = 0;
const BACK: usize = 128;

/// How the other side is woken.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// By a futex, as the limit of `bellrope bench spin` is.
    Futex,
    /// By a byte over the connection's socket, which is read before anything else is done: epoll there, poll here, as
    /// Bellrope waits.
    Socket,
    /// The same, and whoever rings first sleeps in `recv`.
    SocketReceive,
    /// As `SocketReceive`, and the other side is told of each byte once and reads several together.
    SocketEdges,
    /// By an eventfd.
    Eventfd,
}

/// Each with its system calls for one ring there and one back.
const WAYS: [(Way, &str, f64); 5] = [
    (Way::Futex, "futex", 4.0),
    (Way::Socket, "socket: epoll, poll (as built)", 6.0),
    (Way::SocketReceive, "socket: epoll, recv", 5.0),
    (Way::SocketEdges, "the same, read every 8th time", 4.0 + 1.0 / READ_EVERY as f64),
    (Way::Eventfd, "eventfd: epoll, poll", 6.0),
];
/// Rings that are read together.
const READ_EVERY: u64 = 8;

/// The ends of all ways.
struct Ends {
    words: View,
    near: Socket,
    far: Socket,
    there: Notifier,
    back: Notifier,
}

impl Ends {
    fn new() -> io::Result<Self> {
        let memory = SharedMemory::private(4096)?;
        let (near, far) = Socket::pair()?;
        let (there, back) = (Notifier::new()?, Notifier::new()?);
        Ok(Self { words: memory.view(0..4096), near, far, there, back })
    }

    fn tell(&self, word: usize, value: u64) {
        self.words.store(word, value, Ordering::Release);
        self.words.futex_wake(word);
    }

    fn sleep_for(&self, word: usize, value: u64) -> io::Result<()> {
        while self.words.load(word, Ordering::Acquire) != value {
            self.words.futex_wait(word, value - 1, PATIENCE)?;
        }
        Ok(())
    }

    /// One ring there and one back, seen from here.
    fn ring(&self, way: Way, round: u64) -> io::Result<Duration> {
        let began = Instant::now();
        match way {
            Way::Futex => {
                self.tell(THERE, round);
                self.sleep_for(BACK, round)?;
            }
            Way::Socket => {
                self.near.ring();
                while !wait::readable(&self.near, Some(PATIENCE))? {}
                self.near.drain(1)?;
            }
            Way::SocketReceive | Way::SocketEdges => {
                self.near.ring();
                if self.near.receive(&mut [0; 8])? == 0 {
                    return Err(io::Error::other("the other side has hung up"));
                }
            }
            Way::Eventfd => {
                self.there.wake();
                while !wait::readable(&self.back, Some(PATIENCE))? {}
                self.back.clear();
            }
        }
        Ok(began.elapsed())
    }

    /// The other side, for so many rounds.
    fn answer(&self, way: Way, rounds: u64) -> io::Result<()> {
        let mut poller = Poller::new()?;
        match way {
            Way::Futex => {}
            Way::Socket | Way::SocketReceive => poller.add(&self.far, 0)?,
            Way::SocketEdges => drop(poller.add_edges(&self.far, 0)?),
            Way::Eventfd => poller.add(&self.there, 0)?,
        }
        for round in 1..=rounds {
            match way {
                Way::Futex => {
                    self.sleep_for(THERE, round)?;
                    self.tell(BACK, round);
                }
                Way::Socket | Way::SocketReceive => {
                    while poller.wait(Some(PATIENCE))?.is_empty() {}
                    self.far.drain(1)?;
                    self.far.ring();
                }
                Way::SocketEdges => {
                    while poller.wait(Some(PATIENCE))?.is_empty() {}
                    if round % READ_EVERY == 0 {
                        self.far.drain(1)?;
                    }
                    self.far.ring();
                }
                Way::Eventfd => {
                    while poller.wait(Some(PATIENCE))?.is_empty() {}
                    self.there.clear();
                    self.back.wake();
                }
            }
        }
        Ok(())
    }
}

/// The round trips of one way's turn.
fn turn(way: Way, gap: Duration) -> io::Result<Vec<Duration>> {
    let ends = Arc::new(Ends::new()?);
    let failed = Arc::new(AtomicBool::new(false));
    let other = {
        let (ends, failed) = (Arc::clone(&ends), Arc::clone(&failed));
        thread::spawn(move || {
            let answered = ends.answer(way, ROUNDS as u64);
            if answered.is_err() {
                failed.store(true, Relaxed);
                ends.far.shutdown();
            }
            answered
        })
    };
    let mut took = Vec::with_capacity(ROUNDS);
    for round in 1..=ROUNDS as u64 {
        if !gap.is_zero() {
            thread::sleep(gap);
        }
        if failed.load(Relaxed) {
            break;
        }
        took.push(ends.ring(way, round)?);
    }
    other.join().map_err(|_| io::Error::other("the other side panicked"))??;
    Ok(took)
}

fn main() -> io::Result<()> {
    let gap_us = match std::env::args().nth(1) {
        Some(gap) => gap.parse().map_err(|_| io::Error::other("usage: doorbells [MICROSECONDS between two rings]"))?,
        None => GAP_US,
    };
    let gap = Duration::from_micros(gap_us);
    let mut took: Vec<Vec<Duration>> = vec![Vec::new(); WAYS.len()];
    for _ in 0..TURNS {
        for (all, (way, ..)) in took.iter_mut().zip(WAYS) {
            all.extend(turn(way, gap)?);
        }
    }
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:<32} {:>12} {:>8} {:>8} {:>8} {:>12}",
        format!("two that sleep, {gap_us} us apart"),
        "system calls",
        "p10 us",
        "p50 us",
        "p99 us",
        "x the futex"
    )?;
    let mut limit = None;
    for (all, (_, name, calls)) in took.iter_mut().zip(WAYS) {
        all.sort_unstable();
        let at = |share: usize| all.get(all.len() * share / 100).map_or(0.0, |took| took.as_secs_f64() * 1e6);
        let p50 = at(50);
        let times = p50 / *limit.get_or_insert(p50);
        writeln!(out, "{name:<32} {calls:>12.1} {:>8.1} {p50:>8.1} {:>8.1} {times:>12.2}", at(10), at(99))?;
    }
    Ok(())
}
