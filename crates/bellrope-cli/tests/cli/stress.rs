//! The stress suites, in very short forms: what they find is true, and what they leave behind is nothing. Whether the
//! figures are reached is for a release build to say.

use std::{fs, process::Stdio, time::Duration};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Home, Running, eventually};

/// What carries the records: the same suites are judged the same way over both.
const TRANSPORTS: [&str; 2] = ["shm", "stream"];
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a suite; answers its report. The exit code and every verdict must follow from the values.
#[track_caller]
fn stress(arguments: &[&str]) -> Value {
    let home = Home::new();
    let arguments = ["stress"].iter().chain(arguments).chain(&["--json"]);
    let finished = Running::start(&mut home.command(arguments)).finish_within(LIMIT);
    let report: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:?}"));
    let mut all_pass = true;
    for suite in report["suites"].as_array().unwrap() {
        for criterion in suite["criteria"].as_array().unwrap() {
            // What is no number meets nothing.
            let value = criterion["value"].as_f64().unwrap_or(f64::NAN);
            let (how, limit) = criterion["target"].as_object().unwrap().iter().next().unwrap();
            let limit = limit.as_f64().unwrap();
            let met = match how.as_str() {
                "at_most" => value <= limit,
                "below" => value < limit,
                "at_least" => value >= limit,
                "equal" => value == limit,
                other => panic!("{other}"),
            };
            assert_eq!(criterion["pass"], met, "{criterion}");
            all_pass &= met;
        }
    }
    assert_eq!((finished.code, &report["pass"]), (Some(i32::from(!all_pass)), &Value::Bool(all_pass)), "{report}");
    report
}

/// Asserts that the criteria whose names have this in them were met, and that there is one.
#[track_caller]
fn assert_met(report: &Value, name: &str) {
    let criteria = report["suites"][0]["criteria"].as_array().unwrap();
    let mut found = criteria.iter().filter(|criterion| criterion["name"].as_str().unwrap().contains(name)).peekable();
    assert!(found.peek().is_some(), "no criterion about {name}: {report}");
    found.for_each(|criterion| assert_eq!(criterion["pass"], true, "{report}"));
}

#[test]
fn of_a_thousand_connections_at_once_every_call_is_answered_with_what_it_sent() {
    for transport in TRANSPORTS {
        let report = stress(&["connection-bomb", "--seconds", "0.5", "--transport", transport]);
        for name in ["open at once", "fewest calls", "differ", "failed or refused", "server counted"] {
            assert_met(&report, name);
        }
    }
}

#[test]
fn over_the_buffer_budget_memory_stays_within_what_is_configured_and_no_call_is_lost() {
    for transport in TRANSPORTS {
        let report = stress(&["memory-destruction", "--seconds", "1", "--transport", transport]);
        for name in ["budget + rings", "differ", "calls failed", "small calls refused"] {
            assert_met(&report, name);
        }
        assert!(report["suites"][0]["facts"]["looks"].as_u64().unwrap() > 10);
    }
}

#[test]
fn calls_with_priority_are_timed_and_those_set_aside_are_counted() {
    let report = stress(&["latency-torture", "--seconds", "0.5"]);
    let judged = &report["suites"][0]["criteria"][0];
    assert_eq!(judged["name"], "calls judged");
    let facts = &report["suites"][0]["facts"];
    let figure = |name: &str| facts[name].as_f64().unwrap_or_else(|| panic!("{name}: {facts}"));
    assert!(figure("calls") > 0.0 && figure("crowd_calls_per_s") > 0.0);
    let set_aside =
        figure("set_aside_as_the_callers_thread_stood_still") + figure("set_aside_as_the_server_had_no_cpu");
    assert!(figure("all_max_us") >= figure("all_p99_us") && figure("all_p99_us") > 0.0);
    // On a machine that is busy enough that may be all of them.
    assert_eq!(judged["value"].as_f64().unwrap() + set_aside, figure("calls"), "each is judged or set aside");
}

#[test]
fn after_cycles_of_connections_a_server_holds_what_it_held_before() {
    for transport in TRANSPORTS {
        let report = stress(&["leak", "--seconds", "2", "--seed", "7", "--transport", transport]);
        for name in ["growth", "descriptors", "threads", "mappings", "still counts", "differ", "failed"] {
            assert_met(&report, name);
        }
        assert_eq!(report["seed"], 7);
    }
}

#[test]
fn whatever_goes_wrong_normal_calls_come_back_right() {
    for transport in TRANSPORTS {
        let report = stress(&["chaos", "--seconds", "3", "--seed", "7", "--transport", transport]);
        for name in ["faults", "differ", "while the server was there", "unpunished", "other than refused", "at the end"]
        {
            assert_met(&report, name);
        }
    }
}

#[test]
fn the_suite_about_times_of_shared_memory_is_none_for_the_other_transport() {
    let error = Home::new().run(["stress", "latency-torture", "--transport", "stream"]).failed(1);
    assert!(error.contains("latency-torture is about shared memory"), "{error}");
}

#[test]
fn a_suite_that_is_interrupted_leaves_nothing_behind() {
    let home = Home::new();
    let place = home.path("tmp");
    fs::create_dir(&place).unwrap();
    let mut command = home.command(["stress", "chaos", "--seconds", "600"]);
    let suite = Running::start(command.env("TMPDIR", &place).stdout(Stdio::null()));
    let children = format!("/proc/{0}/task/{0}/children", suite.id());
    let mut servers = Vec::new();
    eventually("a server in a place of its own", || {
        servers =
            fs::read_to_string(&children).unwrap_or_default().split(' ').filter_map(|id| id.parse().ok()).collect();
        !servers.is_empty() && fs::read_dir(&place).unwrap().count() > 0
    });
    suite.signal(Signal::INT);
    assert_eq!(suite.finish().code, Some(130));
    eventually("the place is gone", || fs::read_dir(&place).unwrap().count() == 0);
    let is_gone =
        |id: &u32| !fs::read_to_string(format!("/proc/{id}/cmdline")).is_ok_and(|line| line.contains("bellrope"));
    eventually("the server is gone", || servers.iter().all(is_gone));
}

#[test]
fn a_suite_that_there_is_not_is_refused_with_those_there_are() {
    let error = Home::new().run(["stress", "everything"]).failed(2);
    assert!(error.contains("connection-bomb") && error.contains("chaos"), "{error}");
}
