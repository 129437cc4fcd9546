//! Over transport 1: bytes that are no records, records that are wrong, and peers that read or write as they should not.

use std::io::ErrorKind;

use bellrope_proto::frame::{Header, Kind};
use bellrope_shm::SharedMemory;
use bellrope_testkit::raw_stream::{StreamPeer, record};

use super::{Attack, End::*, over_socket};

pub(super) const ATTACKS: &[Attack] = &[
    over_socket("zeros instead of a record", Closed("bad_header"), |peer| says(peer, &[0; 8])),
    over_socket("the mark of a sleeper instead of a record", Closed("bad_header"), |peer| says(peer, &[0xFF; 8])),
    over_socket("another protocol behind the handshake", Closed("bad_header"), |peer| {
        says(peer, &b"GET / HTTP/1.1\r\n".repeat(8));
    }),
    over_socket("a kind that does not exist", Closed("bad_header"), |peer| {
        says(peer, &header_word(0, 11).to_le_bytes());
    }),
    over_socket("a flag that does not exist", Closed("bad_header"), |peer| {
        says(peer, &(header_word(0, 2) | 1 << 57).to_le_bytes());
    }),
    over_socket("a pad, which leads nowhere here", Closed("bad_header"), |peer| {
        says(peer, &Header::pad().to_le_bytes());
    }),
    over_socket("a record longer than any", Closed("bad_length"), |peer| {
        let limit = peer.welcome.terms.geometry.max_payload() as usize;
        says(peer, &record(Kind::Request, 1, 1, None, &vec![0; limit + 1]));
    }),
    over_socket("a record of 4 GiB, of which the header comes", Closed("bad_length"), |peer| {
        says(peer, &header_word(u32::MAX, 2).to_le_bytes());
    }),
    over_socket("what only a server says last", Closed("bad_direction"), |peer| {
        peer.send(Kind::Admitted, 0, 0, Some(7), b"");
    }),
    over_socket("an answer", Closed("bad_direction"), |peer| peer.send(Kind::Response, 0, 1, None, b"ding")),
    over_socket("a cancel with a payload", Closed("bad_form"), |peer| peer.send(Kind::Cancel, 0, 1, None, b"x")),
    over_socket("a chunk without a number", Closed("bad_form"), |peer| peer.send(Kind::Chunk, 0, 1, None, b"x")),
    over_socket("a call by the name of another", Closed("duplicate_call"), |peer| {
        (0..2).for_each(|_| peer.call("never", 1, b""));
    }),
    over_socket("a chunk out of its order", Closed("bad_sequence"), |peer| {
        peer.call("total", 1, b"");
        peer.send(Kind::Chunk, 0, 1, Some(1), b"x");
    }),
    over_socket("chunks beyond their credit", Closed("credit_exceeded"), |peer| {
        peer.call("deaf", 1, b"");
        (0..4).for_each(|number| peer.send(Kind::Chunk, 0, 1, Some(number), &[7; 60_000]));
    }),
    over_socket("credit beyond a window", Closed("credit_overflow"), |peer| {
        peer.call("endless", 1, b"");
        peer.send(Kind::Credit, 0, 1, Some(1 << 40), b"");
    }),
    over_socket("parts of two messages at a time", Closed("interleaved"), |peer| {
        (1..3).for_each(|id| peer.send(Kind::Fragment, 0, id, Some(500_000), &[7; 1000]));
    }),
    over_socket("parts that are more than the whole", Closed("bad_size"), |peer| {
        (0..3).for_each(|_| peer.send(Kind::Fragment, 0, 1, Some(2000), &[7; 1000]));
    }),
    over_socket("a last part that is empty", Closed("bad_size"), |peer| {
        peer.send(Kind::Fragment, 0, 1, Some(2000), &[7; 1000]);
        peer.call("echo", 1, b"");
    }),
    over_socket("an end that counts other chunks than came", Closed("bad_sequence"), |peer| {
        peer.call("total", 1, b"");
        peer.send(Kind::Chunk, 0, 1, Some(0), b"x");
        peer.send(Kind::End, 0, 1, Some(2), b"");
    }),
    over_socket("changes of a table that is not the client's", Closed("bad_direction"), |peer| {
        peer.send(Kind::Types, 0, 0, Some(1), &[1, 0, 255, 0]);
    }),
    over_socket("a description that ends beyond its record", Closed("bad_metadata"), |peer| {
        peer.send(Kind::Described, peer.number("echo"), 1, None, &[200, 0, 1]);
    }),
    over_socket("descriptions whose entries are out of their order", Closed("bad_metadata"), |peer| {
        let block = [6, 0, 3, 1, b'a', 2, 1, b'b'];
        peer.send(Kind::Described, peer.number("echo"), 1, None, &block);
    }),
    over_socket("half a header and then silence", Evicted, |peer| says(peer, &header_word(4, 2).to_le_bytes()[..5])),
    over_socket("half a payload and then silence", Evicted, |peer| {
        says(peer, &record(Kind::Request, 1, 1, None, &[0; 50_000])[..40_000]);
    }),
    over_socket("records that come byte by byte", Served, |peer| {
        for _ in 0..3 {
            let message_type = peer.number("echo");
            record(Kind::Request, message_type, 9, None, b"ding").iter().for_each(|byte| says(peer, &[*byte]));
        }
    }),
    over_socket("a thousand records at once", Served, |peer| {
        let one = record(Kind::Request, peer.number("echo"), 9, None, b"ding");
        says(peer, &one.repeat(1000));
    }),
    over_socket("descriptors with every byte", Served, |peer| {
        let (_memory, handle) = SharedMemory::create(4096).unwrap();
        for byte in record(Kind::Request, peer.number("echo"), 9, None, b"ding") {
            assert_eq!(peer.socket.send_with_memory(&[byte], &handle).unwrap(), 1);
        }
    }),
    over_socket("cancels, credit, chunks and ends of nothing", Served, |peer| {
        for _ in 0..500 {
            peer.send(Kind::Cancel, 0, 5, None, b"");
            peer.send(Kind::Credit, 0, 5, Some(7), b"");
            peer.send(Kind::Chunk, 0, 5, Some(0), b"chunk");
            peer.send(Kind::End, 0, 5, Some(1), b"");
        }
    }),
    over_socket("streams that nobody reads", Evicted, |peer| {
        (1..21).for_each(|call| peer.call("endless", call, b""));
    }),
    over_socket("streams begun and taken back without end, and nothing read", Evicted, |peer| {
        let mut id = 0;
        until_hung_up(peer, |peer| {
            id += 1;
            let mut bytes = record(Kind::Request, peer.number("endless"), id, None, b"");
            bytes.extend(record(Kind::Cancel, 0, id, None, b""));
            bytes
        });
    }),
    over_socket("calls without end, and no answer read", Evicted, |peer| {
        until_hung_up(peer, |peer| record(Kind::Request, peer.number("echo"), 1, None, &[7; 10_000]));
    }),
    over_socket("a hang-up within a record", Seen, |peer| {
        says(peer, &record(Kind::Request, 1, 1, None, &[0; 100])[..50]);
        peer.socket.shutdown();
    }),
];

fn says(peer: &mut StreamPeer, bytes: &[u8]) {
    // Whether the server took all of it is its own affair.
    peer.say(bytes);
}

fn header_word(len: u32, kind: u8) -> u64 {
    u64::from(len) | u64::from(kind) << 48
}

/// Sends something without end and reads nothing.
fn until_hung_up(peer: &mut StreamPeer, mut next: impl FnMut(&StreamPeer) -> Vec<u8>) {
    peer.socket.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    loop {
        if bytes.is_empty() {
            bytes = next(peer);
        }
        match peer.socket.send(&bytes) {
            Ok(count) => drop(bytes.drain(..count)),
            // It is to go on for as long as the server bears it, and not to fill the processors.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            Err(_) => return peer.socket.set_nonblocking(false).unwrap(),
        }
    }
}
