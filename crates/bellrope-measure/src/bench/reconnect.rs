use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use bellrope::{Client, client::ConnectionState};
use bellrope_shm::{clock, process};
use bellrope_terminal::{Outcome, ProgressBar, output};
use clap::Args;
use serde::Serialize;

use super::{
    args::RunArgs,
    samples::{Percentiles, Samples, median_of},
};
use crate::server_process::ServerProcess;

/// Kills for so many clients.
const ROUNDS: u32 = 50;
const ROUNDS_OF_MANY: u32 = 10;
const QUICK_ROUNDS: u32 = 3;
/// From here on it is many.
const MANY: u32 = 100;
const CLIENTS: [u32; 2] = [1, 1000];
const PATIENCE: Duration = Duration::from_secs(20);
const GOAL_ONE_P99_MS: f64 = 20.0;
const GOAL_ALL_MS: f64 = 100.0;

const HELP: &str = "\
Examples:
  bellrope bench reconnect
  bellrope bench reconnect --clients 5000 --json

Each round kills the server with SIGKILL, waits until every client knows, and starts another one at the same path. The time \
counts from the moment at which that one set about to listen; both processes read the same monotonic clock.";

/// How to measure how clients find a server again.
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub struct ReconnectArgs {
    /// Clients, all in this process; any number of times [default: 1 and 1000].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=9000))]
    clients: Vec<u32>,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// How long clients took to find their server again.
#[derive(Debug, Serialize)]
pub(crate) struct ReconnectReport {
    rows: Vec<Row>,
    goal_one_client_p99_ms: f64,
    goal_all_ms: f64,
}

/// So many clients.
#[derive(Debug, Serialize)]
struct Row {
    clients: u32,
    kills: u32,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Until the last client of a round was there: the median of the rounds.
    all_p50_ms: f64,
}

/// Kills and restarts servers.
pub(super) fn measure(args: &ReconnectArgs, progress: bool) -> anyhow::Result<ReconnectReport> {
    process::raise_descriptor_limit();
    let clients = if args.clients.is_empty() { &CLIENTS[..] } else { &args.clients };
    let rounds = |clients| rounds(clients, args.run.quick);
    let bar = ProgressBar::new(progress, "reconnect", clients.iter().map(|&clients| u64::from(rounds(clients))).sum());
    let row = |&clients| measure_clients(clients, rounds(clients), &bar);
    Ok(ReconnectReport {
        rows: clients.iter().map(row).collect::<anyhow::Result<_>>()?,
        goal_one_client_p99_ms: GOAL_ONE_P99_MS,
        goal_all_ms: GOAL_ALL_MS,
    })
}

/// How often the server of so many clients is killed.
fn rounds(clients: u32, quick: bool) -> u32 {
    match clients {
        _ if quick => QUICK_ROUNDS,
        MANY.. => ROUNDS_OF_MANY,
        _ => ROUNDS,
    }
}

fn measure_clients(clients: u32, kills: u32, bar: &ProgressBar) -> anyhow::Result<Row> {
    let mut server = ServerProcess::start(false)?;
    let watched = (0..clients).map(|_| Watched::connect(&server)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut samples = Samples::with_capacity((clients * kills) as usize);
    let mut lasts = Vec::new();
    for _ in 0..kills {
        server.kill()?;
        until(&watched, "all clients knew that the server was gone", |seen| seen.lost())?;
        server.restart()?;
        until(&watched, "all clients were connected again", |seen| seen.back_us().is_some())?;
        let spans = watched.iter().filter_map(|client| client.seen.back_us());
        let spans: Vec<u64> = spans.map(|back| back.saturating_sub(server.listening_us())).collect();
        lasts.push(spans.iter().copied().max().unwrap_or(0) as f64 / 1000.0);
        spans.iter().for_each(|&span| samples.add_us(span));
        for client in &watched {
            ensure!(client.client.call("echo", b"again")? == b"again", "the echo differs from what was sent");
            client.seen.forget();
        }
        bar.step();
    }
    let Percentiles { p50_us, p99_us, max_us, .. } = samples.percentiles();
    Ok(Row {
        clients,
        kills,
        p50_ms: p50_us / 1000.0,
        p99_ms: p99_us / 1000.0,
        max_ms: max_us / 1000.0,
        all_p50_ms: median_of(lasts.into_iter()),
    })
}

/// Waits until something holds for every client.
fn until(clients: &[Watched], what: &str, holds: impl Fn(&Seen) -> bool) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    while !clients.iter().all(|client| holds(&client.seen)) {
        ensure!(Instant::now() < deadline, "it took more than {PATIENCE:?} until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A client, and what its watcher has seen.
struct Watched {
    client: Client,
    seen: Arc<Seen>,
}

/// When a client lost its server, and when it had one again; 0 for not yet.
#[derive(Debug, Default)]
struct Seen {
    lost_us: AtomicU64,
    back_us: AtomicU64,
}

impl Watched {
    fn connect(server: &ServerProcess) -> anyhow::Result<Self> {
        let client = Client::connect(server.socket())?;
        let seen = Arc::<Seen>::default();
        let told = Arc::clone(&seen);
        client.on_state_change(move |state| told.note(state, clock::monotonic_us()));
        Ok(Self { client, seen })
    }
}

impl Seen {
    fn note(&self, state: ConnectionState, now_us: u64) {
        match state {
            ConnectionState::Reconnecting => self.lost_us.store(now_us, Ordering::Release),
            ConnectionState::Connected => self.back_us.store(now_us, Ordering::Release),
            ConnectionState::Closed => {}
        }
    }

    fn lost(&self) -> bool {
        self.lost_us.load(Ordering::Acquire) > 0
    }

    /// When there was a connection after the loss.
    fn back_us(&self) -> Option<u64> {
        let (lost, back) = (self.lost_us.load(Ordering::Acquire), self.back_us.load(Ordering::Acquire));
        (lost > 0 && back >= lost).then_some(back)
    }

    fn forget(&self) {
        self.lost_us.store(0, Ordering::Release);
        self.back_us.store(0, Ordering::Release);
    }
}

impl ReconnectReport {
    pub(super) fn print(&self) -> Outcome {
        for Row { clients, kills, p50_ms, p99_ms, max_ms, all_p50_ms } in &self.rows {
            output::line(format_args!(
                "{clients:>5} clients, {kills} kills: p50 {p50_ms:.1} ms  p99 {p99_ms:.1}  max {max_ms:.1}; the last of them after {all_p50_ms:.1} (median)"
            ))?;
        }
        output::line(format_args!(
            "goals: one client within {} ms at p99, 1,000 clients all within {} ms",
            self.goal_one_client_p99_ms, self.goal_all_ms
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_clients_lose_their_server_less_often() {
        assert_eq!([1, MANY - 1, MANY, 9000].map(|clients| rounds(clients, false)), [50, 50, 10, 10]);
        assert_eq!([1, 9000].map(|clients| rounds(clients, true)), [3, 3]);
    }

    #[test]
    fn a_client_is_back_when_it_was_connected_after_the_loss_and_no_other_news_counts() {
        let seen = Seen::default();
        seen.note(ConnectionState::Connected, 3);
        assert_eq!((seen.lost(), seen.back_us()), (false, None));
        seen.note(ConnectionState::Reconnecting, 5);
        assert_eq!((seen.lost(), seen.back_us()), (true, None));
        seen.note(ConnectionState::Closed, 6);
        assert_eq!((seen.lost(), seen.back_us()), (true, None));
        seen.note(ConnectionState::Connected, 7);
        assert_eq!((seen.lost(), seen.back_us()), (true, Some(7)));
        seen.forget();
        assert_eq!((seen.lost(), seen.back_us()), (false, None));
    }
}
