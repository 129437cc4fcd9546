//! Calls, streams and messages in parts.

use bellrope_proto::frame::{ErrorCode, Kind};
use bellrope_testkit::support::eventually;

use super::{Attack, End::*, attack, peer};
use crate::{
    field::{Field, MAX_IN_FLIGHT},
    peer::Peer,
};

pub(super) const ATTACKS: &[Attack] = &[
    attack("an id that is in use", Closed("duplicate_call"), |field| {
        peer(field, |peer| (0..2).for_each(|_| peer.call("never", 1, b"")))
    }),
    attack("ids that are in use, for calls that are answered at once", Served, |field| {
        peer(field, |peer| answered_at_once(field, peer))
    }),
    attack("cancels of calls of others, and of none", Served, |field| {
        peer(field, |peer| (0..300).for_each(|id| peer.send(Kind::Cancel, 0, id, None, b"")))
    }),
    attack("credit for streams of others, and of none", Served, |field| {
        peer(field, |peer| (0..300).for_each(|id| peer.send(Kind::Credit, 0, id, Some(u64::MAX), b"")))
    }),
    attack("chunks and ends for calls of others, and of none", Served, |field| {
        peer(field, |peer| {
            for id in 0..300 {
                peer.send(Kind::Chunk, 0, id, Some(0), b"chunk");
                peer.send(Kind::End, 0, id, Some(1), b"");
            }
        })
    }),
    attack("all the credit in the world", Closed("credit_overflow"), |field| credit(field, u64::MAX)),
    attack("as much credit as a signed word holds", Closed("credit_overflow"), |field| credit(field, i64::MAX as u64)),
    attack("a chunk before its turn", Closed("bad_sequence"), |field| upload(field, |peer| chunk(peer, 5, 10))),
    attack("the same chunk twice", Closed("bad_sequence"), |field| {
        upload(field, |peer| (0..2).for_each(|_| chunk(peer, 0, 10)))
    }),
    attack("an end that counts wrong", Closed("bad_sequence"), |field| {
        upload(field, |peer| peer.send(Kind::End, 0, 1, Some(3), b""))
    }),
    attack("large chunks beyond the credit", Closed("credit_exceeded"), |field| {
        upload(field, |peer| (0..6).for_each(|number| chunk(peer, number, 16_384)))
    }),
    attack("empty chunks beyond the credit", Closed("credit_exceeded"), |field| {
        upload(field, |peer| (0..1_100).for_each(|number| chunk(peer, number, 0)))
    }),
    attack("an id used again at once, while its stream is being read", Served, |field| {
        peer(field, |peer| {
            for _ in 0..300 {
                peer.call("total", 7, b"");
                (0..3).for_each(|number| peer.send(Kind::Chunk, 0, 7, Some(number), &[7; 16_000]));
                peer.send(Kind::Cancel, 0, 7, None, b"");
            }
        })
    }),
    attack("parts of two messages at a time", Closed("interleaved"), |field| {
        peer(field, |peer| (1..3).for_each(|id| part(peer, id, 100_000, 1_000)))
    }),
    attack("more parts than the message has", Closed("bad_size"), |field| {
        peer(field, |peer| (0..2).for_each(|_| part(peer, 1, 1_500, 1_000)))
    }),
    attack("a message that grows on its way", Closed("bad_size"), |field| {
        peer(field, |peer| (1..3).for_each(|times| part(peer, 1, times * 100_000, 1_000)))
    }),
    attack("a last part that does not add up", Closed("bad_size"), |field| {
        peer(field, |peer| {
            part(peer, 1, 5_000, 1_000);
            peer.call("echo", 1, b"short");
        })
    }),
    attack("a message of nothing, in parts", Closed("bad_size"), |field| peer(field, |peer| part(peer, 1, 0, 10))),
    attack("a message larger than any memory", Served, |field| {
        peer(field, |peer| {
            part(peer, 1, u64::MAX, 1_000);
            let answer = peer.answer_to(1);
            assert_eq!(ErrorCode::from_bits(answer.header.message_type), ErrorCode::MessageTooLarge);
            peer.send(Kind::Cancel, 0, 1, None, b"");
        })
    }),
    attack("a large message, taken back half way, again and again", Served, |field| {
        peer(field, |peer| {
            for id in 1..100 {
                (0..3).for_each(|_| part(peer, id, 1_000_000, 30_000));
                peer.send(Kind::Cancel, 0, id, None, b"");
            }
        })
    }),
    attack("a large message that is never finished", Evicted, |field| {
        peer(field, |peer| (0..2).for_each(|_| part(peer, 1, 1_000_000, 30_000)))
    }),
    attack("several of the largest messages, and then a hang-up", Seen, |field| {
        let mut peers: Vec<_> = (0..3).map(|_| Peer::connect(&field.path)).collect();
        peers.iter_mut().for_each(|peer| part(peer, 1, 10 << 20, 30_000));
        eventually("memory is reserved for them", || field.buffered() >= 30 << 20);
        drop(peers);
        eventually("it is given back", || field.buffered() < 10 << 20);
        None
    }),
    attack("answers that nobody reads", Evicted, |field| {
        peer(field, |peer| (0..16).for_each(|call| peer.call("grow", call, b"60000")))
    }),
    attack("a stream that nobody reads, and a hang-up", Seen, |field| {
        let dropped = field.dropped();
        peer(field, |peer| (1..11).for_each(|call| peer.call("endless", call, b"")));
        eventually("its handlers are dropped", || field.dropped() == dropped + 10);
        None
    }),
    attack("a hang-up in the middle of many calls", Seen, |field| {
        let dropped = field.dropped();
        let peer = peer(field, |peer| (1..41).for_each(|call| peer.call("never", call, b""))).unwrap();
        eventually("they are under way", || {
            field.counts().types.iter().any(|row| row.name == "never" && row.running >= 40)
        });
        drop(peer);
        eventually("their handlers are dropped", || field.dropped() == dropped + 40);
        None
    }),
    attack("a hang-up while a large answer is on its way", Seen, |field| {
        peer(field, |peer| peer.call("grow", 1, b"5000000"));
        None
    }),
    attack("half a connection closed in the middle of a call", Seen, |field| {
        let peer = peer(field, |peer| peer.call("never", 1, b"")).unwrap();
        peer.socket.shutdown();
        None
    }),
];

/// After which the server leaves out lines about this process.
pub(super) const LOUD_ATTACKS: &[Attack] = &[
    attack("deadlines that make no sense", Served, |field| {
        peer(field, |peer| {
            for (id, deadline) in (1..).zip([0, 1, i64::MAX as u64, u64::MAX - 1, u64::MAX]) {
                for (number, name) in (0..).zip(["echo", "later", "total"]) {
                    let id = id * 10 + number;
                    peer.send(Kind::Request, peer.number(name), id, Some(deadline), b"in time?");
                    if name == "total" {
                        peer.send(Kind::End, 0, id, Some(0), b"");
                    }
                    let answer = peer.answer_to(id);
                    let late = answer.header.kind == Kind::Error;
                    assert_eq!(late, deadline < 2, "{name} until {deadline}: {answer:?}");
                }
            }
        })
    }),
    attack("more calls at once than there may be", Served, |field| {
        peer(field, |peer| {
            let refused = MAX_IN_FLIGHT + 36;
            (0..u64::from(refused)).for_each(|call| peer.call("never", call, b""));
            let answer = peer.answer_to(u64::from(refused) - 1);
            assert_eq!(ErrorCode::from_bits(answer.header.message_type), ErrorCode::Rejected);
            let text = String::from_utf8(answer.payload).unwrap();
            assert!(text.contains("64 calls are open on this connection, the limit max_in_flight"), "{text}");
        })
    }),
    attack("message types without number", Served, |field| {
        let rows = field.counts().types.len();
        peer(field, |peer| {
            for id in 0..500_u16 {
                peer.send(Kind::Request, id.wrapping_mul(131).max(100), id.into(), None, b"");
            }
            let answer = peer.answer_to(499);
            let text = String::from_utf8(answer.payload).unwrap();
            assert!(text.starts_with("no message type has the number ") && text.contains("nearest known:"), "{text}");
            assert_eq!(field.counts().types.len(), rows, "unknown types share one row of the metrics");
        })
    }),
    attack("calls that are no calls of the one they name", Served, |field| {
        peer(field, |peer| {
            // Chunks for what is no stream, ends for what has ended, requests for streams with nothing behind them.
            for id in 0..100 {
                peer.call(["echo", "count", "double", "first", "total"][id as usize % 5], id, b"0");
                peer.send(Kind::Chunk, 0, id, Some(0), b"");
                peer.send(Kind::Cancel, 0, id, None, b"");
                peer.send(Kind::End, 0, id, Some(1), b"");
            }
        })
    }),
];

/// Has calls answered at once under the ids of open ones, which must neither end those nor make them count otherwise.
fn answered_at_once(field: &Field, peer: &mut Peer) {
    let running = |name: &str| field.counts().types.iter().find(|row| row.name == name).map_or(0, |row| row.running);
    let is_open = || running("never") == 1 && running("total") == 1;
    eventually("nothing is left of other attacks", || running("never") == 0 && running("total") == 0);
    let dropped = field.dropped();
    peer.call("never", 1, b"");
    peer.call("total", 2, b"");
    chunk_of(peer, 2, 0, 40);
    eventually("both are under way", is_open);
    for id in [1, 2].into_iter().cycle().take(MAX_IN_FLIGHT as usize) {
        peer.call("echo", id, b"echo");
        assert_eq!((peer.answer_to(id).header.kind, is_open()), (Kind::Response, true));
        part(peer, id, 2_000, 1_000);
        peer.call("echo", id, &[7; 1_000]);
        assert_eq!((peer.answer_to(id).payload.len(), is_open()), (2_000, true));
        peer.send(Kind::Request, u16::MAX, id, None, b"");
        assert_eq!((error_to(peer, id), is_open()), (ErrorCode::UnknownMessageType, true));
        for name in ["later", "total"] {
            peer.send(Kind::Request, peer.number(name), id, Some(0), b"late");
            assert_eq!((error_to(peer, id), is_open()), (ErrorCode::DeadlineExceeded, true), "{name}");
        }
    }
    // The two still count as two.
    (3..u64::from(MAX_IN_FLIGHT) + 2).for_each(|id| peer.call("never", id, b""));
    assert_eq!(error_to(peer, u64::from(MAX_IN_FLIGHT) + 1), ErrorCode::Rejected);
    assert_eq!(running("never") + running("total"), u64::from(MAX_IN_FLIGHT));
    // And end as they would have.
    chunk_of(peer, 2, 1, 2);
    peer.send(Kind::End, 0, 2, Some(2), b"");
    let total = peer.answer_to(2);
    assert_eq!((total.header.kind, &total.payload[..]), (Kind::Response, &b"42"[..]));
    for id in 1..u64::from(MAX_IN_FLIGHT) + 1 {
        peer.send(Kind::Cancel, 0, id, None, b"");
        if id != 2 {
            assert_eq!(error_to(peer, id), ErrorCode::Cancelled);
        }
    }
    eventually("no handler is left", || {
        running("never") == 0 && running("total") == 0 && field.dropped() >= dropped + MAX_IN_FLIGHT as usize - 1
    });
}

/// The error that ends a call.
fn error_to(peer: &mut Peer, id: u64) -> ErrorCode {
    let answer = peer.answer_to(id);
    assert_eq!(answer.header.kind, Kind::Error, "{answer:?}");
    ErrorCode::from_bits(answer.header.message_type)
}

fn credit(field: &Field, amount: u64) -> Option<Peer> {
    peer(field, |peer| {
        peer.call("endless", 1, b"");
        peer.send(Kind::Credit, 0, 1, Some(amount), b"");
    })
}

/// Opens a stream to the server that its handler never reads.
fn upload(field: &Field, act: impl FnOnce(&mut Peer)) -> Option<Peer> {
    peer(field, |peer| {
        peer.call("deaf", 1, b"");
        act(peer);
    })
}

fn chunk(peer: &mut Peer, number: u64, len: usize) {
    chunk_of(peer, 1, number, len);
}

fn chunk_of(peer: &mut Peer, id: u64, number: u64, len: usize) {
    peer.send(Kind::Chunk, 0, id, Some(number), &vec![7; len]);
}

fn part(peer: &mut Peer, id: u64, whole: u64, len: usize) {
    peer.send(Kind::Fragment, 0, id, Some(whole), &vec![7; len]);
}
