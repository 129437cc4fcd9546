//! The narrowest races of the circuit breaker in every schedule, memory orders included: the same source, compiled over
//! loom's atomics and locks.

#[path = "../src"]
#[expect(
    unreachable_pub,
    dead_code,
    unused_imports,
    reason = "this is the library's source, of which the model needs a part"
)]
mod src {
    pub mod breaker;
}

#[path = "../src/settings.rs"]
mod settings;

/// What the breaker is built from here.
mod sync {
    pub(crate) use std::sync::PoisonError;

    pub(crate) use loom::sync::{
        Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    };
}

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use loom::thread;
use src::breaker::{Breaker, BreakerConfig, BreakerState, Caller};

fn in_every_schedule(body: fn()) {
    let mut model = loom::model::Builder::new();
    // More switches than these between two threads find nothing new, as far as is known, and take for ever.
    model.preemption_bound = Some(3);
    model.check(body);
}

fn breaker(failures: u32) -> Arc<Breaker> {
    let mut config = BreakerConfig::default();
    (config.failure_threshold, config.success_threshold) = (failures, 1);
    (config.half_open_max_requests, config.jitter_percent) = (1, 0);
    Arc::new(Breaker::new(config).unwrap())
}

// Fault 45.
#[test]
fn two_racing_for_one_probe_are_never_both_admitted() {
    in_every_schedule(|| {
        let (breaker, now) = (breaker(2), Instant::now());
        for _ in 0..2 {
            breaker.acquire(now).unwrap().fail(now);
        }
        let later = now + Duration::from_secs(60);
        let other = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || breaker.acquire(later).map(std::mem::forget).is_ok())
        };
        let here = breaker.acquire(later).map(std::mem::forget).is_ok();
        assert!(here ^ other.join().unwrap(), "both or neither were admitted");
    });
}

// Fault 44.
#[test]
fn an_old_failure_is_never_counted_in_a_state_that_began_meanwhile() {
    in_every_schedule(|| {
        let (breaker, now) = (breaker(2), Instant::now());
        let old = breaker.acquire_owned(now).unwrap();
        for _ in 0..2 {
            breaker.acquire(now).unwrap().fail(now);
        }
        let later = now + Duration::from_secs(60);
        let failing = thread::spawn(move || old.fail(later));
        breaker.acquire(later).unwrap().succeed(later);
        failing.join().unwrap();
        assert_eq!(breaker.state(later), BreakerState::Closed);
        breaker.acquire(later).unwrap().fail(later);
        assert_eq!(breaker.state(later), BreakerState::Closed, "the old failure was counted with the new one");
    });
}

#[test]
fn two_failures_at_once_are_both_counted_and_open_it_once() {
    in_every_schedule(|| {
        let (breaker, now) = (breaker(2), Instant::now());
        let (one, two) = (breaker.acquire_owned(now).unwrap(), breaker.acquire_owned(now).unwrap());
        let failing = thread::spawn(move || one.fail(now));
        two.fail(now);
        failing.join().unwrap();
        assert_eq!(breaker.state(now), BreakerState::Open);
        assert_eq!(breaker.snapshot(now).transitions[0].2, 1);
    });
}

// Fault 44.
#[test]
fn a_failure_that_would_open_it_opens_no_state_that_began_meanwhile() {
    in_every_schedule(|| {
        let (breaker, now) = (breaker(1), Instant::now());
        let (one, two) = (breaker.acquire_owned(now).unwrap(), breaker.acquire_owned(now).unwrap());
        let failing = thread::spawn(move || one.fail(now));
        two.fail(now);
        let later = now + Duration::from_secs(60);
        breaker.acquire(later).unwrap().succeed(later);
        failing.join().unwrap();
        assert_eq!(breaker.state(later), BreakerState::Closed, "it was opened by a call from before its recovery");
    });
}

const ONE: Caller = Caller::Connection(1);
const OTHER: Caller = Caller::Connection(2);

// Fault 60.
#[test]
fn one_caller_opens_the_breaker_for_itself_alone_in_every_schedule() {
    in_every_schedule(|| {
        let (breaker, now) = (breaker(2), Instant::now());
        breaker.acquire_for(|| ONE, now).unwrap().fail_for(ONE, now);
        let last = breaker.acquire_owned_for(|| ONE, now).unwrap();
        let failing = thread::spawn(move || last.fail_for(ONE, now));
        let honest = breaker.acquire_for(|| OTHER, now);
        honest.expect("whoever has not failed is admitted").succeed_for(|| OTHER, now);
        failing.join().unwrap();
        assert_eq!(breaker.state(now), BreakerState::Closed);
        assert!(breaker.acquire_for(|| ONE, now).is_err(), "its two failures in a row are counted");
        assert!(breaker.acquire_for(|| OTHER, now).is_ok());
    });
}

// Fault 60.
#[test]
fn failures_of_two_callers_at_once_are_both_counted_and_open_it_for_all_once() {
    in_every_schedule(|| {
        let (breaker, now) = (breaker(2), Instant::now());
        let one = breaker.acquire_owned_for(|| ONE, now).unwrap();
        let other = breaker.acquire_for(|| OTHER, now).unwrap();
        let failing = thread::spawn(move || one.fail_for(ONE, now));
        other.fail_for(OTHER, now);
        failing.join().unwrap();
        assert_eq!(breaker.state(now), BreakerState::Open);
        assert_eq!(breaker.snapshot(now).transitions[0].2, 1);
    });
}

// Fault 60.
#[test]
fn a_count_by_nobody_in_particular_loses_no_callers_breaker() {
    in_every_schedule(|| {
        let (breaker, now) = (breaker(2), Instant::now());
        breaker.acquire_for(|| ONE, now).unwrap().fail_for(ONE, now);
        let last = breaker.acquire_owned_for(|| ONE, now).unwrap();
        let nobodys = breaker.acquire(now).unwrap();
        let failing = thread::spawn(move || last.fail_for(ONE, now));
        nobodys.fail(now);
        failing.join().unwrap();
        assert!(breaker.acquire_for(|| ONE, now).is_err(), "the mark in the word was overwritten");
    });
}
