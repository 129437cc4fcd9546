//! Whatever the other side writes into the shared memory, this side neither panics nor hangs: it goes on, or closes
//! the connection with a typed reason.

use std::sync::Arc;

use bellrope_proto::{
    BufferBudget, Violation,
    connection::{ClientConnection, Failure, Inbound, ServerConnection, Terms, pair},
    frame::{Header, Kind},
    handshake::Style,
    layout::{CONSUMER_POSITION, Geometry, RECORDS},
};
use bellrope_shm::{SharedMemory, sync::Ordering};
use proptest::prelude::*;

const CAPACITY: u32 = 4096;

fn terms() -> Terms {
    Terms { geometry: Geometry::new(CAPACITY).unwrap(), max_message: 64 * 1024, max_in_flight: 16, stream_window: 1024 }
}

/// The same with rings that have a front and a back.
fn compact_terms() -> Terms {
    Terms { geometry: terms().geometry.into_compact(), ..terms() }
}

fn memory(terms: Terms) -> Arc<SharedMemory> {
    SharedMemory::anonymous(terms.geometry.mapping_len())
}

/// Everything a server does in a visit, a bounded number of times.
fn drive_server(server: &mut ServerConnection<Vec<u8>>) -> Result<(), Violation> {
    let mut scratch = vec![0; server.max_record()];
    let mut spill = Vec::new();
    for _ in 0..200 {
        server.flush()?;
        if serve_straight(server, &mut scratch, &mut spill)? {
            continue;
        }
        let Some(inbound) = server.next_inbound()? else { break };
        match inbound {
            Inbound::Call(request) | Inbound::Described(request, _) if request.large => {
                let (payload, _reservation) = server.take_large(&request)?;
                server.answer(request.id, payload.len(), &mut spill, Ok, |reply| {
                    reply.put(&payload);
                    Ok(())
                })?;
            }
            Inbound::Call(request) | Inbound::Described(request, _) => {
                let payload = &mut scratch[..request.len];
                server.take(&request, payload);
                let style = [Style::Unary, Style::ServerStream, Style::ClientStream, Style::Duplex];
                if request.message_type == 0 {
                    server.answer(request.id, 64, &mut spill, Ok, |reply| {
                        reply.put(payload);
                        Ok(())
                    })?;
                } else if server.open(request.id, style[usize::from(request.message_type) % 4])?
                    && request.message_type == 1
                {
                    server.chunk(request.id, payload.to_vec())?;
                    server.finish(request.id, Ok(()))?;
                }
            }
            Inbound::Large(announced) if announced.size > 64 * 1024 => {
                server.refuse_large(&announced, Failure::too_large("request", announced.size, 64 * 1024))?;
            }
            Inbound::Large(announced) => {
                let reservation = BufferBudget::new(announced.size).reserve(announced.size).unwrap();
                server.accept_large(&announced, vec![0; announced.size as usize], reservation);
            }
            Inbound::Chunk(chunk) => {
                server.take_chunk(&chunk, &mut scratch[..chunk.len]);
                server.consumed(chunk.id, chunk.len)?;
            }
            Inbound::Ended(id) => server.respond(id, Ok(vec![0; 3000]))?,
            Inbound::Part(_) | Inbound::Cancelled(_) | Inbound::Left(_) => {}
        }
    }
    server.arm()?;
    Ok(())
}

/// The call at the front, the way in which a worker looks first. Answers whether it was one that goes there.
fn serve_straight(
    server: &mut ServerConnection<Vec<u8>>,
    scratch: &mut [u8],
    spill: &mut Vec<u8>,
) -> Result<bool, Violation> {
    if !server.admits_calls() {
        return Ok(false);
    }
    let front = server.front();
    let call = server.plain_call(front, false).or_else(|| server.plain_call(front, true));
    let Some(call) = call.filter(|call| call.message_type == 0) else {
        server.saw_nothing(front);
        return Ok(false);
    };
    let payload = &mut scratch[..call.len];
    server.take_plain(&call, payload);
    server.answer(call.id, 64, spill, Ok, |reply| {
        reply.put(payload);
        Ok(())
    })?;
    Ok(true)
}

/// Everything a client does while it waits, a bounded number of times.
fn drive_client(client: &mut ClientConnection) -> Result<(), Violation> {
    let mut scratch = vec![0; client.max_record().max(CAPACITY as usize)];
    for _ in 0..200 {
        if client.take_response(|len| &mut scratch[..len]).is_some() {
            continue;
        }
        let Some(answer) = client.next_answer()? else { break };
        let mut payload = vec![0; answer.len];
        client.take(&answer, &mut payload);
        client.consumed(answer.id, answer.len)?;
    }
    client.arm(true)?;
    Ok(())
}

/// A header that is nearly right, so that the checks behind the first are reached too.
fn plausible_word() -> impl Strategy<Value = u64> {
    prop_oneof![
        2 => any::<u64>(),
        8 => (0..2000_u32, 0..4_u16, 1..11_u8, 0..4_u8).prop_map(|(len, message_type, kind, flags)| {
            // An extension or none is what honest records have, and the other flag is for the front of compact rings.
            let flags = if flags == 3 { 3 } else { flags & 1 };
            u64::from(len) | u64::from(message_type) << 32 | u64::from(kind) << 48 | u64::from(flags) << 56
        }),
        2 => 0..CAPACITY as u64 * 4,
        1 => Just(Header::pad()),
        1 => Just(Header::pad() | 2 << 56),
        1 => Just(u64::MAX),
        1 => Just(0),
    ]
}

/// Writes of the peer's: into the records mostly, and into the head now and then.
fn writes() -> impl Strategy<Value = Vec<(usize, u64)>> {
    let offset = prop_oneof![
        6 => 0..40_usize,
        3 => 0..CAPACITY as usize / 8,
        1 => Just(usize::MAX),
    ];
    prop::collection::vec((offset, plausible_word()), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    // Faults 1, 7.
    #[test]
    fn a_server_survives_any_memory(rounds in prop::collection::vec(writes(), 1..6), compact: bool) {
        let terms = if compact { compact_terms() } else { terms() };
        let memory = memory(terms);
        let (_, mut server) = pair::<Vec<u8>>(&memory, terms);
        let requests = memory.view(terms.geometry.requests());
        let responses = memory.view(terms.geometry.responses());
        for round in rounds {
            for (at, word) in round {
                if at == usize::MAX {
                    responses.store(CONSUMER_POSITION, word, Ordering::Relaxed);
                } else {
                    requests.store(RECORDS + at * 8, word, Ordering::Relaxed);
                }
            }
            if drive_server(&mut server).is_err() {
                break;
            }
        }
    }

    // Faults 1, 7, 39.
    #[test]
    fn a_client_survives_any_memory(
        rounds in prop::collection::vec(writes(), 1..6),
        calls in 0..8_u64,
        compact: bool,
    ) {
        let terms = if compact { compact_terms() } else { terms() };
        let memory = memory(terms);
        let (mut client, _) = pair::<Vec<u8>>(&memory, terms);
        let requests = memory.view(terms.geometry.requests());
        let responses = memory.view(terms.geometry.responses());
        let ids: Vec<_> = (0..calls)
            .map(|call| {
                let styles = [Style::Unary, Style::ServerStream, Style::ClientStream, Style::Duplex];
                client.submit(1, styles[call as usize % 4], &[], None).unwrap()
            })
            .collect();
        for round in rounds {
            for (index, (at, word)) in round.into_iter().enumerate() {
                if at == usize::MAX {
                    requests.store(CONSUMER_POSITION, word, Ordering::Relaxed);
                } else {
                    // Call ids that are under way make the later checks worth reaching.
                    let id = ids.get(index).copied().filter(|_| at % 2 == 1);
                    responses.store(RECORDS + at * 8, id.unwrap_or(word), Ordering::Relaxed);
                }
            }
            if drive_client(&mut client).is_err() {
                break;
            }
        }
    }
}

/// What a server says to one request record written by hand, if its header is `word`.
fn verdict(word: u64) -> Result<(), Violation> {
    verdict_with(terms(), RECORDS, word)
}

fn verdict_with(terms: Terms, at: usize, word: u64) -> Result<(), Violation> {
    let memory = memory(terms);
    let (_, mut server) = pair::<Vec<u8>>(&memory, terms);
    let requests = memory.view(terms.geometry.requests());
    if at > RECORDS {
        // A record before it, of the right size.
        let len = (at - RECORDS - 16) as u32;
        let header = Header { len, message_type: 0, kind: Kind::Request, extended: false };
        requests.store(RECORDS, header.encode(), Ordering::Relaxed);
    }
    requests.store(at, word, Ordering::Relaxed);
    drive_server(&mut server)
}

// Faults 1, 7.
#[test]
fn each_bad_word_of_a_compact_ring_has_its_own_reason() {
    let header = |len, kind| Header { len, message_type: 0, kind, extended: false }.encode();
    let flag = 2 << 56;
    let at_start = |word| verdict_with(compact_terms(), RECORDS, word);
    let further = |word| verdict_with(compact_terms(), RECORDS + 256, word);
    // A record that lets the ring start over, where nothing follows; a pad to the back, where nothing is.
    assert_eq!(at_start(header(10, Kind::Request) | flag), Ok(()));
    assert_eq!(further(header(10, Kind::Request) | flag), Ok(()));
    assert_eq!((at_start(Header::pad()), further(Header::pad())), (Ok(()), Ok(())));
    assert_eq!(further(Header::pad() | flag), Ok(()), "it leads to the first record, once more");
    assert_eq!(at_start(Header::pad() | flag).unwrap_err().name(), "bad_pad");
    assert_eq!(at_start(header(1800, Kind::Request)).unwrap_err().name(), "bad_length");
    assert_eq!(at_start(header(1800, Kind::Request) | flag).unwrap_err().name(), "bad_length");
    assert_eq!(further(header(1500, Kind::Request)).unwrap_err().name(), "bad_length");
    assert_eq!(at_start(header(1, Kind::Request) | 4 << 56).unwrap_err().name(), "bad_header");
    assert_eq!(at_start(0x00FF_0000_0000_0001 | flag).unwrap_err().name(), "bad_header");
    assert_eq!(verdict(header(10, Kind::Request) | flag).unwrap_err().name(), "bad_header", "other rings have no flag");
    assert_eq!(verdict(Header::pad() | flag).unwrap_err().name(), "bad_header");
}

// Faults 1, 7.
#[test]
fn each_kind_of_bad_record_has_its_own_reason() {
    let header = |len, kind, extended| Header { len, message_type: 0, kind, extended }.encode();
    assert_eq!(verdict(header(10, Kind::Request, false)), Ok(()));
    assert_eq!(verdict(0x00FF_0000_0000_0001).unwrap_err().name(), "bad_header");
    assert_eq!(verdict(header(5000, Kind::Request, false)).unwrap_err().name(), "bad_length");
    assert_eq!(verdict(header(u32::MAX, Kind::Request, true)).unwrap_err().name(), "bad_length");
    assert_eq!(verdict(Header::pad()).unwrap_err().name(), "bad_pad");
    assert_eq!(verdict(header(0, Kind::Response, false)).unwrap_err().name(), "bad_direction");
    assert_eq!(verdict(header(0, Kind::Credit, false)).unwrap_err().name(), "bad_form");
    assert_eq!(verdict(header(3, Kind::Cancel, false)).unwrap_err().name(), "bad_form");
    assert_eq!(verdict(header(3, Kind::Fragment, false)).unwrap_err().name(), "bad_form");
    assert_eq!(verdict(header(0, Kind::Fragment, true)).unwrap_err().name(), "bad_form");
    assert_eq!(verdict(header(3, Kind::Chunk, false)).unwrap_err().name(), "bad_form");
}

// Fault 8.
#[test]
fn a_flood_of_pads_and_cancels_is_handled_in_bounded_turns() {
    let memory = memory(terms());
    let (_, mut server) = pair::<Vec<u8>>(&memory, terms());
    let requests = memory.view(terms().geometry.requests());
    let cancel = Header { len: 0, message_type: 0, kind: Kind::Cancel, extended: false }.encode();
    for at in (0..CAPACITY as usize - 8).step_by(16) {
        requests.store(RECORDS + at, cancel, Ordering::Relaxed);
    }
    requests.store(RECORDS + CAPACITY as usize - 16, Header::pad(), Ordering::Relaxed);
    for _ in 0..1000 {
        assert_eq!(server.next_inbound(), Ok(None), "the ring feeds the server for ever, each turn ends");
    }
}
