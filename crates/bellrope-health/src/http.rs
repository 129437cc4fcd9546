//! A bounded HTTP/1.1 listener: one thread or several, any service, and a limit on all that a client can take.
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

mod answering;
mod config;
mod conversation;
mod door;
mod helpers;
mod phase;
mod places;
mod refusal;
mod serving;
mod stall;
mod tracked;

use std::{
    convert::Infallible,
    error::Error,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use answering::{Answerer, answerer};
pub use config::{ConnectionTime, ListenerConfig, ListenerEvent};
pub use conversation::ComingBody;
use door::{Door, Newcomer};
use helpers::Helpers;
use hyper::{
    Request, Response,
    body::{Body, Bytes, Incoming},
    service::Service,
};
use phase::{Phase, until};
use places::NoPlace;
use serving::{Serving, be_the_earliest};
use tokio::{net::TcpListener, runtime::Runtime, sync::watch, task::JoinSet};

/// Connections that the kernel keeps until they are taken; it has a limit of its own, 4,096 (`net.core.somaxconn`). Beyond
/// that it drops what a client begins with, and the client begins again only a second later: with the usual 128 a flood of
/// connections held up probes for that long, wherever this thread was kept from its work for a moment.
const BACKLOG: i32 = 4_096;
/// How long accepting rests when the system refuses it.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Connections that wait at the same time for a place that may be free soon, and for how long; further ones hear at once that
/// there is none.
const MOST_WAITING: usize = 64;
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Serves HTTP/1.1 until it is dropped, which closes every connection at once.
#[derive(Debug)]
pub struct HttpListener {
    config: ListenerConfig,
    local_addr: SocketAddr,
    dropped: Arc<AtomicU64>,
    phase: watch::Sender<Phase>,
    /// Disconnected when the thread has ended.
    gone: mpsc::Receiver<Infallible>,
    thread: Option<JoinHandle<()>>,
}

impl HttpListener {
    /// Takes the address and starts to serve there. Port 0 means any free one: see [`HttpListener::local_addr`].
    ///
    /// # Errors
    /// If the address is taken or not ours, or the system has no thread or descriptor left.
    pub fn start<S, B>(addr: SocketAddr, config: ListenerConfig, service: S) -> io::Result<Self>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
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
        S::Future: Send + 'static,
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        Self::serve(listener, config, answerer(service))
    }

    fn serve(listener: std::net::TcpListener, config: ListenerConfig, answerer: Answerer) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let local_addr = listener.local_addr()?;
        let (phase, phases) = watch::channel(Phase::Serving);
        let (report, started) = mpsc::sync_channel(1);
        let (lifeline, gone) = mpsc::channel();
        let dropped = Arc::<AtomicU64>::default();
        let door = Door::new(config, local_addr, Arc::clone(&dropped));
        let run = move || {
            let _lifeline = lifeline;
            let serving = Serving { config, answerer, phases };
            match prepare(listener, &serving) {
                Ok((runtime, listener, helpers)) => {
                    let _ = report.send(Ok(()));
                    runtime.block_on(serve(listener, door, helpers, serving));
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
        Ok(Self { config, local_addr, dropped, phase, gone, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Connections that were closed without an answer of the service: refused, out of place, or put out for others.
    #[must_use]
    pub fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// Takes no new connection and no new request from now on. Requests that are under way go on.
    pub fn begin_drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Has the answers that are being made or sent polled once more after [`HttpListener::begin_drain`], so that they see what
    /// has changed without a wake-up of their own.
    pub fn poll_all(&self) {
        self.phase.send_replace(Phase::Polling);
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

fn prepare(listener: std::net::TcpListener, serving: &Serving) -> io::Result<(Runtime, TcpListener, Helpers)> {
    rustix::net::listen(&listener, BACKLOG)?;
    let runtime = helpers::runtime()?;
    let context = runtime.enter();
    let listener = TcpListener::from_std(listener)?;
    drop(context);
    Ok((runtime, listener, Helpers::start(serving)?))
}

/// Serves until it is to drain, and then until every connection has ended or it is to stop.
async fn serve(listener: TcpListener, mut door: Door, mut helpers: Helpers, serving: Serving) {
    let mut phases = serving.phases.clone();
    tokio::select! {
        () = until(&mut phases, |phase| phase != Phase::Serving) => {}
        () = be_the_earliest(&serving.config) => {}
        () = accept(&listener, &mut door, &helpers, &serving) => {}
    }
    drop(listener);
    tokio::select! {
        () = helpers.all_ended() => {}
        () = until(&mut phases, |phase| phase == Phase::Stopped) => {}
    }
}

async fn accept(listener: &TcpListener, door: &mut Door, helpers: &Helpers, serving: &Serving) {
    let config = door.config;
    // Those that found no place, until there may be one.
    let mut waiting = JoinSet::new();
    loop {
        let (stream, from, may_wait) = tokio::select! {
            Some(Ok((stream, from))) = waiting.join_next(), if !waiting.is_empty() => (stream, from, false),
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => (stream, from, waiting.len() < MOST_WAITING),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    config.report(&ListenerEvent::CannotAccept { error: &error, rest: ACCEPT_REST });
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            },
        };
        match door.receive(from, stream.local_addr().ok(), may_wait) {
            // What cannot be handed over is closed.
            Newcomer::Comes(place) => drop(helpers.assign(stream, place, serving)),
            Newcomer::NoPlace(NoPlace { maybe_at: Some(at) }) if may_wait => {
                waiting.spawn(async move {
                    tokio::time::sleep_until(at.min(Instant::now() + LONGEST_WAIT).into()).await;
                    (stream, from)
                });
            }
            Newcomer::NoPlace(_) => {
                // Where so many hear it already, the connection is closed as it is.
                if let Ok(turn) = Arc::clone(&door.refusals).try_acquire_owned() {
                    tokio::spawn(async move {
                        refusal::refuse(stream, config.full_answer).await;
                        drop(turn);
                    });
                }
            }
            Newcomer::Stranger => {}
        }
    }
}

#[cfg(test)]
mod tests;
