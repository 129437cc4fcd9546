//! How a client is let in: the memory of its connection, and what it is told.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bellrope_proto::{
    connection::ServerConnection,
    handshake::{COMPACT, Hello, LEAVE, MAX_BODY, METADATA, SCHEMAS, TABLE, Transport, Welcome},
    stream::StreamEnd,
};
use bellrope_shm::{
    SharedMemory, clock,
    process::{self, Shortage, shortage},
    socket::{PeerCredentials, Socket},
};

use super::{connection_limits::ConnectionSlot, pages::PageCache};
use crate::{
    kill_points::KillPoint,
    server::{
        core::Core,
        message::{NewConnection, ToldTypes},
    },
};

/// The features that a server has on every connection.
const OFFERED: u64 = SCHEMAS | METADATA | TABLE | LEAVE;
/// Names of message types in a line of the log that tells of more.
const NAMED: usize = 8;

/// Makes the memory of a connection and sends the welcome, with the memory if it is to be shared. Returns what is to be sent
/// before the connection begins, if that is anything, and how it begins.
#[expect(clippy::type_complexity, reason = "pages, and what makes the connection")]
pub(crate) fn let_in(
    core: &Core,
    cache: &mut PageCache,
    serial: u64,
    socket: &Socket,
    hello: Hello,
    peer: PeerCredentials,
    slot: ConnectionSlot,
) -> io::Result<(Option<Arc<[u8]>>, impl FnOnce(Socket) -> NewConnection + Send + use<>)> {
    if peer.uid != process::user_id() && peer.uid != 0 {
        tracing::debug!(uid = peer.uid, "a client of another user");
    }
    let mut terms = core.fixed.terms;
    let mut features = hello.features & OFFERED;
    if hello.transport == Transport::Shm && hello.features & COMPACT != 0 {
        terms.geometry = terms.geometry.into_compact();
        features |= COMPACT;
    }
    let len = terms.geometry.mapping_len();
    let (memory, handle) = match hello.transport {
        Transport::Shm => SharedMemory::create(len).map(|(memory, handle)| (memory, Some(handle)))?,
        Transport::Stream => (SharedMemory::private(len)?, None),
    };
    KillPoint::MemoryMade.reached();
    let added = core.registry.added_types();
    let types = core.registry.table(&added);
    let welcome = Welcome { features, connection: serial, terms, clock_us: clock::monotonic_us(), types };
    let bytes = welcome.encode();
    let pages = cache.of(&welcome, &added);
    if features & TABLE == 0 {
        name_left_out(core, &welcome, peer, &hello.name);
    }
    let told = (features & TABLE != 0).then_some(ToldTypes { types: added, with_schemas: features & SCHEMAS != 0 });
    // Before the client can know of it: whoever is connected is among those that are counted.
    core.metrics.accepted.fetch_add(1, Relaxed);
    let counted = (hello.transport == Transport::Stream).then(|| core.metrics.streams.enter());
    let sent = match &handle {
        Some(handle) => socket.send_with_memory(&bytes, handle),
        None => socket.send(&bytes),
    };
    // A fresh socket takes a welcome whole; one that does not is no client worth waiting for.
    if !sent.as_ref().is_ok_and(|sent| *sent == bytes.len()) {
        core.metrics.closed.fetch_add(1, Relaxed);
        return Err(sent.err().unwrap_or_else(|| io::Error::other("the client's socket does not take the welcome")));
    }
    KillPoint::Welcomed.reached();
    let transport = hello.transport.name();
    tracing::debug!(connection = serial, pid = peer.pid, client = hello.name, transport, "client connected");
    let stream = counted.map(|counted| (StreamEnd::of_server(&memory, terms.geometry), counted));
    let make_connection = move |socket| NewConnection {
        socket,
        stream,
        connection: {
            let mut connection = ServerConnection::new(&memory, terms);
            if features & METADATA != 0 {
                connection = connection.hearing_metadata();
            }
            if features & LEAVE != 0 {
                connection = connection.hearing_leaving();
            }
            connection
        },
        serial,
        peer,
        slot,
        name: hello.name,
        told,
    };
    Ok((pages, make_connection))
}

/// Names the message types that a client which reads no pages does not get to know.
fn name_left_out(core: &Core, welcome: &Welcome, peer: PeerCredentials, client: &str) {
    let left_out = &welcome.types[welcome.in_body()..];
    if left_out.is_empty() || !core.may_log(peer) {
        return;
    }
    let names: Vec<_> = left_out.iter().take(NAMED).map(|entry| &*entry.name).collect();
    tracing::warn!(
        pid = peer.pid,
        client,
        left_out = left_out.len(),
        "this client cannot call all message types: it reads no pages of the table (version 1.0, or it did not ask \
         for them), and {MAX_BODY} bytes hold only the first {}; left out are {}{}",
        welcome.in_body(),
        names.join(", "),
        if left_out.len() > NAMED { ", ..." } else { "" }
    );
}

/// Why the system gives us no connection, in words that say whose limit it is.
pub(crate) fn reason(error: &io::Error) -> String {
    match shortage(error) {
        Some(Shortage::ProcessDescriptors) => {
            "the server has no descriptor left; raise its limit on open files (LimitNOFILE=, ulimit -n)".to_owned()
        }
        Some(Shortage::MachineDescriptors) => {
            "the machine has no descriptor left; raise fs.file-max, or find out who holds them".to_owned()
        }
        Some(Shortage::DescriptorsInFlight) => format!(
            "more descriptors of user {} are in flight than its limit on open files allows (ETOOMANYREFS): some process \
             of this user sends descriptors that no process takes; end it, or raise the limit",
            process::user_id()
        ),
        Some(Shortage::Memory) => "the server has no memory left for a connection".to_owned(),
        None => format!("the server could not make the memory of the connection: {error}"),
    }
}
