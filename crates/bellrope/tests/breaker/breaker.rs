//! The circuit breaker, told the time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bellrope::breaker::{Breaker, BreakerConfig, BreakerState as State};

/// The user's own settings, without jitter.
fn config() -> BreakerConfig {
    let mut config = BreakerConfig::default();
    config.jitter_percent = 0;
    config
}

fn breaker(config: BreakerConfig) -> Breaker {
    Breaker::new(config).unwrap()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn fail(breaker: &Breaker, times: u32, now: Instant) {
    for _ in 0..times {
        breaker.acquire(now).unwrap().fail(now);
    }
}

/// A breaker that failed five times, and when.
fn opened(config: BreakerConfig) -> (Breaker, Instant) {
    let (breaker, now) = (breaker(config), Instant::now());
    fail(&breaker, 5, now);
    assert_eq!(breaker.state(now), State::Open);
    (breaker, now)
}

fn transitions(breaker: &Breaker, now: Instant) -> Vec<(State, State, u64)> {
    breaker.snapshot(now).transitions.into_iter().filter(|(.., count)| *count > 0).collect()
}

#[test]
fn the_defaults_are_the_users() {
    let config = BreakerConfig::default();
    assert_eq!((config.failure_threshold, config.success_threshold), (5, 2));
    assert_eq!((config.timeout, config.half_open_max_requests), (seconds(60), 3));
    let breaker = breaker(config);
    let permit = breaker.acquire(Instant::now).unwrap();
    assert_eq!((breaker.slow_call(), permit.slow_call()), (seconds(1), seconds(1)));
}

#[test]
fn five_failures_in_a_row_open_it_and_a_success_between_starts_the_count_anew() {
    let (breaker, now) = (breaker(config()), Instant::now());
    fail(&breaker, 4, now);
    breaker.acquire(now).unwrap().succeed(now);
    fail(&breaker, 4, now);
    assert_eq!(breaker.state(now), State::Closed);
    fail(&breaker, 1, now);
    assert_eq!(breaker.state(now), State::Open);
}

#[test]
fn an_open_breaker_rejects_until_its_minute_is_over_and_says_how_long_that_is() {
    let (breaker, now) = opened(config());
    let rejected = breaker.acquire(now + seconds(20)).unwrap_err();
    assert_eq!(rejected.retry_after, Some(seconds(40)));
    assert_eq!(rejected.to_string(), "the circuit breaker is open; try again in 40.0 s");
    let just_before = now + seconds(60) - Duration::from_nanos(1);
    assert!(breaker.acquire(just_before).is_err());
    assert!(breaker.acquire(now + seconds(60)).unwrap().is_probe());
    assert_eq!(breaker.snapshot(now).rejections, 2);
}

// Fault 45.
#[test]
fn half_open_admits_three_at_a_time_and_two_successes_close_it() {
    let (breaker, now) = opened(config());
    let now = now + seconds(60);
    let mut probes: Vec<_> = (0..3).map(|_| breaker.acquire(now).unwrap()).collect();
    assert_eq!(breaker.state(now), State::HalfOpen);
    let rejected = breaker.acquire(now).unwrap_err();
    assert_eq!(rejected.retry_after, Some(seconds(1)));
    probes.pop().unwrap().succeed(now);
    assert_eq!(breaker.state(now), State::HalfOpen);
    probes.push(breaker.acquire(now).unwrap());
    assert!(breaker.acquire(now).is_err(), "three are out again");
    probes.pop().unwrap().succeed(now);
    assert_eq!(breaker.state(now), State::Closed);
    assert!(!breaker.acquire(now).unwrap().is_probe());
    assert_eq!(
        transitions(&breaker, now),
        [(State::Closed, State::Open, 1), (State::Open, State::HalfOpen, 1), (State::HalfOpen, State::Closed, 1)]
    );
}

#[test]
fn every_failed_probe_doubles_the_time_up_to_the_cap_and_closing_starts_over() {
    let (breaker, mut now) = opened(config());
    for expected in [60, 120, 240, 480, 600, 600] {
        assert_eq!(breaker.acquire(now).unwrap_err().retry_after, Some(seconds(expected)));
        now += seconds(expected);
        breaker.acquire(now).unwrap().fail(now);
        assert_eq!(breaker.state(now), State::Open);
    }
    now += seconds(600);
    breaker.acquire(now).unwrap().succeed(now);
    breaker.acquire(now).unwrap().succeed(now);
    fail(&breaker, 5, now);
    assert_eq!(breaker.acquire(now).unwrap_err().retry_after, Some(seconds(60)));
}

#[test]
fn jitter_takes_off_a_part_of_a_doubled_time_and_never_adds_to_it() {
    let mut seen = std::collections::HashSet::new();
    for _ in 0..50 {
        let (breaker, now) = opened(BreakerConfig::default());
        assert_eq!(breaker.acquire(now).unwrap_err().retry_after, Some(seconds(60)));
        let now = now + seconds(60);
        breaker.acquire(now).unwrap().fail(now);
        let open_for = breaker.acquire(now).unwrap_err().retry_after.unwrap();
        assert!((seconds(108)..=seconds(120)).contains(&open_for), "{open_for:?}");
        seen.insert(open_for);
    }
    assert!(seen.len() > 1, "fifty breakers all drew {seen:?}");
}

// Fault 43.
#[test]
fn a_dropped_permit_counts_for_nothing_and_gives_its_place_back() {
    let (breaker, now) = (breaker(config()), Instant::now());
    fail(&breaker, 4, now);
    for _ in 0..10 {
        drop(breaker.acquire(now).unwrap());
    }
    assert_eq!(breaker.state(now), State::Closed);
    fail(&breaker, 1, now);
    let now = now + seconds(60);
    for _ in 0..10 {
        drop(breaker.acquire(now).unwrap());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _permit = breaker.acquire(now).unwrap();
            std::panic::resume_unwind(Box::new("a handler's own panic"));
        }));
        assert!(panicked.is_err());
    }
    assert_eq!(breaker.state(now), State::HalfOpen);
    let all: Vec<_> = (0..3).map(|_| breaker.acquire(now).unwrap()).collect();
    assert_eq!(all.len(), 3);
}

// Fault 44.
#[test]
fn an_old_permit_settles_no_newer_state() {
    let (breaker, now) = (breaker(config()), Instant::now());
    let old: Vec<_> = (0..20).map(|_| breaker.acquire(now).unwrap()).collect();
    let late = breaker.acquire(now).unwrap();
    fail(&breaker, 5, now);
    let now = now + seconds(60);
    let probe = breaker.acquire(now).unwrap();
    for permit in old {
        permit.fail(now);
    }
    late.succeed(now);
    assert_eq!(breaker.state(now), State::HalfOpen, "failures from before it opened do not open it again");
    probe.succeed(now);
    assert_eq!(breaker.state(now), State::HalfOpen, "the late success was not counted");
    let (second, third) = (breaker.acquire(now).unwrap(), breaker.acquire(now).unwrap());
    second.succeed(now);
    assert_eq!(breaker.state(now), State::Closed);
    third.fail(now);
    fail(&breaker, 4, now);
    assert_eq!(breaker.state(now), State::Closed, "the probe's failure came after it had closed");
}

// Fault 44.
#[test]
fn a_permit_of_an_earlier_round_settles_nothing_in_any_later_one() {
    let (breaker, mut now) = (breaker(config()), Instant::now());
    let mut old = Vec::new();
    for _ in 0..20 {
        old.push(breaker.acquire(now).unwrap());
        fail(&breaker, 5, now);
        now += seconds(60);
        breaker.acquire(now).unwrap().succeed(now);
        breaker.acquire(now).unwrap().succeed(now);
        assert_eq!(breaker.state(now), State::Closed);
    }
    old.into_iter().for_each(|permit| permit.fail(now));
    assert_eq!(breaker.state(now), State::Closed);
}

// Fault 44.
#[test]
fn a_probe_of_an_earlier_half_open_state_gives_no_place_back_in_a_later_one() {
    let (breaker, now) = opened(config());
    let old = breaker.acquire(now + seconds(60)).unwrap();
    let later = now + seconds(60 + 60 + 120);
    assert_eq!(breaker.state(now + seconds(60 + 60)), State::Open, "its only probe hung");
    let _out: Vec<_> = (0..3).map(|_| breaker.acquire(later).unwrap()).collect();
    drop(old);
    assert!(breaker.acquire(later).is_err(), "three are out");
}

// Fault 46.
#[test]
fn half_open_without_traffic_ends_and_the_next_call_is_a_probe_at_once() {
    let (breaker, now) = opened(config());
    let now = now + seconds(60);
    breaker.acquire(now).unwrap().succeed(now);
    assert_eq!(breaker.state(now + seconds(59)), State::HalfOpen);
    let now = now + seconds(60);
    assert_eq!(breaker.state(now), State::Open);
    assert!(breaker.acquire(now).unwrap().is_probe());
    assert_eq!(breaker.state(now), State::HalfOpen, "the success of an hour ago does not count");
}

// Fault 46.
#[test]
fn probes_that_never_end_count_as_failed_when_half_open_is_over() {
    let (breaker, now) = opened(config());
    let now = now + seconds(60);
    let hung: Vec<_> = (0..3).map(|_| breaker.acquire(now).unwrap()).collect();
    let now = now + seconds(60);
    assert_eq!(breaker.acquire(now).unwrap_err().retry_after, Some(seconds(120)));
    for permit in hung {
        permit.succeed(now);
    }
    assert_eq!(breaker.state(now), State::Open, "too late");
    let now = now + seconds(120);
    let places: Vec<_> = (0..3).map(|_| breaker.acquire(now).unwrap()).collect();
    assert_eq!(places.len(), 3, "no place was lost");
}

#[test]
fn a_failure_rate_opens_it_once_enough_calls_are_in_the_window() {
    let mut config = config();
    (config.failure_rate_percent, config.rate_min_calls) = (50, 20);
    let (breaker, now) = (breaker(config), Instant::now());
    let pairs = |count: u32, now: Instant| {
        for _ in 0..count {
            breaker.acquire(now).unwrap().fail(now);
            breaker.acquire(now).unwrap().succeed(now);
        }
    };
    pairs(9, now);
    assert_eq!(breaker.state(now), State::Closed, "18 calls are too few");
    let now = now + seconds(30);
    pairs(9, now);
    assert_eq!(breaker.state(now), State::Closed, "those of half a minute ago do not count any more");
    breaker.acquire(now).unwrap().succeed(now);
    breaker.acquire(now).unwrap().fail(now);
    assert_eq!(breaker.state(now), State::Open);
    let now = now + seconds(60);
    breaker.acquire(now).unwrap().succeed(now);
    breaker.acquire(now).unwrap().succeed(now);
    fail(&breaker, 1, now);
    assert_eq!(breaker.state(now), State::Closed, "the window starts anew when it closes");
}

#[test]
fn a_rate_of_slow_calls_opens_it_and_a_slow_probe_has_failed() {
    let mut config = config();
    (config.slow_rate_percent, config.slow_call, config.rate_min_calls) = (80, Duration::from_millis(100), 10);
    let (breaker, now) = (breaker(config), Instant::now());
    let call = |took_ms: u64, now: Instant| {
        breaker.acquire(now).unwrap().succeed(now + Duration::from_millis(took_ms));
    };
    for took_ms in [99, 99, 100, 100, 100, 100, 100, 100, 100] {
        call(took_ms, now);
    }
    assert_eq!(breaker.state(now), State::Closed);
    call(5_000, now);
    assert_eq!(breaker.state(now), State::Open);
    let now = now + seconds(66);
    call(100, now);
    assert_eq!(breaker.state(now), State::Open);
}

#[test]
fn calls_are_slow_or_not_only_where_the_rate_is_on() {
    let (breaker, now) = (breaker(config()), Instant::now());
    for _ in 0..1_000 {
        breaker.acquire(now).unwrap().succeed(now + seconds(3_600));
    }
    assert_eq!(breaker.state(now), State::Closed);
}

#[test]
fn a_slow_probe_has_gone_well_where_the_rate_of_slow_calls_is_off() {
    let (breaker, now) = opened(config());
    let now = now + seconds(60);
    for _ in 0..2 {
        breaker.acquire(now).unwrap().succeed(now + seconds(59));
    }
    assert_eq!(breaker.state(now), State::Closed);
}

#[test]
fn an_open_breaker_rejects_at_the_end_of_all_time_too() {
    let (breaker, now) = (breaker(config()), Instant::now() + seconds(1_000 * 366 * 86_400));
    fail(&breaker, 5, now);
    assert!(breaker.acquire(now).is_err());
    assert_eq!(breaker.state(now), State::Open);
}

#[test]
fn a_state_has_the_same_name_in_metrics_and_in_json() {
    let names = State::ALL.map(State::name);
    assert_eq!(names, ["closed", "open", "half_open"]);
    assert_eq!(State::ALL.map(|state| serde_json::to_value(state).unwrap()), names.map(serde_json::Value::from));
}

#[test]
fn a_closed_breaker_asks_for_no_time() {
    let breaker = breaker(config());
    let no_clock = || -> Instant { panic!("the time was asked for") };
    breaker.acquire(no_clock).unwrap().succeed(no_clock);
}

#[test]
fn what_is_forced_stays_until_it_is_reset() {
    let (breaker, now) = (breaker(config()), Instant::now());
    breaker.force_open();
    let rejected = breaker.acquire(now + seconds(1_000_000)).unwrap_err();
    assert_eq!((rejected.retry_after, rejected.to_string().as_str()), (None, "the circuit breaker is open, by hand"));
    assert!(breaker.snapshot(now).forced);
    breaker.force_close();
    fail(&breaker, 100, now);
    assert_eq!((breaker.state(now), breaker.snapshot(now).forced), (State::Closed, true));
    let from_before = breaker.acquire(now).unwrap();
    breaker.reset();
    assert!(!breaker.snapshot(now).forced);
    fail(&breaker, 4, now);
    from_before.fail(now);
    assert_eq!(breaker.state(now), State::Closed);
    fail(&breaker, 1, now);
    assert_eq!(breaker.state(now), State::Open);
    breaker.reset();
    assert_eq!(breaker.state(now), State::Closed);
    assert_eq!(transitions(&breaker, now), [(State::Closed, State::Open, 2), (State::Open, State::Closed, 2)]);
}

#[test]
fn a_permit_of_a_shared_breaker_can_be_kept_and_sent() {
    let breaker = Arc::new(breaker(config()));
    let now = Instant::now();
    let permits: Vec<_> = (0..5).map(|_| breaker.acquire_owned(now).unwrap()).collect();
    std::thread::spawn(move || permits.into_iter().for_each(|permit| permit.fail(now))).join().unwrap();
    assert_eq!(breaker.state(now), State::Open);
}

#[test]
fn settings_may_change_while_it_works_and_the_state_stays() {
    let (breaker, now) = (breaker(config()), Instant::now());
    fail(&breaker, 3, now);
    let mut changed = config();
    (changed.failure_threshold, changed.timeout, changed.success_threshold) = (4, seconds(1), 1);
    breaker.reconfigure(&changed).unwrap();
    assert_eq!((breaker.config(), breaker.state(now)), (changed.clone(), State::Closed));
    fail(&breaker, 1, now);
    assert_eq!(breaker.state(now), State::Open, "the three before count");
    // An open one is open until the time that it was opened for.
    changed.timeout = Duration::from_millis(30_000);
    breaker.reconfigure(&changed).unwrap();
    assert_eq!(breaker.state(now), State::Open);
    let now = now + seconds(1);
    breaker.acquire(now).unwrap().succeed(now);
    assert_eq!(breaker.state(now), State::Closed);
    let faulty = {
        let mut faulty = config();
        faulty.failure_threshold = 0;
        faulty
    };
    assert!(breaker.reconfigure(&faulty).is_err());
    assert_eq!(breaker.config(), changed);
}

#[test]
fn a_rate_may_be_turned_on_and_its_window_changed_while_it_works() {
    let (breaker, now) = (breaker(config()), Instant::now() + seconds(3_600));
    let mut changed = config();
    (changed.failure_threshold, changed.failure_rate_percent, changed.rate_min_calls) = (u32::MAX, 50, 10);
    let calls = |breaker: &Breaker, now| {
        for _ in 0..4 {
            breaker.acquire(now).unwrap().succeed(now);
            breaker.acquire(now).unwrap().fail(now);
        }
    };
    calls(&breaker, now);
    for window_ms in [10, u32::MAX.into(), 10_000] {
        changed.rate_window = Duration::from_millis(window_ms);
        breaker.reconfigure(&changed).unwrap();
        calls(&breaker, now);
        assert_eq!(breaker.state(now), State::Closed, "eight calls are in the window, whatever was counted before");
    }
    breaker.acquire(now).unwrap().succeed(now);
    fail(&breaker, 1, now);
    assert_eq!(breaker.state(now), State::Open);
}

#[test]
fn a_setting_out_of_its_range_is_named_with_what_it_must_be() {
    let refused = |change: fn(&mut BreakerConfig)| {
        let mut config = BreakerConfig::default();
        change(&mut config);
        Breaker::new(config).unwrap_err().to_string()
    };
    let text = refused(|config| config.failure_threshold = 0);
    assert_eq!(text, "the breaker's setting failure_threshold is 0, and must be at least 1");
    let text = refused(|config| config.max_timeout = Duration::from_millis(59_999));
    assert_eq!(text, "the breaker's setting max_timeout_ms is 59999, and must be at least timeout_ms");
    assert!(refused(|config| config.half_open_max_requests = 65_536).contains("from 1 to 65535"));
    assert!(refused(|config| config.jitter_percent = 51).contains("at most 50"));
}

#[test]
fn settings_are_read_by_name_and_unknown_ones_refused() {
    let read = |text: &str| serde_json::from_str::<BreakerConfig>(text);
    assert_eq!(read(r#"{ "failure_threshold": 9 }"#).unwrap().failure_threshold, 9);
    assert_eq!(read("{}").unwrap(), BreakerConfig::default());
    assert!(read(r#"{ "treshold": 9 }"#).unwrap_err().to_string().contains("failure_threshold"));
}
