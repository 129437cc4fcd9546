//! The table of message types beyond the body of an answer: pages, and changes.

use bellrope_proto::{
    Style, Terms, Violation,
    frame::Kind,
    handshake::{ANSWER_HEAD_LEN, AnswerHead, HandshakeError, PAGE_HEAD_LEN, SCHEMAS, TABLE, Welcome},
    layout::Geometry,
    table::{Pages, SchemaMark, TypeChange, TypeEntry},
};
use serde_json::{Value, json};

use crate::bytes::{Travelling, hex};

pub(crate) fn vectors() -> Value {
    json!({
        "made": "type n, from 1 on, is unary; its name is n in decimal, with zeros before it to 250 characters; where schemas \
                 travel, its codec is 1 and its hash 2^64 - 1 - n",
        "answers": answers(),
        "invalid_answers": invalid_answers(),
        "invalid_pages": invalid_pages(),
        "changes": changes(),
    })
}

fn entry(message_type: u16, style: Style, name: &str) -> TypeEntry {
    let schema = SchemaMark { codec: 1, hash: u64::MAX - u64::from(message_type) };
    TypeEntry { message_type, style, name: name.to_owned(), schema }
}

/// Of names so long that two hundred and some fill a body.
fn many(count: u16) -> Vec<TypeEntry> {
    (1..=count).map(|number| entry(number, Style::Unary, &format!("{number:0>250}"))).collect()
}

fn welcome(features: u64, types: Vec<TypeEntry>) -> Welcome {
    Welcome {
        features,
        connection: 7,
        terms: Terms {
            geometry: Geometry::new(256 * 1024).unwrap(),
            max_message: 10 << 20,
            max_in_flight: 1024,
            stream_window: 65_536,
        },
        clock_us: 5,
        types,
    }
}

/// What a client makes of an answer and the pages behind it.
fn read(answer: &[u8], mut pages: &[u8]) -> Result<(Welcome, Pages), HandshakeError> {
    let (head, body) = answer.split_first_chunk::<ANSWER_HEAD_LEN>().unwrap();
    let (mut welcome, mut known) = AnswerHead::decode(head)?.begin(body)?;
    while !known.is_whole() {
        let (head, rest) = pages.split_first_chunk::<PAGE_HEAD_LEN>().expect("a page");
        let head = known.head(head)?;
        let (page, rest) = rest.split_at(head.len().min(rest.len()));
        known.page(head, page, &mut welcome.types)?;
        pages = rest;
    }
    assert!(pages.is_empty());
    Ok((welcome, known))
}

fn fields(entry: &TypeEntry, with_schemas: bool) -> Value {
    let style = match entry.style {
        Style::Unary => "unary",
        Style::ServerStream => "server_stream",
        Style::ClientStream => "client_stream",
        Style::Duplex => "duplex",
    };
    let mut fields = json!({ "type": entry.message_type, "style": style, "name": entry.name });
    if with_schemas {
        fields["codec"] = entry.schema.codec.into();
        fields["hash"] = entry.schema.hash.to_string().into();
    }
    fields
}

fn answers() -> Value {
    let few = vec![entry(1, Style::Unary, "echo"), entry(2, Style::Duplex, "talk")];
    let cases = [
        (TABLE, few.clone()),
        (TABLE | SCHEMAS, few.clone()),
        (SCHEMAS, few),
        (TABLE, Vec::new()),
        (TABLE, many(300)),
        (TABLE | SCHEMAS, many(600)),
        (0, many(300)),
    ];
    let cases = cases.map(|(features, types)| {
        let welcome = welcome(features, types);
        let (answer, pages) = (welcome.encode(), welcome.encode_pages());
        let (came, _) = read(&answer, &pages).unwrap();
        let with_schemas = features & SCHEMAS != 0;
        let mut case = json!({
            "features": features.to_string(),
            "entries": if features & TABLE != 0 { Some(welcome.types.len()) } else { None },
            "in_body": welcome.in_body(),
        });
        if welcome.types.len() > 10 {
            // Whoever reads this makes them.
            case["made"] = welcome.types.len().into();
            case["head"] = hex(&answer[..ANSWER_HEAD_LEN]).into();
            case["first"] = hex(&answer[ANSWER_HEAD_LEN..ANSWER_HEAD_LEN + 270]).into();
            case["page_heads"] = page_heads(&pages).into();
            case["known"] = came.types.len().into();
        } else {
            assert!(pages.is_empty());
            case["answer"] = hex(&answer).into();
            case["types"] = came.types.iter().map(|entry| fields(entry, with_schemas)).collect::<Vec<_>>().into();
        }
        case
    });
    cases.as_slice().into()
}

fn page_heads(mut pages: &[u8]) -> Vec<String> {
    let mut heads = Vec::new();
    while let Some((head, rest)) = pages.split_first_chunk::<PAGE_HEAD_LEN>() {
        heads.push(hex(head));
        pages = &rest[u32::from_le_bytes(*head[4..].first_chunk().unwrap()) as usize..];
    }
    heads
}

/// Answers that are told to be wrong before any page is read.
fn invalid_answers() -> Value {
    let few = || vec![entry(1, Style::Unary, "echo"), entry(2, Style::Duplex, "talk")];
    let answer = |entries: u32| {
        let mut answer = welcome(TABLE, few()).encode();
        answer[52..56].copy_from_slice(&entries.to_le_bytes());
        answer
    };
    let with = |mut answer: Vec<u8>, at: usize, byte: u8| {
        answer[ANSWER_HEAD_LEN + at] = byte;
        answer
    };
    assert_eq!(answer(2), welcome(TABLE, few()).encode(), "but for the number of entries it is valid");
    let cases = [
        ("more entries than a table may have", answer(4097)),
        ("as many entries as the field holds", answer(u32::MAX)),
        ("fewer entries than the body has", answer(1)),
        ("no entries, but a body", answer(0)),
        ("fewer entries than the body has, of which one is passed over", with(answer(1), 2, 9)),
        ("more bytes in the name of the last entry than are left", with(answer(2), 11, 5)),
        ("in the place of an entry, what takes one out", with(with(answer(2), 2, 255), 3, 0)),
    ];
    let cases = cases.map(|(what, answer)| {
        let Err(HandshakeError::Field(wrong)) = read(&answer, b"") else { panic!("{what}") };
        json!({ "what": what, "answer": hex(&answer), "wrong": wrong })
    });
    cases.as_slice().into()
}

fn invalid_pages() -> Value {
    let welcome = welcome(TABLE, many(300));
    let (answer, pages) = (welcome.encode(), welcome.encode_pages());
    let in_body = welcome.in_body() as u16;
    let head = |first: u16, count: u16, len: u32| {
        let mut pages = pages.clone();
        pages[..2].copy_from_slice(&first.to_le_bytes());
        pages[2..4].copy_from_slice(&count.to_le_bytes());
        pages[4..8].copy_from_slice(&len.to_le_bytes());
        pages
    };
    let (count, len) = (300 - in_body, (pages.len() - PAGE_HEAD_LEN) as u32);
    assert_eq!(head(in_body, count, len), pages, "it is one page");
    let cases = [
        ("it overlaps the body", head(in_body - 1, count, len)),
        ("it leaves a hole", head(in_body + 1, count, len)),
        ("no entries", head(in_body, 0, len)),
        ("more entries than are to come", head(in_body, count + 1, len)),
        ("fewer entries than bytes", head(in_body, count - 1, len)),
        ("no bytes", head(in_body, count, 0)),
        ("more bytes than a page has", head(in_body, count, 65_537)),
        ("an entry that is cut off", head(in_body, count, len - 1)),
    ];
    let cases = cases.map(|(what, pages)| {
        let Err(HandshakeError::Field(wrong)) = read(&answer, &pages) else { panic!("{what}") };
        // The rest of the page is as in the valid one.
        json!({ "what": what, "head": hex(&pages[..PAGE_HEAD_LEN]), "wrong": wrong })
    });
    json!({ "made": 300, "page": "as behind the answer with so many entries, but for its head", "cases": cases })
}

fn changes() -> Value {
    let before = vec![entry(1, Style::Unary, "echo"), entry(2, Style::Duplex, "talk")];
    let added = |number, name: &str| TypeChange::Added(entry(number, Style::ServerStream, name));
    let cases = [
        (vec![added(3, "count")], 3, 0),
        (vec![TypeChange::Removed(1)], 1, 0),
        (vec![TypeChange::Removed(2), added(3, "count"), added(700, "s\u{fc}m")], 3, 0),
        (vec![TypeChange::Removed(1), TypeChange::Removed(2)], 0, 0),
        (vec![added(2, "again")], 3, 0),
        (vec![TypeChange::Removed(9)], 1, 0),
        (vec![added(3, "count")], 4, 0),
        (vec![added(3, "count")], 3, 1),
    ];
    let [plain, marked] = [0, SCHEMAS].map(|schemas| {
        let with_schemas = schemas != 0;
        let cases = cases.clone().map(|(changes, entries, cut)| {
            let (welcome, mut known) = read(&welcome(TABLE | schemas, before.clone()).encode(), b"").unwrap();
            let mut types = welcome.types;
            let mut payload = Vec::new();
            changes.iter().for_each(|change| change.encode(&mut payload, with_schemas));
            payload.truncate(payload.len() - cut);
            let record = Travelling::new(Kind::Types, 0, 0, Some(entries), &payload);
            let mut case = json!({ "record": hex(&record.encode()), "entries": entries });
            match known.change(&payload, entries, &mut types) {
                Ok(()) => {
                    case["types"] = types.iter().map(|entry| fields(entry, with_schemas)).collect::<Vec<_>>().into();
                }
                Err(fault) => {
                    case["rule"] = Violation::from(fault).name().into();
                }
            }
            case
        });
        let before: Vec<_> = before.iter().map(|entry| fields(entry, with_schemas)).collect();
        json!({ "features": (TABLE | schemas).to_string(), "before": before, "cases": cases })
    });
    json!([plain, marked])
}
