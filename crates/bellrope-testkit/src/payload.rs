//! Payloads that say whose they are, and in which no two stretches are alike.

use std::sync::OnceLock;

/// Bytes of the shortest payload: the number of its call.
pub const LEAST: usize = 8;
/// Bytes of the shortest chunk: the numbers of its call and of itself.
pub const LEAST_CHUNK: usize = 16;
const LONGEST: usize = 128 * 1024;

/// A payload of a call, `len` bytes long.
pub fn of(call: u64, len: usize) -> Vec<u8> {
    let mut payload = call.to_le_bytes().to_vec();
    payload.extend_from_slice(filler(call, len - LEAST));
    payload
}

/// The call that a payload belongs to.
///
/// # Panics
/// If any of it is not as it was made.
pub fn call_of(payload: &[u8]) -> u64 {
    let (number, rest) = payload.split_at(LEAST);
    let call = u64::from_le_bytes(number.try_into().unwrap());
    assert!(rest == filler(call, rest.len()), "the payload of call {call} is not what was sent");
    call
}

/// Chunk `number` of a stream of a call, `len` bytes long.
pub fn chunk(call: u64, number: u64, len: usize) -> Vec<u8> {
    let mut payload = of(call, len - LEAST);
    payload.extend_from_slice(&number.to_le_bytes());
    payload
}

/// The call that a chunk belongs to, and its number.
///
/// # Panics
/// If any of it is not as it was made.
pub fn chunk_of(payload: &[u8]) -> (u64, u64) {
    let (payload, number) = payload.split_at(payload.len() - LEAST);
    (call_of(payload), u64::from_le_bytes(number.try_into().unwrap()))
}

fn filler(call: u64, len: usize) -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        let mut bytes = vec![0; LONGEST + 256];
        fastrand::Rng::with_seed(7).fill(&mut bytes);
        bytes
    });
    &bytes[(call % 251) as usize..][..len]
}
