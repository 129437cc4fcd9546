//! Rules that take more than one record to break: whoever breaks one is told apart from all others, at either end.

use std::sync::Arc;

use bellrope_proto::{
    BufferBudget, Violation,
    connection::{ClientConnection, Inbound, ServerConnection, Terms, pair},
    frame::Kind,
    handshake::Style,
    layout::Geometry,
    ring::{Producer, RecordClass},
};
use bellrope_shm::SharedMemory;

const WINDOW: u32 = 1024;
const MAX_MESSAGE: u32 = 64 * 1024;

fn terms() -> Terms {
    Terms {
        geometry: Geometry::new(16 * 1024).unwrap(),
        max_message: MAX_MESSAGE,
        max_in_flight: 16,
        stream_window: WINDOW,
    }
}

/// A record of a peer's: kind, message type, call, extension, payload bytes.
type Written = (Kind, u16, u64, Option<u64>, usize);

fn write(peer: &mut Producer, records: &[Written]) {
    for &(kind, message_type, id, extension, len) in records {
        assert!(peer.push(RecordClass::Bulk, kind, message_type, id, extension, &vec![7; len]).unwrap());
    }
    let _ = peer.publish();
}

/// What a server says to a client that sends these. Types 0 to 3 have the four styles; nothing is answered or consumed.
fn server_says(records: &[Written]) -> Result<(), Violation> {
    let memory: Arc<SharedMemory> = SharedMemory::anonymous(terms().geometry.mapping_len());
    let (_, mut server) = pair::<Vec<u8>>(&memory, terms());
    write(&mut Producer::new(memory.view(terms().geometry.requests()), terms().geometry), records);
    drive_server(&mut server)
}

fn drive_server(server: &mut ServerConnection<Vec<u8>>) -> Result<(), Violation> {
    while let Some(inbound) = server.next_inbound()? {
        match inbound {
            Inbound::Call(request) | Inbound::Described(request, _) if request.large => {
                drop(server.take_large(&request)?);
            }
            Inbound::Call(request) | Inbound::Described(request, _) => {
                server.take(&request, &mut vec![0; request.len]);
                let styles = [Style::Unary, Style::ServerStream, Style::ClientStream, Style::Duplex];
                server.open(request.id, styles[usize::from(request.message_type)])?;
            }
            Inbound::Large(announced) => {
                let reservation = BufferBudget::new(announced.size).reserve(announced.size).unwrap();
                server.accept_large(&announced, vec![0; announced.size as usize], reservation);
            }
            Inbound::Chunk(chunk) => server.take_chunk(&chunk, &mut vec![0; chunk.len]),
            Inbound::Part(_) | Inbound::Ended(_) | Inbound::Cancelled(_) | Inbound::Left(_) => {}
        }
    }
    Ok(())
}

#[test]
fn each_rule_that_a_client_breaks_has_its_own_reason() {
    let part = |id, whole, len| (Kind::Fragment, 0, id, Some(whole), len);
    let call = |message_type, id| (Kind::Request, message_type, id, None, 8);
    let last = |id, len| (Kind::Request, 0, id, None, len);
    let chunk = |id, number, len| (Kind::Chunk, 0, id, Some(number), len);
    let end = |id, chunks| (Kind::End, 0, id, Some(chunks), 0);
    let broken: &[(&str, &[Written])] = &[
        ("interleaved", &[part(1, 3000, 1000), part(2, 3000, 1000)]),
        ("bad_size", &[part(1, 3000, 1000), part(1, 4000, 1000)]),
        ("bad_size", &[part(1, 1000, 1000)]),
        ("bad_size", &[part(1, 3000, 1000), last(1, 100)]),
        ("duplicate_call", &[call(0, 1), call(0, 1)]),
        ("duplicate_call", &[call(1, 1), call(0, 1)]),
        ("bad_sequence", &[call(2, 1), chunk(1, 1, 10)]),
        ("bad_sequence", &[call(2, 1), chunk(1, 1 << 40, 10)]),
        ("bad_sequence", &[call(2, 1), chunk(1, 0, 10), end(1, 5)]),
        ("credit_exceeded", &[call(3, 1), chunk(1, 0, 1000), chunk(1, 1, 10)]),
        ("credit_overflow", &[call(1, 1), (Kind::Credit, 0, 1, Some(1 << 40), 0)]),
        ("bad_direction", &[(Kind::Error, 0, 1, None, 5)]),
    ];
    for (reason, records) in broken {
        assert_eq!(server_says(records).unwrap_err().name(), *reason, "{records:?}");
    }
    let kept: &[&[Written]] = &[
        &[part(1, 3000, 1000), part(1, 3000, 1000), last(1, 1000), call(0, 2)],
        &[call(2, 1), chunk(1, 0, 10), chunk(1, 1, 10), end(1, 2)],
        &[chunk(9, 3, 10), end(9, 77), (Kind::Credit, 0, 9, Some(1), 0), (Kind::Cancel, 0, 9, None, 0), call(0, 1)],
    ];
    for records in kept {
        assert_eq!(server_says(records), Ok(()), "{records:?}");
    }
}

/// What a client says to a server that sends these. Four calls of it are under way: unary, answered with a stream, made
/// with one, and unary. Of what comes, nothing is consumed.
fn client_says(records: impl Fn(&[u64]) -> Vec<Written>) -> (Result<(), Violation>, ClientConnection) {
    let memory: Arc<SharedMemory> = SharedMemory::anonymous(terms().geometry.mapping_len());
    let (mut client, _) = pair::<Vec<u8>>(&memory, terms());
    let styles = [Style::Unary, Style::ServerStream, Style::ClientStream, Style::Unary];
    let ids: Vec<u64> = styles.into_iter().map(|style| client.submit(1, style, b"", None).unwrap()).collect();
    write(&mut Producer::new(memory.view(terms().geometry.responses()), terms().geometry), &records(&ids));
    let said = drive_client(&mut client);
    (said, client)
}

fn drive_client(client: &mut ClientConnection) -> Result<(), Violation> {
    while let Some(answer) = client.next_answer()? {
        client.take(&answer, &mut vec![0; answer.len]);
    }
    Ok(())
}

#[test]
fn each_rule_that_a_server_breaks_has_its_own_reason() {
    let part = |id, whole, len| (Kind::Fragment, 0, id, Some(whole), len);
    let chunk = |id, number, len| (Kind::Chunk, 0, id, Some(number), len);
    let response = |id, len| (Kind::Response, 0, id, None, len);
    type Answers<'a> = &'a dyn Fn(&[u64]) -> Vec<Written>;
    let broken: &[(&str, Answers<'_>)] = &[
        ("interleaved", &|ids| vec![part(ids[0], 3000, 1000), part(ids[3], 3000, 1000)]),
        ("bad_size", &|ids| vec![part(ids[0], 3000, 1000), response(ids[0], 10)]),
        ("bad_size", &|ids| vec![part(ids[0], 3000, 1000), part(ids[0], 2500, 1000)]),
        ("bad_size", &|ids| vec![part(ids[0], u64::from(MAX_MESSAGE) + 1, 1000)]),
        ("bad_sequence", &|ids| vec![chunk(ids[1], 4, 10)]),
        ("bad_sequence", &|ids| vec![(Kind::End, 0, ids[1], Some(1), 0)]),
        ("credit_exceeded", &|ids| vec![chunk(ids[1], 0, 2000), chunk(ids[1], 1, 10)]),
        ("credit_overflow", &|ids| vec![(Kind::Credit, 0, ids[2], Some(1), 0)]),
        ("bad_form", &|ids| vec![response(ids[1], 10)]),
        ("bad_form", &|ids| vec![chunk(ids[0], 0, 10)]),
        ("bad_direction", &|ids| vec![(Kind::Request, 1, ids[0], None, 10)]),
    ];
    for (reason, records) in broken {
        assert_eq!(client_says(records).0.unwrap_err().name(), *reason);
    }
}

#[test]
fn answers_that_nobody_waits_for_are_dropped_and_counted_and_small_ones_pass_between_parts() {
    let (said, client) = client_says(|ids| {
        vec![
            (Kind::Response, 0, 1 << 40, None, 10),
            (Kind::Error, 3, 1 << 40, None, 10),
            (Kind::Chunk, 0, 1 << 40, Some(9), 10),
            (Kind::Fragment, 0, ids[0], Some(1500), 1000),
            (Kind::Response, 0, ids[3], None, 10),
            (Kind::Response, 0, ids[0], None, 500),
        ]
    });
    assert_eq!((said, client.dropped_answers(), client.in_flight()), (Ok(()), 3, 2));
}

#[test]
fn a_large_request_is_given_out_once() {
    let memory: Arc<SharedMemory> = SharedMemory::anonymous(terms().geometry.mapping_len());
    let (_, mut server) = pair::<Vec<u8>>(&memory, terms());
    write(
        &mut Producer::new(memory.view(terms().geometry.requests()), terms().geometry),
        &[(Kind::Fragment, 0, 1, Some(1500), 1000), (Kind::Request, 0, 1, None, 500)],
    );
    let Some(Inbound::Large(announced)) = server.next_inbound().unwrap() else { panic!("a large request was due") };
    server.accept_large(&announced, vec![0; 1500], BufferBudget::new(1500).reserve(1500).unwrap());
    assert_eq!(server.next_inbound(), Ok(Some(Inbound::Part(1000))));
    let Some(Inbound::Call(request)) = server.next_inbound().unwrap() else { panic!("its last part was due") };
    assert_eq!(server.take_large(&request).unwrap().0, [7; 1500]);
    assert_eq!(server.take_large(&request).unwrap_err().name(), "bad_form");
}

#[test]
fn a_flood_of_doorbell_rings_has_its_own_reason() {
    let flood = Violation::DoorbellFlood(5000);
    assert_eq!((flood.name(), flood.to_string().contains("5000")), ("doorbell_flood", true));
}
