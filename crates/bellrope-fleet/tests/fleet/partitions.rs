//! Links that lose what is sent over them, in both directions and in one alone, while connections stay: nobody is told, and what
//! was sent may arrive long after.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use bellrope::Client;

use bellrope_testkit::nats::{Nats, SOON, eventually};

use crate::{
    history::{self, History, Told},
    networks::{Cut, Network},
    servers::{Process, notes, socket},
};

/// Who is gone is known within a second; a machine with much other work takes its time.
const KNOWN: Duration = Duration::from_secs(15);

#[test]
#[expect(clippy::print_stderr, reason = "a run says what it has seen")]
fn whichever_direction_of_a_link_is_cut_every_call_has_one_outcome_and_it_is_true() {
    let Some(network) = Network::of(&["desk", "one", "two"]) else { return };
    let Some(nats) = Nats::in_namespace(&network.hub()) else { return };
    let start = |role: &str, name: &str| {
        let url = format!("nats://{}:{}", network.address_of_hub(name), nats.port);
        Process::start_in(&network.namespace(name), role, &url, nats.home(), name)
    };
    let instances = [start("offer", "one"), start("offer", "two")];
    let desk = start("import", "desk");
    let mut client = None;
    eventually("the desk has the types of the fleet", || {
        client = Client::connect(socket(nats.home(), "desk")).ok();
        client
            .as_ref()
            .is_some_and(|client| client.message_type("count").is_ok() && client.message_type("echo").is_ok())
    });
    let client = client.unwrap();
    let (stop, number, told) = (AtomicBool::new(false), AtomicU64::new(1), History::default());
    let mut slowest = Duration::ZERO;
    std::thread::scope(|scope| {
        // Also when something of the test fails.
        let _stops = Stops(&stop);
        for caller in 0..4 {
            let (client, stop, number, told) = (&client, &stop, &number, &told);
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let call = number.fetch_add(1, Ordering::SeqCst);
                    let outcome =
                        if caller == 0 { history::stream(client, call) } else { history::unary(client, call) };
                    told.note(call, outcome);
                }
            });
        }
        let more = |what: &str, outcome: Told| {
            let before = told.count(outcome);
            eventually(what, || told.count(outcome) > before);
        };
        more("calls are answered", Told::Answered);
        for member in ["desk", "one"] {
            for what in [Cut::Both, Cut::FromMember, Cut::ToMember] {
                network.cut(member, what);
                let cut = Instant::now();
                more(&format!("what was under way is told as unknown: {member} {what:?}"), Told::Unknown);
                slowest = slowest.max(cut.elapsed());
                network.heal(member);
                // Not the answer to a call that was under way all the time: the next ones, too.
                for _ in 0..3 {
                    more(&format!("calls are answered again: {member} {what:?}"), Told::Answered);
                }
                // The desk asks again for an instance that was lost: without its calls the next cut would be nobody's.
                let noted = || std::fs::metadata(notes(nats.home(), "one")).map_or(0, |notes| notes.len());
                let before = noted();
                eventually("the first instance has calls again", || noted() > before);
            }
        }
        // For so long that the link is given up: from then on it is proven that nothing runs.
        network.cut("desk", Cut::Both);
        more("calls are not executed", Told::NotExecuted);
        network.heal("desk");
        more("calls are answered at last", Told::Answered);
        // An instance that nobody reaches is passed over.
        network.cut("one", Cut::Both);
        let (cut, before) = (Instant::now(), told.count(Told::Answered));
        while told.count(Told::Answered) < before + 200 {
            assert!(cut.elapsed() < SOON, "the other instance does not answer in its place");
            std::thread::sleep(Duration::from_millis(2));
        }
        network.heal("one");
    });
    assert!(slowest < KNOWN, "told after {slowest:?}");
    drop((client, desk, instances));
    let tally = told.check(&[("one", nats.home()), ("two", nats.home())]);
    eprintln!("told of a cut within {slowest:.1?}; {tally:?}");
}

/// Ends the callers.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
