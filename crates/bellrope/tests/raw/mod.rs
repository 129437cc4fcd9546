//! The handshake by hand, for clients that then do as they like.

use std::{path::Path, sync::Arc};

use bellrope_proto::{
    connection::Terms,
    handshake::{ANSWER_HEAD_LEN, AnswerHead, Hello},
};
use bellrope_shm::{SharedMemory, socket::Socket};

/// Connects under this name. The socket is blocking.
pub(crate) fn shake_hands(path: &Path, name: &str) -> (Socket, Arc<SharedMemory>, Terms) {
    let socket = Socket::connect(path).unwrap();
    socket.set_nonblocking(false).unwrap();
    socket.send(&Hello { features: 0, class: 0, name: name.into() }.encode()).unwrap();
    let mut head = [0; ANSWER_HEAD_LEN];
    let (count, memory) = socket.receive_with_fd(&mut head).unwrap();
    assert_eq!(count, ANSWER_HEAD_LEN);
    let head = AnswerHead::decode(&head).unwrap();
    let mut body = vec![0; head.body_len()];
    assert_eq!(socket.receive(&mut body).unwrap(), body.len());
    let terms = head.with_body(&body).unwrap().terms;
    let memory = SharedMemory::open(&memory.unwrap(), terms.geometry.mapping_len()).unwrap();
    (socket, memory, terms)
}
