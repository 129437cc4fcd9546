use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::{
    BufferBudget, Failure, Style, Terms,
    connection::{AnswerKind, ClientConnection, Inbound, Loss, ServerConnection, SubmitError},
    frame::{ErrorCode, Header},
};

const GEOMETRY: Geometry = Geometry { capacity: 4096, window: 3840, compact: false };
const TERMS: Terms = Terms { geometry: GEOMETRY, max_message: 100_000, max_in_flight: 64, stream_window: 2048 };
/// With records that are longer than what any end reads ahead or gathers for one write.
const LONG_RECORDS: Terms = Terms {
    geometry: Geometry { capacity: 128 * 1024, window: 3840, compact: false },
    max_message: 300_000,
    max_in_flight: 64,
    stream_window: 2048,
};
/// Bytes that a socket of these tests takes.
const SOCKET: usize = 700;

/// A client and a server, and a stream of bytes each way that is cut anywhere.
struct Pair {
    client: ClientConnection,
    client_end: StreamEnd,
    server: ServerConnection<Vec<u8>>,
    server_end: StreamEnd,
    up: VecDeque<u8>,
    down: VecDeque<u8>,
    cut: usize,
}

impl Pair {
    fn new(cut: usize) -> Self {
        Self::with(TERMS, cut)
    }

    fn with(terms: Terms, cut: usize) -> Self {
        let geometry = terms.geometry;
        let ours = SharedMemory::anonymous(geometry.mapping_len());
        let theirs = SharedMemory::anonymous(geometry.mapping_len());
        let mut pair = Self {
            client: ClientConnection::new(&ours, terms),
            client_end: StreamEnd::of_client(&ours, geometry),
            server: ServerConnection::new(&theirs, terms),
            server_end: StreamEnd::of_server(&theirs, geometry),
            up: VecDeque::new(),
            down: VecDeque::new(),
            cut,
        };
        pair.carry();
        pair
    }

    /// Moves what can be moved. Ends wake each other by their commits, as they do where there are sockets.
    fn carry(&mut self) {
        let _ = (self.client.commit(), self.server.commit());
        loop {
            let moved = send(&mut self.client_end, &mut self.up, self.cut)
                | receive(&mut self.server_end, &mut self.up, self.cut).unwrap()
                | send(&mut self.server_end, &mut self.down, self.cut)
                | receive(&mut self.client_end, &mut self.down, self.cut).unwrap();
            if !moved {
                return;
            }
        }
    }

    fn submit(&mut self, payload: &[u8]) -> u64 {
        let id = self.client.submit(1, Style::Unary, payload, None).unwrap();
        self.carry();
        id
    }

    /// Sends a request of any size, and answers its id and the reply, which is to be the same.
    fn echo(&mut self, payload: &[u8], most: usize) -> (u64, Vec<u8>) {
        let id = if payload.len() > most {
            let mut sending = self.client.begin_large(Style::Unary, payload.len()).unwrap();
            while !self.client.push_large(&mut sending, 1, payload, None).unwrap() {
                self.carry();
                while self.serve() {}
                self.carry();
            }
            sending.id
        } else {
            self.submit(payload)
        };
        let mut reply = Vec::new();
        loop {
            self.carry();
            while self.serve() {}
            self.carry();
            if let Some((answered, kind)) = self.answer(&mut reply) {
                assert_eq!((answered, kind), (id, AnswerKind::Response));
                return (id, reply);
            }
        }
    }

    /// Takes the next request and answers it with its payload.
    fn serve(&mut self) -> bool {
        match self.server.next_inbound().unwrap() {
            Some(Inbound::Call(request)) if request.large => {
                let (payload, _reservation) = self.server.take_large(&request).unwrap();
                self.server.open(request.id, Style::Unary).unwrap();
                self.server.respond(request.id, Ok(payload)).unwrap();
            }
            Some(Inbound::Call(request)) => {
                let mut payload = vec![0; request.len];
                self.server.take(&request, &mut payload);
                self.server.open(request.id, Style::Unary).unwrap();
                self.server.respond(request.id, Ok(payload)).unwrap();
            }
            Some(Inbound::Large(announced)) => {
                let room = BufferBudget::new(1 << 20).reserve(announced.size).unwrap();
                self.server.accept_large(&announced, vec![0; announced.size as usize], room);
            }
            Some(_) => {}
            None => {
                self.server.flush().unwrap();
                return false;
            }
        }
        true
    }

    /// Takes answers, putting parts together, until one is whole.
    fn answer(&mut self, into: &mut Vec<u8>) -> Option<(u64, AnswerKind)> {
        while let Some(answer) = self.client.next_answer().unwrap() {
            into.resize(answer.at + answer.len, 0);
            self.client.take(&answer, &mut into[answer.at..]);
            if !matches!(answer.kind, AnswerKind::Part { .. }) {
                return Some((answer.id, answer.kind));
            }
        }
        None
    }

    /// What is known of these calls once the server is gone.
    fn losses<const N: usize>(&self, ids: [u64; N]) -> [Loss; N] {
        ids.map(|id| self.client.loss(id))
    }
}

fn send(end: &mut StreamEnd, socket: &mut VecDeque<u8>, cut: usize) -> bool {
    let mut scratch = Scratch::new();
    let bytes = end.outgoing(&mut scratch).unwrap();
    let count = bytes.len().min(cut).min(SOCKET - socket.len());
    socket.extend(&bytes[..count]);
    end.sent(count).unwrap();
    count > 0
}

fn receive(end: &mut StreamEnd, socket: &mut VecDeque<u8>, cut: usize) -> Result<bool, Violation> {
    if !end.put()? || socket.is_empty() {
        return Ok(false);
    }
    let mut scratch = Scratch::new();
    let space = end.space(&mut scratch);
    let count = socket.len().min(cut).min(space.len());
    socket.drain(..count).zip(space).for_each(|(byte, place)| *place = byte);
    end.came(&scratch, count)?;
    Ok(true)
}

/// What a server's end says to these bytes.
fn hear(bytes: &[u8]) -> Result<(), Violation> {
    let memory = SharedMemory::anonymous(GEOMETRY.mapping_len());
    hear_with(&mut StreamEnd::of_server(&memory, GEOMETRY), bytes)
}

fn hear_with(end: &mut StreamEnd, bytes: &[u8]) -> Result<(), Violation> {
    let mut bytes: VecDeque<u8> = bytes.iter().copied().collect();
    while receive(end, &mut bytes, usize::MAX)? {}
    Ok(())
}

fn record(kind: Kind, id: u64, extension: Option<u64>, payload: &[u8]) -> Vec<u8> {
    let header = Header { len: payload.len() as u32, message_type: 0, kind, extended: extension.is_some() };
    let mut bytes = header.encode().to_le_bytes().to_vec();
    bytes.extend(id.to_le_bytes());
    bytes.extend(extension.into_iter().flat_map(u64::to_le_bytes));
    bytes.extend(payload);
    bytes
}

proptest! {
    #[test]
    fn calls_of_every_size_come_whole_however_the_bytes_are_cut(
        cut in 1_usize..2000,
        sizes in prop::collection::vec(prop_oneof![0_usize..100, 900_usize..1100, 3000_usize..9000], 1..12),
    ) {
        let mut pair = Pair::new(cut);
        for size in sizes {
            let payload: Vec<u8> = (0..size).map(|n| n as u8).collect();
            prop_assert!(pair.echo(&payload, TERMS.max_record()).1 == payload);
        }
    }

    #[test]
    fn records_longer_than_any_buffer_come_whole_between_others_however_the_bytes_are_cut(
        cut in 1_usize..700,
        sizes in prop::collection::vec(prop_oneof![0_usize..100, 3900_usize..4200, 8000_usize..32_768, 40_000_usize..70_000], 1..8),
    ) {
        let mut pair = Pair::with(LONG_RECORDS, cut);
        for size in sizes {
            let payload: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            prop_assert!(pair.echo(&payload, LONG_RECORDS.max_record()).1 == payload);
        }
    }

    #[test]
    fn hostile_bytes_are_records_or_a_violation(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0_u8..12) {
        let mut bytes = bytes;
        if bytes.len() >= 8 {
            // Headers that get somewhere: short ones of known kinds.
            bytes[1..4].fill(0);
            (bytes[6], bytes[7]) = (kind, bytes[7] & 1);
        }
        let _ = hear(&bytes);
    }
}

// Faults 1, 7.
#[test]
fn what_no_record_may_be_is_refused_by_its_name() {
    let cases = [
        (vec![0; 8], "bad_header"),
        (vec![0xFF; 8], "bad_header"),
        (record(Kind::Pad, 0, None, b""), "bad_header"),
        (record(Kind::Admitted, 0, Some(0), b""), "bad_direction"),
        (record(Kind::Request, 1, None, &[0; 1025]), "bad_length"),
    ];
    for (bytes, name) in cases {
        assert_eq!(hear(&bytes).unwrap_err().name(), name);
        // It is known by its first word.
        assert_eq!(hear(&bytes[..8]).unwrap_err().name(), name);
        assert_eq!(hear(&bytes[..7]), Ok(()));
    }
    assert_eq!(hear(&record(Kind::Request, 1, Some(5), &[0; 1024])), Ok(()), "the longest there may be");
}

#[test]
fn a_server_that_does_not_take_calls_fills_its_ring_and_no_more() {
    let mut pair = Pair::new(usize::MAX);
    let mut sent = 0;
    while sent < 60 && pair.client.submit(1, Style::Unary, &[7; 1000], None).is_ok() {
        sent += 1;
        pair.carry();
    }
    let full = pair.client.submit(1, Style::Unary, &[7; 1000], None);
    assert_eq!(full, Err(SubmitError::Full));
    assert!(sent >= 6, "both rings are full, not less: {sent}");
    assert!(pair.up.len() > SOCKET / 2 && !pair.server_end.put().unwrap());
    let (mut served, mut reply) = (0, Vec::new());
    while served < sent {
        pair.serve();
        pair.carry();
        while pair.answer(&mut reply).is_some() {
            served += 1;
        }
        assert!(pair.server_end.woke() || served > 0, "what made room says so");
    }
    pair.carry();
    assert!(pair.submit(b"again") > 0);
}

#[test]
fn streams_keep_to_their_credit_and_a_cancel_ends_them() {
    let mut pair = Pair::new(13);
    let id = pair.client.submit(2, Style::Duplex, b"go", None).unwrap();
    pair.carry();
    let Some(Inbound::Call(request)) = pair.server.next_inbound().unwrap() else { panic!("no call") };
    pair.server.take(&request, &mut [0; 2]);
    assert!(pair.server.open(request.id, Style::Duplex).unwrap());
    let mut sent = 0;
    while pair.client.send_chunk(id, &[1; 200]).is_ok() {
        sent += 1;
        pair.carry();
    }
    assert!(pair.client.lacks_credit(id) && sent >= 2048 / 264, "{sent}");
    let mut taken = 0;
    while let Some(Inbound::Chunk(chunk)) = pair.server.next_inbound().unwrap() {
        pair.server.take_chunk(&chunk, &mut vec![0; chunk.len]);
        pair.server.consumed(id, chunk.len).unwrap();
        taken += 1;
        pair.carry();
    }
    assert_eq!(taken, sent);
    while pair.client.next_answer().unwrap().is_some_and(|answer| {
        pair.client.take(&answer, &mut []);
        true
    }) {}
    assert!(!pair.client.lacks_credit(id), "credit came back");
    assert!(pair.client.cancel(id).unwrap());
    pair.carry();
    assert_eq!(pair.server.next_inbound().unwrap(), Some(Inbound::Cancelled(id)));
}

#[test]
fn a_caller_that_leaves_is_told_from_one_that_wants_nothing_where_both_ends_know_the_difference() {
    let left = |tells: bool, hears: bool| {
        let mut pair = Pair::new(13);
        if tells {
            pair.client = pair.client.telling_leaving();
        }
        if hears {
            pair.server = pair.server.hearing_leaving();
        }
        let id = pair.client.submit(2, Style::Duplex, b"go", None).unwrap();
        pair.carry();
        let Some(Inbound::Call(request)) = pair.server.next_inbound().unwrap() else { panic!("no call") };
        pair.server.take(&request, &mut [0; 2]);
        assert!(pair.server.open(request.id, Style::Duplex).unwrap());
        assert!(pair.client.leave(id).unwrap() && !pair.client.leave(id).unwrap());
        pair.carry();
        (id, pair.server.next_inbound())
    };
    let (id, came) = left(true, true);
    assert_eq!(came, Ok(Some(Inbound::Left(id))));
    for hears in [false, true] {
        let (id, came) = left(false, hears);
        assert_eq!(came, Ok(Some(Inbound::Cancelled(id))), "an older client, or an older server");
    }
    assert!(matches!(left(true, false).1, Err(Violation::Form(_))), "nobody has asked for that");
}

// Fault 34.
#[test]
fn a_client_that_sends_on_and_on_and_reads_nothing_has_no_more_beside_the_rings_than_may_be_read_ahead() {
    let mut pair = Pair::with(LONG_RECORDS, usize::MAX);
    let small = Terms { geometry: LONG_RECORDS.geometry, ..TERMS };
    let mut kept = 0;
    for size in [LONG_RECORDS.max_record(), 10, 0, 700] {
        // It takes nothing: its ring and what may be read ahead are full.
        while pair.client.submit(1, Style::Unary, &vec![7; size], None).is_ok() {
            pair.carry();
            kept = kept.max(pair.server_end.inlet.kept());
            if pair.client.in_flight() == small.max_in_flight as usize - 1 {
                break;
            }
        }
    }
    let bytes = [record(Kind::Request, 1, None, &[5; 32_768]), record(Kind::Request, 1, None, &[5; 9])].concat();
    let mut end = StreamEnd::of_server(&SharedMemory::anonymous(small.geometry.mapping_len()), small.geometry);
    let mut socket: VecDeque<_> = bytes.iter().copied().cycle().take(20 * bytes.len()).collect();
    while receive(&mut end, &mut socket, usize::MAX).unwrap() {
        kept = kept.max(end.inlet.kept());
    }
    assert!((READ_AHEAD / 2..=READ_AHEAD).contains(&kept), "{kept}");
}

// Faults 34, 37.
#[test]
fn half_a_record_is_unfinished_and_half_an_answer_unsent() {
    let mut pair = Pair::with(LONG_RECORDS, usize::MAX);
    let bytes = record(Kind::Request, 1, None, &[5; 20_000]);
    let (half, rest) = bytes.split_at(10_000);
    hear_with(&mut pair.server_end, half).unwrap();
    assert_eq!((pair.server_end.unfinished(), pair.server_end.inlet.kept()), (Some(10_000), 0), "it is in the ring");
    assert_eq!(pair.server.next_inbound().unwrap(), None, "where nobody can see it yet");
    hear_with(&mut pair.server_end, rest).unwrap();
    assert_eq!(pair.server_end.unfinished(), None);
    assert!(pair.serve());
    let _ = pair.server.commit();
    let mut scratch = Scratch::new();
    for _ in 0..bytes.len() {
        assert!(pair.server_end.has_unsent(), "a last word would come in the midst of it");
        assert!(!pair.server_end.outgoing(&mut scratch).unwrap().is_empty());
        pair.server_end.sent(1).unwrap();
    }
    assert!(!pair.server_end.has_unsent());
}

// Fault 37.
#[test]
fn of_a_killed_server_only_what_was_not_sent_is_known_not_to_have_run() {
    let mut pair = Pair::new(usize::MAX);
    let sent = pair.submit(b"sent");
    let waiting = pair.client.submit(1, Style::Unary, b"in the ring", None).unwrap();
    let _ = pair.client.commit();
    assert_eq!(pair.losses([sent, waiting]), [Loss::Unknown, Loss::NotExecuted]);
    // Half of it is no request yet.
    let mut scratch = Scratch::new();
    let half = pair.client_end.outgoing(&mut scratch).unwrap().len() / 2;
    pair.client_end.sent(half).unwrap();
    assert_eq!(pair.losses([waiting]), [Loss::NotExecuted]);
    let rest = pair.client_end.outgoing(&mut scratch).unwrap().len();
    pair.client_end.sent(rest).unwrap();
    assert_eq!(pair.losses([waiting]), [Loss::Unknown]);
}

// Fault 37.
#[test]
fn a_server_that_ends_the_connection_says_how_many_requests_it_took() {
    let mut pair = Pair::new(usize::MAX);
    let ids = [0; 3].map(|_| pair.submit(b"ding"));
    assert!(pair.serve());
    let Some(Inbound::Call(second)) = pair.server.next_inbound().unwrap() else { panic!("no call") };
    pair.server.take(&second, &mut [0; 4]);
    let _ = pair.server.commit();
    pair.carry();
    let untaken = pair.server.untaken_requests();
    assert_eq!((pair.server_end.requests(), untaken), (3, 1));
    pair.down.extend(StreamEnd::last_words(3 - untaken));
    pair.carry();
    let mut reply = Vec::new();
    assert_eq!(pair.answer(&mut reply), Some((ids[0], AnswerKind::Response)));
    assert_eq!(pair.losses([ids[1], ids[2]]), [Loss::Unknown, Loss::NotExecuted]);
    // It was the last that such a server says.
    let more = record(Kind::Error, 1, None, b"");
    assert_eq!(hear_with(&mut pair.client_end, &more), Err(Violation::Form(Kind::Error as u8)));
}

// Fault 37.
#[test]
fn what_cannot_be_so_of_admitted_requests_is_a_violation() {
    for (bytes, count) in [
        (record(Kind::Admitted, 0, None, b""), 0),
        (record(Kind::Admitted, 1, Some(0), b""), 0),
        (record(Kind::Admitted, 0, Some(0), b"x"), 0),
        (record(Kind::Admitted, 0, Some(3), b""), 2),
    ] {
        let mut pair = Pair::new(usize::MAX);
        for _ in 0..count {
            pair.submit(b"ding");
        }
        assert_eq!(hear_with(&mut pair.client_end, &bytes), Err(Violation::Form(Kind::Admitted as u8)));
    }
}

// Fault 37.
#[test]
fn of_requests_so_long_ago_that_nobody_remembers_them_nothing_is_claimed() {
    let memory = SharedMemory::anonymous(GEOMETRY.mapping_len());
    let view = memory.view(GEOMETRY.requests());
    let mut admission = Admission::new(view.clone());
    for number in 1..5000 {
        admission.sent(number * 16);
    }
    let admitted = || crate::ring::admitted(&view);
    assert_eq!(admitted(), 4999 * 16);
    for (taken, last_taken) in
        [(4999, 4999 * 16), (4990, 4990 * 16), (904, 904 * 16), (903, 904 * 16 - 1), (0, 904 * 16 - 1)]
    {
        admission.settle(taken).unwrap();
        assert_eq!(admitted(), last_taken, "{taken} were taken");
    }
    assert!(admission.settle(5000).is_err(), "more than were sent whole");
}

#[test]
fn a_failure_travels_with_its_detail() {
    let mut pair = Pair::new(3);
    let id = pair.submit(b"ding");
    let Some(Inbound::Call(request)) = pair.server.next_inbound().unwrap() else { panic!("no call") };
    pair.server.take(&request, &mut [0; 4]);
    let failure = Failure { detail: 7, ..Failure::new(ErrorCode::Handler, "no") };
    pair.server.fail(id, failure).unwrap();
    pair.carry();
    let mut text = Vec::new();
    let kind = AnswerKind::Error { code: ErrorCode::Handler, detail: 7 };
    assert_eq!((pair.answer(&mut text), &text[..]), (Some((id, kind)), &b"no"[..]));
    for end in [&pair.client_end, &pair.server_end] {
        assert!(end.unfinished().is_none() && !end.has_unsent());
    }
}
