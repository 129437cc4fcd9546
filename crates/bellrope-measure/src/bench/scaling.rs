mod model;

use std::{hint::black_box, time::Duration};

use anyhow::{Context, anyhow};
use bellrope::{
    client::{ClientConfig, Connection, MessageType},
    server::{CpuList, ServerConfig, SpinPolicy},
};
use bellrope_shm::{clock, proc, process};
use bellrope_terminal::ProgressBar;
use clap::Args;
use serde::Serialize;

use super::{
    args::TimedArgs,
    limit::ping,
    samples::{Samples, median_of},
    throughput::BusyConnections,
};
use crate::server_process::ServerProcess;
use model::{HEAD, MACHINES, Measured, Prediction};

/// Runs whose median is reported.
const RUNS: u32 = 5;
const SIZE: usize = 64;
const DEPTH: usize = 64;
/// Connections at which it is measured what a look costs, and at which the model is checked.
const FEW: u32 = 32;
const SOME: u32 = 256;
const MANY: u32 = 512;
/// What one node takes of another's where this machine has only one: two sockets of today's servers.
const USUAL_REMOTE_FACTOR: f64 = 3.0;

const HELP: &str = "\
Examples:
  bellrope bench scaling
  bellrope bench scaling --json

docs/scaling.md has the model and what it assumes. The command checks whether the time until a worker looks at a connection \
grows with their number as predicted and, with four CPUs or more, whether two workers carry twice as much as one. There is no \
PASS or FAIL.";

/// How to check the model.
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP, mut_arg("seconds", |arg| arg.required(false).default_value("10")))]
pub struct ScalingArgs {
    #[command(flatten)]
    pub(super) timed: TimedArgs,
}

/// What was measured, whether the model holds here, and what it says of other machines.
#[derive(Debug, Serialize)]
pub(crate) struct ScalingReport {
    cpus: usize,
    nodes: usize,
    measured: Measured,
    /// Whether the other nodes of this machine were measured. Otherwise their factor is what is usual.
    remote_measured: bool,
    /// `None`: what a look costs could not be told.
    look: Option<LookCheck>,
    /// What two workers carry, as a multiple of one. `None`: there are fewer than four CPUs.
    two_workers: Option<f64>,
    predictions: Vec<Prediction>,
}

/// Round trips to one of many connections, chosen at random.
#[derive(Debug, Clone, Copy, Serialize)]
struct LookCheck {
    connections: u32,
    predicted_us: f64,
    measured_us: f64,
    deviation_percent: f64,
}

/// Measures, predicts, and measures what was predicted.
pub(super) fn measure(args: &ScalingArgs, progress: bool) -> anyhow::Result<ScalingReport> {
    let cpus = process::usable_cpu_numbers();
    let nodes = nodes(&cpus);
    let pin = args.timed.pin() && cpus.len() > 1;
    let step = args.timed.time() / (6 * RUNS);
    let bar = ProgressBar::new(progress, "scaling", RUNS.into());
    let mut server = ServerProcess::start_configured(pin, spinning())?;
    let mut found = Found::default();
    let mut measure = || -> anyhow::Result<()> {
        place(pin.then(|| cpus[0]))?;
        let mut load = BusyConnections::new(&server, 1, SIZE, DEPTH)?;
        let mut callers = Callers::connect(&server, MANY)?;
        for _ in 0..RUNS {
            place(pin.then(|| cpus[0]))?;
            found.lines.push(line_ns(&mut server, step)?);
            // Lines of another node, to the same server.
            let others = nodes.iter().skip(1).filter_map(|node| node.iter().next());
            for cpu in others.filter(|_| pin) {
                place(Some(cpu))?;
                found.remote.push(line_ns(&mut server, step)?);
            }
            place(pin.then(|| cpus[0]))?;
            let start = std::time::Instant::now();
            let calls = load.run(step)?;
            found.calls_per_s.push(calls as f64 / start.elapsed().as_secs_f64());
            for (connections, times) in [(FEW, &mut found.few), (SOME, &mut found.some), (MANY, &mut found.many)] {
                times.push(callers.round_trip_us(connections, step)?);
            }
            bar.step();
        }
        Ok(())
    };
    measure()?;
    drop(server);
    let two_workers = if pin && cpus.len() >= 4 { Some(two_workers(&cpus, step, &found)?) } else { None };
    Ok(found.report(&cpus, nodes.len(), two_workers))
}

/// What was found in all runs.
#[derive(Debug, Default)]
struct Found {
    lines: Vec<f64>,
    remote: Vec<f64>,
    calls_per_s: Vec<f64>,
    few: Vec<f64>,
    some: Vec<f64>,
    many: Vec<f64>,
}

impl Found {
    fn report(self, cpus: &[usize], nodes: usize, two_workers: Option<f64>) -> ScalingReport {
        let median = |values: &[f64]| median_of(values.iter().copied());
        let (few, some, many) = (median(&self.few), median(&self.some), median(&self.many));
        let line_ns = median(&self.lines);
        let remote_measured = !self.remote.is_empty();
        let measured = Measured {
            worker_calls_per_s: median(&self.calls_per_s),
            // Half a round more for so many connections more. Where they cost nothing, other things hide it.
            look_ns: Some(2e3 * (some - few) / f64::from(SOME - FEW)).filter(|look_ns| *look_ns > 0.0),
            line_ns,
            remote_factor: if remote_measured { median(&self.remote) / line_ns } else { USUAL_REMOTE_FACTOR },
        };
        let look = measured.wait_us(f64::from(MANY - SOME)).map(|longer| LookCheck {
            connections: MANY,
            predicted_us: some + longer,
            measured_us: many,
            deviation_percent: 100.0 * (many / (some + longer) - 1.0),
        });
        let predictions = MACHINES.into_iter().map(|machine| measured.predict(machine)).collect();
        ScalingReport { cpus: cpus.len(), nodes, measured, remote_measured, look, two_workers, predictions }
    }
}

/// A worker that never sleeps, so that only its looks are measured.
fn spinning() -> ServerConfig {
    ServerConfig::new().workers(1).spin(SpinPolicy::Always)
}

fn place(cpu: Option<usize>) -> anyhow::Result<()> {
    cpu.map_or(Ok(()), |cpu| process::pin_to(cpu).with_context(|| format!("pinning the client to CPU {cpu}")))
}

/// The usable CPUs of each node, that of the first CPU first. One node where the system says nothing of them.
fn nodes(cpus: &[usize]) -> Vec<CpuList> {
    let usable = |cpus: &CpuList| cpus.iter().any(process::may_run_on);
    let listed = proc::cpus_of_nodes().into_iter().filter_map(|cpus| cpus.parse().ok());
    let mut nodes: Vec<CpuList> = listed.filter(usable).collect();
    nodes.sort_by_key(|node| (!node.iter().any(|cpu| cpus.first() == Some(&cpu)), node.iter().next()));
    if nodes.is_empty() { vec![CpuList::default()] } else { nodes }
}

/// How long a line takes from one CPU to the other: half a ping-pong.
fn line_ns(server: &mut ServerProcess, time: Duration) -> anyhow::Result<f64> {
    const ROUNDS: u64 = 100_000;
    Ok(ping(server, ROUNDS, time)?.percentiles().p50_us * 1e3 / 2.0)
}

/// Connections that are all busy enough to be looked at in every round.
struct Callers {
    connections: Vec<(Connection, MessageType)>,
    payload: [u8; SIZE],
    reply: Vec<u8>,
}

impl Callers {
    fn connect(server: &ServerProcess, count: u32) -> anyhow::Result<Self> {
        process::raise_descriptor_limit();
        let config = ClientConfig::new(server.socket()).spin(SpinPolicy::Always);
        let connect = |_| -> anyhow::Result<_> {
            let connection = Connection::with(&config)?;
            let echo = connection.message_type("echo")?;
            Ok((connection, echo))
        };
        let connections = (0..count).map(connect).collect::<anyhow::Result<_>>()?;
        Ok(Self { connections, payload: [0x5A; SIZE], reply: Vec::new() })
    }

    /// The median of calls to the first so many of them, one call at a time, each on one chosen at random.
    fn round_trip_us(&mut self, connections: u32, time: Duration) -> anyhow::Result<f64> {
        // All of them are looked at again, and none of the others: their worker has given those up.
        let settled = std::time::Instant::now();
        while settled.elapsed() < time / 2 {
            self.call(connections, &mut None)?;
        }
        let mut samples = Some(Samples::with_capacity(1 << 16));
        let start = std::time::Instant::now();
        while start.elapsed() < time / 2 {
            self.call(connections, &mut samples)?;
        }
        Ok(samples.map_or(0.0, |samples| samples.percentiles().p50_us))
    }

    fn call(&mut self, connections: u32, samples: &mut Option<Samples>) -> anyhow::Result<()> {
        let (connection, echo) = &mut self.connections[fastrand::usize(..connections as usize)];
        let began = clock::ticks();
        connection.call(*echo, black_box(&self.payload), &mut self.reply)?;
        if let Some(samples) = samples {
            samples.add(clock::ticks() - began);
        }
        Ok(())
    }
}

/// What two workers with a client each carry together, as a multiple of what one does.
fn two_workers(cpus: &[usize], time: Duration, found: &Found) -> anyhow::Result<f64> {
    let workers = format!("{},{}", cpus[1], cpus[3]).parse::<CpuList>().context("the CPUs of two workers")?;
    let server = ServerProcess::start_configured(false, spinning().workers(0).worker_cpus(workers))?;
    let run = &|cpu| {
        place(Some(cpu))?;
        // Connections go to the workers in turn.
        let mut load = BusyConnections::new(&server, 1, SIZE, DEPTH)?;
        let start = std::time::Instant::now();
        anyhow::Ok(load.run(time)? as f64 / start.elapsed().as_secs_f64())
    };
    let mut together = Vec::new();
    for _ in 0..RUNS {
        let sum = std::thread::scope(|scope| {
            let runs = [cpus[0], cpus[2]].map(|cpu| scope.spawn(move || run(cpu)));
            let rates = runs.map(|run| run.join().unwrap_or_else(|_| Err(anyhow!("a client panicked"))));
            rates.into_iter().sum::<anyhow::Result<f64>>()
        });
        together.push(sum?);
    }
    Ok(median_of(together.into_iter()) / median_of(found.calls_per_s.iter().copied()))
}

impl ScalingReport {
    pub(super) fn lines(&self) -> Vec<String> {
        let Measured { worker_calls_per_s, look_ns, line_ns, remote_factor } = self.measured;
        let remote = if self.remote_measured { "measured" } else { "assumed: there is one node" };
        let two = self.two_workers.map_or_else(
            || "not measured: that takes four CPUs".to_owned(),
            |times| format!("{times:.2} times what one does; the model says 2"),
        );
        let mut lines = vec![
            format!("{} CPUs, {} nodes", self.cpus, self.nodes),
            format!(
                "one worker and one client, {SIZE} B, {DEPTH} under way: {:.2} M calls/s",
                worker_calls_per_s / 1e6
            ),
            match look_ns {
                Some(look_ns) => format!("a look at a connection without a call: {look_ns:.1} ns"),
                None => format!(
                    "a look at a connection without a call: cannot be told here, since calls among {SOME} connections took no \
                     longer than among {FEW}"
                ),
            },
            format!(
                "a line from one CPU to another: {line_ns:.0} ns; from another node {remote_factor:.1} times that ({remote})"
            ),
            match self.look {
                Some(look) => format!(
                    "a call to one of {} busy connections: predicted {:.2} us, measured {:.2} us ({:+.0} %)",
                    look.connections, look.predicted_us, look.measured_us, look.deviation_percent
                ),
                None => {
                    format!("a call to one of {MANY} busy connections: not predicted, for want of what a look costs")
                }
            },
            format!("two workers: {two}"),
            String::new(),
            HEAD.to_owned(),
        ];
        lines.extend(self.predictions.iter().map(Prediction::line));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_the_line_is_predicted() {
        let found = Found {
            lines: vec![50.0],
            remote: vec![],
            calls_per_s: vec![8e6],
            // 0.3 us and 10 ns a look.
            few: vec![0.3 + 0.16],
            some: vec![0.3 + 1.28],
            many: vec![0.3 + 2.56],
        };
        let report = found.report(&[0, 1], 1, None);
        assert!(report.measured.look_ns.is_some_and(|look_ns| (look_ns - 10.0).abs() < 1e-6), "{report:?}");
        let look = report.look.unwrap();
        assert!((look.predicted_us - 2.86).abs() < 1e-6 && look.deviation_percent.abs() < 1e-6);
        assert_eq!((report.measured.remote_factor, report.remote_measured), (USUAL_REMOTE_FACTOR, false));
        assert!(report.lines().iter().any(|line| line.contains("not measured")));
    }

    #[test]
    fn what_cannot_be_told_is_said_to_be_unknown() {
        let found = Found {
            lines: vec![50.0],
            remote: vec![],
            calls_per_s: vec![8e6],
            few: vec![3.0],
            some: vec![2.9],
            many: vec![3.1],
        };
        let report = found.report(&[0, 1], 1, None);
        assert!(report.measured.look_ns.is_none() && report.look.is_none(), "{report:?}");
        let lines = report.lines();
        for said in ["cannot be told", "not predicted", "unknown"] {
            assert!(lines.iter().any(|line| line.contains(said)), "{lines:?}");
        }
        assert!(!lines.iter().any(|line| line.contains("0.0 ns")));
    }

    #[test]
    fn every_usable_cpu_is_of_some_node_or_there_is_one() {
        let cpus = process::usable_cpu_numbers();
        let nodes = nodes(&cpus);
        let first = nodes.first().unwrap();
        assert!(first.is_empty() || first.iter().any(|cpu| cpu == cpus[0]), "{nodes:?}");
    }
}
