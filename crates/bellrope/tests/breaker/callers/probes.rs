//! Probes of known callers, of the breaker of all and of their own: to the generation, the place and the moment.

use std::time::{Duration, Instant};

use bellrope::breaker::{Breaker, BreakerState as State, Caller, Permit};

use super::{HONEST, HOSTILE, breaker, config, fail, opened, seconds, succeed};

// Fault 44.
#[test]
fn a_callers_probe_of_an_earlier_half_open_state_counts_for_nothing_in_a_later_one() {
    let verdicts: [fn(Caller, Permit<&Breaker>, Instant); 3] = [
        |_, permit, _| drop(permit),
        |caller, permit, now| permit.succeed_for(|| caller, now),
        |caller, permit, now| permit.fail_for(caller, now),
    ];
    for (number, settle) in verdicts.into_iter().enumerate() {
        let (breaker, now) = opened();
        let probes_of = |callers: [u64; 3], now: Instant| {
            callers.map(Caller::Connection).map(|caller| (caller, breaker.acquire_for(|| caller, now).unwrap()))
        };
        let old = probes_of([1, 2, 3], now + seconds(60));
        assert_eq!(breaker.state(now + seconds(60 + 60)), State::Open, "they never ended");
        let now = now + seconds(60 + 60 + 120);
        // Each is in the place of one of the old ones.
        let new = probes_of([4, 5, 6], now);
        for (caller, permit) in old {
            settle(caller, permit, now);
        }
        assert_eq!(breaker.state(now), State::HalfOpen, "verdict {number}");
        assert!(breaker.acquire_for(|| HONEST, now).is_err(), "three are out, verdict {number}");
        for (caller, permit) in new.into_iter().take(2) {
            permit.succeed_for(|| caller, now);
        }
        assert_eq!(breaker.state(now), State::Closed, "verdict {number}");
    }
}

// Faults 44, 60.
#[test]
fn a_probe_of_an_earlier_round_of_a_callers_own_breaker_counts_for_nothing_in_any_later_one() {
    let breaker = Breaker::new(config().success_threshold(1)).unwrap();
    let (mut now, mut old) = (Instant::now(), Vec::new());
    fail(&breaker, HOSTILE, 5, now);
    for open_for in [60, 120, 240, 480] {
        assert_eq!(breaker.acquire_for(|| HOSTILE, now).unwrap_err().retry_after, Some(seconds(open_for)));
        now += seconds(open_for);
        old.push(breaker.acquire_for(|| HOSTILE, now).unwrap());
        now += seconds(60);
    }
    assert_eq!(breaker.acquire_for(|| HOSTILE, now).unwrap_err().retry_after, Some(seconds(600)));
    now += seconds(600);
    let probe = breaker.acquire_for(|| HOSTILE, now).unwrap();
    for permit in old {
        permit.succeed_for(|| HOSTILE, now);
        assert_eq!(breaker.snapshot(now).callers.len(), 1);
    }
    probe.succeed_for(|| HOSTILE, now);
    assert!(breaker.snapshot(now).callers.is_empty());
}

#[test]
fn where_all_probes_of_a_caller_ended_in_time_the_next_ones_decide() {
    let breaker = Breaker::new(config().half_open_timeout(seconds(10))).unwrap();
    let now = Instant::now();
    fail(&breaker, HOSTILE, 5, now);
    let now = now + seconds(60);
    succeed(&breaker, HOSTILE, now);
    let now = now + seconds(10);
    succeed(&breaker, HOSTILE, now);
    assert_eq!(breaker.snapshot(now).callers.len(), 1, "the success of the time before does not count");
    succeed(&breaker, HOSTILE, now);
    assert!(breaker.snapshot(now).callers.is_empty());
}

#[test]
fn a_caller_with_all_its_probes_out_is_to_wait_no_longer_than_they_may_take() {
    let (breaker, now) = (breaker(), Instant::now());
    fail(&breaker, HOSTILE, 5, now);
    let now = now + seconds(60);
    let _out = [(); 3].map(|()| breaker.acquire_for(|| HOSTILE, now).unwrap());
    let rejected = breaker.acquire_for(|| HOSTILE, now + Duration::from_millis(59_750)).unwrap_err();
    assert_eq!((rejected.for_caller, rejected.retry_after), (true, Some(Duration::from_millis(250))));
}

#[test]
fn a_callers_breaker_is_not_forgotten_while_its_probes_decide_and_is_at_the_end_of_their_time() {
    let breaker = Breaker::new(config().half_open_timeout(seconds(120))).unwrap();
    let now = Instant::now();
    fail(&breaker, HOSTILE, 5, now);
    succeed(&breaker, HOSTILE, now + seconds(60));
    let end = now + seconds(60 + 120);
    for still in [now + seconds(120), end - Duration::from_nanos(1)] {
        assert_eq!(breaker.snapshot(still).callers.len(), 1);
    }
    assert!(breaker.snapshot(end).callers.is_empty());
}

// Fault 60.
#[test]
fn a_probe_of_the_breaker_of_all_that_went_well_closes_its_callers_own_one() {
    let breaker = Breaker::new(config().half_open_timeout(seconds(120))).unwrap();
    let now = Instant::now();
    fail(&breaker, HOSTILE, 3, now);
    fail(&breaker, HONEST, 2, now);
    let now = now + seconds(60);
    fail(&breaker, HOSTILE, 1, now);
    assert!(breaker.acquire_for(|| HOSTILE, now).unwrap_err().for_caller);
    let now = now + seconds(60);
    succeed(&breaker, HOSTILE, now);
    succeed(&breaker, HONEST, now);
    assert_eq!(breaker.state(now), State::Closed);
    assert!(breaker.snapshot(now).callers.is_empty());
    assert!(!breaker.acquire_for(|| HOSTILE, now).unwrap().is_probe());
}

// Fault 45.
#[test]
fn no_more_known_callers_have_probes_out_than_keys_have_places_for() {
    const PLACES: u64 = 8_192;
    let breaker = Breaker::new(config().half_open_max_requests(65_535)).unwrap();
    let now = Instant::now();
    fail(&breaker, HOSTILE, 3, now);
    fail(&breaker, HONEST, 2, now);
    let now = now + seconds(60);
    let probe_of = |number| breaker.acquire_for(|| Caller::Connection(number), now);
    let mut probes: Vec<_> = (0..PLACES).map(|number| probe_of(number).unwrap()).collect();
    let rejected = probe_of(PLACES).unwrap_err();
    assert_eq!((rejected.for_caller, rejected.retry_after), (false, Some(seconds(1))));
    drop(probes.swap_remove(4_000));
    probes.push(probe_of(PLACES).unwrap());
    assert!(probe_of(PLACES).is_err());
    assert!(breaker.acquire(now).unwrap().is_probe(), "whose caller is not known needs no place");
}
