//! Calls and streams from the server, and how a server starts, drains and stops.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::running;
use bellrope::{
    AsyncClient, CallError, Client, Server,
    client::{ConnectError, Connection, Rejection},
    server::ServerConfig,
};
use bellrope_testkit::support::{PATIENCE, builder, eventually, serve};

#[test]
fn a_call_is_answered_whatever_its_size() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    let mut connection = Connection::connect(&server.path).unwrap();
    let echo = connection.message_type("echo").unwrap();
    let mut reply = Vec::new();
    for len in [0, 1, 7, 8, 63, 64, 65, 1024, 4096, 65535, 65536, 65537, 300_000, 10 << 20] {
        let payload: Vec<u8> = (0..len).map(|index| index as u8).collect();
        assert_eq!(client.call("echo", &payload).unwrap(), payload);
        connection.call(echo, &payload, &mut reply).unwrap();
        assert_eq!(reply, payload);
    }
    // A call is counted right after it is answered.
    eventually("every call is counted", || server.server.metrics().snapshot().total_requests() == 28);
    assert_eq!(server.server.metrics().active_connections(), 2);
}

#[test]
fn a_handler_that_answers_in_place_makes_the_reply_of_the_request_whatever_its_size() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let server = Server::builder()
        .in_place("reverse", |call| {
            assert!(call.connection() > 0 && call.time_left().is_some());
            call.message().reverse();
            Ok(())
        })
        .in_place("twice", |call| {
            let again = call.message().clone();
            call.message().extend(again);
            Ok(())
        })
        .in_place("fail", |call| {
            // What it has made of the message is kept by nobody.
            call.message().resize(1 << 20, 7);
            Err(bellrope::HandlerError::new("as asked"))
        })
        .in_place("panic", |call| panic!("with {} bytes", call.message().len()))
        .bind(&path)
        .unwrap();
    let client = Client::connect(&path).unwrap();
    let (mut failed, mut panicked) = (0, 0);
    for len in [100_000, 0, 1, 64, 65_536, 65_537, 5 << 20, 10, 10 << 20] {
        let payload: Vec<u8> = (0..len).map(|index| (index % 251) as u8).collect();
        let reversed: Vec<u8> = payload.iter().rev().copied().collect();
        assert!(client.call("reverse", &payload).unwrap() == reversed, "{len} bytes");
        match client.call("twice", &payload) {
            Ok(reply) => assert!(reply == [&payload[..], &payload].concat(), "{len} bytes"),
            Err(error) => assert!(len > 5 << 20 && matches!(error, CallError::MessageTooLarge { .. }), "{error}"),
        }
        // After five failures their breakers open.
        if len % 2 == 0 {
            let error = client.call("fail", &payload).unwrap_err();
            assert!(matches!(error, CallError::Handler { .. }) || failed >= 5 && error.is_retryable(), "{error}");
            failed += 1;
        } else {
            let error = client.call("panic", &payload).unwrap_err();
            assert!(matches!(error, CallError::HandlerPanic { .. }), "{error}");
            panicked += 1;
        }
    }
    assert_eq!((failed, panicked), (7, 2));
    eventually("the budget is given back", || server.metrics().snapshot().buffers.unwrap().0 == 0);
}

#[test]
fn a_message_over_the_limit_is_refused_with_its_size_and_the_limit() {
    let server = serve(ServerConfig::default());
    let error = Client::connect(&server.path).unwrap().call("echo", &vec![0; (10 << 20) + 1]).unwrap_err();
    assert_eq!(error.to_string(), "the message of 10485761 bytes exceeds the limit of 10485760 bytes");
}

#[test]
fn an_unknown_type_is_answered_with_the_nearest_names() {
    let server = serve(ServerConfig::default());
    let error = Client::connect(&server.path).unwrap().call("ehco", b"").unwrap_err();
    assert!(error.to_string().starts_with("the server knows no message type \"ehco\"; nearest known: echo"), "{error}");
}

// Fault 42.
#[test]
fn a_failing_or_panicking_handler_harms_nobody_else() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    let other = Client::connect(&server.path).unwrap();
    for _ in 0..5 {
        assert_eq!(client.call("fail", b"").unwrap_err().to_string(), "handler_error: as asked");
        assert_eq!(client.call("panic", b"").unwrap_err().to_string(), "handler_panic: on purpose");
        assert!(matches!(client.call("panic_later", b"").unwrap_err(), CallError::HandlerPanic { .. }));
        assert_eq!(other.call("echo", b"fine").unwrap(), b"fine");
        assert_eq!(client.call("echo", b"fine").unwrap(), b"fine");
    }
    eventually("every panic is counted", || {
        let metrics = server.server.metrics().snapshot();
        let row = metrics.types.into_iter().find(|row| row.name == "panic").unwrap();
        row.outcomes.contains(&("handler_panic", 5))
    });
}

#[test]
fn many_threads_share_one_connection() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let client = &client;
            scope.spawn(move || {
                for call in 0..200_u32 {
                    let payload = [thread.to_le_bytes(), call.to_le_bytes()].concat();
                    let name = if call % 50 == 0 { "later" } else { "echo" };
                    assert_eq!(client.call(name, &payload).unwrap(), payload);
                }
            });
        }
    });
    eventually("every call is counted", || server.server.metrics().snapshot().total_requests() == 1600);
    assert_eq!(server.server.metrics().active_connections(), 1);
}

#[test]
fn many_calls_in_flight_come_back_each_to_its_own() {
    let server = serve(ServerConfig::default());
    let mut connection = Connection::connect(&server.path).unwrap();
    let types = ["echo", "later"].map(|name| connection.message_type(name).unwrap());
    let mut reply = Vec::new();
    let mut waiting = std::collections::HashMap::new();
    for n in 0..500_u32 {
        let id = connection.submit(types[(n % 2) as usize], &n.to_le_bytes()).unwrap();
        assert!(waiting.insert(id, n).is_none());
    }
    while !waiting.is_empty() {
        let completion = connection.wait(&mut reply).unwrap();
        completion.outcome.unwrap();
        assert_eq!(waiting.remove(&completion.id).unwrap().to_le_bytes(), reply[..]);
    }
}

#[test]
fn a_stream_comes_whole_and_in_order() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    for count in [0, 1, 10, 5000_u32] {
        let chunks: Result<Vec<_>, _> = client.stream("count", count.to_string().as_bytes()).unwrap().collect();
        let numbers: Vec<_> =
            chunks.unwrap().into_iter().map(|chunk| u32::from_le_bytes(chunk.try_into().unwrap())).collect();
        assert_eq!(numbers, (0..count).collect::<Vec<_>>());
    }
    let mut broken = client.stream("broken_stream", b"").unwrap();
    assert_eq!(broken.next().unwrap().unwrap(), b"one");
    assert!(matches!(broken.next().unwrap().unwrap_err(), CallError::Handler { .. }));
    assert!(broken.next().is_none(), "a stream ends once");
    let error = client.stream("echo", b"").unwrap_err();
    assert!(matches!(error, CallError::WrongStyle { .. }), "{error}");
}

#[test]
fn a_dropped_stream_is_cancelled_at_the_server() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    let mut stream = client.stream("endless", b"").unwrap();
    for _ in 0..200 {
        assert_eq!(stream.next().unwrap().unwrap().len(), 1000);
    }
    drop(stream);
    assert_eq!(client.call("echo", b"still here").unwrap(), b"still here");
    eventually("the handler is dropped", || server.dropped() == 1);
    let cancelled = || {
        let metrics = server.server.metrics().snapshot();
        let row = metrics.types.into_iter().find(|row| row.name == "endless").unwrap();
        row.outcomes.contains(&("cancelled", 1))
    };
    eventually("the cancel is counted", cancelled);
}

// Fault 36.
#[test]
fn a_call_past_its_deadline_ends_and_its_handler_is_dropped() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    // On a busy machine it may pass before the handler begins, which is then not run at all.
    eventually("a handler that has begun is dropped", || {
        let error = client.call_within("never", b"", Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, CallError::DeadlineExceeded), "{error}");
        server.dropped() > 0
    });
    assert_eq!(client.call("echo", b"on it goes").unwrap(), b"on it goes");
}

#[test]
fn a_dead_client_takes_its_handlers_with_it() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    let mut stream = client.stream("endless", b"").unwrap();
    stream.next().unwrap().unwrap();
    drop(client);
    drop(stream);
    eventually("the handler is dropped", || server.dropped() == 1);
    eventually("the connection is closed", || server.server.metrics().active_connections() == 0);
}

// Fault 37.
#[test]
fn calls_on_a_lost_server_end_as_not_executed_or_unknown() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    let calling = {
        let client = client.clone();
        std::thread::spawn(move || client.call("never", b""))
    };
    eventually("the call is under way", || running(&server) == 1);
    let stopped = Instant::now();
    server.server.shutdown();
    let error = calling.join().unwrap().unwrap_err();
    assert!(matches!(error, CallError::Unknown | CallError::NotExecuted), "{error}");
    assert!(stopped.elapsed() < PATIENCE / 4, "long before the call's own time is up");
    let error = client.call("echo", b"").unwrap_err();
    assert!(error.is_retryable(), "{error}");
}

#[test]
fn a_client_finds_the_server_again_when_it_comes_back() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let first = builder(&Arc::default()).bind(&path).unwrap();
    let client = Client::connect(&path).unwrap();
    for _ in 0..3 {
        assert_eq!(client.call("echo", b"x").unwrap(), b"x");
    }
    drop(first);
    let _second = builder(&Arc::default()).bind(&path).unwrap();
    eventually("the client is back", || client.call("echo", b"y").is_ok());
}

// Fault 20.
#[test]
fn limits_are_refused_in_the_handshake() {
    let mut config = ServerConfig::default();
    config.max_connections = 2;
    let server = serve(config);
    let _held: Vec<_> = (0..2).map(|_| Client::connect(&server.path).unwrap()).collect();
    let error = Client::connect(&server.path).unwrap_err();
    assert!(matches!(error, ConnectError::Handshake(_)), "{error}");
    assert!(error.to_string().contains("2 connections are open, the limit max_connections"), "{error}");
    drop(_held);
    eventually("there is room again", || Client::connect(&server.path).is_ok());
}

#[test]
fn bad_settings_are_refused_by_name() {
    let mut config = ServerConfig::default();
    config.ring_bytes = 1000;
    let error = Server::builder().config(config).bind("unused").unwrap_err();
    assert_eq!(error.to_string(), "the setting ring_bytes is 1000, and must be a power of two from 4096 to 16777216");
}

#[test]
fn nobody_listening_is_said_plainly() {
    let home = tempfile::tempdir().unwrap();
    let error = Client::connect(home.path().join("nobody.sock")).unwrap_err();
    assert!(matches!(error, ConnectError::NoServer { .. }) && error.to_string().contains("nobody.sock"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn async_calls_and_streams_share_one_connection() {
    let server = serve(ServerConfig::default());
    let client = AsyncClient::connect(&server.path).await.unwrap();
    let mut tasks = Vec::new();
    for task in 0..20_u32 {
        let client = client.clone();
        tasks.push(tokio::spawn(async move {
            for call in 0..50_u32 {
                let payload = [task.to_le_bytes(), call.to_le_bytes()].concat();
                assert_eq!(client.call("echo", &payload).await.unwrap(), payload);
            }
            let mut stream = client.stream("count", b"100").await.unwrap();
            let mut seen = 0_u32;
            while let Some(chunk) = stream.next().await {
                assert_eq!(chunk.unwrap(), seen.to_le_bytes());
                seen += 1;
            }
            assert_eq!(seen, 100);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(server.server.metrics().active_connections(), 1);
    let error = client.call_within("never", b"", Duration::from_millis(20)).await.unwrap_err();
    assert!(error.to_string().contains("deadline"), "{error}");
    drop(client);
    tokio::task::spawn_blocking(move || {
        eventually("no handler is left", || running(&server) == 0);
        eventually("the connection is closed", || server.server.metrics().active_connections() == 0);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_async_client_finds_the_server_again() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let first = builder(&Arc::default()).bind(&path).unwrap();
    let client = AsyncClient::connect(&path).await.unwrap();
    assert_eq!(client.call("echo", b"x").await.unwrap(), b"x");
    tokio::task::spawn_blocking(move || drop(first)).await.unwrap();
    let _second = builder(&Arc::default()).bind(&path).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while client.call("echo", b"y").await.is_err() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_dropped_async_stream_or_call_is_cancelled_at_the_server() {
    let server = serve(ServerConfig::default());
    let client = AsyncClient::connect(&server.path).await.unwrap();
    let mut stream = client.stream("endless", b"").await.unwrap();
    for _ in 0..200 {
        assert_eq!(stream.next().await.unwrap().unwrap().len(), 1000);
    }
    drop(stream);
    let call = client.call("never", b"");
    assert!(tokio::time::timeout(Duration::from_millis(20), call).await.is_err());
    let deadline = Instant::now() + PATIENCE;
    while server.dropped() < 2 {
        assert!(Instant::now() < deadline, "both handlers are dropped");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(client.call("echo", b"on it goes").await.unwrap(), b"on it goes");
}

// Fault 50.
#[test]
fn a_draining_server_ends_what_is_under_way_and_takes_nothing_new() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    let mut stream = client.stream("count", b"20000").unwrap();
    assert_eq!(stream.next().unwrap().unwrap(), 0_u32.to_le_bytes());
    std::thread::scope(|scope| {
        let draining = scope.spawn(|| server.server.drain(PATIENCE));
        // Calls are served until the drain begins, and then refused as safe to send again.
        let error = loop {
            if let Err(error) = client.call("echo", b"") {
                break error;
            }
        };
        assert!(matches!(error, CallError::Rejected { reason: Rejection::Draining, .. }), "{error}");
        let refused = Client::connect(&server.path).unwrap_err().to_string();
        assert!(refused.contains("draining"), "{refused}");
        let rest: Vec<_> = stream.by_ref().collect::<Result<_, _>>().unwrap();
        assert_eq!(rest.len(), 19_999, "the stream comes whole");
        assert!(draining.join().unwrap(), "everything ended by itself");
    });
}

// Fault 50.
#[test]
fn a_drain_ends_at_its_deadline() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    let mut endless = client.stream("endless", b"").unwrap();
    endless.next().unwrap().unwrap();
    assert!(!server.server.drain(Duration::from_millis(50)));
    let ending = endless.find_map(Result::err).unwrap();
    assert!(matches!(ending, CallError::Unknown), "{ending}");
    eventually("the handler is dropped", || server.dropped() == 1);
}

#[test]
fn a_call_on_a_connection_loses_no_answer_to_a_call_that_was_submitted_before() {
    let mut config = ServerConfig::default();
    config.max_in_flight = 4;
    let server = serve(config);
    let mut connection = Connection::connect(&server.path).unwrap();
    let mut reply = Vec::new();
    let submitted = ["echo", "fail", "echo"].map(|name| connection.submit(name, b"before").unwrap());
    connection.call("echo", b"meanwhile", &mut reply).unwrap();
    assert_eq!((&*reply, connection.in_flight()), (&b"meanwhile"[..], 3));
    for (at, id) in submitted.into_iter().enumerate() {
        let completion = connection.wait(&mut reply).unwrap();
        assert_eq!(completion.id, id);
        match completion.outcome {
            Ok(()) => assert_eq!(reply, b"before"),
            Err(error) => assert!(at == 1 && matches!(error, CallError::Handler { .. }), "{error}"),
        }
    }
    assert_eq!(connection.in_flight(), 0);
    // Who never asks for them comes to an end, and then goes on where it was.
    let refused = (0..100).find_map(|_| {
        connection.submit("echo", b"unasked").and_then(|_| connection.call("echo", b"asked", &mut reply)).err()
    });
    assert!(matches!(refused, Some(CallError::Rejected { .. })), "{refused:?}");
    while connection.in_flight() > 0 {
        connection.wait(&mut reply).unwrap().outcome.unwrap();
        assert_eq!(reply, b"unasked");
    }
    connection.call("echo", b"on", &mut reply).unwrap();
}
