//! Servers that are far from NATS.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bellrope::CallError;

use bellrope_testkit::nats::{Nats, Way, eventually};

use crate::servers::{importing, offering};

#[test]
fn an_instance_that_is_far_from_nats_drains_without_losing_a_call() {
    let Some(nats) = Nats::start() else { return };
    let way = Way::slow(nats.port, Duration::from_millis(40));
    let far = offering(&way.url());
    let near = offering(&nats.url());
    let here = importing(&nats.url());
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
