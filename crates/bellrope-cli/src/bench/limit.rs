//! The machine's own limits: a bare cache-line ping-pong between the two processes, with no ring, no check, no copy; and
//! the same between two that sleep on a futex.

use std::{
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bellrope::shm::{Ordering, SharedMemory, View, clock};

use super::{ServerProcess, samples::Samples};

const LEN: usize = 4096;
const PING: usize = 0;
const PONG: usize = 1024;
/// Spins between two looks at the clock.
const SPINS_PER_LOOK: u32 = 10_000_000;
const PATIENCE: Duration = Duration::from_secs(10);

/// Round trips of a bare cache line.
pub(super) fn ping(server: &mut ServerProcess, rounds: u64) -> anyhow::Result<Samples> {
    let (memory, fd) = SharedMemory::create(LEN).context("making shared memory")?;
    let view = memory.view(0..LEN);
    server.begin_pong(fd.as_raw_fd(), rounds)?;
    let mut samples = Samples::with_capacity(rounds as usize);
    let mut last = clock::ticks();
    for round in 1..=rounds {
        view.store(PING, round, Ordering::Release);
        ensure!(await_word(&view, PONG, round), "the server stopped answering ping-pongs");
        let now = clock::ticks();
        samples.add(now - last);
        last = now;
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
    let view = open(pid, fd)?;
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
    let view = open(pid, fd)?;
    ready();
    for round in 1..=rounds {
        if !sleep_for_word(&view, PING, round)? {
            break;
        }
        tell(&view, PONG, round);
    }
    Ok(())
}

fn open(pid: u32, fd: i32) -> anyhow::Result<View> {
    let path = format!("/proc/{pid}/fd/{fd}");
    let file =
        std::fs::OpenOptions::new().read(true).write(true).open(&path).with_context(|| format!("opening {path}"))?;
    Ok(SharedMemory::open(&file.into(), LEN)?.view(0..LEN))
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
    let mut spins = 0_u32;
    let mut since = None;
    while view.load(offset, Ordering::Acquire) != value {
        std::hint::spin_loop();
        spins += 1;
        if spins == SPINS_PER_LOOK {
            spins = 0;
            if since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return false;
            }
        }
    }
    true
}
