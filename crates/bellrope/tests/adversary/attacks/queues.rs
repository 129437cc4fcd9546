//! What is sent by a client that does not read: nothing of it may pile up.

use bellrope_proto::frame::Kind;

use super::{Attack, End::*, attack, peer};
use crate::{field::Field, peer::Peer};

pub(super) const ATTACKS: &[Attack] = &[
    attack("streams that nobody reads", Evicted, unread),
    attack("streams that nobody reads, and credit, cancels and chunks for nothing without end", Evicted, |field| {
        meanwhile(field, |peer| {
            peer.send(Kind::Credit, 0, 1, Some(0), b"");
            peer.send(Kind::Cancel, 0, 1 << 40, None, b"");
            peer.send(Kind::Chunk, 0, 1 << 40, Some(0), b"chunk");
        })
    }),
    attack("streams begun and taken back without end, and nothing read", Evicted, |field| {
        let mut id = 1 << 20;
        meanwhile(field, |peer| {
            id += 1;
            peer.call("endless", id, b"");
            peer.send(Kind::Cancel, 0, id, None, b"");
        })
    }),
    attack("a large message never finished, and cancels of none without end", Evicted, |field| {
        peer(field, |peer| {
            peer.send(Kind::Fragment, 0, 1, Some(1_000_000), &[7; 30_000]);
            until_hung_up(peer, |peer| peer.send(Kind::Cancel, 0, 1 << 40, None, b""));
        })
    }),
    attack("empty chunks without end, and no credit read", Closed("credit_exceeded"), |field| {
        let peer = unread(field);
        peer.map(|mut peer| {
            peer.call("total", 1 << 20, b"");
            let mut number = 0;
            until_hung_up(&mut peer, |peer| {
                for _ in 0..16 {
                    peer.send(Kind::Chunk, 0, 1 << 20, Some(number), b"");
                    number += 1;
                }
            });
            peer
        })
    }),
];

/// After which the server leaves out lines about this process.
pub(super) const LOUD_ATTACKS: &[Attack] =
    &[attack("message types without number, and no answer read", Evicted, |field| {
        let mut id = 0;
        peer(field, |peer| {
            until_hung_up(peer, |peer| {
                id += 1;
                peer.send(Kind::Request, 9_999, id, None, b"");
            });
        })
    })];

/// Streams enough to fill the ring of answers, of which nothing is read.
fn unread(field: &Field) -> Option<Peer> {
    peer(field, |peer| (1..11).for_each(|call| peer.call("endless", call, b"")))
}

/// Sends something without end, while nothing of such streams is read.
fn meanwhile(field: &Field, mut send: impl FnMut(&mut Peer)) -> Option<Peer> {
    let mut peer = unread(field)?;
    until_hung_up(&mut peer, |peer| send(peer));
    Some(peer)
}

fn until_hung_up(peer: &mut Peer, mut send: impl FnMut(&mut Peer)) {
    while !peer.is_hung_up() {
        (0..16).for_each(|_| send(peer));
        // It is to go on for as long as the server bears it, and not to fill the processors.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
