//! Pages of the table of message types, on their way to a client: a table may be larger than what a socket takes at once.

use std::{io, sync::Arc, time::Instant};

use bellrope_proto::handshake::{SCHEMAS, TABLE, Welcome};
use bellrope_shm::{
    socket::{PeerCredentials, Socket},
    wait::{EdgeWatch, Interest, Poller},
};

use super::connection_limits::Giver;
use crate::server::{handler::added::AddedTypes, message::NewConnection};

/// A handshake whose client has yet to take pages.
pub(crate) struct Paging {
    pub(crate) socket: Socket,
    pub(crate) peer: PeerCredentials,
    /// Whether its place is one with priority.
    priority: bool,
    pub(crate) deadline: Instant,
    /// The same for all clients that are told the same.
    pages: Arc<[u8]>,
    sent: usize,
    watch: Option<EdgeWatch>,
    make_connection: Box<dyn FnOnce(Socket) -> NewConnection + Send>,
}

impl Paging {
    pub(crate) fn new(
        socket: Socket,
        (peer, priority): (PeerCredentials, bool),
        deadline: Instant,
        pages: Arc<[u8]>,
        make_connection: impl FnOnce(Socket) -> NewConnection + Send + 'static,
    ) -> Self {
        Self {
            socket,
            peer,
            priority,
            deadline,
            pages,
            sent: 0,
            watch: None,
            make_connection: Box::new(make_connection),
        }
    }

    /// Whether its place is one of those of which this process is to give one up.
    pub(crate) fn gives_way_for(&self, giver: &Giver) -> bool {
        giver.may_be(self.peer, self.priority)
    }

    /// Has the poller report under this key when the socket takes more.
    pub(crate) fn watch(&mut self, poller: &Poller, key: u64) -> io::Result<()> {
        let mut watch = poller.add_edges(&self.socket, key)?;
        watch.watch_for(&self.socket, Interest::BytesOrRoom)?;
        self.watch = Some(watch);
        Ok(())
    }

    /// Sends what the socket takes. Answers whether that was all.
    pub(crate) fn send(&mut self) -> io::Result<bool> {
        while self.sent < self.pages.len() {
            match self.socket.send(&self.pages[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    pub(crate) fn whole(&self) -> usize {
        self.pages.len()
    }

    /// The connection that begins when all was sent.
    pub(crate) fn into_connection(self) -> NewConnection {
        (self.make_connection)(self.socket)
    }
}

/// The pages that were made last, for clients with schemas and without: most are sent to many.
#[derive(Debug, Default)]
pub(crate) struct PageCache([Option<Made>; 2]);

/// The types that were added, and the pages with them and all others.
type Made = (Arc<AddedTypes>, Arc<[u8]>);

impl PageCache {
    /// The pages behind this welcome, which has these types besides those that are always there. `None`: there are none.
    pub(crate) fn of(&mut self, welcome: &Welcome, added: &Arc<AddedTypes>) -> Option<Arc<[u8]>> {
        if welcome.features & TABLE == 0 || welcome.in_body() == welcome.types.len() {
            return None;
        }
        let kept = &mut self.0[usize::from(welcome.features & SCHEMAS != 0)];
        if let Some((_, pages)) = kept.as_ref().filter(|(of, _)| Arc::ptr_eq(of, added)) {
            return Some(Arc::clone(pages));
        }
        let pages: Arc<[u8]> = welcome.encode_pages().into();
        *kept = Some((Arc::clone(added), Arc::clone(&pages)));
        Some(pages)
    }
}
