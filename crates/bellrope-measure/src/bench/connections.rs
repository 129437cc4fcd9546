use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bellrope::{client::Connection, status::MemoryUse};
use bellrope_terminal::ProgressBar;
use clap::Args;
use serde::Serialize;

use super::{args::RunArgs, memory};
use crate::server_process::ServerProcess;

/// Connections without `--count`, and when it must be quick.
const COUNT: u32 = 10_000;
const QUICK_COUNT: u32 = 1_000;
/// Steps of the progress bar for opening, and as many for calling.
const STEPS: u32 = 50;

const HELP: &str = "\
Examples:
  bellrope bench connections
  bellrope bench connections --count 20000 --json

All connections are open at once, and each of them answers a call. Both processes need a descriptor for each: their soft limit \
is raised to the hard one, and where that is too low this is said instead. The server's own limits are raised by its settings \
max_connections and max_connections_per_uid.";

/// How many connections to open.
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub struct ConnectionsArgs {
    /// Connections [default: 10000, with --quick 1000].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=30_000))]
    count: Option<u32>,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// Many connections at once.
#[derive(Debug, Serialize)]
pub(crate) struct ConnectionsReport {
    connections: u32,
    /// Those that answered a call while all were open.
    answered: u32,
    open_us_each: f64,
    first_call_us_each: f64,
    /// The server before the first one.
    before: MemoryUse,
    /// The server when each of them had been called and had rested.
    idle: MemoryUse,
    idle_bytes_each: f64,
    /// Until the server had closed all of them, after their client was gone.
    closed_ms: f64,
}

/// Opens connections, calls each, and closes them.
pub(super) fn measure(args: &ConnectionsArgs, progress: bool) -> anyhow::Result<ConnectionsReport> {
    let count = args.count.unwrap_or(if args.run.quick { QUICK_COUNT } else { COUNT });
    let server = ServerProcess::start_for(count + 1)?;
    let before = memory::at_rest(&server)?;
    let bar = ProgressBar::new(progress, "connections", u64::from(2 * STEPS));
    let each_step = (count / STEPS).max(1) as usize;

    let start = Instant::now();
    let mut connections = Vec::with_capacity(count as usize);
    for number in 0..count {
        let connection = Connection::connect(server.socket());
        connections.push(connection.with_context(|| format!("{number} connections are open, and no more can be"))?);
        if connections.len().is_multiple_of(each_step) {
            bar.step();
        }
    }
    let opened = start.elapsed();

    let start = Instant::now();
    let (mut reply, mut answered) = (Vec::new(), 0);
    for (number, connection) in connections.iter_mut().enumerate() {
        let echo = connection.message_type("echo")?;
        let payload = number.to_le_bytes();
        connection.call(echo, &payload, &mut reply)?;
        answered += u32::from(reply == payload);
        if number.is_multiple_of(each_step) {
            bar.step();
        }
    }
    let called = start.elapsed();
    ensure!(answered == count, "only {answered} of {count} connections answered with what they were sent");

    let idle = memory::at_rest(&server)?;
    drop(bar);
    let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(count);
    Ok(ConnectionsReport {
        connections: count,
        answered,
        open_us_each: each(opened),
        first_call_us_each: each(called),
        before,
        idle,
        idle_bytes_each: (idle.rss_kb.saturating_sub(before.rss_kb) * 1024) as f64 / f64::from(count),
        closed_ms: close(&server, connections)?,
    })
}

/// Closes all connections, and returns the milliseconds until the server has answered a new one, which it does when it
/// has taken notice of all.
fn close(server: &ServerProcess, connections: Vec<Connection>) -> anyhow::Result<f64> {
    let start = Instant::now();
    drop(connections);
    let mut last = Connection::connect(server.socket())?;
    let echo = last.message_type("echo")?;
    last.call(echo, b"last", &mut Vec::new())?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

impl ConnectionsReport {
    /// For people.
    pub(super) fn lines(&self) -> Vec<String> {
        let Self { connections, answered, open_us_each, first_call_us_each, closed_ms, .. } = self;
        let memory = |when: &str, memory: MemoryUse| {
            let MemoryUse { rss_kb, anon_kb, file_kb, shmem_kb } = memory;
            format!(
                "server memory {when}: {rss_kb} KiB resident = {anon_kb} anonymous + {file_kb} of files + {shmem_kb} shared"
            )
        };
        vec![
            format!("{connections} connections open at once, {answered} of them answered a call"),
            format!(
                "opening {open_us_each:.0} us each, the first call {first_call_us_each:.0} us each; all closed again in \
                 {closed_ms:.0} ms"
            ),
            memory("before", self.before),
            memory("with all of them idle", self.idle),
            format!("an idle connection: {:.0} bytes", self.idle_bytes_each),
        ]
    }
}
