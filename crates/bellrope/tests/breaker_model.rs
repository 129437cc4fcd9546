//! The circuit breaker under a model checker: the same source, compiled over shuttle's atomics and locks, in thousands
//! of random and adversarial schedules. `breaker_loom.rs` has every schedule of the two narrowest races.

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

    pub(crate) use shuttle::sync::{
        Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    };
}

use std::{
    sync::{
        Arc,
        // Not the model's: these only watch, and must not make schedules of their own.
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler},
    thread,
};
use src::breaker::{Breaker, BreakerConfig, BreakerState, Caller};

/// Of each kind; `BELLROPE_SCHEDULES` asks for more.
const SCHEDULES: usize = 1_500;

/// Runs `body` in random schedules, and in schedules that favour few, well-placed interruptions.
fn in_many_schedules(body: fn()) {
    let asked = std::env::var("BELLROPE_SCHEDULES").ok().and_then(|text| text.parse().ok());
    let schedules = asked.unwrap_or(SCHEDULES);
    let mut config = Config::default();
    config.silence_warnings = true; // that all orderings count as the strongest: the weak ones are loom's business
    Runner::new(RandomScheduler::new(schedules), config.clone()).run(body);
    Runner::new(PctScheduler::new(3, schedules), config).run(body);
}

fn breaker() -> Arc<Breaker> {
    let mut config = BreakerConfig::default();
    (config.failure_threshold, config.half_open_max_requests, config.jitter_percent) = (2, 2, 0);
    Arc::new(Breaker::new(config).unwrap())
}

/// A breaker that has been open for its whole time, and that moment.
fn about_to_be_probed() -> (Arc<Breaker>, Instant) {
    let (breaker, now) = (breaker(), Instant::now());
    for _ in 0..2 {
        breaker.acquire(now).unwrap().fail(now);
    }
    (breaker, now + Duration::from_secs(60))
}

fn join(threads: Vec<thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

// Fault 45.
#[test]
fn never_more_probes_than_allowed_are_out() {
    in_many_schedules(|| {
        let (breaker, now) = about_to_be_probed();
        let out = Arc::new(AtomicU32::new(0));
        let probe = |verdict: u32| {
            let (breaker, out) = (Arc::clone(&breaker), Arc::clone(&out));
            thread::spawn(move || {
                let Ok(permit) = breaker.acquire(now) else { return };
                if !permit.is_probe() {
                    return;
                }
                assert!(out.fetch_add(1, SeqCst) < 2, "a third probe is out");
                thread::yield_now();
                out.fetch_sub(1, SeqCst);
                match verdict {
                    0 => permit.succeed(now),
                    _ => drop(permit),
                }
            })
        };
        join((0..5).map(|number| probe(number % 2)).collect());
    });
}

// Unwinding drops a permit just the same, but can not be modelled: the model's threads share one count of panics.
// `a_dropped_permit_counts_for_nothing_and_gives_its_place_back` in breaker.rs panics for real.
// Fault 43.
#[test]
fn no_permit_is_lost_on_cancel_or_error() {
    in_many_schedules(|| {
        let (breaker, now) = about_to_be_probed();
        let threads = (0..4)
            .map(|number| {
                let breaker = Arc::clone(&breaker);
                thread::spawn(move || {
                    let bad_request = |permit: Result<_, _>| -> Result<(), ()> {
                        let _permit = permit.map_err(drop)?;
                        Err(())
                    };
                    match number % 2 {
                        0 => drop(breaker.acquire(now)),
                        _ => assert!(bad_request(breaker.acquire(now)).is_err()),
                    }
                })
            })
            .collect();
        join(threads);
        // Nobody has settled anything, so it is half-open to the end.
        let places = [breaker.acquire(now), breaker.acquire(now)];
        assert!(places.iter().all(Result::is_ok), "a place is gone for ever");
        assert!(breaker.acquire(now).is_err());
    });
}

// Fault 44.
#[test]
fn an_old_permit_never_settles_a_newer_state() {
    in_many_schedules(|| {
        let (breaker, now) = (breaker(), Instant::now());
        let old = [(); 3].map(|()| breaker.acquire_owned(now).unwrap());
        for _ in 0..2 {
            breaker.acquire(now).unwrap().fail(now);
        }
        let later = now + Duration::from_secs(60);
        // They fail while it is open, half-open, and closed again; none may be counted there.
        let mut threads: Vec<_> = old.into_iter().map(|permit| thread::spawn(move || permit.fail(later))).collect();
        let recovering = Arc::clone(&breaker);
        threads.push(thread::spawn(move || {
            recovering.acquire(later).unwrap().succeed(later);
            recovering.acquire(later).unwrap().succeed(later);
        }));
        join(threads);
        assert_eq!(breaker.state(later), BreakerState::Closed);
        // One short of the threshold: had any been counted, this would open it.
        breaker.acquire(later).unwrap().fail(later);
        assert_eq!(breaker.state(later), BreakerState::Closed);
    });
}

// Fault 46.
#[test]
fn half_open_is_left_in_bounded_time_whatever_its_probes_do() {
    in_many_schedules(|| {
        let (breaker, now) = about_to_be_probed();
        let over = now + Duration::from_secs(60);
        let threads = (0..4)
            .map(|number| {
                let breaker = Arc::clone(&breaker);
                thread::spawn(move || match (number, breaker.acquire(now)) {
                    (0, Ok(permit)) => std::mem::forget(permit), // hangs for ever
                    (1, Ok(permit)) => permit.succeed(now),
                    (2, Ok(permit)) => drop(permit),
                    _ => _ = breaker.state(over),
                })
            })
            .collect();
        join(threads);
        assert_ne!(breaker.state(over), BreakerState::HalfOpen);
        // And once its longest time is over every place is there again.
        let much_later = over + Duration::from_secs(600);
        let places = [breaker.acquire(much_later), breaker.acquire(much_later)];
        assert!(places.iter().all(Result::is_ok), "a hung probe holds its place for ever");
    });
}

#[test]
fn failures_of_many_threads_are_all_counted_and_open_it_once() {
    in_many_schedules(|| {
        let (breaker, now) = (breaker(), Instant::now());
        let threads = (0..4)
            .map(|_| {
                let breaker = Arc::clone(&breaker);
                thread::spawn(move || {
                    if let Ok(permit) = breaker.acquire(now) {
                        permit.fail(now);
                    }
                })
            })
            .collect();
        join(threads);
        let snapshot = breaker.snapshot(now);
        assert_eq!(snapshot.state, BreakerState::Open);
        assert_eq!(snapshot.transitions[0], (BreakerState::Closed, BreakerState::Open, 1));
    });
}

#[test]
fn a_call_that_is_counted_while_the_window_changes_hides_no_later_one() {
    in_many_schedules(|| {
        let mut config = BreakerConfig::default();
        (config.failure_threshold, config.failure_rate_percent, config.rate_min_calls) = (u32::MAX, 50, 5);
        config.rate_window = Duration::from_millis(10_000);
        let breaker = Arc::new(Breaker::new(config.clone()).unwrap());
        // The second change makes slices a thousand times as long. This moment is in the slice with the same place, but
        // with a far smaller number.
        let now = Instant::now() + Duration::from_millis(3_603_500);
        breaker.reconfigure(&config).unwrap();
        let failing = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || breaker.acquire(now).unwrap().fail(now))
        };
        config.rate_window = Duration::from_millis(10_000_000);
        breaker.reconfigure(&config).unwrap();
        failing.join().unwrap();
        for _ in 0..5 {
            if let Ok(permit) = breaker.acquire(now) {
                permit.fail(now);
            }
        }
        assert_eq!(breaker.state(now), BreakerState::Open, "five failures are all there is");
    });
}

const fn caller(number: u64) -> Caller {
    Caller::Connection(number)
}

// Fault 60.
#[test]
fn however_one_caller_fails_no_other_is_refused() {
    in_many_schedules(|| {
        let (breaker, now) = (breaker(), Instant::now());
        let hostile = (0..3).map(|_| {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || {
                for later in 0..3 {
                    let now = now + Duration::from_secs(61) * later;
                    if let Ok(permit) = breaker.acquire_for(|| caller(1), now) {
                        permit.fail_for(caller(1), now);
                    }
                }
            })
        });
        let mut threads: Vec<_> = hostile.collect();
        let honest = Arc::clone(&breaker);
        threads.push(thread::spawn(move || {
            for later in 0..3 {
                let now = now + Duration::from_secs(61) * later;
                let permit = honest.acquire_for(|| caller(2), now).expect("an honest caller is refused");
                permit.succeed_for(|| caller(2), now);
            }
        }));
        join(threads);
        assert_eq!(breaker.snapshot(now).transitions.map(|(.., count)| count), [0; 5]);
    });
}

// Faults 45, 60.
#[test]
fn one_caller_never_has_all_the_probes_and_loses_none() {
    in_many_schedules(|| {
        let (breaker, now) = about_to_be_probed();
        let threads = (0..3)
            .map(|number| {
                let breaker = Arc::clone(&breaker);
                thread::spawn(move || {
                    let greedy = [(); 2].map(|()| breaker.acquire_for(|| caller(1), now));
                    assert!(greedy.iter().filter(|permit| permit.is_ok()).count() < 2, "it has them all");
                    if number == 0 {
                        drop(greedy);
                    } else {
                        // Fails, and with that is out for a while.
                        greedy.into_iter().flatten().for_each(|permit| permit.fail_for(caller(1), now));
                    }
                })
            })
            .collect();
        join(threads);
        for number in 2..4 {
            breaker.acquire_for(|| caller(number), now).expect("a place is free").succeed_for(|| caller(number), now);
        }
        assert_eq!(breaker.state(now), BreakerState::Closed, "the failures were one caller's");
    });
}
