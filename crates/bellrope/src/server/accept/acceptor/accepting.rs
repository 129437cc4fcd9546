//! How connections are taken from the listener, and in which order their handshakes begin.

use std::{io, time::Instant};

use bellrope_proto::handshake::HandshakeStatus;
use bellrope_shm::{
    process,
    socket::{PeerCredentials, Socket},
};

use super::{Acceptor, EXHAUSTED_PAUSE, Newcomer};
use crate::kill_points::KillPoint;

/// Connections taken from the listener before handshakes have their turn.
const ACCEPT_BATCH: usize = 64;
/// Those that wait for theirs to begin; more wait in the kernel.
const MOST_ACCEPTED: usize = 4 * ACCEPT_BATCH;
/// Handshakes that begin before the listener has its turn again. Each may make the memory of a connection, which takes as long
/// as accepting many.
const HANDSHAKES: usize = 16;

/// Whom the system does not name at all.
const NOBODY: PeerCredentials = PeerCredentials { pid: 0, uid: u32::MAX };

impl Acceptor {
    /// Takes connections from the listener.
    pub(super) fn accept(&mut self) {
        for _ in 0..ACCEPT_BATCH.min(MOST_ACCEPTED.saturating_sub(self.accepted.len())) {
            match self.listener.accept() {
                Ok((stream, _)) => self.look_at(stream.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The client was faster than we.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => self.gone(0, &error),
                Err(error) => {
                    tracing::error!(%error, "accepting failed; resting for {EXHAUSTED_PAUSE:?}");
                    let _ = self.poller.remove(&self.listener);
                    self.pause();
                    return;
                }
            }
        }
    }

    /// Begins some of the handshakes that have not, of each process in turn.
    pub(super) fn begin_some(&mut self) {
        for _ in 0..HANDSHAKES {
            let Some((peer, socket)) = self.accepted.pop() else { return };
            self.begin(socket, peer);
        }
    }

    /// Looks who has come.
    fn look_at(&mut self, socket: Socket) {
        KillPoint::Accepted.reached();
        let peer = match socket.set_nonblocking(true).and_then(|()| socket.peer_told_apart()) {
            Ok(peer) => peer,
            Err(error) => {
                let text = format!("the system does not say who is at the other end: {error}");
                return self.refuse(&socket, NOBODY, HandshakeStatus::Forbidden, &text);
            }
        };
        if !process::names_user(peer.uid) {
            let text = format!(
                "user {} stands for every user that the server's user namespace does not map; run both sides in one \
                 user namespace, or map the client's user into the server's",
                peer.uid
            );
            return self.refuse(&socket, peer, HandshakeStatus::Forbidden, &text);
        }
        self.accepted.push(peer, socket);
    }

    /// Whether one more newcomer of this process may wait for a place: else, or in its place, one goes of the process with most of
    /// those that wait.
    pub(super) fn may_wait(&mut self, peer: PeerCredentials) -> bool {
        if self.newcomers.len() < self.core.live.max_half_open() as usize {
            return true;
        }
        let Some(last) = self.newcomers.give_way(peer) else { return false };
        self.refuse(&last.socket, last.peer, HandshakeStatus::Full, &last.text);
        true
    }

    /// Lets newcomers in for whom there is a place now, and refuses those who have waited for one for too long.
    pub(super) fn seat_newcomers(&mut self, now: Instant) {
        self.seat_some();
        while let Some(Newcomer { socket, peer, text, .. }) = self.newcomers.take_late(now) {
            self.refuse(&socket, peer, HandshakeStatus::Full, &text);
        }
    }
}
