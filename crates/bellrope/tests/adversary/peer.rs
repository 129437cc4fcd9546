//! A client made of raw bytes and raw memory. It keeps to the protocol where an attack does not say otherwise.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bellrope_proto::{
    frame::{Header, Kind, RawHeader},
    handshake::{HandshakeError, Welcome},
    layout::{ASLEEP, AWAITED, CONSUMER_POSITION, EMPTY, RECORDS, WORD},
};
use bellrope_shm::{
    SharedMemory, View,
    socket::{Drained, Socket},
    sync::Ordering::{AcqRel, Acquire, Relaxed},
    wait,
};

use bellrope_testkit::{
    raw,
    support::{PATIENCE, eventually},
};

pub(crate) struct Peer {
    pub(crate) socket: Socket,
    pub(crate) memory: Arc<SharedMemory>,
    pub(crate) requests: View,
    pub(crate) responses: View,
    pub(crate) welcome: Welcome,
    /// Where the next request goes, counted from the first one on.
    position: u64,
    /// Where the next answer will be.
    read: u64,
    next_id: u64,
    /// Whether it writes without waiting for room.
    pub(crate) careless: bool,
}

/// A record of the server's.
#[derive(Debug, Clone)]
pub(crate) struct RawAnswer {
    pub(crate) header: Header,
    pub(crate) id: u64,
    pub(crate) payload: Vec<u8>,
}

impl Peer {
    pub(crate) fn connect(path: &Path) -> Self {
        let (socket, memory, welcome) = raw::shake_hands(path, "adversary");
        Self::over(socket, memory, welcome)
    }

    /// Connects, unless the server is full.
    pub(crate) fn try_to_connect(path: &Path) -> Result<Self, HandshakeError> {
        let (socket, memory, welcome) = raw::try_to_shake_hands(path, "adversary")?;
        Ok(Self::over(socket, memory, welcome))
    }

    /// Over a socket whose handshake is done.
    pub(crate) fn over(socket: Socket, memory: Arc<SharedMemory>, welcome: Welcome) -> Self {
        let geometry = welcome.terms.geometry;
        let (requests, responses) = (memory.view(geometry.requests()), memory.view(geometry.responses()));
        Self { socket, memory, requests, responses, welcome, position: 0, read: 0, next_id: 1 << 32, careless: false }
    }

    /// The number of a message type.
    pub(crate) fn number(&self, name: &str) -> u16 {
        self.welcome.types.iter().find(|entry| entry.name == name).unwrap().message_type
    }

    /// Where the next request's header goes in the view of the requests.
    pub(crate) fn front(&self) -> usize {
        RECORDS + (self.position % self.capacity()) as usize
    }

    /// Where the next answer's header will be in the view of the responses.
    pub(crate) fn next_answer_at(&self) -> usize {
        RECORDS + (self.read % self.capacity()) as usize
    }

    /// Commits this header word where the server looks next. Nothing else of the record is written.
    pub(crate) fn commit_word(&self, word: u64) {
        self.swap_in(self.front(), word);
    }

    /// Sends a record as an honest client would. It goes on where the last one ended.
    pub(crate) fn send(&mut self, kind: Kind, message_type: u16, id: u64, extension: Option<u64>, payload: &[u8]) {
        let len = u32::try_from(payload.len()).unwrap();
        let header = Header { len, message_type, kind, extended: extension.is_some() };
        let offset = self.position % self.capacity();
        if offset + header.record_size() + WORD > self.capacity() {
            self.wait_for_room(self.capacity() - offset + header.record_size());
            self.requests.store(RECORDS, EMPTY, Relaxed);
            self.commit_word(Header::pad());
            self.position += self.capacity() - offset;
        }
        self.wait_for_room(header.record_size());
        let at = self.front();
        self.requests.store(at + header.record_size() as usize, EMPTY, Relaxed);
        self.requests.store(at + 8, id, Relaxed);
        if let Some(extension) = extension {
            self.requests.store(at + 16, extension, Relaxed);
        }
        self.requests.write(at + if extension.is_some() { 24 } else { 16 }, payload);
        self.position += header.record_size();
        self.swap_in(at, header.encode());
    }

    /// Calls without waiting for the answer.
    pub(crate) fn call(&mut self, name: &str, id: u64, payload: &[u8]) {
        self.send(Kind::Request, self.number(name), id, None, payload);
    }

    /// Calls `echo` and waits for the right answer, passing over all others.
    #[track_caller]
    pub(crate) fn is_served(&mut self) {
        self.next_id += 1;
        let (id, payload) = (self.next_id, self.next_id.to_le_bytes());
        self.call("echo", id, &payload);
        let answer = self.answer_to(id);
        assert_eq!((answer.header.kind, &answer.payload[..]), (Kind::Response, &payload[..]));
    }

    /// Waits for the last record to a call, passing over all others.
    #[track_caller]
    pub(crate) fn answer_to(&mut self, id: u64) -> RawAnswer {
        let mut found = None;
        eventually("an answer", || {
            while found.is_none()
                && let Some(answer) = self.take_answer()
            {
                let last = matches!(answer.header.kind, Kind::Response | Kind::Error | Kind::End);
                found = Some(answer).filter(|answer| last && answer.id == id);
            }
            found.is_some()
        });
        found.unwrap()
    }

    /// Takes the next answer, if one is there.
    pub(crate) fn take_answer(&mut self) -> Option<RawAnswer> {
        let mut word = self.responses.load(self.next_answer_at(), Acquire);
        if word == Header::pad() {
            self.read = self.read.next_multiple_of(self.capacity());
            word = self.responses.load(self.next_answer_at(), Acquire);
        }
        if word == EMPTY || word == ASLEEP {
            return None;
        }
        let header = Header::try_from(RawHeader(word)).unwrap();
        let at = self.next_answer_at();
        let mut payload = vec![0; header.len as usize];
        self.responses.read(at + if header.extended { 24 } else { 16 }, &mut payload);
        let id = self.responses.load(at + 8, Relaxed);
        self.read += header.record_size();
        if self.responses.swap(CONSUMER_POSITION, self.read, AcqRel) & AWAITED != 0 {
            self.socket.ring();
        }
        Some(RawAnswer { header, id, payload })
    }

    /// Whether the server has hung up by now.
    pub(crate) fn is_hung_up(&self) -> bool {
        matches!(self.socket.drain(1 << 20), Ok(Drained::HungUp) | Err(_))
    }

    /// Waits until the server has hung up.
    pub(crate) fn becomes_hung_up(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if wait::readable(&self.socket, Some(Duration::from_millis(10))).unwrap() && self.is_hung_up() {
                return true;
            }
        }
        false
    }

    fn capacity(&self) -> u64 {
        self.welcome.terms.geometry.capacity
    }

    /// Commits a header word, and rings if the server sleeps on it.
    fn swap_in(&self, at: usize, word: u64) {
        if self.requests.swap(at, word, AcqRel) == ASLEEP {
            self.socket.ring();
        }
    }

    #[track_caller]
    fn wait_for_room(&self, size: u64) {
        if self.careless {
            return;
        }
        eventually("room in the ring", || {
            let consumer = self.requests.load(CONSUMER_POSITION, Acquire) & !AWAITED;
            self.position + size + WORD <= consumer + self.capacity() || self.is_hung_up()
        });
    }
}
