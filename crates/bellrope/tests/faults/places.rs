//! No process keeps others out by holding all connections: it gives one up for each newcomer, until nobody would have more.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bellrope::{
    CallError, Client, Server,
    client::{ClientConfig, Connection, Transport},
    server::ServerConfig,
};
use bellrope_proto::handshake::{MAX_TYPES, TABLE};
use bellrope_testkit::{
    raw_stream::StreamPeer,
    role,
    support::{PATIENCE, TestServer, eventually, serve},
};

const DID: &str = "what came of it: ";
const PLACES: u32 = 8;

/// All places are taken by another process, which holds them until [`go_on`].
fn full(test: &str, config: ServerConfig) -> (TestServer, role::Role) {
    let server = serve(config);
    let holder = role::start(test, "holder", &server.path, &[], false);
    eventually("every place is taken", || {
        let counts = server.server.metrics().snapshot();
        counts.active_connections == counts.max_connections
    });
    (server, holder)
}

fn go_on_at(path: &Path) -> PathBuf {
    path.with_extension("go")
}

/// How a call ended, in a word.
fn word<T>(outcome: Result<T, CallError>) -> &'static str {
    match outcome {
        Ok(_) => "answered",
        Err(CallError::ClosedByServer { reason, may_have_run })
            if reason.contains("(max_connections), another had") =>
        {
            if may_have_run {
                "may-have-run"
            } else {
                "not-run"
            }
        }
        Err(error) => panic!("{error}"),
    }
}

fn places(count: u32) -> ServerConfig {
    let mut config = ServerConfig::default();
    config.max_connections = count;
    // A newcomer waits for half of that at the most, however busy the machine is.
    config.handshake_timeout = Duration::from_secs(60);
    config
}

/// Connects and calls, at the first try.
fn comes_in(server: &TestServer) -> Client {
    let client = Client::connect(&server.path).unwrap();
    assert_eq!(client.call_within("echo", b"honest", PATIENCE).unwrap(), b"honest");
    client
}

/// The server is full, and nobody is put out for this process any more.
fn is_refused(server: &TestServer) {
    let error = Client::connect(&server.path).unwrap_err().to_string();
    assert!(error.contains("8 connections are open, the limit max_connections"), "{error}");
}

// Fault 62.
#[test]
fn a_process_that_holds_all_connections_idle_gives_up_the_oldest_for_each_newcomer() {
    const TEST: &str = "places::a_process_that_holds_all_connections_idle_gives_up_the_oldest_for_each_newcomer";
    if let Some(path) = role::is_played_here("holder") {
        let path = Path::new(&path);
        let mut held: Vec<_> = (0..PLACES).map(|_| Connection::connect(path).unwrap()).collect();
        eventually("others have come", || go_on_at(path).exists());
        let words: Vec<_> =
            held.iter_mut().map(|connection| word(connection.call("echo", b"mine", &mut Vec::new()))).collect();
        return role::say(DID, words.join(" "));
    }
    for workers in [1, 3] {
        let mut config = places(PLACES);
        config.workers = workers;
        let (server, holder) = full(TEST, config);
        // Its half is its share.
        let _newcomers: Vec<_> = (0..PLACES / 2).map(|_| comes_in(&server)).collect();
        is_refused(&server);
        let counts = server.server.metrics().snapshot();
        assert_eq!((counts.active_connections, counts.violations, counts.stalled), (PLACES.into(), 0, 0));
        std::fs::write(go_on_at(&server.path), "").unwrap();
        let told = holder.end(DID);
        if workers == 1 {
            assert_eq!(told, "not-run not-run not-run not-run answered answered answered answered");
        }
        assert_eq!(told.matches("not-run").count(), 4, "{told}");
        assert_eq!(told.matches("answered").count(), 4, "{told}");
    }
}

// Fault 62.
#[test]
fn whoever_gave_way_connects_again_with_its_next_call() {
    const TEST: &str = "places::whoever_gave_way_connects_again_with_its_next_call";
    if let Some(path) = role::is_played_here("holder") {
        let path = Path::new(&path);
        let clients: Vec<_> = (0..PLACES)
            .map(|number| {
                let mut config = ClientConfig::new(path);
                config.transport = if number % 2 == 0 { Transport::Shm } else { Transport::Stream };
                config.reconnect_timeout = PATIENCE;
                Client::with(config).unwrap()
            })
            .collect();
        eventually("others have come and gone", || go_on_at(path).exists());
        for client in &clients {
            let call = || client.call_within("echo", b"mine", PATIENCE);
            // One that was begun before its client saw the hang-up has not run, and is safe to send again.
            let reply =
                call().or_else(|error| if word(Err::<(), _>(error)) == "not-run" { call() } else { Ok(Vec::new()) });
            assert_eq!(reply.unwrap(), b"mine");
        }
        return role::say(DID, "all answered");
    }
    let (server, holder) = full(TEST, places(PLACES));
    let newcomers: Vec<_> = (0..PLACES / 2).map(|_| comes_in(&server)).collect();
    is_refused(&server);
    drop(newcomers);
    std::fs::write(go_on_at(&server.path), "").unwrap();
    assert_eq!(holder.end(DID), "all answered");
}

// Fault 62.
#[test]
fn of_connections_that_are_all_busy_one_goes_only_if_its_process_has_more_than_half() {
    const TEST: &str = "places::of_connections_that_are_all_busy_one_goes_only_if_its_process_has_more_than_half";
    if let Some(path) = role::is_played_here("holder") {
        let path = Path::new(&path);
        let mut held: Vec<_> = (0..PLACES)
            .map(|number| {
                let mut connection = Connection::connect(path).unwrap();
                // The first has more to lose.
                for _ in 0..=u32::from(number == 0) {
                    connection.submit("never", b"").unwrap();
                }
                connection
            })
            .collect();
        eventually("others have come", || go_on_at(path).exists());
        let lost = held[1..=4].iter_mut().map(|connection| word(connection.wait(&mut Vec::new()).unwrap().outcome));
        return role::say(DID, lost.collect::<Vec<_>>().join(" "));
    }
    let (server, holder) = full(TEST, places(PLACES));
    let running = || server.server.metrics().snapshot().types.iter().map(|row| row.running).sum::<u64>();
    eventually("all are busy", || running() == u64::from(PLACES) + 1);
    let _newcomers: Vec<_> = (0..PLACES / 2).map(|_| comes_in(&server)).collect();
    is_refused(&server);
    eventually("the handlers of four connections are dropped, and no others", || server.dropped() == 4);
    std::fs::write(go_on_at(&server.path), "").unwrap();
    assert_eq!(holder.end(DID), "may-have-run may-have-run may-have-run may-have-run");
}

// Fault 62.
#[test]
fn a_process_that_holds_all_places_in_handshakes_of_which_it_takes_no_pages_gives_them_up() {
    const TEST: &str = "places::a_process_that_holds_all_places_in_handshakes_of_which_it_takes_no_pages_gives_them_up";
    if let Some(path) = role::is_played_here("holder") {
        let path = Path::new(&path);
        let _held: Vec<_> =
            (0..PLACES).map(|_| StreamPeer::try_to_connect_with(path, "lazy", TABLE).unwrap()).collect();
        eventually("others have come", || go_on_at(path).exists());
        return role::say(DID, "held");
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let mut builder = Server::builder().in_place("echo", |_| Ok(())).config(places(PLACES));
    // So many and so long that no socket takes them all at once.
    for number in 1..MAX_TYPES {
        builder = builder.in_place(&format!("Service.{number:0>240}"), |_| Ok(()));
    }
    let server = builder.bind(&path).unwrap();
    let holder = role::start(TEST, "holder", &path, &[], false);
    eventually("every place is taken", || server.metrics().snapshot().active_connections == u64::from(PLACES));
    let comes_in = || {
        let client = Client::connect(&path).unwrap();
        assert_eq!(client.call_within("echo", b"honest", PATIENCE).unwrap(), b"honest");
        client
    };
    // Its half is its share.
    let _newcomers: Vec<_> = (0..PLACES / 2).map(|_| comes_in()).collect();
    let error = Client::connect(&path).unwrap_err().to_string();
    assert!(error.contains("8 connections are open, the limit max_connections"), "{error}");
    let counts = server.metrics().snapshot();
    assert_eq!((counts.active_connections, counts.unfinished_handshakes), (PLACES.into(), u64::from(PLACES / 2)));
    std::fs::write(go_on_at(&path), "").unwrap();
    assert_eq!(holder.end(DID), "held");
}
