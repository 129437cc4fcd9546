//! What version 1.0 said, recorded with its own code before there was a 1.1, and never written anew. Both ends of today say
//! the same, byte for byte, where nobody asks for more; so each of them is understood by one of then.

use std::{fs, path::Path, sync::Arc};

use bellrope_proto::{
    BufferBudget, Failure,
    connection::{AnswerKind, ClientConnection, Inbound, ServerConnection, Terms, pair},
    frame::ErrorCode,
    handshake::{
        ANSWER_HEAD_LEN, AnswerHead, HELLO_LEN, HandshakeError, HandshakeStatus, Hello, Style, Transport, Welcome,
    },
    layout::{ASLEEP, EMPTY, Geometry, RECORDS},
};
use bellrope_shm::{SharedMemory, sync::Ordering};
use serde_json::Value;

use crate::bytes::hex;

pub(crate) fn replay() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/vectors/version_1_0.json");
    let recorded: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let bytes = |key: &str| unhex(recorded[key].as_str().unwrap());
    let welcome = handshake(&bytes("hello"), &bytes("answer"), &bytes("refusal_of_transport_1"));
    let said: Vec<_> = recorded["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| (record["from"].as_str().unwrap().to_owned(), record["bytes"].as_str().unwrap().to_owned()))
        .collect();
    // The same whether they could say more or not: nobody has anything to say.
    for could_say_more in [false, true] {
        assert_eq!(converse(welcome.terms, could_say_more), said);
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Reads what was said before the records, and says it again.
fn handshake(hello: &[u8], answer: &[u8], refusal: &[u8]) -> Welcome {
    let old = Hello::decode(hello.first_chunk::<HELLO_LEN>().unwrap()).unwrap();
    assert_eq!((old.features, old.transport), (0, Transport::Shm));
    let mut again = old.encode();
    again[10] = 0;
    assert_eq!(again, hello, "only the minor version differs");
    let read = |bytes: &[u8]| {
        let (head, body) = bytes.split_first_chunk::<ANSWER_HEAD_LEN>().unwrap();
        AnswerHead::decode(head)?.with_body(body)
    };
    let welcome = read(answer).unwrap();
    assert_eq!((welcome.features, welcome.types.len()), (0, 4));
    let mut again = welcome.encode();
    again[10] = 0;
    assert_eq!(again, answer);
    assert!(welcome.encode_pages().is_empty());
    let Err(HandshakeError::Refused { status, text }) = read(refusal) else { panic!("it refuses") };
    assert_eq!((status, &*text), (HandshakeStatus::Malformed, "transport 1 is not supported; 0 (shared memory) is"));
    welcome
}

/// Both ends, and what lies new in their rings.
struct Ends {
    memory: Arc<SharedMemory>,
    geometry: Geometry,
    client: ClientConnection,
    server: ServerConnection<Vec<u8>>,
    seen: [usize; 2],
    said: Vec<(String, String)>,
}

impl Ends {
    /// Commits, and notes the records that are new, without their padding.
    fn step(&mut self) {
        let _ = (self.client.commit(), self.server.commit());
        let rings = [("client", self.geometry.requests()), ("server", self.geometry.responses())];
        for ((from, ring), seen) in rings.into_iter().zip(&mut self.seen) {
            let view = self.memory.view(ring);
            loop {
                let word = view.load(RECORDS + *seen, Ordering::Acquire);
                if word == EMPTY || word == ASLEEP {
                    break;
                }
                let head = 16 + 8 * (word >> 56 & 1) as usize;
                let mut bytes = vec![0; head + word as u32 as usize];
                view.read(RECORDS + *seen, &mut bytes);
                self.said.push((from.to_owned(), hex(&bytes)));
                *seen += bytes.len().next_multiple_of(8);
            }
        }
    }

    /// The server takes the next call.
    fn take(&mut self, style: Style) -> (u64, Vec<u8>) {
        let server = &mut self.server;
        loop {
            match server.next_inbound().unwrap().expect("a call") {
                Inbound::Call(request) => {
                    let payload = if request.large {
                        server.take_large(&request).unwrap().0
                    } else {
                        let mut payload = vec![0; request.len];
                        server.take(&request, &mut payload);
                        payload
                    };
                    assert!(server.open(request.id, style).unwrap());
                    return (request.id, payload);
                }
                Inbound::Large(announced) => {
                    let reservation = BufferBudget::new(announced.size).reserve(announced.size).unwrap();
                    server.accept_large(&announced, vec![0; announced.size as usize], reservation);
                }
                _ => {}
            }
        }
    }

    /// The server takes the next chunk, if one came, and has it consumed.
    fn take_chunk(&mut self) {
        if let Some(Inbound::Chunk(chunk)) = self.server.next_inbound().unwrap() {
            self.server.take_chunk(&chunk, &mut vec![0; chunk.len]);
            self.server.consumed(chunk.id, chunk.len).unwrap();
        }
    }

    fn take_rest(&mut self) {
        while self.server.next_inbound().unwrap().is_some() {}
    }

    /// The client takes all answers, and consumes the chunks.
    fn answers(&mut self) {
        while let Some(answer) = self.client.next_answer().unwrap() {
            self.client.take(&answer, &mut vec![0; answer.len]);
            if answer.kind == AnswerKind::Chunk {
                self.client.consumed(answer.id, answer.len).unwrap();
            }
        }
    }

    fn begin(&mut self, message_type: u16, style: Style, payload: &[u8], deadline_us: Option<u64>) -> u64 {
        let id = self.client.submit(message_type, style, payload, deadline_us).unwrap();
        self.step();
        id
    }

    /// What was just sent is taken, and what that makes due is sent.
    fn settle(&mut self) {
        self.step();
        self.answers();
        self.step();
    }
}

/// The conversation that was recorded.
fn converse(terms: Terms, could_say_more: bool) -> Vec<(String, String)> {
    let memory = SharedMemory::anonymous(terms.geometry.mapping_len());
    let (mut client, mut server) = pair::<Vec<u8>>(&memory, terms);
    if could_say_more {
        (client, server) = (client.telling_metadata().hearing_types(), server.hearing_metadata());
    }
    let mut ends = Ends { memory, geometry: terms.geometry, client, server, seen: [0; 2], said: Vec::new() };
    unary(&mut ends);
    streams(&mut ends);
    large_and_cancelled(&mut ends);
    ends.said
}

fn unary(ends: &mut Ends) {
    ends.begin(1, Style::Unary, b"ding", None);
    let (id, payload) = ends.take(Style::Unary);
    ends.server.respond(id, Ok(payload)).unwrap();
    ends.settle();
    ends.begin(1, Style::Unary, b"", Some(9_000_000));
    let (id, _) = ends.take(Style::Unary);
    let failure = Failure { detail: 7, ..Failure::new(ErrorCode::Handler, "hoarse today") };
    ends.server.respond(id, Err(failure)).unwrap();
    ends.settle();
}

fn streams(ends: &mut Ends) {
    ends.begin(2, Style::ServerStream, b"3", None);
    let (id, _) = ends.take(Style::ServerStream);
    for number in 0..3 {
        ends.server.chunk(id, vec![number; 200]).unwrap();
        ends.settle();
        ends.take_rest();
    }
    ends.server.finish(id, Ok(())).unwrap();
    ends.settle();

    let upload = ends.begin(3, Style::ClientStream, b"", None);
    let (id, _) = ends.take(Style::ClientStream);
    for number in 0..3 {
        ends.client.send_chunk(upload, &[number; 200]).unwrap();
        ends.step();
        ends.take_chunk();
        ends.step();
        ends.answers();
    }
    ends.client.end_upload(upload).unwrap();
    ends.step();
    ends.take_rest();
    ends.server.respond(id, Ok(b"600".to_vec())).unwrap();
    ends.settle();

    let both = ends.begin(4, Style::Duplex, b"", None);
    let (id, _) = ends.take(Style::Duplex);
    ends.client.send_chunk(both, b"ding").unwrap();
    ends.step();
    ends.take_chunk();
    ends.server.chunk(id, b"dingding".to_vec()).unwrap();
    ends.settle();
    ends.client.end_upload(both).unwrap();
    ends.step();
    ends.take_rest();
    ends.server.finish(id, Ok(())).unwrap();
    ends.settle();
}

fn large_and_cancelled(ends: &mut Ends) {
    let large: Vec<u8> = (0..4500).map(|at| at as u8).collect();
    let mut sending = ends.client.begin_large(Style::Unary, large.len()).unwrap();
    while !ends.client.push_large(&mut sending, 1, &large, None).unwrap() {}
    ends.step();
    let (id, payload) = ends.take(Style::Unary);
    ends.server.respond(id, Ok(payload)).unwrap();
    ends.settle();
    let cancelled = ends.begin(1, Style::Unary, b"never", None);
    ends.take(Style::Unary);
    ends.client.cancel(cancelled).unwrap();
    ends.step();
    ends.take_rest();
    ends.settle();
}
