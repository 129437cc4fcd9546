//! The acceptor: listens, shakes hands under a deadline, and hands connections over to the workers.

use std::{
    collections::HashMap,
    io,
    os::unix::net::UnixListener,
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Relaxed},
    },
    time::{Duration, Instant},
};

use bellrope_proto::{
    connection::ServerConnection,
    handshake::{HELLO_LEN, HandshakeError, Hello, PRIORITY, Status, VERSION, Welcome, encode_refusal},
};
use bellrope_shm::{
    SharedMemory, clock, process,
    socket::{PeerCredentials, Socket},
    wait::Poller,
};

use super::{connection_limits::ConnectionSlot, penalty::Admission};
use crate::{
    kill_points::KillPoint,
    server::{
        core::{Core, SWEEP},
        inbox::Inbox,
        message::{Message, NewConnection},
    },
};

const LISTENER_KEY: u64 = 0;
const INBOX_KEY: u64 = 1;
const FIRST_HANDSHAKE_KEY: u64 = 2;
/// Connections taken from the listener before handshakes have their turn.
const ACCEPT_BATCH: usize = 64;
/// How long accepting rests when descriptors have run out.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Acceptor {
    core: Arc<Core>,
    listener: UnixListener,
    workers: Vec<Arc<Inbox<Message>>>,
    inbox: Arc<Inbox<Message>>,
    poller: Poller,
    half_open: HashMap<u64, HalfOpen>,
    /// As many as may be half open, at most.
    waiting: Vec<Waiting>,
    next_key: u64,
    next_serial: u64,
    /// Accepting rests until then.
    paused_until: Option<Instant>,
}

/// A handshake under way.
struct HalfOpen {
    socket: Socket,
    peer: PeerCredentials,
    hello: [u8; HELLO_LEN],
    filled: usize,
    deadline: Instant,
}

/// A handshake that has to wait because of what its process did.
struct Waiting {
    socket: Socket,
    peer: PeerCredentials,
    due: Instant,
    /// How long its process has to stay away, if it is turned away then.
    turned_away: Option<Duration>,
}

/// What came of reading a hello.
enum Heard {
    NotYet,
    Hello(Hello),
    Refuse(Status, String),
    Gone,
}

impl Acceptor {
    pub(crate) fn new(
        core: Arc<Core>,
        listener: UnixListener,
        workers: Vec<Arc<Inbox<Message>>>,
    ) -> io::Result<(Arc<Inbox<Message>>, Self)> {
        listener.set_nonblocking(true)?;
        let poller = Poller::new()?;
        let inbox = Inbox::new()?;
        poller.add(&listener, LISTENER_KEY)?;
        poller.add(inbox.notifier(), INBOX_KEY)?;
        let acceptor = Self {
            core,
            listener,
            workers,
            inbox: Arc::clone(&inbox),
            poller,
            half_open: HashMap::new(),
            waiting: Vec::new(),
            next_key: FIRST_HANDSHAKE_KEY,
            next_serial: 1,
            paused_until: None,
        };
        Ok((inbox, acceptor))
    }

    pub(crate) fn run(mut self) {
        let mut keys = Vec::new();
        while !self.core.stopping.load(Acquire) {
            match self.poller.wait(Some(self.patience())) {
                Ok(events) => keys.extend(events.iter().map(|event| event.key)),
                Err(error) => tracing::error!(%error, "waiting for connections failed"),
            }
            for key in keys.drain(..) {
                match key {
                    LISTENER_KEY => self.accept(),
                    INBOX_KEY => self.inbox.notifier().clear(),
                    key => self.listen_to(key),
                }
            }
            self.expire(Instant::now());
            self.core.metrics.accepting(self.paused_until.is_some());
        }
        self.core.metrics.liveness().end(self.workers.len());
    }

    /// How long nothing will happen by itself.
    fn patience(&self) -> Duration {
        let deadlines = self.half_open.values().map(|half_open| half_open.deadline);
        let next = deadlines.chain(self.waiting.iter().map(|waiting| waiting.due)).chain(self.paused_until).min();
        next.map_or(SWEEP, |next| next.saturating_duration_since(Instant::now()).min(SWEEP))
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPT_BATCH {
            match self.listener.accept() {
                Ok((stream, _)) => self.begin(stream.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(%error, "accepting failed; resting for {EXHAUSTED_PAUSE:?}");
                    let _ = self.poller.remove(&self.listener);
                    self.paused_until = Some(Instant::now() + EXHAUSTED_PAUSE);
                    return;
                }
            }
        }
    }

    /// Begins a handshake, unless its process has to wait.
    fn begin(&mut self, socket: Socket) {
        let Ok(()) = socket.set_nonblocking(true) else { return };
        KillPoint::Accepted.reached();
        let Ok(peer) = socket.peer_credentials() else { return };
        // Its hello is to be answered, by whatever, before its client gives up.
        let (now, patience) = (Instant::now(), self.core.live.handshake_timeout() / 2);
        let (due, turned_away) =
            match self.core.penalties.admission(peer.pid, self.core.live.violations(), patience, now) {
                Admission::Now => return self.listen(socket, peer),
                Admission::At(due) => (due, None),
                // Late, so that one that tries again and again does not keep us from others.
                Admission::TurnedAway(wait) => (now + patience, Some(wait)),
            };
        self.core.metrics.paced.fetch_add(1, Relaxed);
        if self.waiting.len() < self.core.live.max_half_open() as usize {
            self.waiting.push(Waiting { socket, peer, due, turned_away });
        } else {
            self.turn_away(&socket, turned_away.unwrap_or(patience));
        }
    }

    /// Listens to a hello. It is often there already, and then there is nothing to wait for.
    fn listen(&mut self, socket: Socket, peer: PeerCredentials) {
        let deadline = Instant::now() + self.core.live.handshake_timeout();
        let mut half_open = HalfOpen { socket, peer, hello: [0; HELLO_LEN], filled: 0, deadline };
        let heard = half_open.read();
        if !matches!(heard, Heard::NotYet) {
            return self.heed(half_open, heard);
        }
        let limit = self.core.live.max_half_open();
        if self.half_open.len() >= limit as usize {
            let text = format!("{limit} handshakes are under way, the limit max_half_open");
            return self.refuse(&half_open.socket, Status::Full, &text);
        }
        let key = self.next_key;
        self.next_key += 1;
        if self.poller.add(&half_open.socket, key).is_ok() {
            self.half_open.insert(key, half_open);
        }
    }

    fn listen_to(&mut self, key: u64) {
        let Some(half_open) = self.half_open.get_mut(&key) else { return };
        let heard = half_open.read();
        if matches!(heard, Heard::NotYet) {
            return;
        }
        let Some(half_open) = self.half_open.remove(&key) else { return };
        let _ = self.poller.remove(&half_open.socket);
        self.heed(half_open, heard);
    }

    /// Does what a hello asks for, or says what is wrong with it.
    fn heed(&mut self, half_open: HalfOpen, heard: Heard) {
        let HalfOpen { socket, peer, .. } = half_open;
        match heard {
            Heard::Hello(hello) => self.admit(socket, peer, hello),
            Heard::Refuse(status, text) => {
                if status == Status::Malformed {
                    self.core.charge(peer.pid);
                }
                self.refuse(&socket, status, &text);
            }
            Heard::Gone | Heard::NotYet => {}
        }
    }

    /// Makes a connection of a finished handshake, or refuses it.
    fn admit(&mut self, socket: Socket, peer: PeerCredentials, hello: Hello) {
        KillPoint::Heard.reached();
        if self.core.draining.load(Acquire) || self.core.stopping.load(Acquire) {
            return self.refuse(&socket, Status::Draining, "the server is going away");
        }
        let slot = match self.core.connection_limits.take(&self.core.live, peer.uid, hello.class == PRIORITY) {
            Ok(slot) => slot,
            Err(text) => return self.refuse(&socket, Status::Full, &text),
        };
        KillPoint::Seated.reached();
        match self.connect(&socket, hello, peer, slot) {
            Ok(make_connection) => {
                let worker = &self.workers[self.next_serial as usize % self.workers.len()];
                if !worker.send(Message::Connected(Box::new(make_connection(socket)))) {
                    // The server has stopped meanwhile, and the client learns it by the hang-up.
                    self.core.metrics.closed.fetch_add(1, Relaxed);
                }
                self.next_serial += 1;
            }
            Err(error) => {
                tracing::error!(%error, "a connection could not be made");
                self.refuse(&socket, Status::Full, "the server is out of memory or descriptors");
            }
        }
    }

    /// Makes the memory of a connection and sends the welcome with it.
    fn connect(
        &self,
        socket: &Socket,
        hello: Hello,
        peer: PeerCredentials,
        slot: ConnectionSlot,
    ) -> io::Result<impl FnOnce(Socket) -> NewConnection + use<>> {
        if peer.uid != process::user_id() && peer.uid != 0 {
            tracing::debug!(uid = peer.uid, "a client of another user");
        }
        let terms = self.core.fixed.terms;
        let (memory, handle) = SharedMemory::create(terms.geometry.mapping_len())?;
        KillPoint::MemoryMade.reached();
        let welcome = Welcome {
            features: 0,
            connection: self.next_serial,
            terms,
            clock_us: clock::monotonic_us(),
            types: self.core.registry.table(),
        };
        let bytes = welcome.encode();
        // Before the client can know of it: whoever is connected is among those that are counted.
        self.core.metrics.accepted.fetch_add(1, Relaxed);
        let sent = socket.send_with_memory(&bytes, &handle);
        // A fresh socket takes a welcome whole; one that does not is no client worth waiting for.
        if !sent.as_ref().is_ok_and(|sent| *sent == bytes.len()) {
            self.core.metrics.closed.fetch_add(1, Relaxed);
            return Err(sent
                .err()
                .unwrap_or_else(|| io::Error::other("the client's socket does not take the welcome")));
        }
        KillPoint::Welcomed.reached();
        let serial = self.next_serial;
        tracing::debug!(connection = serial, pid = peer.pid, client = hello.name, "client connected");
        Ok(move |socket| NewConnection {
            socket,
            connection: ServerConnection::new(&memory, terms),
            serial,
            peer,
            slot,
            name: hello.name,
        })
    }

    fn turn_away(&self, socket: &Socket, wait: Duration) {
        let text = format!(
            "this process broke the protocol over and over; come back in {} ms (violation_allowance, violation_pause_ms)",
            wait.as_millis()
        );
        self.refuse(socket, Status::Paced, &text);
    }

    fn refuse(&self, socket: &Socket, status: Status, text: &str) {
        self.core.metrics.refused.fetch_add(1, Relaxed);
        let pid = socket.peer_credentials().map_or(0, |peer| peer.pid);
        if self.core.may_log(pid) {
            tracing::warn!(pid, reason = %status, "connection refused: {text}");
        }
        let _ = socket.send(&encode_refusal(status, text));
    }

    /// Goes on with handshakes that have waited, ends those that took too long, and the pause after exhaustion.
    fn expire(&mut self, now: Instant) {
        while let Some(index) = self.waiting.iter().position(|waiting| waiting.due <= now) {
            let Waiting { socket, peer, turned_away, .. } = self.waiting.swap_remove(index);
            match turned_away {
                None => self.listen(socket, peer),
                Some(wait) => self.turn_away(&socket, wait.saturating_sub(self.core.live.handshake_timeout() / 2)),
            }
        }
        let late: Vec<_> =
            self.half_open.iter().filter(|(_, half_open)| half_open.deadline <= now).map(|(key, _)| *key).collect();
        for key in late {
            if let Some(half_open) = self.half_open.remove(&key) {
                let _ = self.poller.remove(&half_open.socket);
                let timeout = self.core.live.handshake_timeout().as_millis();
                let text = format!("no hello came within {timeout} ms, the limit handshake_timeout_ms");
                self.refuse(&half_open.socket, Status::Malformed, &text);
            }
        }
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
            if let Err(error) = self.poller.add(&self.listener, LISTENER_KEY) {
                tracing::error!(%error, "accepting could not go on");
                self.paused_until = Some(now + EXHAUSTED_PAUSE);
            }
        }
    }
}

impl HalfOpen {
    /// Reads what there is of the hello.
    fn read(&mut self) -> Heard {
        while self.filled < HELLO_LEN {
            match self.socket.receive(&mut self.hello[self.filled..]) {
                Ok(count @ 1..) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::NotYet,
                Ok(0) | Err(_) => return Heard::Gone,
            }
        }
        match Hello::decode(&self.hello) {
            Ok(hello) => Heard::Hello(hello),
            Err(HandshakeError::Version { theirs }) => {
                let (ours_major, ours_minor) = VERSION;
                let text = format!(
                    "this server speaks version {ours_major}.{ours_minor}, the client {}.{}",
                    theirs.0, theirs.1
                );
                Heard::Refuse(Status::Version, text)
            }
            Err(error) => Heard::Refuse(Status::Malformed, error.to_string()),
        }
    }
}
