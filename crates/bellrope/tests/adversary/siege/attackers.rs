//! What hostile connections do, each kind again and again. An attack ends when the server puts it out, or after a while.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bellrope_proto::{
    frame::Kind,
    handshake::{HELLO_LEN, Hello},
    layout::{CONSUMER_POSITION, RECORDS},
};
use bellrope_shm::{socket::Socket, sync::Ordering::Relaxed};
use bellrope_testkit::raw_stream::{StreamPeer, record};
use fastrand::Rng;

use crate::peer::Peer;

/// A kind of attack: its name, and one connection's life.
pub(super) type AttackKind = (&'static str, fn(&Path, &mut Rng));

pub(super) const KINDS: &[AttackKind] = &[
    ("silent handshake", |path, _| {
        let socket = connect(path);
        hold(|| is_gone(&socket));
    }),
    ("half a hello", |path, _| {
        let socket = connect(path);
        let _ = socket.send(&Hello::default().encode()[..HELLO_LEN / 2]);
        hold(|| is_gone(&socket));
    }),
    ("no hello at all", |path, rng| {
        let socket = connect(path);
        let mut bytes = [0; HELLO_LEN];
        rng.fill(&mut bytes);
        let _ = socket.send(&bytes);
        hold(|| is_gone(&socket));
    }),
    ("flapping", |path, rng| {
        for _ in 0..rng.u32(1..20) {
            let mut peer = peer(path);
            if rng.bool() {
                peer.is_served();
            }
        }
    }),
    ("a hang-up in the middle of calls", |path, _| {
        let mut peer = peer(path);
        (1..100).for_each(|id| peer.call("never", id, b"hang up"));
        peer.call("grow", 100, b"1000000");
    }),
    ("bad frames", |path, rng| {
        let mut peer = peer(path);
        match rng.u32(0..6) {
            0 => peer.commit_word(0xFF << 48),
            1 => peer.commit_word(u64::from(u32::MAX) | 2 << 48),
            2 => peer.responses.store(CONSUMER_POSITION, 1 << 40, Relaxed),
            3 => peer.send(Kind::Response, 0, 1, None, b"an answer"),
            4 => (0..2).for_each(|_| peer.call("never", 1, b"twice")),
            _ => (0..2).for_each(|_| peer.send(Kind::Fragment, 0, 1, Some(1_500), &[7; 1_000])),
        }
        hold(|| peer.is_hung_up());
    }),
    ("garbage in the rings", |path, rng| {
        let peer = peer(path);
        hold(|| {
            for _ in 0..16 {
                let view = if rng.bool() { &peer.requests } else { &peer.responses };
                view.store(RECORDS + 8 * rng.usize(0..512), rng.u64(..), Relaxed);
            }
            peer.socket.ring();
            peer.is_hung_up()
        });
    }),
    ("half a large message", |path, _| {
        let mut peer = peer(path);
        peer.send(Kind::Fragment, 0, 1, Some(10_000_000), &[7; 30_000]);
        hold(|| peer.is_hung_up());
    }),
    ("half a record over the socket", |path, _| {
        let mut peer = stream_peer(path);
        peer.say(&record(Kind::Request, 1, 1, None, &[0; 50_000])[..40_000]);
        hold(|| is_gone(&peer.socket));
    }),
    ("bad bytes over the socket", |path, rng| {
        let mut peer = stream_peer(path);
        let mut bytes = [0; 200];
        rng.fill(&mut bytes);
        peer.say(&bytes);
        hold(|| is_gone(&peer.socket));
    }),
    ("cancels without end", |path, _| {
        let mut peer = peer(path);
        hold(|| {
            (0..64).for_each(|id| peer.send(Kind::Cancel, 0, id, None, b""));
            peer.is_hung_up()
        });
    }),
    ("calls begun and taken back", |path, _| {
        let (mut peer, mut id) = (peer(path), 0);
        hold(|| {
            for _ in 0..16 {
                id += 1;
                peer.call("endless", id, b"");
                peer.send(Kind::Cancel, 0, id, None, b"");
            }
            peer.is_hung_up()
        });
    }),
    ("unread streams", |path, _| {
        let mut peer = peer(path);
        (1..200).for_each(|id| peer.call("endless", id, &[7; 1_000]));
        hold(|| peer.is_hung_up());
    }),
    ("unread streams over the socket", |path, _| {
        let mut peer = stream_peer(path);
        (1..50).for_each(|id| peer.call("endless", id, b""));
        let _ = peer.becomes_hung_up();
    }),
    ("large replies, unread", |path, _| {
        let mut peer = peer(path);
        (1..20).for_each(|id| peer.call("grow_later", id, b"2000000"));
        (20..40).for_each(|id| peer.call("grow", id, b"60000"));
        hold(|| peer.is_hung_up());
    }),
    ("errors, unread", |path, _| {
        let (mut peer, mut id) = (peer(path), 0);
        hold(|| {
            for _ in 0..16 {
                id += 1;
                peer.call("panic_later", id, b"");
            }
            peer.is_hung_up()
        });
    }),
    ("failing calls", |path, rng| {
        let (mut peer, mut id) = (peer(path), 0);
        hold(|| {
            id += 1;
            let name = ["fail", "panic", "broken", "refuse", "fail_with", "broken_stream"][rng.usize(0..6)];
            peer.call(name, id, b"");
            read(&mut peer);
            peer.is_hung_up()
        });
    }),
    ("deadlines that have passed", |path, _| {
        let (mut peer, mut id) = (peer(path), 0);
        let types = ["echo", "later", "count"].map(|name| peer.number(name));
        hold(|| {
            for message_type in types {
                id += 1;
                peer.send(Kind::Request, message_type, id, Some(1), b"20");
            }
            read(&mut peer);
            peer.is_hung_up()
        });
    }),
    ("types that do not exist", |path, rng| {
        let (mut peer, mut id) = (peer(path), 0);
        hold(|| {
            id += 1;
            peer.send(Kind::Request, rng.u16(500..), id, None, b"");
            read(&mut peer);
            peer.is_hung_up()
        });
    }),
    ("a thousand async calls at a time", |path, _| {
        let (mut peer, mut id) = (peer(path), 0);
        hold(|| {
            for _ in 0..100 {
                id += 1;
                peer.call("later", id, b"mine first");
            }
            read(&mut peer);
            peer.is_hung_up()
        });
    }),
    ("a flood of calls", |path, _| {
        let (mut peer, mut id) = (peer(path), 0);
        hold(|| {
            for _ in 0..200 {
                id += 1;
                peer.call("echo", id, &[7; 500]);
            }
            read(&mut peer);
            peer.is_hung_up()
        });
    }),
    ("empty chunks for whoever does not read", |path, _| {
        let (mut peer, mut number) = (peer(path), 0);
        peer.call("total", 1, b"");
        hold(|| {
            for _ in 0..32 {
                peer.send(Kind::Chunk, 0, 1, Some(number), b"");
                number += 1;
            }
            peer.is_hung_up()
        });
    }),
    ("calls that block, without end", |path, _| {
        let (mut peer, mut id) = (peer(path), 0);
        hold(|| {
            for _ in 0..100 {
                id += 1;
                peer.call("work", id, b"mine first");
            }
            read(&mut peer);
            peer.is_hung_up()
        });
    }),
    ("threads that wait for what never comes", |path, _| {
        let mut peer = peer(path);
        for id in 1..50 {
            peer.call("read", id, b"");
            peer.send(Kind::Chunk, 0, id, Some(0), b"half");
        }
        hold(|| peer.is_hung_up());
    }),
    ("a doorbell that is never still", |path, _| {
        let peer = peer(path);
        hold(|| {
            (0..100).for_each(|_| peer.socket.ring());
            peer.is_hung_up()
        });
    }),
    ("prompts that fill the budget, and never an answer", |path, _| {
        let mut peer = peer(path);
        (1..100).for_each(|id| peer.call("never", id, &[7; 60_000]));
        hold(|| peer.is_hung_up());
    }),
];

/// The longest life of an attack that the server bears.
const LONGEST: Duration = Duration::from_secs(3);

fn connect(path: &Path) -> Socket {
    Socket::connect(path).unwrap()
}

fn peer(path: &Path) -> Peer {
    Peer::try_to_connect(path).unwrap()
}

fn stream_peer(path: &Path) -> StreamPeer {
    StreamPeer::try_to_connect(path, "besieger").unwrap()
}

/// Takes what has come, so that an attack goes on.
fn read(peer: &mut Peer) {
    while peer.take_answer().is_some() {}
}

/// Whether the server has hung up on a socket. What else it says is thrown away.
fn is_gone(socket: &Socket) -> bool {
    socket.set_nonblocking(true).unwrap();
    let mut bytes = [0; 4096];
    match socket.receive(&mut bytes) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// Does something again and again until the server has had enough of it, or its time is over. It is to go on, and two hundred
/// of these are not to leave the processors to nobody.
fn hold(mut until: impl FnMut() -> bool) {
    let began = Instant::now();
    while began.elapsed() < LONGEST && !until() {
        std::thread::sleep(Duration::from_millis(5));
    }
}
