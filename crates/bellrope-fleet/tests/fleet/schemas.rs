//! What the payloads of a service are that only the fleet has, as an importing server says it.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use bellrope::{
    CallError, Client, Server,
    client::{CallOptions, Metadata},
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

    pub(super) struct Text;

    #[bellrope::service]
    impl Notes for Text {
        fn add(&self, note: String) -> u32 {
            note.len() as u32
        }
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
    let mut listed = Vec::new();
    eventually("the instance is heard", || {
        listed = instances(&settings(&nats.url()), std::time::Duration::from_millis(500)).unwrap();
        !listed.is_empty()
    });
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

#[test]
fn a_method_is_what_all_instances_mean_by_it_and_not_what_the_first_one_meant_that_was_heard_of() {
    let Some(nats) = Nats::start() else { return };
    let offering_new = || {
        let settings = FleetSettings { offer: vec!["Notes.*".into()], ..settings(&nats.url()) };
        join(settings, |_| Server::builder().service(other::Text)).unwrap()
    };
    let before = offering(&nats.url());
    let here = importing(&nats.url());
    drop(here.client());
    let old_client = || NotesBlockingClient::connect(&here.path).unwrap();
    let new_client = || other::NotesBlockingClient::connect(&here.path).unwrap();
    let note = || Note { title: "t".into(), lines: vec![1, 2, 3] };
    assert_eq!(old_client().add(note()).unwrap(), 3);
    // As long as one instance has the first version, calls of it go there.
    let after = offering_new();
    let known = || here.fleet.counters().forwarded.load(Relaxed);
    let calls = known();
    assert!((0..50).all(|_| old_client().add(note()).unwrap() == 3));
    assert_eq!(known() - calls, 50, "a question for a schema is no call");
    assert!(before.fleet.drain(SOON));
    eventually("the new version is called", || new_client().add("four".to_owned()).is_ok_and(|len| len == 4));
    let schema = asked(&Client::connect(&here.path).unwrap(), "Notes.add").unwrap();
    assert_eq!(schema, asked(&Client::connect(&after.path).unwrap(), "Notes.add").unwrap());
    let error = old_client().add(note()).unwrap_err();
    assert!(matches!(&error, ServiceError::Call(CallError::Incompatible { .. })), "{error:?}");
    // And back.
    drop(before);
    let _again = offering(&nats.url());
    assert!(after.fleet.drain(SOON));
    eventually("the first version is called again", || old_client().add(note()).is_ok_and(|lines| lines == 3));
}

#[test]
fn who_asks_for_a_schema_in_a_session_has_not_called_in_it() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let here = importing(&nats.url());
    let client = here.client();
    let options = CallOptions::new().timeout(SOON).metadata(Metadata::new().session("window 3").unwrap());
    client.call_with(SCHEMA, &question("Notes.add"), &options).unwrap();
    let counted = |member: &Member| {
        let counters = member.fleet.counters();
        [&counters.forwarded, &counters.taken, &counters.signed].map(|counter| counter.load(Relaxed))
    };
    assert_eq!((counted(&here), counted(&there)), ([0; 3], [0; 3]));
    client.call_with("echo", b"", &options).unwrap();
    assert_eq!((counted(&here)[0], counted(&there)[1]), (1, 1));
}
