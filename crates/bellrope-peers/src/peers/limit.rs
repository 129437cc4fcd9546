//! The machine's own limits: a word that goes to and fro in shared memory, with no ring, no check, no copy. Whoever
//! waits for it either spins or sleeps on a futex.

use std::{
    os::fd::{AsRawFd, RawFd},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bellrope_shm::{SharedMemory, View, sync::Ordering};

use super::process;
use crate::meter::{Answers, Caller, RoundTrips};

const LEN: usize = 4096;
const PING: usize = 0;
const PONG: usize = 1024;
/// Spins between two looks at the clock.
const SPINS_PER_LOOK: u32 = 10_000_000;
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
pub(super) enum Wait {
    Spinning,
    Asleep,
}

pub(super) fn serve(wait: Wait) -> anyhow::Result<()> {
    process::end_with_parent();
    let (memory, fd) = SharedMemory::create(LEN).context("making shared memory")?;
    let view = memory.view(0..LEN);
    process::ready(place_of(fd.as_raw_fd()))?;
    for round in 1.. {
        // A client that has not begun yet or has ended is no fault: this process ends with its parent.
        while !wait.for_word(&view, PING, round)? {}
        wait.tell(&view, PONG, round);
    }
    Ok(())
}

/// Where other processes find the memory behind a descriptor of this one.
pub(super) fn place_of(fd: RawFd) -> String {
    format!("/proc/{}/fd/{fd}", std::process::id())
}

/// The `len` bytes of shared memory that another process has there.
pub(super) fn open(path: &str, len: usize) -> anyhow::Result<View> {
    let file =
        std::fs::OpenOptions::new().read(true).write(true).open(path).with_context(|| format!("opening {path}"))?;
    Ok(SharedMemory::open(&file.into(), len)?.view(0..len))
}

/// How long to wait for the other side, with a look at the clock now and then.
pub(super) struct Patience {
    looks: u32,
    looks_per_clock: u32,
    since: Option<Instant>,
}

impl Patience {
    pub(super) fn new(looks_per_clock: u32) -> Self {
        Self { looks: 0, looks_per_clock, since: None }
    }

    /// After a fruitless look: whether to look again.
    #[inline]
    pub(super) fn lasts(&mut self) -> bool {
        self.looks += 1;
        if self.looks < self.looks_per_clock {
            return true;
        }
        self.looks = 0;
        self.since.get_or_insert_with(Instant::now).elapsed() <= PATIENCE
    }
}

pub(super) struct Pinger {
    view: View,
    wait: Wait,
    round: u64,
}

impl Pinger {
    pub(super) fn open(path: &str, wait: Wait) -> anyhow::Result<Self> {
        Ok(Self { view: open(path, LEN)?, wait, round: 0 })
    }
}

impl Caller for Pinger {
    fn round_trips(&mut self, meter: &mut RoundTrips) -> anyhow::Result<()> {
        // The payload stays where it is: what is timed is the word alone.
        let mut stays = Vec::new();
        while let Some(payload) = meter.next() {
            if stays.len() != payload.len() {
                stays.resize(payload.len(), 0);
            }
            let (first, last) = (payload[0], payload[payload.len() - 1]);
            self.round += 1;
            self.wait.tell(&self.view, PING, self.round);
            ensure!(self.wait.for_word(&self.view, PONG, self.round)?, "the server stopped answering");
            let end = stays.len() - 1;
            (stays[0], stays[end]) = (first, last);
            meter.answered(&stays)?;
        }
        Ok(())
    }

    fn keep_busy(&mut self, _: &mut Answers, _: usize) -> anyhow::Result<()> {
        bail!("a limit has no calls under way")
    }
}

impl Wait {
    #[inline]
    fn tell(self, view: &View, offset: usize, value: u64) {
        view.store(offset, value, Ordering::Release);
        if matches!(self, Self::Asleep) {
            view.futex_wake(offset);
        }
    }

    /// Waits until a word that counts up has this value. `false`: it did not come in time.
    #[inline]
    fn for_word(self, view: &View, offset: usize, value: u64) -> anyhow::Result<bool> {
        let mut patience = Patience::new(if matches!(self, Self::Asleep) { 1 } else { SPINS_PER_LOOK });
        while view.load(offset, Ordering::Acquire) != value {
            match self {
                Self::Spinning => std::hint::spin_loop(),
                Self::Asleep => {
                    view.futex_wait(offset, value - 1, PATIENCE).context("sleeping on a futex")?;
                }
            }
            if !patience.lasts() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
