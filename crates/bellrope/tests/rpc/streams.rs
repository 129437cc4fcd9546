//! Streams in both directions, and large messages, over real sockets and real shared memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bellrope::{
    AsyncClient, CallError, Client, Server,
    client::{CallOptions, ClientConfig, Connection, Rejection},
    server::{SendError, ServerConfig, SpinPolicy},
};
use bellrope_testkit::support::{PATIENCE, TestServer, eventually, serve};

/// Bytes of the buffer budget in use.
fn budget_used(server: &TestServer) -> u64 {
    server.server.metrics().snapshot().buffers.map_or(0, |(used, _)| used)
}

#[test]
fn a_stream_from_the_client_is_answered_once_after_its_end() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    for chunks in [0, 1, 5000_usize] {
        let mut upload = client.client_stream("total", b"12345").unwrap();
        for _ in 0..chunks {
            assert!(upload.send(&[7; 100]).unwrap());
        }
        assert_eq!(upload.finish().unwrap(), (5 + 100 * chunks).to_string().as_bytes());
    }
    eventually("every call is counted", || server.server.metrics().snapshot().total_requests() == 3);
}

#[test]
fn a_handler_that_answers_early_stops_its_sender() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    let mut upload = client.client_stream("first", b"").unwrap();
    assert!(upload.send(b"this one").unwrap());
    // Far more than the credit: only the end of the call can end this.
    let mut sent = 0_u32;
    while upload.send(&[0; 1000]).unwrap() {
        sent += 1;
        assert!(sent < 1_000_000);
    }
    assert_eq!(upload.finish().unwrap(), b"this one");
}

#[test]
fn a_chunk_as_large_as_may_be_travels_in_one_piece_and_the_end_of_an_upload_stays_the_end() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let _server = Server::builder()
        .server_stream("largest", |_, mut chunks| async move { Ok(chunks.send(vec![7; chunks.max_chunk()]).await?) })
        .client_stream("ends", |_, mut chunks| async move {
            while chunks.next().await.is_some() {}
            Ok(vec![u8::from(chunks.next().await.is_none())])
        })
        .bind(&path)
        .unwrap();
    let client = Client::connect(&path).unwrap();
    let sizes: Vec<_> = client.stream("largest", b"").unwrap().map(|chunk| chunk.unwrap().len()).collect();
    assert!(sizes.len() == 1 && sizes[0] > 65_000, "{sizes:?}");
    let mut upload = client.client_stream("ends", b"").unwrap();
    upload.send(b"all").unwrap();
    assert_eq!(upload.finish().unwrap(), [1]);
}

/// Whoever sends it: it is refused whole, in the same words, and smaller ones go on.
#[test]
fn a_chunk_over_the_limit_is_refused_by_either_side_in_the_same_words() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("chunks.sock");
    let largest = |chunk: usize, limit| {
        format!("the chunk of {chunk} bytes exceeds the limit of {limit} bytes (a quarter of ring_bytes)")
    };
    let builder = Server::builder().config(ServerConfig::default().ring_bytes(4096));
    let builder = builder.server_stream("spell", |_, mut chunks| async move {
        let limit = chunks.max_chunk();
        chunks.send(vec![1; limit]).await?;
        let refused = chunks.send(vec![2; limit + 1]).await;
        assert_eq!(refused, Err(SendError::ChunkTooLarge { size: limit + 1, limit }));
        chunks.send("on").await?;
        Ok(chunks.send(vec![3; 2 * limit]).await?)
    });
    let _server = builder
        .client_stream("join", |_, mut chunks| async move {
            let mut sizes = Vec::new();
            while let Some(chunk) = chunks.next().await {
                sizes.extend((chunk.len() as u32).to_le_bytes());
            }
            Ok(sizes)
        })
        .bind(&path)
        .unwrap();
    let client = Client::connect(&path).unwrap();
    let came: Vec<_> = client.stream("spell", b"").unwrap().collect();
    let [Ok(whole), Ok(on), Err(error)] = &came[..] else { panic!("{came:?}") };
    assert_eq!(on, b"on");
    let limit = whole.len();
    assert_eq!(error.to_string(), format!("handler_error: {}", largest(2 * limit, limit)));

    let mut upload = client.client_stream("join", b"").unwrap();
    let error = upload.send(&vec![0; limit + 1]).unwrap_err();
    assert_eq!(error.to_string(), largest(limit + 1, limit));
    assert!(matches!(error, CallError::ChunkTooLarge { size, limit: l } if (size, l) == (limit + 1, limit)));
    assert!(upload.send(&vec![0; limit]).unwrap());
    assert_eq!(upload.finish().unwrap(), (limit as u32).to_le_bytes());
}

/// Those before one that is too large are sent, and none after it.
#[test]
fn chunks_sent_together_come_each_as_it_was_in_their_order() {
    fn chunks(limit: usize) -> Vec<Vec<u8>> {
        let sizes = [1, 0, 1000, 20_000, limit, 64, 3].into_iter().chain((0..2000).map(|at| at % 200));
        sizes.enumerate().map(|(at, size)| vec![at as u8; size]).collect()
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("together.sock");
    let handler = |_, mut out: bellrope::server::ChunkSender| async move {
        let limit = out.max_chunk();
        out.send_all(&chunks(limit)).await?;
        let refused = out.send_all(&[vec![8], vec![9; limit + 1], vec![10]]).await;
        assert_eq!(refused, Err(SendError::ChunkTooLarge { size: limit + 1, limit }));
        Ok(out.send_all(&[b"on", b"an"]).await?)
    };
    let _server = Server::builder().server_stream("all", handler).bind(&path).unwrap();
    let client = Client::connect(&path).unwrap();
    let came: Vec<_> = client.stream("all", b"").unwrap().collect::<Result<_, _>>().unwrap();
    let limit = came.iter().map(Vec::len).max().unwrap();
    let mut expected: Vec<_> = chunks(limit).into_iter().filter(|chunk| !chunk.is_empty()).collect();
    expected.extend([vec![8], b"on".to_vec(), b"an".to_vec()]);
    assert!(came == expected);
}

/// A handler is not further ahead of a reader that stops than with one chunk after the other: its reader's credit, and what may
/// wait for the ring.
#[test]
fn of_chunks_sent_together_no_more_wait_than_of_others() {
    const TOGETHER: usize = 40;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("unread.sock");
    let sent = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&sent);
    let handler = move |_, mut out: bellrope::server::ChunkSender| {
        let sent = Arc::clone(&counted);
        async move {
            loop {
                out.send_all(&[[7; 1024]; TOGETHER]).await?;
                sent.fetch_add(TOGETHER, Ordering::SeqCst);
            }
        }
    };
    let config = ServerConfig::default();
    let most = (config.stream_window as usize + bellrope::server::ChunkSender::AHEAD) / 1024 + 1;
    let server = Server::builder().server_stream("unread", handler).in_place("echo", |_| Ok(())).config(config);
    let _server = server.bind(&path).unwrap();
    let client = Client::connect(&path).unwrap();
    let mut stream = client.stream("unread", b"").unwrap();
    for read in 1..=200 {
        assert_eq!(stream.next().unwrap().unwrap(), [7; 1024]);
        for _ in 0..10 {
            assert_eq!(client.call("echo", b"on").unwrap(), b"on");
        }
        let ahead = sent.load(Ordering::SeqCst).saturating_sub(read);
        assert!(ahead <= most, "{ahead} chunks are sent and not read");
    }
}

#[test]
fn a_dropped_upload_is_cancelled_and_its_handler_dropped() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    let mut upload = client.client_stream("total", b"").unwrap();
    upload.send(b"half").unwrap();
    drop(upload);
    let cancelled = || {
        let snapshot = server.server.metrics().snapshot();
        snapshot.types.iter().any(|row| row.name == "total" && row.outcomes.contains(&("cancelled", 1)))
    };
    eventually("the cancel is counted", cancelled);
    assert_eq!(client.call("echo", b"on").unwrap(), b"on");
}

#[test]
fn streams_both_ways_run_at_once_and_each_comes_whole() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    let (mut sink, stream) = client.duplex("double", b"").unwrap();
    std::thread::scope(|scope| {
        // Far more than both windows hold, so neither side gets anywhere without the other.
        scope.spawn(move || {
            for n in 0..3000_u32 {
                assert!(sink.send(&n.to_le_bytes().repeat(50)).unwrap());
            }
            sink.finish();
        });
        let mut due = 0_u32;
        for chunk in stream {
            assert_eq!(chunk.unwrap(), due.to_le_bytes().repeat(100));
            due += 1;
        }
        assert_eq!(due, 3000);
    });
}

#[test]
fn a_reader_that_stops_delays_neither_other_streams_nor_calls_of_its_connection() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    let mut stopped = client.stream("endless", b"").unwrap();
    stopped.next().unwrap().unwrap();
    let chunks: Vec<_> = client.stream("count", b"20000").unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(chunks.len(), 20_000);
    assert_eq!(client.call("echo", &[1; 100_000]).unwrap().len(), 100_000);
    assert_eq!(client.call("later", b"me too").unwrap(), b"me too");
    assert_eq!(stopped.next().unwrap().unwrap().len(), 1000, "and it goes on when it is read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn async_streams_go_both_ways_too() {
    let server = serve(ServerConfig::default());
    let client = AsyncClient::connect(&server.path).await.unwrap();
    let mut upload = client.client_stream("total", b"").await.unwrap();
    for _ in 0..2000 {
        assert!(upload.send(&[7; 300]).await.unwrap());
    }
    assert_eq!(upload.finish().await.unwrap(), b"600000");

    let (mut sink, mut stream) = client.duplex("double", b"").await.unwrap();
    let sending = tokio::spawn(async move {
        for n in 0..3000_u32 {
            assert!(sink.send(&n.to_le_bytes().repeat(50)).await.unwrap());
        }
    });
    let mut due = 0_u32;
    while let Some(chunk) = stream.next().await {
        assert_eq!(chunk.unwrap(), due.to_le_bytes().repeat(100));
        due += 1;
    }
    assert_eq!(due, 3000);
    sending.await.unwrap();
    let large = vec![9; 3_000_000];
    assert_eq!(client.call("echo", &large).await.unwrap(), large);
}

#[test]
fn large_calls_of_many_threads_share_one_connection() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..6_u8 {
            let client = &client;
            scope.spawn(move || {
                for call in 0..10_usize {
                    let payload = vec![thread; 50_000 + 90_000 * call];
                    let name = if call % 3 == 0 { "later" } else { "echo" };
                    assert_eq!(client.call(name, &payload).unwrap(), payload);
                }
            });
        }
    });
    eventually("the budget is given back", || budget_used(&server) == 0);
}

// Fault 34.
#[test]
fn over_the_budget_a_connection_waits_in_its_own_ring_and_nobody_else_does() {
    let mut config = ServerConfig::default();
    config.max_message_bytes = 1 << 20;
    config.buffer_budget_bytes = (1 << 20) * 16 / 15 + 1;
    config.budget_wait = Duration::from_millis(60_000);
    let server = serve(config);
    let (holder, waiter, other) =
        (Client::connect(&server.path), Client::connect(&server.path), Client::connect(&server.path));
    let (holder, waiter, other) = (holder.unwrap(), waiter.unwrap(), other.unwrap());
    let token = bellrope::client::CancelToken::new();
    std::thread::scope(|scope| {
        let options = CallOptions::new().cancel(&token);
        let held = scope.spawn(move || holder.call_with("never", &vec![1; 900_000], &options));
        eventually("the budget is held", || budget_used(&server) >= 900_000);
        let waiting = scope.spawn(|| waiter.call("echo", &vec![2; 500_000]));
        for _ in 0..200 {
            assert_eq!(other.call("echo", &[3; 60_000]).unwrap().len(), 60_000, "needs no budget");
        }
        assert!(!waiting.is_finished(), "it waits");
        token.cancel();
        assert!(matches!(held.join().unwrap(), Err(CallError::Cancelled)));
        assert_eq!(waiting.join().unwrap().unwrap(), vec![2; 500_000]);
    });
    eventually("the budget is given back", || budget_used(&server) == 0);
}

// Fault 34.
#[test]
fn whoever_waits_too_long_for_the_budget_is_refused_with_the_limit() {
    let mut config = ServerConfig::default();
    config.max_message_bytes = 1 << 20;
    config.buffer_budget_bytes = (1 << 20) * 16 / 15 + 1;
    config.budget_wait = Duration::from_millis(20);
    let server = serve(config);
    let (holder, waiter) = (Client::connect(&server.path).unwrap(), Client::connect(&server.path).unwrap());
    let token = bellrope::client::CancelToken::new();
    std::thread::scope(|scope| {
        let options = CallOptions::new().cancel(&token);
        let held = scope.spawn(move || holder.call_with("never", &vec![1; 1 << 20], &options));
        eventually("the budget is held", || budget_used(&server) >= 1 << 20);
        for (name, size) in [("echo", 500_000), ("later", 200_000), ("later", 60_000), ("echo", 1 << 20)] {
            let error = waiter.call(name, &vec![2; size]).unwrap_err();
            let told = matches!(&error, CallError::Rejected { reason: Rejection::Busy, text, .. } if text.contains("buffer_budget_bytes"));
            assert!(told && error.is_retryable(), "{error}");
        }
        let error = waiter.call("grow", b"500000").unwrap_err();
        assert!(matches!(&error, CallError::Exhausted { text } if text.contains("has run")), "{error}");
        assert_eq!(waiter.call("echo", b"small is fine").unwrap(), b"small is fine");
        token.cancel();
        assert!(matches!(held.join().unwrap(), Err(CallError::Cancelled)));
    });
    eventually("the budget is given back", || budget_used(&server) == 0);
    assert_eq!(waiter.call("grow", b"500000").unwrap().len(), 500_000);
}

#[test]
fn an_exclusive_connection_sends_and_takes_large_messages_among_small_ones() {
    let server = serve(ServerConfig::default());
    let mut connection = Connection::connect(&server.path).unwrap();
    let [echo, grow] = ["echo", "grow"].map(|name| connection.message_type(name).unwrap());
    let mut reply = Vec::new();
    for round in 0..20_usize {
        let size = 70_000 + round * 50_000;
        connection.call(grow, size.to_string().as_bytes(), &mut reply).unwrap();
        assert_eq!(reply.len(), size);
        let payload: Vec<u8> = (0..size).map(|at| (at / 64 + round) as u8).collect();
        connection.call(echo, &payload, &mut reply).unwrap();
        assert!(reply == payload);
        connection.call(echo, b"small", &mut reply).unwrap();
        assert_eq!(reply, b"small");
    }
}

#[test]
fn large_calls_sent_one_after_the_other_do_not_wait_for_the_answers_before_them() {
    let mut server_config = ServerConfig::default();
    server_config.ring_bytes = 16 * 1024;
    let server = serve(server_config);
    let mut config = ClientConfig::new(&server.path);
    config.call_timeout = Duration::from_secs(60);
    let mut connection = Connection::with(&config).unwrap();
    let echo = connection.message_type("echo").unwrap();
    let began = std::time::Instant::now();
    // Each answer is more than the ring holds, and nobody asks for one before all requests are sent.
    let payloads: Vec<_> = (1..=6_u8).map(|byte| vec![byte; 200_000]).collect();
    let calls: Vec<_> = payloads.iter().map(|payload| connection.submit(echo, payload).unwrap()).collect();
    assert_eq!(connection.in_flight(), calls.len());
    assert!(connection.cancel(calls[0]) && connection.in_flight() == calls.len() - 1);
    let mut reply = Vec::new();
    for _ in 1..calls.len() {
        let completion = connection.wait(&mut reply).unwrap();
        completion.outcome.unwrap();
        let at = calls.iter().position(|call| *call == completion.id).unwrap();
        assert!(at > 0 && reply == payloads[at], "each answer is that of its call");
    }
    assert_eq!(connection.in_flight(), 0);
    assert!(began.elapsed() < config.call_timeout, "no deadline was waited for");
    connection.call(echo, b"on", &mut reply).unwrap();
    assert_eq!(reply, b"on");
}

#[test]
fn answers_kept_while_requests_wait_for_room_are_no_more_than_calls_may_be_under_way() {
    let mut config = ServerConfig::default();
    config.ring_bytes = 16 * 1024;
    config.max_in_flight = 2;
    let server = serve(config);
    let mut config = ClientConfig::new(&server.path);
    config.call_timeout = Duration::from_secs(2);
    let mut connection = Connection::with(&config).unwrap();
    let echo = connection.message_type("echo").unwrap();
    let payload = vec![5; 200_000];
    let refused = (0..100).find_map(|_| connection.submit(echo, &payload).err());
    let error = refused.expect("whoever never takes an answer comes to an end");
    assert!(matches!(error, CallError::DeadlineExceeded | CallError::Rejected { .. }), "{error}");
    let kept = connection.in_flight();
    assert!((1..=4).contains(&kept), "{kept}");
    let mut reply = Vec::new();
    for _ in 0..kept {
        connection.wait(&mut reply).unwrap().outcome.unwrap();
        assert!(reply == payload);
    }
    connection.call(echo, b"on", &mut reply).unwrap();
    assert_eq!(reply, b"on");
}

#[test]
fn a_clients_own_limit_on_messages_holds() {
    let server = serve(ServerConfig::default());
    let mut config = ClientConfig::new(&server.path);
    config.max_message_bytes = 100_000;
    let client = Client::with(config).unwrap();
    let error = client.call("echo", &vec![0; 100_001]).unwrap_err();
    assert!(matches!(error, CallError::MessageTooLarge { size: 100_001, limit: 100_000 }), "{error}");
    assert_eq!(client.call("grow", b"100000").unwrap().len(), 100_000);
    assert!(matches!(client.call("grow", b"100001").unwrap_err(), CallError::Violation(_)));
}

#[test]
fn nothing_is_lost_or_out_of_order_where_handlers_speak_while_their_worker_falls_asleep_over_and_over() {
    const CLIENTS: u32 = 6;
    const CHUNKS: u32 = 300;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    // One worker that never spins, and several threads that may stand in for it.
    let config = ServerConfig::new().workers(1).async_threads(3).spin(SpinPolicy::Never);
    let server = Server::builder()
        .duplex("twice", |_, mut incoming, mut outgoing| async move {
            while let Some(chunk) = incoming.next().await {
                outgoing.send(&chunk).await?;
                outgoing.send(&chunk).await?;
            }
            Ok(())
        })
        .unary_async("later", |call| async move { Ok(call.into_payload()) })
        .in_place("echo", |_| Ok(()))
        .config(config)
        .bind(&path)
        .unwrap();
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let path = &path;
            scope.spawn(move || {
                let client = Client::connect(path).unwrap();
                let (mut sink, mut stream) = client.duplex("twice", b"").unwrap();
                // Its reader goes away in the middle.
                let mut left = Some(Client::connect(path).unwrap().duplex("twice", b"").unwrap());
                for chunk in 0..CHUNKS {
                    let chunk = (number * CHUNKS + chunk).to_le_bytes();
                    if let Some((sink, _)) = &mut left {
                        assert!(sink.send(&chunk).unwrap());
                    }
                    assert!(sink.send(&chunk).unwrap());
                    for name in ["later", "echo"] {
                        assert_eq!(client.call(name, &chunk).unwrap(), chunk);
                    }
                    for _ in 0..2 {
                        assert_eq!(stream.next().unwrap().unwrap(), chunk);
                    }
                    if chunk[0] % 64 == 0 {
                        left = None;
                    }
                }
                sink.finish();
                assert!(stream.next().is_none());
            });
        }
    });
    assert!(server.drain(PATIENCE), "no call is left");
}
