//! What a call and a chunk take of each party: CPU time, and how often its threads are woken.

use std::time::Duration;

use anyhow::Context as _;
use bellrope_shm::proc;
use bellrope_terminal::{Outcome, output};
use serde::Serialize;

use super::stage::Stage;

/// What one thing that goes through the fleet takes of each party, of many that went through it.
#[derive(Debug, Serialize)]
pub(super) struct Costs {
    client: Cost,
    importing: Cost,
    nats: Cost,
    /// All of them together.
    instances: Cost,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Cost {
    cpu_us: f64,
    /// How often a thread of it was woken.
    woken: f64,
}

/// What the threads of all parties have had so far.
#[derive(Debug)]
pub(super) struct Had([Sum; 4]);

/// Of the threads of some processes: time on a CPU, and how often they were woken.
#[derive(Debug, Clone, Copy, Default)]
struct Sum(Duration, u64);

impl Had {
    pub(super) fn now(stage: &Stage) -> anyhow::Result<Self> {
        let instances = stage.instances.iter().map(|instance| instance.id()).collect::<Vec<_>>();
        let parties = [&[std::process::id()][..], &[stage.importing.id()], &[stage.nats.id()], &instances];
        let mut had = [Sum::default(); 4];
        for (sum, party) in had.iter_mut().zip(parties) {
            for pid in party {
                // A thread that has ended meanwhile was none of those that carry calls.
                for thread in proc::threads(*pid).context("finding the threads of a party")? {
                    if let (Ok(share), Ok(sleeps)) = (thread.cpu_share(), thread.sleeps()) {
                        *sum = Sum(sum.0 + share.ran, sum.1 + sleeps);
                    }
                }
            }
        }
        Ok(Self(had))
    }

    /// What each of `count` things took, of all that went through between `before` and this.
    pub(super) fn since(&self, before: &Self, count: u64) -> Costs {
        let each = |sum: f64| sum / count as f64;
        let of = |party: usize| {
            let (now, before) = (self.0[party], before.0[party]);
            let (ran, woken) = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
            Cost { cpu_us: each(ran.as_nanos() as f64) / 1000.0, woken: each(woken as f64) }
        };
        Costs { client: of(0), importing: of(1), nats: of(2), instances: of(3) }
    }
}

impl Costs {
    pub(super) fn print(&self, of: &str) -> Outcome {
        let parties = [
            ("client", self.client),
            ("importing server", self.importing),
            ("NATS", self.nats),
            ("instances", self.instances),
        ];
        let shown = parties.map(|(name, Cost { cpu_us, woken })| format!("{name} {cpu_us:.2} us, {woken:.3}"));
        output::line(format_args!("CPU time and wake-ups of {of}: {}", shown.join("; ")))
    }
}
