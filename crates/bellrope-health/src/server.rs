//! A small HTTP server for those who watch: probes, a status page for programs, metrics for Prometheus.
//!
//! It has one thread of its own and never touches the data path: it reads counters, and asks the loops of the server
//! whether they turn. It answers one request a
//! connection and then closes, so nobody can keep a place for long; connections, bytes and time are all limited.

mod answer;
mod events;
mod exposition;
mod overview;
mod process;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::{Semaphore, oneshot},
    time::timeout,
};

use crate::Metrics;
use answer::Source;
use events::Answer;
use overview::Moment;

/// What a client may take of us. Worst case: 64 x (8 KiB + a page of metrics, about 4 KiB a message type).
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Connections open at once; one more is closed at once.
    connections: usize,
    /// Bytes of a request's head.
    head_bytes: usize,
    /// How long a client may take to send a request's head.
    head_time: Duration,
    /// How long a connection may last, its answer included.
    lifetime: Duration,
    /// Connections that may listen to events, of all.
    listeners: usize,
    /// How long such a connection may last; who wants more comes back.
    listening: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            head_bytes: 8 * 1024,
            head_time: Duration::from_secs(5),
            lifetime: Duration::from_secs(10),
            listeners: 16,
            listening: Duration::from_secs(60),
        }
    }
}

/// How long accepting rests when the system refuses it.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// A flood of connections makes one line in the log this often, not one a connection.
const WARN_EVERY: Duration = Duration::from_secs(60);
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
/// `GET` and `HEAD` are answered, one request a connection. There are at most 64 connections at once; a request's head
/// has at most 8 KiB and 5 seconds, a connection 10 seconds; bodies are not read. At most 16 connections listen to
/// events, each for a minute, then it comes back. Nothing secret is served.
///
/// ```
/// use std::io::{Read, Write};
///
/// use bellrope::{HealthServer, Server};
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
    local_addr: SocketAddr,
    /// Dropping it ends the thread.
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl HealthServer {
    /// Takes the address and starts to serve there. Port 0 means any free one: see [`HealthServer::local_addr`].
    ///
    /// # Errors
    /// If the address is taken or not ours, or the system has no thread or descriptor left.
    pub fn start(addr: SocketAddr, metrics: Arc<Metrics>) -> io::Result<Self> {
        Self::start_within(Limits::default(), addr, metrics)
    }

    fn start_within(limits: Limits, addr: SocketAddr, metrics: Arc<Metrics>) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let local_addr = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let (report, started) = mpsc::sync_channel(1);
        let run = move || match prepare(listener) {
            Ok((runtime, listener)) => {
                let _ = report.send(Ok(()));
                runtime.spawn(accept(listener, Arc::new(Source::new(metrics, limits.listeners)), limits));
                // With the sender gone this ends, and the runtime takes the listener and all connections with it.
                let _: Result<Infallible, _> = runtime.block_on(stopped);
            }
            Err(error) => {
                let _ = report.send(Err(error));
            }
        };
        let thread =
            std::thread::Builder::new().name("bellrope-health".to_owned()).stack_size(STACK_BYTES).spawn(run)?;
        started.recv().map_err(|_| io::Error::other("the health server's thread panicked at its start"))??;
        tracing::debug!(%local_addr, "the health server listens");
        Ok(Self { local_addr, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

impl Drop for HealthServer {
    fn drop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the health server's thread panicked");
        }
    }
}

impl Metrics {
    /// All there is to know at this moment, as the JSON of an event of the live page: what `/health` shows as `health`,
    /// and the buckets of the latencies. Asks the threads of the server and waits for their answers, for half a second at
    /// most. Runs on tokio.
    pub async fn overview(&self) -> String {
        let condition = answer::condition(self).await;
        // Nothing here can fail to be written: no maps with odd keys, no floats.
        serde_json::to_string(&Moment::new(self, &condition)).unwrap_or_default()
    }
}

fn prepare(listener: std::net::TcpListener) -> io::Result<(Runtime, TcpListener)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_io_events_per_tick(64).build()?;
    let context = runtime.enter();
    let listener = TcpListener::from_std(listener)?;
    drop(context);
    Ok((runtime, listener))
}

async fn accept(listener: TcpListener, source: Arc<Source>, limits: Limits) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut warned: Option<Instant> = None;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                tracing::warn!(%error, "the health server can not accept; resting for {ACCEPT_REST:?}");
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
        };
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let source = Arc::clone(&source);
                tokio::spawn(async move {
                    serve(stream, &source, limits).await;
                    drop(place);
                });
            }
            Err(_) if warned.is_none_or(|at| at.elapsed() > WARN_EVERY) => {
                warned = Some(Instant::now());
                tracing::warn!(limit = limits.connections, "the health server is full; further connections are closed");
            }
            Err(_) => {}
        }
    }
}

/// Answers one request.
async fn serve(stream: TcpStream, source: &Arc<Source>, limits: Limits) {
    let listens = AtomicBool::new(false);
    let service = service_fn(|request| {
        let listens = &listens;
        async move {
            let response = source.answer(&request).await;
            listens.store(matches!(response.body(), Answer::Events(_)), Relaxed);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(limits.head_bytes)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut ended = timeout(limits.lifetime, &mut connection).await;
    if ended.is_err() && listens.load(Relaxed) {
        ended = timeout(limits.listening.saturating_sub(limits.lifetime), connection).await;
    }
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the health server failed"),
        Err(_) if listens.load(Relaxed) => {}
        Err(_) => tracing::debug!("a connection to the health server took longer than {:?}", limits.lifetime),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn start(limits: Limits, metrics: Metrics) -> HealthServer {
        HealthServer::start_within(limits, ([127, 0, 0, 1], 0).into(), Arc::new(metrics)).unwrap()
    }

    /// Asks for a path, and returns what came until the connection was closed.
    fn ask(server: &HealthServer, path: &str) -> String {
        let mut socket = std::net::TcpStream::connect(server.local_addr()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answer = Vec::new();
        // A place that is not free yet shows as a connection that fails at any of these.
        let _ = write!(socket, "GET {path} HTTP/1.1\r\n\r\n");
        let _ = socket.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn a_reader_that_never_reads_loses_its_place_when_its_time_is_up() {
        // A page that no pair of socket buffers can hold.
        let names: Vec<_> =
            (0..6_000).map(|number| format!("a message type with quite a long name, number {number}")).collect();
        let metrics = Metrics::new(names.iter().map(String::as_str), 1, 10);
        // Long enough to begin with such a page on any machine.
        let limits = Limits { connections: 1, lifetime: Duration::from_secs(3), ..Limits::default() };
        let server = start(limits, metrics);

        let began = Instant::now();
        let mut idle = std::net::TcpStream::connect(server.local_addr()).unwrap();
        idle.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        while !answer.starts_with("HTTP/1.1 200") {
            assert!(began.elapsed() < Duration::from_secs(60), "the place was never free again");
            answer = ask(&server, "/page.css");
        }
        assert!(began.elapsed() >= limits.lifetime, "the place was free before its time");
        let mut page = Vec::new();
        let _ = idle.read_to_end(&mut page);
        assert!(page.starts_with(b"HTTP/1.1 200") && !page.ends_with(b"\n"), "the page came whole");
    }

    #[test]
    fn a_listener_keeps_its_place_longer_than_others_and_loses_it_when_its_time_is_up() {
        let limits =
            Limits { lifetime: Duration::from_secs(1), listening: Duration::from_millis(2_500), ..Limits::default() };
        let server = start(limits, Metrics::new([].into_iter(), 1, 1));
        let began = Instant::now();
        let told = ask(&server, "/events");
        assert!(began.elapsed() >= limits.listening, "closed after {:?}", began.elapsed());
        assert!(told.contains("\r\ndata: "), "{told}");
    }

    #[test]
    fn an_address_in_use_is_an_error() {
        let first = start(Limits::default(), Metrics::new([].into_iter(), 1, 1));
        let second = HealthServer::start(first.local_addr(), Arc::new(Metrics::new([].into_iter(), 1, 1)));
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
