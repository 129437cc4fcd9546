//! One thread of a process that looks after the connections of all its clients: it hears when a server goes away, also
//! while nobody calls, finds it again, and tells who wants to know.
//!
//! While a server is away, one client for each path asks for it, every few milliseconds; as soon as one got through,
//! the others follow, each after a random pause. Handshakes run beside each other, so that a thousand clients need
//! little more time than one.
//!
//! **Absent on purpose**: calls. Nothing here reads or writes a ring.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use bellrope_proto::handshake::{HandshakeError, Status};
use bellrope_shm::{
    socket::Socket,
    wait::{Epoll, WakeFd},
};

use super::{
    ConnectionState,
    handshake::Handshake,
    link::Link,
    shared::{Shared, Watcher},
};
use crate::ConnectError;

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

/// The thread, as others see it.
#[derive(Debug)]
pub(crate) struct Keeper {
    orders: Mutex<Vec<Order>>,
    wake: WakeFd,
}

/// What others ask for.
enum Order {
    /// Watch this link.
    Watch { shared: Weak<Shared>, socket: Arc<Socket>, generation: u64 },
    /// Call these.
    Tell(Vec<Watcher>, ConnectionState),
    /// Do this at that time, and then whenever it says.
    Chore(Instant, Chore),
}

/// Something that is done now and then. Answers when next, if at all.
pub(crate) type Chore = Box<dyn FnMut() -> Option<Instant> + Send>;

impl Keeper {
    /// The keeper of this process, started if need be.
    pub(crate) fn running() -> io::Result<&'static Self> {
        static RUNNING: Mutex<Option<&Keeper>> = Mutex::new(None);
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = *running {
            return Ok(keeper);
        }
        let (wake, epoll) = (WakeFd::new()?, Epoll::new()?);
        epoll.add(&wake, WAKE_KEY)?;
        // The thread comes first: without it a keeper would keep nobody, and stay for ever.
        let (begin, rounds) = std::sync::mpsc::channel::<Rounds>();
        let thread = std::thread::Builder::new().name("bellrope-keep".to_owned()).stack_size(256 * 1024);
        thread.spawn(move || rounds.recv().map(Rounds::run))?;
        let keeper: &Self = Box::leak(Box::new(Self { orders: Mutex::default(), wake }));
        let _ = begin.send(Rounds { keeper, epoll, clients: HashMap::new(), next_number: 1, chores: Vec::new() });
        *running = Some(keeper);
        Ok(keeper)
    }

    /// Watches a fresh link.
    pub(crate) fn watch(&self, shared: &Arc<Shared>, socket: Arc<Socket>, generation: u64) {
        self.order(Order::Watch { shared: Arc::downgrade(shared), socket, generation });
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
    keeper: &'static Keeper,
    epoll: Epoll,
    clients: HashMap<u64, Client>,
    next_number: u64,
    chores: Vec<(Instant, Chore)>,
}

/// A client that is looked after.
struct Client {
    shared: Weak<Shared>,
    path: PathBuf,
    phase: Phase,
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
            match self.epoll.wait(self.patience()) {
                Ok(events) => keys.extend(events.iter().map(|event| event.key)),
                Err(error) => tracing::error!(%error, "waiting for hang-ups failed"),
            }
            for key in keys.drain(..) {
                match key {
                    WAKE_KEY => self.keeper.wake.clear(),
                    key => self.heard(key / 2),
                }
            }
            let orders = std::mem::take(&mut *self.keeper.orders.lock().unwrap_or_else(PoisonError::into_inner));
            orders.into_iter().for_each(|order| self.obey(order));
            let now = Instant::now();
            self.try_again(now);
            self.give_up_late(now);
            self.do_chores(now);
        }
    }

    /// How long nothing will happen by itself.
    fn patience(&self) -> Option<Duration> {
        let tries = self.clients.values().filter_map(|client| match &client.phase {
            Phase::Away { next, .. } => Some(*next),
            Phase::Trying { handshake, .. } => Some(handshake.deadline),
            Phase::Linked { .. } => None,
        });
        let next = tries.chain(self.chores.iter().map(|(at, _)| *at)).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Watch { shared, socket, generation } => self.adopt(shared, socket, generation),
            Order::Tell(watchers, state) => watchers.iter().for_each(|watcher| {
                let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| watcher(state)));
                if told.is_err() {
                    tracing::error!(?state, "a watcher of the connection's state panicked");
                }
            }),
            Order::Chore(at, chore) => self.chores.push((at, chore)),
        }
    }

    /// Takes a client over with its first link, which somebody else has made.
    fn adopt(&mut self, shared: Weak<Shared>, socket: Arc<Socket>, generation: u64) {
        // A link that we made ourselves is watched already.
        let known = self.clients.values().any(
            |client| matches!(&client.phase, Phase::Linked { socket: watched, .. } if Arc::ptr_eq(watched, &socket)),
        );
        let Some(strong) = shared.upgrade().filter(|_| !known) else { return };
        let path = strong.config.path.clone();
        drop(strong);
        // One that had been lost may have been found by its own caller.
        self.clients.retain(|_, client| !Weak::ptr_eq(&client.shared, &shared));
        let number = self.next_number;
        self.next_number += 1;
        if let Err(error) = self.epoll.add_for_hang_up(&*socket, 2 * number) {
            tracing::error!(%error, "a connection could not be watched");
        }
        self.clients.insert(number, Client { shared, path, phase: Phase::Linked { socket, generation } });
    }

    /// A socket has something to say: a link has broken, or an answer to a hello has come.
    fn heard(&mut self, number: u64) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let now = Instant::now();
        match &mut client.phase {
            Phase::Linked { socket, generation } => {
                let _ = self.epoll.remove(&**socket);
                let generation = *generation;
                client.phase = Phase::Away { since: now, next: now + pause(FIRST_PAUSE) };
                match client.shared.upgrade() {
                    Some(shared) => shared.check_link(generation),
                    None => drop(self.clients.remove(&number)),
                }
            }
            // Does nothing for one that is away.
            Phase::Trying { .. } | Phase::Away { .. } => self.advance(number, now),
        }
    }

    /// Begins the tries that are due.
    fn try_again(&mut self, now: Instant) {
        let trying = self.clients.values().filter(|client| matches!(client.phase, Phase::Trying { .. })).count();
        let mut room = AT_ONCE.saturating_sub(trying);
        let due = |client: &Client| matches!(client.phase, Phase::Away { next, .. } if next <= now);
        let numbers: Vec<_> =
            self.clients.iter().filter(|(_, client)| due(client)).map(|(number, _)| *number).collect();
        // Paths at which nobody listens, as this round has found out.
        let mut empty: Vec<PathBuf> = Vec::new();
        for number in numbers {
            let Some(client) = self.clients.get_mut(&number) else { continue };
            let Phase::Away { since, next } = &mut client.phase else { continue };
            let (since, again) = (*since, now + away_pause(now - *since));
            if room == 0 || empty.contains(&client.path) {
                *next = if room == 0 { now + FIRST_PAUSE / 4 } else { again };
                continue;
            }
            let Some(shared) = client.shared.upgrade().filter(|shared| !shared.lock().closed) else {
                self.clients.remove(&number);
                continue;
            };
            match Handshake::begin(&shared.config) {
                Ok(handshake) => {
                    room -= 1;
                    let added = self.epoll.add(handshake.socket(), 2 * number + 1);
                    client.phase = Phase::Trying { since, handshake: Box::new(handshake) };
                    if added.is_err() {
                        client.phase = Phase::Away { since, next: again };
                    }
                }
                Err(error) => {
                    *next = again;
                    if matches!(error, ConnectError::NoServer { .. }) {
                        empty.push(client.path.clone());
                    }
                }
            }
        }
    }

    /// Goes on with a handshake.
    fn advance(&mut self, number: u64, now: Instant) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let Phase::Trying { since, handshake } = &mut client.phase else { return };
        let since = *since;
        match handshake.advance() {
            Ok(None) => {}
            Ok(Some(established)) => {
                let _ = self.epoll.remove(handshake.socket());
                let socket = Arc::clone(&established.socket);
                let path = client.path.clone();
                match client.shared.upgrade() {
                    None => drop(self.clients.remove(&number)),
                    Some(shared) => {
                        let _ = self.epoll.add_for_hang_up(&*socket, 2 * number);
                        // Nobody else installs links of a client that has had one, so this is its next.
                        let generation = shared.lock().generation + 1;
                        client.phase = Phase::Linked { socket, generation };
                        shared.install(Link::new(established, &shared.config));
                    }
                }
                self.follow(&path, now);
            }
            Err(error) => {
                let _ = self.epoll.remove(handshake.socket());
                let again = match &error {
                    ConnectError::NoServer { .. } | ConnectError::Io { .. } => away_pause(now - since),
                    ConnectError::Handshake(HandshakeError::Refused { status, .. }) if is_passing(*status) => {
                        pause(LONG_PAUSE)
                    }
                    _ => pause(REFUSED_PAUSE),
                };
                client.phase = Phase::Away { since, next: now + again };
                tracing::debug!(%error, "the server was not reached");
            }
        }
    }

    /// A server is back: its other clients need not wait much longer.
    fn follow(&mut self, path: &PathBuf, now: Instant) {
        for client in self.clients.values_mut().filter(|client| client.path == *path) {
            if let Phase::Away { next, .. } = &mut client.phase {
                *next = (*next).min(now + FOLLOW_WITHIN.mul_f64(jitter()));
            }
        }
    }

    /// Gives up handshakes that take too long.
    fn give_up_late(&mut self, now: Instant) {
        let late =
            |client: &Client| matches!(&client.phase, Phase::Trying { handshake, .. } if handshake.deadline <= now);
        let numbers: Vec<_> =
            self.clients.iter().filter(|(_, client)| late(client)).map(|(number, _)| *number).collect();
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
fn is_passing(status: Status) -> bool {
    matches!(status, Status::Full | Status::Draining)
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
