//! Whoever is put out learns why, and what to do about it.

use std::{sync::Arc, time::Duration};

use bellrope::{
    CallError, Client, HandlerError, Server,
    client::{Blame, ClientConfig, Connection, Transport},
    server::ServerConfig,
};
use bellrope_proto::{
    connection::ClientConnection,
    frame::{ErrorCode, Kind},
    handshake::Style,
    layout::RECORDS,
};
use bellrope_shm::sync::Ordering;
use tokio::sync::Semaphore;

use bellrope_testkit::{
    raw::shake_hands,
    raw_stream::{StreamPeer, record},
    support::{PATIENCE, eventually, serve},
};

// Faults 57, 59.
#[test]
fn a_client_that_holds_what_others_wait_for_learns_its_share_and_the_limits() {
    for transport in [Transport::Shm, Transport::Stream] {
        let mut config = ServerConfig::default();
        config.max_message_bytes = 1 << 20;
        config.buffer_budget_bytes = 4 << 20;
        config.budget_wait = Duration::from_millis(60_000);
        config.budget_grace = Duration::from_millis(50);
        config.stall_timeout = Duration::from_secs(600);
        let server = serve(config);
        let mut config = ClientConfig::new(&server.path);
        config.transport = transport;
        let hostile = Client::with(config).unwrap();
        let counts = || server.server.metrics().snapshot();
        let mut streams = Vec::new();
        while counts().buffers.unwrap().0 < 3 << 20 {
            let before = counts().buffers.unwrap().0;
            streams.push(hostile.stream("endless", &vec![1; 60_000]).unwrap());
            eventually("it holds room", || counts().buffers.unwrap().0 > before);
        }
        let honest = Client::connect(&server.path).unwrap();
        assert!(honest.call_within("later", &vec![7; 1 << 20], PATIENCE).is_ok());
        assert_eq!(counts().stalled, 1);
        for stream in streams {
            let error = stream.map(|chunk| chunk.err()).find_map(|error| error).expect("it ends with the connection");
            let CallError::ClosedByServer { reason, may_have_run: true } = &error else {
                // Where the client left its socket full, there is no room for a word.
                assert!(
                    transport == Transport::Stream && matches!(error, CallError::Unknown),
                    "{transport:?}: {error}"
                );
                continue;
            };
            for words in
                ["(buffer_budget_bytes), its share was", "50 ms (budget_grace_ms)", "take answers and chunks sooner"]
            {
                assert!(reason.contains(words), "{reason}");
            }
            assert!(error.to_string().ends_with("; the call may have run"), "{error}");
            assert_eq!((error.blame(), error.is_retryable()), (Blame::Caller, false));
        }
        assert_eq!(hostile.call_within("echo", b"again", PATIENCE).unwrap(), b"again", "it has another connection");
    }
}

// Faults 31, 57.
#[test]
fn a_client_that_reads_nothing_learns_of_the_limit_when_it_does() {
    let mut config = ServerConfig::default();
    config.stall_timeout = Duration::from_millis(50);
    let server = serve(config);
    let mut connection = Connection::connect(&server.path).unwrap();
    for _ in 0..16 {
        connection.submit("grow", b"60000").unwrap();
    }
    eventually("it is put out", || server.server.metrics().snapshot().stalled == 1);
    let (mut reply, mut answered, mut has_run, mut has_not) = (Vec::new(), 0, 0, 0);
    for _ in 0..16 {
        match connection.wait(&mut reply).unwrap().outcome {
            Ok(()) => answered += 1,
            Err(error @ CallError::ClosedByServer { may_have_run, .. }) => {
                let words = error.to_string();
                assert!(words.contains("for 50 ms, the limit stall_timeout_ms, this client read nothing"), "{words}");
                assert_eq!(error.is_retryable(), !may_have_run);
                if may_have_run { has_run += 1 } else { has_not += 1 }
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(answered > 0 && has_run > 0 && has_not > 0, "{answered} answered, {has_run} may have run, {has_not} not");
}

// Fault 57.
#[test]
fn a_client_that_breaks_the_protocol_learns_which_rule() {
    let server = serve(ServerConfig::default());
    let (socket, memory, welcome) = shake_hands(&server.path, "broken");
    let mut client = ClientConnection::new(&memory, welcome.terms);
    memory.view(welcome.terms.geometry.requests()).swap(RECORDS, 0xFF << 48, Ordering::AcqRel);
    socket.ring();
    eventually("it is put out", || server.server.metrics().snapshot().violations == 1);
    eventually("it has learnt why", || client.next_answer().unwrap().is_some() || client.closed_because().is_some());
    let reason = client.closed_because().unwrap();
    assert!(reason.starts_with("this client broke the protocol (bad_header): "), "{reason}");
}

// Fault 57.
#[test]
fn over_the_socket_alone_the_reason_comes_before_what_was_taken() {
    let mut config = ServerConfig::default();
    config.stall_timeout = Duration::from_millis(50);
    let server = serve(config);
    let half = record(Kind::Request, 1, 1, None, &[0; 50_000])[..40_000].to_vec();
    for (bytes, code, words) in [
        (record(Kind::Response, 0, 1, None, b""), ErrorCode::InvalidRequest, "broke the protocol (bad_direction)"),
        (half, ErrorCode::Exhausted, "the limit stall_timeout_ms"),
    ] {
        let mut peer = StreamPeer::connect(&server.path, "raw");
        assert!(peer.say(&bytes));
        let why = peer.next_record().unwrap();
        let text = String::from_utf8(why.payload).unwrap();
        assert_eq!((why.header.kind, why.id, why.header.message_type), (Kind::Error, 0, code.to_bits()), "{text}");
        assert!(text.contains(words), "{text}");
        assert_eq!(peer.next_record().unwrap().header.kind, Kind::Admitted);
        assert_eq!(peer.next_record(), None);
    }
}

// Faults 34, 69.
#[test]
fn errors_that_wait_for_a_client_that_reads_nothing_count_in_the_budget() {
    const CALLS: usize = 60;
    /// As much of a text as travels.
    const TEXT: usize = 1024;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let gate = Arc::new(Semaphore::new(0));
    let mut config = ServerConfig::default();
    config.ring_bytes = 4096;
    config.stall_timeout = Duration::from_secs(600);
    let waits = Arc::clone(&gate);
    let server = Server::builder()
        .unary_async("fail", move |_| {
            let waits = Arc::clone(&waits);
            async move {
                drop(waits.acquire().await);
                Err(HandlerError::new("x".repeat(100_000)))
            }
        })
        .config(config)
        .bind(&path)
        .unwrap();
    let counts = || server.metrics().snapshot();
    let used = || counts().buffers.unwrap().0;
    let (socket, memory, welcome) = shake_hands(&path, "idle");
    let mut client = ClientConnection::new(&memory, welcome.terms);
    let number = welcome.types.iter().find(|entry| entry.name == "fail").unwrap().message_type;
    for _ in 0..CALLS {
        client.submit(number, Style::Unary, b"", None).unwrap();
    }
    if client.commit().needed() {
        socket.ring();
    }
    let running = || counts().types.iter().map(|row| row.running).sum::<u64>();
    eventually("all are under way", || running() == CALLS as u64);
    gate.add_permits(CALLS);
    eventually("all have failed", || running() == 0);
    // Three of them fit into the ring.
    assert!(used() >= ((CALLS - 4) * TEXT) as u64, "{} bytes of the budget for what waits", used());
    let (mut came, mut text) = (0, Vec::new());
    eventually("all have come", || {
        while let Some(answer) = client.next_answer().unwrap() {
            text.resize(answer.len, 0);
            client.take(&answer, &mut text);
            assert_eq!(text, [b'x'; TEXT]);
            came += 1;
        }
        if client.commit().needed() {
            socket.ring();
        }
        came == CALLS
    });
    eventually("nothing is held any more", || used() == 0);
}
