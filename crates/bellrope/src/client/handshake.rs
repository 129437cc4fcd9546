//! Connecting: the client's half of the handshake.

use std::{io, os::fd::OwnedFd, path::Path, time::Instant};

use bellrope_proto::{
    connection::ClientConnection,
    handshake::{ANSWER_HEAD_LEN, AnswerHead, Hello},
};
use bellrope_shm::{SharedMemory, process, socket::Socket};

use super::{ClientConfig, types::TypeTable};
use crate::ConnectError;

/// A connection that a server has agreed to.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) socket: Socket,
    pub(crate) connection: ClientConnection,
    pub(crate) types: TypeTable,
}

/// Connects once.
pub(crate) fn connect(config: &ClientConfig) -> Result<Established, ConnectError> {
    let path = config.path.as_path();
    let failed = |source| ConnectError::Io { path: path.to_owned(), source };
    let socket = Socket::connect(path).map_err(|source| ConnectError::NoServer { path: path.to_owned(), source })?;
    check_owner(&socket, path)?;

    let deadline = Instant::now() + config.connect_timeout;
    let hello = Hello { features: 0, class: 0, name: config.name.clone() }.encode();
    socket.set_timeouts(Some(config.connect_timeout)).map_err(failed)?;
    socket.send(&hello).map_err(failed)?;

    let mut memory = None;
    let mut head = [0; ANSWER_HEAD_LEN];
    receive(&socket, &mut head, &mut memory, deadline).map_err(failed)?;
    let head = AnswerHead::decode(&head)?;
    let mut body = vec![0; head.body_len()];
    receive(&socket, &mut body, &mut memory, deadline).map_err(failed)?;
    let welcome = head.with_body(&body)?;

    let memory = memory.ok_or(ConnectError::MissingMemory)?;
    let memory = SharedMemory::open(&memory, welcome.terms.geometry.mapping_len())?;
    socket.set_timeouts(None).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(Established {
        socket,
        connection: ClientConnection::new(&memory, welcome.terms),
        types: TypeTable::new(welcome.types),
    })
}

/// A server of another user could hand us anything: only our own and root's are trusted.
fn check_owner(socket: &Socket, path: &Path) -> Result<(), ConnectError> {
    let peer = socket.peer_credentials().map_err(|source| ConnectError::Io { path: path.to_owned(), source })?;
    if peer.uid == process::user_id() || peer.uid == 0 {
        return Ok(());
    }
    Err(ConnectError::ForeignServer { path: path.to_owned(), uid: peer.uid })
}

/// Fills `into`, and keeps the first descriptor that comes along.
fn receive(socket: &Socket, into: &mut [u8], memory: &mut Option<OwnedFd>, deadline: Instant) -> io::Result<()> {
    let mut filled = 0;
    while filled < into.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer came in time"));
        }
        socket.set_timeouts(Some(left))?;
        let (count, fd) = match socket.receive_with_fd(&mut into[filled..]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            other => other?,
        };
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server hung up in mid-handshake"));
        }
        filled += count;
        if memory.is_none() {
            *memory = fd;
        }
    }
    Ok(())
}
