//! What is answered to which request. No socket and no clock here.

use std::sync::Arc;

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Bytes,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};
use serde::{Serialize, Serializer};

use super::{exposition, process::ProcessFacts};
use crate::{MemoryUse, Metrics, TypeSnapshot};

/// Every path there is, and what it shows.
const PATHS: [(&str, Page); 7] = [
    ("/health", Page::Health),
    ("/healthz", Page::Health),
    ("/metrics", Page::Metrics),
    ("/ready", Page::Ready),
    ("/readyz", Page::Ready),
    ("/live", Page::Live),
    ("/livez", Page::Live),
];

#[derive(Debug, Clone, Copy)]
enum Page {
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
}

impl Source {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, process_started: ProcessFacts::start_time() }
    }

    /// The answer to a request. Its body is not looked at.
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let Some((_, page)) = PATHS.iter().find(|(path, _)| *path == request.uri().path()) else {
            let paths = PATHS.map(|(path, _)| path);
            return json(StatusCode::NOT_FOUND, &serde_json::json!({ "error": "no such path", "paths": paths }));
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal =
                json(StatusCode::METHOD_NOT_ALLOWED, &serde_json::json!({ "error": "only GET and HEAD are answered" }));
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match page {
            Page::Health => json(StatusCode::OK, &self.health()),
            Page::Metrics => self.metrics(),
            Page::Ready => match self.readiness(self.metrics.active_connections()).reason() {
                None => json(StatusCode::OK, &serde_json::json!({ "status": "ready" })),
                Some(reason) => json(
                    StatusCode::SERVICE_UNAVAILABLE,
                    &serde_json::json!({ "status": "not ready", "reason": reason }),
                ),
            },
            Page::Live => json(StatusCode::OK, &serde_json::json!({ "status": "alive" })),
        }
    }

    fn readiness(&self, active_connections: u64) -> Readiness {
        let max_connections = self.metrics.max_connections;
        if !self.metrics.is_serving() {
            Readiness::Stopping
        } else if active_connections >= max_connections {
            Readiness::Full { max_connections }
        } else {
            Readiness::Ready
        }
    }

    fn health(&self) -> Health {
        let snapshot = self.metrics.snapshot();
        let readiness = self.readiness(snapshot.active_connections);
        Health {
            status: readiness.status(),
            reason: readiness.reason(),
            uptime_seconds: snapshot.uptime_seconds,
            total_requests: snapshot.total_requests(),
            active_connections: snapshot.active_connections,
            max_connections: snapshot.max_connections,
            version: env!("CARGO_PKG_VERSION"),
            memory: MemoryUse::of(std::process::id()).unwrap_or_default(),
            types: snapshot.types.into_iter().map(TypeRow::from).collect(),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let page = exposition::page(&self.metrics.snapshot(), &ProcessFacts::now(self.process_started));
        respond(StatusCode::OK, exposition::CONTENT_TYPE, page)
    }
}

/// Whether the server takes new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Ready,
    Full { max_connections: u64 },
    Stopping,
}

impl Readiness {
    fn status(self) -> &'static str {
        match self {
            Self::Ready => "healthy",
            Self::Full { .. } => "full",
            Self::Stopping => "stopping",
        }
    }

    fn reason(self) -> Option<String> {
        match self {
            Self::Ready => None,
            Self::Full { max_connections } => {
                Some(format!("{max_connections} connections are open, the limit max_connections"))
            }
            Self::Stopping => Some("the server is stopping".to_owned()),
        }
    }
}

/// What `/health` shows.
#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    uptime_seconds: u64,
    total_requests: u64,
    active_connections: u64,
    max_connections: u64,
    version: &'static str,
    memory: MemoryUse,
    types: Vec<TypeRow>,
}

#[derive(Debug, Serialize)]
struct TypeRow {
    name: String,
    total: u64,
    #[serde(serialize_with = "as_map")]
    outcomes: Vec<(&'static str, u64)>,
}

impl From<TypeSnapshot> for TypeRow {
    fn from(row: TypeSnapshot) -> Self {
        Self { total: row.total(), name: row.name, outcomes: row.outcomes }
    }
}

fn as_map<S: Serializer>(pairs: &[(&'static str, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().copied())
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    // None of the values here can fail to be written: no maps with odd keys, no floats.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    respond(status, "application/json", text)
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use http_body_util::BodyExt as _;

    use super::*;

    fn source() -> Source {
        Source::new(Arc::new(Metrics::new(["echo"].into_iter(), 1, 2)))
    }

    /// Status and body of the answer to a GET.
    fn get(source: &Source, path: &str) -> (u16, serde_json::Value) {
        let response = source.answer(&Request::get(path).body(()).unwrap());
        let status = response.status().as_u16();
        let body = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(response.into_body().collect())
            .unwrap()
            .to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn ready_ends_with_the_last_free_place_and_comes_back_with_it() {
        let source = source();
        assert_eq!(get(&source, "/ready"), (200, serde_json::json!({ "status": "ready" })));
        source.metrics.accepted.store(2, Relaxed);
        let reason = "2 connections are open, the limit max_connections";
        assert_eq!(get(&source, "/readyz"), (503, serde_json::json!({ "status": "not ready", "reason": reason })));
        let (status, health) = get(&source, "/health");
        assert_eq!((status, &health["status"], &health["reason"]), (200, &"full".into(), &reason.into()));
        source.metrics.closed.store(1, Relaxed);
        assert_eq!(get(&source, "/readyz").0, 200);
    }

    #[test]
    fn a_server_that_stops_is_not_ready_but_alive() {
        let source = source();
        source.metrics.serving.store(false, Relaxed);
        assert_eq!(get(&source, "/ready").0, 503);
        assert_eq!(get(&source, "/ready").1["reason"], "the server is stopping");
        assert_eq!(get(&source, "/health").1["status"], "stopping");
        assert_eq!(get(&source, "/live").0, 200);
    }
}
