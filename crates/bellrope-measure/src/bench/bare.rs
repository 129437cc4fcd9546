//! What any call between two processes costs at least: the client and the server of bare [`slots`](crate::slots).

use std::{
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bellrope_shm::{SharedMemory, clock};

use super::{
    limit::{Watch, open},
    samples::Samples,
};
use crate::{
    server_process::ServerProcess,
    slots::{ClientEnd, ServerEnd, SlotShape},
};

/// Rounds between two looks at the clock and at the end.
const ROUNDS_PER_LOOK: u32 = 64;

/// Calls answered in one second, each connection keeping as many under way as it has slots.
pub(super) fn calls_per_s(server: &mut ServerProcess, shape: SlotShape, time: Duration) -> anyhow::Result<f64> {
    let mut client = Client::begin(server, shape)?;
    client.call(time / 8)?;
    let start = Instant::now();
    let answered = client.call(time)?;
    Ok(answered as f64 / start.elapsed().as_secs_f64())
}

/// Round trips of one call after the other.
pub(super) fn round_trips(server: &mut ServerProcess, size: usize, time: Duration) -> anyhow::Result<Samples> {
    const CALLS_PER_LOOK: u32 = 1024;
    let mut client = Client::begin(server, SlotShape { connections: 1, depth: 1, size })?;
    client.call(time / 8)?;
    let mut samples = Samples::with_capacity(1 << 20);
    let start = Instant::now();
    while start.elapsed() < time {
        let mut last = clock::ticks();
        for _ in 0..CALLS_PER_LOOK {
            client.call_once()?;
            let now = clock::ticks();
            samples.add(now - last);
            last = now;
        }
    }
    Ok(samples)
}

/// The server's side, over the memory behind descriptor `fd` of process `pid`, until the client says that it is over or
/// nothing comes any more.
pub(crate) fn answer(pid: u32, fd: i32, shape: SlotShape, ready: impl FnOnce()) -> anyhow::Result<()> {
    let mut end = ServerEnd::new(open(pid, fd, shape.bytes())?, shape);
    ready();
    let mut watch = Watch::default();
    while !end.is_over() {
        for _ in 0..ROUNDS_PER_LOOK {
            let found = end.round();
            if !watch.goes_on(found) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The client's side. The server's ends with it.
struct Client {
    end: ClientEnd,
    payload: Vec<u8>,
    watch: Watch,
}

impl Client {
    fn begin(server: &mut ServerProcess, shape: SlotShape) -> anyhow::Result<Self> {
        let (memory, fd) = SharedMemory::create(shape.bytes()).context("making shared memory")?;
        // The server has opened it when this answers.
        server.begin_bare(fd.as_raw_fd(), shape)?;
        let end = ClientEnd::new(memory.view(0..shape.bytes()), shape);
        Ok(Self { end, payload: vec![0x5A; shape.size], watch: Watch::default() })
    }

    /// Calls for `time`, and until one call was answered: on a lone CPU the server may not have had its turn before. Returns
    /// how many were.
    fn call(&mut self, time: Duration) -> anyhow::Result<u64> {
        let start = Instant::now();
        let (mut answered, mut round) = (0, 0_u32);
        loop {
            let before = answered;
            for connection in 0..self.end.connections() {
                answered += self.turn(connection);
            }
            self.goes_on(answered > before)?;
            round += 1;
            if round.is_multiple_of(ROUNDS_PER_LOOK) && answered > 0 && start.elapsed() >= time {
                ensure!(self.end.reply() == self.payload, "what came over bare slots differs from what was sent");
                return Ok(answered);
            }
        }
    }

    /// Waits for one answer, and calls again.
    #[inline]
    fn call_once(&mut self) -> anyhow::Result<()> {
        while self.turn(0) == 0 {
            std::hint::spin_loop();
            self.goes_on(false)?;
        }
        self.goes_on(true)
    }

    /// Takes the answers of one connection and fills its slots. Returns how many there were.
    #[inline]
    fn turn(&mut self, connection: usize) -> u64 {
        let mut answered = 0;
        while self.end.take(connection) {
            answered += 1;
        }
        while self.end.has_room(connection) {
            self.end.send(connection, &self.payload);
        }
        answered
    }

    #[inline]
    fn goes_on(&mut self, found: bool) -> anyhow::Result<()> {
        ensure!(self.watch.goes_on(found), "the server stopped answering over bare slots");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_slots_that_nobody_fills_ends_by_itself() {
        let shape = SlotShape { connections: 2, depth: 2, size: 8 };
        let (memory, fd) = SharedMemory::create(shape.bytes()).unwrap();
        let mut ready = false;
        answer(std::process::id(), fd.as_raw_fd(), shape, || ready = true).unwrap();
        let mut client = ClientEnd::new(memory.view(0..shape.bytes()), shape);
        client.send(0, &[1; 8]);
        assert!(ready && !client.take(0), "a call that comes later is not answered");
    }
}
