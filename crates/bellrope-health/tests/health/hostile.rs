//! Clients that mean no good, and the server's own end.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use bellrope::{Client, server::ServerConfig};
use bellrope_health::HealthServer;
use bellrope_testkit::role;

use super::{
    support::{eventually, serve},
    web::{connect, get, send, watch},
};

// Fault 51.
#[test]
fn a_body_is_not_waited_for() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let began = Instant::now();
    let head = "POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
    assert_eq!(send(health.local_addr(), head.as_bytes()).unwrap().status, 405);
    let whole = [head.as_bytes(), &vec![b'x'; 1_000_000]].concat();
    assert_eq!(send(health.local_addr(), &whole).unwrap().status, 405);
    // A connection may last ten seconds.
    assert!(began.elapsed() < Duration::from_secs(9), "took {:?}", began.elapsed());
}

/// Whether the server has closed a non-blocking connection on which it says nothing.
fn is_closed(mut socket: &TcpStream) -> bool {
    match socket.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

// Faults 51, 62.
#[test]
fn of_too_many_silent_connections_the_oldest_are_closed_and_the_newest_stay() {
    // Of one address.
    const MOST: usize = 48;
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let flood: Vec<_> = (0..MOST + 22).map(|_| connect(health.local_addr())).collect();
    for socket in &flood {
        socket.set_nonblocking(true).unwrap();
    }
    eventually("the oldest are closed", || flood[..22].iter().all(is_closed));
    assert!(!flood[22..].iter().any(is_closed), "there was a place for these");
}

// Faults 51, 62.
#[test]
fn every_probe_is_answered_whoever_holds_connections_open() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let mut flood: Vec<_> = (0..80).map(|_| connect(health.local_addr())).collect();
    for round in 0..32_u8 {
        // From other addresses too, which no probe shares, and in the middle of a head.
        let mut half = connect(health.local_addr());
        half.write_all(b"GET /live HTTP/1.1\r\nHost: local").unwrap();
        flood.push(half);
        flood.push(connect_from([127, 0, 0, 2 + round], health.local_addr()));
        assert_eq!(get(health.local_addr(), "/live").status, 200);
        assert_eq!(get(health.local_addr(), "/ready").status, 200);
    }
    let page = get(health.local_addr(), "/metrics").body;
    let dropped = page.lines().find_map(|line| line.strip_prefix("ipc_health_connections_dropped_total "));
    assert!(dropped.unwrap().parse::<usize>().unwrap() >= 80 + 64 - 64, "{page}");
}

// Faults 19, 51, 62.
#[test]
fn a_thousand_half_handshakes_and_a_thousand_silent_connections_of_one_process_keep_nobody_out() {
    const TEST: &str =
        "hostile::a_thousand_half_handshakes_and_a_thousand_silent_connections_of_one_process_keep_nobody_out";
    const HELD: usize = 1_000;
    const ROUNDS: usize = 40;
    if let Some(places) = role::is_played_here("holder") {
        let places = places.into_string().unwrap();
        let (socket, health) = places.split_once(' ').unwrap();
        bellrope_shm::process::raise_descriptor_limit();
        let (mut half, mut silent) = (VecDeque::new(), VecDeque::new());
        loop {
            // What cannot be had now is tried again: as many wait as the kernel lets wait.
            if let Ok(mut stream) = UnixStream::connect(socket) {
                let _ = stream.write_all(b"BELLROPE half a hello");
                half.push_back(stream);
            }
            silent.extend(TcpStream::connect(health).ok());
            for _ in HELD..half.len().max(silent.len()) {
                // It holds so many, and goes on.
                half.pop_front();
                silent.pop_front();
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    let mut config = ServerConfig::default();
    // Time gives no place back within this test.
    config.handshake_timeout = Duration::from_secs(120);
    let server = serve(config);
    let health = watch(&server);
    let places = format!("{} {}", server.path.display(), health.local_addr());
    let holder = role::start(TEST, "holder", &places, &[], false);
    eventually("it holds as many as it likes", || {
        let (sockets, refused) = (sockets_of(holder.pid()), server.server.metrics().snapshot().refused_connections);
        sockets >= 2 * HELD - HELD / 10 && refused > 0
    });
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let began = Instant::now();
        let client = Client::connect(&server.path).unwrap_or_else(|error| panic!("number {round}: {error}"));
        assert_eq!(client.call("echo", b"honest").unwrap(), b"honest");
        let connected = began.elapsed();
        for page in ["/live", "/ready"] {
            assert_eq!(get(health.local_addr(), page).status, 200, "number {round}");
        }
        took.push(connected.max(began.elapsed() - connected));
    }
    holder.kill();
    took.sort_unstable();
    role::say(
        "connects and probes: ",
        format_args!("half within {:?}, the slowest {:?}", took[ROUNDS / 2], took[ROUNDS - 1]),
    );
}

/// Sockets that a process has open.
fn sockets_of(pid: u32) -> usize {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let targets = links.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// Connects from another address of this machine.
fn connect_from(address: [u8; 4], to: std::net::SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

    let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&fd, &std::net::SocketAddr::from((address, 0))).unwrap();
    connect(&fd, &to).unwrap();
    TcpStream::from(fd)
}

// Fault 51.
#[test]
fn a_slow_loris_blocks_nobody_and_is_closed_after_five_seconds() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let began = Instant::now();
    let mut slow: Vec<_> = (0..40).map(|_| connect(health.local_addr())).collect();
    for socket in &mut slow {
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        socket.write_all(b"GET /live HTTP/1.1\r\nX-Slow: ").unwrap();
    }
    while !slow.is_empty() {
        // Well before the ten seconds that any connection may last.
        assert!(began.elapsed() < Duration::from_secs(9), "{} are still open", slow.len());
        let asked = Instant::now();
        assert_eq!(get(health.local_addr(), "/live").status, 200);
        assert!(asked.elapsed() < Duration::from_secs(3), "an honest client waited {:?}", asked.elapsed());
        slow.retain_mut(|socket| match socket.read(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => socket.write_all(b"a").is_ok(),
            end => {
                assert!(!matches!(end, Ok(count) if count > 0), "half a request was answered");
                assert!(began.elapsed() > Duration::from_secs(4), "closed after {:?}", began.elapsed());
                false
            }
        });
    }
}

// Fault 51.
#[test]
fn an_endless_or_broken_head_is_refused() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let many: String = (0..200).map(|number| format!("X-{number}: 1\r\n")).collect();
    let heads = [
        format!("GET /live HTTP/1.1\r\nX-Huge: {}\r\n\r\n", "a".repeat(1_000_000)),
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1_000_000)),
        format!("GET /live HTTP/1.1\r\n{many}\r\n"),
        "\u{7f}ELF\r\n\r\n".to_owned(),
        "GET /live HTTP/9.9\r\n\r\n".to_owned(),
        "GET /live\r\n\r\n".to_owned(),
    ];
    for head in heads {
        let shown = &head[..head.len().min(40)];
        if let Some(answer) = send(health.local_addr(), head.as_bytes()) {
            assert!((400..500).contains(&answer.status), "{shown:?}: {answer:?}");
        }
    }
    assert_eq!(get(health.local_addr(), "/live").status, 200);
}

#[test]
fn dropping_it_closes_everything_and_frees_the_port() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let addr = health.local_addr();
    let mut idle = connect(addr);
    assert_eq!(get(addr, "/live").status, 200);
    drop(health);
    assert!(!matches!(idle.read(&mut [0; 1]), Ok(1..)), "an idle connection was answered");
    assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let again = HealthServer::start(addr, server.server.metrics()).unwrap();
    assert_eq!(get(again.local_addr(), "/live").status, 200);
}
