//! A small world: one server process, two clients, a clock that moves when it is told to, and death.

use std::{collections::BTreeMap, sync::Arc};

use bellrope_proto::{
    BufferBudget,
    connection::{Terms, pair},
    layout::Geometry,
    ring::Wake,
};
use bellrope_shm::SharedMemory;
use bellrope_testkit::{
    ledger::{Event, Flow},
    payload,
};
use fastrand::Rng;

use super::{client::Client, server::Server, wire::Wire};

const MAX_MESSAGE: u32 = 60_000;
const LINKS: usize = 2;
/// Far more rounds than honest ends need to finish what is under way.
const PATIENCE_ROUNDS: usize = 2_000;

/// What kind of call it is; its number is the message type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Answered on the spot.
    Now = 1,
    /// Answered later.
    Later = 2,
    /// Answered with a stream.
    Stream = 3,
    /// Takes a stream, and is answered once.
    Upload = 4,
    /// Streams both ways.
    Duplex = 5,
}

/// What both sides of all connections share.
pub(crate) struct Setting {
    pub(crate) rng: Rng,
    pub(crate) now_us: u64,
    pub(crate) events: Vec<Event>,
    /// Chunks that a stream had when its sender ended it.
    pub(crate) totals: BTreeMap<(u64, Flow), u64>,
    /// Whether anybody dies.
    pub(crate) deaths: bool,
    calls: u64,
}

/// Whether a side sleeps until it is rung, and what a ring may still come of.
#[derive(Debug, Default)]
pub(crate) struct Sleep {
    pub(crate) asleep: bool,
    rung: bool,
    /// Rings that are to be expected at the most: one for the tag on the next header, one for the tag on the other side's
    /// position, and one that the other side found due before and has not delivered yet.
    due: u32,
    /// Whether this side has done something since its last commit, which may have to ring the other.
    pub(crate) uncommitted: bool,
}

struct Link {
    client: Option<Client>,
    server: Option<Server>,
    /// What carries the records, where that is no shared memory.
    wire: Option<Wire>,
}

pub(crate) struct World {
    setting: Setting,
    terms: Terms,
    budget: Arc<BufferBudget>,
    links: Vec<Link>,
    connections: u64,
    mood: Mood,
}

/// What this life is like, in steps of a thousand and a hundred: with a slow server rings fill up, with a slow client
/// answers do, and one that often changes its mind sends many cancels. A client that spins to the end never arms its ring.
struct Mood {
    client: u32,
    submits: u32,
    gives_up: u32,
    client_spins: bool,
    server_spins: bool,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let geometry = Geometry::new(rng.choice([4096, 8192, 65536]).unwrap()).unwrap();
        let (max_in_flight, stream_window) = (rng.u32(1..24), rng.u32(1..5_000));
        let terms = Terms { geometry, max_message: MAX_MESSAGE, max_in_flight, stream_window };
        let budget = BufferBudget::new(u64::from(MAX_MESSAGE) + rng.u64(0..40_000));
        let (events, totals) = (Vec::new(), BTreeMap::new());
        let setting = Setting { rng, now_us: 1, events, totals, deaths: true, calls: 0 };
        let links = (0..LINKS).map(|_| Link { client: None, server: None, wire: None }).collect();
        let rng = &mut Rng::with_seed(!seed);
        let mood = Mood {
            client: rng.u32(150..850),
            submits: rng.u32(10..40),
            gives_up: rng.u32(1..15),
            client_spins: rng.bool(),
            server_spins: rng.bool(),
        };
        Self { setting, terms, budget, links, connections: 0, mood }
    }

    /// Lets so many things happen, then everything come to its end. Answers the history.
    pub(crate) fn run(mut self, steps: u32) -> Vec<Event> {
        for _ in 0..steps {
            self.step();
            self.check_wake_ups();
        }
        self.come_to_an_end();
        self.setting.events
    }

    /// One thing happens, to one connection or to everybody.
    fn step(&mut self) {
        let index = self.setting.rng.usize(0..LINKS);
        match self.setting.rng.u32(0..1000) {
            0 => self.kill_server(),
            1 => self.retire_server(),
            2..4 => {
                let Link { client, wire, .. } = &mut self.links[index];
                if let Some(client) = client.take() {
                    client.die(&mut self.setting);
                    wire.iter_mut().for_each(Wire::lose_client);
                }
            }
            4..60 => self.setting.now_us += self.setting.rng.u64(0..2_000),
            many if many < 60 + self.mood.client => self.step_client(index),
            _ => self.step_server(index),
        }
    }

    fn step_client(&mut self, index: usize) {
        let Self { setting, links, mood, .. } = self;
        let link = &mut links[index];
        link.hear_client(setting.rng.bool());
        let Link { client: Some(client), server, .. } = link else {
            return self.settle(index);
        };
        if server.is_none() && setting.rng.u32(0..4) == 0 {
            return self.settle(index);
        }
        let awake = client.wake(false);
        match setting.rng.u32(0..100) {
            few if few < mood.submits => client.submit(setting),
            40..48 => client.push(setting),
            48..62 => client.upload(setting),
            62..66 => client.rest(),
            // The rest is up to the client that leads, and it sleeps.
            _ if !awake => {}
            few if few < 40 => client.give_up(setting, few % 2 == 0),
            many if many < 66 + mood.gives_up => client.give_up(setting, false),
            66..84 => drop(client.take(setting, 4)),
            84..94 => drop(client.consume(setting)),
            _ => client.rest(),
        }
        client.wake(false);
        client.sleep.uncommitted = setting.rng.bool() && !client.sleep.asleep;
        if !client.sleep.uncommitted {
            link.commit_client();
        }
    }

    fn step_server(&mut self, index: usize) {
        let Self { setting, links, .. } = self;
        let link = &mut links[index];
        link.hear_server(setting.rng.bool());
        let Link { client, server: Some(server), .. } = link else { return };
        if client.is_none() && setting.rng.u32(0..4) == 0 {
            return self.settle(index);
        }
        let mut died = false;
        match setting.rng.u32(0..100) {
            0..45 => {
                if server.wake(false) {
                    let most = setting.rng.usize(1..10);
                    died = server.visit(setting, most).is_err();
                }
            }
            45..85 => {
                // What a handler says and finds no room for is put on the list of those to be looked after.
                let unsent = server.act(setting) && server.connection.wants_room();
                server.wake(unsent);
            }
            _ => server.rest(),
        }
        if died {
            // What was staged is lost.
            return self.kill_server();
        }
        // A worker with unsent answers does not sleep.
        server.sleep.uncommitted = setting.rng.u32(0..4) == 0 && !server.sleep.asleep;
        if !server.sleep.uncommitted {
            link.commit_server();
        }
    }

    /// The server process dies, with all its connections.
    fn kill_server(&mut self) {
        for link in &mut self.links {
            link.server = None;
            link.wire.iter_mut().for_each(Wire::lose_server);
        }
        assert_eq!(self.budget.used(), 0, "the budget goes with its connections");
    }

    /// The server process ends by itself. Clients that share no memory with it are told how many of their requests it took.
    fn retire_server(&mut self) {
        for Link { server, wire, .. } in &mut self.links {
            if let (Some(server), Some(wire)) = (server, wire) {
                let _ = server.connection.commit();
                wire.say_farewell(server.connection.untaken_requests());
            }
        }
        self.kill_server();
    }

    /// Whoever has lost the other side notices; then both connect anew.
    fn settle(&mut self, index: usize) {
        let link = &mut self.links[index];
        let wire = link.wire.take();
        if let (Some(client), None) = (link.client.take(), link.server.take()) {
            client.lose_server(&mut self.setting, wire);
        }
        self.connections += 1;
        let (client, server);
        if self.setting.rng.bool() {
            let (ours, theirs, wire) = Wire::connect(self.terms, self.setting.rng.fork());
            (client, server, link.wire) = (ours, theirs, Some(wire));
        } else {
            let mut terms = self.terms;
            if self.setting.rng.bool() {
                terms.geometry = terms.geometry.into_compact();
            }
            let memory = SharedMemory::anonymous(terms.geometry.mapping_len());
            (client, server) = pair(&memory, terms);
        }
        link.client = Some(Client::new(client, self.connections));
        link.server = Some(Server::new(server, &self.budget, MAX_MESSAGE as usize));
    }

    /// Who sleeps and was not rung has nothing to look at.
    fn check_wake_ups(&self) {
        for link in &self.links {
            let Link { client: Some(client), server: Some(server), .. } = link else { continue };
            if client.sleep.is_fast() && !server.sleep.uncommitted {
                assert!(!client.connection.is_ready(), "the client sleeps over an answer");
            }
            // A stalled server takes no requests: it sleeps until there is room.
            if server.sleep.is_fast() && !client.sleep.uncommitted && !server.connection.is_stalled() {
                assert!(!server.connection.is_ready(), "the server sleeps over a request");
            }
        }
    }

    /// Nobody dies and nobody calls any more. Each side moves only while it is awake, so that a ring too few shows.
    fn come_to_an_end(&mut self) {
        self.setting.deaths = false;
        for index in 0..LINKS {
            let Link { client, server, .. } = &self.links[index];
            if client.is_none() || server.is_none() {
                self.settle(index);
            }
            // Callers that have something left to send do it now.
            if let Some(client) = &mut self.links[index].client {
                client.wake(true);
            }
        }
        let mut rounds = 0;
        while !self.links.iter().all(Link::is_done) {
            rounds += 1;
            assert!(rounds < PATIENCE_ROUNDS, "what is under way does not end:\n{}", self.describe());
            self.setting.now_us += 500;
            for index in 0..LINKS {
                self.finish_client(index);
                self.finish_server(index);
                self.links[index].hear();
                self.check_wake_ups();
            }
        }
        for Link { client, server, .. } in &self.links {
            let (Some(client), Some(server)) = (client, server) else { unreachable!("all are connected") };
            assert_eq!((client.connection.in_flight(), server.connection.open_calls()), (0, 0));
        }
        assert_eq!(self.budget.used(), 0, "every byte of the budget was given back");
    }

    fn finish_client(&mut self, index: usize) {
        let Some(client) = &mut self.links[index].client else { return };
        let setting = &mut self.setting;
        if client.wake(false) {
            client.send_all(setting);
            client.take(setting, 64);
            while client.consume(setting) {}
            if !self.mood.client_spins {
                client.rest();
            }
        }
        client.sleep.uncommitted = false;
        self.links[index].commit_client();
    }

    fn finish_server(&mut self, index: usize) {
        let Some(server) = &mut self.links[index].server else { return };
        let setting = &mut self.setting;
        if server.wake(false) {
            let Ok(()) = server.visit(setting, 64) else { unreachable!("nobody dies any more") };
        }
        let acted = (0..8).fold(false, |acted, _| acted | server.act(setting));
        let unsent = acted && server.connection.wants_room();
        server.wake(unsent);
        if !self.mood.server_spins {
            server.rest();
        }
        server.sleep.uncommitted = false;
        self.links[index].commit_server();
    }

    fn describe(&self) -> String {
        let one = |Link { client, server, .. }: &Link| {
            let client = client.as_ref().map(|client| format!("{:?} {:#?}", client.sleep, client.connection));
            let server = server.as_ref().map(|server| format!("{:?} {:#?}", server.sleep, server.connection));
            format!("client {}\nserver {}\n", client.unwrap_or_default(), server.unwrap_or_default())
        };
        self.links.iter().filter(|link| !link.is_done()).map(one).collect()
    }
}

/// Rings for a side, if that is needed and it still lives.
fn ring(wake: Wake, sleeper: Option<&mut Sleep>) {
    if wake.needed()
        && let Some(sleeper) = sleeper
    {
        sleeper.ring();
    }
}

impl Link {
    fn is_done(&self) -> bool {
        self.client.as_ref().is_none_or(Client::is_done) && self.server.as_ref().is_none_or(Server::is_done)
    }

    /// Makes visible what the client has done. Over a wire that is for its own end, which looks at the ring at once.
    fn commit_client(&mut self) {
        let Self { client: Some(client), server, wire } = self else { return };
        let wake = client.connection.commit();
        match wire {
            None => ring(wake, server.as_mut().map(|server| &mut server.sleep)),
            Some(wire) => {
                if wake.needed() && wire.turn_client() {
                    client.sleep.ring();
                }
            }
        }
    }

    fn commit_server(&mut self) {
        let Self { client, server: Some(server), wire } = self else { return };
        let wake = server.connection.commit();
        match wire {
            None => ring(wake, client.as_mut().map(|client| &mut client.sleep)),
            Some(wire) => {
                if wake.needed() && wire.turn_server() {
                    server.sleep.ring();
                }
            }
        }
    }

    /// The client's side looks at its socket, if that has said something and `now` is the time.
    fn hear_client(&mut self, now: bool) {
        if let Self { client: Some(client), wire: Some(wire), .. } = self
            && now
            && wire.calls_client()
            && wire.turn_client()
        {
            client.sleep.ring();
        }
    }

    fn hear_server(&mut self, now: bool) {
        if let Self { server: Some(server), wire: Some(wire), .. } = self
            && now
            && wire.calls_server()
            && wire.turn_server()
        {
            server.sleep.ring();
        }
    }

    /// Both look at their sockets until these say nothing more.
    fn hear(&mut self) {
        while self.wire.as_ref().is_some_and(|wire| wire.calls_client() || wire.calls_server()) {
            self.hear_client(true);
            self.hear_server(true);
        }
    }
}

impl Sleep {
    /// Notes that the side has armed its ring, and whether it sleeps now.
    pub(crate) fn armed(&mut self, asleep: bool) {
        self.asleep = asleep;
        self.rung = false;
        self.due = 3;
    }

    /// Whether the side sleeps and will go on sleeping.
    fn is_fast(&self) -> bool {
        self.asleep && !self.rung
    }

    fn ring(&mut self) {
        assert!(self.due > 0, "rung for nothing: this side has no tag left");
        self.due -= 1;
        self.rung = true;
    }

    /// Ends the sleep, if there is one and it was rung or `by_itself`. Answers whether that was so.
    pub(crate) fn wake(&mut self, by_itself: bool) -> bool {
        let wakes = self.asleep && (self.rung || by_itself);
        if wakes {
            self.asleep = false;
        }
        wakes
    }
}

impl Setting {
    pub(crate) fn new_call(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }

    /// Bytes of a message: mostly small, sometimes as large as a record, sometimes in parts.
    pub(crate) fn size(&mut self, max_record: usize, max_message: usize) -> usize {
        let most = match self.rng.u32(0..20) {
            0..13 => 200,
            13..17 => max_record,
            17..19 => (6 * max_record).min(max_message),
            _ => max_message,
        };
        self.rng.usize(payload::LEAST..=most)
    }

    pub(crate) fn chunk_size(&mut self, max_record: usize) -> usize {
        let most = if self.rng.u32(0..4) > 0 { 100 } else { max_record };
        self.rng.usize(payload::LEAST_CHUNK..=most)
    }
}

impl Plan {
    const ALL: [Self; 5] = [Self::Now, Self::Later, Self::Stream, Self::Upload, Self::Duplex];

    pub(crate) fn any(rng: &mut Rng) -> Self {
        if rng.bool() { Self::Now } else { rng.choice(Self::ALL).unwrap() }
    }

    pub(crate) fn from_type(message_type: u16) -> Self {
        Self::ALL.into_iter().find(|plan| *plan as u16 == message_type).expect("only these are called")
    }
}
