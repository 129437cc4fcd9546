//! `bench`: that it measures at all. How fast it is belongs to the release build.

use std::{
    io::{BufRead, BufReader, Write},
    process::Stdio,
};

use bellrope::Client;
use serde_json::Value;

use crate::support::{Home, Running};

#[test]
fn the_gateway_is_measured_beside_a_bare_client_with_every_figure_in_json() {
    let home = Home::new();
    let report = home.run(["bench", "gateway", "--seconds", "2", "--pace", "100", "--json"]).succeeded();
    let report: Value = serde_json::from_str(&report).unwrap();
    let figure =
        |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}: {report}"));
    assert!(figure("/chunks") > 0.0);
    for side in ["through_gateway", "direct"] {
        let (p50, p99) = (figure(&format!("/{side}/p50_us")), figure(&format!("/{side}/p99_us")));
        assert!(p50 > 0.0 && p50 <= p99, "{side}: {report}");
    }
    let added = figure("/through_gateway/p50_us") - figure("/direct/p50_us");
    assert!((figure("/added_p50_us") - added).abs() < 0.01, "{report}");
    assert!(figure("/chunks_per_s") > 0.0 && figure("/direct_chunks_per_s") > 0.0);
}

/// Runs a measurement in its quick form; answers what finds a figure in its report.
fn quick(arguments: &[&str]) -> impl Fn(&str) -> f64 {
    let home = Home::new();
    let arguments = ["bench"].iter().chain(arguments).chain(&["--quick", "--json"]);
    let report: Value = serde_json::from_str(&home.run(arguments).succeeded()).unwrap();
    move |path| report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}: {report}"))
}

#[test]
fn the_port_is_measured_beside_the_provider_and_a_bare_relay() {
    let figure = quick(&["port"]);
    for kind in ["direct", "relay", "exact", "translated"] {
        let of = |name: &str| figure(&format!("/{kind}/{name}"));
        assert!(of("answers_per_s_16") > 0.0 && of("answers_per_s_64") > 0.0);
        for times in ["sequential", "fresh"] {
            assert!(of(&format!("{times}/p50_us")) > 0.0);
            assert!(of(&format!("{times}/p50_us")) <= of(&format!("{times}/p99_us")), "{kind}");
        }
    }
    for kind in ["direct", "relay", "exact", "translated", "shared_memory"] {
        assert!(figure(&format!("/chunks/{kind}/p50_us")) > 0.0);
    }
    let added = figure("/exact/sequential/p50_us") - figure("/direct/sequential/p50_us");
    assert!((figure("/added_p50_us") - added).abs() < 0.01);
    let share = figure("/exact/answers_per_s_16") / figure("/direct/answers_per_s_16");
    assert!((figure("/share_16") - share).abs() < 1e-9);
}

#[test]
fn large_echoes_are_measured_beside_memcpy() {
    let figure = quick(&["large", "--size", "70000", "--size", "300000", "--no-pin"]);
    for (row, size) in [("/sizes/0", 70_000.0), ("/sizes/1", 300_000.0)] {
        let of = |name: &str| figure(&format!("{row}/{name}"));
        assert!(of("size") == size && of("echoes") > 0.0 && of("memcpy_gb_per_s") > 0.0);
        assert!((of("both_ways_gb_per_s") - 2.0 * of("one_way_gb_per_s")).abs() < 1e-9);
        assert!((of("one_way_to_memcpy") - of("one_way_gb_per_s") / of("memcpy_gb_per_s")).abs() < 1e-9);
        let times = of("sealed_memfd_round_trip_us") / of("round_trip/p50_us");
        assert!(times > 0.0 && (of("sealed_memfd_to_ours") - times).abs() < 1e-9);
    }
}

#[test]
fn one_caller_is_measured_with_and_without_priority_beside_others() {
    let figure = quick(&["priority", "--connections", "50", "--no-pin"]);
    for side in ["/with_priority", "/without_priority"] {
        let of = |name: &str| figure(&format!("{side}/{name}"));
        assert!(of("calls") > 0.0 && of("background_calls_per_s") > 0.0);
        assert!(of("p50_us") > 0.0 && of("p50_us") <= of("p99_us") && of("p99_us") <= of("p999_us"));
    }
}

// Fault 32.
#[test]
fn polite_clients_are_measured_alone_and_beside_a_flood() {
    let figure = quick(&["fairness", "--clients", "20", "--no-pin"]);
    assert!(figure("/calls") > 0.0 && figure("/flood_calls_per_s") > 0.0);
    let ratio = figure("/beside_flood/p99_us") / figure("/alone/p99_us");
    assert!((figure("/p99_ratio") - ratio).abs() < 1e-9);
}

// Fault 29.
#[test]
fn clients_are_timed_until_they_have_found_a_killed_server_again() {
    let figure = quick(&["reconnect", "--clients", "1", "--clients", "20"]);
    for (row, clients) in [("/rows/0", 1.0), ("/rows/1", 20.0)] {
        let of = |name: &str| figure(&format!("{row}/{name}"));
        assert!(of("clients") == clients && of("kills") == 3.0);
        assert!(of("p50_ms") > 0.0 && of("p50_ms") <= of("p99_ms") && of("p99_ms") <= of("max_ms"));
    }
}

#[test]
fn a_pool_is_measured_with_what_it_reused() {
    let figure = quick(&["pool", "--threads", "3"]);
    assert!(figure("/calls") > 0.0 && figure("/calls_per_s") > 0.0 && figure("/acquire/p50_us") > 0.0);
    assert!((1.0..=3.0).contains(&figure("/connections_made")), "never more than threads that want one");
    assert!(figure("/reused_percent") > 0.0 && figure("/reused_percent") < 100.0);
}

#[test]
fn every_pair_of_spin_policies_is_measured_at_every_gap_beside_a_futex() {
    let figure = quick(&["spin", "--no-pin"]);
    for cell in 0..45 {
        let of = |name: &str| figure(&format!("/cells/{cell}/{name}"));
        assert!(of("calls") > 0.0 && of("p50_us") > 0.0 && of("server_cpu") >= 0.0 && of("client_cpu") >= 0.0);
    }
    let futex: Vec<f64> = (0..5).map(|gap| figure(&format!("/futex/{gap}/gap_us"))).collect();
    assert_eq!(futex, [0.0, 20.0, 100.0, 1_000.0, 10_000.0]);
    assert!(figure("/adaptive_to_futex") > 0.0);
}

#[test]
fn the_criteria_are_measured_and_the_exit_code_says_whether_one_failed() {
    let home = Home::new();
    let finished = home.run(["bench", "criteria", "--quick", "--json"]);
    let report: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    let criteria = report["criteria"].as_array().unwrap();
    let named = |name: &str| criteria.iter().find(|criterion| criterion["name"] == name).unwrap();
    for name in ["memory", "latency", "throughput", "recovery"] {
        // How fast and how small it is belongs to the release build.
        assert!(named(name)["value"].as_f64().unwrap() > 0.0 && named(name)["pass"].is_boolean(), "{report}");
    }
    assert_eq!((&named("connections")["value"], &named("connections")["pass"]), (&1_000.0.into(), &true.into()));
    assert_eq!((&named("allocations")["value"], &named("allocations")["pass"]), (&0.0.into(), &true.into()));
    // Whether these can be measured is the machine's affair.
    for name in ["coverage", "against Node"] {
        assert_eq!(named(name)["value"].is_null(), named(name)["pass"].is_null(), "{report}");
    }
    let failed = criteria.iter().any(|criterion| criterion["pass"] == false);
    assert_eq!((finished.code, &report["all_pass"]), (Some(i32::from(failed)), &Value::from(!failed)));
}

#[test]
fn connections_are_opened_all_at_once_and_each_answers() {
    let figure = quick(&["connections", "--count", "300"]);
    assert!(figure("/connections") == 300.0 && figure("/answered") == 300.0);
    assert!(figure("/idle/rss_kb") > 0.0 && figure("/open_us_each") > 0.0 && figure("/closed_ms") > 0.0);
}

#[test]
fn more_connections_than_there_may_be_descriptors_are_refused_with_what_to_do() {
    let home = Home::new();
    let mut shell = home.shell("ulimit -n 200; exec \"$BELLROPE\" bench connections --count 500");
    let error = Running::start(&mut shell).finish().failed(1);
    assert!(error.contains("565 descriptors") && error.contains("the hard limit is 200; raise it"), "{error}");
}

#[test]
fn memory_is_measured_idle_and_busy_for_each_number_of_connections() {
    let figure = quick(&["memory", "--connections", "10", "--connections", "40"]);
    for (row, connections) in [("/rows/0", 10.0), ("/rows/1", 40.0)] {
        let of = |name: &str| figure(&format!("{row}/{name}"));
        assert!(of("connections") == connections && of("busy_calls_per_s") > 0.0 && of("busy/cpu_percent") > 0.0);
        for state in ["idle", "busy"] {
            let part = |name: &str| of(&format!("{state}/{name}"));
            let parts = part("anon_kb") + part("file_kb") + part("shmem_kb");
            assert!(part("rss_kb") > 0.0 && (part("rss_kb") - parts).abs() < 1.0, "the parts are the whole");
        }
        assert!(of("busy/shmem_kb") >= 4.0 * connections, "the page of a busy connection's rings is in use");
    }
    assert!(figure("/rows/1/idle/shmem_kb") < figure("/rows/1/busy/shmem_kb"), "silence gives memory back");
}

#[test]
fn the_server_of_a_measurement_obeys_what_it_knows_and_ends_at_what_it_does_not() {
    let home = Home::new();
    let arguments = ["bench-server".as_ref(), "--config".as_ref(), "{}".as_ref(), "--socket".as_ref()];
    let socket = home.socket();
    let mut command = home.command(arguments.into_iter().chain([socket.as_os_str()]));
    let mut server = Running::start(command.stdin(Stdio::piped()));
    let mut commands = server.stdin();
    let mut answers = BufReader::new(server.stdout()).lines();
    assert!(answers.next().unwrap().unwrap().starts_with("ready 127.0.0.1:"));

    let client = Client::connect(&socket).unwrap();
    assert_eq!(client.call("bench.hold", &[1]).unwrap(), b"");
    for wrong in [&[][..], &[101], &[1, 1]] {
        let error = client.call("bench.hold", wrong).unwrap_err().to_string();
        assert_eq!(error, "invalid_request: one byte is expected, of at most 100");
    }
    let mut ask = |command: &str| {
        writeln!(commands, "{command}").unwrap();
        answers.next().map(Result::unwrap)
    };
    assert_eq!(ask("count").as_deref(), Some("counting"));
    // The server's own threads allocate now and then.
    ask("counted").unwrap().parse::<u64>().unwrap();
    assert_eq!(ask("dance"), None);
    assert!(server.finish().failed(1).contains("unknown command \"dance\""));
}

#[test]
fn a_time_that_is_none_is_refused() {
    let error = Home::new().run(["bench", "pool", "--seconds", "nan"]).failed(2);
    assert!(error.contains("from 0.01 to 3600"), "{error}");
}
