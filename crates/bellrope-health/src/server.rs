//! The health server: the bounded listener with the routes of this crate.
//!
//! It has one thread of its own and never touches the data path: it reads counters, and asks the loops of the server
//! whether they turn. It answers one request a connection and then closes, so no client can keep a place for long;
//! connections, bytes and time are all limited.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bellrope::status::Metrics;
use hyper::service::service_fn;

use crate::{
    events::PageBody,
    http::{ConnectionTime, HttpListener, ListenerConfig},
    routes::Source,
};

/// What a client may take of the health server, beside the defaults of its listener. Worst case: 64 x (8 KiB + a page of
/// metrics, about 4 KiB a message type).
#[derive(Debug, Clone, Copy)]
struct HealthLimits {
    /// Connections open at once. For one more, the oldest that asks nothing gives way.
    connections: usize,
    /// Of those, connections from one address, so that no address keeps others from asking.
    of_address: usize,
    /// How long a connection may last, its answer included.
    lifetime: Duration,
    /// Connections that may listen to events, of all.
    listeners: usize,
    /// How long such a connection may last; a listener that wants more connects again.
    listening: Duration,
}

impl Default for HealthLimits {
    fn default() -> Self {
        Self {
            connections: 64,
            of_address: 48,
            lifetime: Duration::from_secs(10),
            listeners: 16,
            listening: Duration::from_secs(60),
        }
    }
}

/// Virtual memory of the thread's stack; only touched pages count.
const STACK_BYTES: usize = 256 * 1024;

/// Serves health and metrics over HTTP until it is dropped.
///
/// | path | answer |
/// |---|---|
/// | `/health`, `/healthz` | JSON: status, uptime, calls, connections, memory, limits, breakers, message types; always 200 |
/// | `/metrics` | the Prometheus text format 0.0.4 |
/// | `/ready`, `/readyz` | 200, or 503 with the reason while the server starts, stops, is wedged or has no room |
/// | `/live`, `/livez` | 200, or 503 if a worker's loop does not turn |
/// | `/`, `/page.css`, `/page.js` | a live page for people |
/// | `/events` | what it shows, every second, as server-sent events |
///
/// `/ready`, `/live` and `/health` ask the threads of the server and wait for their answers, at most half a second. No
/// breaker and nothing else that the server merely depends on makes it unready.
///
/// `GET` and `HEAD` are answered, one request a connection. There are at most 64 connections at once, 48 of one address; for
/// one more, the oldest gives way that has not asked anything, and after those one whose answer is not read. A request's head
/// has at most 8 KiB and 5 seconds, a connection 10 seconds; bodies are not read. At most 16 connections listen to
/// events, each for a minute, then it comes back. Nothing secret is served.
///
/// ```
/// use std::io::{Read, Write};
///
/// use bellrope::Server;
/// use bellrope_health::HealthServer;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let server = Server::builder().bind(directory.path().join("private").join("echo.sock"))?;
/// let health = HealthServer::start("127.0.0.1:0".parse()?, server.metrics())?;
///
/// let mut socket = std::net::TcpStream::connect(health.local_addr())?;
/// socket.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
/// let mut answer = String::new();
/// socket.read_to_string(&mut answer)?;
/// assert!(answer.starts_with("HTTP/1.1 200 OK"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct HealthServer {
    listener: HttpListener,
}

impl HealthServer {
    /// Takes the address and starts to serve there. Port 0 means any free one: see [`HealthServer::local_addr`].
    ///
    /// # Errors
    /// If the address is taken or not ours, or the system has no thread or descriptor left.
    pub fn start(addr: SocketAddr, metrics: Arc<Metrics>) -> io::Result<Self> {
        Self::start_within(HealthLimits::default(), addr, metrics)
    }

    fn start_within(limits: HealthLimits, addr: SocketAddr, metrics: Arc<Metrics>) -> io::Result<Self> {
        let mut config = ListenerConfig::new("the health server", "bellrope-health");
        config.stack_bytes = Some(STACK_BYTES);
        config.max_connections = limits.connections;
        config.max_of_address = limits.of_address;
        // An answer that nobody reads must not keep a probe out, and the page comes back by itself.
        config.answers_give_way = true;
        config.connection_time = Some(limits.lifetime);
        let counters = Arc::clone(&metrics);
        let source = Arc::new(Source::new(metrics, limits.listeners));
        let service = service_fn(move |request| {
            let source = Arc::clone(&source);
            async move {
                let mut response = source.answer(&request).await;
                if matches!(response.body(), PageBody::Events(_)) {
                    response.extensions_mut().insert(ConnectionTime(limits.listening));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let listener = HttpListener::start(addr, config, service)?;
        let help = "Connections to the health server that were put out for others or found no place.";
        counters.watch_counter("ipc_health_connections_dropped_total", help, listener.dropped());
        Ok(Self { listener })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        time::Instant,
    };

    use bellrope::{
        Server,
        breaker::{Breaker, BreakerConfig},
    };
    use tempfile::TempDir;

    use super::*;

    fn serve() -> (Server, TempDir) {
        let home = tempfile::tempdir().unwrap();
        let server = Server::builder().bind(home.path().join("run").join("test.sock")).unwrap();
        (server, home)
    }

    fn start(limits: HealthLimits, server: &Server) -> HealthServer {
        HealthServer::start_within(limits, ([127, 0, 0, 1], 0).into(), server.metrics()).unwrap()
    }

    /// Asks for a path, and returns what came until the connection was closed.
    fn ask(health: &HealthServer, path: &str) -> String {
        let mut socket = std::net::TcpStream::connect(health.local_addr()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answer = Vec::new();
        // A place that is not free yet shows as a connection that fails at any of these.
        let _ = write!(socket, "GET {path} HTTP/1.1\r\n\r\n");
        let _ = socket.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    // Fault 62.
    #[test]
    fn a_reader_that_never_reads_gives_way_to_whoever_asks() {
        let (server, _home) = serve();
        // A page that no pair of socket buffers can hold.
        let breaker = Arc::new(Breaker::new(BreakerConfig::default()).unwrap());
        for number in 0..3_000 {
            let name = format!("a breaker with quite a long name, number {number}, {}", "!".repeat(600));
            server.metrics().watch_breaker(name, Arc::clone(&breaker));
        }
        let limits = HealthLimits { connections: 1, lifetime: Duration::from_secs(60), ..HealthLimits::default() };
        let health = start(limits, &server);

        let mut idle = std::net::TcpStream::connect(health.local_addr()).unwrap();
        idle.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        // Its answer has begun.
        idle.read_exact(&mut [0]).unwrap();
        let began = Instant::now();
        assert!(ask(&health, "/page.css").starts_with("HTTP/1.1 200"));
        assert!(began.elapsed() < limits.lifetime, "its place was free when its time was up");
        let mut page = Vec::new();
        let _ = idle.read_to_end(&mut page);
        assert!(!page.ends_with(b"\n"), "the page came whole");
    }

    #[test]
    fn a_listener_keeps_its_place_longer_than_others_and_loses_it_when_its_time_is_up() {
        let limits = HealthLimits {
            lifetime: Duration::from_secs(1),
            listening: Duration::from_millis(2_500),
            ..HealthLimits::default()
        };
        let (server, _home) = serve();
        let health = start(limits, &server);
        let began = Instant::now();
        let told = ask(&health, "/events");
        assert!(began.elapsed() >= limits.listening, "closed after {:?}", began.elapsed());
        assert!(told.contains("\r\ndata: "), "{told}");
    }

    #[test]
    fn an_address_in_use_is_an_error() {
        let (server, _home) = serve();
        let first = start(HealthLimits::default(), &server);
        let second = HealthServer::start(first.local_addr(), server.metrics());
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
