//! What the payloads of a service are that only the fleet has, as an importing server says it.

use std::{sync::Arc, time::Instant};

use bellrope::{
    CallError, Client, Server,
    server::ServerBuilder,
    service::{Form, SCHEMA, Schema, ServiceError, Shape, Type},
};
use bellrope_fleet::{FleetSettings, instances};
use serde::{Deserialize, Serialize};
use serde_json::json;

use bellrope_testkit::nats::{Nats, SOON, eventually};

use crate::servers::{Member, Seen, importing, join, settings};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    title: String,
    lines: Vec<u32>,
}

#[bellrope::service(codec = "postcard")]
trait Notes {
    fn add(&self, note: Note) -> u32;
    fn last(&self) -> Note;
}

struct Pad;

#[bellrope::service]
impl Notes for Pad {
    fn add(&self, note: Note) -> u32 {
        note.lines.len() as u32
    }

    fn last(&self) -> Note {
        Note { title: "last".to_owned(), lines: vec![1, 2] }
    }
}

/// The same names with other types.
mod other {
    #[bellrope::service(codec = "postcard", name = "Notes")]
    pub(super) trait Notes {
        fn add(&self, note: String) -> u32;
    }
}

/// A schema of so many bytes, about.
fn large(bytes: usize) -> Schema {
    let named = (0..bytes / 1_000)
        .map(|at| Type { name: format!("{at:01000}"), form: Form::Newtype(Shape::Type(at as u32 + 1)) });
    let last = Type { name: "Last".to_owned(), form: Form::Unit };
    Schema {
        codec: "json".to_owned(),
        request: Shape::Type(0),
        answer: Shape::Unit,
        sent: Shape::Unit,
        types: named.chain([last]).collect(),
    }
}

fn types(_: &Arc<Seen>) -> ServerBuilder {
    let echo = |builder: ServerBuilder, name| builder.unary_async(name, |call| async { Ok(call.into_payload()) });
    let builder = Server::builder().service(Pad);
    let builder = ["echo", "Large.say", "Lies.say", "Lies.more"].into_iter().fold(builder, echo);
    builder
        .schema("Large.say", large(900_000))
        // What it offers and what it says are two.
        .schema("Lies.say", large(0))
        .payload_mark("Lies.say", 1, 0x77)
        .payload_mark("Lies.more", 1, 0x78)
}

fn offering(url: &str) -> Member {
    join(FleetSettings { offer: vec!["*".into()], ..settings(url) }, types).unwrap()
}

fn question(method: &str) -> Vec<u8> {
    json!({ "method": method }).to_string().into_bytes()
}

fn asked(client: &Client, method: &str) -> Result<Vec<u8>, CallError> {
    client.call_within(SCHEMA, &question(method), SOON)
}

#[test]
fn a_schema_that_only_the_fleet_has_is_had_here_and_kept() {
    let Some(nats) = Nats::configured("max_payload: 8192") else { return };
    let there = offering(&nats.url());
    let own = Client::connect(&there.path).unwrap();
    let here = importing(&nats.url());
    let client = here.client();
    for method in ["Notes.add", "Large.say"] {
        let schema = asked(&client, method).unwrap();
        assert_eq!(schema, asked(&own, method).unwrap(), "{method}");
        Schema::from_json(&schema).unwrap();
    }
    // It is no call of the type.
    let listed = instances(&settings(&nats.url()), std::time::Duration::from_millis(500)).unwrap();
    assert!(listed[0].types.iter().all(|row| row.requests == 0), "{listed:?}");
    let refused = |method| match asked(&client, method) {
        Err(CallError::InvalidRequest { text }) => text,
        other => panic!("{method}: {other:?}"),
    };
    for method in ["echo", "Notes.none", ""] {
        assert!(refused(method).contains("no schema is known"), "{}", refused(method));
    }
    assert!(refused("Lies.say").contains("another one than it offers"), "{}", refused("Lies.say"));
    assert!(refused("Lies.more").contains("no schema is known"), "{}", refused("Lies.more"));
    // What is kept is there without anybody; what is not, nobody says, and soon.
    drop(there);
    assert!(asked(&client, "Large.say").is_ok());
    let began = Instant::now();
    let nobody = asked(&client, "Notes.last").unwrap_err();
    assert!(matches!(nobody, CallError::NotExecuted) && began.elapsed() < SOON, "{nobody:?}");
    // Whoever comes with the same says it.
    let _next = offering(&nats.url());
    eventually("the next instance says it", || asked(&client, "Notes.last").is_ok());
}

#[test]
fn a_typed_client_at_an_importing_server_is_told_what_differs() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let here = importing(&nats.url());
    drop(here.client());
    let notes = NotesBlockingClient::connect(&here.path).unwrap();
    assert_eq!(notes.add(Note { title: "t".into(), lines: vec![1, 2, 3] }).unwrap(), 3);
    assert_eq!(notes.last().unwrap().title, "last");
    let error = other::NotesBlockingClient::connect(&here.path).unwrap().add("t".to_owned()).unwrap_err();
    let ServiceError::Call(CallError::Incompatible { differences, .. }) = &error else { panic!("{error:?}") };
    assert!(differences.contains("note") && !differences.contains("cannot say"), "{differences}");
    drop(there);
}

#[test]
fn a_servers_own_schemas_come_first_and_those_that_it_leaves_to_the_fleet_are_the_fleets() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let theirs = asked(&Client::connect(&there.path).unwrap(), "Notes.add").unwrap();
    let own = Schema { request: Shape::Any, ..large(0) };
    for (order, expected) in
        [(bellrope_fleet::Order::Local, serde_json::to_vec(&own).unwrap()), (bellrope_fleet::Order::Only, theirs)]
    {
        let both = FleetSettings { import: vec!["*".into()], order, ..settings(&nats.url()) };
        let here = join(both, |_| {
            let builder = Server::builder().unary_async("Notes.add", |call| async { Ok(call.into_payload()) });
            builder.schema("Notes.add", own.clone())
        })
        .unwrap();
        assert_eq!(asked(&here.client(), "Notes.add").unwrap(), expected, "{order:?}");
    }
}
