//! What the model says of a fleet, beside what a NATS server counts of one of that size.

use std::{sync::Arc, time::Instant};

use bellrope::Server;
use bellrope_fleet::{FleetSettings, MESSAGES_OF_A_CALL, Size, load};
use serde_json::Value;

use bellrope_testkit::nats::{Nats, eventually};

use crate::servers::{Member, join, settings};

const IMPORTING: u64 = 12;
const INSTANCES: u64 = 4;
const TYPES: u64 = 5;
/// Small calls of each importing server.
const CALLS: u64 = 100;

/// What the NATS server counts.
fn counted(nats: &Nats) -> [u64; 4] {
    let said: Value = serde_json::from_str(&nats.monitoring("/varz")).unwrap();
    ["connections", "subscriptions", "in_msgs", "mem"].map(|key| said[key].as_u64().unwrap())
}

fn instance(url: &str) -> Member {
    let types = |_: &Arc<_>| {
        let names = (1..TYPES).map(|number| format!("type {number}"));
        names.fold(Server::builder().in_place("echo", |_| Ok(())), |builder, name| builder.in_place(&name, |_| Ok(())))
    };
    join(FleetSettings { offer: vec!["*".into()], ..settings(url) }, types).unwrap()
}

#[test]
#[expect(clippy::print_stderr, reason = "memory is for whoever reads the log")]
fn a_fleet_of_a_size_that_runs_here_takes_what_the_model_says() {
    let Some(nats) = Nats::configured("http: \"127.0.0.1:-1\"") else { return };
    let size = Size {
        importing: IMPORTING,
        instances: INSTANCES,
        types: TYPES,
        calls_per_second: 1.0,
        streams: 0.0,
        chunks_per_second: 0.0,
    };
    let model = load(size);
    let [connections, subscriptions, _, empty] = counted(&nats);
    let _there: Vec<_> = (0..INSTANCES).map(|_| instance(&nats.url())).collect();
    let offered = || counted(&nats)[1] - subscriptions;
    let of_instances = model.subscriptions - load(Size { instances: 0, ..size }).subscriptions;
    eventually("the instances offer their types", || offered() == of_instances);
    // Each says that it has something new; nobody else has anything to say yet.
    let before = counted(&nats)[2];
    let here: Vec<_> = (0..IMPORTING)
        .map(|_| {
            join(FleetSettings { import: vec!["*".into()], ..settings(&nats.url()) }, |_| Server::builder()).unwrap()
        })
        .collect();
    let clients: Vec<_> = here.iter().map(Member::client).collect();
    let now = counted(&nats);
    assert_eq!([now[0] - connections, now[1] - subscriptions], [model.connections, model.subscriptions]);
    // Beside the answers: each one's message to itself, which shows that it hears, and its question.
    assert_eq!(now[2] - before, model.answers_at_a_common_start + 2 * IMPORTING);

    let (began, before) = (Instant::now(), now[2]);
    for client in &clients {
        (0..CALLS).for_each(|_| assert_eq!(client.call("echo", b"ding").unwrap(), b"ding"));
    }
    let calls = CALLS * IMPORTING;
    let sent = counted(&nats)[2] - before;
    let predicted = (MESSAGES_OF_A_CALL * calls as f64) as u64;
    // Clocks are asked once by each instance of each importing server, which answers. What both say that they live and what is to
    // do goes on while there is something.
    let beats = (began.elapsed().as_millis() as u64 / 200 + 1) * (2 * IMPORTING * INSTANCES + INSTANCES);
    let clocks = 2 * IMPORTING * INSTANCES;
    assert!((predicted..=predicted + clocks + beats).contains(&sent), "{sent} messages, {predicted} were predicted");
    let each = (counted(&nats)[3] - empty) / model.connections;
    eprintln!(
        "{calls} calls took {sent} messages, {predicted} without clocks and beats; {} KiB of the NATS server for each of {} \
         connections",
        each / 1024,
        model.connections
    );
}
