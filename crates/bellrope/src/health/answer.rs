//! What is answered to which request. No socket here.

use std::{sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};
use serde::Serialize;
use serde_json::json;
use tokio::{sync::Semaphore, time::Instant};

use super::{
    events::{Answer, Events},
    exposition,
    overview::{Condition, Health},
    process::ProcessFacts,
};
use crate::Metrics;

/// Every path there is, and what it shows.
const PATHS: [(&str, Page); 11] = [
    ("/", Page::Asset("text/html; charset=utf-8", include_str!("page/page.html"))),
    ("/page.css", Page::Asset("text/css; charset=utf-8", include_str!("page/page.css"))),
    ("/page.js", Page::Asset("text/javascript; charset=utf-8", include_str!("page/page.js"))),
    ("/events", Page::Events),
    ("/health", Page::Health),
    ("/healthz", Page::Health),
    ("/metrics", Page::Metrics),
    ("/ready", Page::Ready),
    ("/readyz", Page::Ready),
    ("/live", Page::Live),
    ("/livez", Page::Live),
];

/// How long the loops of the server may take to answer. Below the second that probes commonly wait.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often their answers are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// The page takes its parts and its events from here and nothing from anywhere else; nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

#[derive(Debug, Clone, Copy)]
enum Page {
    /// Something embedded: its type and its text.
    Asset(&'static str, &'static str),
    Events,
    Health,
    Metrics,
    Ready,
    Live,
}

/// Where the answers come from.
#[derive(Debug)]
pub(super) struct Source {
    metrics: Arc<Metrics>,
    process_started: Option<f64>,
    /// Places for listeners to events.
    listeners: Arc<Semaphore>,
}

impl Source {
    pub(super) fn new(metrics: Arc<Metrics>, listeners: usize) -> Self {
        Self { metrics, process_started: ProcessFacts::start_time(), listeners: Arc::new(Semaphore::new(listeners)) }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The answer to a request. Its body is not looked at.
    pub(super) async fn answer<B>(self: &Arc<Self>, request: &Request<B>) -> Response<Answer> {
        let Some((_, page)) = PATHS.iter().find(|(path, _)| *path == request.uri().path()) else {
            let paths = PATHS.map(|(path, _)| path);
            return json(StatusCode::NOT_FOUND, &json!({ "error": "no such path", "paths": paths }));
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal =
                json(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "only GET and HEAD are answered" }));
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match *page {
            Page::Asset(content_type, text) => respond(StatusCode::OK, content_type, whole(text)),
            Page::Events => self.events(request.method() == Method::HEAD),
            Page::Health => {
                let condition = self.condition().await;
                json(StatusCode::OK, &Health::new(&self.metrics, self.metrics.snapshot(), &condition))
            }
            Page::Metrics => {
                let page = exposition::page(&self.metrics.snapshot(), &ProcessFacts::now(self.process_started));
                respond(StatusCode::OK, exposition::CONTENT_TYPE, whole(page))
            }
            Page::Ready => probe("ready", self.condition().await.not_ready()),
            Page::Live => probe("alive", self.condition().await.wedged()),
        }
    }

    async fn condition(&self) -> Condition {
        condition(&self.metrics).await
    }

    fn events(self: &Arc<Self>, head_only: bool) -> Response<Answer> {
        let Ok(place) = Arc::clone(&self.listeners).try_acquire_owned() else {
            let reason = "as many listen already as may";
            return json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": reason }));
        };
        let body = if head_only { whole("") } else { Answer::Events(Events::new(Arc::clone(self), place)) };
        respond(StatusCode::OK, "text/event-stream", body)
    }
}

/// Asks the loops of the server, and waits for their answers.
pub(super) async fn condition(metrics: &Metrics) -> Condition {
    let pulse = metrics.liveness();
    let (asked, until) = (pulse.ask(), Instant::now() + PATIENCE);
    loop {
        let silent: Vec<_> = pulse.unanswered(asked).collect();
        if silent.is_empty() || Instant::now() >= until {
            return Condition::new(metrics, silent);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The answer to a probe: whether nothing speaks against it.
fn probe(good: &'static str, reason: Option<String>) -> Response<Answer> {
    match reason {
        None => json(StatusCode::OK, &json!({ "status": good })),
        Some(reason) => {
            json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": format!("not {good}"), "reason": reason }))
        }
    }
}

fn whole(text: impl Into<hyper::body::Bytes>) -> Answer {
    Answer::Whole(Full::new(text.into()))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Answer> {
    // None of the values here can fail to be written: no maps with odd keys, no floats.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    respond(status, "application/json", whole(text))
}

fn respond(status: StatusCode, content_type: &'static str, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use http_body_util::BodyExt as _;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// A source whose loops answer by themselves; the first is the worker's, the second the acceptor's.
    fn source(loops_that_answer: &[usize]) -> Arc<Source> {
        let metrics = Arc::new(Metrics::new(["echo"].into_iter(), 1, 2));
        for index in loops_that_answer.iter().copied() {
            let answering = Arc::downgrade(&metrics);
            metrics.liveness().wake_with(index, move || {
                let Some(metrics) = answering.upgrade() else { return };
                if index == metrics.acceptor() { metrics.accepting(false) } else { metrics.liveness().beat(index) }
            });
        }
        Arc::new(Source::new(metrics, 2))
    }

    /// Status and body of the answer to a GET.
    fn get(source: &Arc<Source>, path: &str) -> (u16, serde_json::Value) {
        runtime().block_on(async {
            let response = source.answer(&Request::get(path).body(()).unwrap()).await;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, serde_json::from_slice(&body).unwrap())
        })
    }

    #[test]
    fn ready_ends_with_the_last_free_place_and_comes_back_with_it() {
        let source = source(&[0, 1]);
        assert_eq!(get(&source, "/ready"), (200, json!({ "status": "ready" })));
        source.metrics.accepted.store(2, Relaxed);
        let reason = "2 connections are open, the limit max_connections";
        assert_eq!(get(&source, "/readyz"), (503, json!({ "status": "not ready", "reason": reason })));
        let (status, health) = get(&source, "/health");
        assert_eq!((status, &health["status"], &health["reason"]), (200, &"full".into(), &reason.into()));
        source.metrics.closed.store(1, Relaxed);
        assert_eq!(get(&source, "/readyz").0, 200);
    }

    // Fault 52.
    #[test]
    fn a_server_that_stops_is_not_ready_but_alive() {
        let source = source(&[0, 1]);
        source.metrics.serving.store(false, Relaxed);
        assert_eq!(get(&source, "/ready").0, 503);
        assert_eq!(get(&source, "/ready").1["reason"], "the server is stopping");
        assert_eq!(get(&source, "/health").1["status"], "stopping");
        assert_eq!(get(&source, "/live").0, 200);
    }

    // Fault 52.
    #[test]
    fn a_server_whose_acceptor_has_not_begun_is_starting() {
        let source = source(&[0]);
        assert_eq!(get(&source, "/ready"), (503, json!({ "status": "not ready", "reason": "the server is starting" })));
        assert_eq!(get(&source, "/health").1["status"], "starting");
        assert_eq!(get(&source, "/live").0, 200);
    }

    // Fault 52.
    #[test]
    fn a_worker_that_does_not_answer_is_neither_alive_nor_ready() {
        let source = source(&[1]);
        let reason = "worker 0 does not answer: a handler holds it up, or its thread is gone";
        assert_eq!(get(&source, "/live"), (503, json!({ "status": "not alive", "reason": reason })));
        assert_eq!(get(&source, "/ready").1["reason"], reason);
        let (status, health) = get(&source, "/health");
        assert_eq!((status, &health["status"], &health["reason"]), (200, &"wedged".into(), &reason.into()));
    }

    #[test]
    fn an_open_breaker_makes_a_server_neither_unready_nor_dead() {
        let source = source(&[0, 1]);
        let breaker = Arc::new(crate::Breaker::new(crate::BreakerConfig::default()).unwrap());
        breaker.force_open();
        source.metrics.watch_breaker("echo", breaker);
        assert_eq!((get(&source, "/ready").0, get(&source, "/live").0), (200, 200));
        let health = get(&source, "/health").1;
        assert_eq!(health["status"], "healthy");
        assert_eq!(health["breakers"][0]["state"], "open");
        assert_eq!(health["breakers"][0]["opened"], 1);
    }

    #[test]
    fn listeners_are_bounded_and_a_place_comes_back_with_its_listener() {
        let source = source(&[0, 1]);
        runtime().block_on(async {
            let listen = || async { source.answer(&Request::get("/events").body(()).unwrap()).await };
            let mut first = listen().await;
            let second = listen().await;
            assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
            assert_eq!(listen().await.status().as_u16(), 503);
            drop(second);
            assert_eq!(listen().await.status().as_u16(), 200);
            let event = first.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
            let event = std::str::from_utf8(&event).unwrap();
            let data = event.strip_prefix("retry: 1000\n\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
            assert_eq!(serde_json::from_str::<serde_json::Value>(data).unwrap()["health"]["status"], "starting");
        });
    }
}
