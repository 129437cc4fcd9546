//! What comes over a socket instead of through a ring.

use bellrope_proto::{
    Violation,
    frame::Header,
    layout::Geometry,
    ring::Consumer,
    stream::{READ_AHEAD, Scratch, StreamEnd},
};
use bellrope_shm::SharedMemory;

type Records = Vec<(Header, u64, u64, Vec<u8>)>;

/// The same records come of the same bytes, however these are cut, and the same violation ends them. No more is kept than
/// may be. The first byte of the input says whose bytes they are, the second how they are cut.
pub fn stream(input: &[u8]) {
    let Some((&[who, cut], bytes)) = input.split_first_chunk() else { return };
    let from_client = who % 2 == 0;
    let whole = heard(from_client, std::iter::once(bytes));
    assert_eq!(heard(from_client, bytes.chunks(1)), whole, "byte by byte");
    let cut = usize::from(cut) + 1;
    assert_eq!(heard(from_client, bytes.chunks(cut)), whole, "in pieces of {cut}");
}

fn heard<'a>(from_client: bool, pieces: impl Iterator<Item = &'a [u8]>) -> (Records, Option<Violation>) {
    let geometry = Geometry::new(4096).expect("a capacity");
    let memory = SharedMemory::anonymous(geometry.mapping_len());
    let (mut end, ring) = match from_client {
        true => (StreamEnd::of_server(&memory, geometry), geometry.requests()),
        false => (StreamEnd::of_client(&memory, geometry), geometry.responses()),
    };
    let mut connection = Consumer::new(memory.view(ring), geometry);
    let mut records = Vec::new();
    let mut scratch = Scratch::new();
    for mut piece in pieces {
        while !piece.is_empty() {
            match end.put() {
                Err(violation) => {
                    take(&mut connection, &mut records);
                    return (records, Some(violation));
                }
                Ok(false) => assert!(take(&mut connection, &mut records), "it waits for room that is there"),
                Ok(true) => {
                    let space = end.space(&mut scratch);
                    assert!(!space.is_empty() && space.len() as u64 <= geometry.max_payload() + READ_AHEAD as u64);
                    let count = piece.len().min(space.len());
                    space[..count].copy_from_slice(&piece[..count]);
                    let came = end.came(&scratch, count);
                    if let Err(violation) = came {
                        take(&mut connection, &mut records);
                        return (records, Some(violation));
                    }
                    piece = &piece[count..];
                }
            }
        }
    }
    loop {
        let put = end.put();
        let took = take(&mut connection, &mut records);
        match put {
            Err(violation) => return (records, Some(violation)),
            Ok(true) if !took => return (records, None),
            Ok(_) => {}
        }
    }
}

/// Takes what is in the ring. Answers whether that was anything.
fn take(connection: &mut Consumer, records: &mut Records) -> bool {
    let before = records.len();
    while let Some(record) = connection.peek().expect("only records come into the ring") {
        let mut payload = vec![0; record.header.len as usize];
        connection.read(&record, 0, &mut payload);
        records.push((record.header, record.id, record.extension, payload));
        let _ = connection.advance(&record);
    }
    let _ = connection.relieve();
    records.len() > before
}
