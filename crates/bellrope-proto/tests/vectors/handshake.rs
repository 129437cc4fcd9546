//! Hellos, answers, refusals.

use bellrope_proto::{
    Terms,
    handshake::{
        ANSWER_HEAD_LEN, AnswerHead, COMPACT, HandshakeError, HandshakeStatus, Hello, PRIORITY, SCHEMAS, SchemaMark,
        Style, Transport, TypeEntry, Welcome, encode_refusal,
    },
    layout::Geometry,
};
use serde_json::{Value, json};

use crate::bytes::hex;

pub(crate) fn vectors() -> Value {
    json!({ "hellos": hellos(), "answers": answers(), "refusals": refusals(), "invalid_answers": invalid_answers() })
}

fn hellos() -> Value {
    let named = |name: &str| Hello { name: name.to_owned(), ..Hello::default() };
    [
        named("editor"),
        Hello { class: PRIORITY, ..named("") },
        Hello { features: 1 << 63 | 5, ..named("edit\u{f6}r \u{1f514}") },
        named(&"\u{fc}".repeat(40)),
    ]
    .map(|hello| {
        let transports = [Transport::Shm, Transport::Stream].map(|transport| {
            let bytes = Hello { transport, ..hello.clone() }.encode();
            assert_eq!(Hello::decode(&bytes).unwrap().transport, transport);
            json!({ "transport": bytes[12], "bytes": hex(&bytes) })
        });
        json!({
            "class": hello.class, "features": hello.features.to_string(), "name": hello.name, "transports": transports,
        })
    })
    .as_slice()
    .into()
}

fn welcome(types: Vec<TypeEntry>) -> Welcome {
    Welcome {
        features: 0,
        connection: 7,
        terms: Terms {
            geometry: Geometry::new(256 * 1024).unwrap(),
            max_message: 10 << 20,
            max_in_flight: 1024,
            stream_window: 65_536,
        },
        clock_us: 1 << 53 | 5,
        types,
    }
}

fn types() -> Vec<TypeEntry> {
    [
        (1, Style::Unary, "echo"),
        (2, Style::ServerStream, "ai.chat_stream"),
        (700, Style::ClientStream, "s\u{fc}m"),
        (65_535, Style::Duplex, "x"),
    ]
    .map(|(message_type, style, name)| TypeEntry {
        message_type,
        style,
        name: name.to_owned(),
        schema: SchemaMark::default(),
    })
    .into()
}

/// With what the feature bit `SCHEMAS` adds: a codec and a hash, one of them unknown, both unknown.
fn marked() -> Welcome {
    let marks = [(1, 0x0123_4567_89ab_cdef), (2, u64::MAX), (200, 0), (0, 0)];
    let mut marked = Welcome { features: SCHEMAS, ..welcome(types()) };
    for (entry, (codec, hash)) in marked.types.iter_mut().zip(marks) {
        entry.schema = SchemaMark { codec, hash };
    }
    marked
}

fn decode(bytes: &[u8]) -> Result<Welcome, HandshakeError> {
    let (head, body) = bytes.split_first_chunk::<ANSWER_HEAD_LEN>().unwrap();
    let head = AnswerHead::decode(head)?;
    assert_eq!(head.body_len(), body.len());
    head.with_body(body)
}

fn fields(bytes: &[u8]) -> Value {
    let Welcome { features, connection, terms, clock_us, types } = decode(bytes).unwrap();
    let types: Vec<_> = types
        .iter()
        .map(|entry| {
            json!({
                "type": entry.message_type, "style": style(entry.style), "name": entry.name,
                "codec": entry.schema.codec, "schema": entry.schema.hash.to_string(),
            })
        })
        .collect();
    json!({
        "bytes": hex(bytes), "features": features.to_string(), "connection": connection.to_string(),
        "capacity": terms.geometry.capacity, "max_message": terms.max_message, "max_in_flight": terms.max_in_flight,
        "stream_window": terms.stream_window, "clock_us": clock_us.to_string(), "max_record": terms.max_record(),
        "mapping": terms.geometry.mapping_len(),
        "types": types,
    })
}

fn style(style: Style) -> &'static str {
    match style {
        Style::Unary => "unary",
        Style::ServerStream => "server_stream",
        Style::ClientStream => "client_stream",
        Style::Duplex => "duplex",
    }
}

fn answers() -> Value {
    let mut of_a_newer_version = welcome(types()).encode();
    of_a_newer_version[10] = 200;
    let mut with_an_unknown_style = welcome(types()).encode();
    with_an_unknown_style[ANSWER_HEAD_LEN + 2] = 4;
    let mut compact = Welcome { features: COMPACT, ..welcome(types()) };
    compact.terms.geometry = compact.terms.geometry.into_compact();
    let small = Terms { geometry: Geometry::new(4096).unwrap(), max_message: 1000, max_in_flight: 1, stream_window: 1 };
    [
        welcome(types()).encode(),
        welcome(Vec::new()).encode(),
        compact.encode(),
        Welcome { terms: small, ..welcome(types()) }.encode(),
        of_a_newer_version,
        with_an_unknown_style,
        marked().encode(),
    ]
    .map(|bytes| fields(&bytes))
    .as_slice()
    .into()
}

fn refusals() -> Value {
    let mut of_another_version =
        encode_refusal(HandshakeStatus::Version, "this server speaks version 2.0, the client 1.1");
    of_another_version[8] = 2;
    [
        encode_refusal(HandshakeStatus::Full, "2000 connections are there, the limit max_connections"),
        encode_refusal(HandshakeStatus::Draining, "the server is going away"),
        encode_refusal(HandshakeStatus::Malformed, ""),
        encode_refusal(HandshakeStatus::Forbidden, "no"),
        encode_refusal(HandshakeStatus::Paced, "come back in 90 ms"),
        encode_refusal(HandshakeStatus::Transport, "transport 1 is switched off (stream_transport)"),
        encode_refusal(HandshakeStatus::Other(99), "of a newer version"),
        of_another_version,
    ]
    .map(|bytes| match decode(&bytes).unwrap_err() {
        HandshakeError::Refused { status, text } => {
            json!({ "bytes": hex(&bytes), "status": bytes[12], "name": status.to_string(), "text": text })
        }
        other => panic!("{other:?}"),
    })
    .as_slice()
    .into()
}

fn invalid_answers() -> Value {
    let with = |at: usize, value: &[u8]| {
        let mut bytes = welcome(types()).encode();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let table = ANSWER_HEAD_LEN;
    // The last mark lacks a byte.
    let mut cut = marked().encode();
    cut.pop();
    let body = u32::try_from(cut.len() - ANSWER_HEAD_LEN).unwrap();
    cut[48..52].copy_from_slice(&body.to_le_bytes());
    [
        with(0, b"X"),
        with(8, &[2]),
        with(32, &5000_u32.to_le_bytes()),
        with(32, &2048_u32.to_le_bytes()),
        with(32, &(1_u32 << 25).to_le_bytes()),
        with(36, &0_u32.to_le_bytes()),
        with(36, &u32::MAX.to_le_bytes()),
        with(40, &0_u32.to_le_bytes()),
        with(44, &0_u32.to_le_bytes()),
        with(table + 3, &[0]),
        with(table + 4, &[7]),
        with(table + 4, &[0xFF]),
        cut,
    ]
    .map(|bytes| {
        let wrong = match decode(&bytes).unwrap_err() {
            HandshakeError::Magic(_) => "magic",
            HandshakeError::Version { .. } => "version",
            HandshakeError::Field(field) => field,
            other => panic!("{other:?}"),
        };
        json!({ "bytes": hex(&bytes), "wrong": wrong })
    })
    .as_slice()
    .into()
}
