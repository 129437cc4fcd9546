//! The shape of what measurements print as JSON, in their quickest forms. What is found is tested elsewhere, and whether a
//! criterion is met is for a release build to say: only that the exit code agrees with what is printed is looked at here.
//!
//! What takes longer than all others together is ignored unless it is asked for, with `-- --include-ignored`.

use std::{
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use bellrope_testkit::program::Finished;
use serde_json::Value;

use crate::{
    shape::{Look, shape},
    stage::{Running, Stage, how},
    text::{freeze, mask},
};

/// What keeps the processors busy is measured alone: two that spin stand in each other's way.
static BUSY: Mutex<()> = Mutex::new(());

/// Runs a measurement; returns its report.
#[track_caller]
fn report(arguments: &[&str]) -> Value {
    let ran = Stage::new().run(arguments);
    let report = ran.json();
    let verdict = report.get("all_pass").or_else(|| report.get("pass")).and_then(Value::as_bool);
    assert_eq!(ran.code(), Some(i32::from(verdict == Some(false))), "{ran:?}");
    report
}

/// Runs measurements one after another, and compares the shapes of their JSON with what is kept.
#[track_caller]
fn freeze_shapes(file: &str, measurements: &[&[&str]]) {
    let shown = measurements.iter().map(|arguments| {
        let shape = shape(&report(&[arguments, &["--json"][..]].concat()), Look::default());
        format!("$ bellrope {} --json\n--- shape\n{shape}\n", arguments.join(" "))
    });
    freeze(&format!("bench/{file}.txt"), &shown.collect::<String>());
}

#[test]
fn round_trips_and_throughput_have_the_shape_that_they_had() {
    let _alone = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    let throughput = ["bench", "throughput", "--seconds", "0.05", "--connections", "2"];
    freeze_shapes("calls", &[&["bench", "rtt", "--seconds", "0.05"], &throughput]);
}

#[test]
fn crowds_pools_and_reconnecting_have_the_shape_that_they_had() {
    let _alone = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    let measurements: [&[&str]; 4] = [
        &["bench", "priority", "--connections", "20", "--quick"],
        &["bench", "fairness", "--clients", "10", "--quick"],
        &["bench", "reconnect", "--clients", "2", "--quick"],
        &["bench", "pool", "--threads", "2", "--seconds", "0.1"],
    ];
    freeze_shapes("crowds", &measurements);
}

#[test]
fn large_messages_and_policies_of_waiting_have_the_shape_that_they_had() {
    let _alone = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    freeze_shapes(
        "large_and_spin",
        &[&["bench", "large", "--size", "70000", "--quick"], &["bench", "spin", "--quick"]],
    );
}

#[test]
fn what_connections_cost_has_the_shape_that_it_had() {
    let memory = ["bench", "memory", "--connections", "5", "--connections", "100", "--quick"];
    freeze_shapes("memory", &[&["bench", "connections", "--count", "20"], &memory]);
}

#[test]
#[ignore = "20 s in a debug build"]
fn the_gateways_share_has_the_shape_that_it_had() {
    let _alone = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    freeze_shapes("gateway", &[&["bench", "gateway", "--seconds", "2", "--pace", "100"]]);
}

#[test]
#[ignore = "20 s in a debug build"]
fn the_ports_share_has_the_shape_that_it_had() {
    let _alone = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    freeze_shapes("port", &[&["bench", "port", "--quick"]]);
}

/// What is promised is no measured value. Whether Node and coverage are there is the machine's affair, and there are none
/// in the folder of a test.
const CRITERIA: Look<'_> =
    Look { kept: &["criteria[].name", "criteria[].unit", "criteria[].target", "measured"], loose: &[] };

#[test]
fn criteria_have_the_names_targets_and_shape_that_they_had() {
    let _alone = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    freeze("bench/criteria.txt", &shape(&report(&["bench", "criteria", "--quick", "--json"]), CRITERIA));
}

#[test]
#[ignore = "17 s in a debug build"]
fn the_demo_prints_the_shape_that_the_criteria_have() {
    let _alone = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    freeze("bench/criteria.txt", &shape(&report(&["demo", "--json"]), CRITERIA));
}

#[test]
fn the_demo_says_what_it_does_as_it_did() {
    let stage = Stage::new();
    // With few descriptors it ends before it measures.
    let program = stage.command(&["demo"]);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "ulimit -n 64; exec \"$0\" demo"]).arg(program.get_program()).current_dir(stage.path("tmp"));
    shell.env_clear().envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let demo = Running::start(shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let Finished { code, stdout, stderr } = demo.finish();
    let said = format!("$ bellrope demo\n{}\n{stdout}--- standard error\n{}", how(code), stage.clean(&stderr));
    freeze("demo.txt", &mask(&said, "[HOME]/tmp/bellrope-", |character| character != '/', "NAME"));
}

/// Criteria of suites whose targets follow from what the machine is, or from what was done.
const MOVING: [&str; 5] = [
    "calls that the server counted",
    "slowest call",
    "descriptors at the end",
    "threads at the end",
    "mappings at the end",
];

/// Null unless something failed.
const FIRST_FAILURE: (&str, &str) = ("suites[].facts.first_failure", "null | string");

/// Runs a suite in a very short form; compares names, units and targets of its criteria and the shape of its JSON with what
/// is kept.
#[track_caller]
fn freeze_suite(suite: &str, loose: &[(&str, &str)]) {
    let _alone = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    let arguments = ["stress", suite, "--seconds", "0.3", "--seed", "7", "--json"];
    let report = report(&arguments);
    let mut shown = format!("$ bellrope {}\n", arguments.join(" "));
    for criterion in report["suites"][0]["criteria"].as_array().unwrap() {
        let name = criterion["name"].as_str().unwrap();
        let target = match MOVING.contains(&name) {
            true => format!("{:?}", criterion["target"].as_object().unwrap().keys().collect::<Vec<_>>()),
            false => criterion["target"].to_string(),
        };
        shown.push_str(&format!("{name}, unit {}, target {target}\n", criterion["unit"]));
    }
    let loose = [loose, &[("suites[].criteria[].value", "null | number")]].concat();
    let look = Look { kept: &["suites[].suite", "seed"], loose: &loose };
    shown.push_str(&format!("--- shape\n{}", shape(&report, look)));
    freeze(&format!("stress/{suite}.txt"), &shown);
}

#[test]
fn connection_bomb_has_the_criteria_that_it_had() {
    freeze_suite("connection-bomb", &[FIRST_FAILURE]);
}

#[test]
fn memory_destruction_has_the_criteria_that_it_had() {
    freeze_suite("memory-destruction", &[FIRST_FAILURE]);
}

#[test]
#[ignore = "13 s in a debug build"]
fn latency_torture_has_the_criteria_that_it_had() {
    freeze_suite("latency-torture", &[]);
}

#[test]
fn leak_has_the_criteria_that_it_had() {
    freeze_suite("leak", &[FIRST_FAILURE]);
}

#[test]
fn chaos_has_the_criteria_that_it_had() {
    freeze_suite(
        "chaos",
        &[
            FIRST_FAILURE,
            ("suites[].facts.recovery_max_ms", "null | number"),
            ("suites[].facts.recovery_p50_ms", "null | number"),
            ("suites[].facts.recovery_p99_ms", "null | number"),
            ("suites[].facts.slowest_fault", "null | string"),
        ],
    );
}
