//! Noise over transport 1: records that may be right, out of step, cut off and mixed with anything.

use std::{io::ErrorKind, time::Duration};

use bellrope_testkit::raw_stream::{StreamPeer, record};
use fastrand::Rng;

use super::{STEPS, any_record, word};

/// Most bytes that wait to be sent; what is beyond them is never said.
const WAITING: usize = 256 * 1024;

/// Does what comes to mind, until the server has had enough.
pub(super) fn live(peer: &mut StreamPeer, rng: &mut Rng) {
    peer.socket.set_nonblocking(true).unwrap();
    let mut waiting = Vec::new();
    for _ in 0..rng.u32(1..STEPS) {
        match rng.u32(0..24) {
            0 => waiting.extend(word(rng).to_le_bytes()),
            1 => {
                let mut bytes = vec![0; rng.usize(1..64)];
                rng.fill(&mut bytes);
                waiting.extend(bytes);
            }
            // From here on it may be out of step.
            2 if rng.u32(0..4) == 0 => waiting.truncate(rng.usize(0..=waiting.len())),
            3 if !waiting.is_empty() => {
                let at = rng.usize(0..waiting.len());
                waiting[at] ^= 1 << rng.u32(0..8);
            }
            4..=5 => match peer.socket.receive(&mut [0; 4096]) {
                Ok(0) => return,
                Err(error) if error.kind() != ErrorKind::WouldBlock => return,
                _ => {}
            },
            // The server gets a chance to see it.
            6..=7 => std::thread::sleep(Duration::from_micros(rng.u64(0..300))),
            _ => {
                let any = any_record(rng);
                waiting.extend(record(any.kind, any.message_type, any.id, any.extension, &any.payload));
                waiting.truncate(WAITING);
            }
        }
        let piece = rng.usize(0..=waiting.len());
        match peer.socket.send(&waiting[..piece]) {
            Ok(count) => drop(waiting.drain(..count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
