//! Servers that are far from NATS.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bellrope::{CallError, Server};
use bellrope_fleet::{Choice, FleetSettings};

use bellrope_testkit::nats::{Nats, Way, eventually};

use crate::servers::{importing, join, offering, settings};

#[test]
fn an_instance_that_is_far_from_nats_drains_without_losing_a_call() {
    drains_without_losing_a_call(Choice::Sticky);
}

#[test]
fn an_instance_that_is_far_from_nats_loses_no_call_that_nats_draws_for_it_while_it_drains() {
    drains_without_losing_a_call(Choice::Queue);
}

fn drains_without_losing_a_call(choice: Choice) {
    let Some(nats) = Nats::start() else { return };
    let way = Way::slow(nats.port, Duration::from_millis(40));
    let far = offering(&way.url());
    let near = offering(&nats.url());
    let import = FleetSettings { import: vec!["*".into()], choice, ..settings(&nats.url()) };
    let here = join(import, |_| Server::builder()).unwrap();
    let client = Arc::new(here.client());
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (client, stop) = (Arc::clone(&client), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    client.call("echo", &[3; 64])?;
                }
                Ok::<_, CallError>(())
            })
        })
        .collect();
    let at_work = || [&far, &near].iter().all(|member| member.seen.began.load(Ordering::SeqCst) > 20);
    eventually("both are at work", at_work);
    assert!(far.fleet.drain(Duration::from_secs(10)));
    drop(far);
    let before = near.seen.began.load(Ordering::SeqCst);
    eventually("the other one goes on", || near.seen.began.load(Ordering::SeqCst) > before + 50);
    stop.store(true, Ordering::SeqCst);
    callers.into_iter().for_each(|caller| caller.join().unwrap().unwrap());
    assert_eq!(here.fleet.counters().unknown.load(Ordering::SeqCst), 0);
}

#[test]
fn a_call_over_a_long_way_is_answered_or_proven_not_to_have_run() {
    let Some(nats) = Nats::start() else { return };
    for (one_way, is_answered) in [(60, true), (130, false)] {
        let [there, here] = [(); 2].map(|()| Way::slow(nats.port, Duration::from_millis(one_way)));
        let (there, here) = (offering(&there.url()), importing(&here.url()));
        let client = here.client();
        if is_answered {
            // The machine that the test runs on may be slow as well.
            eventually("it is answered", || client.call("echo", b"ding").is_ok_and(|answer| answer == b"ding"));
        } else {
            // On a machine with other work the first word of it may come too late: then it is not known.
            eventually("it is proven not to have run", || {
                matches!(client.call("echo", b"ding"), Err(CallError::NotExecuted))
            });
            assert_eq!(there.seen.began.load(Ordering::SeqCst), 0);
        }
        drop((here, there));
    }
}
