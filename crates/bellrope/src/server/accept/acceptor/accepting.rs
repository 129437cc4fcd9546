//! How connections are taken from the listener, and in which order their handshakes begin.

use std::io;

use bellrope_proto::handshake::HandshakeStatus;
use bellrope_shm::{process, socket::Socket};

use super::{Acceptor, EXHAUSTED_PAUSE};
use crate::kill_points::KillPoint;

/// Connections taken from the listener before handshakes have their turn.
const ACCEPT_BATCH: usize = 64;
/// Those that wait for theirs to begin; more wait in the kernel.
const MOST_ACCEPTED: usize = 4 * ACCEPT_BATCH;
/// Handshakes that begin before the listener has its turn again. Each may make the memory of a connection, which takes as long
/// as accepting many.
const HANDSHAKES: usize = 16;

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
        let peer = match socket.set_nonblocking(true).and_then(|()| socket.peer_credentials()) {
            Ok(peer) => peer,
            Err(error) => {
                let text = format!("the system does not say who is at the other end: {error}");
                return self.refuse(&socket, 0, HandshakeStatus::Forbidden, &text);
            }
        };
        if !process::names_user(peer.uid) {
            let text = format!(
                "user {} stands for every user that the server's user namespace does not map; run both sides in one \
                 user namespace, or map the client's user into the server's",
                peer.uid
            );
            return self.refuse(&socket, peer.pid, HandshakeStatus::Forbidden, &text);
        }
        self.accepted.push(peer, socket);
    }
}
