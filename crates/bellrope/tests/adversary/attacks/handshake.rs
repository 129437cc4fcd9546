//! Before there is a connection.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use bellrope_proto::handshake::{ANSWER_HEAD_LEN, AnswerHead, HELLO_LEN, Hello, Transport};
use bellrope_shm::{SharedMemory, socket::Socket};
use bellrope_testkit::{
    raw,
    support::{PATIENCE, eventually},
};

use super::{Attack, End::*, attack, peer};
use crate::{
    field::{Field, HANDSHAKE_TIMEOUT_MS, Holdings, MAX_CONNECTIONS, MAX_HALF_OPEN},
    peer::Peer,
};

pub(super) const ATTACKS: &[Attack] = &[
    attack("garbage instead of a hello", Refused, |field| {
        refused(field, &[0xA5; HELLO_LEN], "does not speak Bellrope")
    }),
    attack("another protocol", Refused, |field| {
        refused(field, &b"GET / HTTP/1.1\r\n".repeat(8), "does not speak Bellrope")
    }),
    attack("one wrong bit in the magic", Refused, |field| changed(field, 7, b'E' ^ 1, "does not speak Bellrope")),
    attack("a version of the future", Refused, |field| {
        changed(field, 8, 7, "this server speaks version 1.1, the client 7.1")
    }),
    attack("a transport that is not there", Refused, |field| changed(field, 12, 9, "transport 9 is not supported")),
    attack("descriptors with a hello for the socket alone", Seen, |field| {
        let (_memory, fd) = SharedMemory::create(4096).unwrap();
        let socket = connect(field);
        let hello = Hello { transport: Transport::Stream, ..Hello::default() }.encode();
        for byte in hello {
            assert_eq!(socket.send_with_memory(&[byte], &fd).unwrap(), 1);
        }
        let mut answer = [0; ANSWER_HEAD_LEN];
        let (count, memory) = socket.receive_with_memory(&mut answer).unwrap();
        assert!(count == ANSWER_HEAD_LEN && memory.is_none(), "nothing is shared that was not asked for");
        None
    }),
    attack("a name longer than the hello", Refused, |field| changed(field, 14, 255, "name_len")),
    attack("half a hello and then silence", Refused, |field| {
        refused(field, &hello("")[..HELLO_LEN / 2], &no_hello_in_time())
    }),
    attack("a hang-up within the hello", Seen, |field| {
        drop(say(field, &hello("")[..HELLO_LEN / 2]));
        None
    }),
    attack("a hang-up right after the hello", Seen, |field| {
        drop(say(field, &hello("")));
        None
    }),
    attack("a hello that comes byte by byte", Served, |field| {
        let socket = connect(field);
        hello("").iter().for_each(|byte| assert_eq!(socket.send(&[*byte]).unwrap(), 1));
        let (memory, welcome) = raw::be_welcomed(&socket).unwrap();
        Some(Peer::over(socket, memory, welcome))
    }),
    attack("a class of service that does not exist", Served, |field| {
        let mut hello = hello("");
        hello[13] = 200;
        Some(welcomed(field, &hello))
    }),
    attack("descriptors with every byte of the hello", Served, descriptors),
    attack("a name that steers terminals and begins lines", Closed("bad_header"), |field| {
        let peer = welcomed(field, &hello("\x1b[2J\nERROR forged=\"yes\""));
        peer.commit_word(0x00FF_0000_0000_0001);
        Some(peer)
    }),
    attack("thousands of bytes behind the hello", Closed("doorbell_flood"), |field| {
        Some(welcomed(field, &[&hello("")[..], &[1; 4096]].concat()))
    }),
    attack("handshakes without end that say nothing", Seen, half_open),
    attack("connections without end", Seen, bomb),
    attack("a connection that does nothing at all", Served, |field| peer(field, |_| {})),
];

fn hello(name: &str) -> [u8; HELLO_LEN] {
    Hello { features: u64::MAX, name: name.into(), ..Hello::default() }.encode()
}

fn no_hello_in_time() -> String {
    format!("no hello came within {HANDSHAKE_TIMEOUT_MS} ms")
}

fn connect(field: &Field) -> Socket {
    let socket = Socket::connect(&field.path).unwrap();
    socket.set_nonblocking(false).unwrap();
    socket
}

fn say(field: &Field, bytes: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(&field.path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

fn welcomed(field: &Field, hello: &[u8]) -> Peer {
    let socket = connect(field);
    socket.send(hello).unwrap();
    let (memory, welcome) = raw::be_welcomed(&socket).unwrap();
    Peer::over(socket, memory, welcome)
}

fn refused(field: &Field, bytes: &[u8], words: &str) -> Option<Peer> {
    let said = refusal(say(field, bytes));
    assert!(said.contains(words), "{said}");
    None
}

fn changed(field: &Field, at: usize, value: u8, words: &str) -> Option<Peer> {
    let mut hello = hello("");
    hello[at] = value;
    refused(field, &hello, words)
}

/// What the server says before it hangs up.
fn refusal(mut stream: UnixStream) -> String {
    let mut answer = Vec::new();
    // What lies unread when the server hangs up may come back as an error after its answer.
    let _ = stream.read_to_end(&mut answer);
    let (head, body) = answer.split_first_chunk::<ANSWER_HEAD_LEN>().expect("an answer with a head");
    AnswerHead::decode(head).unwrap().with_body(body).unwrap_err().to_string()
}

/// What is not received at all takes no room here either.
fn descriptors(field: &Field) -> Option<Peer> {
    let (_memory, fd) = SharedMemory::create(4096).unwrap();
    let before = Holdings::count();
    let socket = connect(field);
    for byte in hello("") {
        assert_eq!(socket.send_with_memory(&[byte], &fd).unwrap(), 1);
    }
    let (memory, welcome) = raw::be_welcomed(&socket).unwrap();
    let peer = Peer::over(socket, memory, welcome);
    // One with a ring, too.
    peer.socket.send_with_memory(&[1], &fd).unwrap();
    // Our socket and the server's, and a mapping on each side.
    eventually("the server has kept none of them", || Holdings::count() == before.and(2, 2));
    Some(peer)
}

fn half_open(field: &Field) -> Option<Peer> {
    let begun: Vec<_> = (0..2 * MAX_HALF_OPEN).map(|_| say(field, &hello("")[..10])).collect();
    let told: Vec<_> = begun.into_iter().map(refusal).collect();
    let over = told.iter().filter(|text| text.contains("handshakes are under way, the limit max_half_open")).count();
    let late = told.iter().filter(|text| text.contains(&no_hello_in_time())).count();
    assert!(over > 0 && late >= MAX_HALF_OPEN as usize && over + late == told.len(), "{told:?}");
    None
}

fn bomb(field: &Field) -> Option<Peer> {
    let mut held = Vec::new();
    let error = loop {
        assert!(held.len() <= MAX_CONNECTIONS as usize, "nobody stops us");
        let mut stream = say(field, &hello(""));
        let mut head = [0; ANSWER_HEAD_LEN];
        stream.read_exact(&mut head).unwrap();
        let head = AnswerHead::decode(&head).unwrap();
        let mut body = vec![0; head.body_len()];
        stream.read_exact(&mut body).unwrap();
        match head.with_body(&body) {
            Ok(_) => held.push(stream),
            Err(error) => break error.to_string(),
        }
    };
    let told = format!("{MAX_CONNECTIONS} connections are open, the limit max_connections");
    assert!(error.contains(&told), "{error}");
    None
}
