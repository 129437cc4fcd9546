//! `chaos`: things go wrong at random, one after another, while clients that do nothing wrong call on.
//!
//! After each fault, or while it lasts, every one of these must have a right answer to a call that began after it, within
//! 100 ms. For a killed server the time counts from when the next one set about to listen.

mod honest_clients;
mod peer;
mod plan;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use bellrope::{
    CallError,
    client::{ClientConfig, Connection},
    server::ServerConfig,
};
use bellrope_shm::clock;
use bellrope_shm::socket::Socket;
use bellrope_terminal::ProgressBar;
use honest_clients::HonestClients;
use peer::Peer;
use plan::{Fault, KINDS, Plan};

use super::{
    course::Course,
    crowd::{Caller, Tally},
    report::SuiteReport,
    share_bar::{BAR_STEPS, ShareBar},
    victim::Victim,
    watch::{Footprint, quiet},
};
use crate::{bench::BusyConnections, bench_server::HOLD, criterion::Threshold, server_process::ServerProcess};

const BUDGET: u64 = 4 * 1024 * 1024;
const MAX_MESSAGE: u32 = 1024 * 1024;
const RING: u32 = 64 * 1024;
/// After this a client that reads or finishes nothing is closed: some are, while the suite runs.
const STALL_TIMEOUT_MS: u32 = 1_000;
const GOAL: Duration = Duration::from_millis(100);
/// A recovery that takes longer than this is given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clients that stand still at once; the oldest leaves for a new one.
const STANDING: usize = 8;
const FLOOD_DEPTH: usize = 256;

pub(super) fn run(course: Course) -> anyhow::Result<SuiteReport> {
    let mut report = SuiteReport::begin("chaos");
    let mut config = ServerConfig::default();
    config.buffer_budget_bytes = BUDGET;
    config.max_message_bytes = MAX_MESSAGE;
    config.ring_bytes = RING;
    config.stall_timeout = Duration::from_millis(STALL_TIMEOUT_MS.into());
    // The honest clients live in the same process as those who break the protocol, and more is broken if nobody waits.
    config.violation_pause = Duration::from_millis(0);
    let server = ServerProcess::start_configured(false, config)?;
    let config = course.client(server.socket());
    let honest_clients = HonestClients::start(&config)?;
    let mut chaos = Chaos { config, server, honest_clients, standing: VecDeque::new(), found: Found::default() };
    let (time, start) = (course.time(60.0, 15.0), Instant::now());
    let bar = ProgressBar::new(true, "chaos", BAR_STEPS);
    let mut bar = ShareBar::new(&bar);
    for fault in Plan::new(course.seed) {
        if start.elapsed() >= time {
            break;
        }
        chaos.strike(&fault).with_context(|| format!("after {} faults, with {fault:?}", chaos.found.faults()))?;
        bar.show(start.elapsed().as_secs_f64() / time.as_secs_f64());
    }
    chaos.standing.clear();
    // When all the others are gone, the server holds what the honest clients need and nothing else.
    let after = quiet(&mut chaos.server, HonestClients::connections(), PATIENCE)?;
    let Chaos { server, honest_clients, found, .. } = chaos;
    let footprint = Footprint::of(&server)?;
    let seen = honest_clients.end();

    let faults = found.faults();
    let failed = found.recoveries.iter().filter(|time| time.is_none_or(|time| time > GOAL)).count();
    let failed_percent = 100.0 * failed as f64 / faults.max(1) as f64;
    report.judge("faults", faults as f64, "", Threshold::AtLeast(1.0));
    report.judge("recoveries that failed or took over 100 ms", failed_percent, "%", Threshold::Below(1.0));
    report.judge(
        "answers that differ from what was sent",
        (seen.wrong + found.tally.wrong) as f64,
        "",
        Threshold::Equal(0.0),
    );
    report.judge("normal calls failed while the server was there", seen.failed as f64, "", Threshold::Equal(0.0));
    report.judge("broken protocol that went unpunished", found.unpunished as f64, "", Threshold::Equal(0.0));
    report.judge("large calls failed other than refused", found.tally.failed as f64, "", Threshold::Equal(0.0));
    report.judge(
        "connections at the end",
        after.connections as f64,
        "",
        Threshold::Equal(HonestClients::connections() as f64),
    );
    let mut times: Vec<f64> = found.recoveries.iter().flatten().map(|time| time.as_secs_f64() * 1e3).collect();
    times.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len().saturating_sub(1) as f64 * share) as usize).copied();
    report.fact("recoveries_failed", failed);
    report.fact("recovery_p50_ms", at(0.5));
    report.fact("recovery_p99_ms", at(0.99));
    report.fact("recovery_max_ms", at(1.0));
    report.fact("normal_calls_answered", seen.answered);
    report.fact("normal_calls_lost_with_a_killed_server", seen.lost);
    report.fact("large_calls_refused", found.tally.refused);
    report.fact("server_memory_at_the_end_kb", footprint.memory.rss_kb);
    for (name, count) in KINDS.into_iter().zip(found.by_kind) {
        report.fact(name, count);
    }
    report.fact("slowest_fault", found.slowest.map(|(_, fault)| fault));
    report.fact("first_failure", seen.first_failure.or(found.tally.first_failure));
    Ok(report.end())
}

/// A server, those who do nothing wrong, and those who stand still.
struct Chaos {
    /// How everybody connects.
    config: ClientConfig,
    server: ServerProcess,
    honest_clients: HonestClients,
    standing: VecDeque<Standing>,
    found: Found,
}

/// Somebody who is there and does nothing. Only dropped.
enum Standing {
    Reader(#[expect(dead_code, reason = "it holds a connection open")] Box<Connection>),
    Sender(#[expect(dead_code, reason = "it holds a connection open")] Peer),
}

#[derive(Default)]
struct Found {
    by_kind: [u64; KINDS.len()],
    /// How long after each fault all was well; `None`: it was given up.
    recoveries: Vec<Option<Duration>>,
    slowest: Option<(Duration, String)>,
    unpunished: u64,
    /// Calls of those who press the memory.
    tally: Tally,
}

impl Found {
    fn faults(&self) -> usize {
        self.recoveries.len()
    }

    fn note(&mut self, fault: &Fault, recovery: Option<Duration>) {
        self.by_kind[fault.kind()] += 1;
        self.recoveries.push(recovery);
        let time = recovery.unwrap_or(Duration::MAX);
        if self.slowest.as_ref().is_none_or(|(slowest, _)| time > *slowest) {
            self.slowest = Some((time, format!("{fault:?}")));
        }
    }
}

impl Chaos {
    /// Lets a fault happen, and waits until those who do nothing wrong are well.
    fn strike(&mut self, fault: &Fault) -> anyhow::Result<()> {
        if self.server.has_ended()? {
            bail!("the server has ended by itself");
        }
        let recovery = match fault {
            Fault::KillServer => self.kill_server()?,
            Fault::PressMemory { senders, size, ms } => {
                self.press_memory(*senders, *size, Duration::from_millis(*ms))?
            }
            Fault::Flood { connections, size, ms } => self.flood(*connections, *size, Duration::from_millis(*ms))?,
            fault => {
                let from = self.disturb(fault)?;
                self.honest_clients.recovered(from, PATIENCE)
            }
        };
        self.found.note(fault, recovery);
        Ok(())
    }

    /// A fault that is over at once, or lasts while others come. Answers from when on all must be well.
    fn disturb(&mut self, fault: &Fault) -> anyhow::Result<u64> {
        let from = clock::monotonic_us();
        match *fault {
            Fault::Corrupt(corruption) => {
                let peer = Peer::connect(&self.config)?;
                peer.corrupt(corruption);
                self.found.unpunished += u64::from(!peer.is_hung_up_on(PATIENCE)?);
            }
            Fault::Babble { ref bytes } => {
                let socket = Socket::connect(&self.config.path).context("connecting")?;
                // The server may have hung up before all of it was sent.
                let _ = socket.send(bytes);
            }
            Fault::KillClient { size, after_ms } => {
                let victim = Victim::start(&self.config, size)?;
                std::thread::sleep(Duration::from_millis(after_ms));
                drop(victim);
                return Ok(clock::monotonic_us());
            }
            Fault::HoldServer { ms } => {
                let mut connection = Connection::with(&self.config)?;
                let hold = connection.message_type(HOLD)?;
                connection.call(hold, &[ms], &mut Vec::new())?;
                return Ok(clock::monotonic_us());
            }
            Fault::ReadNothing { size } => {
                let mut connection = Connection::with(&self.config)?;
                let echo = connection.message_type("echo")?;
                fill(&mut connection, |connection| connection.queue(echo, &vec![0x5A; size]))?;
                stand(&mut self.standing, Standing::Reader(Box::new(connection)));
            }
            Fault::FinishNothing { bytes } => {
                let peer = Peer::connect(&self.config)?;
                peer.begin_large(bytes)?;
                stand(&mut self.standing, Standing::Sender(peer));
            }
            Fault::Oversize { by } => {
                let peer = Peer::connect(&self.config)?;
                peer.begin_large(peer.max_message() + by)?;
                self.found.unpunished += u64::from(!peer.is_answered(PATIENCE)?);
            }
            Fault::ComeAndGo { connections } => {
                let many: Result<Vec<_>, _> = (0..connections).map(|_| Connection::with(&self.config)).collect();
                drop(many?);
            }
            Fault::KillServer | Fault::PressMemory { .. } | Fault::Flood { .. } => {
                unreachable!("it is waited for while it lasts")
            }
        }
        Ok(from)
    }

    fn kill_server(&mut self) -> anyhow::Result<Option<Duration>> {
        let Self { server, honest_clients, standing, .. } = self;
        honest_clients.forgive(|| {
            server.kill()?;
            standing.clear();
            server.restart()?;
            Ok(honest_clients.recovered(server.listening_us(), PATIENCE))
        })
    }

    /// Large calls, together larger than the budget. All must be well while they go on.
    fn press_memory(&mut self, senders: u64, size: usize, time: Duration) -> anyhow::Result<Option<Duration>> {
        let (config, honest_clients) = (&self.config, &self.honest_clients);
        let senders = (0..senders).map(|number| move || press(config, number, size, time)).collect();
        let (recovery, tally) = beside(honest_clients, senders)?;
        tally.into_iter().for_each(|tally| self.found.tally.add(tally));
        Ok(recovery)
    }

    /// As many tiny calls as there is room for. All must be well while they go on.
    fn flood(&mut self, connections: u32, size: usize, time: Duration) -> anyhow::Result<Option<Duration>> {
        let (config, honest_clients) = (&self.config, &self.honest_clients);
        let flood = move || BusyConnections::over(config, connections, size, FLOOD_DEPTH)?.run(time);
        let (recovery, _) = beside(honest_clients, vec![flood])?;
        Ok(recovery)
    }
}

/// Adds one to those who stand still. Where there are enough, the oldest leaves.
fn stand<T>(standing: &mut VecDeque<T>, one: T) {
    if standing.len() == STANDING {
        standing.pop_front();
    }
    standing.push_back(one);
}

/// Starts a thread for each of these, waits until all is well beside them, and for their ends.
fn beside<T: Send>(
    honest_clients: &HonestClients,
    doings: Vec<impl FnOnce() -> anyhow::Result<T> + Send>,
) -> anyhow::Result<(Option<Duration>, Vec<T>)> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = doings.into_iter().map(|doing| scope.spawn(doing)).collect();
        let recovery = honest_clients.recovered(clock::monotonic_us(), PATIENCE);
        let results = threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a sender panicked"))?);
        Ok((recovery, results.collect::<anyhow::Result<_>>()?))
    })
}

/// One sender of large calls.
fn press(config: &ClientConfig, number: u64, size: usize, time: Duration) -> anyhow::Result<Tally> {
    let mut caller = Caller::connect(config, number, size)?;
    let (mut tally, mut reply, start) = (Tally::default(), Vec::new(), Instant::now());
    while start.elapsed() < time && !caller.is_broken() {
        caller.call(&mut reply, &mut tally);
    }
    Ok(tally)
}

/// Queues until there is no room for more.
fn fill(
    connection: &mut Connection,
    mut queue: impl FnMut(&mut Connection) -> Result<Option<bellrope::client::CallId>, CallError>,
) -> Result<(), CallError> {
    loop {
        match queue(connection) {
            Ok(Some(_)) => {}
            // No room in the ring, or as many calls under way as there may be.
            Ok(None) | Err(CallError::Rejected { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    connection.flush();
    Ok(())
}

#[cfg(test)]
mod tests {
    use bellrope_testkit::local_server::LocalServer;

    use super::*;

    #[test]
    fn of_those_who_stand_still_the_oldest_leaves_for_a_new_one() {
        let mut standing = VecDeque::new();
        (0..STANDING + 2).for_each(|number| stand(&mut standing, number));
        assert_eq!(standing, (2..STANDING + 2).collect::<Vec<_>>());
    }

    #[test]
    fn a_connection_is_filled_until_there_is_no_room_and_a_call_that_never_fits_is_an_error() {
        let server = LocalServer::echo();
        let mut connection = Connection::connect(server.socket()).unwrap();
        let echo = connection.message_type("echo").unwrap();
        let mut queued = 0;
        let small = |connection: &mut Connection| {
            connection.queue(echo, &[0x5A; 4096]).inspect(|call| queued += u32::from(call.is_some()))
        };
        fill(&mut connection, small).unwrap();
        assert!(queued > 1, "{queued}");
        let error = fill(&mut connection, |connection| connection.queue(echo, &[0; 1 << 20])).unwrap_err();
        assert!(matches!(error, CallError::MessageTooLarge { size: 0x10_0000, .. }), "{error}");
    }
}
