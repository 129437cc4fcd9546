use bellrope_shm::SharedMemory;

use super::*;
use crate::{frame::ErrorCode, layout::Geometry};

const WINDOW: u32 = 640;

/// What a server has to say to a client that never reads.
fn outbox(max_in_flight: u32) -> Outbox<Vec<u8>> {
    let geometry = Geometry::new(8192).unwrap();
    let terms = Terms { geometry, max_message: 1 << 20, max_in_flight, stream_window: WINDOW };
    let memory = SharedMemory::anonymous(geometry.mapping_len());
    Outbox::new(Producer::new(memory.view(geometry.responses()), geometry), terms)
}

/// One whose ring takes nothing any more, not even credit.
fn full() -> Outbox<Vec<u8>> {
    let mut outbox = outbox(1024);
    while outbox.responses.push(RecordClass::Bulk, Kind::Response, 0, 1, None, &[0; 400]).unwrap() {}
    while outbox.responses.push(RecordClass::Control, Kind::Credit, 0, 1, Some(1), &[]).unwrap() {}
    outbox
}

// Fault 69.
#[test]
fn streams_that_come_and_go_behind_a_chunk_without_room_leave_nothing() {
    let mut outbox = outbox(8);
    for _ in 0..6 {
        let _ = outbox.responses.push(RecordClass::Bulk, Kind::Response, 0, 1, None, &[0; 1000]).unwrap();
    }
    outbox.open_stream(1);
    outbox.chunks(1, [vec![0; 2000]]).unwrap();
    assert!(outbox.wants_room() && !outbox.is_stalled(), "the chunk waits, and small answers would fit");
    for id in 2..5_000 {
        outbox.open_stream(id);
        outbox.chunks(id, [b"tiny".to_vec()]).unwrap();
        assert!(outbox.forget(id));
        assert!(outbox.backlog().runnable.len() <= 1 && outbox.streams() == 1);
    }
}

// Fault 69.
#[test]
fn credit_that_finds_no_room_waits_once_for_each_stream_and_goes_with_it() {
    let mut outbox = full();
    for id in 0..10 {
        outbox.uploads.open(id, WINDOW);
        for number in 0..10 {
            assert_eq!(outbox.uploads.get(id).unwrap().check(id, number, true), Ok(()));
            outbox.uploads.took(id, 0);
            outbox.consumed(id, 0).unwrap();
        }
        assert_eq!(
            outbox.uploads.get(id).unwrap().check(id, 10, true),
            Err(Violation::CreditExceeded(id)),
            "whoever goes on without having read that he may breaks the protocol"
        );
    }
    assert_eq!(outbox.uploads.waiting(), 10);
    (0..10).for_each(|id| outbox.uploads.close(id));
    assert!(outbox.uploads.waiting() == 0 && !outbox.wants_room());
}

// Fault 69.
#[test]
fn an_error_that_waits_for_room_keeps_no_more_text_than_travels() {
    let mut outbox = full();
    outbox.open_stream(7);
    let failure = || Failure::new(ErrorCode::Handler, "é".repeat(1 << 20));
    outbox.respond(6, Err(failure())).unwrap();
    outbox.abort(7, failure()).unwrap();
    assert_eq!(outbox.backlog().waiting.len(), 2);
    for (_, ending) in &outbox.backlog().waiting {
        let Ending::Failed { failure, .. } = ending else { panic!("an error was to wait") };
        assert_eq!(failure.text.len(), crate::failure::MAX_ERROR_TEXT);
    }
    outbox.open_stream(8);
    outbox.finish(8, Err(failure())).unwrap();
    let Some(Ending::Failed { failure, .. }) = &outbox.backlog().streams[&8].ending else {
        panic!("an error was to wait")
    };
    assert_eq!(failure.text.len(), crate::failure::MAX_ERROR_TEXT);
}

// Faults 34, 69.
#[test]
fn an_error_that_waits_for_room_keeps_its_room_in_the_budget_and_no_longer() {
    let (mut outbox, budget) = (full(), crate::BufferBudget::new(10_000));
    let failure = || Failure::new(ErrorCode::Handler, "x".repeat(500));
    let room = || budget.reserve(1_000);
    outbox.fail(1, failure(), room()).unwrap();
    outbox.open_stream(2);
    outbox.hold(2, room().unwrap());
    outbox.abort(2, failure()).unwrap();
    outbox.open_stream(3);
    outbox.hold(3, room().unwrap());
    outbox.finish(3, Err(failure())).unwrap();
    assert_eq!((outbox.backlog().waiting.len(), budget.used()), (2, 3_000));
    drop(outbox);
    assert_eq!(budget.used(), 0);
    let mut roomy = self::outbox(8);
    roomy.fail(1, failure(), room()).unwrap();
    assert_eq!((roomy.backlog().waiting.len(), budget.used()), (0, 0), "what was sent holds nothing");
}

// Fault 57.
#[test]
fn why_a_connection_ends_is_said_though_its_client_reads_nothing() {
    let mut outbox = outbox(8);
    while outbox.responses.push(RecordClass::Bulk, Kind::Response, 0, 1, None, &[0; 400]).unwrap() {}
    let before = outbox.sent();
    outbox.say_why(&Failure::new(ErrorCode::Exhausted, "w".repeat(300)));
    assert!(outbox.sent() >= before + 300 && outbox.backlog().waiting.is_empty());
    // And where credit has used that room up, nothing waits for more.
    let mut outbox = full();
    outbox.say_why(&Failure::new(ErrorCode::Exhausted, "w".repeat(300)));
    assert!(!outbox.wants_room());
}

// Fault 59.
#[test]
fn a_stream_counts_as_unread_from_when_its_credit_was_used_up_until_more_comes() {
    let mut outbox = outbox(8);
    outbox.open_stream(1);
    assert_eq!((outbox.unread_streams(0, 10), outbox.unread()), (vec![], Ok(None)), "it waits for its handler");
    for _ in 0..3 {
        outbox.chunks(1, [vec![0; 600]]).unwrap();
    }
    assert_eq!(outbox.unread(), Ok(Some(0)), "something lies in the ring, and more waits for it to be read");
    assert_eq!(outbox.unread_streams(100, 10), []);
    assert_eq!(outbox.unread_streams(109, 10), []);
    assert_eq!(outbox.unread_streams(110, 10), [1]);
    outbox.credit(1, 0).unwrap();
    assert_eq!(outbox.unread_streams(110, 10), [1], "credit of nothing is none");
    outbox.credit(1, 1).unwrap();
    assert_eq!(outbox.unread_streams(111, 10), []);
    assert_eq!(outbox.unread_streams(121, 10), [1]);
}

#[test]
fn room_for_what_waits_is_there_only_while_something_may() {
    let mut outbox = outbox(8);
    outbox.respond(1, Ok(b"at once".to_vec())).unwrap();
    assert!(outbox.backlog.is_none(), "a small answer needs none");
    outbox.open_stream(2);
    outbox.shrink();
    assert_eq!(outbox.streams(), 1, "the stream is still there");
    outbox.finish(2, Ok(())).unwrap();
    outbox.shrink();
    assert!(outbox.backlog.is_none());
}
