//! Records, words and pages of the shared memory.

use bellrope_proto::{
    frame::{Header, Kind},
    layout::{ADMITTED, ASLEEP, AWAITED, CONSUMER_POSITION, EMPTY, RECORDS},
};
use bellrope_shm::sync::Ordering::{AcqRel, Relaxed, Release};
use bellrope_testkit::support::eventually;
use fastrand::Rng;

use super::{Attack, End::*, attack, peer};
use crate::{field::Field, peer::Peer};

pub(super) const ATTACKS: &[Attack] = &[
    attack("a kind of record that does not exist", Closed("bad_header"), |field| word(field, 0x00AA_0001_0000_0008)),
    attack("flags that do not exist", Closed("bad_header"), |field| word(field, 0x8002_0001_0000_0008)),
    attack("a pad with a length", Closed("bad_header"), |field| word(field, Header::pad() | 8)),
    attack("a pad at the start of the ring", Closed("bad_pad"), |field| word(field, Header::pad())),
    attack("a record longer than any may be", Closed("bad_length"), |field| {
        header(field, 1 << 20, Kind::Request, false)
    }),
    attack("the longest length there is", Closed("bad_length"), |field| header(field, u32::MAX, Kind::Request, true)),
    attack("a record across the end of the ring", Closed("bad_length"), |field| {
        peer(field, |peer| {
            (0..4).for_each(|call| peer.call("echo", call, &[1; 60_000]));
            peer.commit_word(Header { len: 30_000, message_type: 1, kind: Kind::Request, extended: false }.encode());
        })
    }),
    attack("an answer, from a client", Closed("bad_direction"), |field| header(field, 0, Kind::Response, false)),
    attack("an error, from a client", Closed("bad_direction"), |field| header(field, 0, Kind::Error, true)),
    attack("a cancel with a payload", Closed("bad_form"), |field| header(field, 8, Kind::Cancel, false)),
    attack("credit without an amount", Closed("bad_form"), |field| header(field, 0, Kind::Credit, false)),
    attack("an end without a number", Closed("bad_form"), |field| header(field, 0, Kind::End, false)),
    attack("a part that does not say of how much", Closed("bad_form"), |field| header(field, 8, Kind::Fragment, false)),
    attack("a part of nothing", Closed("bad_form"), |field| header(field, 0, Kind::Fragment, true)),
    attack("a position far ahead of all answers", Closed("bad_position"), |field| lie(field, 1 << 40)),
    attack("a position between two words", Closed("bad_position"), |field| lie(field, 3)),
    attack("a position that goes back", Closed("bad_position"), |field| {
        peer(field, |peer| {
            // With the second lot the server looks, and believes where we are.
            for _ in 0..2 {
                ask(peer);
                (0..ASKED).for_each(|call| assert_eq!(peer.answer_to(call).payload, [7; 64]));
            }
            peer.responses.store(CONSUMER_POSITION, 8, Release);
            (0..2).for_each(|_| ask(peer));
        })
    }),
    attack("the server's own words, overwritten", Served, |field| {
        peer(field, |peer| {
            let mut rng = Rng::with_seed(3);
            for _ in 0..200 {
                peer.requests.store(ADMITTED, rng.u64(..), Relaxed);
                // The peer itself believes what is there, so it must not be too much.
                peer.requests.store(CONSUMER_POSITION, rng.u64(0..64) * 8, Relaxed);
                peer.is_served();
            }
        })
    }),
    attack("the ring of answers, scribbled over", Seen, |field| {
        peer(field, |peer| {
            let mut rng = Rng::with_seed(5);
            for call in 0..200 {
                for _ in 0..20 {
                    peer.responses.store(RECORDS + 8 * rng.usize(0..4096), rng.u64(..), Relaxed);
                }
                peer.call("echo", call, &[7; 64]);
            }
            assert!(!peer.is_hung_up(), "the server does not read what it has written");
        })
    }),
    attack("the mark of a sleeper, forged for every answer", Served, |field| {
        peer(field, |peer| {
            for _ in 0..500 {
                let at = peer.next_answer_at();
                let _ = peer.responses.compare_exchange(at, EMPTY, ASLEEP, AcqRel, Relaxed);
                peer.is_served();
            }
        })
    }),
    attack("the mark of one who waits for room, forged", Served, |field| {
        peer(field, |peer| {
            for _ in 0..200 {
                let position = peer.requests.load(CONSUMER_POSITION, Relaxed);
                let _ =
                    peer.requests.compare_exchange(CONSUMER_POSITION, position, position | AWAITED, AcqRel, Relaxed);
                peer.is_served();
            }
        })
    }),
    attack("a socket that is left full", Served, |field| {
        peer(field, |peer| {
            // The server rings for each answer, and nobody ever takes a ring.
            for _ in 0..2_000 {
                let at = peer.next_answer_at();
                let _ = peer.responses.compare_exchange(at, EMPTY, ASLEEP, AcqRel, Relaxed);
                peer.is_served();
            }
        })
    }),
    attack("a doorbell that never rests", Closed("doorbell_flood"), |field| {
        peer(field, |peer| {
            // Until the server has had enough; it may sleep in between, and then a ring is its due.
            for _ in 0..2_000_000 {
                peer.socket.ring();
                if peer.is_hung_up() {
                    break;
                }
            }
        })
    }),
    attack("a ring that feeds the server for ever", Seen, |field| {
        peer(field, |peer| {
            let capacity = peer.welcome.terms.geometry.capacity as usize;
            let cancel = Header { len: 0, message_type: 0, kind: Kind::Cancel, extended: false }.encode();
            for at in (16..capacity - 8).step_by(16) {
                peer.requests.store(RECORDS + at, cancel, Relaxed);
            }
            peer.requests.store(RECORDS + capacity - 16, Header::pad(), Relaxed);
            peer.commit_word(cancel);
            let before = field.counts().total_requests();
            eventually("others are served meanwhile", || field.counts().total_requests() > before + 200);
            assert!(!peer.is_hung_up());
        })
    }),
    attack("holes punched under a stream", Seen, |field| {
        peer(field, |peer| {
            peer.call("endless", 1, b"");
            for call in 2..200 {
                peer.requests.punch_pages(0);
                peer.responses.punch_pages(0);
                peer.commit_word(Header { len: 8, message_type: 1, kind: Kind::Request, extended: false }.encode());
                peer.requests.store(peer.front() + 8, call, Relaxed);
            }
        })
    }),
    attack("the memory unmapped, and the socket kept", Seen, |field| {
        let Peer { socket, .. } = Peer::connect(&field.path);
        let before = field.counts().total_requests();
        eventually("others are served meanwhile", || field.counts().total_requests() > before + 200);
        socket.ring();
        None
    }),
    attack("a request that nobody rings for", Seen, |field| {
        peer(field, |peer| {
            let request = Header { len: 0, message_type: peer.number("echo"), kind: Kind::Request, extended: false };
            peer.requests.store(peer.front(), request.encode(), Release);
            assert!(!peer.is_hung_up());
        })
    }),
];

/// Calls that are enough to make the server look where we have read to.
const ASKED: u64 = 60;

/// Commits this word as the header of the first record.
fn word(field: &Field, word: u64) -> Option<Peer> {
    peer(field, |peer| peer.commit_word(word))
}

fn header(field: &Field, len: u32, kind: Kind, extended: bool) -> Option<Peer> {
    let message_type = u16::from(kind == Kind::Request);
    word(field, Header { len, message_type, kind, extended }.encode())
}

fn ask(peer: &mut Peer) {
    (0..ASKED).for_each(|call| peer.call("echo", call, &[7; 64]));
}

/// Gives the server a reason to look where we have read to, and a lie.
fn lie(field: &Field, position: u64) -> Option<Peer> {
    peer(field, |peer| {
        peer.responses.store(CONSUMER_POSITION, position, Release);
        ask(peer);
    })
}
