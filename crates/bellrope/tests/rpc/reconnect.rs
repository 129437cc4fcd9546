//! A client finds its server again by itself, and tells whoever wants to know.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use bellrope::{
    AsyncClient, CallError, Client, Server,
    breaker::BreakerConfig,
    client::{CallOptions, ClientConfig, ConnectionState, Rejection, Retry},
};

use bellrope_testkit::support::{PATIENCE, builder, eventually};

fn start(path: &Path) -> Server {
    builder(&Arc::default()).bind(path).unwrap()
}

#[test]
fn a_client_reconnects_without_a_call_and_its_state_is_told() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let mut server = Some(start(&path));
    let client = Client::connect(&path).unwrap();
    assert_eq!(client.state(), ConnectionState::Connected);
    let (told, changes) = mpsc::channel();
    client.on_state_change(move |state| told.send(state).unwrap());
    let next = || changes.recv_timeout(PATIENCE).unwrap();
    for _ in 0..5 {
        drop(server.take());
        assert_eq!(next(), ConnectionState::Reconnecting);
        server = Some(start(&path));
        let back = server.as_ref().unwrap().metrics();
        // No call is made, and yet it is there.
        eventually("the client is back", || back.active_connections() == 1);
        // A server that just ends may still have let it in for a moment.
        while next() != ConnectionState::Connected || client.state() != ConnectionState::Connected {}
        assert_eq!(client.call("echo", b"back").unwrap(), b"back");
    }
    client.close();
    while next() != ConnectionState::Closed {}
    assert!(matches!(client.call("echo", b"").unwrap_err(), CallError::Closed));
    eventually("the server knows", || server.as_ref().unwrap().metrics().active_connections() == 0);
}

#[test]
fn a_call_waits_for_the_server_and_then_runs() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let first = start(&path);
    let mut config = ClientConfig::new(&path);
    config.reconnect_timeout = PATIENCE;
    let client = Client::with(config).unwrap();
    drop(first);
    eventually("the loss is noticed", || client.state() == ConnectionState::Reconnecting);
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4).map(|_| scope.spawn(|| client.call("echo", b"waited"))).collect();
        let _second = start(&path);
        for call in calls {
            assert_eq!(call.join().unwrap().unwrap(), b"waited");
        }
    });
}

#[test]
fn a_call_says_what_is_wrong_when_the_server_does_not_come_back() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let first = start(&path);
    let mut config = ClientConfig::new(&path);
    config.reconnect_timeout = Duration::from_millis(50);
    let client = Client::with(config).unwrap();
    drop(first);
    eventually("the loss is noticed", || client.state() == ConnectionState::Reconnecting);
    let error = client.call("echo", b"").unwrap_err();
    assert!(error.is_retryable() && error.to_string().starts_with("no server listens at"), "{error}");
}

// Fault 29.
#[test]
fn every_client_of_a_process_comes_back() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let mut server = start(&path);
    let clients: Vec<_> = (0..200).map(|_| Client::connect(&path).unwrap()).collect();
    for _ in 0..2 {
        drop(server);
        server = start(&path);
        eventually("all are back", || server.metrics().active_connections() == 200);
        for client in &clients {
            let options = CallOptions::new().retry(Retry::NotExecuted);
            assert_eq!(client.call_with("echo", b"back", &options).unwrap(), b"back");
        }
    }
    drop(clients);
    eventually("nobody is left", || server.metrics().active_connections() == 0);
}

#[tokio::test]
async fn an_async_client_reconnects_without_a_call_and_its_state_can_be_watched() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let first = start(&path);
    let client = AsyncClient::connect(&path).await.unwrap();
    let mut changes = client.state_changes();
    assert_eq!(*changes.borrow_and_update(), ConnectionState::Connected);
    tokio::task::spawn_blocking(move || drop(first)).await.unwrap();
    let lost = changes.wait_for(|state| *state == ConnectionState::Reconnecting);
    tokio::time::timeout(PATIENCE, lost).await.unwrap().unwrap();
    let _second = start(&path);
    let back = changes.wait_for(|state| *state == ConnectionState::Connected);
    tokio::time::timeout(PATIENCE, back).await.unwrap().unwrap();
    assert_eq!(client.call("echo", b"back").await.unwrap(), b"back");
    client.close();
    assert!(matches!(client.call("echo", b"").await.unwrap_err(), CallError::Closed));
    assert_eq!(client.state(), ConnectionState::Closed);
}

#[test]
fn a_watcher_that_panics_harms_nobody() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let first = start(&path);
    let client = Client::connect(&path).unwrap();
    let (told, changes) = mpsc::channel();
    client.on_state_change(|_| panic!("on purpose"));
    client.on_state_change(move |state| told.send(state).unwrap());
    drop(first);
    let _second = start(&path);
    let until = Instant::now() + PATIENCE;
    while changes.recv_timeout(until - Instant::now()).unwrap() != ConnectionState::Connected {}
    // A server that just ends may have let it in for a moment.
    let options = CallOptions::new().retry(Retry::NotExecuted);
    assert_eq!(client.call_with("echo", b"back", &options).unwrap(), b"back");
}

#[test]
fn a_clients_own_breaker_spares_a_server_that_is_away_and_lets_it_in_again() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let first = start(&path);
    let mut config = ClientConfig::new(&path);
    config.reconnect_timeout = Duration::from_millis(5);
    let mut breaker = BreakerConfig::default();
    breaker.timeout = Duration::from_millis(100);
    config.breaker = Some(breaker);
    let client = Client::with(config).unwrap();
    for _ in 0..10 {
        assert!(
            matches!(client.call("refuse", b"").unwrap_err(), CallError::InvalidRequest { .. }),
            "counts for nothing"
        );
    }
    drop(first);
    let rejected = |error: &CallError| matches!(error, CallError::Rejected { reason: Rejection::Breaker, .. });
    let errors: Vec<_> = (0..6).map(|_| client.call("echo", b"").unwrap_err()).collect();
    assert!(errors[..5].iter().all(|error| !rejected(error)) && rejected(&errors[5]), "{errors:?}");
    let _second = start(&path);
    eventually("the client is back", || client.state() == ConnectionState::Connected);
    eventually("its breaker tries again", || client.call("echo", b"").is_ok() && client.call("echo", b"").is_ok());
    assert_eq!(client.call("echo", b"back").unwrap(), b"back");
}
