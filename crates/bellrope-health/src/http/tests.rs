//! Listeners whose clients mean no good.

use std::{
    io::{Read as _, Write as _},
    sync::{Mutex, atomic::Ordering::Relaxed},
};

use http_body_util::Full;
use hyper::service::service_fn;

use super::*;

const ADDR: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
const PATIENCE: Duration = Duration::from_secs(60);

/// A listener whose service answers with a body of this length, after `delay`.
fn start(config: ListenerConfig, body: usize, delay: Duration) -> HttpListener {
    let service = service_fn(move |_: Request<Incoming>| async move {
        tokio::time::sleep(delay).await;
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(vec![b'x'; body]))))
    });
    HttpListener::start(ADDR.into(), config, service).unwrap()
}

/// A connection over which a request was sent.
fn asked(listener: &HttpListener) -> std::net::TcpStream {
    let mut socket = std::net::TcpStream::connect(listener.local_addr()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    socket
}

/// What comes until the listener closes the connection.
fn answer(mut socket: std::net::TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_drain_takes_nothing_new_closes_idle_connections_and_lets_requests_end() {
    let mut config = ListenerConfig::new("a test", "test");
    config.keep_alive = true;
    let listener = start(config, 3, Duration::from_millis(300));
    let mut idle = asked(&listener);
    let mut answered = [0; 512];
    assert!(idle.read(&mut answered).unwrap() > 0);
    let under_way = asked(&listener);
    // Until the listener has taken it, it would not be under way.
    std::thread::sleep(Duration::from_millis(100));
    assert!(!listener.drained_by(Instant::now()), "it serves");
    listener.begin_drain();
    assert!(answer(under_way).ends_with("xxx"));
    assert_eq!(answer(idle), "", "an idle connection is closed");
    assert!(listener.drained_by(Instant::now() + PATIENCE));
    assert!(std::net::TcpStream::connect(listener.local_addr()).is_err(), "nothing new is taken");
}

// Fault 62.
#[test]
fn a_flood_that_nobody_takes_yet_keeps_no_connection_from_being_made() {
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let listener = std::net::TcpListener::bind(SocketAddr::from(ADDR)).unwrap();
    let addr = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    // Nothing drives it, so it takes none.
    let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::new()))) });
    let (_phase, phases) = watch::channel(Phase::Serving);
    let config = ListenerConfig::new("a test", "test");
    let _prepared = prepare(listener, &Serving { config, answerer: answerer(service), phases }).unwrap();
    let many = most.trim().parse::<usize>().unwrap().min(500);
    let connect = |_| std::net::TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
    let waiting: Vec<_> = (0..many).map(connect).collect();
    assert_eq!(waiting.len(), many);
}

#[test]
fn a_reader_that_stands_still_loses_its_connection_however_long_that_may_last() {
    let mut config = ListenerConfig::new("a test", "test");
    config.connection_time = None;
    config.stall_time = Some(Duration::from_millis(50));
    config.max_connections = 1;
    let listener = start(config, 32 << 20, Duration::ZERO);
    let _stuck = asked(&listener);
    let began = Instant::now();
    while !answer(asked(&listener)).starts_with("HTTP/1.1 200") {
        assert!(began.elapsed() < PATIENCE, "the place was never free again");
    }
}

#[test]
fn a_stranger_is_closed_without_an_answer() {
    let mut config = ListenerConfig::new("a test", "test");
    config.admit = |_, _| Err("not in this test".to_owned());
    assert_eq!(answer(asked(&start(config, 3, Duration::ZERO))), "");
}

#[test]
fn what_happens_is_reported_to_the_log_of_the_configuration() {
    static REFUSED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut config = ListenerConfig::new("a test", "test");
    config.admit = |_, _| Err("not in this test".to_owned());
    config.log = |name, event| {
        if let ListenerEvent::Refused { reason, .. } = event {
            REFUSED.lock().unwrap().push(format!("{name}: {reason}"));
        }
    };
    assert_eq!(answer(asked(&start(config, 3, Duration::ZERO))), "");
    assert_eq!(*REFUSED.lock().unwrap(), ["a test: not in this test"]);
}

// Fault 62.
#[test]
fn silent_connections_without_end_keep_nobody_from_being_served() {
    let mut config = ListenerConfig::new("a test", "test");
    config.max_connections = 8;
    let listener = start(config, 3, Duration::ZERO);
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.extend((0..20).map(|_| std::net::TcpStream::connect(listener.local_addr()).unwrap()));
        let mut half = std::net::TcpStream::connect(listener.local_addr()).unwrap();
        half.write_all(b"GET / HTTP/1.1\r\nHost: loc").unwrap();
        silent.push(half);
        assert!(answer(asked(&listener)).ends_with("xxx"));
    }
    assert!(listener.dropped().load(Relaxed) >= 10 * 21 - 8);
}

// Fault 62.
#[test]
fn where_all_are_at_work_one_more_hears_503_and_no_work_is_cut_off() {
    let mut config = ListenerConfig::new("a test", "test");
    config.max_connections = 2;
    let (at_work, released) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let service = {
        let (at_work, released) = (Arc::clone(&at_work), Arc::clone(&released));
        service_fn(move |_: Request<Incoming>| {
            at_work.fetch_add(1, Relaxed);
            let released = Arc::clone(&released);
            async move {
                while released.load(Relaxed) == 0 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"done"))))
            }
        })
    };
    let listener = HttpListener::start(ADDR.into(), config, service).unwrap();
    let busy = [asked(&listener), asked(&listener)];
    let deadline = Instant::now() + PATIENCE;
    while at_work.load(Relaxed) < 2 {
        assert!(Instant::now() < deadline, "they are not worked on");
        std::thread::sleep(Duration::from_millis(2));
    }
    let told = answer(asked(&listener));
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    assert!(
        told.contains("\r\nRetry-After: 1\r\nX-Should-Retry: true\r\n") && told.contains("\r\nConnection: close\r\n"),
        "{told}"
    );
    assert!(told.ends_with(r#"{"error":"as many connections are at work as may be; try again"}"#), "{told}");
    released.store(1, Relaxed);
    assert!(busy.map(answer).iter().all(|answer| answer.ends_with("done")));
}

// Faults 57, 62.
#[test]
fn strangers_take_nobodys_place_and_a_flood_of_them_makes_few_lines_and_a_count() {
    static LINES: AtomicU64 = AtomicU64::new(0);
    let mut config = ListenerConfig::new("a test", "test");
    config.max_connections = 1;
    config.admit = |_, _| Err("not in this test".to_owned());
    config.log = |_, event| {
        LINES.fetch_add(u64::from(matches!(event, ListenerEvent::Refused { .. })), Relaxed);
    };
    let listener = start(config, 3, Duration::ZERO);
    for _ in 0..200 {
        assert_eq!(answer(asked(&listener)), "");
    }
    assert_eq!(listener.dropped().load(Relaxed), 200);
    // One more a second, on a machine that takes long for it.
    assert!((1..200).contains(&LINES.load(Relaxed)), "{LINES:?} lines");
}

#[test]
fn a_listener_with_several_threads_answers_that_many_requests_at_the_same_time() {
    // Both are at work at once, or neither ends.
    let both = std::sync::Barrier::new(2);
    let service = service_fn(move |_: Request<Incoming>| {
        both.wait();
        async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ding")))) }
    });
    let mut config = ListenerConfig::new("the listener under test", "test-http");
    config.threads = 2;
    let listener = HttpListener::start(ADDR.into(), config, service).unwrap();
    for socket in [asked(&listener), asked(&listener)] {
        assert!(answer(socket).ends_with("ding"));
    }
}

#[test]
fn a_lone_connection_stays_on_the_thread_that_accepts_and_many_are_shared_evenly() {
    let service = service_fn(|_: Request<Incoming>| async {
        let thread = format!("{:?}", std::thread::current().id());
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(thread))))
    });
    let mut config = ListenerConfig::new("the listener under test", "test-http");
    (config.threads, config.keep_alive) = (3, true);
    let listener = HttpListener::start(ADDR.into(), config, service).unwrap();
    let thread_of = |socket: &mut std::net::TcpStream| {
        let (mut said, mut buffer) = (String::new(), [0; 512]);
        while !said.ends_with(')') {
            let count = socket.read(&mut buffer).unwrap();
            assert!(count > 0, "{said}");
            said.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        said.rsplit_once("\r\n").unwrap().1.to_owned()
    };
    let mut open: Vec<_> = (0..9).map(|_| asked(&listener)).collect();
    let mut counts = std::collections::HashMap::<_, usize>::new();
    for socket in &mut open {
        *counts.entry(thread_of(socket)).or_default() += 1;
    }
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [3; 3]);
    // A connection keeps its thread.
    let first = thread_of(&mut { asked(&listener) });
    assert!(counts.contains_key(&first));
    listener.begin_drain();
    assert!(listener.drained_by(Instant::now() + PATIENCE), "those of all threads end");
}

// Fault 62.
#[test]
fn bodies_that_never_come_whole_keep_nobody_from_being_served_and_one_that_has_come_is_worked_on() {
    use http_body_util::BodyExt as _;

    let mut config = ListenerConfig::new("a test", "test");
    (config.max_connections, config.keep_alive) = (2, true);
    let (at_work, released) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let service = {
        let (at_work, released) = (Arc::clone(&at_work), Arc::clone(&released));
        service_fn(move |mut request: Request<Incoming>| {
            let (at_work, released) = (Arc::clone(&at_work), Arc::clone(&released));
            async move {
                let coming = request.extensions_mut().remove::<ComingBody>();
                let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                if let Some(coming) = coming {
                    coming.has_come();
                    at_work.fetch_add(1, Relaxed);
                    while released.load(Relaxed) == 0 {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
                Ok::<_, Infallible>(Response::new(Full::new(body)))
            }
        })
    };
    let listener = HttpListener::start(ADDR.into(), config, service).unwrap();
    let post = |body: &[u8]| {
        let mut socket = std::net::TcpStream::connect(listener.local_addr()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
            .write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 4\r\n\r\n")
            .unwrap();
        socket.write_all(body).unwrap();
        socket
    };
    let whole = post(b"body");
    let deadline = Instant::now() + PATIENCE;
    while at_work.load(Relaxed) == 0 {
        assert!(Instant::now() < deadline, "it is not worked on");
        std::thread::sleep(Duration::from_millis(2));
    }
    let slow: Vec<_> = (0..10).map(|_| post(b"bod")).collect();
    for _ in 0..10 {
        let mut next = std::net::TcpStream::connect(listener.local_addr()).unwrap();
        next.set_read_timeout(Some(PATIENCE)).unwrap();
        next.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        assert!(answer(next).starts_with("HTTP/1.1 200 "));
    }
    released.store(1, Relaxed);
    assert!(answer(whole).ends_with("body"), "what had come is answered");
    drop(slow);
}

// Fault 62.
#[test]
fn an_answer_that_is_read_while_others_come_arrives_whole_however_large_it_is() {
    const SIZE: usize = 64 << 20;
    let mut config = ListenerConfig::new("a test", "test");
    (config.max_connections, config.keep_alive) = (1, true);
    let listener = start(config, SIZE, Duration::ZERO);
    let (addr, done) = (listener.local_addr(), AtomicU64::new(0));
    let mut reader = asked(&listener);
    let mut piece = vec![0; 64 * 1024];
    let mut read = reader.read(&mut piece).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut others = std::collections::VecDeque::new();
            while done.load(Relaxed) == 0 {
                others.extend(std::net::TcpStream::connect(addr));
                others.drain(..others.len().saturating_sub(32));
            }
        });
        while read < SIZE {
            match reader.read(&mut piece) {
                Ok(count) if count > 0 => read += count,
                _ => break,
            }
        }
        done.store(1, Relaxed);
    });
    assert!(read >= SIZE, "{read} bytes came");
}

// Fault 62.
#[test]
fn a_newcomer_waits_for_a_place_until_a_request_is_late_and_cuts_off_none_that_comes() {
    use http_body_util::BodyExt as _;

    let mut config = ListenerConfig::new("a test", "test");
    (config.max_connections, config.keep_alive) = (2, true);
    let begun = Arc::<AtomicU64>::default();
    let service = {
        let begun = Arc::clone(&begun);
        service_fn(move |mut request: Request<Incoming>| {
            begun.fetch_add(1, Relaxed);
            async move {
                let coming = request.extensions_mut().remove::<ComingBody>();
                let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                if let Some(coming) = coming {
                    coming.has_come();
                }
                Ok::<_, Infallible>(Response::new(Full::new(body)))
            }
        })
    };
    let listener = HttpListener::start(ADDR.into(), config, service).unwrap();
    let began = Instant::now();
    let mut uploads = [(); 2].map(|()| {
        let mut socket = std::net::TcpStream::connect(listener.local_addr()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbod").unwrap();
        socket
    });
    while begun.load(Relaxed) < 2 {
        assert!(began.elapsed() < PATIENCE, "they are not taken");
        std::thread::sleep(Duration::from_millis(2));
    }
    let (mut newcomer, mut head) = (asked(&listener), [0; 12]);
    newcomer.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200", "a late one gives way");
    assert!(began.elapsed() >= Duration::from_millis(999), "it displaced one that had just begun");
    let mut ends_well = |upload: &mut std::net::TcpStream| {
        upload.write_all(b"y").is_ok() && upload.read(&mut [0; 16]).is_ok_and(|count| count > 0)
    };
    assert_eq!(
        uploads.each_mut().map(&mut ends_well).iter().filter(|well| **well).count(),
        1,
        "one gives way, no more"
    );
}
