//! The limit of whatever carries a payload: bare slots in shared memory, both sides spinning.

use std::os::fd::AsRawFd;

use anyhow::{Context, ensure};
use bellrope_measure::slots::{ClientEnd, ServerEnd, SlotShape};
use bellrope_shm::SharedMemory;

use super::{limit, process};
use crate::{
    meter::{Answers, Caller, RoundTrips},
    plan::Task,
};

/// Fruitless looks between two at the clock.
const LOOKS_PER_CLOCK: u32 = 10_000_000;

fn shape(task: &Task) -> SlotShape {
    SlotShape { connections: task.connections, depth: task.depth.max(1), size: task.size }
}

pub(super) fn serve(task: &Task) -> anyhow::Result<()> {
    process::end_with_parent();
    let shape = shape(task);
    let (memory, fd) = SharedMemory::create(shape.bytes()).context("making shared memory")?;
    let mut end = ServerEnd::new(memory.view(0..shape.bytes()), shape);
    process::ready(limit::place_of(fd.as_raw_fd()))?;
    while !end.is_over() {
        end.round();
    }
    // Whoever started this process ends it.
    process::wait_for_parent();
    Ok(())
}

pub(super) struct Client(ClientEnd);

impl Client {
    pub(super) fn open(path: &str, task: &Task) -> anyhow::Result<Self> {
        let shape = shape(task);
        Ok(Self(ClientEnd::new(limit::open(path, shape.bytes())?, shape)))
    }
}

impl Caller for Client {
    fn round_trips(&mut self, meter: &mut RoundTrips) -> anyhow::Result<()> {
        while let Some(payload) = meter.next() {
            self.0.send(0, payload);
            let mut patience = limit::Patience::new(LOOKS_PER_CLOCK);
            while !self.0.take(0) {
                ensure!(patience.lasts(), "the server stopped answering");
                std::hint::spin_loop();
            }
            meter.answered(self.0.reply())?;
        }
        Ok(())
    }

    fn keep_busy(&mut self, meter: &mut Answers, _: usize) -> anyhow::Result<()> {
        let mut patience = limit::Patience::new(LOOKS_PER_CLOCK);
        loop {
            let (mut under_way, mut found) = (0, false);
            for connection in 0..self.0.connections() {
                while self.0.take(connection) {
                    meter.answered(self.0.reply())?;
                    found = true;
                }
                while self.0.has_room(connection) {
                    let Some(payload) = meter.next() else { break };
                    self.0.send(connection, payload);
                }
                under_way += self.0.under_way(connection);
            }
            if under_way == 0 {
                return Ok(());
            }
            if found {
                patience = limit::Patience::new(LOOKS_PER_CLOCK);
            }
            ensure!(patience.lasts(), "the server stopped answering");
        }
    }
}
