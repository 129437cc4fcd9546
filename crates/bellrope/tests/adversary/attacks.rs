//! What a client can do wrong on purpose, each thing once.

mod calls;
mod handshake;
mod queues;
mod ring;
mod stream;

use bellrope_proto::handshake::METADATA;
use bellrope_testkit::raw_stream::StreamPeer;

use crate::{field::Field, peer::Peer};

/// A scripted attack.
#[derive(Clone, Copy)]
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// What must come of it.
    pub(crate) end: End,
    run: Run,
}

#[derive(Clone, Copy)]
enum Run {
    /// Over shared memory, or before there is a connection.
    Peer(fn(&Field) -> Option<Peer>),
    /// Over a connection whose records travel over the socket.
    Stream(fn(&mut StreamPeer)),
}

/// Who has made an attack.
pub(crate) trait Suspect {
    /// The server's number for its connection.
    fn connection(&self) -> u64;

    /// Waits until the server has hung up.
    fn becomes_hung_up(&self) -> bool;

    /// Makes a call that is to be answered.
    fn is_served(&mut self);
}

impl Suspect for Peer {
    fn connection(&self) -> u64 {
        self.welcome.connection
    }

    fn becomes_hung_up(&self) -> bool {
        self.becomes_hung_up()
    }

    fn is_served(&mut self) {
        self.is_served();
    }
}

impl Suspect for StreamPeer {
    fn connection(&self) -> u64 {
        self.welcome.connection
    }

    fn becomes_hung_up(&self) -> bool {
        self.becomes_hung_up()
    }

    fn is_served(&mut self) {
        self.is_served();
    }
}

impl Attack {
    /// Makes the attack. The peer that it answers with is then asked how it stands.
    pub(crate) fn run(&self, field: &Field) -> Option<Box<dyn Suspect>> {
        match self.run {
            Run::Peer(run) => run(field).map(|peer| Box::new(peer) as _),
            Run::Stream(run) => {
                let mut peer = StreamPeer::try_to_connect_with(&field.path, "adversary", METADATA).unwrap();
                run(&mut peer);
                Some(Box::new(peer))
            }
        }
    }
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
    let quiet = [handshake::ATTACKS, ring::ATTACKS, calls::ATTACKS, queues::ATTACKS, stream::ATTACKS];
    quiet.into_iter().chain([calls::LOUD_ATTACKS, queues::LOUD_ATTACKS]).flatten().copied().collect()
}

/// A row of a table of attacks.
const fn attack(name: &'static str, end: End, run: fn(&Field) -> Option<Peer>) -> Attack {
    Attack { name, end, run: Run::Peer(run) }
}

/// The same, of one over transport 1.
const fn over_socket(name: &'static str, end: End, run: fn(&mut StreamPeer)) -> Attack {
    Attack { name, end, run: Run::Stream(run) }
}

/// A peer that has done this.
fn peer(field: &Field, act: impl FnOnce(&mut Peer)) -> Option<Peer> {
    let mut peer = Peer::connect(&field.path);
    act(&mut peer);
    Some(peer)
}
