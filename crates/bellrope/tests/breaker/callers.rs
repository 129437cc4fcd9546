//! What opens a breaker for one caller, and what for all.

mod probes;
mod remote;

use std::time::{Duration, Instant};

use bellrope::breaker::{Breaker, BreakerConfig, BreakerState as State, Caller};

const HOSTILE: Caller = Caller::Process { pid: 7, started: 1 };
const HONEST: Caller = Caller::Process { pid: 8, started: 1 };

fn config() -> BreakerConfig {
    let mut config = BreakerConfig::default();
    config.jitter_percent = 0;
    config
}

fn breaker() -> Breaker {
    Breaker::new(config()).unwrap()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn admits(breaker: &Breaker, caller: Caller, now: Instant) -> bool {
    breaker.acquire_for(|| caller, now).is_ok()
}

fn fail(breaker: &Breaker, caller: Caller, times: u32, now: Instant) {
    for _ in 0..times {
        breaker.acquire_for(|| caller, now).unwrap().fail_for(caller, now);
    }
}

fn succeed(breaker: &Breaker, caller: Caller, now: Instant) {
    breaker.acquire_for(|| caller, now).unwrap().succeed_for(|| caller, now);
}

/// A breaker that two callers' failures opened for all, and when.
fn opened() -> (Breaker, Instant) {
    let (breaker, now) = (breaker(), Instant::now());
    fail(&breaker, HOSTILE, 3, now);
    fail(&breaker, HONEST, 2, now);
    assert_eq!(breaker.state(now), State::Open);
    (breaker, now)
}

// Fault 60.
#[test]
fn failures_of_one_caller_open_it_for_that_caller_alone() {
    let (breaker, now) = (breaker(), Instant::now());
    fail(&breaker, HOSTILE, 5, now);
    let rejected = breaker.acquire_for(|| HOSTILE, now + seconds(20)).unwrap_err();
    assert_eq!((rejected.for_caller, rejected.retry_after), (true, Some(seconds(40))));
    let text = "the circuit breaker is open for this caller alone, whose calls failed; try again in 40.0 s";
    assert_eq!(rejected.to_string(), text);
    for _ in 0..100 {
        succeed(&breaker, HONEST, now + seconds(20));
    }
    let snapshot = breaker.snapshot(now + seconds(20));
    assert_eq!((snapshot.state, snapshot.rejections, snapshot.caller_rejections), (State::Closed, 1, 1));
    assert_eq!(snapshot.callers.len(), 1);
    let refused = &snapshot.callers[0];
    assert_eq!((refused.caller, refused.state, refused.retry_after), (HOSTILE, State::Open, seconds(40)));
    let again = Caller::Process { pid: 7, started: 2 };
    assert!(admits(&breaker, again, now), "another process with the same number is another caller");
}

// Fault 60.
#[test]
fn failures_of_two_callers_open_it_for_all() {
    let (breaker, now) = opened();
    let rejected = breaker.acquire_for(|| Caller::Connection(9), now).unwrap_err();
    assert_eq!((rejected.for_caller, rejected.retry_after), (false, Some(seconds(60))));
}

// Fault 60.
#[test]
fn what_one_caller_was_refused_for_weighs_no_more_against_the_others() {
    let (breaker, now) = (breaker(), Instant::now());
    fail(&breaker, HOSTILE, 5, now);
    fail(&breaker, HONEST, 3, now);
    assert!(admits(&breaker, HONEST, now), "three failures of its own are not five");
    succeed(&breaker, HONEST, now);
    fail(&breaker, HONEST, 4, now);
    assert!(admits(&breaker, HONEST, now), "a success ends the run");
}

// Fault 60.
#[test]
fn a_caller_fails_in_a_row_whatever_others_do_and_a_success_of_its_own_ends_it() {
    let (breaker, now) = (breaker(), Instant::now());
    for _ in 0..4 {
        fail(&breaker, HOSTILE, 1, now);
        succeed(&breaker, HONEST, now);
    }
    succeed(&breaker, HOSTILE, now);
    for _ in 0..5 {
        assert!(admits(&breaker, HOSTILE, now));
        fail(&breaker, HOSTILE, 1, now);
        succeed(&breaker, HONEST, now);
    }
    assert!(!admits(&breaker, HOSTILE, now));
    assert!(admits(&breaker, HONEST, now));
}

// Fault 60.
#[test]
fn failures_far_apart_with_others_successes_between_are_in_no_row() {
    let (breaker, mut now) = (breaker(), Instant::now());
    for _ in 0..20 {
        fail(&breaker, HOSTILE, 1, now);
        succeed(&breaker, HONEST, now);
        now += seconds(11);
    }
    assert!(admits(&breaker, HOSTILE, now));
}

// Fault 60.
#[test]
fn a_callers_breaker_recovers_by_its_own_probes_and_stays_longer_after_each_that_failed() {
    let (breaker, mut now) = (breaker(), Instant::now());
    fail(&breaker, HOSTILE, 5, now);
    for open_for in [60, 120, 240] {
        assert_eq!(breaker.acquire_for(|| HOSTILE, now).unwrap_err().retry_after, Some(seconds(open_for)));
        now += seconds(open_for);
        fail(&breaker, HOSTILE, 1, now);
    }
    now += seconds(480);
    let probes: Vec<_> = (0..3).map(|_| breaker.acquire_for(|| HOSTILE, now).unwrap()).collect();
    assert!(probes.iter().all(bellrope::breaker::Permit::is_probe));
    let rejected = breaker.acquire_for(|| HOSTILE, now).unwrap_err();
    assert_eq!((rejected.for_caller, rejected.retry_after), (true, Some(seconds(1))));
    assert_eq!(breaker.snapshot(now).callers[0].state, State::HalfOpen);
    drop(probes);
    succeed(&breaker, HOSTILE, now);
    assert_eq!(breaker.snapshot(now).callers.len(), 1);
    succeed(&breaker, HOSTILE, now);
    assert!(breaker.snapshot(now).callers.is_empty());
    fail(&breaker, HOSTILE, 4, now);
    assert!(admits(&breaker, HOSTILE, now), "it begins anew");
}

// Fault 60.
#[test]
fn a_callers_probe_that_never_ends_counts_as_failed_when_its_time_is_over() {
    let (breaker, now) = (breaker(), Instant::now());
    fail(&breaker, HOSTILE, 5, now);
    let now = now + seconds(60);
    std::mem::forget(breaker.acquire_for(|| HOSTILE, now).unwrap());
    let now = now + seconds(60);
    assert_eq!(breaker.acquire_for(|| HOSTILE, now).unwrap_err().retry_after, Some(seconds(120)));
}

// Fault 60.
#[test]
fn a_failing_probe_of_one_caller_keeps_the_breaker_from_nobody_else() {
    let (breaker, now) = opened();
    let now = now + seconds(60);
    fail(&breaker, HOSTILE, 1, now);
    assert_eq!(breaker.state(now), State::HalfOpen);
    assert!(breaker.acquire_for(|| HOSTILE, now).unwrap_err().for_caller);
    succeed(&breaker, HONEST, now);
    succeed(&breaker, HONEST, now);
    assert_eq!(breaker.state(now), State::Closed);
    assert!(!admits(&breaker, HOSTILE, now), "its own breaker is open still");
}

// Fault 60.
#[test]
fn calls_that_were_under_way_when_a_callers_breaker_opened_do_not_keep_it_open_for_longer() {
    let (breaker, now) = opened();
    let now = now + seconds(60);
    let probes = [(); 2].map(|()| breaker.acquire_for(|| HOSTILE, now).unwrap());
    probes.into_iter().for_each(|probe| probe.fail_for(HOSTILE, now));
    assert_eq!(breaker.acquire_for(|| HOSTILE, now).unwrap_err().retry_after, Some(seconds(60)));

    let mut config = config();
    (config.failure_threshold, config.failure_rate_percent, config.rate_min_calls) = (1_000, 50, 2);
    let breaker = Breaker::new(config).unwrap();
    let under_way = [(); 9].map(|()| breaker.acquire_for(|| HOSTILE, now).unwrap());
    under_way.into_iter().for_each(|permit| permit.fail_for(HOSTILE, now));
    assert_eq!(breaker.acquire_for(|| HOSTILE, now).unwrap_err().retry_after, Some(seconds(60)));
}

// Fault 60.
#[test]
fn failing_probes_of_two_callers_open_it_again_and_for_longer() {
    let (breaker, now) = opened();
    let now = now + seconds(60);
    fail(&breaker, HOSTILE, 1, now);
    fail(&breaker, HONEST, 1, now);
    assert_eq!(breaker.state(now), State::Open);
    let rejected = breaker.acquire_for(|| Caller::Connection(9), now).unwrap_err();
    assert_eq!(rejected.retry_after, Some(seconds(120)));
}

// Fault 60.
#[test]
fn one_caller_holds_neither_all_the_probes_nor_the_breaker_half_open() {
    let (breaker, now) = opened();
    let now = now + seconds(60);
    let held: Vec<_> = (0..3).map_while(|_| breaker.acquire_for(|| HOSTILE, now).ok()).collect();
    assert_eq!(held.len(), 2, "one place is for somebody else");
    succeed(&breaker, HONEST, now);
    assert_eq!(breaker.state(now), State::HalfOpen);
    // What it holds beyond the time is its own failure.
    let now = now + seconds(60);
    succeed(&breaker, HONEST, now);
    succeed(&breaker, HONEST, now);
    assert_eq!(breaker.state(now), State::Closed);
    assert!(!admits(&breaker, HOSTILE, now));
    drop(held);
    assert!(admits(&breaker, HONEST, now));
}

// Fault 60.
#[test]
fn a_crowd_makes_no_table_without_end_and_frees_nobody_who_is_refused() {
    let mut config = config();
    config.failure_threshold = 1_000;
    let breaker = Breaker::new(config.clone()).unwrap();
    let now = Instant::now();
    config.failure_threshold = 5;
    breaker.reconfigure(&config).unwrap();
    fail(&breaker, HOSTILE, 5, now);
    config.failure_threshold = 1_000;
    breaker.reconfigure(&config).unwrap();
    for number in 0..900 {
        fail(&breaker, Caller::Connection(number), 1, now);
    }
    assert!(!admits(&breaker, HOSTILE, now), "the least interesting goes first");
    assert_eq!(breaker.state(now), State::Closed);
    // None of what had to make room is forgotten in the count of all.
    for number in 900..1_000 {
        if breaker.state(now) == State::Closed {
            fail(&breaker, Caller::Connection(number), 1, now);
        }
    }
    assert_eq!(breaker.state(now), State::Open);
    config.failure_threshold = 1;
    breaker.reset();
    breaker.reconfigure(&config).unwrap();
    for number in 0..200 {
        // One by one, each after a success, so that none opens it for all.
        succeed(&breaker, HONEST, now);
        fail(&breaker, Caller::Connection(number), 1, now);
    }
    assert_eq!(breaker.snapshot(now).callers.len(), 32);
}

// Fault 60.
#[test]
fn the_breaker_of_a_caller_that_is_gone_is_forgotten() {
    let (breaker, now) = (breaker(), Instant::now());
    fail(&breaker, HOSTILE, 5, now);
    assert_eq!(breaker.snapshot(now + seconds(119)).callers.len(), 1);
    assert!(breaker.snapshot(now + seconds(120)).callers.is_empty());
}

// Fault 60.
#[test]
fn rates_open_it_for_all_only_by_calls_of_several_callers() {
    let mut config = config();
    (config.failure_threshold, config.failure_rate_percent, config.rate_min_calls) = (1_000, 50, 10);
    (config.slow_rate_percent, config.slow_call) = (50, seconds(1));
    for slow in [false, true] {
        let breaker = Breaker::new(config.clone()).unwrap();
        let now = Instant::now();
        let bad = |caller: Caller, at: Instant| {
            let permit = breaker.acquire_for(|| caller, at).unwrap();
            if slow { permit.succeed_for(|| caller, at + seconds(1)) } else { permit.fail_for(caller, at + seconds(1)) }
        };
        for _ in 0..5 {
            succeed(&breaker, HONEST, now + seconds(1));
        }
        for _ in 0..5 {
            bad(HOSTILE, now);
        }
        let now = now + seconds(1);
        assert!(!admits(&breaker, HOSTILE, now), "half of ten, and all of them its own");
        assert!(admits(&breaker, HONEST, now) && breaker.state(now) == State::Closed);
        for number in 0..10 {
            if breaker.state(now) == State::Closed {
                bad(Caller::Connection(number % 2), now);
            }
        }
        assert_eq!(breaker.state(now + seconds(1)), State::Open);
        // Whoever decides how long a call takes makes none slow.
        breaker.reset();
        for _ in 0..20 {
            breaker.acquire_for(|| HOSTILE, now).unwrap().untimed().succeed_for(|| HOSTILE, now + seconds(5));
        }
        assert!(admits(&breaker, HOSTILE, now + seconds(5)));
    }
}

#[test]
fn one_that_is_off_opens_by_hand_alone_and_one_that_asks_for_one_caller_opens_by_one() {
    let now = Instant::now();
    let (breaker, mut config) = (breaker(), config());
    fail(&breaker, HOSTILE, 5, now);
    config.enabled = false;
    breaker.reconfigure(&config).unwrap();
    fail(&breaker, HOSTILE, 50, now);
    fail(&breaker, HONEST, 50, now);
    assert_eq!((breaker.state(now), breaker.snapshot(now).callers.len()), (State::Closed, 0));
    breaker.force_open();
    breaker.reconfigure(&config).unwrap();
    assert!(!admits(&breaker, HONEST, now), "what is off stays open by hand");
    breaker.reset();
    (config.enabled, config.min_callers) = (true, 1);
    breaker.reconfigure(&config).unwrap();
    fail(&breaker, HOSTILE, 5, now);
    assert_eq!(breaker.state(now), State::Open);
    config.enabled = false;
    breaker.reconfigure(&config).unwrap();
    assert_eq!(breaker.state(now), State::Closed, "what is off closes");
}

#[test]
fn what_is_done_by_hand_is_done_for_every_caller() {
    let (breaker, now) = (breaker(), Instant::now());
    for by_hand in [Breaker::reset, Breaker::force_close] {
        fail(&breaker, HOSTILE, 5, now);
        assert!(!admits(&breaker, HOSTILE, now));
        by_hand(&breaker);
        assert!(admits(&breaker, HOSTILE, now) && breaker.snapshot(now).callers.is_empty());
    }
}

#[test]
fn a_caller_is_named_by_what_an_operator_can_look_for() {
    assert_eq!([HOSTILE, Caller::Connection(9)].map(|caller| caller.to_string()), ["process 7", "connection 9"]);
}

#[test]
fn who_calls_is_asked_only_while_a_failure_counts_or_somebody_is_refused() {
    let (breaker, now) = (breaker(), Instant::now());
    let nobody = || -> Caller { panic!("the caller was asked for") };
    let no_clock = || -> Instant { panic!("the time was asked for") };
    let succeed_unasked = || breaker.acquire_for(nobody, no_clock).unwrap().succeed_for(nobody, no_clock);
    succeed_unasked();
    fail(&breaker, HOSTILE, 1, now);
    breaker.acquire_for(nobody, no_clock).unwrap().succeed_for(|| HOSTILE, now);
    succeed_unasked();
    fail(&breaker, HOSTILE, 5, now);
    assert!(!admits(&breaker, HOSTILE, now));
    let now = now + seconds(60);
    succeed(&breaker, HOSTILE, now);
    succeed(&breaker, HOSTILE, now);
    succeed_unasked();
    // A failure that is in no row any more counts no longer, although its caller never came back.
    fail(&breaker, HOSTILE, 1, now);
    succeed(&breaker, HONEST, now + seconds(10) + Duration::from_nanos(1));
    succeed_unasked();
}

// Fault 60.
#[test]
fn failures_are_in_a_row_for_as_long_as_the_window_looks_back_to_the_nanosecond() {
    let window = seconds(10);
    for (later, is_in_a_row) in [(window, true), (window + Duration::from_nanos(1), false)] {
        for others_success in [Duration::ZERO, later] {
            let (breaker, now) = (breaker(), Instant::now());
            fail(&breaker, HOSTILE, 4, now);
            succeed(&breaker, HONEST, now + others_success);
            fail(&breaker, HOSTILE, 1, now + later);
            assert_eq!(!admits(&breaker, HOSTILE, now + later), is_in_a_row, "{later:?}, {others_success:?}");
        }
    }
}

#[test]
fn a_failure_of_nobody_in_particular_ends_no_run() {
    let (breaker, now) = (breaker(), Instant::now());
    fail(&breaker, HOSTILE, 4, now);
    breaker.acquire(now).unwrap().fail(now);
    fail(&breaker, HONEST, 1, now);
    assert_eq!(breaker.state(now), State::Open);
}

// Fault 60.
#[test]
fn failures_that_opened_it_for_all_count_no_more_against_one_caller_when_it_has_closed() {
    let breaker = Breaker::new(config().timeout(seconds(1))).unwrap();
    let now = Instant::now();
    fail(&breaker, HOSTILE, 3, now);
    fail(&breaker, HONEST, 2, now);
    let now = now + seconds(1);
    for number in 0..2 {
        succeed(&breaker, Caller::Connection(number), now);
    }
    assert_eq!(breaker.state(now), State::Closed);
    fail(&breaker, HOSTILE, 4, now);
    assert!(admits(&breaker, HOSTILE, now), "four in a row");
}

#[test]
fn where_one_caller_is_enough_callers_are_not_told_apart() {
    let breaker = Breaker::new(config().min_callers(1)).unwrap();
    let now = Instant::now();
    fail(&breaker, HOSTILE, 4, now);
    succeed(&breaker, HONEST, now);
    fail(&breaker, HOSTILE, 4, now);
    assert!(breaker.snapshot(now).callers.is_empty(), "anybody's success ends anybody's row");
    fail(&breaker, HOSTILE, 1, now);
    assert_eq!(breaker.state(now), State::Open);
    let now = now + seconds(60);
    let probes: Vec<_> = (0..3).map_while(|_| breaker.acquire_for(|| HOSTILE, now).ok()).collect();
    assert_eq!(probes.len(), 3, "no place is kept for somebody else");
}

// Fault 60.
#[test]
fn a_changed_number_of_callers_frees_those_refused_only_if_callers_are_told_apart_no_more() {
    let (breaker, now) = (breaker(), Instant::now());
    fail(&breaker, HOSTILE, 5, now);
    breaker.reconfigure(&config().min_callers(3)).unwrap();
    assert!(!admits(&breaker, HOSTILE, now));
    breaker.reconfigure(&config().min_callers(1)).unwrap();
    assert!(admits(&breaker, HOSTILE, now));
}

// Fault 60.
#[test]
fn a_caller_that_had_to_make_room_in_the_table_is_still_one_of_several() {
    let breaker = Breaker::new(config().failure_threshold(2)).unwrap();
    let now = Instant::now();
    for number in 0..32 {
        fail(&breaker, Caller::Connection(number), 2, now);
        succeed(&breaker, HONEST, now);
    }
    assert_eq!(breaker.snapshot(now).callers.len(), 32, "a full table, and no run");
    fail(&breaker, HOSTILE, 1, now);
    fail(&breaker, Caller::Connection(99), 1, now);
    assert_eq!(breaker.state(now), State::Open, "two failures in a row of two callers");
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

// Fault 60.
#[test]
fn whatever_one_caller_does_for_however_long_others_are_always_admitted() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let mut config = config();
        (config.failure_threshold, config.success_threshold) = (1 + dice.below(6) as u32, 1 + dice.below(3) as u32);
        config.half_open_max_requests = 1 + dice.below(4) as u32;
        (config.failure_rate_percent, config.slow_rate_percent) =
            (dice.below(2) as u32 * 50, dice.below(2) as u32 * 50);
        config.rate_min_calls = 1 + dice.below(10) as u32;
        let breaker = Breaker::new(config).unwrap();
        let (mut now, mut held) = (Instant::now(), Vec::new());
        for step in 0..400 {
            now += Duration::from_millis(dice.below(3) * dice.below(40_000));
            match dice.below(8) {
                0..=2 => held.extend(breaker.acquire_for(|| HOSTILE, now)),
                3..=6 if !held.is_empty() => {
                    let permit = held.swap_remove(dice.below(held.len() as u64) as usize);
                    match dice.below(4) {
                        0 => permit.succeed_for(|| HOSTILE, now),
                        1 => drop(permit),
                        _ => permit.fail_for(HOSTILE, now),
                    }
                }
                _ => {
                    let permit = breaker.acquire_for(|| HONEST, now);
                    let permit = permit.unwrap_or_else(|rejected| panic!("seed {seed}, step {step}: {rejected}"));
                    permit.succeed_for(|| HONEST, now);
                }
            }
            let snapshot = breaker.snapshot(now);
            assert_eq!(snapshot.state, State::Closed, "seed {seed}, step {step}");
            assert!(snapshot.callers.iter().all(|refused| refused.caller == HOSTILE));
        }
    }
}
