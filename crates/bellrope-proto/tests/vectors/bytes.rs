//! Records as bytes, and what their words mean.

use bellrope_proto::{
    Failure,
    frame::{ErrorCode, Header, Kind, RawHeader, Rejection},
    layout::Geometry,
    ring::{Producer, RecordClass},
    stream::{Scratch, StreamEnd},
};
use bellrope_shm::SharedMemory;
use serde_json::{Value, json};

/// A record as it travels on transport 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Travelling {
    pub(crate) kind: Kind,
    pub(crate) message_type: u16,
    pub(crate) call: u64,
    pub(crate) extension: Option<u64>,
    pub(crate) payload: Vec<u8>,
}

impl Travelling {
    pub(crate) fn new(kind: Kind, message_type: u16, call: u64, extension: Option<u64>, payload: &[u8]) -> Self {
        Self { kind, message_type, call, extension, payload: payload.to_vec() }
    }

    /// The bytes: header, call, extension if there is one, payload, and nothing behind it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { kind, message_type, call, extension, payload } = self;
        let (len, extended) = (payload.len() as u32, extension.is_some());
        let header = Header { len, message_type: *message_type, kind: *kind, extended };
        let mut bytes = header.encode().to_le_bytes().to_vec();
        bytes.extend_from_slice(&call.to_le_bytes());
        bytes.extend(extension.iter().flat_map(|extension| extension.to_le_bytes()));
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Reads one record of bytes that hold exactly one.
    fn decode(bytes: &[u8]) -> Self {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let header = Header::try_from(RawHeader(word(0))).unwrap();
        let extension = header.extended.then(|| word(16));
        let payload = &bytes[if header.extended { 24 } else { 16 }..];
        assert_eq!(payload.len(), header.len as usize);
        Self::new(header.kind, header.message_type, word(8), extension, payload)
    }

    fn fields(&self) -> Value {
        json!({
            "kind": self.kind as u8,
            "type": self.message_type,
            "call": self.call.to_string(),
            "extension": self.extension.map(|extension| extension.to_string()),
            "payload": hex(&self.payload),
            "bytes": hex(&self.encode()),
        })
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn records() -> Value {
    let record = Travelling::new;
    let valid = [
        record(Kind::Request, 1, 1, None, b""),
        record(Kind::Request, 0xABCD, 2, Some(0x0102_0304_0506_0708), b"1234567"),
        record(Kind::Request, 1, u64::MAX, Some(u64::MAX), b"12345678"),
        record(Kind::Cancel, 0, 3, None, b""),
        record(Kind::Credit, 0, 4, Some(32_832), b""),
        record(Kind::Response, 0, 5, None, "hell\u{f6} \u{1f514}".as_bytes()),
        record(Kind::Response, 0, 6, None, b""),
        record(Kind::Error, ErrorCode::Rejected.to_bits(), 7, Some(250 << 8 | 1), b"busy"),
        record(Kind::Error, ErrorCode::HandlerPanic.to_bits(), 8, None, b""),
        record(Kind::Chunk, 0, 9, Some(0), b"first"),
        record(Kind::Chunk, 0, 9, Some(1), b""),
        record(Kind::Chunk, 0, 9, Some(u64::from(u32::MAX)), b"x"),
        record(Kind::End, 0, 9, Some(2), b""),
        record(Kind::Fragment, 0, 10, Some(70_000), &[0xA5; 40]),
        record(Kind::Admitted, 0, 0, Some(3), b""),
    ];
    for record in &valid {
        assert_eq!(&Travelling::decode(&record.encode()), record);
        assert_eq!(sent(record), record.encode());
    }
    let header =
        |kind: u64, flags: u64, message_type: u64, len: u64| len | message_type << 32 | kind << 48 | flags << 56;
    let invalid = [
        ("nothing here yet", 0),
        ("asleep", u64::MAX),
        ("kind 0", header(0, 0, 1, 5)),
        ("kind 11", header(11, 0, 0, 0)),
        ("kind 255", header(255, 0, 0, 0)),
        ("flag 57", header(2, 2, 1, 5)),
        ("flag 63", header(7, 0x81, 0, 5)),
        ("a pad with a length", header(1, 0, 0, 8)),
        ("a pad with an extension", header(1, 1, 0, 0)),
        ("a pad with a type", header(1, 0, 3, 0)),
    ];
    let invalid = invalid.map(|(what, word)| {
        let violation = Header::try_from(RawHeader(word)).unwrap_err();
        json!({ "what": what, "word": word.to_string(), "bytes": hex(&word.to_le_bytes()), "rule": violation.name() })
    });
    json!({ "valid": valid.map(|record| record.fields()), "invalid_headers": invalid })
}

pub(crate) fn errors() -> Value {
    let failures = [
        ("Handler", Failure { detail: 7, ..Failure::new(ErrorCode::Handler, "hoarse today") }),
        ("Handler", Failure::new(ErrorCode::Upstream, "the provider is away")),
        ("HandlerPanic", Failure::new(ErrorCode::HandlerPanic, "index out of bounds")),
        ("Other", Failure::new(ErrorCode::UnknownMessageType, "no message type has the number 9")),
        ("MessageTooLarge", Failure::too_large("reply", 20_000_000, 10_485_760)),
        ("DeadlineExceeded", Failure::new(ErrorCode::DeadlineExceeded, "the deadline passed")),
        ("Cancelled", Failure::new(ErrorCode::Cancelled, "cancelled by the caller")),
        ("Rejected", Failure::rejected(Rejection::Busy, "1024 calls are open")),
        ("Rejected", Failure { detail: Rejection::Breaker.to_detail(Some(41_000)), ..rejected("open") }),
        ("Rejected", Failure { detail: Rejection::Draining.to_detail(None), ..rejected("going away") }),
        ("Rejected", Failure { detail: 0, ..rejected("no reason given") }),
        ("Rejected", Failure { detail: 99 | 5 << 8, ..rejected("of a newer version") }),
        ("InvalidRequest", Failure::new(ErrorCode::InvalidRequest, "expected a number")),
        ("Exhausted", Failure::new(ErrorCode::Exhausted, "the buffer budget has no room")),
        ("NotExecuted", Failure::new(ErrorCode::NotExecuted, "nobody offers it")),
        ("Unknown", Failure::new(ErrorCode::Unknown, "the instance is gone")),
        ("Other", Failure { detail: 5, ..Failure::new(ErrorCode::Other(4711), "of a newer version") }),
        ("Handler", Failure::new(ErrorCode::Handler, "\u{1f514}".repeat(300))),
    ];
    let cases = failures.map(|(outcome, failure)| {
        let (code, detail) = (failure.code.to_bits(), failure.detail);
        let record =
            Travelling::new(Kind::Error, code, 1, (detail != 0).then_some(detail), failure.bounded_text().as_bytes());
        let mut case = json!({
            "outcome": outcome, "code": code, "name": failure.code.name(), "detail": detail.to_string(),
            "text": failure.bounded_text(), "bytes": hex(&record.encode()),
        });
        if failure.code == ErrorCode::Rejected {
            let (reason, retry_after_ms) = Rejection::from_detail(detail);
            case["reason"] = reason.name().into();
            case["retry_after_ms"] = retry_after_ms.into();
        }
        case
    });
    json!({ "errors": cases })
}

/// The bytes that the end of a connection over a socket makes of a record in its ring.
fn sent(record: &Travelling) -> Vec<u8> {
    let geometry = Geometry::new(4096).unwrap();
    let memory = SharedMemory::anonymous(geometry.mapping_len());
    let mut ring = Producer::new(memory.view(geometry.responses()), geometry);
    let Travelling { kind, message_type, call, extension, payload } = record;
    assert!(ring.push(RecordClass::Bulk, *kind, *message_type, *call, *extension, payload).unwrap());
    let _ = ring.publish();
    StreamEnd::of_server(&memory, geometry).outgoing(&mut Scratch::new()).unwrap().to_vec()
}

fn rejected(text: &'static str) -> Failure {
    Failure::new(ErrorCode::Rejected, text)
}
