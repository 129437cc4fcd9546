//! A server and its clients, each a process of its own that may die at any moment. A process that is killed is started
//! anew; the others must notice in time, go on, and keep nothing of the dead one. What all of them noted is put together
//! in the end, and must keep every rule of the ledger.

mod client;
mod conventions;
mod journal;
mod process;
mod reactions;
mod server;

use std::{
    collections::HashSet,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use bellrope_shm::clock;
use client::{CALLERS, caller_of};
use conventions::{JOURNAL, NUMBER, ROLE, SOCKET, eventually};
pub use conventions::{PATIENCE, number};
pub use process::Role;
use process::{Life, Process, Usage};
pub use reactions::{Reactions, percentile};
use tempfile::TempDir;

use crate::ledger::{self, Event, Outcome, Tally};

/// Client processes.
pub const CLIENTS: usize = 4;
/// Connections of a client process: one that its threads share, and one that a thread has for itself.
const CONNECTIONS: usize = 2;
/// The variable that repeats a run.
pub const SEED: &str = "BELLROPE_KILL_SEED";

/// Runs as the server or client that this process was started for. Answers `false` in the process of the test itself.
///
/// # Panics
/// If the process finds a fault with what it sees.
pub fn ran_as_member() -> bool {
    let Ok(role) = std::env::var(ROLE) else { return false };
    let path = |name| PathBuf::from(std::env::var_os(name).expect("set by the test"));
    let number = number(NUMBER).expect("set by the test");
    match role.as_str() {
        "server" => server::run(number, &path(SOCKET), &path(JOURNAL)),
        _ => client::run(number, number.wrapping_mul(7919), &path(SOCKET), &path(JOURNAL)),
    }
    true
}

/// One server, its clients, and their files.
pub struct Cluster {
    home: TempDir,
    server: Process,
    clients: Vec<Process>,
    /// Every process there ever was, in the order in which they were started.
    lives: Vec<Life>,
    /// What a server without clients holds.
    bare: Usage,
    /// The longest that all callers waited to be served again.
    pub slowest: Duration,
}

/// How a process is to kill itself, as in `BELLROPE_KILL_AT`.
pub type Armed<'a> = Option<(Role, &'a str)>;

impl Cluster {
    /// Starts everything. `test` is the name of the test that this process runs; `first` numbers the first server, on
    /// which the size of its rings depends.
    ///
    /// # Panics
    /// If a process cannot be started.
    pub fn start(test: &'static str, first: u64, armed: Armed<'_>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let kill_at = |role| armed.and_then(|(armed, what)| (armed == role).then_some(what));
        let server = Process::start(home.path(), test, Role::Server, first, kill_at(Role::Server));
        let mut lives = vec![Life::of(&server)];
        let bare = server.bare_usage();
        let clients: Vec<_> = (1..=CLIENTS as u64)
            .map(|number| {
                // One of them dies, the others see it.
                let kill_at = kill_at(Role::Client).filter(|_| number == 1);
                Process::start(home.path(), test, Role::Client, number, kill_at)
            })
            .collect();
        lives.extend(clients.iter().map(Life::of));
        Self { home, server, clients, lives, bare, slowest: Duration::ZERO }
    }

    /// Kills the server and starts another.
    pub fn kill_server(&mut self) {
        self.note_death(Role::Server, 0);
        self.server.kill();
        self.replace_server();
    }

    /// Lets the server end as it should, while its clients are at work: what is under way may end, the rest is refused or cut
    /// off. Starts another.
    pub fn retire_server(&mut self) {
        self.life(Role::Server, 0).retired_at_us = Some(clock::monotonic_us());
        self.server.retire();
        let ended = self.server.wait();
        assert!(ended.success(), "{}: {ended}", self.server.journal.display());
        assert!(!process::socket(self.home.path()).exists(), "a server that ends takes its socket along");
        self.replace_server();
    }

    /// Kills these clients at once, and starts as many others.
    pub fn kill_clients(&mut self, places: &[usize]) {
        for place in places {
            self.note_death(Role::Client, *place);
            self.clients[*place].send_kill();
        }
        for place in places {
            self.clients[*place].wait();
            self.replace_client(*place);
        }
    }

    /// Waits until the armed process has killed itself, and starts another that is not armed. Answers `false` if it lives
    /// on: then it was not on its way to what would kill it.
    pub fn replace_armed(&mut self, role: Role, patience: Duration) -> bool {
        let armed = self.process(role, 0);
        let deadline = Instant::now() + patience;
        let status = loop {
            match armed.ended() {
                Some(status) => break status,
                None if Instant::now() >= deadline => return false,
                None => std::thread::sleep(Duration::from_micros(200)),
            }
        };
        let name = armed.journal.display().to_string();
        assert!(process::was_killed(status), "{name} ended in another way: {status}");
        self.note_death(role, 0);
        match role {
            Role::Server => self.replace_server(),
            Role::Client => self.replace_client(0),
        }
        true
    }

    /// Lets the armed process end as it would by itself, so that it comes to what it does then.
    pub fn dismiss_armed(&mut self, role: Role) {
        self.process(role, 0).dismiss();
    }

    /// Waits until each thread of each client has had an answer to a call that it has begun after this was called, and
    /// until no process holds anything of a dead one.
    pub fn wait_until_all_are_served(&mut self) {
        let began = Instant::now();
        for client in &mut self.clients {
            client.seen = journal::read(&client.journal, client.seen).1;
            let (mut begun, mut served) = (HashSet::new(), HashSet::new());
            while served.len() < CALLERS as usize {
                let (notes, end) = journal::read(&client.journal, client.seen);
                client.seen = end;
                for note in notes {
                    match note.event {
                        Event::Begun { call, .. } => drop(begun.insert(call)),
                        Event::Ended { call, outcome: Outcome::Answered { .. } | Outcome::Finished }
                            if begun.contains(&call) =>
                        {
                            served.insert(caller_of(call));
                        }
                        _ => {}
                    }
                }
                if let Some(status) = client.ended() {
                    panic!("{} ended by itself: {status}", client.journal.display());
                }
                assert!(began.elapsed() < PATIENCE, "not all callers were served within {PATIENCE:?}");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.slowest = self.slowest.max(began.elapsed());
        self.check_that_nothing_is_left();
    }

    /// Nobody has died but those whom we killed.
    pub fn check_that_all_live(&mut self) {
        for process in self.clients.iter_mut().chain([&mut self.server]) {
            if let Some(status) = process.ended() {
                panic!("{} ended by itself: {status}", process.journal.display());
            }
        }
    }

    /// Has everybody end, clients first: some by themselves, some killed all at once. Then the server must hold nothing
    /// but what it began with. Checks the history, and tells how soon others noticed a death.
    pub fn end(mut self) -> (Tally, Reactions) {
        for place in CLIENTS / 2..CLIENTS {
            self.note_death(Role::Client, place);
            self.clients[place].kill();
        }
        for client in &mut self.clients[..CLIENTS / 2] {
            client.dismiss();
        }
        for client in &mut self.clients[..CLIENTS / 2] {
            let ended = client.wait();
            assert!(ended.success(), "{}: {ended}", client.journal.display());
        }
        eventually("a server without clients holds what it began with", || {
            let usage = Usage::of(self.server.id());
            (usage == self.bare).then_some(()).ok_or_else(|| format!("{usage:?} instead of {:?}", self.bare))
        });
        self.server.dismiss();
        let ended = self.server.wait();
        assert!(ended.success(), "the server found something left, or worse: {ended}");
        self.check_directory();
        assert!(!process::socket(self.home.path()).exists(), "a server that ends takes its socket along");

        let mut history = Vec::new();
        let mut reactions = Reactions::default();
        for life in &self.lives {
            let (notes, _) = journal::read(&life.journal, 0);
            reactions.add(life, &notes, &self.lives);
            history.extend(notes.iter().map(|note| note.event));
            if life.role == Role::Client && life.killed_at_us.is_some() {
                let own: Vec<_> = notes.iter().map(|note| note.event).collect();
                history.extend(unfinished(&own));
            }
        }
        let tally = ledger::check(&history).unwrap_or_else(|fault| panic!("{fault}"));
        (tally, reactions)
    }

    /// A connection is two rings in one mapping and a socket: nobody has more of them than there are peers alive, and the
    /// server has no thread more than it began with.
    fn check_that_nothing_is_left(&self) {
        let due = self.bare.with_connections(CLIENTS * CONNECTIONS);
        eventually("the server holds its living clients' connections and nothing else", || {
            let usage = Usage::of(self.server.id());
            (usage == due).then_some(()).ok_or_else(|| format!("{usage:?} instead of {due:?}"))
        });
        for client in &self.clients {
            eventually("a client holds its two connections and nothing else", || {
                let mappings = Usage::of(client.id()).mappings;
                (mappings == CONNECTIONS).then_some(()).ok_or_else(|| format!("{mappings} mappings"))
            });
        }
    }

    /// A killed server leaves its socket and its lock file, and nothing else.
    fn check_directory(&self) {
        let Ok(entries) = fs::read_dir(process::socket(self.home.path()).parent().unwrap()) else { return };
        for entry in entries {
            let name = entry.unwrap().file_name();
            assert!(name == "bell.sock" || name == "bell.sock.lock", "{name:?} was left");
        }
    }

    fn replace_server(&mut self) {
        self.check_directory();
        let number = self.server.number + 1;
        self.server = Process::start(self.home.path(), self.server.test, Role::Server, number, None);
        self.lives.push(Life::of(&self.server));
    }

    fn replace_client(&mut self, place: usize) {
        let number = self.lives.len() as u64 + 1;
        self.clients[place] = Process::start(self.home.path(), self.server.test, Role::Client, number, None);
        self.lives.push(Life::of(&self.clients[place]));
    }

    fn process(&mut self, role: Role, place: usize) -> &mut Process {
        match role {
            Role::Server => &mut self.server,
            Role::Client => &mut self.clients[place],
        }
    }

    fn note_death(&mut self, role: Role, place: usize) {
        self.life(role, place).killed_at_us = Some(clock::monotonic_us());
    }

    fn life(&mut self, role: Role, place: usize) -> &mut Life {
        let number = self.process(role, place).number;
        let life = self.lives.iter_mut().rfind(|life| life.role == role && life.number == number);
        life.expect("everybody is on the list")
    }
}

/// The calls of a killed client that it had not seen the end of.
fn unfinished(notes: &[Event]) -> Vec<Event> {
    let ended: HashSet<_> = notes.iter().filter(|note| matches!(note, Event::Ended { .. })).map(Event::call).collect();
    let begun = notes.iter().filter(|note| matches!(note, Event::Begun { .. })).map(Event::call);
    let left = begun.filter(|call| !ended.contains(call));
    left.map(|call| Event::Ended { call, outcome: Outcome::CallerDied }).collect()
}
