//! Many clients: one after the other, all at once, and all together again.

use std::{fs, sync::Arc, time::Duration};

use bellrope::{Client, Server, client::Connection, server::ServerConfig, status::MemoryUse};

use bellrope_testkit::{
    alone::alone,
    support::{builder, eventually, serve},
};

const RECONNECTS: usize = 10_000;
const CROWD: usize = 1_000;
const SENDERS: usize = 100;
const LARGE: usize = 10 << 20;

/// Descriptors, mappings and threads of this process.
fn holdings() -> (usize, usize, usize) {
    let entries = |path: &str| fs::read_dir(path).unwrap().count();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let rings = maps.lines().filter(|line| line.contains("memfd:bellrope")).count();
    (entries("/proc/self/fd"), rings, entries("/proc/self/task"))
}

fn resident_kb() -> u64 {
    MemoryUse::of(std::process::id()).unwrap().rss_kb
}

// Fault 23.
#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    alone("crowds::ten_thousand_connections_leave_nothing_behind", || {
        let server = serve(ServerConfig::default());
        let come_and_go = |times: usize| {
            let mut reply = Vec::new();
            for _ in 0..times {
                let mut connection = Connection::connect(&server.path).unwrap();
                let echo = connection.message_type("echo").unwrap();
                connection.call(echo, b"hello", &mut reply).unwrap();
                assert_eq!(reply, b"hello");
            }
            eventually("all are gone", || server.server.metrics().active_connections() == 0);
        };
        come_and_go(200);
        let (before, resident) = (holdings(), resident_kb());
        come_and_go(RECONNECTS);
        eventually("nothing is left", || holdings() == before);
        let grown = resident_kb().saturating_sub(resident);
        assert!(grown < 8 * 1024, "resident memory has grown by {grown} KiB");
    });
}

// Fault 29.
#[test]
fn a_thousand_clients_come_back_at_once() {
    alone("crowds::a_thousand_clients_come_back_at_once", || {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run").join("test.sock");
        let start = || builder(&Arc::default()).bind(&path).unwrap();
        let first = start();
        let clients: Vec<_> = (0..CROWD).map(|_| Client::connect(&path).unwrap()).collect();
        drop(first);
        let second = start();
        eventually("all are back", || second.metrics().active_connections() == CROWD as u64);
        for client in &clients {
            assert_eq!(client.call("echo", b"back").unwrap(), b"back");
        }
        assert_eq!(second.metrics().snapshot().refused_connections, 0);
    });
}

// Fault 34.
#[test]
fn a_hundred_clients_that_send_the_largest_message_at_once_share_one_budget() {
    alone("crowds::a_hundred_clients_that_send_the_largest_message_at_once_share_one_budget", || {
        let mut config = ServerConfig::default();
        config.budget_wait = Duration::from_millis(120_000);
        let budget = config.buffer_budget_bytes;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run").join("test.sock");
        let server = Server::builder()
            .unary("measure", |call, reply| {
                let whole = call.payload().iter().all(|byte| *byte == call.payload()[0]);
                reply.put(&[call.payload()[0], u8::from(whole)]);
                reply.put(&call.payload().len().to_le_bytes());
                Ok(())
            })
            .config(config)
            .bind(&path)
            .unwrap();
        let payloads: Vec<_> = (1..=2_u8).map(|byte| vec![byte; LARGE]).collect();
        let clients: Vec<_> = (0..SENDERS).map(|_| Client::connect(&path).unwrap()).collect();
        let before = resident_kb();
        let (mut most, mut resident) = (0, 0);
        std::thread::scope(|scope| {
            let calls: Vec<_> = clients
                .iter()
                .zip(payloads.iter().cycle())
                .map(|(client, payload)| {
                    scope.spawn(move || {
                        let reply = client.call_within("measure", payload, Duration::from_secs(120)).unwrap();
                        assert_eq!(reply, [&[payload[0], 1][..], &LARGE.to_le_bytes()].concat());
                    })
                })
                .collect();
            while calls.iter().any(|call| !call.is_finished()) {
                most = most.max(server.metrics().snapshot().buffers.unwrap().0);
                resident = resident.max(resident_kb());
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        assert!(most > 0 && most <= budget, "{most} bytes were in use, the budget is {budget}");
        // Beside the budget: two rings of a client, twice in this process, and what a thread takes.
        let bound = budget / 1024 + SENDERS as u64 * (2 * 520 + 128) + 32 * 1024;
        assert!(resident - before < bound, "{} KiB became resident, expected below {bound}", resident - before);
        eventually("the budget is given back", || server.metrics().snapshot().buffers.unwrap().0 == 0);
    });
}
