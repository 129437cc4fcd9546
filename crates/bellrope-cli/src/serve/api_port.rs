//! The gateway's providers behind one address on the loopback, for the many programs that speak the formats of OpenAI or
//! Anthropic. Off unless a port is given. The formats themselves are in [`bellrope_gateway::inbound`].
//!
//! | module | what it holds |
//! |---|---|
//! | [`bodies`] | the room that the bodies of requests take |
//! | [`body`] | the bodies of answers |
//! | [`events`] | an answer as a stream of events |
//! | [`guard`] | who may ask: not a web page, and not another user |
//! | [`keys`] | the tokens that tools show |
//! | [`lasting`] | work that lasts as long as the body of its answer |
//! | [`models`] | the models of all providers |
//! | [`pass`] | requests and answers that go through as they are |
//! | [`paths`] | the paths, and the methods they take |
//! | [`peer`] | which user is at the other end of a connection |
//! | [`service`] | the bodies of requests, and the way to the gateway |
//! | [`stored`] | responses that are kept |
//!
//! Its [listener](HttpListener) has threads of its own, and bounds connections, bytes and time. It asks the gateway
//! within the process. Everything pulls: a client that reads slowly slows its provider down, and one that goes away takes
//! its provider's stream along.

mod bodies;
mod body;
mod events;
mod guard;
mod keys;
mod lasting;
mod models;
mod on_its_own;
mod pass;
mod paths;
mod peer;
mod service;
mod stored;

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use bellrope::status::Metrics;
use bellrope_gateway::{LiveGateway, ServerStop};
use bellrope_health::http::{HttpListener, ListenerConfig, ListenerEvent};
use hyper::service::service_fn;

pub(crate) use keys::Keys;
use lasting::Lasting;
use service::Service;

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope::api_port";

/// Connections open at once. For one more, one that asks nothing gives way, or the new one hears that there is no place.
const MAX_CONNECTIONS: usize = 1_024;
/// What it hears then, in the form that both kinds of tools read.
const FULL: &str = r#"{"type":"error","error":{"message":"1024 connections are at work, as many as may be; try again","type":"overloaded_error","param":null,"code":"overloaded"}}"#;
/// The most threads that it takes of its own accord: one waits for its requests while another CPU would be free for them, and
/// an idle one costs some 30 KiB.
const MOST_THREADS: usize = 4;
/// Bytes of a request's head.
const MAX_HEAD: usize = 8 * 1024;
/// What it may come to hold at the very most, in bytes: bodies, their values with what is kept of answers, and heads.
pub(crate) const MOST_MEMORY: u64 =
    ((service::BODY_BUDGET + service::VALUES_BUDGET) * 1024 + MAX_CONNECTIONS * MAX_HEAD) as u64;
/// How long a client may take to send a request's head, or to begin its next request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a client may read nothing while there is something to read.
const READ_TIME: Duration = Duration::from_secs(120);

/// Serves the formats of tools until it is dropped.
#[derive(Debug)]
pub(crate) struct ApiPort {
    listener: HttpListener,
    end: ServerStop,
}

impl ApiPort {
    /// Takes a port of the loopback address and starts to serve there. Port 0 means any free one.
    /// `threads`: how many serve it; 0 for one for each CPU, up to four.
    pub(crate) fn start(
        port: u16,
        threads: u32,
        gateway: LiveGateway,
        keys: Keys,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let fix = || format!("the API port cannot be {port}; choose another with --api-port");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(fix)?;
        let end = ServerStop::default();
        let service = Arc::new(Service::new(gateway, keys, end.clone()));
        let activity = metrics.activity();
        let service = service_fn(move |request| {
            let (service, working) = (Arc::clone(&service), activity.begin());
            async move {
                let answer = service.answer(request).await;
                // Until the answer has left, or its reader is gone.
                Ok::<_, Infallible>(answer.map(|body| Lasting { body, _working: working }))
            }
        });
        let listener = HttpListener::on(listener, listener_config(self::threads(threads)), service)?;
        let help = "Connections to the API port that were refused, put out for others, or found no place.";
        metrics.watch_counter("ipc_openai_connections_dropped_total", help, listener.dropped());
        Ok(Self { listener, end })
    }

    /// Where it listens.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Takes nothing new from now on. What is under way goes on.
    pub(crate) fn begin_drain(&self) {
        self.listener.begin_drain();
    }

    /// Waits until what was under way has ended, at most until `deadline`. Whether it has.
    pub(crate) fn drained_by(&self, deadline: Instant) -> bool {
        self.listener.drained_by(deadline)
    }

    /// Ends what is still under way, each answer with an error in the format of its tool, and waits until these have gone
    /// out, at most until `deadline`.
    pub(crate) fn break_off(&self, deadline: Instant) {
        self.end.come();
        self.listener.poll_all();
        let _ = self.listener.drained_by(deadline);
    }
}

/// How many threads serve it.
pub(super) fn threads(wanted: u32) -> usize {
    match wanted {
        0 => std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(MOST_THREADS)),
        wanted => wanted as usize,
    }
}

/// What a client may take. An answer may last as long as its reader keeps reading.
fn listener_config(threads: usize) -> ListenerConfig {
    let mut config = ListenerConfig::new("the API port", "bellrope-api");
    config.threads = threads;
    config.max_connections = MAX_CONNECTIONS;
    config.full_answer = FULL;
    config.max_head_bytes = MAX_HEAD;
    config.head_time = HEAD_TIME;
    config.connection_time = None;
    config.stall_time = Some(READ_TIME);
    config.keep_alive = true;
    // Small pieces of answers go out at once.
    config.nodelay = true;
    config.admit = peer::check;
    config.log = |_, event| log(event);
    config
}

fn log(event: &ListenerEvent<'_>) {
    match event {
        ListenerEvent::CannotAccept { error, rest } => {
            tracing::warn!(target: TARGET, %error, "the API port can not accept; resting for {rest:?}");
        }
        ListenerEvent::Full { limit } => {
            tracing::warn!(target: TARGET, limit, "the API port is full; further connections are answered with 503");
        }
        ListenerEvent::Displaced { limit, from } => {
            tracing::warn!(
                target: TARGET,
                limit,
                %from,
                "the API port has no place left; connections that ask nothing are closed for new ones"
            );
        }
        ListenerEvent::Refused { from, reason, left_out } if *reason == peer::GONE => {
            tracing::debug!(target: TARGET, %from, left_out, "a connection to the API port was closed: {reason}");
        }
        ListenerEvent::Refused { from, reason, left_out } => {
            tracing::warn!(target: TARGET, %from, left_out, "a connection to the API port was closed: {reason}");
        }
        ListenerEvent::Failed(error) => {
            tracing::debug!(target: TARGET, %error, "a connection to the API port failed");
        }
        ListenerEvent::Panicked => tracing::error!(target: TARGET, "the thread of the API port panicked"),
        // It logs nothing about what is as it should be.
        _ => {}
    }
}
