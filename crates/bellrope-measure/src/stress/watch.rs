//! What a server's process uses, seen from outside.

use std::{
    io,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bellrope::status::MemoryUse;
use bellrope_shm::proc::{self, ProcessStatus, Thread};

use crate::server_process::{Counters, ServerProcess};

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footprint {
    pub(super) memory: MemoryUse,
    pub(super) handles: Handles,
}

/// What of it must be the same again after equal work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handles {
    pub(super) descriptors: usize,
    pub(super) threads: usize,
    pub(super) mappings: usize,
}

impl Footprint {
    pub(super) fn of(server: &ServerProcess) -> anyhow::Result<Self> {
        let pid = server.id();
        let entries = |name: &str| proc::entries(pid, name).with_context(|| format!("reading /proc/{pid}/{name}"));
        let mappings = proc::mappings(pid).context("reading the server's mappings")?;
        let handles = Handles { descriptors: entries("fd")?, threads: entries("task")?, mappings };
        Ok(Self { memory: server.memory()?, handles })
    }

    /// Resident memory beyond that of an earlier look, in KiB.
    pub(super) fn grown_kb(&self, before: Self) -> f64 {
        self.memory.rss_kb as f64 - before.memory.rss_kb as f64
    }
}

/// Forgets the highest resident memory of the server, so that [`peak_kb`] tells what came after.
pub(super) fn forget_peak(server: &ServerProcess) -> anyhow::Result<()> {
    proc::forget_peak_memory(server.id()).context("resetting the server's peak memory")
}

/// The highest resident memory of the server, in KiB, as the kernel noted it: no moment is missed.
pub(super) fn peak_kb(server: &ServerProcess) -> anyhow::Result<u64> {
    let status = ProcessStatus::of(server.id()).context("reading the server's peak memory")?;
    status.kib("VmHWM").context("the system does not say the server's peak memory (VmHWM)")
}

/// Waits until the server has no more than so many connections, and lets it give back what it does not use.
pub(super) fn quiet(server: &mut ServerProcess, connections: u64, patience: Duration) -> anyhow::Result<Counters> {
    settled(|| server.settle(), connections, patience)
}

fn settled(
    mut look: impl FnMut() -> anyhow::Result<Counters>,
    connections: u64,
    patience: Duration,
) -> anyhow::Result<Counters> {
    let deadline = Instant::now() + patience;
    loop {
        let counters = look()?;
        if counters.connections <= connections && counters.buffers_used == 0 {
            return Ok(counters);
        }
        if Instant::now() >= deadline {
            bail!("after {patience:?} the server still has {counters:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Looks at the server until what it holds is as it should be, for at most so long. Answers what it holds then.
pub(super) fn rest(
    server: &mut ServerProcess,
    patience: Duration,
    is_well: impl Fn(Footprint) -> bool,
) -> anyhow::Result<Footprint> {
    let deadline = Instant::now() + patience;
    loop {
        server.settle()?;
        let found = Footprint::of(server)?;
        if is_well(found) || Instant::now() >= deadline {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How long the host has kept the machine's CPUs for itself so far, in milliseconds. 0 if the system does not say.
pub(super) fn host_took_ms() -> u64 {
    proc::host_took().map_or(0, |took| took.as_millis() as u64)
}

/// How long the threads of a server's workers were ready to run without a CPU.
#[derive(Debug)]
pub(super) struct Waits {
    threads: Vec<Thread>,
}

impl Waits {
    pub(super) fn of(server: &ServerProcess) -> anyhow::Result<Self> {
        let pid = server.id();
        let mut threads = proc::threads(pid).with_context(|| format!("reading /proc/{pid}/task"))?;
        threads.retain(|thread| thread.name().is_ok_and(|name| name.starts_with("bellrope-work")));
        ensure!(!threads.is_empty(), "the server has no thread with the name of a worker");
        Ok(Self { threads })
    }

    /// So far, of all of them together, in microseconds. 0 if the kernel does not keep account.
    pub(super) fn total_us(&self) -> anyhow::Result<f64> {
        let mut total = 0.0;
        for thread in &self.threads {
            match thread.cpu_share() {
                Ok(share) => total += share.waited.as_nanos() as f64 / 1000.0,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error.into()),
                Err(_) => {}
            }
        }
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_keeps_connections_or_buffers_is_not_waited_for_without_end() {
        let holding = |connections, buffers_used| {
            let (answered, violations, stalled, refused) = (9, 0, 0, 0);
            Counters { connections, answered, violations, stalled, refused, buffers_used }
        };
        // Each look finds less, down to one connection and no buffer.
        let mut looks = vec![holding(1, 0), holding(1, 5), holding(3, 5)];
        let found = settled(|| Ok(looks.pop().unwrap()), 1, Duration::from_secs(60)).unwrap();
        assert_eq!(found, holding(1, 0));
        for kept in [holding(2, 0), holding(1, 5)] {
            let error = settled(|| Ok(kept), 1, Duration::ZERO).unwrap_err().to_string();
            assert_eq!(error, format!("after 0ns the server still has {kept:?}"));
        }
    }
}
