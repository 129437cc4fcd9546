//! Servers whose tables of message types, pages and changes are not what they should be.

use std::time::{Duration, Instant};

use bellrope::{
    CallError, Client,
    client::{ClientConfig, ConnectError},
};
use bellrope_proto::{
    Violation,
    frame::Kind,
    handshake::{HandshakeError, MAX_TYPES, SchemaMark, Style, TABLE, TypeEntry},
    table::TypeChange,
};

use bellrope_testkit::support::{PATIENCE, eventually};

use super::fake_server::{Address, FakeServer, ask};

/// A welcome whose table has so many entries. The body has three, of style `unary`, `server_stream` and `duplex`.
fn announcing(welcome: &mut [u8], entries: u32) {
    welcome[16..24].copy_from_slice(&TABLE.to_le_bytes());
    welcome[52..56].copy_from_slice(&entries.to_le_bytes());
}

/// A page with this head and these bytes.
fn page(first: u16, count: u16, len: u32, bytes: &[u8]) -> Vec<u8> {
    [&first.to_le_bytes()[..], &count.to_le_bytes(), &len.to_le_bytes(), bytes].concat()
}

fn entry(message_type: u16, name: &str) -> Vec<u8> {
    change(&[added(message_type, name)])
}

fn added(message_type: u16, name: &str) -> TypeChange {
    let name = name.to_owned();
    TypeChange::Added(TypeEntry { message_type, style: Style::Unary, name, schema: SchemaMark::default() })
}

fn change(changes: &[TypeChange]) -> Vec<u8> {
    let mut bytes = Vec::new();
    changes.iter().for_each(|change| change.encode(&mut bytes, false));
    bytes
}

/// Lets a client in with a table of so many entries, of which these pages come behind the answer.
fn meet(entries: u32, pages: &[u8], patience: Duration) -> (FakeServer, Result<Client, ConnectError>) {
    let address = Address::new();
    std::thread::scope(|scope| {
        let config = ClientConfig::new(&address.path).connect_timeout(patience);
        let connecting = scope.spawn(|| Client::with(config));
        let (mut welcome, fd, server) = FakeServer::prepare(address.accept());
        announcing(&mut welcome, entries);
        server.socket.send_with_memory(&welcome, &fd).unwrap();
        // A client that has heard enough hangs up.
        let _ = server.socket.send(pages);
        (server, connecting.join().unwrap())
    })
}

#[test]
fn a_page_that_does_not_fit_ends_the_handshake_with_its_field() {
    let one = entry(4, "more");
    let long = vec![b'x'; 64 * 1024 + 1];
    for (entries, pages, field) in [
        (4, page(2, 1, one.len() as u32, &one), "page"),
        (4, page(4, 1, one.len() as u32, &one), "page"),
        (4, page(3, 0, one.len() as u32, &one), "page"),
        (4, page(3, 2, 2 * one.len() as u32, &[&one[..], &one].concat()), "page"),
        (5, page(3, 1, 2 * one.len() as u32, &[&one[..], &one].concat()), "page"),
        (5, page(3, 2, one.len() as u32, &one), "types"),
        (4, page(3, 1, 0, b""), "page"),
        (4, page(3, 1, long.len() as u32, &long), "page"),
        (4, page(3, 1, u32::MAX, b""), "page"),
        (4, page(3, 1, 4, &[4, 0, 0, 0]), "types"),
        (4, page(3, 1, 4, &[4, 0, 255, 0]), "types"),
        (2, Vec::new(), "entries"),
        (MAX_TYPES as u32 + 1, Vec::new(), "entries"),
        (u32::MAX, Vec::new(), "entries"),
    ] {
        let (_server, met) = meet(entries, &pages, PATIENCE);
        match met.unwrap_err() {
            ConnectError::Handshake(HandshakeError::Field(found)) => assert_eq!(found, field, "{entries} {pages:?}"),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn pages_that_come_in_pieces_are_taken_and_half_of_one_ends_at_the_deadline() {
    let (one, two) = (entry(4, "four"), entry(5, "five"));
    let pages = [page(3, 1, one.len() as u32, &one), page(4, 1, two.len() as u32, &two)].concat();
    let (_server, met) = meet(5, &pages, PATIENCE);
    let client = met.unwrap();
    let names: Vec<_> = client.message_types().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["ask", "listen", "talk", "four", "five"]);
    for cut in [1, 8, 9, pages.len() - 1] {
        let began = Instant::now();
        let (server, met) = meet(5, &pages[..cut], Duration::from_millis(50));
        let error = met.unwrap_err().to_string();
        assert!(error.ends_with("no answer came in time") && began.elapsed() < PATIENCE / 4, "{error}");
        drop(server);
    }
}

#[test]
fn a_change_shows_to_the_next_who_looks_and_calls_go_on() {
    let (mut server, met) = meet(3, b"", PATIENCE);
    let client = met.unwrap();
    server.write(Kind::Types, 0, Some(4), &change(&[added(9, "new")]));
    assert!(client.message_type("new").is_ok());
    server.write(Kind::Types, 0, Some(3), &change(&[TypeChange::Removed(9)]));
    assert!(matches!(client.message_type("new"), Err(CallError::UnknownMessageType { .. })));
    let call = ask(&client);
    let id = server.request();
    server.answer(id, b"on it goes");
    assert_eq!(call.join().unwrap().unwrap(), b"on it goes");
}

#[test]
fn a_change_that_cannot_be_breaks_the_connection_as_a_violation() {
    let big: Vec<_> = (0..1000).map(|number| added(100 + number, "x")).collect();
    for (entries, payload, what) in [
        (5, change(&[added(9, "new")]), "entries"),
        (u64::MAX, change(&[added(9, "new")]), "entries"),
        (4, change(&[added(1, "new")]), "added"),
        (2, change(&[TypeChange::Removed(9)]), "removed"),
        (4, change(&[added(9, "new")])[..5].to_vec(), "types"),
        (4, vec![0xFF; 300], "types"),
        (1, change(&big), "entries"),
    ] {
        let (mut server, met) = meet(3, b"", PATIENCE);
        let client = met.unwrap();
        let call = ask(&client);
        server.request();
        server.write(Kind::Types, 0, Some(entries), &payload);
        server.socket.ring();
        let error = call.join().unwrap().unwrap_err();
        assert!(matches!(error, CallError::Violation(Violation::Types(found)) if found == what), "{error}");
    }
}

#[test]
fn a_change_that_nobody_asked_for_or_of_another_form_is_a_violation() {
    let good = change(&[added(9, "new")]);
    let meet_without = || FakeServer::meet(|_| {});
    let (mut server, client) = meet_without();
    server.write(Kind::Types, 0, Some(4), &good);
    eventually("the client has left", || client.message_type("ask").is_err() || client.call("ask", b"").is_err());
    for (id, extension, payload) in [(1, Some(4), &good[..]), (0, None, &good), (0, Some(3), b"")] {
        let (mut server, met) = meet(3, b"", PATIENCE);
        let client = met.unwrap();
        let call = ask(&client);
        server.request();
        server.write(Kind::Types, id, extension, payload);
        server.socket.ring();
        let error = call.join().unwrap().unwrap_err();
        assert!(matches!(error, CallError::Violation(Violation::Form(12))), "{error}");
    }
}
