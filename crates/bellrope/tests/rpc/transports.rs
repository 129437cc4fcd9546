//! What must be the same over every transport, and what is said where one cannot be had.

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use bellrope::{
    AsyncClient, CallError, Client,
    client::{
        CallOptions, ClientConfig, ConnectError, Connection, ConnectionState, Pool, PoolConfig, Rejection, Retry,
        Transport,
    },
    server::ServerConfig,
};
use bellrope_proto::{
    frame::{ErrorCode, Kind},
    handshake::{HandshakeError, HandshakeStatus, encode_refusal},
};
use bellrope_testkit::{
    log::Log,
    raw_stream::{StreamPeer, record},
    support::{PATIENCE, TestServer, builder, eventually, serve},
};
use tracing_subscriber::filter::LevelFilter;

use super::running;

const BOTH: [Transport; 2] = [Transport::Shm, Transport::Stream];

fn over(transport: Transport, path: &Path) -> ClientConfig {
    ClientConfig::new(path).transport(transport)
}

fn client(transport: Transport, server: &TestServer) -> Client {
    let client = Client::with(over(transport, &server.path)).unwrap();
    assert_eq!(client.transport(), Some(transport));
    client
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8).collect()
}

#[test]
fn a_server_says_how_many_connections_use_which_transport() {
    let server = serve(ServerConfig::default());
    let counted = || {
        let snapshot = server.server.metrics().snapshot();
        (snapshot.active_connections, snapshot.stream_connections)
    };
    let (shared, alone) = (client(Transport::Shm, &server), client(Transport::Stream, &server));
    assert_eq!(counted(), (2, 1), "whoever is connected is counted");
    drop(alone);
    eventually("one is gone", || counted() == (1, 0));
    let again = client(Transport::Stream, &server);
    assert_eq!(counted(), (2, 1));
    drop(shared);
    eventually("the other one is gone", || counted() == (1, 1));
    drop(again);
    eventually("both are gone", || counted() == (0, 0));
}

#[test]
fn a_call_is_answered_over_every_transport_whatever_its_size() {
    for ring_bytes in [4096, 256 * 1024] {
        let server = serve(ServerConfig::default().ring_bytes(ring_bytes));
        for transport in BOTH {
            let client = client(transport, &server);
            let mut connection = Connection::with(&over(transport, &server.path)).unwrap();
            assert_eq!(connection.transport(), transport);
            let mut reply = Vec::new();
            let largest = if ring_bytes == 4096 { 300_000 } else { 5 << 20 };
            for len in [0, 1, 7, 8, 1023, 1024, 1025, 16_384, 65_535, 65_536, 65_537, largest] {
                let payload = bytes(len);
                assert!(client.call("echo", &payload).unwrap() == payload, "{len} bytes over {transport:?}");
                assert!(client.call("later", &payload).unwrap() == payload, "{len} bytes over {transport:?}, async");
                connection.call("echo", &payload, &mut reply).unwrap();
                assert!(reply == payload, "{len} bytes over a connection");
            }
            let error = client.call("echo", &bytes((10 << 20) + 1)).unwrap_err();
            assert!(matches!(error, CallError::MessageTooLarge { .. }), "{error}");
            let error = client.call("grow", b"20000000").unwrap_err();
            assert!(matches!(error, CallError::MessageTooLarge { .. }), "{error}");
        }
        eventually("the budget is given back", || server.server.metrics().snapshot().buffers.unwrap().0 == 0);
    }
}

#[test]
fn many_calls_at_once_are_answered_over_every_transport() {
    let server = serve(ServerConfig::default());
    for transport in BOTH {
        let mut connection = Connection::with(&over(transport, &server.path)).unwrap();
        let mut reply = Vec::new();
        for len in [10, 20_000] {
            let payload = bytes(len);
            // Far more bytes than rings and sockets take: both sides send at once.
            let ids: Vec<_> = (0..500).map(|_| connection.submit("echo", &payload).unwrap()).collect();
            for _ in &ids {
                let completion = connection.wait(&mut reply).unwrap();
                completion.outcome.unwrap();
                assert!(reply == payload && ids.contains(&completion.id));
            }
        }
        let client = client(transport, &server);
        thread::scope(|scope| {
            for thread in 0..8_usize {
                let client = &client;
                scope.spawn(move || {
                    for call in 0..100 {
                        let payload = bytes(thread * 1000 + call * 200);
                        let name = if call % 2 == 0 { "echo" } else { "later" };
                        assert!(client.call(name, &payload).unwrap() == payload);
                    }
                });
            }
        });
        let pool = Pool::new(PoolConfig::new(&server.path).client(over(transport, &server.path)));
        pool.acquire().unwrap().call("echo", b"ding", &mut reply).unwrap();
        assert_eq!(reply, b"ding");
    }
}

#[test]
fn streams_go_both_ways_over_every_transport() {
    let server = serve(ServerConfig::default());
    for transport in BOTH {
        let client = client(transport, &server);
        let numbers: Vec<_> = client.stream("count", b"20000").unwrap().map(|chunk| chunk.unwrap()).collect();
        assert_eq!(numbers.len(), 20_000);
        assert!((0_u32..).zip(&numbers).all(|(number, chunk)| *chunk == number.to_le_bytes()));
        let mut upload = client.client_stream("total", b"12").unwrap();
        for _ in 0..200 {
            assert!(upload.send(&[7; 10_000]).unwrap());
        }
        assert_eq!(upload.finish().unwrap(), b"2000002");
        let (mut sink, stream) = client.duplex("double", b"").unwrap();
        let sender = thread::spawn(move || (0..200).for_each(|_| assert!(sink.send(&[7; 5000]).unwrap())));
        assert_eq!(stream.map(|chunk| chunk.unwrap().len()).sum::<usize>(), 200 * 10_000);
        sender.join().unwrap();
        let mut broken = client.stream("broken_stream", b"").unwrap();
        assert_eq!(broken.next().unwrap().unwrap(), b"one");
        assert!(matches!(broken.next(), Some(Err(CallError::Handler { .. }))) && broken.next().is_none());
    }
}

#[tokio::test]
async fn an_async_client_calls_and_streams_over_every_transport() {
    let server = serve(ServerConfig::default());
    for transport in BOTH {
        let client = AsyncClient::with(over(transport, &server.path)).await.unwrap();
        assert_eq!(client.transport(), Some(transport));
        let calls: Vec<_> = (0..50)
            .map(|call: usize| {
                let client = client.clone();
                tokio::spawn(async move {
                    // Some of them are larger than sockets take at once.
                    let payload = bytes(call * call * 200);
                    assert!(
                        client.call(if call % 2 == 0 { "echo" } else { "later" }, &payload).await.unwrap() == payload
                    );
                })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
        let mut stream = client.stream("count", b"5000").await.unwrap();
        for number in 0_u32..5000 {
            assert_eq!(stream.next().await.unwrap().unwrap(), number.to_le_bytes());
        }
        assert!(stream.next().await.is_none());
        let mut upload = client.client_stream("total", b"").await.unwrap();
        for _ in 0..200 {
            assert!(upload.send(&[7; 10_000]).await.unwrap());
        }
        assert_eq!(upload.finish().await.unwrap(), b"2000000");
        let dropped = server.dropped();
        drop(client.stream("endless", b"").await.unwrap());
        while server.dropped() == dropped {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[test]
fn cancels_deadlines_and_limits_hold_over_every_transport() {
    let server = serve(ServerConfig::default().max_in_flight(4));
    for transport in BOTH {
        let client = client(transport, &server);
        let dropped = server.dropped();
        let soon = CallOptions::new().timeout(Duration::from_millis(20));
        assert!(matches!(client.call_with("never", b"", &soon), Err(CallError::DeadlineExceeded)));
        eventually("the handler is dropped at its deadline", || server.dropped() == dropped + 1);
        let mut stream = client.stream("endless", b"").unwrap();
        assert_eq!(stream.next().unwrap().unwrap(), [7; 1000]);
        drop(stream);
        eventually("the handler is dropped with its reader", || server.dropped() == dropped + 2);
        let held: Vec<_> = (0..4).map(|_| client.stream("endless", b"").unwrap()).collect();
        let error = client.call("echo", b"").unwrap_err();
        assert!(matches!(error, CallError::Rejected { reason: Rejection::Busy, .. }), "{error}");
        drop(held);
        assert_eq!(client.call("echo", b"ding").unwrap(), b"ding");
        drop(client);
        eventually("nothing goes on for whoever left", || running(&server) == 0);
    }
    assert_eq!(server.server.metrics().snapshot().violations, 0);
}

// Fault 37.
#[test]
fn a_server_that_stops_says_over_every_transport_what_it_did_not_take() {
    for transport in BOTH {
        let server = serve(ServerConfig::default());
        let mut connection = Connection::with(&over(transport, &server.path)).unwrap();
        connection.submit("never", b"").unwrap();
        eventually("it has begun", || running(&server) == 1);
        server.server.shutdown();
        let mut reply = Vec::new();
        let completion = connection.wait(&mut reply).unwrap();
        assert!(matches!(completion.outcome, Err(CallError::Unknown)), "{:?}", completion.outcome);
        assert!(!connection.is_healthy());
        assert!(connection.call("echo", b"", &mut reply).is_err());
    }
}

// Fault 50.
#[test]
fn a_drain_over_every_transport_ends_what_is_under_way_and_refuses_the_rest() {
    for transport in BOTH {
        let server = serve(ServerConfig::default());
        let client = client(transport, &server);
        thread::scope(|scope| {
            let stream = client.stream("count", b"20000").unwrap();
            eventually("it has begun", || running(&server) == 1);
            let reader = scope.spawn(move || stream.map(Result::unwrap).collect::<Vec<_>>().len());
            assert!(server.server.drain(PATIENCE));
            assert_eq!(reader.join().unwrap(), 20_000, "over {transport:?}");
        });
    }
}

#[test]
fn a_client_comes_back_over_the_transport_it_was_told() {
    for transport in BOTH {
        let server = serve(ServerConfig::default());
        let client = client(transport, &server);
        let (path, mut now) = (server.path.clone(), server.server);
        for _ in 0..3 {
            drop(now);
            eventually("the loss is seen", || client.state() == ConnectionState::Reconnecting);
            now = builder(&Arc::default()).bind(&path).unwrap();
            let options = CallOptions::new().retry(Retry::NotExecuted).timeout(PATIENCE);
            assert_eq!(client.call_with("echo", b"ding", &options).unwrap(), b"ding");
            assert_eq!(client.transport(), Some(transport));
        }
    }
}

// Fault 68.
#[test]
fn a_server_refuses_the_socket_alone_where_that_is_switched_off() {
    let server = serve(ServerConfig::default().stream_transport(false));
    let refused = Client::with(over(Transport::Stream, &server.path)).unwrap_err();
    assert!(refused.to_string().contains("switched off here (stream_transport)"), "{refused}");
    let status = match refused {
        ConnectError::Handshake(HandshakeError::Refused { status, .. }) => status,
        other => panic!("{other}"),
    };
    assert_eq!(status, HandshakeStatus::Transport);
    assert_eq!(client(Transport::Shm, &server).call("echo", b"ding").unwrap(), b"ding");
    assert_eq!(Client::connect(&server.path).unwrap().transport(), Some(Transport::Shm));
}

/// A server that refuses shared memory as one does that has no descriptors left, and passes whoever asks for less on to a
/// real one.
fn without_memory(path: &Path, real: &Path) -> JoinHandle<()> {
    use UnixStream;
    let listener = UnixListener::bind(path).unwrap();
    let real = real.to_owned();
    thread::spawn(move || {
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            let mut hello = [0; 88];
            if stream.read_exact(&mut hello).is_err() {
                return;
            }
            if hello[12] == 0 {
                stream
                    .write_all(&encode_refusal(HandshakeStatus::Transport, "the server has no descriptor left"))
                    .unwrap();
                continue;
            }
            // While there is none, nobody is let in.
            let Ok(mut to) = UnixStream::connect(&real) else { continue };
            to.write_all(&hello).unwrap();
            let (mut back, mut answers) = (stream.try_clone().unwrap(), to.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut answers, &mut back);
                let _ = back.shutdown(Shutdown::Both);
            });
            thread::spawn(move || {
                let _ = std::io::copy(&mut stream, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    })
}

// Fault 68.
#[tokio::test(flavor = "multi_thread")]
async fn without_shared_memory_a_client_falls_back_to_the_socket_and_says_so_once() {
    let log = Log::listen(LevelFilter::WARN);
    let server = serve(ServerConfig::default());
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("poor.sock");
    let gateway = without_memory(&path, &server.path);
    let said = || log.count(&["poor.sock", "no shared memory for this connection"]);

    let client = Client::connect(&path).unwrap();
    assert_eq!((client.transport(), said()), (Some(Transport::Stream), 1));
    assert!(log.has(&["poor.sock", "the server has no descriptor left"]));
    assert_eq!(client.call("echo", &bytes(5 << 20)).unwrap(), bytes(5 << 20), "through a proxy, too");
    // It comes back as it came, and has said so.
    drop(server.server);
    eventually("the loss is seen", || client.state() == ConnectionState::Reconnecting);
    let next = builder(&Arc::default()).bind(&server.path).unwrap();
    let options = CallOptions::new().retry(Retry::NotExecuted).timeout(PATIENCE);
    assert_eq!(client.call_with("echo", b"ding", &options).unwrap(), b"ding");
    assert_eq!((client.transport(), said()), (Some(Transport::Stream), 1));

    let asynchronous = AsyncClient::connect(&path).await.unwrap();
    assert_eq!(asynchronous.call("echo", b"ding").await.unwrap(), b"ding");
    assert_eq!((asynchronous.transport(), said()), (Some(Transport::Stream), 1));
    let mut connection = Connection::connect(&path).unwrap();
    connection.call("echo", b"ding", &mut Vec::new()).unwrap();
    assert_eq!((connection.transport(), said()), (Transport::Stream, 1));
    let error = Client::with(over(Transport::Shm, &path)).unwrap_err();
    assert!(error.to_string().contains("no descriptor left"), "{error}");
    drop((client, asynchronous, connection, next));
    drop(UnixStream::connect(&path).unwrap());
    gateway.join().unwrap();
}

// Fault 37.
#[test]
fn a_raw_client_is_told_how_many_of_its_requests_were_taken() {
    let server = serve(ServerConfig::default());
    let mut peer = StreamPeer::connect(&server.path, "raw");
    peer.is_served();
    peer.call("never", 1, b"");
    eventually("it has begun", || running(&server) == 1);
    peer.call("fail", 2, b"");
    let failed = peer.answer_to(2);
    assert_eq!((failed.header.kind, failed.header.message_type), (Kind::Error, ErrorCode::Handler.to_bits()));
    server.server.shutdown();
    let last = peer.next_record().unwrap();
    assert_eq!((last.header.kind, last.id, last.extension, last.payload.len()), (Kind::Admitted, 0, 3, 0));
    assert_eq!(peer.next_record(), None);
}

#[test]
fn of_requests_behind_a_violation_a_raw_client_learns_that_they_were_not_taken() {
    let server = serve(ServerConfig::default());
    let mut peer = StreamPeer::connect(&server.path, "raw");
    let echo = peer.number("echo");
    let mut bytes = record(Kind::Request, echo, 1, None, b"ding");
    bytes.extend(record(Kind::Response, 0, 1, None, b""));
    bytes.extend(record(Kind::Request, echo, 2, None, b"dong"));
    assert!(peer.say(&bytes));
    assert_eq!(peer.answer_to(1).payload, b"ding");
    let why = peer.next_record().unwrap();
    assert_eq!((why.header.kind, why.id), (Kind::Error, 0));
    let last = peer.next_record().unwrap();
    assert_eq!((last.header.kind, last.extension), (Kind::Admitted, 1));
    assert_eq!(peer.next_record(), None);
    eventually("it is counted", || server.server.metrics().snapshot().violations == 1);
}
