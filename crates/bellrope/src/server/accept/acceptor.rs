//! The acceptor: listens, shakes hands under a deadline, and hands connections over to the workers.

mod accepting;

use std::{
    io,
    os::unix::net::UnixListener,
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Relaxed, Release},
    },
    time::{Duration, Instant},
};

use bellrope_proto::handshake::{HELLO_LEN, HandshakeStatus, Hello, PRIORITY, Transport, encode_refusal};
use bellrope_shm::{
    process::{Shortage, shortage},
    socket::{PeerCredentials, Socket},
    wait::Poller,
};

use super::{
    by_process::ByProcess,
    connection_limits::{ConnectionSlot, Giver},
    half_open::HalfOpens,
    newcomers::{Newcomer, Newcomers, Step},
    pages::{PageCache, Paging},
    penalty::Start,
    retirement::Retirement,
    unfinished::{HalfOpen, HelloOutcome, UnfinishedHandshake, WaitingHandshake},
    welcome::{let_in, reason},
};
use crate::{
    kill_points::KillPoint,
    server::{
        core::{Core, SWEEP},
        inbox::Inbox,
        message::{NewConnection, WorkerMessage},
    },
};

const LISTENER_KEY: u64 = 0;
const INBOX_KEY: u64 = 1;
const FIRST_HANDSHAKE_KEY: u64 = 2;
/// How long accepting rests when descriptors have run out.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Acceptor {
    core: Arc<Core>,
    listener: UnixListener,
    workers: Vec<Arc<Inbox<WorkerMessage>>>,
    inbox: Arc<Inbox<WorkerMessage>>,
    poller: Poller,
    /// Those whose handshakes have not begun.
    accepted: ByProcess<Socket>,
    half_open: HalfOpens<UnfinishedHandshake>,
    pages: PageCache,
    /// As many as may be half open, at most.
    waiting: Vec<WaitingHandshake>,
    /// As many, too.
    newcomers: Newcomers,
    next_key: u64,
    next_serial: u64,
    /// Accepting rests until then.
    paused_until: Option<Instant>,
    retirement: Retirement,
}

impl Acceptor {
    pub(crate) fn new(
        core: Arc<Core>,
        listener: UnixListener,
        workers: Vec<Arc<Inbox<WorkerMessage>>>,
        retirement: Retirement,
    ) -> io::Result<(Arc<Inbox<WorkerMessage>>, Self)> {
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
            accepted: ByProcess::default(),
            half_open: HalfOpens::default(),
            pages: PageCache::default(),
            waiting: Vec::new(),
            newcomers: Newcomers::default(),
            next_key: FIRST_HANDSHAKE_KEY,
            next_serial: 1,
            paused_until: None,
            retirement,
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
            self.begin_some();
            self.expire(Instant::now());
            self.seat_newcomers(Instant::now());
            self.end_if_unused();
            self.core.metrics.accepting(self.paused_until.is_some());
        }
        self.dismiss();
        self.core.metrics.liveness().end(self.workers.len());
    }

    /// Tells those whose handshakes have not ended that the server goes away.
    fn dismiss(&mut self) {
        let text = "the server is going away";
        let keys: Vec<_> = self.half_open.iter().map(|(key, _)| key).collect();
        for unfinished in keys.into_iter().filter_map(|key| self.half_open.remove(key)).collect::<Vec<_>>() {
            self.give_up(&unfinished, HandshakeStatus::Draining, text);
        }
        while let Some((peer, socket)) = self.accepted.pop() {
            self.refuse(&socket, peer, HandshakeStatus::Draining, text);
        }
        for WaitingHandshake { socket, peer, .. } in std::mem::take(&mut self.waiting) {
            self.refuse(&socket, peer, HandshakeStatus::Draining, text);
        }
        while let Some(Newcomer { socket, peer, .. }) = self.newcomers.pop() {
            self.refuse(&socket, peer, HandshakeStatus::Draining, text);
        }
    }

    /// Ends the server if its time has come: nothing is under way then, so it ends at once.
    fn end_if_unused(&mut self) {
        let draining = self.core.draining.load(Acquire) || self.core.stopping.load(Acquire);
        if draining || self.retirement.look(&self.core, self.is_shaking_hands(), Instant::now()).is_none() {
            return;
        }
        // Whoever came meanwhile is served. Whoever comes from now on finds the next server.
        self.accept();
        let Some(ending) = self.retirement.look(&self.core, self.is_shaking_hands(), Instant::now()) else { return };
        self.core.metrics.serving.store(false, Release);
        self.core.draining.store(true, Release);
        self.retirement.announce(&self.core, ending);
        self.core.stopping.store(true, Release);
        self.workers.iter().for_each(|worker| worker.wake());
    }

    /// Has accepting rest.
    fn pause(&mut self) {
        self.paused_until = Some(Instant::now() + EXHAUSTED_PAUSE);
    }

    fn is_shaking_hands(&self) -> bool {
        let (accepted, newcomers) = (!self.accepted.is_empty(), self.newcomers.len() > 0);
        accepted || newcomers || self.half_open.len() > 0 || !self.waiting.is_empty()
    }

    /// How long nothing will happen by itself.
    fn patience(&self) -> Duration {
        if !self.accepted.is_empty() {
            return Duration::ZERO;
        }
        let deadlines = self.half_open.iter().map(|(_, unfinished)| unfinished.deadline());
        let next = deadlines.chain(self.waiting.iter().map(|waiting| waiting.due)).chain(self.paused_until);
        let next = next.chain(self.newcomers.due());
        let next = next.chain(self.retirement.due(&self.core)).min();
        next.map_or(SWEEP, |next| next.saturating_duration_since(Instant::now()).min(SWEEP))
    }

    /// Begins a handshake, unless its process has to wait.
    fn begin(&mut self, socket: Socket, peer: PeerCredentials) {
        // Its hello is to be answered, by whatever, before its client gives up.
        let (now, patience) = (Instant::now(), self.core.live.handshake_timeout() / 2);
        let (due, turned_away) =
            match self.core.penalties.admission(peer.pid, self.core.live.violations(), patience, now) {
                Start::Now => return self.listen(socket, peer),
                Start::At(due) => (due, None),
                // Late, so that one that tries again and again does not keep us from others.
                Start::TurnedAway(wait) => (now + patience, Some(wait)),
            };
        self.core.metrics.paced.fetch_add(1, Relaxed);
        if self.waiting.len() < self.core.live.max_half_open() as usize {
            self.waiting.push(WaitingHandshake { socket, peer, due, turned_away });
        } else {
            self.turn_away(&socket, peer, turned_away.unwrap_or(patience));
        }
    }

    /// Listens to a hello. It is often there already, and then there is nothing to wait for.
    fn listen(&mut self, socket: Socket, peer: PeerCredentials) {
        let deadline = Instant::now() + self.core.live.handshake_timeout();
        let mut half_open = HalfOpen { socket, peer, hello: [0; HELLO_LEN], filled: 0, deadline };
        let heard = half_open.read();
        if !matches!(heard, HelloOutcome::NotYet) {
            return self.heed(half_open, heard);
        }
        let key = self.next_place(peer);
        match self.poller.add(&half_open.socket, key) {
            Ok(()) => self.half_open.insert(key, peer, UnfinishedHandshake::Hello(half_open)),
            Err(error) => self.refuse(&half_open.socket, peer, HandshakeStatus::Full, &reason(&error)),
        }
    }

    /// Makes room for one more handshake under way, and gives it a key.
    fn next_place(&mut self, peer: PeerCredentials) -> u64 {
        // One place at the least: without any, nobody could connect who has not said hello already.
        let limit = self.core.live.max_half_open().max(1);
        while self.half_open.len() >= limit as usize {
            let Some(last) = self.half_open.give_way(peer) else { break };
            let text = format!(
                "{limit} handshakes are under way, the limit max_half_open, and no process has more of them than this one"
            );
            self.give_up(&last, HandshakeStatus::Full, &text);
        }
        self.next_key += 1;
        self.next_key - 1
    }

    /// Ends a handshake under way, in words if its client can hear them.
    fn give_up(&self, unfinished: &UnfinishedHandshake, status: HandshakeStatus, text: &str) {
        let _ = self.poller.remove(unfinished.socket());
        match unfinished {
            UnfinishedHandshake::Hello(half_open) => self.refuse(&half_open.socket, half_open.peer, status, text),
            UnfinishedHandshake::Pages(paging) => {
                self.core.metrics.closed.fetch_add(1, Relaxed);
                self.core.metrics.unfinished.fetch_add(1, Relaxed);
                let (pid, sent, whole) = (paging.peer.pid, paging.sent(), paging.whole());
                if self.core.may_log(paging.peer) {
                    tracing::warn!(
                        pid,
                        "connection closed in mid-handshake: its client took {sent} of {whole} bytes of the pages of \
                         message types; {text}"
                    );
                }
            }
        }
    }

    fn listen_to(&mut self, key: u64) {
        match self.half_open.of(key) {
            None => {}
            Some(UnfinishedHandshake::Hello(half_open)) => {
                let heard = half_open.read();
                if matches!(heard, HelloOutcome::NotYet) {
                    return;
                }
                let Some(UnfinishedHandshake::Hello(half_open)) = self.half_open.remove(key) else { return };
                let _ = self.poller.remove(&half_open.socket);
                self.heed(half_open, heard);
            }
            Some(UnfinishedHandshake::Pages(paging)) => {
                let sent = paging.send();
                if matches!(sent, Ok(false)) {
                    return;
                }
                let Some(UnfinishedHandshake::Pages(paging)) = self.half_open.remove(key) else { return };
                let _ = self.poller.remove(&paging.socket);
                match sent {
                    Ok(_) => self.hand_over(paging.into_connection()),
                    Err(error) => {
                        self.core.metrics.closed.fetch_add(1, Relaxed);
                        self.gone(paging.peer.pid, &error);
                    }
                }
            }
        }
    }

    /// Gives a connection whose handshake has ended to a worker.
    fn hand_over(&self, connection: NewConnection) {
        let worker = &self.workers[connection.serial as usize % self.workers.len()];
        let pid = connection.peer.pid;
        if !worker.send(WorkerMessage::Connected(Box::new(connection))) {
            // The server has stopped meanwhile, and the client learns it by the hang-up.
            self.core.metrics.closed.fetch_add(1, Relaxed);
            tracing::debug!(pid, "connection closed: the server has stopped meanwhile");
        }
    }

    /// Does what a hello asks for, or says what is wrong with it.
    fn heed(&mut self, half_open: HalfOpen, heard: HelloOutcome) {
        let HalfOpen { socket, peer, .. } = half_open;
        match heard {
            HelloOutcome::Hello(hello) => self.admit(socket, peer, hello),
            HelloOutcome::Refuse(status, text) => {
                if status == HandshakeStatus::Malformed {
                    self.core.charge(peer);
                }
                self.refuse(&socket, peer, status, &text);
            }
            HelloOutcome::Gone(error) => {
                self.gone(peer.pid, &error.unwrap_or_else(|| io::Error::other("the client hung up before its hello")));
            }
            HelloOutcome::NotYet => {}
        }
    }

    /// Makes a connection of a finished handshake, or refuses it.
    fn admit(&mut self, socket: Socket, peer: PeerCredentials, hello: Hello) {
        KillPoint::Heard.reached();
        if self.core.draining.load(Acquire) || self.core.stopping.load(Acquire) {
            return self.refuse(&socket, peer, HandshakeStatus::Draining, "the server is going away");
        }
        if hello.transport == Transport::Stream && !self.core.fixed.stream_transport {
            let text = "connections over the socket alone, transport 1, are switched off here (stream_transport)";
            return self.refuse(&socket, peer, HandshakeStatus::Transport, text);
        }
        let now = Instant::now();
        // Those who wait for a place come first.
        self.seat_newcomers(now);
        match self.core.connection_limits.take(&self.core.live, peer, hello.class == PRIORITY) {
            Ok(slot) => self.assign(socket, peer, hello, slot),
            Err(shortage) => {
                if shortage.giver.is_none() || !self.may_wait(peer) {
                    return self.refuse(&socket, peer, HandshakeStatus::Full, &shortage.text);
                }
                let deadline = now + self.core.live.handshake_timeout() / 2;
                self.newcomers.push(Newcomer { socket, peer, hello, deadline, text: shortage.text });
                self.seat_newcomers(now);
            }
        }
    }

    /// Lets those in for whom a place was found, and asks the workers for one for the next.
    fn seat_some(&mut self) {
        while let Some(first) = self.newcomers.first() {
            let is_priority = first.hello.class == PRIORITY;
            let shortage = match self.core.connection_limits.take(&self.core.live, first.peer, is_priority) {
                Ok(slot) => {
                    let Some(Newcomer { socket, peer, hello, .. }) = self.newcomers.pop() else { return };
                    self.assign(socket, peer, hello, slot);
                    continue;
                }
                Err(shortage) => shortage,
            };
            if !self.newcomers.is_asking() && shortage.giver.is_some_and(|giver| self.pages_give_way(&giver)) {
                continue;
            }
            match self.newcomers.step(&shortage, self.workers.len()) {
                Step::Wait => return,
                Step::Ask(way) => {
                    for worker in &self.workers {
                        if !worker.send(WorkerMessage::GiveWay(Arc::clone(&way))) {
                            way.answered();
                        }
                    }
                }
                Step::Refuse => {
                    let Some(Newcomer { socket, peer, .. }) = self.newcomers.pop() else { return };
                    self.refuse(&socket, peer, HandshakeStatus::Full, &shortage.text);
                }
            }
        }
    }

    /// Ends the oldest handshake of a process that is to give a place up of which the client has yet to take pages: it holds a
    /// place already, and no worker has it. Answers whether there was one.
    fn pages_give_way(&mut self, giver: &Giver) -> bool {
        let gives = |unfinished: &UnfinishedHandshake| matches!(unfinished, UnfinishedHandshake::Pages(paging) if paging.gives_way_for(giver));
        let Some(unfinished) = self.half_open.remove_first(gives) else { return false };
        let Giver { held, limit, name, .. } = giver;
        let text = format!("its process had {held} of {limit} connections ({name}), and another with fewer needed one");
        self.give_up(&unfinished, HandshakeStatus::Full, &text);
        true
    }

    /// Makes a connection of a finished handshake that has its place.
    fn assign(&mut self, socket: Socket, peer: PeerCredentials, hello: Hello, slot: ConnectionSlot) {
        KillPoint::Seated.reached();
        let priority = hello.class == PRIORITY;
        let only_this = hello.transport == Transport::Stream || !self.core.fixed.stream_transport;
        match let_in(&self.core, &mut self.pages, self.next_serial, &socket, hello, peer, slot) {
            Ok((pages, make_connection)) => {
                self.next_serial += 1;
                match pages {
                    None => self.hand_over(make_connection(socket)),
                    Some(pages) => {
                        let deadline = Instant::now() + self.core.live.handshake_timeout();
                        self.send_pages(Paging::new(socket, (peer, priority), deadline, pages, make_connection));
                    }
                }
            }
            Err(error) => {
                // Whoever is told so may ask for the other transport. But a server that has no descriptors left would take the
                // last of them for it, and then could refuse nobody in words.
                let is_full =
                    matches!(shortage(&error), Some(Shortage::ProcessDescriptors | Shortage::MachineDescriptors));
                let status = if only_this || is_full { HandshakeStatus::Full } else { HandshakeStatus::Transport };
                self.refuse(&socket, peer, status, &reason(&error));
            }
        }
    }

    /// Sends the pages of the table, which the socket may not take at once.
    fn send_pages(&mut self, mut paging: Paging) {
        let (key, peer) = (self.next_place(paging.peer), paging.peer);
        // Watched before the first try, so that room is reported that there is after it.
        let sent = paging.watch(&self.poller, key).and_then(|()| paging.send());
        match sent {
            Ok(false) => self.half_open.insert(key, peer, UnfinishedHandshake::Pages(paging)),
            Ok(true) => {
                let _ = self.poller.remove(&paging.socket);
                self.hand_over(paging.into_connection());
            }
            Err(error) => {
                let _ = self.poller.remove(&paging.socket);
                self.core.metrics.closed.fetch_add(1, Relaxed);
                self.gone(peer.pid, &error);
            }
        }
    }

    fn turn_away(&self, socket: &Socket, peer: PeerCredentials, wait: Duration) {
        let text = format!(
            "this process broke the protocol over and over; come back in {} ms (violation_allowance, violation_pause_ms)",
            wait.as_millis()
        );
        self.refuse(socket, peer, HandshakeStatus::Paced, &text);
    }

    fn refuse(&self, socket: &Socket, peer: PeerCredentials, status: HandshakeStatus, text: &str) {
        self.core.metrics.refused.fetch_add(1, Relaxed);
        if self.core.may_log(peer) {
            let (pid, uid) = (peer.pid, peer.user_of_unnamed());
            tracing::warn!(pid, uid, reason = %status, "connection refused: {text}");
        }
        // A client that does not take it has gone, or does not read: then there is nobody to tell.
        let _ = socket.send(&encode_refusal(status, text));
    }

    /// Counts a connection that ended before its handshake did, by whatever its client did.
    fn gone(&self, pid: i32, reason: &io::Error) {
        self.core.metrics.unfinished.fetch_add(1, Relaxed);
        // The rate of lines is spent on what is logged as a rule.
        tracing::debug!(pid, "connection closed in mid-handshake: {reason}");
    }

    /// Goes on with handshakes that have waited, ends those that took too long, and the pause after exhaustion.
    fn expire(&mut self, now: Instant) {
        let first =
            |all: &[WaitingHandshake]| (0..all.len()).filter(|at| all[*at].due <= now).min_by_key(|at| all[*at].due);
        while let Some(index) = first(&self.waiting) {
            let WaitingHandshake { socket, peer, turned_away, .. } = self.waiting.swap_remove(index);
            match turned_away {
                None => self.listen(socket, peer),
                Some(wait) => {
                    let left = wait.saturating_sub(self.core.live.handshake_timeout() / 2);
                    self.turn_away(&socket, peer, left);
                }
            }
        }
        let late: Vec<_> =
            self.half_open.iter().filter(|(_, unfinished)| unfinished.deadline() <= now).map(|(key, _)| key).collect();
        for key in late {
            if let Some(unfinished) = self.half_open.remove(key) {
                let timeout = self.core.live.handshake_timeout().as_millis();
                let what = if matches!(unfinished, UnfinishedHandshake::Hello(_)) {
                    "no hello came"
                } else {
                    "no more was taken"
                };
                let text = format!("{what} within {timeout} ms, the limit handshake_timeout_ms");
                self.give_up(&unfinished, HandshakeStatus::Malformed, &text);
            }
        }
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
            if let Err(error) = self.poller.add(&self.listener, LISTENER_KEY) {
                tracing::error!(%error, "accepting could not go on");
                self.pause();
            }
        }
    }
}
