//! One thread of the process that reconnects all its clients. It notices when a server goes away, also while no call is
//! under way, connects again, and calls the watchers of the connection's state.
//!
//! While a server is away, one client for each path tries to connect, every few milliseconds. As soon as one succeeds, the
//! others follow, each after a random pause. Handshakes run side by side, so a thousand clients need little more time
//! than one.
//!
//! **Absent on purpose**: calls. Nothing here reads or writes a ring, and of a client it sees only what [`Watched`] shows.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use bellrope_proto::handshake::{HandshakeError, HandshakeStatus, Transport};
use bellrope_shm::{
    process,
    socket::Socket,
    wait::{Notifier, Poller},
};

use super::{
    config::{ClientConfig, ConnectionState},
    handshake::{Established, Handshake, first_transport, may_fall_back, note_fall_back},
};
use crate::error::ConnectError;

/// Between two tries at a server that went away: this long at first, and up to as much again at random.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// The same after [`LONG_AWAY`].
const LONG_PAUSE: Duration = Duration::from_millis(8);
const LONG_AWAY: Duration = Duration::from_secs(2);
/// Between two tries at a server that is there and will not have us.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);
/// Once a server is back, its other clients follow within this time.
const FOLLOW_WITHIN: Duration = Duration::from_millis(5);
/// Handshakes under way at once, well below what a server allows.
const AT_ONCE: usize = 32;
/// The key of our own descriptor. Others have their client's number, twice, and one more while they shake hands.
const WAKE_KEY: u64 = 0;

/// A client that is to be reconnected.
pub(super) trait Watched: Send + Sync {
    /// How it connects.
    fn config(&self) -> &ClientConfig;
    /// Whether it needs no connection any more.
    fn is_closed(&self) -> bool;
    /// Ends every call on a link whose server has hung up, if that is still its link.
    fn check_link(&self, generation: u64);
    /// Installs a fresh link, which is to be watched from now on, and returns its generation. `None`: it has a link
    /// already, for which it has asked to be [watched](Reconnector::watch), or it is closed.
    fn install(self: Arc<Self>, established: Established) -> Option<u64>;
}

/// Somebody who wants to know of changes.
pub(crate) type Watcher = Arc<dyn Fn(ConnectionState) + Send + Sync>;

/// The thread, as others see it.
#[derive(Debug)]
pub(crate) struct Reconnector {
    orders: Mutex<Vec<Order>>,
    wake: Notifier,
}

/// What others ask for.
enum Order {
    /// Watch this link.
    Watch { client: Weak<dyn Watched>, socket: Arc<Socket>, generation: u64 },
    /// Call these.
    Tell(Vec<Watcher>, ConnectionState),
    /// Do this at that time, and then whenever it says.
    Chore(Instant, Chore),
}

/// That a thread of the client's was not started, and what is in the way.
pub(super) fn no_thread(error: &io::Error) -> io::Error {
    let text = format!("starting a thread of the client{}: {error}", process::in_the_way_of_a_thread(error));
    io::Error::new(io::ErrorKind::ResourceBusy, text)
}

/// Something that is done now and then. Answers when next, if at all.
pub(crate) type Chore = Box<dyn FnMut() -> Option<Instant> + Send>;

impl Reconnector {
    /// The reconnector of this process, started if need be.
    pub(crate) fn running() -> io::Result<&'static Self> {
        static RUNNING: Mutex<Option<&Reconnector>> = Mutex::new(None);
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reconnector) = *running {
            return Ok(reconnector);
        }
        let (wake, poller) = (Notifier::new()?, Poller::new()?);
        poller.add(&wake, WAKE_KEY)?;
        // The thread comes first: without it a reconnector would do nothing, and stay for ever.
        let (begin, rounds) = std::sync::mpsc::channel::<Rounds>();
        let thread = std::thread::Builder::new().name("bellrope-keep".to_owned()).stack_size(256 * 1024);
        thread.spawn(move || rounds.recv().map(Rounds::run)).map_err(|error| no_thread(&error))?;
        let reconnector: &Self = Box::leak(Box::new(Self { orders: Mutex::default(), wake }));
        let _ = begin.send(Rounds { reconnector, poller, clients: HashMap::new(), next_number: 1, chores: Vec::new() });
        *running = Some(reconnector);
        Ok(reconnector)
    }

    /// Watches a fresh link.
    pub(super) fn watch<C: Watched + 'static>(&self, client: &Arc<C>, socket: Arc<Socket>, generation: u64) {
        let client: Weak<C> = Arc::downgrade(client);
        self.order(Order::Watch { client, socket, generation });
    }

    /// Tells watchers of a change.
    pub(crate) fn tell(&self, watchers: Vec<Watcher>, state: ConnectionState) {
        self.order(Order::Tell(watchers, state));
    }

    /// Has something done at a time, and then whenever it says.
    pub(crate) fn chore(&self, at: Instant, chore: Chore) {
        self.order(Order::Chore(at, chore));
    }

    fn order(&self, order: Order) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        self.wake.wake();
    }
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Watch { .. } => "Watch",
            Self::Tell(..) => "Tell",
            Self::Chore(..) => "Chore",
        })
    }
}

/// The thread's own state.
struct Rounds {
    reconnector: &'static Reconnector,
    poller: Poller,
    clients: HashMap<u64, Entry>,
    next_number: u64,
    chores: Vec<(Instant, Chore)>,
}

/// A client and how far its connection has got.
struct Entry {
    client: Weak<dyn Watched>,
    path: PathBuf,
    phase: Phase,
    /// Why the next try is for the socket alone: what the last one, for shared memory, ended with.
    fell_back: Option<String>,
}

enum Phase {
    /// There is a link.
    Linked { socket: Arc<Socket>, generation: u64 },
    /// There is none; the next try is due then.
    Away { since: Instant, next: Instant },
    /// A try is under way.
    Trying { since: Instant, handshake: Box<Handshake> },
}

impl Rounds {
    fn run(mut self) {
        let mut keys = Vec::new();
        loop {
            match self.poller.wait(self.patience()) {
                Ok(events) => keys.extend(events.iter().map(|event| event.key)),
                Err(error) => tracing::error!(%error, "waiting for hang-ups failed"),
            }
            for key in keys.drain(..) {
                match key {
                    WAKE_KEY => self.reconnector.wake.clear(),
                    key => self.heard(key / 2),
                }
            }
            let orders = std::mem::take(&mut *self.reconnector.orders.lock().unwrap_or_else(PoisonError::into_inner));
            orders.into_iter().for_each(|order| self.obey(order));
            let now = Instant::now();
            self.try_again(now);
            self.give_up_late(now);
            self.do_chores(now);
        }
    }

    /// How long nothing will happen by itself.
    fn patience(&self) -> Option<Duration> {
        let tries = self.clients.values().filter_map(|entry| match &entry.phase {
            Phase::Away { next, .. } => Some(*next),
            Phase::Trying { handshake, .. } => Some(handshake.deadline),
            Phase::Linked { .. } => None,
        });
        let next = tries.chain(self.chores.iter().map(|(at, _)| *at)).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Watch { client, socket, generation } => self.adopt(client, socket, generation),
            Order::Tell(watchers, state) => watchers.iter().for_each(|watcher| {
                let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| watcher(state)));
                if told.is_err() {
                    tracing::error!(?state, "a watcher of the connection's state panicked");
                }
            }),
            Order::Chore(at, chore) => self.chores.push((at, chore)),
        }
    }

    /// Begins to watch a link. If a caller has made it, its client may be new, or may have been without a link.
    fn adopt(&mut self, client: Weak<dyn Watched>, socket: Arc<Socket>, generation: u64) {
        // A link that this thread has installed is watched already.
        let known = self.clients.values().any(
            |entry| matches!(&entry.phase, Phase::Linked { socket: watched, .. } if Arc::ptr_eq(watched, &socket)),
        );
        let Some(strong) = client.upgrade().filter(|_| !known) else { return };
        let path = strong.config().path.clone();
        drop(strong);
        // A caller may have connected while this thread tried to: that attempt ends here.
        self.clients.retain(|_, entry| !Weak::ptr_eq(&entry.client, &client));
        let number = self.next_number;
        self.next_number += 1;
        if let Err(error) = self.poller.add_for_hang_up(&*socket, 2 * number) {
            tracing::error!(%error, "a connection could not be watched");
        }
        self.clients
            .insert(number, Entry { client, path, phase: Phase::Linked { socket, generation }, fell_back: None });
    }

    /// A socket has something to say: a link has broken, or an answer to a hello has come.
    fn heard(&mut self, number: u64) {
        let Some(entry) = self.clients.get_mut(&number) else { return };
        let now = Instant::now();
        match &mut entry.phase {
            Phase::Linked { socket, generation } => {
                let _ = self.poller.remove(&**socket);
                let generation = *generation;
                entry.phase = Phase::Away { since: now, next: now + pause(FIRST_PAUSE) };
                match entry.client.upgrade() {
                    Some(client) => client.check_link(generation),
                    None => drop(self.clients.remove(&number)),
                }
            }
            // Does nothing for one that is away.
            Phase::Trying { .. } | Phase::Away { .. } => self.advance(number, now),
        }
    }

    /// Begins the tries that are due.
    fn try_again(&mut self, now: Instant) {
        let trying = self.clients.values().filter(|entry| matches!(entry.phase, Phase::Trying { .. })).count();
        let mut room = AT_ONCE.saturating_sub(trying);
        let due = |entry: &Entry| matches!(entry.phase, Phase::Away { next, .. } if next <= now);
        let numbers: Vec<_> = self.clients.iter().filter(|(_, entry)| due(entry)).map(|(number, _)| *number).collect();
        // Paths at which nobody listens, as this round has found out.
        let mut empty: Vec<PathBuf> = Vec::new();
        for number in numbers {
            let Some(entry) = self.clients.get_mut(&number) else { continue };
            let Phase::Away { since, next } = &mut entry.phase else { continue };
            let (since, again) = (*since, now + away_pause(now - *since));
            if room == 0 || empty.contains(&entry.path) {
                *next = if room == 0 { now + FIRST_PAUSE / 4 } else { again };
                continue;
            }
            let Some(client) = entry.client.upgrade().filter(|client| !client.is_closed()) else {
                self.clients.remove(&number);
                continue;
            };
            let transport = match entry.fell_back {
                Some(_) => Transport::Stream,
                None => first_transport(client.config()),
            };
            match Handshake::begin(transport, client.config()) {
                Ok(handshake) => {
                    room -= 1;
                    let added = self.poller.add(handshake.socket(), 2 * number + 1);
                    entry.phase = Phase::Trying { since, handshake: Box::new(handshake) };
                    if added.is_err() {
                        entry.phase = Phase::Away { since, next: again };
                    }
                }
                Err(error) => {
                    *next = again;
                    if matches!(error, ConnectError::NoServer { .. }) {
                        empty.push(entry.path.clone());
                    }
                }
            }
        }
    }

    /// Goes on with a handshake.
    fn advance(&mut self, number: u64, now: Instant) {
        let Some(entry) = self.clients.get_mut(&number) else { return };
        let Phase::Trying { since, handshake } = &mut entry.phase else { return };
        let since = *since;
        match handshake.advance() {
            Ok(None) => {}
            Ok(Some(established)) => {
                let _ = self.poller.remove(handshake.socket());
                if let Some(reason) = entry.fell_back.take() {
                    note_fall_back(&entry.path, &reason);
                }
                let socket = Arc::clone(&established.socket);
                let path = entry.path.clone();
                match entry.client.upgrade() {
                    None => drop(self.clients.remove(&number)),
                    Some(client) => {
                        let _ = self.poller.add_for_hang_up(&*socket, 2 * number);
                        match client.install(established) {
                            Some(generation) => entry.phase = Phase::Linked { socket, generation },
                            // The client is closed, or has ordered the watching of another link.
                            None => {
                                let _ = self.poller.remove(&*socket);
                                self.clients.remove(&number);
                            }
                        }
                    }
                }
                self.follow(&path, now);
            }
            Err(error) => {
                let _ = self.poller.remove(handshake.socket());
                let config = |client: Arc<dyn Watched>| may_fall_back(client.config(), &error);
                let falls_back = entry.fell_back.is_none() && entry.client.upgrade().is_some_and(config);
                entry.fell_back = falls_back.then(|| error.to_string());
                let again = match &error {
                    _ if falls_back => Duration::ZERO,
                    ConnectError::NoServer { .. } | ConnectError::Io { .. } => away_pause(now - since),
                    ConnectError::Handshake(HandshakeError::Refused { status, .. }) if is_passing(*status) => {
                        pause(LONG_PAUSE)
                    }
                    _ => pause(REFUSED_PAUSE),
                };
                entry.phase = Phase::Away { since, next: now + again };
                tracing::debug!(%error, "the server was not reached");
            }
        }
    }

    /// A server is back: its other clients need not wait much longer.
    fn follow(&mut self, path: &PathBuf, now: Instant) {
        for entry in self.clients.values_mut().filter(|entry| entry.path == *path) {
            if let Phase::Away { next, .. } = &mut entry.phase {
                *next = (*next).min(now + FOLLOW_WITHIN.mul_f64(jitter()));
            }
        }
    }

    /// Gives up handshakes that take too long.
    fn give_up_late(&mut self, now: Instant) {
        let late = |entry: &Entry| matches!(&entry.phase, Phase::Trying { handshake, .. } if handshake.deadline <= now);
        let numbers: Vec<_> = self.clients.iter().filter(|(_, entry)| late(entry)).map(|(number, _)| *number).collect();
        numbers.into_iter().for_each(|number| self.advance(number, now));
    }

    fn do_chores(&mut self, now: Instant) {
        self.chores.retain_mut(|(at, chore)| {
            if *at > now {
                return true;
            }
            chore().map(|next| *at = next).is_some()
        });
    }
}

/// Whether a refusal is one of the moment.
fn is_passing(status: HandshakeStatus) -> bool {
    matches!(status, HandshakeStatus::Full | HandshakeStatus::Draining)
}

/// How long to wait for the next try at a server that has been away for so long.
fn away_pause(away: Duration) -> Duration {
    pause(if away < LONG_AWAY { FIRST_PAUSE } else { LONG_PAUSE })
}

/// This long, and up to as much again at random.
fn pause(least: Duration) -> Duration {
    least + least.mul_f64(jitter())
}

/// A number from 0 to 1 that differs between clients and calls. Nothing secret hangs on it.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let bits = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(bits >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::{super::handshake, *};
    use crate::server::Server;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[derive(Debug, PartialEq, Eq)]
    enum Told {
        Lost(u64),
        Found(Option<u64>),
    }

    /// A client that reports what it is told, and takes links as it was told to.
    struct Reporter {
        config: ClientConfig,
        /// Its answers to `install`, the last one first.
        answers: Mutex<Vec<Option<u64>>>,
        sockets: Mutex<Vec<Arc<Socket>>>,
        told: mpsc::Sender<Told>,
    }

    impl Watched for Reporter {
        fn config(&self) -> &ClientConfig {
            &self.config
        }

        fn is_closed(&self) -> bool {
            false
        }

        fn check_link(&self, generation: u64) {
            self.told.send(Told::Lost(generation)).unwrap();
        }

        fn install(self: Arc<Self>, established: Established) -> Option<u64> {
            let answer = self.answers.lock().unwrap().pop().flatten();
            self.sockets.lock().unwrap().push(established.socket);
            self.told.send(Told::Found(answer)).unwrap();
            answer
        }
    }

    #[test]
    fn a_client_is_reconnected_until_it_takes_a_link_no_more_and_is_then_forgotten() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run").join("test.sock");
        let _server = Server::builder().bind(&path).unwrap();
        let config = ClientConfig::new(&path);
        let first = handshake::connect(&config).unwrap();
        let (told, heard) = mpsc::channel();
        let answers = Mutex::new(vec![None, Some(7)]);
        let client = Arc::new(Reporter { config, answers, sockets: Mutex::default(), told });
        Reconnector::running().unwrap().watch(&client, Arc::clone(&first.socket), 1);
        first.socket.shutdown();
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), Told::Lost(1));
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), Told::Found(Some(7)));
        client.sockets.lock().unwrap()[0].shutdown();
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), Told::Lost(7));
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), Told::Found(None));
        let began = Instant::now();
        while Arc::weak_count(&client) > 0 {
            assert!(began.elapsed() < PATIENCE, "it is still watched");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
