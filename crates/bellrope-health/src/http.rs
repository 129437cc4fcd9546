//! A bounded HTTP/1.1 listener: one thread, any service, and a limit on all that a client can take.
//!
//! Connections, bytes of a request's head, the time to send it, the time that a client may read nothing and the time that
//! a connection may last are all limited: see [`ListenerConfig`]. Bodies of requests are the service's business; none is
//! read that the service does not ask for.
//!
//! ```
//! use std::{
//!     convert::Infallible,
//!     io::{Read, Write},
//! };
//!
//! use bellrope_health::http::{HttpListener, ListenerConfig};
//! use http_body_util::Full;
//! use hyper::{Request, Response, body::{Bytes, Incoming}, service::service_fn};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = ListenerConfig::new("the greeter", "greeter");
//! config.max_connections = 8;
//! let greet = service_fn(|_: Request<Incoming>| async {
//!     Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"good morning"))))
//! });
//! let listener = HttpListener::start("127.0.0.1:0".parse()?, config, greet)?;
//!
//! let mut socket = std::net::TcpStream::connect(listener.local_addr())?;
//! socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
//! let mut answer = String::new();
//! socket.read_to_string(&mut answer)?;
//! assert!(answer.ends_with("good morning"));
//! # Ok(())
//! # }
//! ```

mod stall;

use std::{
    convert::Infallible,
    error::Error,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hyper::{
    Request, Response,
    body::{Body, Incoming},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use stall::StallBound;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::{Semaphore, watch},
};

/// How long accepting rests when the system refuses it.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// A flood of connections makes one line in the log this often, not one a connection.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The smallest buffer that hyper takes.
const MIN_HEAD_BYTES: usize = 8 * 1024;

/// How an [`HttpListener`] is named, and what a client may take of it. Worst case of memory: `max_connections` times
/// `max_head_bytes`, and what the service holds for each request.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ListenerConfig {
    /// What it is called in the log, such as `the health server`.
    pub name: &'static str,
    /// The name of its thread, at most 15 bytes.
    pub thread_name: &'static str,
    /// Virtual memory of the thread's stack; only touched pages count. Default `None`: as the standard library has it,
    /// 2 MiB.
    pub stack_bytes: Option<usize>,
    /// Connections open at once; one more is closed at once. Default 64.
    pub max_connections: usize,
    /// Bytes of a request's head; fewer than 8 KiB count as 8 KiB. Default 8 KiB.
    pub max_head_bytes: usize,
    /// How long a client may take to send a request's head. Default 5 s.
    pub head_time: Duration,
    /// How long a connection may last, its answers included; `None` for ever. A response may allow its connection
    /// a longer time: see [`ConnectionTime`]. Default 10 s.
    pub connection_time: Option<Duration>,
    /// How long a client may read nothing while there is something to read; `None` for as long as the connection lasts.
    /// Default `None`.
    pub stall_time: Option<Duration>,
    /// Whether a connection may carry more than one request. Default no: then no client keeps a place for long.
    pub keep_alive: bool,
    /// Whether small pieces of an answer are sent at once (`TCP_NODELAY`). Default no.
    pub nodelay: bool,
    /// Whether a connection from this address may stay, or why not. Default: every one may.
    pub admit: fn(SocketAddr) -> Result<(), String>,
    /// Logs what the listener, of this name, reports. Default: log lines with the target `bellrope_health::http`.
    pub log: fn(&'static str, &ListenerEvent<'_>),
}

impl ListenerConfig {
    /// The defaults, with these names.
    #[must_use]
    pub fn new(name: &'static str, thread_name: &'static str) -> Self {
        Self {
            name,
            thread_name,
            stack_bytes: None,
            max_connections: 64,
            max_head_bytes: 8 * 1024,
            head_time: Duration::from_secs(5),
            connection_time: Some(Duration::from_secs(10)),
            stall_time: None,
            keep_alive: false,
            nodelay: false,
            admit: |_| Ok(()),
            log,
        }
    }

    fn report(&self, event: &ListenerEvent<'_>) {
        (self.log)(self.name, event);
    }
}

/// What a listener reports: see [`ListenerConfig::log`].
#[derive(Debug)]
#[non_exhaustive]
pub enum ListenerEvent<'a> {
    /// It listens at this address.
    Listens(SocketAddr),
    /// The system gives it no connection; it rests for this time before it accepts again.
    CannotAccept {
        /// What the system says.
        error: &'a io::Error,
        /// How long it rests.
        rest: Duration,
    },
    /// As many connections are open as may be; further ones are closed. Reported at most once a minute.
    Full {
        /// [`ListenerConfig::max_connections`].
        limit: usize,
    },
    /// A connection was closed because [`ListenerConfig::admit`] refused it.
    Refused {
        /// Where it came from.
        from: SocketAddr,
        /// Why it was refused.
        reason: &'a str,
    },
    /// A connection ended with an error.
    Failed(&'a hyper::Error),
    /// A connection was closed because it lasted longer than [`ListenerConfig::connection_time`].
    TookTooLong(Duration),
    /// The listener's thread panicked.
    Panicked,
}

/// The default of [`ListenerConfig::log`].
fn log(name: &'static str, event: &ListenerEvent<'_>) {
    match event {
        ListenerEvent::Listens(local_addr) => tracing::debug!(%local_addr, "{name} listens"),
        ListenerEvent::CannotAccept { error, rest } => {
            tracing::warn!(%error, "{name} can not accept; resting for {rest:?}");
        }
        ListenerEvent::Full { limit } => tracing::warn!(limit, "{name} is full; further connections are closed"),
        ListenerEvent::Refused { from, reason } => {
            tracing::warn!(%from, "a connection to {name} was closed: {reason}");
        }
        ListenerEvent::Failed(error) => tracing::debug!(%error, "a connection to {name} failed"),
        ListenerEvent::TookTooLong(time) => tracing::debug!("a connection to {name} took longer than {time:?}"),
        ListenerEvent::Panicked => tracing::error!("{name}'s thread panicked"),
    }
}

/// How long the connection of a response may last, from its beginning. Put into the extensions of a response, it extends
/// [`ListenerConfig::connection_time`]: for the few answers that last longer than all others. A shorter time has no
/// effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionTime(pub Duration);

/// Serves HTTP/1.1 until it is dropped, which closes every connection at once.
#[derive(Debug)]
pub struct HttpListener {
    config: ListenerConfig,
    local_addr: SocketAddr,
    phase: watch::Sender<Phase>,
    /// Disconnected when the thread has ended.
    gone: mpsc::Receiver<Infallible>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Nothing new is taken; what is under way ends.
    Draining,
    Stopped,
}

impl HttpListener {
    /// Takes the address and starts to serve there. Port 0 means any free one: see [`HttpListener::local_addr`].
    ///
    /// # Errors
    /// If the address is taken or not ours, or the system has no thread or descriptor left.
    pub fn start<S, B>(addr: SocketAddr, config: ListenerConfig, service: S) -> io::Result<Self>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync + 'static,
        S::Future: Send,
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        Self::on(std::net::TcpListener::bind(addr)?, config, service)
    }

    /// As [`HttpListener::start`], on a socket that listens already.
    ///
    /// # Errors
    /// If the system has no thread or descriptor left.
    pub fn on<S, B>(listener: std::net::TcpListener, config: ListenerConfig, service: S) -> io::Result<Self>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync + 'static,
        S::Future: Send,
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        listener.set_nonblocking(true)?;
        let local_addr = listener.local_addr()?;
        let (phase, phases) = watch::channel(Phase::Serving);
        let (report, started) = mpsc::sync_channel(1);
        let (lifeline, gone) = mpsc::channel();
        let run = move || {
            let _lifeline = lifeline;
            match prepare(listener) {
                Ok((runtime, listener)) => {
                    let _ = report.send(Ok(()));
                    runtime.block_on(serve(listener, config, Arc::new(service), phases));
                    // Takes all connections along.
                    runtime.shutdown_background();
                }
                Err(error) => {
                    let _ = report.send(Err(error));
                }
            }
        };
        let mut thread = std::thread::Builder::new().name(config.thread_name.to_owned());
        if let Some(bytes) = config.stack_bytes {
            thread = thread.stack_size(bytes);
        }
        let thread = thread.spawn(run)?;
        let name = config.name;
        started.recv().map_err(|_| io::Error::other(format!("{name}'s thread panicked at its start")))??;
        config.report(&ListenerEvent::Listens(local_addr));
        Ok(Self { config, local_addr, phase, gone, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Takes no new connection and no new request from now on. Requests that are under way go on.
    pub fn begin_drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Waits until the requests under way have ended after [`HttpListener::begin_drain`], at most until `deadline`.
    /// Returns whether they have.
    #[must_use]
    pub fn drained_by(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        matches!(self.gone.recv_timeout(left), Err(mpsc::RecvTimeoutError::Disconnected))
    }
}

impl Drop for HttpListener {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Stopped);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            self.config.report(&ListenerEvent::Panicked);
        }
    }
}

fn prepare(listener: std::net::TcpListener) -> io::Result<(Runtime, TcpListener)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_io_events_per_tick(64).build()?;
    let context = runtime.enter();
    let listener = TcpListener::from_std(listener)?;
    drop(context);
    Ok((runtime, listener))
}

/// Serves until it is to drain, and then until every connection has ended or it is to stop.
async fn serve<S, B>(listener: TcpListener, config: ListenerConfig, service: Arc<S>, mut phases: watch::Receiver<Phase>)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(config.max_connections));
    let over = phases.clone();
    tokio::select! {
        () = until(&mut phases, |phase| phase != Phase::Serving) => {}
        () = accept(&listener, config, &service, &places, &over) => {}
    }
    drop(listener);
    let all = u32::try_from(config.max_connections).unwrap_or(u32::MAX);
    tokio::select! {
        _ = places.acquire_many(all) => {}
        () = until(&mut phases, |phase| phase == Phase::Stopped) => {}
    }
}

async fn until(phases: &mut watch::Receiver<Phase>, reached: impl Fn(Phase) -> bool) {
    // That nobody can change the phase any more is as good as a stop.
    let _ = phases.wait_for(|phase| reached(*phase)).await;
}

async fn accept<S, B>(
    listener: &TcpListener,
    config: ListenerConfig,
    service: &Arc<S>,
    places: &Arc<Semaphore>,
    phases: &watch::Receiver<Phase>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let mut warned: Option<Instant> = None;
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                config.report(&ListenerEvent::CannotAccept { error: &error, rest: ACCEPT_REST });
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
        };
        match Arc::clone(places).try_acquire_owned() {
            Ok(place) => {
                let (service, phases) = (Arc::clone(service), phases.clone());
                tokio::spawn(async move {
                    match (config.admit)(from) {
                        Ok(()) => converse(stream, config, &*service, phases).await,
                        Err(reason) => {
                            config.report(&ListenerEvent::Refused { from, reason: &reason });
                            drop(stream);
                        }
                    }
                    drop(place);
                });
            }
            Err(_) if warned.is_none_or(|at| at.elapsed() > WARN_EVERY) => {
                warned = Some(Instant::now());
                config.report(&ListenerEvent::Full { limit: config.max_connections });
            }
            Err(_) => {}
        }
    }
}

/// Answers the requests of one connection.
async fn converse<S, B>(stream: TcpStream, config: ListenerConfig, service: &S, mut phases: watch::Receiver<Phase>)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync,
    S::Future: Send,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    let began = tokio::time::Instant::now();
    if config.nodelay {
        let _ = stream.set_nodelay(true);
    }
    // What the last response has allowed.
    let allowed = Mutex::new(None);
    let allowed_time = || *allowed.lock().unwrap_or_else(PoisonError::into_inner);
    let service = service_fn(|request| {
        let (answering, allowed) = (service.call(request), &allowed);
        async move {
            let mut response = answering.await?;
            let time = response.extensions_mut().remove::<ConnectionTime>().map(|ConnectionTime(time)| time);
            *allowed.lock().unwrap_or_else(PoisonError::into_inner) = time;
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.head_time)
        .max_buf_size(config.max_head_bytes.max(MIN_HEAD_BYTES))
        .keep_alive(config.keep_alive)
        .serve_connection(TokioIo::new(StallBound::new(stream, config.stall_time)), service);
    let mut connection = pin!(connection);
    let mut ending = pin!(until(&mut phases, |phase| phase != Phase::Serving));
    let mut drains = false;
    loop {
        let (of_its_own, may_last) = (allowed_time(), allowed_time().or(config.connection_time));
        tokio::select! {
            outcome = connection.as_mut() => {
                if let Err(error) = outcome {
                    config.report(&ListenerEvent::Failed(&error));
                }
                return;
            }
            () = ending.as_mut(), if !drains => {
                drains = true;
                connection.as_mut().graceful_shutdown();
            }
            () = time_is_up(may_last.map(|time| began + time)) => match (of_its_own, may_last) {
                // A response has allowed a longer time meanwhile.
                _ if allowed_time() != of_its_own => {}
                (None, Some(time)) => {
                    config.report(&ListenerEvent::TookTooLong(time));
                    return;
                }
                _ => return,
            },
        }
    }
}

/// Returns at this moment; never without one.
async fn time_is_up(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use http_body_util::Full;
    use hyper::body::Bytes;

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
        config.admit = |_| Err("not in this test".to_owned());
        assert_eq!(answer(asked(&start(config, 3, Duration::ZERO))), "");
    }

    #[test]
    fn what_happens_is_reported_to_the_log_of_the_configuration() {
        static REFUSED: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let mut config = ListenerConfig::new("a test", "test");
        config.admit = |_| Err("not in this test".to_owned());
        config.log = |name, event| {
            if let ListenerEvent::Refused { reason, .. } = event {
                REFUSED.lock().unwrap().push(format!("{name}: {reason}"));
            }
        };
        assert_eq!(answer(asked(&start(config, 3, Duration::ZERO))), "");
        assert_eq!(*REFUSED.lock().unwrap(), ["a test: not in this test"]);
    }
}
