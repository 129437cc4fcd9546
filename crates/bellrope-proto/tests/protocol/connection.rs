//! Both ends of a connection in one thread, driven by hand.

use bellrope_proto::{
    connection::{AnswerKind, Credit, Failure, Inbound, Loss, SubmitError},
    frame::ErrorCode,
    handshake::Style,
    ring::Armed,
};

use crate::both::{ECHO, WINDOW, connect, keep};

#[test]
fn every_call_gets_its_own_answer() {
    let mut both = connect(65536, 64);
    for round in 0..200_usize {
        // After an early wrap the room ends where the consumer was last seen, so a burst may find the ring full.
        let calls: Vec<_> = (0..round % 40)
            .map_while(|call| {
                let payload = vec![call as u8; call * 37];
                Some((both.client.submit(ECHO, Style::Unary, &payload, None).ok()?, payload))
            })
            .collect();
        assert!(calls.len() >= (round % 40).min(2));
        both.echo();
        for (id, payload) in calls {
            assert_eq!(both.receive(), Some((id, AnswerKind::Response, payload)));
        }
        assert_eq!(both.client.in_flight(), 0);
    }
}

#[test]
fn a_failing_handler_and_an_oversized_reply_are_typed_errors() {
    let mut both = connect(65536, 8);
    let id = both.client.submit(ECHO, Style::Unary, b"x", None).unwrap();
    both.take().unwrap();
    both.server
        .answer(id, 8, &mut Vec::new(), keep, |reply| {
            reply.put(b"half a reply");
            Err(Failure::new(ErrorCode::Handler, "no luck").into())
        })
        .unwrap();
    assert_eq!(
        both.receive().unwrap(),
        (id, AnswerKind::Error { code: ErrorCode::Handler, detail: 0 }, b"no luck".to_vec())
    );

    let id = both.client.submit(ECHO, Style::Unary, b"x", None).unwrap();
    both.take().unwrap();
    both.server
        .answer(id, 8, &mut Vec::new(), keep, |reply| {
            (0..2000).for_each(|_| reply.put(&[0; 1000]));
            Ok(())
        })
        .unwrap();
    let (_, kind, text) = both.receive().unwrap();
    assert_eq!(kind, AnswerKind::Error { code: ErrorCode::MessageTooLarge, detail: 2_000_000 });
    assert_eq!(String::from_utf8(text).unwrap(), "the reply of 2000000 bytes exceeds the limit of 1048576 bytes");
}

#[test]
fn a_message_over_the_limit_is_refused_with_size_and_limit() {
    let mut both = connect(65536, 8);
    let error = both.client.submit(ECHO, Style::Unary, &[0; 16385], None).unwrap_err();
    assert_eq!(error, SubmitError::TooLarge { size: 16385, limit: 16384 });
    assert!(both.client.submit(ECHO, Style::Unary, &[0; 16384], None).is_ok());
    let error = both.client.begin_large(Style::Unary, 1_048_577).unwrap_err();
    assert_eq!(error, SubmitError::TooLarge { size: 1_048_577, limit: 1_048_576 });
}

// Fault 31.
#[test]
fn a_client_that_does_not_read_stalls_itself_and_loses_nothing() {
    let mut both = connect(4096, 64);
    let mut sent = Vec::new();
    let mut answered = 0;
    for call in 0..60 {
        if let Ok(id) = both.client.submit(ECHO, Style::Unary, &[call; 200], None) {
            sent.push(id);
        }
        answered += both.echo();
    }
    assert!(both.server.is_stalled() && answered < 30, "{answered} answers in a ring of 4 KiB");
    assert_eq!(both.server.arm().unwrap(), Armed::Asleep, "a stalled connection sleeps although requests wait");
    both.rung = false;

    let mut received = Vec::new();
    while received.len() < sent.len() {
        while let Some((id, kind, _)) = both.receive() {
            assert_eq!(kind, AnswerKind::Response);
            received.push(id);
        }
        both.server.flush().unwrap();
        both.echo();
    }
    assert!(both.rung, "the reader rang when it made room");
    assert_eq!(received, sent, "in order");
}

#[test]
fn a_stream_stops_at_its_credit_and_goes_on_with_more() {
    let mut both = connect(65536, 8);
    let id = both.client.submit(2, Style::ServerStream, b"go", None).unwrap();
    both.take().unwrap();
    assert!(both.server.open(id, Style::ServerStream).unwrap());
    for chunk in 0..100_u8 {
        both.server.chunk(id, vec![chunk; 36]).unwrap();
    }
    both.server.finish(id, Ok(())).unwrap();
    assert!(!both.server.wants_room(), "what lacks credit does not wait for room");

    let mut chunks = Vec::new();
    loop {
        let mut batch = 0;
        while let Some((got, kind, payload)) = both.receive() {
            assert_eq!(got, id);
            if kind == AnswerKind::End {
                assert_eq!(chunks, (0..100).collect::<Vec<u8>>());
                assert_eq!((both.client.in_flight(), both.server.open_calls()), (0, 0));
                return;
            }
            assert_eq!(kind, AnswerKind::Chunk);
            chunks.push(payload[0]);
            batch += 1;
        }
        assert!(batch > 0 && i64::from(batch) * Credit::cost(36) < i64::from(WINDOW) + 2 * Credit::cost(36));
        for _ in 0..batch {
            both.client.consumed(id, 36).unwrap();
        }
        assert_eq!(both.inbound(), None);
    }
}

#[test]
fn a_slow_stream_delays_neither_its_neighbours_nor_plain_calls() {
    let mut both = connect(65536, 8);
    let slow = both.client.submit(2, Style::ServerStream, b"", None).unwrap();
    let fast = both.client.submit(2, Style::ServerStream, b"", None).unwrap();
    for id in [slow, fast] {
        both.take().unwrap();
        both.server.open(id, Style::ServerStream).unwrap();
    }
    (0..50).for_each(|_| both.server.chunk(slow, vec![0; 100]).unwrap());
    both.server.chunk(fast, b"quick".to_vec()).unwrap();
    both.server.finish(fast, Ok(())).unwrap();
    let call = both.client.submit(ECHO, Style::Unary, b"me too", None).unwrap();
    both.echo();
    let seen: Vec<_> = std::iter::from_fn(|| both.receive()).filter(|(id, ..)| *id != slow).collect();
    assert_eq!(
        seen,
        [
            (fast, AnswerKind::Chunk, b"quick".to_vec()),
            (fast, AnswerKind::End, Vec::new()),
            (call, AnswerKind::Response, b"me too".to_vec()),
        ]
    );
}

// Fault 38.
#[test]
fn a_cancelled_stream_ends_at_the_server_and_its_late_chunks_are_dropped() {
    let mut both = connect(65536, 8);
    let id = both.client.submit(2, Style::ServerStream, b"", None).unwrap();
    both.take().unwrap();
    both.server.open(id, Style::ServerStream).unwrap();
    both.server.chunk(id, b"early".to_vec()).unwrap();
    assert!(both.client.cancel(id).unwrap());
    assert!(!both.client.cancel(id).unwrap(), "once is enough");
    both.server.chunk(id, b"late".to_vec()).unwrap();
    assert_eq!(both.inbound(), Some(Inbound::Cancelled(id)));
    both.server.chunk(id, b"too late".to_vec()).unwrap();
    both.server.finish(id, Ok(())).unwrap();
    assert_eq!(both.receive(), None);
    assert_eq!(both.client.dropped_answers(), 3, "two chunks and one terminal record");
    assert_eq!((both.client.in_flight(), both.server.open_calls()), (0, 0));
}

// Fault 33.
#[test]
fn calls_in_flight_are_bounded_on_both_sides() {
    let mut both = connect(65536, 2);
    let first = both.client.submit(ECHO, Style::Unary, b"", None).unwrap();
    both.client.submit(ECHO, Style::Unary, b"", None).unwrap();
    let error = both.client.submit(ECHO, Style::Unary, b"", None).unwrap_err();
    assert_eq!(error, SubmitError::TooManyInFlight { limit: 2 });
    assert_eq!(
        (both.server.open(1, Style::Unary), both.server.open(2, Style::Unary), both.server.open(3, Style::Unary)),
        (Ok(true), Ok(true), Ok(false))
    );
    assert_eq!(both.server.open_calls(), 2);
    both.server.respond(1, Ok(Vec::new())).unwrap();
    assert_eq!(both.server.open(2, Style::Unary).unwrap_err().name(), "duplicate_call");
    assert!(both.client.calls().any(|id| id == first));
}

// Fault 31.
#[test]
fn a_request_ring_full_of_bulk_can_still_be_cancelled() {
    let mut both = connect(65536, 1024);
    let stream = both.client.submit(2, Style::ServerStream, b"", None).unwrap();
    while both.client.submit(ECHO, Style::Unary, &[0; 1000], None).is_ok() {}
    assert_eq!(both.client.submit(ECHO, Style::Unary, &[0; 1000], None), Err(SubmitError::Full));
    both.client.cancel(stream).unwrap();
    both.take().unwrap();
    both.server.open(stream, Style::ServerStream).unwrap();
    let mut cancelled = false;
    while let Some(inbound) = both.inbound() {
        match inbound {
            Inbound::Call(request) => both.server.take(&request, &mut vec![0; request.len]),
            Inbound::Cancelled(id) => cancelled |= id == stream,
            other => panic!("{other:?}"),
        }
    }
    assert!(cancelled);
}

// Fault 37.
#[test]
fn after_the_server_died_what_it_never_took_is_known_as_not_executed() {
    let mut both = connect(65536, 8);
    let ids: Vec<_> = (0..3).map(|_| both.client.submit(ECHO, Style::Unary, b"x", None).unwrap()).collect();
    both.take().unwrap();
    drop(both.server);
    let losses: Vec<_> = ids.iter().map(|id| both.client.loss(*id)).collect();
    assert_eq!(losses, [Loss::Unknown, Loss::NotExecuted, Loss::NotExecuted]);
}

// Fault 13.
#[test]
fn wake_ups_are_asked_for_exactly_when_the_peer_sleeps() {
    let mut both = connect(65536, 8);
    both.client.submit(ECHO, Style::Unary, b"", None).unwrap();
    assert!(!both.client.commit().needed(), "a server that never slept is not rung");
    both.echo();
    assert_eq!(both.server.arm(), Ok(Armed::Asleep));
    both.client.submit(ECHO, Style::Unary, b"", None).unwrap();
    both.client.submit(ECHO, Style::Unary, b"", None).unwrap();
    assert!(both.client.commit().needed() && !both.client.commit().needed(), "rung once");
    assert_eq!(both.server.arm(), Ok(Armed::Ready));
}

#[test]
fn cancels_that_found_no_room_leave_before_the_client_sleeps() {
    let mut both = connect(4096, 1024);
    let mut ids = Vec::new();
    while let Ok(id) = both.client.submit(2, Style::ServerStream, b"", None) {
        ids.push(id);
    }
    for id in &ids {
        both.client.cancel(*id).unwrap();
    }
    let mut cancelled = 0;
    loop {
        while let Some(inbound) = both.inbound() {
            match inbound {
                Inbound::Call(request) => {
                    both.server.take(&request, &mut []);
                    both.server.open(request.id, Style::ServerStream).unwrap();
                }
                Inbound::Cancelled(_) => cancelled += 1,
                other => panic!("{other:?}"),
            }
        }
        if cancelled == ids.len() {
            break;
        }
        // The server sleeps now, and what it has taken is known.
        assert_eq!(both.server.arm(), Ok(Armed::Asleep));
        let _ = both.server.commit();
        while both.client.arm(false) == Ok(Armed::Ready) {
            while both.receive().is_some() {}
        }
        assert!(both.client.commit().needed(), "the client sleeps over {} cancels", ids.len() - cancelled);
    }
}

#[test]
fn a_handler_is_told_how_long_its_reply_is_so_far_wherever_that_lies() {
    let mut both = connect(65536, 8);
    // The second reply finds no place in the ring, and is built outside of it.
    for hint in [8, 1 << 20] {
        let id = both.client.submit(ECHO, Style::Unary, b"", None).unwrap();
        both.take().unwrap();
        let answered = both.server.answer(id, hint, &mut Vec::new(), keep, |reply| {
            assert!(reply.is_empty());
            reply.put(b"some");
            assert_eq!((reply.len(), reply.is_empty()), (4, false));
            Ok(())
        });
        assert_eq!(answered, Ok(None));
        assert_eq!(both.receive(), Some((id, AnswerKind::Response, b"some".to_vec())));
    }
}

// Faults 31, 59.
#[test]
fn a_client_makes_progress_by_what_it_reads_and_by_nothing_that_it_sends() {
    let mut both = connect(4096, 8);
    assert_eq!(both.server.unread(), Ok(None));
    let id = both.client.submit(ECHO, Style::Unary, b"", None).unwrap();
    both.take().unwrap();
    let answered = both.server.answer(id, 1 << 20, &mut Vec::new(), keep, |reply| {
        reply.put(&[1; 20_000]);
        Ok(())
    });
    assert_eq!((answered, both.server.wants_room()), (Ok(None), true));
    while both.server.wants_room() {
        let before = both.server.unread().unwrap().expect("something waits to be read");
        both.client.cancel(u64::MAX).unwrap();
        let _ = both.inbound();
        both.server.flush().unwrap();
        assert_eq!(both.server.unread(), Ok(Some(before)), "nothing was read meanwhile");
        let _ = both.server.commit();
        while let Some(answer) = both.client.next_answer().unwrap() {
            both.client.take(&answer, &mut vec![0; answer.len]);
        }
        let _ = both.client.arm(false).unwrap();
        both.client.disarm();
        both.server.flush().unwrap();
        assert_ne!(both.server.unread(), Ok(Some(before)), "answers were read");
    }
}

// Fault 69.
#[test]
fn calls_given_up_while_the_server_takes_nothing_fill_no_queue_of_the_clients() {
    let mut both = connect(4096, 8);
    let mut begun = 0;
    for _ in 0..10_000 {
        if let Ok(sending) = both.client.begin_large(Style::Unary, 100_000) {
            begun += 1;
            both.client.cancel(sending.id).unwrap();
        }
    }
    // As many cancels as the ring holds, and the one that found no room.
    assert!(begun <= 4096 / 16, "{begun}");
    while both.inbound().is_some() {}
    assert!(both.client.begin_large(Style::Unary, 100_000).is_ok(), "it goes on once the server does");
}

#[test]
fn hints_and_released_pages_change_nothing() {
    let mut both = connect(65536, 8);
    for payload in [&b"one"[..], b"two"] {
        let id = both.client.submit(ECHO, Style::Unary, payload, None).unwrap();
        let _ = both.client.commit();
        both.server.prefetch();
        both.server.give_back();
        assert_eq!(both.echo(), 1);
        both.server.give_back();
        assert_eq!(both.receive(), Some((id, AnswerKind::Response, payload.to_vec())));
    }
}

#[test]
fn an_error_of_an_open_call_that_waits_for_room_leaves_when_there_is_room() {
    let mut both = connect(4096, 64);
    let calls: Vec<_> = (0..32).map(|_| both.client.submit(ECHO, Style::Unary, b"", None).unwrap()).collect();
    for call in &calls {
        both.take().unwrap();
        assert_eq!(both.server.open(*call, Style::Unary), Ok(true));
    }
    assert!(both.server.is_plain(), "a server's visit finds nothing that waits");
    for call in &calls {
        both.server.fail_open(*call, Failure::new(ErrorCode::Handler, "x".repeat(500)), None).unwrap();
    }
    let _ = both.server.commit();
    assert!(both.server.wants_room());
    assert!(!both.server.is_plain() && both.server.next_call().is_none());
    let mut came = Vec::new();
    while came.len() < calls.len() {
        let (call, kind, _) = both.receive().expect("what waits leaves when there is room");
        assert!(matches!(kind, AnswerKind::Error { .. }), "{kind:?}");
        came.push(call);
        both.server.flush().unwrap();
        let _ = both.server.commit();
    }
    assert_eq!(came, calls);
}
