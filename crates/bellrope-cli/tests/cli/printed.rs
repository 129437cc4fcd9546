//! What measurements print for people: each figure has its unit, and goals stand beside what is judged by them.

use crate::support::{Home, Running};

/// Runs a command in a short form; answers what it printed.
#[track_caller]
fn printed(arguments: &[&str]) -> String {
    Home::new().run(arguments).succeeded()
}

#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in\n{text}");
    }
}

#[test]
fn round_trips_are_printed_beside_the_limit_and_throughput_beside_the_memory() {
    let text = printed(&["bench", "rtt", "--seconds", "0.2", "--no-pin"]);
    assert_says(&text, &["round trip, 64 B", " calls: p50 ", "p99.9 ", "limit (cache-line ping-pong", "ratio "]);
    let text = printed(&["bench", "throughput", "--seconds", "0.2", "--connections", "3", "--no-pin"]);
    assert_says(&text, &["3 connections, 64 B, 64 in flight each: ", "M calls/s", "server memory: ", "anonymous"]);
}

#[test]
fn crowds_are_printed_with_and_without_what_disturbs_them() {
    let text = printed(&["bench", "priority", "--connections", "20", "--quick", "--no-pin"]);
    assert_says(&text, &["beside 20 connections", "with priority: p50 ", "without priority: p50 ", "goal: p99 "]);
    let text = printed(&["bench", "fairness", "--clients", "10", "--quick", "--no-pin"]);
    assert_says(&text, &["10 clients", "alone", "beside a flood", "goal"]);
}

#[test]
fn idle_connections_are_printed_with_what_each_of_them_costs() {
    let text = printed(&["bench", "connections", "--count", "20"]);
    assert_says(&text, &["20 connections open at once, 20 of them answered a call\n", "us each, the first call "]);
    assert_says(&text, &["server memory before: ", "with all of them idle: ", "an idle connection: ", " bytes\n"]);
    assert_eq!(text.lines().count(), 5, "{text}");
}

// The criteria, which it measures then, have a test of their own: there are too few descriptors for these here.
#[test]
fn the_demo_says_where_its_server_is_and_streams_a_chat_through_it() {
    let home = Home::new();
    let error = Running::start(&mut home.shell("ulimit -n 64; exec \"$BELLROPE\" demo")).finish().failed(1);
    let lines: Vec<_> = error.lines().collect();
    let [server, chat, last] = lines[..] else { panic!("{error}") };
    assert!(server.starts_with("server on /") && server.contains("health on http://127.0.0.1:"), "{server}");
    let (chunks, answer) = chat.split_once(" chunks over shared memory: ").unwrap();
    assert!(chunks.strip_prefix("chat, ").unwrap().parse::<u32>().unwrap() > 1, "{chat}");
    assert!(answer.ends_with("You asked: What is a bell rope for?"), "{chat}");
    assert!(last.starts_with("error: ") && last.contains("descriptor"), "{last}");
}

#[test]
fn large_messages_pools_types_and_reconnecting_are_printed_with_their_units() {
    let text = printed(&["bench", "large", "--size", "70000", "--quick", "--no-pin"]);
    assert_says(&text, &["70000", "GB/s", "memcpy", "sealed memfd"]);
    let text = printed(&["bench", "pool", "--threads", "2", "--quick"]);
    assert_says(&text, &["2 threads", "calls/s", "taking a connection: p50 ", "goal: p99 below "]);
    let text = printed(&["bench", "typed", "--quick", "--no-pin"]);
    assert_says(
        &text,
        &["json, ", " calls: typed p50 ", "raw p50 ", "types add ", "goal: at most 0.6 us", "postcard, "],
    );
    let text = printed(&["bench", "reconnect", "--clients", "3", "--quick"]);
    assert_says(&text, &["3 clients, 3 kills: p50 ", " ms ", "goals: one client within "]);
}

#[test]
fn policies_of_waiting_and_the_gateways_share_are_printed() {
    let text = printed(&["bench", "spin", "--quick", "--no-pin"]);
    assert_says(&text, &["gap us", "server CPU", "adaptive", "never", "always", "futex"]);
    let text = printed(&["bench", "gateway", "--quick"]);
    assert_says(&text, &["to the editor", "to a bare HTTP client", "added by the gateway", "goal: p50 at most "]);
}

#[test]
fn a_stress_suite_prints_every_criterion_with_value_target_and_verdict() {
    let finished = Home::new().run(["stress", "leak", "--seconds", "1", "--seed", "3"]);
    let text = finished.stdout.trim_end();
    let verdict = |pass: bool| format!("  {}  growth after any cycle (VmRSS)", if pass { "PASS" } else { "FAIL" });
    assert_says(text, &["leak (", "under 512", "  PASS  ", "calls_answered: "]);
    assert!(text.contains(&verdict(true)) || text.contains(&verdict(false)), "{text}");
    // Memory differs from build to build, and whether all is met is for the suites' own tests: here it must be told alike.
    let failed = text.matches("  FAIL  ").count();
    assert!(text.ends_with(&format!("{} of 8 criteria met, seed 3", 8 - failed)), "{text}");
    assert_eq!(finished.code, Some(i32::from(failed > 0)), "{text}");
}
