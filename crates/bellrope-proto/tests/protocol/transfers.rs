//! Large messages in parts, and streams from the client.

use bellrope_proto::{
    BufferBudget,
    connection::{AnswerKind, Failure, Inbound, Loss, Reply, Sending, SubmitError},
    frame::{ErrorCode, Rejection},
    handshake::Style,
    ring::Armed,
};

use crate::both::{Both, ECHO, MAX_MESSAGE, connect, keep};

/// A payload in which every part differs from every other.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// Sends a whole large request; the server takes parts as they come.
fn send_large(both: &mut Both, payload: &[u8]) -> u64 {
    let mut sending = both.client.begin_large(Style::Unary, payload.len()).unwrap();
    while !both.client.push_large(&mut sending, ECHO, payload, Some(77)).unwrap() {
        match both.inbound() {
            Some(Inbound::Large(announced)) => both.accept(&announced),
            Some(Inbound::Part(_)) | None => {}
            other => panic!("{other:?}"),
        }
    }
    sending.id
}

#[test]
fn a_large_message_travels_both_ways_through_a_small_ring() {
    for (capacity, len) in [(4096, 100_000), (65536, 1 << 20), (65536, 16_385), (65536, 32_768), (262_144, 300_001)] {
        let mut both = connect(capacity, 8);
        let payload = pattern(len);
        let id = send_large(&mut both, &payload);
        let (taken, request) = both.take().unwrap();
        assert_eq!((taken, request.len()), (id, len));
        let answered = both.server.answer(id, 0, &mut Vec::new(), keep, |reply| {
            request.chunks(1000).for_each(|piece| reply.put(piece));
            Ok(())
        });
        assert_eq!(answered, Ok(None));
        let response = loop {
            if let Some((answered, AnswerKind::Response, response)) = both.receive() {
                assert_eq!(answered, id);
                break response;
            }
            both.server.flush().unwrap();
        };
        assert!(request == payload && response == payload, "{len} bytes through a ring of {capacity}");
        assert_eq!((both.client.in_flight(), both.server.is_stalled()), (0, false));
    }
}

#[test]
fn whoever_sleeps_is_woken_for_the_first_part_and_not_for_the_last() {
    let mut both = connect(262_144, 8);
    let payload = pattern(150_000);
    assert_eq!(both.server.arm(), Ok(Armed::Asleep));
    let mut sending = both.client.begin_large(Style::Unary, payload.len()).unwrap();
    assert!(!both.client.push_large(&mut sending, ECHO, &payload, None).unwrap(), "one part, then the doorbell");
    assert!(both.client.commit().needed() && both.server.is_ready());
    assert!(
        both.client.push_large(&mut sending, ECHO, &payload, None).unwrap(),
        "nobody sleeps: all that there is room for"
    );
    assert!(!both.client.commit().needed());

    let (id, request) = both.take().unwrap();
    assert_eq!(both.client.arm(false), Ok(Armed::Asleep));
    let answered = both.server.answer(id, 0, &mut Vec::new(), keep, |reply| {
        reply.put(&request);
        Ok(())
    });
    assert_eq!(answered, Ok(None));
    assert!(both.server.wants_room() && both.server.commit().needed() && both.client.is_ready());
    assert_eq!(both.server.flush(), Ok(true));
    assert!(!both.server.wants_room() && !both.server.commit().needed());
    assert!(both.receive().unwrap().2 == payload);
}

#[test]
fn small_calls_and_cancels_pass_between_the_parts_of_a_large_request() {
    let mut both = connect(65536, 8);
    let payload = pattern(500_000);
    let mut sending = both.client.begin_large(Style::Unary, payload.len()).unwrap();
    assert!(!both.client.push_large(&mut sending, ECHO, &payload, None).unwrap());
    assert_eq!(both.client.begin_large(Style::Unary, 20_000), Err(SubmitError::Full), "one at a time");
    let (mut small, mut done) = (Vec::new(), false);
    while !done {
        done = both.client.push_large(&mut sending, ECHO, &payload, None).unwrap();
        small.extend(both.client.submit(ECHO, Style::Unary, b"small", None));
        match both.inbound() {
            Some(Inbound::Large(announced)) => both.accept(&announced),
            Some(Inbound::Call(request)) => {
                both.payload(&request);
                both.server.answer(request.id, 8, &mut Vec::new(), keep, |_| Ok(())).unwrap();
                assert_eq!(both.receive().unwrap().0, request.id);
            }
            _ => {}
        }
    }
    assert!(!small.is_empty());
    let large = std::iter::from_fn(|| both.take()).find(|(id, _)| *id == sending.id).unwrap();
    assert!(large.1 == payload);
}

#[test]
fn a_large_request_waits_in_its_own_ring_until_it_is_let_in() {
    let mut both = connect(65536, 8);
    let mut sending = both.client.begin_large(Style::Unary, 200_000).unwrap();
    let payload = pattern(200_000);
    both.client.push_large(&mut sending, ECHO, &payload, None).unwrap();
    let Some(Inbound::Large(announced)) = both.inbound() else { panic!("no large request") };
    assert_eq!((announced.id, announced.size), (sending.id, 200_000));
    assert_eq!(both.inbound(), Some(Inbound::Large(announced)), "it is still there");
    let budget = BufferBudget::new(250_000);
    let reservation = budget.reserve(announced.size).unwrap();
    both.server.accept_large(&announced, vec![0; 200_000], reservation);
    while !both.client.push_large(&mut sending, ECHO, &payload, None).unwrap() {
        assert!(matches!(both.inbound(), None | Some(Inbound::Part(_))));
    }
    assert_eq!(budget.used(), 200_000);
    assert!(both.take().unwrap().1 == payload);
    assert_eq!(budget.used(), 0, "what took the payload gave the budget back");
}

#[test]
fn a_refused_large_request_is_answered_at_once_and_its_parts_are_dropped() {
    let mut both = connect(65536, 8);
    let payload = pattern(300_000);
    let mut sending = both.client.begin_large(Style::Unary, payload.len()).unwrap();
    both.client.push_large(&mut sending, ECHO, &payload, None).unwrap();
    let Some(Inbound::Large(announced)) = both.inbound() else { panic!("no large request") };
    both.server.refuse_large(&announced, Failure::rejected(Rejection::Busy, "no room")).unwrap();
    let (id, kind, text) = both.receive().unwrap();
    let detail = Rejection::Busy.to_detail(None);
    assert_eq!((id, kind), (sending.id, AnswerKind::Error { code: ErrorCode::Rejected, detail }));
    assert_eq!(text, b"no room");
    the_next_one_is_welcome(&mut both, &mut sending, &payload);
}

/// What is left of a large request that was refused is not sent any more, and the next one is taken.
fn the_next_one_is_welcome(both: &mut Both, sending: &mut Sending, payload: &[u8]) {
    assert!(both.client.push_large(sending, ECHO, payload, None).unwrap(), "there is no more to send");
    while both.server.is_assembling() {
        assert!(matches!(both.inbound(), None | Some(Inbound::Part(_))));
    }
    let id = send_large(both, payload);
    assert_eq!(both.take().unwrap().0, id, "the next one is welcome");
}

#[test]
fn a_large_request_that_loses_its_room_is_refused_and_never_runs() {
    let mut both = connect(65536, 8);
    let payload = pattern(300_000);
    let mut sending = both.client.begin_large(Style::Unary, payload.len()).unwrap();
    both.client.push_large(&mut sending, ECHO, &payload, None).unwrap();
    let Some(Inbound::Large(announced)) = both.inbound() else { panic!("no large request") };
    let budget = BufferBudget::new(300_000);
    both.server.accept_large(&announced, vec![0; 300_000], budget.reserve(300_000).unwrap());
    assert!(matches!(both.inbound(), Some(Inbound::Part(_))));
    let unfinished = both.server.unfinished().unwrap();
    assert!(unfinished.id == sending.id && unfinished.size == 300_000 && unfinished.filled > 0);
    let failure = || Failure::rejected(Rejection::Busy, "too slow");
    assert_eq!(both.server.revoke_large(failure()), Ok(true));
    assert_eq!((budget.used(), both.server.unfinished()), (0, None));
    assert_eq!(both.server.revoke_large(failure()), Ok(false), "there is nothing more to lose");
    let (id, kind, _) = both.receive().unwrap();
    let detail = Rejection::Busy.to_detail(None);
    assert_eq!((id, kind), (sending.id, AnswerKind::Error { code: ErrorCode::Rejected, detail }));
    the_next_one_is_welcome(&mut both, &mut sending, &payload);
}

#[test]
fn a_reply_that_is_adopted_is_the_whole_reply_however_large_it_is() {
    let mut both = connect(65536, 8);
    for len in [0, 5, 16_000, 200_000, MAX_MESSAGE as usize] {
        let id = both.client.submit(ECHO, Style::Unary, b"go", None).unwrap();
        both.take().unwrap();
        let mut message = pattern(len);
        let answered = both.server.answer(id, 2, &mut Vec::new(), keep, |reply| {
            reply.put(b"of no more use");
            reply.adopt(&mut message);
            assert_eq!(reply.len(), len);
            Ok(())
        });
        assert_eq!(answered, Ok(None));
        let response = loop {
            if let Some((_, AnswerKind::Response, response)) = both.receive() {
                break response;
            }
            both.server.flush().unwrap();
        };
        assert!(response == pattern(len), "{len} bytes");
    }
    let id = both.client.submit(ECHO, Style::Unary, b"go", None).unwrap();
    both.take().unwrap();
    let mut message = pattern(MAX_MESSAGE as usize + 1);
    let adopt = |reply: &mut Reply<'_>| {
        reply.adopt(&mut message);
        Ok(())
    };
    let failure = both.server.answer(id, 2, &mut Vec::new(), keep, adopt).unwrap().unwrap();
    assert_eq!(failure.code, ErrorCode::MessageTooLarge);
}

#[test]
fn a_cancelled_large_request_never_runs_and_gives_its_memory_back() {
    let mut both = connect(65536, 8);
    let payload = pattern(300_000);
    let mut sending = both.client.begin_large(Style::Unary, payload.len()).unwrap();
    both.client.push_large(&mut sending, ECHO, &payload, None).unwrap();
    let Some(Inbound::Large(announced)) = both.inbound() else { panic!("no large request") };
    let budget = BufferBudget::new(300_000);
    let reservation = budget.reserve(300_000).unwrap();
    both.server.accept_large(&announced, vec![0; 300_000], reservation);
    assert_eq!(both.client.loss(sending.id), Loss::NotExecuted, "what is not there whole cannot have run");
    both.client.cancel(sending.id).unwrap();
    while both.server.is_assembling() {
        assert!(matches!(both.inbound(), None | Some(Inbound::Part(_))));
    }
    assert_eq!(budget.used(), 0);
    let id = send_large(&mut both, &payload);
    assert_eq!(both.take().unwrap().0, id);
}

#[test]
fn a_large_response_is_overtaken_by_small_ones_and_dropped_when_cancelled() {
    let mut both = connect(65536, 8);
    let large = both.client.submit(ECHO, Style::Unary, b"", None).unwrap();
    let small = both.client.submit(ECHO, Style::Unary, b"", None).unwrap();
    for id in [large, small] {
        both.take().unwrap();
        both.server.open(id, Style::Unary).unwrap();
    }
    both.server.respond(large, Ok(pattern(600_000))).unwrap();
    assert!(both.server.wants_room(), "there is more than the ring holds");
    both.server.respond(small, Ok(b"quick".to_vec())).unwrap();
    let answer = loop {
        if let Some(answer) = both.receive() {
            break answer;
        }
        both.server.flush().unwrap();
    };
    assert_eq!(answer, (small, AnswerKind::Response, b"quick".to_vec()));
    assert!(both.client.cancel(large).unwrap());
    while both.server.wants_room() {
        assert_eq!((both.inbound(), both.receive()), (None, None));
        both.server.flush().unwrap();
    }
    both.client.submit(ECHO, Style::Unary, b"on", None).unwrap();
    both.echo();
    assert_eq!(both.receive().unwrap().2, b"on");
}

#[test]
fn requests_are_admitted_while_large_responses_are_on_their_way_until_those_are_more_than_a_megabyte() {
    let mut both = connect(65536, 64);
    let mut ids = Vec::new();
    while !both.server.is_stalled() {
        let id = both.client.submit(ECHO, Style::Unary, b"", None).unwrap();
        assert_eq!(both.take().unwrap().0, id, "it is admitted");
        ids.push(id);
        both.server.open(id, Style::Unary).unwrap();
        both.server.respond(id, Ok(pattern(200_000))).unwrap();
    }
    assert!((6..=7).contains(&ids.len()), "{} responses of 200,000 bytes wait", ids.len());
    let last = ids.pop().unwrap();
    both.client.cancel(last).unwrap();
    assert_eq!(both.inbound(), None);
    assert!(!both.server.is_stalled(), "what was cancelled is not sent");
    let id = both.client.submit(ECHO, Style::Unary, b"", None).unwrap();
    both.take().unwrap();
    both.server.open(id, Style::Unary).unwrap();
    both.server.respond(id, Ok(pattern(200_000))).unwrap();
    ids.push(id);
    both.client.submit(ECHO, Style::Unary, b"", None).unwrap();
    assert_eq!(both.inbound(), None, "the next one waits in its ring");
    assert!(both.server.is_stalled() && both.server.unread().unwrap().is_some());
    while let Some(id) = ids.first().copied() {
        if let Some((answered, AnswerKind::Response, response)) = both.receive() {
            assert_eq!((answered, response.len()), (id, 200_000), "one after the other");
            ids.remove(0);
        }
        both.server.flush().unwrap();
    }
    assert!(!both.server.wants_room() && both.server.unread() == Ok(None));
}

/// Sends chunks until there is no credit, lets the server take them, and so on. Answers what the server got.
fn upload(both: &mut Both, id: u64, chunks: u32, consume: bool) -> Vec<u32> {
    let (mut next, mut got, mut idle) = (0, Vec::new(), 0);
    while idle < 3 {
        idle += 1;
        while next < chunks && both.client.send_chunk(id, &next.to_le_bytes()) == Ok(true) {
            next += 1;
        }
        while let Some(Inbound::Chunk(chunk)) = both.inbound() {
            let mut payload = [0; 4];
            both.server.take_chunk(&chunk, &mut payload);
            got.push(u32::from_le_bytes(payload));
            if consume {
                both.server.consumed(id, 4).unwrap();
            }
            idle = 0;
        }
        while let Some((_, kind, _)) = both.receive() {
            assert_eq!(kind, AnswerKind::Credit);
            idle = 0;
        }
    }
    got
}

#[test]
fn a_stream_from_the_client_comes_whole_in_order_and_under_credit() {
    let mut both = connect(65536, 8);
    let id = both.client.submit(3, Style::ClientStream, b"sum", None).unwrap();
    both.take().unwrap();
    both.server.open(id, Style::ClientStream).unwrap();
    let stuck = upload(&mut both, id, 500, false);
    assert!(stuck.len() < 20 && both.client.lacks_credit(id), "{} chunks without any credit back", stuck.len());
    both.client.cancel(id).unwrap();
    assert_eq!(both.inbound(), Some(Inbound::Cancelled(id)));
    assert_eq!(both.receive(), None);

    let id = both.client.submit(3, Style::ClientStream, b"sum", None).unwrap();
    both.take().unwrap();
    both.server.open(id, Style::ClientStream).unwrap();
    assert_eq!(upload(&mut both, id, 500, true), (0..500).collect::<Vec<_>>());
    both.client.end_upload(id).unwrap();
    assert_eq!(both.client.send_chunk(id, b"more"), Ok(false), "ended is ended");
    assert_eq!(both.inbound(), Some(Inbound::Ended(id)));
    both.server.respond(id, Ok(b"500".to_vec())).unwrap();
    assert_eq!(both.receive(), Some((id, AnswerKind::Response, b"500".to_vec())));
    assert_eq!((both.client.in_flight(), both.server.open_calls()), (0, 0));
}

#[test]
fn streams_go_both_ways_at_once_and_an_early_end_stops_the_sender() {
    let mut both = connect(65536, 8);
    let id = both.client.submit(4, Style::Duplex, b"", None).unwrap();
    both.take().unwrap();
    both.server.open(id, Style::Duplex).unwrap();
    for n in 0..10_u8 {
        assert_eq!(both.client.send_chunk(id, &[n]), Ok(true));
        let Some(Inbound::Chunk(chunk)) = both.inbound() else { panic!("no chunk") };
        let mut payload = [0];
        both.server.take_chunk(&chunk, &mut payload);
        both.server.chunk(id, vec![payload[0] * 2]).unwrap();
        assert_eq!(both.receive(), Some((id, AnswerKind::Chunk, vec![n * 2])));
    }
    both.server.finish(id, Ok(())).unwrap();
    assert_eq!(both.client.send_chunk(id, b"late"), Ok(true), "it crosses the end on the way");
    assert_eq!(both.receive(), Some((id, AnswerKind::End, Vec::new())));
    assert_eq!(both.client.send_chunk(id, b"later"), Ok(false));
    assert_eq!(both.inbound(), None, "the late chunk is dropped");
    assert_eq!((both.client.in_flight(), both.server.open_calls()), (0, 0));
}
