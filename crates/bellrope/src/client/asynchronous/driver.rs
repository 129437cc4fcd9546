//! The task that watches the socket of one connection. The ring is armed whenever the lock is free, so nothing that comes
//! in goes unnoticed.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bellrope_shm::socket::Socket;
use tokio::{io::Interest, net::UnixStream, runtime::Handle};

use super::super::{
    config::Transport,
    link::Rest,
    shared::{SharedClient, State},
};

/// Sets a driver to watch a new link.
pub(super) fn watch_link(runtime: &Handle, shared: &Arc<SharedClient>, socket: &Arc<Socket>, generation: u64) {
    let _context = runtime.enter();
    match socket.try_clone().and_then(UnixStream::from_std) {
        Ok(socket) => drop(runtime.spawn(drive(Arc::downgrade(shared), socket, generation))),
        // The runtime is gone, and with it everybody who could call.
        Err(error) => tracing::debug!(%error, "the connection cannot be watched"),
    }
}

/// Takes what came and leaves the ring armed, so that the driver hears of what comes next.
pub(super) fn settle(shared: &SharedClient, state: &mut State) {
    loop {
        shared.pump(state);
        match state.arm(!state.room_waiters.is_empty()) {
            Ok(Rest::Look | Rest::Check) if state.link.is_some() => {
                // There is something to take, or there is room.
                state.wake_for_room();
            }
            Ok(_) => return,
            // The violation is noted in the link: this pump ends every call.
            Err(_) => return shared.pump(state),
        }
    }
}

/// Watches the socket of one connection until that is lost or nobody needs it any more.
async fn drive(shared: Weak<SharedClient>, socket: UnixStream, generation: u64) {
    // What came before we watched has rung already.
    let Some(strong) = shared.upgrade() else { return };
    let streams = {
        let mut state = strong.lock();
        settle(&strong, &mut state);
        state.transport() == Some(Transport::Stream)
    };
    drop(strong);
    // Over the socket alone, room in it is news as well: the reactor reports each time that the server has read.
    let interest = if streams { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
    while socket.ready(interest).await.is_ok() {
        let Some(shared) = shared.upgrade() else { return };
        let mut state = shared.lock();
        if state.generation != generation {
            return;
        }
        let Some(link) = &mut state.link else { return };
        if streams {
            // Before we look: whatever comes from now on is reported anew.
            for seen in [Interest::READABLE, Interest::WRITABLE] {
                let _: std::io::Result<()> = socket.try_io(seen, || Err(std::io::ErrorKind::WouldBlock.into()));
            }
        }
        // Having taken all rings, we report the socket as empty, so that the reactor waits for the next.
        let mut look = || match link.woke(Duration::ZERO) {
            Ok(()) => Err(std::io::ErrorKind::WouldBlock.into()),
            Err(error) => Ok(error),
        };
        let heard = if streams { look() } else { socket.try_io(Interest::READABLE, look) };
        if let Ok(error) = heard {
            tracing::debug!(%error, "the connection is lost");
        }
        // The ring may have been for room.
        state.wake_for_room();
        settle(&shared, &mut state);
        if state.link.is_none() {
            return;
        }
    }
}
