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

mod config;
mod door;
mod places;
mod refusal;
mod stall;
mod tracked;

use std::{
    convert::Infallible,
    error::Error,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

pub use config::{ListenerConfig, ListenerEvent};
use door::{Door, Newcomer};
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use places::{Doing, Place};
use stall::StallBound;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::watch,
};
use tracked::Tracked;

/// Connections that the kernel keeps until they are taken; it has a limit of its own, 4,096 (`net.core.somaxconn`). Beyond
/// that it drops what a client begins with, and the client begins again only a second later: with the usual 128 a flood of
/// connections held up probes for that long, wherever this thread was kept from its work for a moment.
const BACKLOG: i32 = 4_096;
/// How long accepting rests when the system refuses it.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// The smallest buffer that hyper takes.
const MIN_HEAD_BYTES: usize = 8 * 1024;

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
    dropped: Arc<AtomicU64>,
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
        let dropped = Arc::<AtomicU64>::default();
        let door = Door::new(config, local_addr, Arc::clone(&dropped));
        let run = move || {
            let _lifeline = lifeline;
            match prepare(listener, &config) {
                Ok((runtime, listener)) => {
                    let _ = report.send(Ok(()));
                    runtime.block_on(serve(listener, door, Arc::new(service), phases));
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

fn prepare(listener: std::net::TcpListener, config: &ListenerConfig) -> io::Result<(Runtime, TcpListener)> {
    let mut runtime = match config.threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        threads => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.worker_threads(threads).thread_name(config.thread_name);
            if let Some(bytes) = config.stack_bytes {
                runtime.thread_stack_size(bytes);
            }
            runtime
        }
    };
    rustix::net::listen(&listener, BACKLOG)?;
    let runtime = runtime.enable_all().max_io_events_per_tick(64).build()?;
    let context = runtime.enter();
    let listener = TcpListener::from_std(listener)?;
    drop(context);
    Ok((runtime, listener))
}

/// Serves until it is to drain, and then until every connection has ended or it is to stop.
async fn serve<S, B>(listener: TcpListener, mut door: Door, service: Arc<S>, mut phases: watch::Receiver<Phase>)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    // Whoever is open holds one end of it; nothing is ever sent.
    let (open, mut all_ended) = tokio::sync::mpsc::channel::<Infallible>(1);
    let over = phases.clone();
    let config = door.config;
    tokio::select! {
        () = until(&mut phases, |phase| phase != Phase::Serving) => {}
        () = be_the_earliest(&config) => {}
        () = accept(&listener, &mut door, &service, &over, &open) => {}
    }
    drop((listener, open));
    tokio::select! {
        _ = all_ended.recv() => {}
        () = until(&mut phases, |phase| phase == Phase::Stopped) => {}
    }
}

/// Keeps a timer that is due before those of connections that wait for their next request. The runtime writes to wake its own
/// thread for every timer that becomes the earliest of all, which each of theirs would be.
async fn be_the_earliest(config: &ListenerConfig) {
    if !config.keep_alive {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(config.head_time / 2).await;
    }
}

async fn until(phases: &mut watch::Receiver<Phase>, reached: impl Fn(Phase) -> bool) {
    // That nobody can change the phase any more is as good as a stop.
    let _ = phases.wait_for(|phase| reached(*phase)).await;
}

async fn accept<S, B>(
    listener: &TcpListener,
    door: &mut Door,
    service: &Arc<S>,
    phases: &watch::Receiver<Phase>,
    open: &tokio::sync::mpsc::Sender<Infallible>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let config = door.config;
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
        match door.receive(from, stream.local_addr().ok()) {
            Newcomer::Comes(place) => {
                let (service, phases, open) = (Arc::clone(service), phases.clone(), open.clone());
                tokio::spawn(async move {
                    converse(stream, config, &*service, phases, place).await;
                    drop(open);
                });
            }
            Newcomer::NoPlace => {
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

/// Answers the requests of one connection.
async fn converse<S, B>(
    stream: TcpStream,
    config: ListenerConfig,
    service: &S,
    mut phases: watch::Receiver<Phase>,
    place: Place,
) where
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
    let place = Arc::new(place);
    let service = service_fn(|request| {
        let (answering, allowed, place) = (service.call(request), &allowed, Arc::clone(&place));
        place.is_now(Doing::Asking);
        async move {
            let mut response = answering.await?;
            let time = response.extensions_mut().remove::<ConnectionTime>().map(|ConnectionTime(time)| time);
            *allowed.lock().unwrap_or_else(PoisonError::into_inner) = time;
            Ok::<_, Infallible>(response.map(|body| Tracked::new(body, place)))
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
            () = place.lost() => return,
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
mod tests;
