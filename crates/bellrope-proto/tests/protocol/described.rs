//! Calls with metadata, over both ends in one thread.

use bellrope_proto::{
    Terms, Violation,
    connection::{Inbound, Loss, pair},
    frame::Kind,
    handshake::Style,
    layout::Geometry,
    metadata::Metadata,
    ring::{Producer, RecordClass},
};
use bellrope_shm::SharedMemory;

use crate::both::{Both, ECHO, connect, keep};

fn said() -> Metadata {
    Metadata::new().session("window 3").unwrap().own(7, &[9; 100]).unwrap()
}

/// The same ends, which agreed on metadata.
fn agreed(capacity: u32) -> Both {
    let both = connect(capacity, 8);
    Both { client: both.client.telling_metadata(), server: both.server.hearing_metadata(), ..both }
}

/// Takes the next call, with what is said of it.
fn take(both: &mut Both) -> (u64, Option<Metadata>, Vec<u8>, Option<u64>) {
    loop {
        let (request, metadata) = match both.inbound().expect("a call") {
            Inbound::Call(request) => (request, None),
            Inbound::Described(request, metadata) => (request, Some(metadata)),
            Inbound::Large(announced) => {
                both.accept(&announced);
                continue;
            }
            _ => continue,
        };
        return (request.id, metadata, both.payload(&request), request.deadline_us);
    }
}

#[test]
fn metadata_come_with_their_call_whatever_its_size() {
    for capacity in [4096, 65_536] {
        for len in [0, 1, 500, 767, 768, 769, 1024, 1025, 16_128, 16_129, 100_000] {
            let mut both = agreed(capacity);
            let payload: Vec<_> = (0..len).map(|at| at as u8).collect();
            let metadata = said();
            let id = if len <= both.client.max_record_with(Some(&metadata)) {
                both.client.submit_described(ECHO, Style::Unary, &metadata, &payload, Some(5)).unwrap()
            } else {
                let mut sending = both.client.begin_large(Style::Unary, len).unwrap();
                while !both.client.push_large_described(&mut sending, ECHO, Some(&metadata), &payload, Some(5)).unwrap()
                {
                    match both.inbound() {
                        Some(Inbound::Large(announced)) => both.accept(&announced),
                        Some(Inbound::Part(_)) | None => {}
                        other => panic!("{other:?}"),
                    }
                }
                sending.id
            };
            assert_eq!(take(&mut both), (id, Some(metadata), payload, Some(5)), "{len} bytes, {capacity}");
            both.server.answer(id, 0, &mut Vec::new(), keep, |_| Ok(())).unwrap();
            let _ = both.server.commit();
            assert_eq!(both.receive().unwrap().0, id);
        }
    }
}

#[test]
fn nothing_is_said_to_a_server_that_did_not_agree_and_nothing_where_there_is_nothing() {
    let mut both = connect(4096, 8);
    let plain = both.client.submit(ECHO, Style::Unary, b"ding", None).unwrap();
    assert_eq!(take(&mut both), (plain, None, b"ding".to_vec(), None));
    let id = both.client.submit_described(ECHO, Style::Unary, &said(), b"ding", None).unwrap();
    assert_eq!(take(&mut both), (id, None, b"ding".to_vec(), None));
    let mut both = agreed(4096);
    let id = both.client.submit_described(ECHO, Style::Unary, &Metadata::new(), b"ding", None).unwrap();
    assert_eq!(take(&mut both), (id, None, b"ding".to_vec(), None));
}

#[test]
fn a_call_with_metadata_that_was_not_taken_has_not_run() {
    let mut both = agreed(4096);
    let ids = [1, 2].map(|_| both.client.submit_described(ECHO, Style::Unary, &said(), b"x", None).unwrap());
    take(&mut both);
    assert_eq!(ids.map(|id| both.client.loss(id)), [Loss::Unknown, Loss::NotExecuted]);
    assert_eq!(both.server.untaken_requests(), 1);
}

#[test]
fn metadata_that_cannot_be_any_are_violations() {
    for (payload, agrees, rule) in [
        (&[1, 0, 2][..], true, Violation::Metadata("entry")),
        (&[2, 0, 2, 1], true, Violation::Metadata("entry")),
        (&[2, 0, 0, 0], true, Violation::Metadata("key")),
        (&[4, 0, 2, 0, 2, 0], true, Violation::Metadata("key")),
        (&[0, 0, 1], true, Violation::Metadata("length")),
        (&[9, 0, 2, 0], true, Violation::Metadata("length")),
        (&[0xFF, 0xFF, 2, 0], true, Violation::Metadata("length")),
        (&[5], true, Violation::Metadata("length")),
        (&[], true, Violation::Metadata("length")),
        (&[2, 0, 2, 0], false, Violation::Direction(13)),
    ] {
        let geometry = Geometry::new(4096).unwrap();
        let terms = Terms { geometry, max_message: 1000, max_in_flight: 8, stream_window: 100 };
        let memory = SharedMemory::anonymous(geometry.mapping_len());
        let (_, server) = pair::<Vec<u8>>(&memory, terms);
        let mut server = if agrees { server.hearing_metadata() } else { server };
        let mut producer = Producer::new(memory.view(geometry.requests()), geometry);
        assert!(producer.push(RecordClass::Bulk, Kind::Described, ECHO, 1, None, payload).unwrap());
        let _ = producer.publish();
        assert_eq!(server.next_inbound(), Err(rule), "{payload:?}");
    }
}
