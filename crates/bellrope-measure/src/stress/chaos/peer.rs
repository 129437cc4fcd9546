//! A client of raw bytes and raw memory, or raw bytes alone, which keeps to no rule.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bellrope::client::{self, ClientConfig};
use bellrope_proto::{
    connection::Terms,
    frame::{Header, Kind},
    handshake::{ANSWER_HEAD_LEN, AnswerHead, Hello, Transport},
    layout::{ASLEEP, CONSUMER_POSITION, EMPTY, RECORDS},
    ring::{Producer, RecordClass},
    stream::StreamEnd,
};
use bellrope_shm::{
    SharedMemory, View,
    socket::{Drained, Socket},
    sync::Ordering,
    wait,
};
use fastrand::Rng;

use super::plan::Corruption;

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// It has shaken hands as everybody does.
pub(super) struct Peer {
    socket: Socket,
    /// The rings; `None` where the records travel over the socket.
    rings: Option<Rings>,
    terms: Terms,
}

struct Rings {
    requests: View,
    responses: View,
}

impl Peer {
    pub(super) fn connect(config: &ClientConfig) -> anyhow::Result<Self> {
        let socket = Socket::connect(&config.path).context("connecting a raw client")?;
        let alone = config.transport == client::Transport::Stream;
        let transport = if alone { Transport::Stream } else { Transport::Shm };
        let hello = Hello { name: "stress".to_owned(), transport, ..Hello::default() }.encode();
        ensure!(socket.send(&hello)? == hello.len(), "the socket does not take the hello");
        let mut head = [0; ANSWER_HEAD_LEN];
        await_bytes(&socket)?;
        let (count, memory) = socket.receive_with_memory(&mut head)?;
        ensure!(count == ANSWER_HEAD_LEN, "the server's answer is cut");
        let head = AnswerHead::decode(&head)?;
        let mut body = vec![0; head.body_len()];
        let mut filled = 0;
        while filled < body.len() {
            await_bytes(&socket)?;
            let count = socket.receive(&mut body[filled..])?;
            ensure!(count > 0, "the server hung up in mid-handshake");
            filled += count;
        }
        let terms = head.with_body(&body)?.terms;
        if alone {
            return Ok(Self { socket, rings: None, terms });
        }
        let memory = memory.context("the server sent no memory")?;
        let memory: Arc<SharedMemory> = SharedMemory::open(&memory, terms.geometry.mapping_len())?;
        let (requests, responses) = (memory.view(terms.geometry.requests()), memory.view(terms.geometry.responses()));
        Ok(Self { socket, rings: Some(Rings { requests, responses }), terms })
    }

    /// Breaks a rule.
    pub(super) fn corrupt(&self, corruption: Corruption) {
        let header = |len, kind, extended| Header { len, message_type: 1, kind, extended }.encode();
        match (corruption, &self.rings) {
            (Corruption::Header, _) => self.commit(0, 0x00AA_0000_0000_0001),
            (Corruption::Length, _) => self.commit(0, header(1 << 20, Kind::Request, false)),
            (Corruption::HugeLength, _) => self.commit(0, header(u32::MAX, Kind::Request, true)),
            (Corruption::Pad, _) => self.commit(0, Header::pad()),
            (Corruption::Direction, _) => self.commit(0, header(0, Kind::Response, false)),
            (Corruption::Form, None) => {
                let cancel = Header { len: 8, message_type: 0, kind: Kind::Cancel, extended: false };
                self.say(&[cancel.encode().to_le_bytes(), [1; 8], [0; 8]].concat());
            }
            (Corruption::Form, _) => self.commit(0, header(8, Kind::Cancel, false)),
            // There are no positions: as an admitted record only the server says how far it has read.
            (Corruption::Position, None) => self.say(&StreamEnd::last_words(1 << 40)),
            (Corruption::Noise(seed), None) => {
                let mut rng = Rng::with_seed(seed);
                let mut bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(4096).collect();
                // Kinds have small numbers: this one is none.
                bytes[6] |= 0x80;
                self.say(&bytes);
            }
            (Corruption::Position, Some(Rings { requests, responses })) => {
                // The server looks at our position only when it lacks room: a reason to look, and a lie.
                responses.store(CONSUMER_POSITION, 1 << 40, Ordering::Release);
                let record = Header { len: 64, message_type: 1, kind: Kind::Request, extended: false };
                for call in 0..60 {
                    let offset = call * record.record_size() as usize;
                    requests.store(RECORDS + offset + record.record_size() as usize, EMPTY, Ordering::Relaxed);
                    self.commit(offset, record.encode());
                }
            }
            (Corruption::Noise(seed), Some(Rings { requests, .. })) => {
                let mut rng = Rng::with_seed(seed);
                for offset in (8..4096 - RECORDS).step_by(8) {
                    requests.store(RECORDS + offset, rng.u64(..), Ordering::Relaxed);
                }
                // Kinds have small numbers: this one is none, whatever the rest says.
                self.commit(0, rng.u64(..) & !(1 << 63) | 1 << 55);
            }
        }
    }

    /// Begins a message of `whole` bytes, of which only the first part comes.
    pub(super) fn begin_large(&self, whole: u64) -> anyhow::Result<()> {
        let part = [0x5A; 1024];
        let Some(Rings { requests, .. }) = &self.rings else {
            let header = Header { len: part.len() as u32, message_type: 0, kind: Kind::Fragment, extended: true };
            let head = [header.encode(), 1, whole].map(u64::to_le_bytes).concat();
            self.say(&[&head[..], &part].concat());
            return Ok(());
        };
        let mut producer = Producer::new(requests.clone(), self.terms.geometry);
        producer.push(RecordClass::Bulk, Kind::Fragment, 0, 1, Some(whole), &part)?;
        // Whether it sleeps or not: it does no harm to ring once too often.
        let _ = producer.publish();
        self.socket.ring();
        Ok(())
    }

    /// Bytes of the largest message that the server takes.
    pub(super) fn max_message(&self) -> u64 {
        self.terms.max_message.into()
    }

    /// Waits until the server has hung up, at most so long.
    pub(super) fn is_hung_up_on(&self, patience: Duration) -> anyhow::Result<bool> {
        let deadline = Instant::now() + patience;
        loop {
            if self.socket.drain(1 << 16)? == Drained::HungUp {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            wait::readable(&self.socket, Some(left))?;
        }
    }

    /// Waits until the server has answered anything or hung up, at most so long.
    pub(super) fn is_answered(&self, patience: Duration) -> anyhow::Result<bool> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            let answered = match &self.rings {
                Some(Rings { responses, .. }) => {
                    let word = responses.load(RECORDS, Ordering::Acquire);
                    word != EMPTY && word != ASLEEP
                }
                // Nobody has read anything here, so an answer or a hang-up makes it readable.
                None => wait::readable(&self.socket, Some(Duration::from_millis(1)))?,
            };
            if answered || self.rings.is_some() && self.is_hung_up_on(Duration::from_millis(1))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes a header word, and rings; or says it.
    fn commit(&self, offset: usize, word: u64) {
        match &self.rings {
            Some(Rings { requests, .. }) => {
                requests.store(RECORDS + offset, word, Ordering::Release);
                self.socket.ring();
            }
            None => self.say(&word.to_le_bytes()),
        }
    }

    /// Says bytes, as far as the socket takes them, which a fresh one does; the server may have hung up before.
    fn say(&self, bytes: &[u8]) {
        let _ = self.socket.send(bytes);
    }
}

fn await_bytes(socket: &Socket) -> anyhow::Result<()> {
    ensure!(wait::readable(socket, Some(PATIENCE))?, "the server did not answer a handshake within {PATIENCE:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use bellrope_testkit::local_server::LocalServer;

    use super::*;

    #[test]
    fn a_server_answers_a_message_that_is_too_large_and_nothing_before() {
        let server = LocalServer::echo();
        for transport in [client::Transport::Shm, client::Transport::Stream] {
            let peer = Peer::connect(&ClientConfig::new(server.socket()).transport(transport)).unwrap();
            assert!(!peer.is_answered(Duration::from_millis(5)).unwrap());
            peer.begin_large(peer.max_message() + 1).unwrap();
            assert!(peer.is_answered(Duration::from_secs(60)).unwrap());
        }
    }

    #[test]
    fn every_corruption_is_punished_over_either_transport() {
        use Corruption::*;
        for transport in [client::Transport::Shm, client::Transport::Stream] {
            // A fresh one, which lets nobody wait for what others broke.
            let server = LocalServer::echo();
            let config = ClientConfig::new(server.socket()).transport(transport);
            for corruption in [Header, Length, HugeLength, Pad, Direction, Form, Position, Noise(7)] {
                let peer = Peer::connect(&config).unwrap();
                peer.corrupt(corruption);
                let punished = peer.is_hung_up_on(Duration::from_secs(60)).unwrap();
                assert!(punished, "{corruption:?} over {transport:?}");
            }
        }
    }
}
