//! Transport 1 in the simulation: what stands in for the other process at the private rings of both sides, and a socket
//! that takes few bytes and reports late what it has. It says of each request whether anything proves that it was not taken,
//! from the bytes alone.

use std::collections::VecDeque;

use bellrope_proto::{
    connection::{ClientConnection, Loss, ServerConnection, Terms},
    frame::{Header, Kind, RawHeader},
    stream::{Scratch, StreamEnd},
};
use bellrope_shm::SharedMemory;
use fastrand::Rng;

/// One side: its end, and what its socket has reported.
struct Side {
    end: StreamEnd,
    /// Whether there are bytes or room that nobody has looked at.
    reported: bool,
    /// Whether the socket took no more when that was last tried.
    blocked: bool,
    /// Whether not all that came was read.
    readable: bool,
}

/// The bytes of one direction.
struct Bytes {
    on_their_way: VecDeque<u8>,
    /// How many the socket holds.
    most: usize,
    records: Records,
}

/// The records of all bytes that were handed over, read as the specification says and not as the code does.
#[derive(Default)]
struct Records {
    unfinished: Vec<u8>,
    /// Calls whose requests are whole, in their order.
    requests: Vec<u64>,
    admitted: Option<usize>,
}

/// A connection over a socket.
pub(crate) struct Wire {
    client: Option<Side>,
    server: Option<Side>,
    up: Bytes,
    down: Bytes,
    rng: Rng,
}

impl Wire {
    /// A fresh connection.
    pub(crate) fn connect(terms: Terms, mut rng: Rng) -> (ClientConnection, ServerConnection<Vec<u8>>, Self) {
        let memory = || SharedMemory::anonymous(terms.geometry.mapping_len());
        let (ours, theirs) = (memory(), memory());
        let connections = (ClientConnection::new(&ours, terms), ServerConnection::new(&theirs, terms));
        let most = rng.usize(100..40_000);
        let mut wire = Self {
            client: Some(Side::new(StreamEnd::of_client(&ours, terms.geometry))),
            server: Some(Side::new(StreamEnd::of_server(&theirs, terms.geometry))),
            up: Bytes::new(most),
            down: Bytes::new(most),
            rng,
        };
        // From now on the rings say when there is something to be moved.
        wire.turn_client();
        wire.turn_server();
        (connections.0, connections.1, wire)
    }

    /// Moves what the client's side can, because of what its ring or socket has said. Answers whether it has to look at its
    /// rings again.
    pub(crate) fn turn_client(&mut self) -> bool {
        let Self { client: Some(side), server, up, down, rng } = self else { return false };
        side.turn(up, server.as_mut(), down, rng)
    }

    /// The same of the server's side.
    pub(crate) fn turn_server(&mut self) -> bool {
        let Self { client, server: Some(side), up, down, rng } = self else { return false };
        side.turn(down, client.as_mut(), up, rng)
    }

    /// Whether the socket has said something to the client's side, which nobody has looked at.
    pub(crate) fn calls_client(&self) -> bool {
        self.client.as_ref().is_some_and(|side| side.reported)
    }

    /// The same of the server's side.
    pub(crate) fn calls_server(&self) -> bool {
        self.server.as_ref().is_some_and(|side| side.reported)
    }

    /// The server ends the connection by itself, and says so if the socket takes it.
    pub(crate) fn say_farewell(&mut self, untaken: u64) {
        self.turn_server();
        let Some(side) = &self.server else { return };
        let words = StreamEnd::last_words(side.end.requests() - untaken);
        if !side.end.has_unsent() && words.len() <= self.down.room() {
            self.down.hand_over(&words);
        }
    }

    /// The server's side is gone, with what it had not sent.
    pub(crate) fn lose_server(&mut self) {
        self.server = None;
        if let Some(side) = &mut self.client {
            (side.reported, side.readable) = (true, true);
        }
    }

    /// The client's side is gone. What it had handed over may still be read.
    pub(crate) fn lose_client(&mut self) {
        self.client = None;
        self.down.on_their_way.clear();
    }

    /// Bytes that a client whose server is gone has not read.
    pub(crate) fn unread(&self) -> usize {
        self.down.on_their_way.len()
    }

    /// How a call must end whose server is gone, and that has no answer.
    pub(crate) fn verdict(&self, id: u64) -> Loss {
        let place = self.up.records.requests.iter().position(|request| *request == id);
        match (place, self.down.records.admitted) {
            (None, _) => Loss::NotExecuted,
            (Some(place), Some(taken)) if place >= taken => Loss::NotExecuted,
            _ => Loss::Unknown,
        }
    }
}

impl Side {
    fn new(end: StreamEnd) -> Self {
        Self { end, reported: false, blocked: false, readable: true }
    }

    /// What the owner of a socket does when it or the ring has said something.
    fn turn(&mut self, out: &mut Bytes, other: Option<&mut Self>, came: &mut Bytes, rng: &mut Rng) -> bool {
        self.readable |= std::mem::take(&mut self.reported);
        let (mut scratch, mut other) = (Scratch::new(), other);
        self.send(out, &mut other, &mut scratch, rng);
        self.receive(came, &mut other, &mut scratch, rng);
        self.end.woke()
    }

    fn send(&mut self, out: &mut Bytes, other: &mut Option<&mut Self>, scratch: &mut Scratch, rng: &mut Rng) {
        loop {
            let bytes = self.end.outgoing(scratch).unwrap();
            if bytes.is_empty() {
                self.blocked = false;
                return;
            }
            // A socket whose other side is gone takes nothing more, and says so: what waits stays unsent.
            let Some(other) = other else { return };
            let (len, room) = (bytes.len(), out.room());
            // It takes a part, now and then, though there is room; then it reports room as usual.
            let count = len.min(room).min(if rng.u32(0..4) == 0 { rng.usize(1..=len) } else { len });
            out.hand_over(&bytes[..count]);
            other.reported |= count > 0;
            self.end.sent(count).unwrap();
            if count < len {
                self.blocked = true;
                self.reported |= count < room;
                return;
            }
        }
    }

    fn receive(&mut self, came: &mut Bytes, other: &mut Option<&mut Self>, scratch: &mut Scratch, rng: &mut Rng) {
        let (mut bytes, began, most) = (0, self.end.position(), rng.usize(1..20_000));
        while self.end.put().unwrap() && self.readable {
            if bytes >= most && self.end.position() != began && self.end.pause().unwrap() {
                return;
            }
            if came.on_their_way.is_empty() {
                self.readable = false;
                return;
            }
            let space = self.end.space(scratch);
            let count = came.on_their_way.len().min(space.len()).min(rng.usize(1..5_000));
            came.on_their_way.drain(..count).zip(space).for_each(|(byte, place)| *place = byte);
            self.end.came(scratch, count).unwrap();
            bytes += count;
            if let Some(other) = other {
                other.reported |= other.blocked;
            }
        }
    }
}

impl Bytes {
    fn new(most: usize) -> Self {
        Self { on_their_way: VecDeque::new(), most, records: Records::default() }
    }

    fn room(&self) -> usize {
        self.most.saturating_sub(self.on_their_way.len())
    }

    fn hand_over(&mut self, bytes: &[u8]) {
        self.on_their_way.extend(bytes);
        self.records.read(bytes);
    }
}

impl Records {
    fn read(&mut self, bytes: &[u8]) {
        self.unfinished.extend(bytes);
        let mut at = 0;
        while let Some(head) = self.unfinished.get(at..at + 16) {
            let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
            let (header, id) = (Header::try_from(RawHeader(word(0))).unwrap(), word(8));
            let size = 16 + 8 * usize::from(header.extended) + header.len as usize;
            let Some(record) = self.unfinished.get(at..at + size) else { break };
            match header.kind {
                Kind::Request => self.requests.push(id),
                Kind::Admitted => {
                    let taken = u64::from_le_bytes(record[16..24].try_into().unwrap());
                    self.admitted = Some(usize::try_from(taken).unwrap());
                }
                _ => {}
            }
            at += size;
        }
        self.unfinished.drain(..at);
    }
}
