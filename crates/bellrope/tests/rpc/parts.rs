//! Large messages that callers and handlers give and take part by part.

use std::{
    io::{self, BufRead as _, ErrorKind, Read, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use bellrope::{
    AsyncClient, CallError, Client, HandlerError, Server,
    client::{CallOptions, CancelToken, ClientConfig, Style, Transport},
    server::ServerConfig,
};
use bellrope_testkit::support::{PATIENCE, eventually};
use tempfile::TempDir;

/// Bytes of a message that finds room in no ring, and in no message that is given whole.
const SIZE: u64 = 20 << 20;

/// A server whose handlers read and write part by part, and what they saw.
struct Parts {
    _home: TempDir,
    _server: Server,
    client: Client,
    path: std::path::PathBuf,
    /// How reading a request ended that was not whole.
    broken: mpsc::Receiver<ErrorKind>,
    /// Bytes that `endless` has written.
    written: Arc<AtomicU64>,
}

fn serve(config: ServerConfig) -> Parts {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("parts.sock");
    let (tell, broken) = mpsc::channel();
    let written = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&written);
    let server = Server::builder()
        .config(config)
        .unary_reader("sum", move |call, request| {
            let (mut sum, mut size) = (0_u64, 0_u64);
            loop {
                let part = match request.fill_buf() {
                    Ok(part) => part,
                    Err(error) => {
                        let _ = tell.send(error.kind());
                        return Err(error.into());
                    }
                };
                if part.is_empty() {
                    let name = String::from_utf8_lossy(call.payload());
                    return Ok(format!("{name} {size} {sum}").into_bytes());
                }
                sum += part.iter().map(|byte| u64::from(*byte)).sum::<u64>();
                size += part.len() as u64;
                let len = part.len();
                request.consume(len);
            }
        })
        .unary_reader("first", |_, request| {
            let mut first = [0];
            request.read_exact(&mut first)?;
            Ok(first.to_vec())
        })
        .unary_writer("repeat", |call, reply| {
            let size: u64 = String::from_utf8_lossy(call.payload()).parse().unwrap();
            Ok(io::copy(&mut pattern().take(size), reply).map(drop)?)
        })
        .unary_writer("endless", move |_, reply| {
            loop {
                counted.fetch_add(reply.write(&[7; 1000])? as u64, Ordering::SeqCst);
            }
        })
        .unary_writer("half", |_, reply| {
            reply.write_all(b"half")?;
            reply.flush()?;
            Err(HandlerError::with_code(7, "no more than that"))
        })
        .unary_filter("echo", |_, request, reply| Ok(io::copy(request, reply).map(drop)?))
        .unary_reader("panic", |_, _| panic!("on purpose"))
        .unary("small", |call, reply| {
            reply.put(call.payload());
            Ok(())
        })
        .bind(&path)
        .unwrap();
    let client = Client::connect(&path).unwrap();
    Parts { _home: home, _server: server, client, path, broken, written }
}

/// Bytes of which each differs from the one before.
fn pattern() -> impl Read {
    struct Pattern(u64);
    impl Read for Pattern {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            for byte in &mut *into {
                *byte = (self.0 % 251) as u8;
                self.0 += 1;
            }
            Ok(into.len())
        }
    }
    Pattern(0)
}

fn sum_of(size: u64) -> u64 {
    (0..size).map(|at| at % 251).sum()
}

fn read_and_compare(reply: &mut impl Read, size: u64) -> io::Result<()> {
    let (mut expected, mut at) = (pattern(), 0);
    let (mut came, mut should) = (vec![0; 10_007], vec![0; 10_007]);
    loop {
        let len = reply.read(&mut came)?;
        if len == 0 {
            assert_eq!(at, size);
            return Ok(());
        }
        expected.read_exact(&mut should[..len])?;
        assert!(came[..len] == should[..len], "what came behind {at} bytes differs");
        at += len as u64;
    }
}

/// The `CallError` in an error of reading or writing.
fn call_error(error: &io::Error) -> &CallError {
    error.get_ref().unwrap().downcast_ref().unwrap()
}

#[test]
fn messages_larger_than_any_message_may_be_travel_part_by_part_both_ways() {
    for transport in [Transport::Shm, Transport::Stream] {
        for config in [ServerConfig::default(), ServerConfig::default().ring_bytes(4096)] {
            let parts = serve(config);
            let client = Client::with(ClientConfig::new(&parts.path).transport(transport)).unwrap();
            assert_eq!(client.transport(), Some(transport));
            for size in [0, 1, 1000, 32 * 1024, 32 * 1024 + 1, SIZE] {
                let mut request = client.call_writer("sum", b"of").unwrap();
                io::copy(&mut pattern().take(size), &mut request).unwrap();
                assert_eq!(request.finish().unwrap(), format!("of {size} {}", sum_of(size)).into_bytes());
                let mut reply = client.call_reader("repeat", size.to_string().as_bytes()).unwrap();
                read_and_compare(&mut reply, size).unwrap();
                assert_eq!(reply.read(&mut [0]).unwrap(), 0, "the end stays the end");
            }
            let (mut request, mut reply) = client.call_both_ways("echo", b"").unwrap();
            thread::scope(|scope| {
                scope.spawn(move || {
                    io::copy(&mut pattern().take(SIZE), &mut request).unwrap();
                    request.finish().unwrap();
                });
                read_and_compare(&mut reply, SIZE).unwrap();
            });
        }
    }
}

#[test]
fn parts_of_many_calls_mix_on_one_connection_and_a_reader_that_is_slow_holds_up_nobody() {
    let parts = serve(ServerConfig::default());
    let client = &parts.client;
    // Nobody reads this one.
    let _unread = client.call_reader("repeat", SIZE.to_string().as_bytes()).unwrap();
    // Begun before the others, and ended after them.
    let mut first = client.call_writer("sum", b"first").unwrap();
    first.write_all(&[1; 100_000]).unwrap();
    thread::scope(|scope| {
        for n in 0..8_u64 {
            scope.spawn(move || {
                let size = 1_000_000 + n;
                let (mut request, mut reply) = client.call_both_ways("echo", b"").unwrap();
                thread::scope(|scope| {
                    scope.spawn(move || {
                        io::copy(&mut pattern().take(size), &mut request).unwrap();
                        request.finish().unwrap();
                    });
                    read_and_compare(&mut reply, size).unwrap();
                });
            });
        }
        for _ in 0..100 {
            assert_eq!(client.call("small", b"ding").unwrap(), b"ding");
        }
    });
    first.write_all(&[1; 100_000]).unwrap();
    assert_eq!(first.finish().unwrap(), b"first 200000 200000");
}

#[test]
fn a_writer_that_is_dropped_makes_no_whole_request_of_a_half_one() {
    let parts = serve(ServerConfig::default());
    let mut request = parts.client.call_writer("sum", b"").unwrap();
    request.write_all(&[1; 100_000]).unwrap();
    drop(request);
    assert_eq!(parts.broken.recv_timeout(PATIENCE).unwrap(), ErrorKind::ConnectionAborted);
    let (mut request, mut reply) = parts.client.call_both_ways("echo", b"").unwrap();
    request.write_all(b"half").unwrap();
    drop(request);
    let error = reply.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(matches!(call_error(&error), CallError::Cancelled), "{error:?}");
    assert_eq!(reply.read(&mut [0]).unwrap_err().kind(), ErrorKind::BrokenPipe, "there is no clean end behind it");
    assert_eq!(parts.client.call("small", b"on").unwrap(), b"on");
}

#[test]
fn a_reader_that_is_dropped_stops_its_writer() {
    let parts = serve(ServerConfig::default().blocking_threads(1));
    let mut reply = parts.client.call_reader("endless", b"").unwrap();
    reply.read_exact(&mut [0; 10_000]).unwrap();
    drop(reply);
    // The one thread that handlers have is free again.
    assert_eq!(parts.client.call_writer("sum", b"").unwrap().finish().unwrap(), b" 0 0");
    let written = parts.written.load(Ordering::SeqCst);
    assert!(written < 1 << 20, "{written} bytes were written for nobody");
}

#[test]
fn deadlines_and_tokens_end_both_halves() {
    let parts = serve(ServerConfig::default());
    let soon = CallOptions::new().timeout(Duration::from_millis(500));
    let mut request = parts.client.call_writer_with("sum", b"", &soon).unwrap();
    // On a machine that is busy it may be over before that.
    let _ = request.write_all(&[1; 100_000]);
    assert_eq!(parts.broken.recv_timeout(PATIENCE).unwrap(), ErrorKind::ConnectionAborted);
    assert!(matches!(request.finish(), Err(CallError::DeadlineExceeded)));

    let mut reply = parts.client.call_reader_with("endless", b"", &soon).unwrap();
    let error = io::copy(&mut reply, &mut io::sink()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(matches!(call_error(&error), CallError::DeadlineExceeded), "{error:?}");

    let token = CancelToken::new();
    let (mut request, mut reply) =
        parts.client.call_both_ways_with("echo", b"", &CallOptions::new().cancel(&token)).unwrap();
    let began = AtomicBool::new(false);
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            loop {
                if let Err(error) = request.write_all(&[7; 1000]) {
                    return error.kind();
                }
            }
        });
        let reading = scope.spawn(|| {
            reply.read_exact(&mut [0]).unwrap();
            began.store(true, Ordering::SeqCst);
            io::copy(&mut reply, &mut io::sink()).unwrap_err()
        });
        eventually("the echo has begun", || began.load(Ordering::SeqCst));
        token.cancel();
        assert!(matches!(call_error(&reading.join().unwrap()), CallError::Cancelled));
        assert_eq!(writing.join().unwrap(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_handler_that_fails_or_answers_early_says_so_behind_what_it_wrote() {
    let parts = serve(ServerConfig::default());
    let mut reply = parts.client.call_reader("half", b"").unwrap();
    let mut half = [0; 4];
    reply.read_exact(&mut half).unwrap();
    assert_eq!(&half, b"half");
    let error = reply.read(&mut half).unwrap_err();
    assert!(matches!(call_error(&error), CallError::Handler { code: 7, .. }), "{error:?}");

    let mut request = parts.client.call_writer("first", b"").unwrap();
    let error = io::copy(&mut io::repeat(9), &mut request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert_eq!(request.finish().unwrap(), [9]);

    let mut request = parts.client.call_writer("panic", b"").unwrap();
    let _ = request.write_all(&[0; 100]);
    assert!(matches!(request.finish(), Err(CallError::HandlerPanic { .. })));
}

#[test]
fn what_is_read_by_parts_is_a_stream_to_every_other_form_of_call() {
    let parts = serve(ServerConfig::default());
    let styles = parts.client.message_types();
    for (name, style) in [("sum", Style::ClientStream), ("repeat", Style::ServerStream), ("echo", Style::Duplex)] {
        assert!(styles.contains(&(name.to_owned(), style)));
    }
    assert!(matches!(parts.client.call("sum", b""), Err(CallError::WrongStyle { .. })));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = AsyncClient::connect(&parts.path).await.unwrap();
        let mut upload = client.client_stream("sum", b"async").await.unwrap();
        for _ in 0..100 {
            assert!(upload.send(&[1; 10_000]).await.unwrap());
        }
        assert_eq!(upload.finish().await.unwrap(), b"async 1000000 1000000");
    });
}
