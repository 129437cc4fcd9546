//! Handshakes that come to nothing, or late, or twice; the first ones and those of clients that come back.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use bellrope::{
    AsyncClient, CallError, Client,
    client::{CallOptions, CancelToken, ClientConfig, ConnectionState, Retry},
};
use bellrope_proto::{
    frame::Kind,
    handshake::{HELLO_LEN, HandshakeStatus, encode_refusal},
};
use bellrope_shm::socket::Socket;

use bellrope_testkit::support::{PATIENCE, eventually};

use super::fake_server::{Address, FakeServer, ask};

/// How a client connects that waits this long for the answer to its hello, and for a server that is away.
fn patient(path: &Path, handshake: Duration, reconnect: Duration) -> ClientConfig {
    let mut config = ClientConfig::new(path);
    (config.connect_timeout, config.reconnect_timeout) = (handshake, reconnect);
    config
}

/// A client whose server was there, and is gone.
fn abandoned(address: &Address, reconnect: Duration) -> Client {
    let (server, client) = address.meet(|path| Client::with(patient(path, PATIENCE, reconnect)).unwrap());
    drop(server);
    eventually("the loss is noticed", || client.state() == ConnectionState::Reconnecting);
    client
}

fn refuse(socket: &Socket, status: HandshakeStatus) {
    // A client that does not read it any more needs none.
    let _ = socket.send(&encode_refusal(status, "not now"));
}

#[test]
fn a_server_that_hangs_up_or_says_nothing_in_mid_handshake_is_told_with_its_path() {
    let address = Address::new();
    let failed = |patience, serve: &dyn Fn()| {
        std::thread::scope(|scope| {
            let connecting = scope.spawn(|| Client::with(patient(&address.path, patience, PATIENCE)).unwrap_err());
            serve();
            connecting.join().unwrap().to_string()
        })
    };
    let told = |what: &str| format!("the handshake with {} failed: {what}", address.path.display());
    let error = failed(PATIENCE, &|| drop(address.accept()));
    assert_eq!(error, told("the server hung up in mid-handshake"));

    let error = failed(PATIENCE, &|| {
        let (welcome, fd, half) = FakeServer::prepare(address.accept());
        half.socket.send_with_memory(&welcome[..welcome.len() / 2], &fd).unwrap();
    });
    assert_eq!(error, told("the server hung up in mid-handshake"));

    // What it leaves unread is what the kernel calls a reset.
    let error = failed(PATIENCE, &|| {
        let socket = Socket::from(address.open());
        assert_eq!(socket.receive(&mut [0; HELLO_LEN / 2]).unwrap(), HELLO_LEN / 2);
    });
    assert_eq!(error, told("Connection reset by peer (os error 104)"));

    let silent = std::cell::Cell::new(None);
    let error = failed(Duration::from_millis(50), &|| silent.set(Some(address.open())));
    assert_eq!(error, told("no answer came in time"));
}

#[test]
fn a_client_waits_for_a_place_in_the_queue_of_a_server_as_long_as_it_may() {
    let address = Address::new();
    // Whoever is gone keeps its place until it is taken.
    let full = (0..1 << 17).any(|_| Socket::connect(&address.path).is_err());
    assert!(full, "the kernel's queue has no end");
    let error = Client::with(patient(&address.path, Duration::from_millis(20), PATIENCE)).unwrap_err().to_string();
    assert!(error.ends_with("failed: Resource temporarily unavailable (os error 11)"), "{error}");

    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| Client::with(patient(&address.path, PATIENCE, PATIENCE)).unwrap());
        let living = |socket: &Socket| socket.receive(&mut [0; HELLO_LEN]).is_ok_and(|count| count == HELLO_LEN);
        let socket = std::iter::repeat_with(|| Socket::from(address.open())).find(living).unwrap();
        let _server = FakeServer::welcome(socket);
        connecting.join().unwrap();
    });
}

#[test]
fn a_client_that_comes_back_and_is_refused_tries_on_until_it_is_let_in() {
    let address = Address::new();
    let client = abandoned(&address, PATIENCE);
    refuse(&address.accept(), HandshakeStatus::Full);
    refuse(&address.accept(), HandshakeStatus::Draining);
    drop(address.accept());
    refuse(&address.accept(), HandshakeStatus::Forbidden);
    let (welcome, fd, mut server) = FakeServer::prepare(address.accept());
    assert_eq!(client.state(), ConnectionState::Reconnecting);
    // As slowly as can be: whatever comes in pieces is put together.
    server.socket.send_with_memory(&welcome[..1], &fd).unwrap();
    for byte in &welcome[1..] {
        std::thread::yield_now();
        server.socket.send(&[*byte]).unwrap();
    }
    let call = ask(&client);
    let id = server.request();
    server.answer(id, b"back");
    assert_eq!(call.join().unwrap().unwrap(), b"back");
    assert_eq!(client.state(), ConnectionState::Connected);
}

#[test]
fn whoever_is_dropped_while_it_comes_back_hangs_up() {
    let address = Address::new();
    let client = abandoned(&address, PATIENCE);
    let socket = address.accept();
    drop(client);
    let server = FakeServer::welcome(socket);
    assert_eq!(server.socket.receive(&mut [0; 1]).unwrap(), 0, "nobody needs this connection");
}

#[test]
fn of_two_connections_that_come_at_once_one_is_kept_and_the_call_goes_over_it() {
    let address = Address::new();
    let client = abandoned(&address, Duration::ZERO);
    // Whoever is refused like this comes again only after half a second: time for the caller to try by itself.
    refuse(&address.accept(), HandshakeStatus::Forbidden);
    let call = ask(&client);
    let (first, second) = (address.accept(), address.accept());
    let mut server = FakeServer::welcome(second);
    eventually("it is back", || client.state() == ConnectionState::Connected);
    let surplus = FakeServer::welcome(first);
    assert_eq!(surplus.socket.receive(&mut [0; 1]).unwrap_or(0), 0, "one is enough");
    let id = server.request();
    server.answer(id, b"over this one");
    assert_eq!(call.join().unwrap().unwrap(), b"over this one");
}

#[test]
fn a_token_ends_the_wait_for_a_server_that_is_away() {
    let address = Address::new();
    let client = abandoned(&address, PATIENCE);
    for pause in [0, 1, 5, 20] {
        let token = CancelToken::new();
        std::thread::scope(|scope| {
            let call = scope.spawn(|| client.call_with("ask", b"", &CallOptions::new().cancel(&token)));
            // However long it has waited.
            std::thread::sleep(Duration::from_millis(pause));
            token.cancel();
            let error = call.join().unwrap().unwrap_err();
            assert!(matches!(error, CallError::Cancelled), "{error}");
        });
    }
}

#[test]
fn a_loss_that_is_heard_of_late_ends_nothing_that_goes_over_the_next_connection() {
    let address = Address::new();
    let (first, client) = address.meet(|path| Client::with(patient(path, PATIENCE, Duration::ZERO)).unwrap());
    let (told, states) = mpsc::channel();
    client.on_state_change(move |state| told.send(state).unwrap());
    // The thread that hears of losses is held up by a watcher of another client.
    let (_other_server, other) = FakeServer::meet(|_| {});
    let ((hold, held), (let_go, released)) = (mpsc::channel(), mpsc::channel::<()>());
    let released = std::sync::Mutex::new(released);
    other.on_state_change(move |_| {
        hold.send(()).unwrap();
        // It ends with an error when the sender goes: that is the release.
        let _ = released.lock().unwrap().recv_timeout(PATIENCE);
    });
    other.close();
    held.recv_timeout(PATIENCE).unwrap();

    first.socket.shutdown();
    let call = std::thread::spawn({
        let client = client.clone();
        move || client.call_with("ask", b"", &CallOptions::new().retry(Retry::NotExecuted))
    });
    let mut second = FakeServer::welcome(address.accept());
    let id = second.request();
    drop(let_go);
    // It hears of the loss before it tells of it.
    let next = || states.recv_timeout(PATIENCE).unwrap();
    assert_eq!([next(), next()], [ConnectionState::Reconnecting, ConnectionState::Connected]);
    assert_eq!(client.state(), ConnectionState::Connected);
    second.answer(id, b"by the second");
    assert_eq!(call.join().unwrap().unwrap(), b"by the second");
}

#[tokio::test]
async fn an_async_client_whose_runtime_was_busy_while_its_server_came_back_goes_on() {
    let address = Arc::new(Address::new());
    let serving = std::thread::spawn({
        let address = Arc::clone(&address);
        move || FakeServer::welcome(address.accept())
    });
    let client = AsyncClient::with(patient(&address.path, PATIENCE, PATIENCE)).await.unwrap();
    drop(serving.join().unwrap());
    // Nothing runs on this runtime meanwhile.
    let mut server = FakeServer::welcome(address.accept());
    eventually("it is back", || client.state() == ConnectionState::Connected);
    let answering = std::thread::spawn(move || {
        let id = server.request();
        server.answer(id, b"back");
        server
    });
    assert_eq!(client.call("ask", b"").await.unwrap(), b"back");
    drop(answering.join().unwrap());
}

#[tokio::test]
async fn a_call_that_no_server_took_is_sent_to_the_next_one_if_the_caller_allows() {
    let address = Arc::new(Address::new());
    let serving = std::thread::spawn({
        let address = Arc::clone(&address);
        move || {
            let first = FakeServer::welcome(address.accept());
            first.something_comes();
            drop(first);
            let mut second = FakeServer::welcome(address.accept());
            let id = second.request();
            second.answer(id, b"by the second");
            second
        }
    });
    let client = AsyncClient::with(patient(&address.path, PATIENCE, PATIENCE)).await.unwrap();
    let options = CallOptions::new().retry(Retry::NotExecuted);
    assert_eq!(client.call_with("ask", b"", &options).await.unwrap(), b"by the second");
    drop(serving.join().unwrap());
}

#[test]
fn a_stream_that_no_server_took_begins_anew_with_the_next_one_if_the_caller_allows() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for is_async in [false, true] {
        let address = Address::new();
        std::thread::scope(|scope| {
            let calling = scope.spawn(|| {
                let config = patient(&address.path, PATIENCE, PATIENCE);
                let options = CallOptions::new().retry(Retry::NotExecuted);
                if is_async {
                    return runtime.block_on(async {
                        let client = AsyncClient::with(config).await.unwrap();
                        let mut stream = client.stream_with("listen", b"", &options).await.unwrap();
                        let chunk = stream.next().await.unwrap().unwrap();
                        assert!(stream.next().await.is_none());
                        chunk
                    });
                }
                let mut stream = Client::with(config).unwrap().stream_with("listen", b"", &options).unwrap();
                let chunk = stream.next().unwrap().unwrap();
                assert!(stream.next().is_none());
                chunk
            });
            let first = FakeServer::welcome(address.accept());
            first.something_comes();
            drop(first);
            let mut second = FakeServer::welcome(address.accept());
            let id = second.request();
            second.write(Kind::Chunk, id, Some(0), b"by the second");
            second.write(Kind::End, id, Some(1), b"");
            second.socket.ring();
            assert_eq!(calling.join().unwrap(), b"by the second", "async: {is_async}");
        });
    }
}
