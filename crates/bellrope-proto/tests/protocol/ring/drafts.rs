//! What a record takes that is written bit by bit.

use bellrope_proto::{frame::Kind, ring::RecordClass};

use super::{SIZE_16, SIZE_24, SIZE_64, SPARE, page};

#[test]
fn a_draft_takes_what_there_is_room_for_to_the_byte_and_stays_as_it_was_otherwise() {
    // (records before it, extended, bytes that it takes)
    for (before, extended, room) in [(0, false, 1024), (0, true, 1024), (125, false, 560), (125, true, 552)] {
        let mut ring = page();
        ring.send(before, SIZE_24);
        let mut draft = ring.producer.begin(RecordClass::Bulk, extended, 10).unwrap().unwrap();
        assert!(draft.is_empty());
        let payload: Vec<u8> = (0..=room).map(|index| index as u8).collect();
        assert!(!draft.append(&payload) && draft.is_empty());
        assert!(draft.append(&payload[..100]) && !draft.is_empty());
        assert!(!draft.append(&payload[100..]));
        assert_eq!(draft.len(), 100);
        assert!(draft.append(&payload[100..room]));
        assert!(!draft.append(&[0]) && draft.append(&[]));
        assert_eq!(draft.len(), room);
        let mut back = vec![0; room];
        draft.read_back(&mut back);
        assert_eq!(back, payload[..room]);
        draft.stage(Kind::Request, 1, 7, 9);
        let _ = ring.producer.publish();
        for _ in 0..before {
            let _ = ring.pop();
        }
        let record = ring.consumer.peek().unwrap().unwrap();
        assert_eq!((record.id, record.extension), (7, if extended { 9 } else { 0 }));
        ring.consumer.read(&record, 0, &mut back);
        assert_eq!(back, payload[..room]);
    }
}

#[test]
fn a_bulk_draft_leaves_the_control_room_free_wherever_its_place_is_looked_for() {
    for extended in [false, true] {
        let mut ring = page();
        // At the start of the next lap, where its place ends at the consumer.
        ring.fill(RecordClass::Bulk, SIZE_64);
        let _ = ring.producer.publish();
        let consumer = ring.receive(20);
        let head = if extended { 24 } else { 16 };
        let end = consumer - 8 - SPARE;
        let mut draft = ring.producer.begin(RecordClass::Bulk, extended, 64).unwrap().unwrap();
        let mut taken = 0;
        while draft.append(&[7; 8]) {
            taken += 8;
        }
        assert_eq!(head + taken, end);
        draft.stage(Kind::Request, 1, 7, 9);
        assert_eq!(ring.producer.position(), 4096 + end);
        assert_eq!(ring.fill(RecordClass::Control, SIZE_16), 4096 + consumer - 8);
    }
}

#[test]
fn a_draft_that_begins_where_the_room_ends_takes_nothing() {
    // (records of 16 bytes before it, extended): after 147 of 24 bytes its head fits, and not a word more.
    for (before, extended) in [(2, false), (3, true)] {
        let mut ring = page();
        ring.send(147 - usize::from(extended), SIZE_24);
        ring.send(before, SIZE_16);
        let left = 4096 - 8 - SPARE - ring.producer.position();
        assert_eq!(left, if extended { 24 } else { 16 });
        let mut draft = ring.producer.begin(RecordClass::Bulk, extended, 0).unwrap().unwrap();
        assert!(!draft.append(&[1]) && draft.is_empty());
        draft.stage(Kind::Request, 1, 7, 9);
        assert_eq!(ring.fill(RecordClass::Bulk, SIZE_16), 4096 - 8 - SPARE);
    }
}
