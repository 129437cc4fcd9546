//! The machine's own limits: a bare cache-line ping-pong between the two processes, with no ring, no check, no copy; and
//! the same between two that sleep on a futex.

use std::{
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bellrope_shm::{SharedMemory, View, clock, sync::Ordering};

use super::samples::Samples;
use crate::server_process::ServerProcess;

const LEN: usize = 4096;
const PING: usize = 0;
const PONG: usize = 1024;
/// Fruitless looks after which the other side surely has no CPU, and gets ours: it may be the only one.
const LOOKS_PER_YIELD: u32 = 2_000;
/// How long the other side may do nothing. In a unit test there is none.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 10_000 });
/// Rounds between two looks at the clock. Where others keep the CPUs busy, each round may take a time slice.
const ROUNDS_AT_ONCE: u64 = 1_000;

/// Round trips of a bare cache line: `rounds` of them, or as many as there are in about this time.
pub(crate) fn ping(server: &mut ServerProcess, rounds: u64, at_most: Duration) -> anyhow::Result<Samples> {
    let (memory, fd) = SharedMemory::create(LEN).context("making shared memory")?;
    let view = memory.view(0..LEN);
    let mut samples = Samples::with_capacity(rounds as usize);
    let start = Instant::now();
    while (samples.len() as u64) < rounds && (samples.len() == 0 || start.elapsed() < at_most) {
        view.store(PING, 0, Ordering::Relaxed);
        view.store(PONG, 0, Ordering::Relaxed);
        // One more than is counted: the first only shows that the other side is there.
        server.begin_pong(fd.as_raw_fd(), ROUNDS_AT_ONCE + 1)?;
        let mut last = clock::ticks();
        for round in 1..=ROUNDS_AT_ONCE + 1 {
            view.store(PING, round, Ordering::Release);
            ensure!(await_word(&view, PONG, round), "the server stopped answering ping-pongs");
            let now = clock::ticks();
            if round > 1 {
                samples.add(now - last);
            }
            last = now;
        }
    }
    Ok(samples)
}

/// Round trips between two that sleep, with a `pause` before each.
pub(super) fn sleeping_ping(
    server: &mut ServerProcess,
    rounds: u64,
    mut pause: impl FnMut(),
) -> anyhow::Result<Samples> {
    let (memory, fd) = SharedMemory::create(LEN).context("making shared memory")?;
    let view = memory.view(0..LEN);
    server.begin_sleeping_pong(fd.as_raw_fd(), rounds)?;
    let mut samples = Samples::with_capacity(rounds as usize);
    for round in 1..=rounds {
        pause();
        let began = clock::ticks();
        tell(&view, PING, round);
        ensure!(sleep_for_word(&view, PONG, round)?, "the server stopped answering ping-pongs");
        samples.add(clock::ticks() - began);
    }
    Ok(samples)
}

/// The server's side: answers `rounds` pings over the memory behind descriptor `fd` of process `pid`.
pub(crate) fn pong(pid: u32, fd: i32, rounds: u64, ready: impl FnOnce()) -> anyhow::Result<()> {
    let view = open(pid, fd, LEN)?;
    ready();
    for round in 1..=rounds {
        if !await_word(&view, PING, round) {
            break;
        }
        view.store(PONG, round, Ordering::Release);
    }
    Ok(())
}

/// As [`pong`], asleep between one ping and the next.
pub(crate) fn sleeping_pong(pid: u32, fd: i32, rounds: u64, ready: impl FnOnce()) -> anyhow::Result<()> {
    let view = open(pid, fd, LEN)?;
    ready();
    for round in 1..=rounds {
        if !sleep_for_word(&view, PING, round)? {
            break;
        }
        tell(&view, PONG, round);
    }
    Ok(())
}

/// The `len` bytes behind descriptor `fd` of process `pid`.
pub(super) fn open(pid: u32, fd: i32, len: usize) -> anyhow::Result<View> {
    let path = bellrope_shm::proc::path_of_descriptor(pid, fd);
    let open = std::fs::OpenOptions::new().read(true).write(true).open(&path);
    let file = open.with_context(|| format!("opening {}", path.display()))?;
    Ok(SharedMemory::open(&file.into(), len)?.view(0..len))
}

/// Stores a word and wakes who sleeps on it.
fn tell(view: &View, offset: usize, value: u64) {
    view.store(offset, value, Ordering::Release);
    view.futex_wake(offset);
}

/// Sleeps until a word that counts up has this value. `false`: the other side is not there any more.
fn sleep_for_word(view: &View, offset: usize, value: u64) -> anyhow::Result<bool> {
    let since = Instant::now();
    while view.load(offset, Ordering::Acquire) != value {
        if since.elapsed() > PATIENCE {
            return Ok(false);
        }
        view.futex_wait(offset, value - 1, PATIENCE).context("sleeping on a futex")?;
    }
    Ok(true)
}

/// Spins until a word has this value. `false`: the other side is not there any more.
#[inline]
fn await_word(view: &View, offset: usize, value: u64) -> bool {
    let mut watch = Watch::default();
    while view.load(offset, Ordering::Acquire) != value {
        std::hint::spin_loop();
        if !watch.goes_on(false) {
            return false;
        }
    }
    true
}

/// Watches, for one who spins, whether the other side still does something.
#[derive(Default)]
pub(super) struct Watch {
    fruitless: u32,
    since: Option<Instant>,
}

impl Watch {
    /// After a look: `false` if nothing has been found for too long.
    #[inline]
    pub(super) fn goes_on(&mut self, found: bool) -> bool {
        if found {
            *self = Self::default();
            return true;
        }
        self.fruitless += 1;
        if self.fruitless < LOOKS_PER_YIELD {
            return true;
        }
        self.fruitless = 0;
        std::thread::yield_now();
        self.since.get_or_insert_with(Instant::now).elapsed() <= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_nobody_calls_ends_by_itself_spinning_or_asleep() {
        type Side = fn(u32, i32, u64, Box<dyn FnOnce()>) -> anyhow::Result<()>;
        let sides: [Side; 2] = [pong, sleeping_pong];
        for side in sides {
            let (memory, fd) = SharedMemory::create(LEN).unwrap();
            let start = Instant::now();
            side(std::process::id(), fd.as_raw_fd(), 3, Box::new(|| {})).unwrap();
            assert!(start.elapsed() >= PATIENCE);
            assert_eq!(memory.view(0..LEN).load(PONG, Ordering::Acquire), 0, "nothing was to be answered");
        }
    }
}
