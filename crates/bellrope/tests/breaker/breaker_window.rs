//! The window of the circuit breaker's rates, to the slice. The window is ten seconds long, in slices of one.

use std::time::{Duration, Instant};

use bellrope::breaker::{Breaker, BreakerConfig, BreakerState as State};

/// A rate alone opens it, from ten calls on.
fn config(failure_rate_percent: u32, slow_rate_percent: u32) -> BreakerConfig {
    let mut config = BreakerConfig::default();
    (config.failure_threshold, config.rate_min_calls) = (u32::MAX, 10);
    (config.failure_rate_percent, config.slow_rate_percent) = (failure_rate_percent, slow_rate_percent);
    config
}

/// A breaker with these settings, and a moment in the middle of a slice of its window.
fn breaker(config: BreakerConfig) -> (Breaker, Instant) {
    let breaker = Breaker::new(config).unwrap();
    (breaker, Instant::now() + Duration::from_millis(100_500))
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn fail(breaker: &Breaker, times: u32, now: Instant) {
    for _ in 0..times {
        breaker.acquire(now).unwrap().fail(now);
    }
}

fn succeed(breaker: &Breaker, times: u32, now: Instant) {
    for _ in 0..times {
        breaker.acquire(now).unwrap().succeed(now);
    }
}

#[test]
fn a_rate_opens_it_when_it_is_reached_and_not_before() {
    let (breaker, now) = breaker(config(50, 0));
    succeed(&breaker, 6, now);
    fail(&breaker, 5, now);
    assert_eq!(breaker.state(now), State::Closed, "5 of 11 failed");
    fail(&breaker, 1, now);
    assert_eq!(breaker.state(now), State::Open, "6 of 12 failed");
}

#[test]
fn successes_are_no_failures() {
    let (breaker, now) = breaker(config(50, 0));
    fail(&breaker, 1, now);
    succeed(&breaker, 20, now);
    assert_eq!(breaker.state(now), State::Closed);
}

#[test]
fn a_rate_that_is_off_opens_nothing_while_the_other_is_on() {
    let (failing, now) = breaker(config(0, 50));
    let (slow, _) = breaker(config(50, 0));
    for _ in 0..20 {
        fail(&failing, 1, now);
        slow.acquire(now).unwrap().succeed(now + seconds(9));
    }
    assert_eq!((failing.state(now), slow.state(now)), (State::Closed, State::Closed));
}

#[test]
fn both_rates_may_be_on_with_the_same_percentage() {
    let (failing, now) = breaker(config(50, 50));
    let (slow, _) = breaker(config(50, 50));
    fail(&failing, 10, now);
    for _ in 0..10 {
        slow.acquire(now).unwrap().succeed(now + seconds(9));
    }
    assert_eq!((failing.state(now), slow.state(now)), (State::Open, State::Open));
}

#[test]
fn what_was_counted_for_as_long_as_the_window_counts_and_nothing_older() {
    for (later, expected) in
        [(0, State::Open), (5, State::Open), (9, State::Open), (10, State::Closed), (11, State::Closed)]
    {
        let (breaker, now) = breaker(config(50, 0));
        fail(&breaker, 9, now);
        fail(&breaker, 1, now + seconds(later));
        assert_eq!(breaker.state(now), expected, "{later} s later");
    }
}

#[test]
fn no_moment_of_the_past_is_taken_for_one_in_the_window_however_long_ago_it_was() {
    for later in (0..30).map(|doubled| seconds(10 << doubled)).chain((4..34).map(|bit| seconds(1 << bit))) {
        let (breaker, now) = breaker(config(50, 0));
        fail(&breaker, 9, now);
        fail(&breaker, 1, now + later);
        assert_eq!(breaker.state(now + later), State::Closed, "{later:?} later");
    }
}

#[test]
fn a_changed_window_is_as_long_as_it_says() {
    for (window_ms, later) in [(1_000, 2), (20_000, 15), (5_000, 4), (5_000, 6), (10_000, 12), (10_000, 9)] {
        let (breaker, now) = breaker(config(50, 0));
        for _ in 0..3 {
            let mut changed = config(50, 0);
            changed.rate_window = Duration::from_millis(window_ms);
            breaker.reconfigure(&changed).unwrap();
        }
        fail(&breaker, 9, now);
        fail(&breaker, 1, now + seconds(later));
        let expected = if later * 1_000 < window_ms { State::Open } else { State::Closed };
        assert_eq!(breaker.state(now), expected, "{later} s later, with a window of {window_ms} ms");
    }
}

#[test]
fn a_call_that_ended_before_the_window_does_not_count() {
    let (breaker, now) = breaker(config(50, 0));
    fail(&breaker, 8, now);
    let late = breaker.acquire(now).unwrap();
    late.fail(now - seconds(10));
    fail(&breaker, 1, now);
    assert_eq!(breaker.state(now), State::Closed, "nine have failed in the window");
    fail(&breaker, 1, now);
    assert_eq!(breaker.state(now), State::Open);
}

// Fault 44.
#[test]
fn what_was_admitted_before_a_reset_does_not_count_after_it() {
    let (breaker, now) = breaker(config(50, 0));
    let old: Vec<_> = (0..10).map(|_| breaker.acquire(now).unwrap()).collect();
    fail(&breaker, 9, now);
    breaker.reset();
    old.into_iter().for_each(|permit| permit.fail(now));
    fail(&breaker, 9, now);
    assert_eq!(breaker.state(now), State::Closed, "nine have failed since");
    fail(&breaker, 1, now);
    assert_eq!(breaker.state(now), State::Open);
}
