//! The requests of one connection, one after the other.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use hyper::{
    Request,
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, sync::watch};

use super::{
    answering::Answerer,
    config::{ConnectionTime, ListenerConfig, ListenerEvent},
    phase::{Phase, until},
    places::{Doing, Place},
    stall::StallBound,
    tracked::Tracked,
};

/// The smallest buffer that hyper takes.
const MIN_HEAD_BYTES: usize = 8 * 1024;

/// The body of a request that has not come whole. In the extensions of such a request: a service that has read the body says so,
/// and from then on the request counts as being worked on. Until then its connection gives way where there is no place left for
/// another one, but only when its body comes too slowly, and after those that ask nothing.
#[derive(Debug, Clone)]
pub struct ComingBody(Arc<Place>);

impl ComingBody {
    /// The body has been read.
    pub fn has_come(self) {
        self.0.is_now(Doing::Asking);
    }
}

/// Answers the requests of one connection.
pub(super) async fn converse(
    stream: TcpStream,
    config: ListenerConfig,
    answerer: Answerer,
    mut phases: watch::Receiver<Phase>,
    place: Place,
) {
    let began = tokio::time::Instant::now();
    if config.nodelay {
        let _ = stream.set_nodelay(true);
    }
    // What the last response has allowed.
    let allowed = Mutex::new(None);
    let allowed_time = || *allowed.lock().unwrap_or_else(PoisonError::into_inner);
    let place = Arc::new(place);
    let service = service_fn(|mut request: Request<Incoming>| {
        let place = Arc::clone(&place);
        if request.body().is_end_stream() {
            place.is_now(Doing::Asking);
        } else {
            place.is_now(Doing::Sending);
            request.extensions_mut().insert(ComingBody(Arc::clone(&place)));
        }
        let (answering, allowed) = (answerer(request), &allowed);
        async move {
            let mut response = answering.await;
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
        .serve_connection(TokioIo::new(StallBound::new(stream, config.stall_time, Some(Arc::clone(&place)))), service);
    let mut connection = pin!(connection);
    let mut later_phases = phases.clone();
    let mut ending = pin!(until(&mut phases, |phase| phase != Phase::Serving));
    let mut polling = pin!(until(&mut later_phases, |phase| matches!(phase, Phase::Polling | Phase::Stopped)));
    let (mut drains, mut polls) = (false, false);
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
            // With the next turn of this loop.
            () = polling.as_mut(), if drains && !polls => polls = true,
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
