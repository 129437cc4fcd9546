//! Many clients, one server.

use std::{
    sync::{Barrier, atomic::Ordering},
    time::Duration,
};

use bellrope::{AsyncClient, Client, Server, client::Connection};
use bellrope_testkit::program::Running;

use crate::parts::{Home, who, written};

/// How often the races are run; `BELLROPE_SPAWN_ROUNDS=100` for a long run.
fn rounds() -> usize {
    std::env::var("BELLROPE_SPAWN_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap())
}

#[test]
fn of_50_clients_from_cold_one_starts_the_server_and_all_are_answered() {
    for _ in 0..rounds() {
        let home = Home::new();
        let (spawn, start) = (home.spawn(""), Barrier::new(50));
        let mut servers: Vec<u64> = std::thread::scope(|scope| {
            let ask = || {
                start.wait();
                let client = Client::connect_or_spawn(home.config(), &spawn).unwrap();
                who(&client)["pid"].as_u64().unwrap()
            };
            let asking: Vec<_> = (0..50).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().map(|asking| asking.join().unwrap()).collect()
        });
        assert_eq!(servers.len(), 50);
        servers.dedup();
        assert_eq!(servers.len(), 1);
        assert_eq!(home.started.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn every_kind_of_client_finds_the_server_that_another_one_started() {
    let home = Home::new();
    let spawn = home.spawn("");
    let server = who(&Client::connect_or_spawn(home.config(), &spawn).unwrap())["pid"].clone();
    let mut connection = Connection::connect_or_spawn(&home.config(), &spawn).unwrap();
    let mut reply = Vec::new();
    connection.call("echo", b"ding", &mut reply).unwrap();
    assert_eq!(reply, b"ding");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = AsyncClient::connect_or_spawn(home.config(), &spawn).await.unwrap();
        let found: serde_json::Value = serde_json::from_slice(&client.call("who", b"").await.unwrap()).unwrap();
        assert_eq!(found["pid"], server);
    });
    assert_eq!(home.started.load(Ordering::SeqCst), 1);
}

#[test]
fn a_starter_that_is_killed_while_its_server_begins_leaves_nobody_waiting() {
    let home = Home::new();
    let mut starter = home.client(&home.path("out"), "slow").spawn().unwrap();
    bellrope_testkit::support::eventually("the start", || home.path("slow").exists());
    starter.kill().unwrap();
    starter.wait().unwrap();
    std::fs::write(home.path("go"), "").unwrap();
    // Whichever of two servers takes the path, there is one.
    let client = Client::connect_or_spawn(home.config(), &home.spawn("slow")).unwrap();
    assert_eq!(who(&client)["pid"].as_u64(), home.server().map(u64::from));
}

#[test]
fn a_client_that_comes_when_its_server_ends_is_served_by_the_next_one_and_sees_no_error() {
    let home = Home::new();
    // It ends as soon as nobody is there, so each client comes at some moment of that.
    let spawn = home.spawn_for("", Duration::from_millis(1));
    for n in 0..10 * rounds() {
        let calls = |count: u64| {
            for _ in 0..count {
                let client = Client::connect_or_spawn(home.config(), &spawn).unwrap();
                assert_eq!(client.call("echo", b"ding").unwrap(), b"ding");
                drop(client);
                std::thread::sleep(Duration::from_micros(300 * n as u64));
            }
        };
        std::thread::scope(|scope| (1..=2).for_each(|count| drop(scope.spawn(move || calls(count)))));
    }
}

#[test]
fn a_server_that_takes_nobody_any_more_is_waited_for_and_followed_by_the_next() {
    let home = Home::new();
    let server = Server::builder().unary_async("never", |_| std::future::pending()).bind(home.socket()).unwrap();
    let busy = Client::connect(home.socket()).unwrap();
    std::thread::scope(|scope| {
        let caller = busy.clone();
        scope.spawn(move || caller.call("never", b"").unwrap_err());
        bellrope_testkit::support::eventually("the call", || {
            server.metrics().snapshot().types.iter().any(|row| row.running > 0)
        });
        scope.spawn(move || {
            assert!(server.drain(Duration::from_secs(60)), "the call ends with its client");
            drop(server);
        });
        bellrope_testkit::support::eventually("the draining", || Client::connect(home.socket()).is_err());
        let next =
            scope.spawn(|| who(&Client::connect_or_spawn(home.config(), &home.spawn("")).unwrap())["pid"].clone());
        busy.close();
        assert_ne!(next.join().unwrap(), std::process::id());
    });
    assert_eq!(home.started.load(Ordering::SeqCst), 1);
}

#[test]
fn processes_that_race_have_one_server_whichever_of_them_lives_on() {
    let home = Home::new();
    let files: Vec<_> = (0..8).map(|n| home.path(&format!("out{n}"))).collect();
    let clients: Vec<_> = files.iter().map(|file| Running::start(&mut home.client(file, ""))).collect();
    let mut servers: Vec<_> = files.iter().map(|file| written(file)["pid"].as_u64()).collect();
    clients.into_iter().for_each(|client| drop(client.finish()));
    servers.dedup();
    assert_eq!(servers.len(), 1);
    assert_eq!(servers[0], home.server().map(u64::from));
}

#[expect(unreachable_pub, reason = "as an example it is a program of its own")]
#[path = "../../examples/own_server.rs"]
mod own_server;

/// Not a test by itself: the server of the next one.
#[test]
fn the_server_of_the_example() {
    if let Some(socket) = std::env::var_os("BELLROPE_TEST_SERVER") {
        let nothing = bellrope::client::Spawn::program("false");
        own_server::run(["serve".into(), socket].into_iter(), nothing).unwrap();
    }
}

#[test]
fn the_programs_of_the_example_share_one_server() {
    let home = Home::new();
    let test = ["races::the_server_of_the_example", "--exact", "--nocapture", "--"];
    let spawn = bellrope::client::Spawn::program(std::env::current_exe().unwrap())
        .args(test)
        .env("BELLROPE_TEST_SERVER", home.socket())
        .inherit(bellrope_testkit::program::COVERAGE)
        .log(Some(home.path("log")));
    let mut tickets: Vec<u64> = std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..4).map(|_| scope.spawn(|| own_server::take_ticket(&home.socket(), spawn.clone()).unwrap())).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    tickets.sort_unstable();
    assert_eq!(tickets, [1, 2, 3, 4]);
    own_server::run([home.socket().into()].into_iter(), spawn).unwrap();
}
