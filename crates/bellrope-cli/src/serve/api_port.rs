//! OpenAI's chat completions on the loopback address, for the many programs that speak them: the gateway's providers
//! behind one address. Off unless a port is given.
//!
//! | module | what it holds |
//! |---|---|
//! | [`answer`] | the gateway's chunks in OpenAI's form |
//! | [`fault`] | errors in OpenAI's form, each with its status |
//! | [`guard`] | who may ask: not a web page, and not another user |
//! | [`patience`] | a socket whose reader must not stand still |
//! | [`peer`] | which user is at the other end of a connection |
//! | [`request`] | requests in OpenAI's form, as the gateway takes them |
//! | [`service`] | the paths, and the bodies of requests |
//!
//! It has one thread of its own, asks the gateway within the process, and bounds connections, bytes and time. Everything
//! pulls: a client that reads slowly slows its provider down, and one that goes away takes its provider's stream along.

mod answer;
mod fault;
mod guard;
mod patience;
mod peer;
mod request;
mod service;

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use bellrope_gateway::LiveGateway;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};

use patience::Patience;
use service::Service;

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope::ingress";

/// Connections open at once; one more is closed at once.
const MAX_CONNECTIONS: usize = 64;
/// Bytes of a request's head.
const MAX_HEAD: usize = 8 * 1024;
/// How long a client may take to send a request's head, or to begin its next request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a client may read nothing while there is something to read.
const READ_TIME: Duration = Duration::from_secs(120);
/// How long accepting rests when the system refuses it.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// A flood of connections makes one line in the log this often, not one a connection.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Serves OpenAI's chat completions until it is dropped.
#[derive(Debug)]
pub(crate) struct ApiPort {
    local_addr: SocketAddr,
    phase: watch::Sender<Phase>,
    /// Says that the thread has let every connection go. Dropped with the thread.
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

impl ApiPort {
    /// Takes a port of the loopback address and starts to serve there. Port 0 means any free one.
    pub(crate) fn start(port: u16, gateway: LiveGateway) -> anyhow::Result<Self> {
        let listen = || {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
            listener.set_nonblocking(true)?;
            Ok::<_, io::Error>((listener.local_addr()?, listener))
        };
        let mend = || format!("OpenAI's API cannot be served on port {port}; choose another with --openai-port");
        let (local_addr, listener) = listen().with_context(mend)?;
        let (phase, phases) = watch::channel(Phase::Serving);
        let (report, started) = mpsc::sync_channel(1);
        let (lifeline, gone) = mpsc::channel();
        let run = move || {
            let _lifeline = lifeline;
            match prepare(listener) {
                Ok((runtime, listener)) => {
                    let _ = report.send(Ok(()));
                    runtime.block_on(serve(listener, Arc::new(Service::new(gateway)), phases));
                    runtime.shutdown_background();
                }
                Err(error) => {
                    let _ = report.send(Err(error));
                }
            }
        };
        let thread = std::thread::Builder::new().name("bellrope-openai".to_owned()).spawn(run)?;
        started.recv().map_err(|_| anyhow!("the thread for OpenAI's API panicked at its start"))??;
        Ok(Self { local_addr, phase, gone, thread: Some(thread) })
    }

    /// Where it listens.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Takes nothing new from now on. What is under way goes on.
    pub(crate) fn begin_drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Waits until what was under way has ended, at most until `deadline`. Whether it has.
    pub(crate) fn drained_by(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        matches!(self.gone.recv_timeout(left), Err(mpsc::RecvTimeoutError::Disconnected))
    }
}

impl Drop for ApiPort {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Stopped);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(target: TARGET, "the thread for OpenAI's API panicked");
        }
    }
}

fn prepare(listener: std::net::TcpListener) -> io::Result<(Runtime, TcpListener)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let context = runtime.enter();
    let listener = TcpListener::from_std(listener)?;
    drop(context);
    Ok((runtime, listener))
}

/// Serves until it is to drain, and then until every connection has ended or it is to stop.
async fn serve(listener: TcpListener, service: Arc<Service>, mut phases: watch::Receiver<Phase>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let over = phases.clone();
    tokio::select! {
        () = until(&mut phases, |phase| phase != Phase::Serving) => {}
        () = accept(&listener, &service, &places, &over) => {}
    }
    drop(listener);
    tokio::select! {
        _ = places.acquire_many(MAX_CONNECTIONS as u32) => {}
        () = until(&mut phases, |phase| phase == Phase::Stopped) => {}
    }
}

async fn until(phases: &mut watch::Receiver<Phase>, reached: impl Fn(Phase) -> bool) {
    // That nobody can change the phase any more is as good as a stop.
    let _ = phases.wait_for(|phase| reached(*phase)).await;
}

async fn accept(
    listener: &TcpListener,
    service: &Arc<Service>,
    places: &Arc<Semaphore>,
    phases: &watch::Receiver<Phase>,
) {
    let mut warned: Option<Instant> = None;
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                tracing::warn!(target: TARGET, %error, "OpenAI's API can not accept; resting for {ACCEPT_REST:?}");
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
        };
        match Arc::clone(places).try_acquire_owned() {
            Ok(place) => {
                tokio::spawn(converse(stream, from, Arc::clone(service), place, phases.clone()));
            }
            Err(_) if warned.is_none_or(|at| at.elapsed() > WARN_EVERY) => {
                warned = Some(Instant::now());
                tracing::warn!(target: TARGET, limit = MAX_CONNECTIONS, "OpenAI's API is full; further connections are closed");
            }
            Err(_) => {}
        }
    }
}

/// Answers the requests of one connection.
async fn converse(
    stream: TcpStream,
    from: SocketAddr,
    service: Arc<Service>,
    place: OwnedSemaphorePermit,
    mut phases: watch::Receiver<Phase>,
) {
    if let Err(reason) = peer::check(from) {
        tracing::warn!(target: TARGET, %from, "a connection to OpenAI's API was closed: {reason}");
        return;
    }
    // Small pieces of answers go out at once.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Patience::new(stream, READ_TIME)), service);
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = until(&mut phases, |phase| phase != Phase::Serving) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(target: TARGET, %error, "a connection to OpenAI's API failed");
    }
    drop(place);
}
