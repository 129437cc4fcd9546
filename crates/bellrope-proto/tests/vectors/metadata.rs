//! What callers say of their calls beyond the requests.

use bellrope_proto::{
    Terms, Violation,
    connection::{Inbound, pair},
    frame::{Header, Kind, RawHeader},
    handshake::Style,
    layout::Geometry,
    metadata::{MAX_METADATA, Metadata},
    ring::{Consumer, Producer, RecordClass},
};
use bellrope_shm::SharedMemory;
use serde_json::{Value, json};

use crate::bytes::{Travelling, hex};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

pub(crate) fn vectors() -> Value {
    json!({ "limit": MAX_METADATA, "calls": calls(), "parts": parts(), "blocks": blocks() })
}

fn terms(capacity: u32) -> Terms {
    let geometry = Geometry::new(capacity).unwrap();
    Terms { geometry, max_message: 1 << 20, max_in_flight: 8, stream_window: 1000 }
}

fn fields(metadata: &Metadata) -> Value {
    let own: Vec<_> =
        (0..128).filter_map(|key| Some(json!({ "key": key, "value": hex(metadata.own_value(key)?) }))).collect();
    json!({
        "trace": metadata.trace_context().map(|trace| trace.to_string()), "session": metadata.session_text(),
        "caller": metadata.caller_text(), "own": own,
    })
}

/// The records that a client sends for a call, in its ring of this capacity.
fn sent(capacity: u32, metadata: &Metadata, payload: &[u8], deadline_us: Option<u64>) -> Vec<Travelling> {
    let terms = terms(capacity);
    let memory = SharedMemory::anonymous(terms.geometry.mapping_len());
    let mut client = pair::<Vec<u8>>(&memory, terms).0.telling_metadata();
    let mut ring = Consumer::new(memory.view(terms.geometry.requests()), terms.geometry);
    let mut records = Vec::new();
    let mut sending = if payload.len() <= client.max_record_with(Some(metadata)) {
        client.submit_described(1, Style::Unary, metadata, payload, deadline_us).unwrap();
        None
    } else {
        Some(client.begin_large(Style::Unary, payload.len()).unwrap())
    };
    loop {
        let whole = sending.as_mut().is_none_or(|sending| {
            client.push_large_described(sending, 1, Some(metadata), payload, deadline_us).unwrap()
        });
        let _ = client.commit();
        while let Some(record) = ring.peek().unwrap() {
            let Header { kind, message_type, len, extended, .. } = record.header;
            let mut bytes = vec![0; len as usize];
            ring.read(&record, 0, &mut bytes);
            records.push(Travelling::new(kind, message_type, 7, extended.then_some(record.extension), &bytes));
            let _ = ring.advance(&record);
        }
        if whole {
            return records;
        }
    }
}

fn calls() -> Value {
    let trace = Metadata::new().trace(PARENT.parse().unwrap()).unwrap();
    let cases = [
        (trace.clone(), &b"ding"[..], None),
        (trace.session("window 3").unwrap().caller("s\u{fc}m").unwrap().own(0, b"").unwrap(), b"ding", Some(9_000_000)),
        (Metadata::new().own(127, &[7; 252]).unwrap(), b"", None),
    ];
    let cases = cases.map(|(metadata, payload, deadline_us)| {
        let [record] = &sent(4096, &metadata, payload, deadline_us)[..] else { panic!("one record") };
        let mut case = fields(&metadata);
        case["payload"] = hex(payload).into();
        case["deadline"] = deadline_us.map(|deadline| deadline.to_string()).into();
        case["record"] = hex(&record.encode()).into();
        case
    });
    cases.as_slice().into()
}

/// Into which parts a request with metadata of 15 bytes is cut.
fn parts() -> Value {
    let metadata = Metadata::new().session("of some length").unwrap();
    let cases = [(4096, 768), (4096, 769), (4096, 3000), (262_144, 65_280), (262_144, 65_281), (262_144, 100_000)];
    let cases = cases.map(|(capacity, size)| {
        let records = sent(capacity, &metadata, &vec![1; size], None);
        let (last, fragments) = records.split_last().unwrap();
        assert_eq!(last.kind, Kind::Described);
        let part = fragments.first().map_or(0, |fragment| fragment.payload.len());
        assert!(fragments.iter().all(|fragment| fragment.payload.len() == part));
        let block = 2 + usize::from(u16::from_le_bytes([last.payload[0], last.payload[1]]));
        json!({
            "capacity": capacity, "size": size, "fragments": fragments.len(), "part": part,
            "block": block, "last": last.payload.len() - block,
        })
    });
    cases.as_slice().into()
}

fn blocks() -> Value {
    let cases: [(&str, &[u8]); 16] = [
        ("nothing", b""),
        ("half a length", &[1]),
        ("a length of 0", &[0, 0]),
        ("a length beyond the record", &[3, 0, 2, 0]),
        ("a length beyond the limit", &[255, 0]),
        ("half an entry", &[1, 0, 2]),
        ("a value beyond the block", &[3, 0, 2, 2, b'x']),
        ("key 0", &[2, 0, 0, 0]),
        ("a key twice", &[4, 0, 2, 0, 2, 0]),
        ("keys that descend", &[4, 0, 3, 0, 2, 0]),
        ("an empty text", &[2, 0, 2, 0]),
        ("a text that is none", &[3, 0, 2, 1, 0xFF]),
        ("a text with a control character", &[3, 0, 3, 1, b'\n']),
        ("a trace that is too short", &[3, 0, 1, 1, 7]),
        ("a key of a newer version", &[6, 0, 3, 2, b'm', b'e', 99, 0]),
        ("the application's own", &[5, 0, 128, 3, 1, 2, 3]),
    ];
    let cases = cases.map(|(what, payload)| {
        let terms = terms(4096);
        let memory = SharedMemory::anonymous(terms.geometry.mapping_len());
        let mut server = pair::<Vec<u8>>(&memory, terms).1.hearing_metadata();
        let mut producer = Producer::new(memory.view(terms.geometry.requests()), terms.geometry);
        assert!(producer.push(RecordClass::Bulk, Kind::Described, 1, 7, None, payload).unwrap());
        let _ = producer.publish();
        let bytes = Travelling::new(Kind::Described, 1, 7, None, payload).encode();
        let header = u64::from_le_bytes(*bytes.first_chunk().unwrap());
        assert_eq!(Header::try_from(RawHeader(header)).unwrap().kind, Kind::Described);
        match server.next_inbound() {
            Ok(Some(Inbound::Described(request, metadata))) => {
                assert_eq!(request.len, 0);
                let mut case = fields(&metadata);
                case["what"] = what.into();
                case["record"] = hex(&bytes).into();
                case
            }
            Err(violation @ Violation::Metadata(_)) => {
                json!({ "what": what, "record": hex(&bytes), "rule": violation.name() })
            }
            other => panic!("{what}: {other:?}"),
        }
    });
    cases.as_slice().into()
}
