//! Servers that take no requests, or stop in the middle: how what waits for them ends.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::mpsc,
    task::{Context, Waker},
    time::Duration,
};

use bellrope::{
    AsyncClient, CallError,
    client::{CallOptions, CancelToken, ClientConfig, Connection, ConnectionState, SpinPolicy},
};
use bellrope_proto::{
    frame::Kind,
    layout::{ADMITTED, RECORDS},
};
use bellrope_shm::sync::Ordering;

use bellrope_testkit::support::PATIENCE;

use super::fake_server::{FakeServer, ask};

/// More than the request ring holds.
const LARGE: &[u8] = &[7; 500_000];

/// Has a large call begin, does something to its server, and answers how the call ends.
fn interrupted(options: &CallOptions, interrupt: impl FnOnce(&FakeServer)) -> CallError {
    let (server, client) = FakeServer::meet(|_| {});
    std::thread::scope(|scope| {
        let call = scope.spawn(|| client.call_with("ask", LARGE, options));
        server.something_comes();
        interrupt(&server);
        call.join().unwrap().unwrap_err()
    })
}

#[test]
fn a_large_request_that_its_server_does_not_take_ends_as_whatever_ends_it() {
    let error = interrupted(&CallOptions::new().timeout(Duration::from_millis(50)), |_| {});
    assert!(matches!(error, CallError::DeadlineExceeded), "{error}");

    let token = CancelToken::new();
    let error = interrupted(&CallOptions::new().cancel(&token), |_| token.cancel());
    assert!(matches!(error, CallError::Cancelled), "{error}");

    let error = interrupted(&CallOptions::new(), |server| server.socket.shutdown());
    assert!(matches!(error, CallError::NotExecuted), "{error}");

    let error = interrupted(&CallOptions::new(), FakeServer::claim_the_impossible);
    assert!(matches!(error, CallError::Violation(_)), "{error}");
}

#[test]
fn a_large_request_that_was_not_sent_whole_has_not_run_whatever_became_of_others() {
    let (mut server, mut connection) = FakeServer::meet_as(|path| Connection::connect(path).unwrap());
    let asked = connection.message_type("ask").unwrap();
    connection.submit(asked, b"").unwrap();
    let _ = server.request();
    // This one may run.
    server.requests.store(ADMITTED, (server.next_request - RECORDS) as u64, Ordering::Release);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| connection.submit(asked, LARGE).unwrap_err());
        server.socket.shutdown();
        let error = sending.join().unwrap();
        assert!(matches!(error, CallError::NotExecuted), "{error}");
    });
    let ended = connection.wait(&mut Vec::new()).unwrap();
    assert!(matches!(ended.outcome, Err(CallError::Unknown)), "{ended:?}");
}

#[test]
fn a_connection_whose_server_broke_the_protocol_says_so_to_every_further_request() {
    let (server, mut connection) = FakeServer::meet_as(|path| Connection::connect(path).unwrap());
    let asked = connection.message_type("ask").unwrap();
    server.claim_the_impossible();
    for _ in 0..2 {
        let error = connection.submit(asked, LARGE).unwrap_err();
        assert!(matches!(error, CallError::Violation(_)), "{error}");
    }
}

#[test]
fn a_stream_whose_server_says_nothing_ends_once_at_its_deadline_and_the_server_is_told() {
    let (mut server, client) = FakeServer::meet(|_| {});
    let options = CallOptions::new().timeout(Duration::from_millis(50));
    let mut stream = client.stream_with("listen", b"", &options).unwrap();
    assert!(matches!(stream.next(), Some(Err(CallError::DeadlineExceeded))));
    assert!(stream.next().is_none());
    let asked = server.request();
    assert_eq!(server.request(), asked, "it is cancelled");
}

#[tokio::test]
async fn an_async_stream_whose_server_says_nothing_ends_once_at_its_deadline_and_the_server_is_told() {
    let address = std::sync::Arc::new(super::fake_server::Address::new());
    let serving = std::thread::spawn({
        let address = std::sync::Arc::clone(&address);
        move || FakeServer::welcome(address.accept())
    });
    let client = AsyncClient::connect(&address.path).await.unwrap();
    let mut server = serving.join().unwrap();
    let options = CallOptions::new().timeout(Duration::from_millis(50));
    let mut stream = client.stream_with("listen", b"", &options).await.unwrap();
    assert!(matches!(stream.next().await, Some(Err(CallError::DeadlineExceeded))));
    assert!(stream.next().await.is_none());
    let (mut sink, mut chunks) = client.duplex_with("talk", b"", &options).await.unwrap();
    while matches!(sink.send(&[7; 1000]).await, Ok(true)) {}
    assert!(matches!(chunks.next().await, Some(Err(CallError::DeadlineExceeded))));
    let asked = server.request();
    assert_eq!(server.request(), asked, "it is cancelled");
}

#[test]
fn a_call_ends_when_its_client_is_closed_while_it_sleeps_and_closing_is_told_once() {
    let (mut server, client) = FakeServer::meet(|config| config.spin = SpinPolicy::Never);
    let (told, states) = mpsc::channel();
    client.on_state_change(move |state| told.send(state).unwrap());
    let call = ask(&client);
    let _ = server.request();
    server.client_sleeps();
    client.close();
    let error = call.join().unwrap().unwrap_err();
    assert!(matches!(error, CallError::Closed), "{error}");
    client.close();
    assert_eq!(client.state(), ConnectionState::Closed);
    drop(client);
    // The watcher goes with the last who could tell it anything.
    assert_eq!(states.iter().collect::<Vec<_>>(), [ConnectionState::Closed]);
}

/// An async client of a server that takes no requests. It spins never.
async fn meet_async() -> (FakeServer, AsyncClient) {
    let runtime = tokio::runtime::Handle::current();
    let connect = move |path: &std::path::Path| runtime.block_on(AsyncClient::with(ClientConfig::new(path))).unwrap();
    tokio::task::spawn_blocking(|| FakeServer::meet_as(connect)).await.unwrap()
}

/// Looks whether a future is done, on behalf of nobody.
fn is_done(future: std::pin::Pin<&mut impl Future>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[tokio::test]
async fn an_async_caller_that_waits_finds_out_that_its_server_broke_the_protocol() {
    let (server, client) = meet_async().await;
    let mut stream = client.stream("listen", b"").await.unwrap();
    let mut large = pin!(client.call("ask", LARGE));
    assert!(!is_done(large.as_mut()), "there is no room for it");
    server.claim_the_impossible();
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Violation(_)), "{error}");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn what_waits_to_be_told_to_a_server_that_broke_the_protocol_ends_every_call() {
    let (server, client) = meet_async().await;
    let listening = tokio::spawn({
        let client = client.clone();
        async move { client.call("ask", b"").await }
    });
    tokio::task::yield_now().await;
    server.something_comes();
    // Each is begun and given up, which is to be told to the server, until there is no room for that either.
    for _ in 0..64 * 1024 / 16 {
        let mut large = pin!(client.call("ask", LARGE));
        assert!(!is_done(large.as_mut()));
    }
    server.claim_the_impossible();
    let error = listening.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Violation(_)), "{error}");
}

#[tokio::test]
async fn an_async_call_that_finds_no_room_in_time_ends_unsent() {
    let (server, client) = meet_async().await;
    let mut large = pin!(client.call("ask", LARGE));
    assert!(!is_done(large.as_mut()));
    let error = client.call_within("ask", &[1; 1000], Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, CallError::DeadlineExceeded), "{error}");
    server.socket.shutdown();
    let error = large.await.unwrap_err();
    assert!(matches!(error, CallError::NotExecuted), "{error}");
}

#[tokio::test]
async fn of_async_calls_of_which_some_find_no_room_none_has_run_when_the_server_took_none() {
    let (server, client) = meet_async().await;
    // Each as large as goes in one piece, a quarter of the ring.
    let mut calls: Vec<_> = (0..8).map(|_| Box::pin(client.call("ask", &[1; 16_000]))).collect();
    for call in &mut calls {
        assert!(!is_done(call.as_mut()));
    }
    server.socket.shutdown();
    for call in calls {
        let error = tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap_err();
        assert!(error.is_retryable(), "{error}");
    }
}

#[tokio::test]
async fn an_async_sink_says_when_nobody_wants_more_and_what_is_too_large() {
    let (mut server, client) = meet_async().await;
    let (mut sink, mut stream) = client.duplex("talk", b"").await.unwrap();
    assert!(sink.send(b"one").await.unwrap());
    let limit = 16 * 1024;
    let error = sink.send(&vec![0; limit + 1]).await.unwrap_err();
    assert!(matches!(error, CallError::ChunkTooLarge { size, limit: l } if (size, l) == (limit + 1, limit)), "{error}");
    let id = server.request();
    server.write(Kind::End, id, Some(0), b"");
    server.socket.ring();
    assert!(tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().is_none());
    assert!(!sink.send(b"two").await.unwrap());
    sink.finish();
}

#[tokio::test]
async fn an_async_stream_is_a_stream_as_others_know_it() {
    use futures_core::Stream;

    let (mut server, client) = meet_async().await;
    let mut stream = pin!(client.stream("listen", b"").await.unwrap());
    let id = server.request();
    server.write(Kind::Chunk, id, Some(0), b"one");
    server.write(Kind::End, id, Some(1), b"");
    server.socket.ring();
    let mut items = Vec::new();
    while let Some(item) = poll_fn(|context| stream.as_mut().poll_next(context)).await {
        items.push(item.unwrap());
    }
    assert_eq!(items, [b"one"]);
}

#[tokio::test]
async fn an_async_call_whose_token_was_cancelled_before_is_not_sent() {
    let (server, client) = meet_async().await;
    let token = CancelToken::new();
    token.cancel();
    let error = client.call_with("ask", b"", &CallOptions::new().cancel(&token)).await.unwrap_err();
    assert!(matches!(error, CallError::Cancelled), "{error}");
    drop(client);
    assert_eq!(server.socket.receive(&mut [0; 1]).unwrap(), 0, "not even a ring");
}
