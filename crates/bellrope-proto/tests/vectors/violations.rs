//! Records that break a rule, and their neighbours that break none, as either end takes them.

use bellrope_proto::{
    BufferBudget, Terms, Violation,
    connection::{ClientConnection, Inbound, ServerConnection, pair},
    frame::Kind,
    handshake::Style,
    layout::Geometry,
    ring::{Producer, RecordClass},
    stream::{Scratch, StreamEnd},
};
use bellrope_shm::SharedMemory;
use serde_json::{Value, json};

use crate::bytes::{Travelling, hex};

const STYLES: [Style; 4] = [Style::Unary, Style::ServerStream, Style::ClientStream, Style::Duplex];

fn terms() -> Terms {
    Terms { geometry: Geometry::new(16 * 1024).unwrap(), max_message: 16_000, max_in_flight: 16, stream_window: 1000 }
}

pub(crate) fn vectors() -> Value {
    let Terms { geometry, max_message, max_in_flight, stream_window } = terms();
    json!({
        "capacity": geometry.capacity,
        "max_message": max_message,
        "max_in_flight": max_in_flight,
        "stream_window": stream_window,
        "styles": "the message types 1 to 4 have the styles 0 to 3",
        "from_client": from_client(),
        "from_server": from_server(),
    })
}

/// What both ends say to these records, over either transport.
fn case(what: &str, records: &[Travelling], said: [Result<(), Violation>; 2]) -> Value {
    assert_eq!(said[0], said[1], "{what}");
    let bytes: Vec<_> = records.iter().map(|record| hex(&record.encode())).collect();
    json!({ "what": what, "records": bytes, "rule": said[0].err().map(Violation::name) })
}

/// The same of what is told apart over a socket alone.
fn case_of_stream(what: &str, records: &[Vec<u8>], said: Result<(), Violation>) -> Value {
    let bytes: Vec<_> = records.iter().map(|record| hex(record)).collect();
    json!({ "what": what, "records": bytes, "rule": said.err().map(Violation::name), "only": "transport 1" })
}

/// Gives bytes to an end, a few at a time, and has its connection take what comes.
fn feed(
    end: &mut StreamEnd,
    records: &[Vec<u8>],
    mut take: impl FnMut() -> Result<(), Violation>,
) -> Result<(), Violation> {
    let mut scratch = Scratch::new();
    for piece in records.iter().flat_map(|record| record.chunks(1000)) {
        let mut piece = piece;
        while !piece.is_empty() {
            while !end.put()? {
                take()?;
            }
            let space = end.space(&mut scratch);
            let count = piece.len().min(space.len());
            space[..count].copy_from_slice(&piece[..count]);
            let came = end.came(&scratch, count);
            // What came before a bad record is in the ring.
            take()?;
            came?;
            piece = &piece[count..];
        }
    }
    Ok(())
}

fn header(kind: u64, len: u64) -> Vec<u8> {
    [(kind << 48 | len).to_le_bytes(), [0; 8]].concat()
}

fn record(kind: Kind, message_type: u16, call: u64, extension: Option<u64>, len: usize) -> Travelling {
    Travelling::new(kind, message_type, call, extension, &vec![0x62; len])
}

fn write(peer: &mut Producer, records: &[Travelling]) {
    for Travelling { kind, message_type, call, extension, payload } in records {
        assert!(peer.push(RecordClass::Bulk, *kind, *message_type, *call, *extension, payload).unwrap());
    }
    let _ = peer.publish();
}

fn from_client() -> Vec<Value> {
    let call = |message_type, id| record(Kind::Request, message_type, id, None, 8);
    let part = |id, whole, len| record(Kind::Fragment, 0, id, Some(whole), len);
    let last = |id, len| record(Kind::Request, 1, id, None, len);
    let chunk = |id, number, len| record(Kind::Chunk, 0, id, Some(number), len);
    let end = |id, chunks| record(Kind::End, 0, id, Some(chunks), 0);
    let credit = |id, bytes| record(Kind::Credit, 0, id, Some(bytes), 0);
    let cancel = |id| record(Kind::Cancel, 0, id, None, 0);
    let cases: Vec<(&str, Vec<Travelling>)> = vec![
        (
            "a whole large request, then a small one",
            vec![part(1, 3000, 1000), part(1, 3000, 1000), last(1, 1000), call(1, 2)],
        ),
        ("a small call between parts", vec![part(1, 2000, 1000), call(1, 2), last(1, 1000)]),
        (
            "a cancelled large request, then another",
            vec![part(1, 3000, 1000), cancel(1), part(2, 2000, 1500), last(2, 500)],
        ),
        ("an upload and its end", vec![call(3, 1), chunk(1, 0, 10), chunk(1, 1, 0), end(1, 2)]),
        ("a chunk larger than the window", vec![call(3, 1), chunk(1, 0, 4096), end(1, 1)]),
        ("records of unknown calls", vec![chunk(9, 3, 10), end(9, 77), credit(9, 1), cancel(9), call(1, 1)]),
        ("parts of two requests at a time", vec![part(1, 3000, 1000), part(2, 3000, 1000)]),
        ("parts that name different sizes", vec![part(1, 3000, 1000), part(1, 4000, 1000)]),
        ("a fragment that leaves nothing for the last part", vec![part(1, 1000, 1000)]),
        ("a last part that is too short", vec![part(1, 3000, 1000), last(1, 100)]),
        ("a last part that is too long", vec![part(1, 3000, 1000), last(1, 2001)]),
        ("the id of a call under way", vec![call(1, 1), call(1, 1)]),
        ("the id of a stream under way", vec![call(2, 1), call(1, 1)]),
        ("a first chunk with number 1", vec![call(3, 1), chunk(1, 1, 10)]),
        ("a number beyond 32 bits", vec![call(3, 1), chunk(1, 1 << 32, 10)]),
        ("an end with too many chunks", vec![call(3, 1), chunk(1, 0, 10), end(1, 2)]),
        ("a chunk without credit", vec![call(4, 1), chunk(1, 0, 936), chunk(1, 1, 0)]),
        ("credit that was never spent", vec![call(2, 1), credit(1, 1)]),
        ("an error", vec![record(Kind::Error, 1, 1, None, 5)]),
        ("a response", vec![record(Kind::Response, 0, 1, None, 5)]),
        ("a cancel with a payload", vec![record(Kind::Cancel, 0, 1, None, 1)]),
        ("a cancel with an extension", vec![record(Kind::Cancel, 0, 1, Some(1), 0)]),
        ("credit without an amount", vec![record(Kind::Credit, 0, 1, None, 0)]),
        ("an end with a payload", vec![record(Kind::End, 0, 1, Some(0), 1)]),
        ("an end with a type", vec![record(Kind::End, 1, 1, Some(0), 0)]),
        ("a chunk without a number", vec![record(Kind::Chunk, 0, 1, None, 4)]),
        ("a chunk with a type", vec![record(Kind::Chunk, 1, 1, Some(0), 4)]),
        ("an empty fragment", vec![part(1, 3000, 0)]),
        ("a fragment with a type", vec![record(Kind::Fragment, 1, 1, Some(3000), 1000)]),
    ];
    let admitted = record(Kind::Admitted, 0, 0, Some(1), 0).encode();
    let of_stream = [
        ("an admitted record", vec![admitted]),
        ("a pad", vec![header(1, 0)]),
        ("a payload above a quarter of the capacity", vec![header(2, 4097)]),
    ];
    let of_stream = of_stream.map(|(what, bytes)| case_of_stream(what, &bytes, server_says_to(&bytes)));
    let both = cases.iter().map(|(what, records)| case(what, records, server_says(records)));
    both.chain(of_stream).collect()
}

/// What a server says to a client that sends these. Nothing is answered or consumed.
fn server_says(records: &[Travelling]) -> [Result<(), Violation>; 2] {
    let memory = SharedMemory::anonymous(terms().geometry.mapping_len());
    let (_, mut server) = pair::<Vec<u8>>(&memory, terms());
    write(&mut Producer::new(memory.view(terms().geometry.requests()), terms().geometry), records);
    let over_memory = take_all(&mut server);
    [over_memory, server_says_to(&records.iter().map(Travelling::encode).collect::<Vec<_>>())]
}

fn server_says_to(records: &[Vec<u8>]) -> Result<(), Violation> {
    let memory = SharedMemory::anonymous(terms().geometry.mapping_len());
    let (_, mut server) = pair::<Vec<u8>>(&memory, terms());
    feed(&mut StreamEnd::of_server(&memory, terms().geometry), records, || take_all(&mut server))
}

fn take_all(server: &mut ServerConnection<Vec<u8>>) -> Result<(), Violation> {
    while let Some(inbound) = server.next_inbound()? {
        take(server, &inbound)?;
    }
    let _ = server.commit();
    Ok(())
}

fn take(server: &mut ServerConnection<Vec<u8>>, inbound: &Inbound) -> Result<(), Violation> {
    match inbound {
        Inbound::Call(request) | Inbound::Described(request, _) => {
            if request.large {
                server.take_large(request)?;
            } else {
                server.take(request, &mut vec![0; request.len]);
            }
            server.open(request.id, STYLES[usize::from(request.message_type) - 1])?;
        }
        Inbound::Large(announced) => {
            let reservation = BufferBudget::new(announced.size).reserve(announced.size).unwrap();
            server.accept_large(announced, vec![0; announced.size as usize], reservation);
        }
        Inbound::Chunk(chunk) => server.take_chunk(chunk, &mut vec![0; chunk.len]),
        Inbound::Part(_) | Inbound::Ended(_) | Inbound::Cancelled(_) | Inbound::Left(_) => {}
    }
    Ok(())
}

fn from_server() -> Value {
    let part = |id, whole, len| record(Kind::Fragment, 0, id, Some(whole), len);
    let chunk = |id, number, len| record(Kind::Chunk, 0, id, Some(number), len);
    let end = |id, chunks| record(Kind::End, 0, id, Some(chunks), 0);
    let response = |id, len| record(Kind::Response, 0, id, None, len);
    let credit = |id, bytes| record(Kind::Credit, 0, id, Some(bytes), 0);
    // Calls 1 to 4 have the styles 0 to 3, and call 5 is unary again.
    let cases: Vec<(&str, Vec<Travelling>)> = vec![
        ("a response", vec![response(1, 10)]),
        (
            "a large response, and another one between its parts",
            vec![part(1, 2500, 1000), response(5, 10), part(1, 2500, 1000), response(1, 500)],
        ),
        ("a stream", vec![chunk(2, 0, 100), chunk(2, 1, 0), end(2, 2)]),
        ("a stream of nothing", vec![end(2, 0)]),
        ("a response that does not wait for the end of the upload", vec![response(3, 0)]),
        ("a stream that does not wait for the end of the upload", vec![chunk(4, 0, 5), end(4, 1)]),
        ("an error in the middle of a stream", vec![chunk(2, 0, 5), record(Kind::Error, 1, 2, Some(7), 20)]),
        ("no credit at all", vec![credit(3, 0)]),
        (
            "answers to unknown calls",
            vec![response(99, 10), chunk(99, 7, 10), end(99, 7), credit(99, 1), part(99, 5000, 10), response(1, 0)],
        ),
        ("parts of two responses at a time", vec![part(1, 3000, 1000), part(5, 3000, 1000)]),
        ("a last part that is too short", vec![part(1, 3000, 1000), response(1, 10)]),
        ("parts that name different sizes", vec![part(1, 3000, 1000), part(1, 2500, 1000)]),
        ("a message above the limit", vec![part(1, 16_001, 1000)]),
        ("a fragment that leaves nothing for the last part", vec![part(1, 1000, 1000)]),
        ("a first chunk with number 4", vec![chunk(2, 4, 10)]),
        ("an end with too many chunks", vec![end(2, 1)]),
        ("a chunk without credit", vec![chunk(2, 0, 936), chunk(2, 1, 0)]),
        ("credit that was never spent", vec![credit(3, 1)]),
        ("a response to a stream", vec![response(2, 10)]),
        ("a response to a duplex", vec![response(4, 10)]),
        ("a response with an extension", vec![record(Kind::Response, 0, 1, Some(1), 10)]),
        ("a chunk for a unary call", vec![chunk(1, 0, 10)]),
        ("an end of an upload's call", vec![end(3, 0)]),
        ("credit for a call without upload", vec![credit(1, 0)]),
        ("a part for a stream", vec![part(2, 3000, 1000)]),
        ("an end with a payload", vec![record(Kind::End, 0, 2, Some(0), 1)]),
        ("a chunk without a number", vec![record(Kind::Chunk, 0, 2, None, 1)]),
        ("an empty fragment", vec![part(1, 3000, 0)]),
        ("a fragment of an unknown call without a size", vec![record(Kind::Fragment, 0, 99, None, 10)]),
        ("a request", vec![record(Kind::Request, 1, 1, None, 10)]),
        ("a cancel", vec![record(Kind::Cancel, 0, 1, None, 0)]),
    ];
    let admitted = |taken| record(Kind::Admitted, 0, 0, Some(taken), 0).encode();
    let of_stream = [
        ("the last word", vec![response(1, 10).encode(), admitted(5)]),
        ("more requests than there were", vec![admitted(6)]),
        ("a response behind the last word", vec![admitted(5), response(1, 10).encode()]),
        ("two last words", vec![admitted(5), admitted(5)]),
        ("a last word with a call id", vec![record(Kind::Admitted, 0, 1, Some(5), 0).encode()]),
        ("a last word with a type", vec![record(Kind::Admitted, 1, 0, Some(5), 0).encode()]),
        ("a last word with a payload", vec![record(Kind::Admitted, 0, 0, Some(5), 1).encode()]),
        ("a last word without a number", vec![record(Kind::Admitted, 0, 0, None, 0).encode()]),
        ("a pad", vec![header(1, 0)]),
        ("a payload above a quarter of the capacity", vec![header(5, 4097)]),
    ];
    let of_stream = of_stream.map(|(what, bytes)| case_of_stream(what, &bytes, client_says_to(|_| bytes.clone())));
    let both = cases.iter().map(|(what, records)| case(what, records, client_says(records)));
    let cases: Vec<_> = both.chain(of_stream).collect();
    json!({ "calls": "before the records come, the client has calls 1 to 5 under way, of the message types 1, 2, 3, 4 and 1", "cases": cases })
}

/// What a client says to a server that sends these, written for calls 1 to 5. Of what comes, nothing is consumed.
fn client_says(records: &[Travelling]) -> [Result<(), Violation>; 2] {
    let memory = SharedMemory::anonymous(terms().geometry.mapping_len());
    let (mut client, _) = pair::<Vec<u8>>(&memory, terms());
    let ids = five_calls(&mut client);
    write(&mut Producer::new(memory.view(terms().geometry.responses()), terms().geometry), &for_calls(records, ids));
    let over_memory = drain(&mut client);
    [over_memory, client_says_to(|ids| for_calls(records, ids).iter().map(Travelling::encode).collect())]
}

fn client_says_to(records: impl Fn([u64; 5]) -> Vec<Vec<u8>>) -> Result<(), Violation> {
    let memory = SharedMemory::anonymous(terms().geometry.mapping_len());
    let (mut client, _) = pair::<Vec<u8>>(&memory, terms());
    let ids = five_calls(&mut client);
    let _ = client.commit();
    let mut end = StreamEnd::of_client(&memory, terms().geometry);
    let sent = end.outgoing(&mut Scratch::new())?.len();
    end.sent(sent)?;
    feed(&mut end, &records(ids), || drain(&mut client))
}

fn five_calls(client: &mut ClientConnection) -> [u64; 5] {
    [0, 1, 2, 3, 0].map(|style: usize| client.submit(style as u16 + 1, STYLES[style], b"", None).unwrap())
}

/// The records for a client whose own ids are of another form.
fn for_calls(records: &[Travelling], ids: [u64; 5]) -> Vec<Travelling> {
    let own = |call: u64| ids.get(call as usize - 1).copied().unwrap_or(call << 40);
    records.iter().map(|record| Travelling { call: own(record.call), ..record.clone() }).collect()
}

fn drain(client: &mut ClientConnection) -> Result<(), Violation> {
    while let Some(answer) = client.next_answer()? {
        client.take(&answer, &mut vec![0; answer.len]);
    }
    let _ = client.commit();
    Ok(())
}
