//! Spans of calls, sent to an OpenTelemetry collector in batches: OTLP, as protobuf over HTTP.
//!
//! A thread of its own takes them from a bounded queue. What finds no room there, or is not taken by the collector, is lost
//! and counted: no call ever waits for a collector. `OTEL_TRACES_SAMPLER` and `OTEL_RESOURCE_ATTRIBUTES` hold as everywhere.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use bellrope::server::ServerBuilder;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, Uri, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use opentelemetry::{
    Context, Value,
    trace::{SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _},
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor},
};
use tokio::net::TcpStream;
use tracing::Level;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer, Registry, filter::Targets};

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope::otlp";
/// Spans that wait for the collector at the most; some 700 bytes each.
const QUEUE: usize = 2_048;
/// Spans that are sent together at the most, and how long the first of them waits for others.
const BATCH: usize = 512;
const EVERY: Duration = Duration::from_secs(1);
/// How long sending a batch may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long sending what is left may take at the end.
const FLUSH: Duration = Duration::from_secs(3);
/// How often losses are told of.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// A collector's answer has at most so many bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Where a collector takes spans, below its address.
const PATH: &str = "/v1/traces";

/// Spans on their way to the collector.
#[derive(Debug)]
pub(crate) struct SpanSender {
    provider: SdkTracerProvider,
    counts: Arc<Counts>,
}

/// What became of spans.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    /// No room in the queue.
    dropped: AtomicU64,
    /// Not taken by the collector.
    failed: AtomicU64,
}

/// Checks a collector's address, as `http://HOST:PORT`, perhaps with a path.
pub(crate) fn check(endpoint: &str) -> Result<(), String> {
    let fault = match endpoint.parse::<Uri>() {
        Ok(uri) if uri.scheme_str() == Some("http") && uri.host().is_some() => return Ok(()),
        Ok(_) => {
            "it must start with http:// and name a host; for TLS let a collector on this machine pass spans on".into()
        }
        Err(error) => error.to_string(),
    };
    Err(format!("{fault}; give http://HOST:PORT, as in http://127.0.0.1:4318"))
}

/// Starts to send spans to the collector at `endpoint`, and makes the layer that they come from.
pub(crate) fn start(endpoint: &str) -> anyhow::Result<(Box<dyn Layer<Registry> + Send + Sync>, SpanSender)> {
    if let Err(fault) = check(endpoint) {
        bail!("spans cannot be sent to {endpoint:?}: {fault}");
    }
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_service_name("bellrope").with_attributes([version]).build();
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}{PATH}", endpoint.trim_end_matches('/')))
        .with_timeout(PATIENCE)
        .with_http_client(Post)
        .build()
        .context("sending spans cannot be set up")?;
    exporter.set_resource(&resource);
    let counts = Arc::<Counts>::default();
    let batches = Batches::start(exporter, Arc::clone(&counts))?;
    let provider = SdkTracerProvider::builder().with_resource(resource).with_span_processor(batches).build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("bellrope"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(Targets::new().with_target("bellrope", Level::DEBUG));
    Ok((layer.boxed(), SpanSender { provider, counts }))
}

/// Makes the span of a call whose caller names a trace a child of the caller's span.
pub(crate) fn adopt_traces(builder: ServerBuilder) -> ServerBuilder {
    builder.adopt_trace(|span, trace| {
        let (id, parent) = (TraceId::from_bytes(trace.trace_id()), SpanId::from_bytes(trace.parent_id()));
        let flags = TraceFlags::new(trace.flags());
        let caller = SpanContext::new(id, parent, flags, true, TraceState::NONE);
        // It fails where no collector is: then there is nothing to adopt.
        let _ = span.set_parent(Context::new().with_remote_span_context(caller));
    })
}

impl SpanSender {
    /// Sends what is left, within a deadline, and says what was lost.
    pub(crate) fn finish(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH) {
            tracing::warn!(target: TARGET, %error, "the last spans were not sent");
        }
        self.counts.tell();
    }
}

impl Counts {
    fn lost(&self) -> u64 {
        self.dropped.load(Relaxed) + self.failed.load(Relaxed)
    }

    fn tell(&self) {
        let [sent, dropped, failed] = [&self.sent, &self.dropped, &self.failed].map(|count| count.load(Relaxed));
        if dropped + failed > 0 {
            tracing::warn!(target: TARGET,
                sent,
                dropped,
                failed,
                "spans were lost: no room in the queue, or not taken by the collector"
            );
        } else {
            tracing::debug!(target: TARGET, sent, "spans were sent");
        }
    }
}

enum Message {
    Ended(Box<SpanData>),
    Stop,
}

/// The queue, and the thread behind it.
#[derive(Debug)]
struct Batches {
    queue: SyncSender<Message>,
    counts: Arc<Counts>,
    stopping: Arc<AtomicBool>,
    /// Hears of the end of the thread.
    ended: Mutex<Receiver<()>>,
}

impl Batches {
    fn start(exporter: impl SpanExporter + 'static, counts: Arc<Counts>) -> anyhow::Result<Self> {
        let (queue, spans) = sync_channel(QUEUE);
        let (tell, ended) = sync_channel(1);
        let stopping = Arc::<AtomicBool>::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let sender = Sender { spans, exporter, counts: Arc::clone(&counts), stopping: Arc::clone(&stopping), runtime };
        let run = move || {
            sender.run();
            let _ = tell.send(());
        };
        std::thread::Builder::new().name("bellrope-otlp".to_owned()).spawn(run).context("starting a thread")?;
        Ok(Self { queue, counts, stopping, ended: Mutex::new(ended) })
    }
}

impl SpanProcessor for Batches {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        shape(&mut span);
        if self.queue.try_send(Message::Ended(Box::new(span))).is_err() {
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.stopping.store(true, Relaxed);
        // A full queue keeps the thread awake, which then sees the flag.
        let _ = self.queue.try_send(Message::Stop);
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        match ended.recv_timeout(timeout) {
            Err(RecvTimeoutError::Timeout) => Err(OTelSdkError::Timeout(timeout)),
            _ => Ok(()),
        }
    }
}

/// Makes of a call's span what collectors expect: numbers that are numbers, which the layer makes texts of where they have no
/// sign, and the status of an error where the call did not go well.
fn shape(span: &mut SpanData) {
    for attribute in &mut span.attributes {
        let (key, Value::String(text)) = (attribute.key.as_str(), &attribute.value) else { continue };
        match (key, text.as_str()) {
            ("connection" | "duration_us", number) => {
                if let Ok(number) = number.parse() {
                    attribute.value = Value::I64(number);
                }
            }
            ("outcome", outcome) if outcome != "ok" => span.status = Status::error(outcome.to_owned()),
            _ => {}
        }
    }
}

/// What the thread has.
struct Sender<E> {
    spans: Receiver<Message>,
    exporter: E,
    counts: Arc<Counts>,
    stopping: Arc<AtomicBool>,
    runtime: tokio::runtime::Runtime,
}

impl<E: SpanExporter> Sender<E> {
    fn run(self) {
        let (mut told, mut told_at) = (0, None::<Instant>);
        while let Ok(first) = self.spans.recv() {
            let until = Instant::now() + EVERY;
            let mut batch = Vec::new();
            let mut next = Some(first);
            while let Some(Message::Ended(span)) = next.take() {
                batch.push(*span);
                if batch.len() < BATCH && !self.stopping.load(Relaxed) {
                    next = self.spans.recv_timeout(until.saturating_duration_since(Instant::now())).ok();
                }
            }
            self.send(batch);
            if self.stopping.load(Relaxed) {
                return self.send_rest();
            }
            let lost = self.counts.lost();
            if lost > told && told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
                self.counts.tell();
                (told, told_at) = (lost, Some(Instant::now()));
            }
        }
    }

    fn send_rest(&self) {
        let mut rest = self.spans.try_iter().filter_map(|message| match message {
            Message::Ended(span) => Some(*span),
            Message::Stop => None,
        });
        loop {
            let batch: Vec<_> = rest.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return;
            }
            self.send(batch);
        }
    }

    fn send(&self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        if count == 0 {
            return;
        }
        let export = async { tokio::time::timeout(PATIENCE, self.exporter.export(batch)).await };
        let counter = match self.runtime.block_on(export) {
            Ok(Ok(())) => &self.counts.sent,
            Ok(Err(error)) => {
                tracing::debug!(target: TARGET, %error, "the collector did not take a batch of spans");
                &self.counts.failed
            }
            Err(_) => &self.counts.failed,
        };
        counter.fetch_add(count, Relaxed);
    }
}

/// Sends a batch over a connection of its own: a second apart they are not worth keeping one.
#[derive(Debug)]
struct Post;

impl HttpClient for Post {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(post(request))
    }
}

async fn post(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().ok_or("the collector's address names no host")?.clone();
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    head.uri = head.uri.path_and_query().map_or(PATH, |path| path.as_str()).parse()?;
    head.headers.insert(header::HOST, authority.as_str().parse()?);
    head.headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async move {
        let response = sender.send_request(Request::from_parts(head, Full::new(body))).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        Ok::<_, HttpError>(Response::from_parts(head, body))
    };
    let (answer, _) = tokio::join!(answer, connection);
    answer
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;

    use super::*;

    /// An exporter that takes nothing until it is let go.
    #[derive(Debug)]
    struct Held(Arc<(Mutex<bool>, Condvar)>);

    impl SpanExporter for Held {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            let (open, news) = &*self.0;
            drop(news.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
            Ok(())
        }
    }

    #[test]
    fn what_finds_no_room_is_counted_and_every_span_is_accounted_for() {
        let gate = Arc::<(Mutex<bool>, Condvar)>::default();
        let counts = Arc::<Counts>::default();
        let batches = Batches::start(Held(Arc::clone(&gate)), Arc::clone(&counts)).unwrap();
        let provider = SdkTracerProvider::builder().with_span_processor(batches).build();
        let tracer = provider.tracer("test");
        let total = 2 * (QUEUE + BATCH) as u64;
        for _ in 0..total {
            drop(opentelemetry::trace::Tracer::start(&tracer, "call"));
        }
        assert!(counts.dropped.load(Relaxed) > 0, "{counts:?}");
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        provider.shutdown_with_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(counts.sent.load(Relaxed) + counts.lost(), total, "{counts:?}");
    }

    #[test]
    fn an_address_that_cannot_be_is_refused_with_the_fix() {
        assert_eq!(check("http://127.0.0.1:4318"), Ok(()));
        for wrong in ["https://collector", "collector:4318", "http://", ""] {
            assert!(check(wrong).unwrap_err().contains("as in http://127.0.0.1:4318"), "{wrong}");
        }
    }
}
