//! The model of docs/scaling.md: what a machine with more CPUs would carry, from what was measured on this one.

use serde::Serialize;

/// What the model is fed with.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Measured {
    /// Calls a second of one worker and one client with a CPU each: what the slower of both can do.
    pub(super) worker_calls_per_s: f64,
    /// Nanoseconds that a look at a connection without a call takes its worker. `None`: it cannot be told here, since more
    /// connections did not make a call longer.
    pub(super) look_ns: Option<f64>,
    /// Nanoseconds that a cache line takes from one CPU to another of the same node.
    pub(super) line_ns: f64,
    /// How many times as long it takes from another node.
    pub(super) remote_factor: f64,
}

/// A machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Machine {
    pub(super) cpus: u32,
    pub(super) nodes: u32,
}

/// What it would carry with the default settings.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Prediction {
    #[serde(flatten)]
    machine: Machine,
    workers: u32,
    /// All clients on the nodes of their workers.
    calls_per_s: f64,
    /// Clients on any node.
    calls_per_s_any_node: f64,
    /// Mean microseconds until a worker looks at one of 1,000 busy connections.
    look_us_at_1000: Option<f64>,
    /// KiB of counters for 32 message types.
    counters_kib: f64,
}

/// The machines of the table.
pub(super) const MACHINES: [Machine; 5] = [
    Machine { cpus: 2, nodes: 1 },
    Machine { cpus: 8, nodes: 1 },
    Machine { cpus: 64, nodes: 1 },
    Machine { cpus: 64, nodes: 2 },
    Machine { cpus: 192, nodes: 4 },
];

/// Connections of which the time until a look is told.
const CONNECTIONS: f64 = 1_000.0;
/// Lines that each call moves and nothing hides: its request and its response, at both ends.
const LINES: f64 = 2.0;
const TYPES: u32 = 32;
/// Of a message type at one worker, and of the worker: `TypeCounters` and `Shard` of crates/bellrope/src/status/counters.rs.
const COUNTERS_BYTES: u32 = 256;
const SHARD_BYTES: u32 = 64;

impl Measured {
    /// What a machine would carry.
    pub(super) fn predict(&self, machine: Machine) -> Prediction {
        let workers = (machine.cpus / 4).max(1);
        let each = f64::from(workers);
        // Of clients that do not choose their node as many are on each.
        let foreign = 1.0 - 1.0 / f64::from(machine.nodes);
        let remote_s = foreign * LINES * self.line_ns * (self.remote_factor - 1.0) / 1e9;
        Prediction {
            machine,
            workers,
            calls_per_s: each * self.worker_calls_per_s,
            calls_per_s_any_node: each / (1.0 / self.worker_calls_per_s + remote_s),
            look_us_at_1000: self.wait_us(CONNECTIONS / each),
            counters_kib: f64::from(workers * ((TYPES + 1) * COUNTERS_BYTES + SHARD_BYTES)) / 1024.0,
        }
    }

    /// Mean microseconds until a worker that looks at so many connections in turn looks at a given one: half a round.
    pub(super) fn wait_us(&self, connections: f64) -> Option<f64> {
        self.look_ns.map(|look_ns| connections * look_ns / 2e3)
    }
}

impl Prediction {
    pub(super) fn line(&self) -> String {
        let look = self.look_us_at_1000.map_or_else(|| "unknown".to_owned(), |us| format!("{us:.2}"));
        format!(
            "{:>5} {:>6} {:>8} {:>11.1} {:>15.1} {:>17} {:>13.0}",
            self.machine.cpus,
            self.machine.nodes,
            self.workers,
            self.calls_per_s / 1e6,
            self.calls_per_s_any_node / 1e6,
            look,
            self.counters_kib
        )
    }
}

/// The head of the table.
pub(super) const HEAD: &str = " CPUs  nodes  workers  M calls/s  on any node  1,000 looked at, us  counters, KiB";

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURED: Measured =
        Measured { worker_calls_per_s: 10e6, look_ns: Some(20.0), line_ns: 100.0, remote_factor: 3.0 };

    #[test]
    fn workers_add_up_and_share_their_connections() {
        let small = MEASURED.predict(Machine { cpus: 2, nodes: 1 });
        let large = MEASURED.predict(Machine { cpus: 64, nodes: 1 });
        assert_eq!((small.workers, large.workers), (1, 16));
        assert_eq!((small.calls_per_s, large.calls_per_s), (10e6, 160e6));
        assert_eq!((small.look_us_at_1000, large.look_us_at_1000), (Some(10.0), Some(0.625)));
        assert_eq!(large.counters_kib, 16.0 * small.counters_kib);
        assert_eq!(small.calls_per_s_any_node, small.calls_per_s, "there is no other node");
    }

    #[test]
    fn a_call_from_another_node_pays_for_its_lines() {
        let two = MEASURED.predict(Machine { cpus: 8, nodes: 2 });
        // 100 ns a call, and for half of the clients 2 lines of 200 ns more.
        assert!((two.calls_per_s_any_node - 2.0 / 300e-9).abs() < 1.0, "{two:?}");
        assert_eq!(two.calls_per_s, 20e6);
    }
}
