//! What the faces of a client, and of a call, tell those who ask.

use std::{
    sync::{Mutex, mpsc},
    time::Duration,
};

use bellrope::{
    AsyncClient, CallError, Client, Server,
    client::{CallOptions, ClientConfig, Connection, Style},
    server::ServerConfig,
};

use bellrope_testkit::support::{eventually, serve};

#[test]
fn a_connection_tells_what_its_server_offers_and_whether_it_is_there() {
    let server = serve(ServerConfig::default());
    let mut connection = Connection::connect(&server.path).unwrap();
    assert!(connection.message_types().any(|(name, style)| name == "count" && style == Style::ServerStream));
    assert_eq!(connection.max_message(), 10 << 20);
    assert!(connection.is_healthy());
    server.server.shutdown();
    eventually("the hang-up is heard", || !connection.is_healthy());
    let echo = connection.message_type("echo").unwrap();
    assert!(matches!(connection.call(echo, b"x", &mut Vec::new()), Err(CallError::NotExecuted | CallError::Unknown)));
}

#[test]
fn a_type_that_is_called_in_the_wrong_way_is_told_the_right_one() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    for (name, method) in [("count", "stream()"), ("total", "client_stream()"), ("double", "duplex()")] {
        let error = client.call(name, b"").unwrap_err();
        assert!(error.to_string().ends_with(&format!("is called with {method}")), "{error}");
    }
    let Err(error) = client.stream("echo", b"") else { panic!("echo is no stream") };
    assert!(error.to_string().ends_with("is called with call()"), "{error}");
}

#[test]
fn a_call_of_a_connection_that_takes_too_long_is_cancelled_and_the_connection_goes_on() {
    let server = serve(ServerConfig::default());
    let mut config = ClientConfig::new(&server.path);
    // Time enough for the echo at the end on any machine.
    config.call_timeout = Duration::from_secs(1);
    let mut connection = Connection::with(&config).unwrap();
    let never = connection.message_type("never").unwrap();
    let mut reply = Vec::new();
    assert!(matches!(connection.call(never, b"", &mut reply), Err(CallError::DeadlineExceeded)));
    connection.flush();
    eventually("its handler is dropped", || server.dropped() == 1);
    let id = connection.submit(never, b"").unwrap();
    assert!(connection.cancel(id), "it was under way");
    assert!(!connection.cancel(id), "and is no more");
    connection.flush();
    eventually("this one's, too", || server.dropped() == 2);
    let echo = connection.message_type("echo").unwrap();
    connection.call(echo, b"on", &mut reply).unwrap();
    assert_eq!((&*reply, connection.in_flight()), (&b"on"[..], 0));
}

/// A server whose one handler waits until its sender is dropped.
fn stuck_server(path: &std::path::Path) -> (Server, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let stuck = move |_: &bellrope::Call<'_>, _: &mut bellrope::Reply<'_>| {
        // It ends with an error when the sender goes: that is the release.
        let _ = released.lock().unwrap().recv();
        Ok(())
    };
    (Server::builder().unary("stuck", stuck).bind(path).unwrap(), release)
}

#[test]
fn a_large_request_that_finds_no_room_in_time_ends_unsent_and_is_forgotten() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("stuck.sock");
    let (_server, release) = stuck_server(&path);
    let mut config = ClientConfig::new(&path);
    config.call_timeout = Duration::from_millis(50);
    let mut connection = Connection::with(&config).unwrap();
    let stuck = connection.message_type("stuck").unwrap();
    connection.submit(stuck, b"hold the worker").unwrap();
    let large = vec![7; 4 << 20];
    assert!(matches!(connection.submit(stuck, &large), Err(CallError::DeadlineExceeded)), "nobody takes its parts");
    let error = connection.submit(stuck, &large).unwrap_err();
    assert!(matches!(error, CallError::DeadlineExceeded), "the next one waits, too: {error}");
    assert_eq!(connection.in_flight(), 1, "only the first is under way");
    drop(release);
    let mut outcome = None;
    eventually("the first is answered", || {
        outcome = connection.poll(&mut Vec::new()).unwrap();
        outcome.is_some()
    });
    outcome.unwrap().outcome.unwrap();
}

#[test]
fn a_handler_knows_its_connection_and_how_long_it_has() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("asked.sock");
    let server = Server::builder()
        .unary_async("asked", |call| async move {
            let left = call.time_left().map(|left| left.as_millis());
            Ok(format!("{} {left:?}", call.connection()).into_bytes())
        })
        .unary("asked_there", |call, reply| {
            let left = call.time_left().map(|left| left.as_millis());
            reply.put(format!("{} {left:?}", call.connection()).as_bytes());
            Ok(())
        })
        .bind(&path)
        .unwrap();
    let client = Client::connect(&path).unwrap();
    let other = Client::connect(&path).unwrap();
    for name in ["asked", "asked_there"] {
        let asked = |client: &Client| {
            let options = CallOptions::new().timeout(Duration::from_secs(600));
            String::from_utf8(client.call_with(name, b"", &options).unwrap()).unwrap()
        };
        let (first, second) = (asked(&client), asked(&other));
        assert_ne!(first.split(' ').next(), second.split(' ').next(), "each connection has its number");
        assert!(first.contains("Some(59"), "some 599 seconds are left: {first}");
    }
    server.shutdown();
}

#[test]
fn a_server_lends_the_runtime_of_its_async_handlers_and_has_none_without_them() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let server = Server::builder().unary("plain", |_, _| Ok(())).bind(&path).unwrap();
    assert!(server.runtime().is_none());
    drop(server);
    let server = serve(ServerConfig::default());
    let answer = server.server.runtime().unwrap().spawn(async { "from there" });
    assert_eq!(tokio::runtime::Runtime::new().unwrap().block_on(answer).unwrap(), "from there");
}

#[tokio::test]
async fn an_async_client_tells_what_its_server_offers() {
    let server = serve(ServerConfig::default());
    let client = AsyncClient::connect(&server.path).await.unwrap();
    let types = client.message_types();
    assert!(types.contains(&("echo".to_owned(), Style::Unary)), "{types:?}");
    let error = client.call("count", b"1").await.unwrap_err();
    assert!(error.to_string().ends_with("is called with stream()"), "{error}");
}
