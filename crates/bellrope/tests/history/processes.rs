//! The test's own process: starts the others, kills them, starts them anew, and judges what they have noted.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use fastrand::Rng;
use tempfile::TempDir;

use super::{
    JOURNAL, NUMBER, PATIENCE, ROLE, SEED, SOCKET, TEST,
    client::{CALLERS, caller_of},
    journal,
    ledger::{self, Event, Outcome, Tally},
};

const CLIENTS: usize = 3;

/// One server, its clients, and where they live.
pub(crate) struct Town {
    home: TempDir,
    seed: u64,
    rng: Rng,
    server: Process,
    clients: Vec<Process>,
    /// The journals of all servers and of all clients there ever were, and whether the client was killed.
    server_journals: Vec<PathBuf>,
    client_journals: Vec<(PathBuf, bool)>,
    slowest: Duration,
}

/// A process. It dies with this at the latest.
struct Process {
    child: Child,
    journal: PathBuf,
    /// Bytes of its journal that are of no interest any more.
    seen: usize,
}

impl Town {
    /// Starts everything.
    pub(crate) fn found(seed: u64) -> Self {
        let home = tempfile::tempdir().unwrap();
        let server = Process::start(home.path(), "server", 0);
        let clients: Vec<_> =
            (1..=CLIENTS as u64).map(|number| Process::start(home.path(), "client", number)).collect();
        Self {
            seed,
            rng: Rng::with_seed(seed),
            server_journals: vec![server.journal.clone()],
            client_journals: clients.iter().map(|client| (client.journal.clone(), false)).collect(),
            server,
            clients,
            home,
            slowest: Duration::ZERO,
        }
    }

    /// Kills at least so many servers and clients, lets the rest end, and checks the history.
    #[expect(clippy::print_stderr, reason = "a run says how it can be repeated, and what it has seen")]
    pub(crate) fn live(mut self, kills: u32) {
        eprintln!("{SEED}={}", self.seed);
        let began = Instant::now();
        let (mut servers, mut clients) = (0, 0);
        while servers < kills || clients < kills {
            // Most die at work, some before they have come to it.
            if self.rng.u32(0..4) > 0 {
                self.wait_until_all_are_served();
            }
            // When, is a matter of chance: nothing is waited for.
            std::thread::sleep(Duration::from_micros(self.rng.u64(0..10_000)));
            self.check_that_all_live();
            if clients >= kills || (servers < kills && self.rng.bool()) {
                servers += 1;
                self.kill_server();
            } else {
                clients += 1;
                self.kill_client();
            }
        }
        self.wait_until_all_are_served();
        let took = began.elapsed();
        let slowest = self.slowest;
        let seed = self.seed;
        let tally = self.end();
        eprintln!(
            "{servers} kills of the server, {clients} of clients in {took:.1?}; all served again within {slowest:.1?}"
        );
        eprintln!("{tally:?}");
        assert!(
            tally.acknowledged > u64::from(kills) && tally.not_executed + tally.unknown > 0 && tally.callers_died > 0,
            "too little happened ({SEED}={seed}): {tally:?}"
        );
    }

    fn kill_server(&mut self) {
        self.server.kill();
        self.check_directory();
        self.server = Process::start(self.home.path(), "server", self.server_journals.len() as u64);
        self.server_journals.push(self.server.journal.clone());
    }

    fn kill_client(&mut self) {
        let index = self.rng.usize(0..CLIENTS);
        let client = &mut self.clients[index];
        client.kill();
        let killed = client.journal.clone();
        self.client_journals.iter_mut().filter(|(journal, _)| *journal == killed).for_each(|(_, dead)| *dead = true);
        let number = self.client_journals.len() as u64 + 1;
        *client = Process::start(self.home.path(), "client", number);
        self.client_journals.push((client.journal.clone(), false));
    }

    /// Waits until each thread of each client has had an answer to a call that it has begun after this was called.
    fn wait_until_all_are_served(&mut self) {
        let began = Instant::now();
        for client in &mut self.clients {
            client.seen = journal::read(&client.journal, client.seen).1;
            let (mut begun, mut served) = (HashSet::new(), HashSet::new());
            while served.len() < CALLERS as usize {
                let (notes, end) = journal::read(&client.journal, client.seen);
                client.seen = end;
                for note in notes {
                    match note {
                        Event::Begun { call, .. } => drop(begun.insert(call)),
                        Event::Ended { call, outcome: Outcome::Answered { .. } | Outcome::Finished }
                            if begun.contains(&call) =>
                        {
                            served.insert(caller_of(call));
                        }
                        _ => {}
                    }
                }
                let waited = began.elapsed();
                assert!(waited < PATIENCE, "not all callers were served within {PATIENCE:?} ({SEED}={})", self.seed);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.slowest = self.slowest.max(began.elapsed());
    }

    /// Nobody has died but those whom we killed.
    fn check_that_all_live(&mut self) {
        for process in self.clients.iter_mut().chain([&mut self.server]) {
            if let Some(status) = process.child.try_wait().unwrap() {
                panic!("{} ended by itself: {status} ({SEED}={})", process.journal.display(), self.seed);
            }
        }
    }

    /// A killed server leaves its socket and its lock file, and nothing else.
    fn check_directory(&self) {
        let Ok(entries) = fs::read_dir(socket(self.home.path()).parent().unwrap()) else { return };
        for entry in entries {
            let name = entry.unwrap().file_name();
            assert!(name == "bell.sock" || name == "bell.sock.lock", "{name:?} was left ({SEED}={})", self.seed);
        }
    }

    /// Has everybody end by himself, and checks the history.
    fn end(mut self) -> Tally {
        let seed = self.seed;
        let ended = self.clients.iter_mut().map(Process::dismiss).collect::<Vec<_>>();
        assert!(ended.iter().all(ExitStatus::success), "{ended:?} ({SEED}={seed})");
        let ended = self.server.dismiss();
        assert!(ended.success(), "{ended} ({SEED}={seed})");
        self.check_directory();
        assert!(!socket(self.home.path()).exists(), "a server that ends takes its socket along");

        let mut history = Vec::new();
        for (journal, killed) in &self.client_journals {
            let (mut notes, _) = journal::read(journal, 0);
            if *killed {
                notes.extend(unfinished(&notes));
            }
            history.extend(notes);
        }
        for journal in &self.server_journals {
            history.extend(journal::read(journal, 0).0);
        }
        ledger::check(&history).unwrap_or_else(|fault| panic!("{fault} ({SEED}={seed})"))
    }
}

/// The calls of a killed client that it had not seen the end of.
fn unfinished(notes: &[Event]) -> Vec<Event> {
    let ended: HashSet<_> = notes.iter().filter(|note| matches!(note, Event::Ended { .. })).map(Event::call).collect();
    let begun = notes.iter().filter(|note| matches!(note, Event::Begun { .. })).map(Event::call);
    let left = begun.filter(|call| !ended.contains(call));
    left.map(|call| Event::Ended { call, outcome: Outcome::CallerDied }).collect()
}

fn socket(home: &Path) -> PathBuf {
    home.join("run").join("bell.sock")
}

impl Process {
    fn start(home: &Path, role: &str, number: u64) -> Self {
        let journal = home.join(format!("{role}-{number}"));
        let child = Command::new(std::env::current_exe().unwrap())
            .args([TEST, "--exact", "--nocapture"])
            .env(ROLE, role)
            .env(NUMBER, number.to_string())
            .env(SOCKET, socket(home))
            .env(JOURNAL, &journal)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, journal, seen: 0 }
    }

    /// Kills it with SIGKILL, and returns when it is gone.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits for that.
    fn dismiss(&mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} does not end within {PATIENCE:?}", self.journal.display());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
