//! The handshake by hand, for clients that then do as they like.

use std::{path::Path, sync::Arc};

use bellrope_proto::handshake::{ANSWER_HEAD_LEN, AnswerHead, HandshakeError, Hello, Welcome};
use bellrope_shm::{SharedMemory, socket::Socket};

/// Connects under this name. The socket is blocking.
///
/// # Panics
/// If there is no server, or it refuses.
pub fn shake_hands(path: &Path, name: &str) -> (Socket, Arc<SharedMemory>, Welcome) {
    try_to_shake_hands(path, name).unwrap()
}

/// As [`shake_hands`], with a server that may refuse.
///
/// # Errors
/// What the server says, or why its answer is none.
pub fn try_to_shake_hands(path: &Path, name: &str) -> Result<(Socket, Arc<SharedMemory>, Welcome), HandshakeError> {
    let socket = Socket::connect(path).unwrap();
    socket.set_nonblocking(false).unwrap();
    socket.send(&Hello { name: name.into(), ..Hello::default() }.encode()).unwrap();
    let (memory, welcome) = be_welcomed(&socket)?;
    Ok((socket, memory, welcome))
}

/// Takes the answer to a hello.
///
/// # Errors
/// What the server says, or why its answer is none.
pub fn be_welcomed(socket: &Socket) -> Result<(Arc<SharedMemory>, Welcome), HandshakeError> {
    let mut head = [0; ANSWER_HEAD_LEN];
    let (count, memory) = socket.receive_with_memory(&mut head).unwrap();
    assert_eq!(count, ANSWER_HEAD_LEN);
    let head = AnswerHead::decode(&head).unwrap();
    let mut body = vec![0; head.body_len()];
    assert_eq!(socket.receive(&mut body).unwrap(), body.len());
    let welcome = head.with_body(&body)?;
    let memory = SharedMemory::open(&memory.unwrap(), welcome.terms.geometry.mapping_len()).unwrap();
    Ok((memory, welcome))
}
