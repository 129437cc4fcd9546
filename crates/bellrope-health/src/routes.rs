//! The response to each request. No socket here.

use std::sync::Arc;

use bellrope::status::{Health, Metrics};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::{
    events::{Events, PageBody},
    exposition,
    process::ProcessFacts,
};

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

/// What the responses are made from.
#[derive(Debug)]
pub(crate) struct Source {
    metrics: Arc<Metrics>,
    process_started: Option<f64>,
    /// Places for listeners to events.
    listeners: Arc<Semaphore>,
}

impl Source {
    pub(crate) fn new(metrics: Arc<Metrics>, listeners: usize) -> Self {
        Self { metrics, process_started: ProcessFacts::start_time(), listeners: Arc::new(Semaphore::new(listeners)) }
    }

    /// The answer to a request. Its body is not looked at.
    pub(crate) async fn answer<B>(&self, request: &Request<B>) -> Response<PageBody> {
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
                let condition = self.metrics.condition().await;
                json(StatusCode::OK, &Health::new(&self.metrics, &condition))
            }
            Page::Metrics => {
                let page = exposition::page(&self.metrics.snapshot(), &ProcessFacts::now(self.process_started));
                respond(StatusCode::OK, exposition::CONTENT_TYPE, whole(page))
            }
            Page::Ready => probe("ready", self.metrics.condition().await.not_ready()),
            Page::Live => probe("alive", self.metrics.condition().await.wedged()),
        }
    }

    fn events(&self, head_only: bool) -> Response<PageBody> {
        let Ok(place) = Arc::clone(&self.listeners).try_acquire_owned() else {
            let reason = "as many listen already as may";
            return json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": reason }));
        };
        let body = if head_only { whole("") } else { PageBody::Events(Events::new(Arc::clone(&self.metrics), place)) };
        respond(StatusCode::OK, "text/event-stream", body)
    }
}

/// The answer to a probe: whether nothing speaks against it.
fn probe(good: &'static str, reason: Option<String>) -> Response<PageBody> {
    match reason {
        None => json(StatusCode::OK, &json!({ "status": good })),
        Some(reason) => {
            json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": format!("not {good}"), "reason": reason }))
        }
    }
}

fn whole(text: impl Into<hyper::body::Bytes>) -> PageBody {
    PageBody::Whole(Full::new(text.into()))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<PageBody> {
    // None of the values here can fail to be written: no maps with odd keys, no floats.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    respond(status, "application/json", whole(text))
}

fn respond(status: StatusCode, content_type: &'static str, body: PageBody) -> Response<PageBody> {
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
    use std::time::{Duration, Instant};

    use bellrope::{
        Server,
        breaker::{Breaker, BreakerConfig},
    };
    use http_body_util::BodyExt as _;
    use tempfile::TempDir;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// A server, and a source that shows it and takes two listeners.
    fn source() -> (Server, Source, TempDir) {
        let home = tempfile::tempdir().unwrap();
        let server = Server::builder()
            .unary("echo", |call, reply| {
                reply.put(call.payload());
                Ok(())
            })
            .bind(home.path().join("run").join("test.sock"))
            .unwrap();
        let source = Source::new(server.metrics(), 2);
        (server, source, home)
    }

    /// Status and body of a response.
    fn parts(response: Response<PageBody>) -> (u16, serde_json::Value) {
        runtime().block_on(async {
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, serde_json::from_slice(&body).unwrap())
        })
    }

    /// Status and body of the response to a GET.
    fn get(source: &Source, path: &str) -> (u16, serde_json::Value) {
        parts(runtime().block_on(source.answer(&Request::get(path).body(()).unwrap())))
    }

    // Fault 52.
    #[test]
    fn a_probe_says_no_with_the_reason() {
        assert_eq!(parts(probe("ready", None)), (200, json!({ "status": "ready" })));
        assert_eq!(parts(probe("alive", None)), (200, json!({ "status": "alive" })));
        let reason = "2 connections are open, the limit max_connections";
        assert_eq!(
            parts(probe("ready", Some(reason.to_owned()))),
            (503, json!({ "status": "not ready", "reason": reason }))
        );
        let reason = "worker 0 does not answer: a handler holds it up, or its thread is gone";
        assert_eq!(
            parts(probe("alive", Some(reason.to_owned()))),
            (503, json!({ "status": "not alive", "reason": reason }))
        );
    }

    // Fault 52.
    #[test]
    fn a_server_that_stops_is_not_ready_but_alive() {
        let (server, source, _home) = source();
        server.shutdown();
        let reason = "the server is stopping";
        assert_eq!(get(&source, "/ready"), (503, json!({ "status": "not ready", "reason": reason })));
        let (status, health) = get(&source, "/health");
        assert_eq!((status, &health["status"], &health["reason"]), (200, &"stopping".into(), &reason.into()));
        assert_eq!(get(&source, "/live"), (200, json!({ "status": "alive" })));
    }

    #[test]
    fn an_open_breaker_makes_a_server_neither_unready_nor_dead() {
        let (server, source, _home) = source();
        let breaker = Arc::new(Breaker::new(BreakerConfig::default()).unwrap());
        breaker.force_open();
        server.metrics().watch_breaker("echo", breaker);
        // Its threads may be slow to begin.
        let began = Instant::now();
        while get(&source, "/ready").0 != 200 && began.elapsed() < Duration::from_secs(60) {}
        assert_eq!((get(&source, "/ready").0, get(&source, "/live").0), (200, 200));
        let health = get(&source, "/health").1;
        assert_eq!(health["status"], "healthy");
        assert_eq!(health["breakers"][0]["state"], "open");
        assert_eq!(health["breakers"][0]["opened"], 1);
    }

    #[test]
    fn listeners_are_bounded_and_a_place_comes_back_with_its_listener() {
        let (server, source, _home) = source();
        server.shutdown();
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
            assert_eq!(serde_json::from_str::<serde_json::Value>(data).unwrap()["health"]["status"], "stopping");
        });
    }
}
