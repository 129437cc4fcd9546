//! What a client can do wrong on purpose, each thing once.

mod calls;
mod handshake;
mod queues;
mod ring;

use crate::{field::Field, peer::Peer};

/// A scripted attack.
#[derive(Clone, Copy)]
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// What must come of it.
    pub(crate) end: End,
    /// Makes the attack. The peer that it answers with is then asked how it stands.
    pub(crate) run: fn(&Field) -> Option<Peer>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// The connection is closed, and the log says this reason.
    Closed(&'static str),
    /// The handshake is refused, and the attack has seen the reason.
    Refused,
    /// The connection is closed because something was left half done on it.
    Evicted,
    /// The connection is served on.
    Served,
    /// The attack itself has seen what came of it.
    Seen,
}

/// All of them. Those at the end make the server log so much about this process that it leaves lines out.
pub(crate) fn all() -> Vec<Attack> {
    [handshake::ATTACKS, ring::ATTACKS, calls::ATTACKS, queues::ATTACKS, calls::LOUD_ATTACKS, queues::LOUD_ATTACKS]
        .into_iter()
        .flatten()
        .copied()
        .collect()
}

/// A row of a table of attacks.
const fn attack(name: &'static str, end: End, run: fn(&Field) -> Option<Peer>) -> Attack {
    Attack { name, end, run }
}

/// A peer that has done this.
fn peer(field: &Field, act: impl FnOnce(&mut Peer)) -> Option<Peer> {
    let mut peer = Peer::connect(&field.path);
    act(&mut peer);
    Some(peer)
}
