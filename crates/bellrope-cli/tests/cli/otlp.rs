//! Spans of calls at a collector, which here is a part of the test and reads them as a collector does.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bellrope::{
    Client,
    client::{CallOptions, Metadata},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, status::StatusCode},
};
use prost::Message;
use rustix::process::Signal;

use crate::support::{Home, PATIENCE, eventually};

/// Takes what is sent to `/v1/traces`, and answers that it did.
struct Collector {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::<Mutex<Vec<_>>>::default();
        let noted = Arc::clone(&taken);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                noted.lock().unwrap().push(take(stream));
            }
        });
        Self { address, taken }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans so far.
    fn spans(&self) -> Vec<Span> {
        let taken = self.taken.lock().unwrap();
        let resources = taken.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The spans of calls of this type.
    fn calls(&self, message_type: &str) -> Vec<Span> {
        let wanted = Some(Value::StringValue(message_type.to_owned()));
        let is_of = |span: &Span| span.name == "call" && value(&span.attributes, "message_type") == wanted;
        self.spans().into_iter().filter(is_of).collect()
    }
}

fn take(mut stream: TcpStream) -> ExportTraceServiceRequest {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let from = head.len();
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        if let Some(value) = head[from..].to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("\r\ncontent-type: application/x-protobuf\r\n"), "{head}");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n").unwrap();
    ExportTraceServiceRequest::decode(&*body).unwrap()
}

fn value(attributes: &[KeyValue], key: &str) -> Option<Value> {
    attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value
}

fn number(span: &Span, key: &str) -> i64 {
    match value(&span.attributes, key) {
        Some(Value::IntValue(number)) => number,
        other => panic!("{key} is {other:?} in {span:?}"),
    }
}

#[test]
fn the_collector_gets_a_span_for_every_call_with_type_connection_outcome_and_duration() {
    let (home, collector) = (Home::new(), Collector::start());
    // An answer of 21 words takes 200 ms and more.
    let config = home.config("[gateway.embedded]\ntokens_per_second = 100\ntokens = 21\n");
    let arguments = ["--config".as_ref(), config.as_os_str()];
    let server = home.serve_with(arguments, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())]);
    home.run(["call", "ai.complete", r#"{"prompt":"x"}"#]).succeeded();
    home.run(["call", "echo", "x"]).succeeded();
    home.run(["call", "ai.models"]).succeeded();
    home.run(["call", "ai.chat", "no JSON"]).failed(1);
    let calls = [("ai.complete", "ok"), ("echo", "ok"), ("ai.models", "ok"), ("ai.chat", "invalid_request")];
    eventually("the spans", || calls.iter().all(|(name, _)| collector.calls(name).len() == 1));
    for (name, outcome) in calls {
        let span = collector.calls(name).remove(0);
        assert_eq!(value(&span.attributes, "outcome"), Some(Value::StringValue(outcome.to_owned())), "{span:?}");
        assert!(number(&span, "connection") >= 0, "{span:?}");
        let least = Duration::from_millis(if name == "ai.complete" { 200 } else { 0 });
        assert!(Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano) >= least, "{span:?}");
        assert!(Duration::from_micros(number(&span, "duration_us").try_into().unwrap()) >= least, "{span:?}");
        assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
        let failed = span.status.map(|status| status.code) == Some(StatusCode::Error as i32);
        assert_eq!(failed, outcome != "ok", "{name}");
    }
    let resource = collector.taken.lock().unwrap()[0].resource_spans[0].resource.clone().unwrap();
    assert_eq!(value(&resource.attributes, "service.name"), Some(Value::StringValue("bellrope".to_owned())));
    // What is logged is another matter: at `info` no span is a line, nor part of the line about the call that failed.
    server.signal(Signal::TERM);
    let said = server.finish();
    let is_there = |text: &str| said.stderr.contains(text);
    assert!(
        said.code == Some(0) && is_there("cannot be read") && !is_there("call{") && !is_there("\"echo\""),
        "{said:?}"
    );
}

#[test]
fn a_call_of_a_traced_caller_is_a_child_of_its_span() {
    let (home, collector) = (Home::new(), Collector::start());
    let server = home.serve(["--set", &format!("otlp_endpoint={}", collector.url())]);
    let client = Client::connect(home.socket()).unwrap();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
    let metadata = Metadata::new().trace(trace).unwrap().session("window 3").unwrap();
    let options = CallOptions::new().metadata(metadata);
    client.call_with("echo", b"on the worker", &options).unwrap();
    client.call_with("ai.models", b"", &options).unwrap();
    client.call("echo", b"of nobody's trace").unwrap();
    eventually("the spans", || collector.calls("echo").len() == 2 && collector.calls("ai.models").len() == 1);
    let session = Some(Value::StringValue("window 3".to_owned()));
    let (traced, alone): (Vec<_>, Vec<_>) = [collector.calls("echo"), collector.calls("ai.models")]
        .concat()
        .into_iter()
        .partition(|span| value(&span.attributes, "session") == session);
    assert_eq!((traced.len(), alone.len()), (2, 1));
    for span in traced {
        assert_eq!(u128::from_be_bytes(span.trace_id.try_into().unwrap()), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(u64::from_be_bytes(span.parent_span_id.try_into().unwrap()), 0x00f0_67aa_0ba9_02b7);
    }
    assert!(alone[0].parent_span_id.is_empty());
    drop(server);
}

#[test]
fn a_server_that_stops_sends_what_is_left() {
    let (home, collector) = (Home::new(), Collector::start());
    let server = home.serve(["--set", &format!("otlp_endpoint={}", collector.url())]);
    home.run(["call", "echo", "x"]).succeeded();
    server.signal(Signal::TERM);
    assert_eq!(server.finish().code, Some(0));
    assert_eq!(collector.calls("echo").len(), 1);
}

#[test]
fn without_its_collector_a_server_serves_on_and_ends_in_time_and_says_what_was_lost() {
    let home = Home::new();
    // A port that nobody listens at any more.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = home.serve(["--set", &format!("otlp_endpoint=http://127.0.0.1:{port}")]);
    assert_eq!(home.run(["call", "echo", "x"]).succeeded(), "x");
    server.said("spans were lost");
    let began = Instant::now();
    server.signal(Signal::TERM);
    let said = server.finish();
    assert!(said.code == Some(0) && said.stderr.contains("failed=1"), "{said:?}");
    assert!(began.elapsed() < PATIENCE / 4, "{:?}", began.elapsed());
}

#[test]
fn a_collector_that_cannot_be_is_named_with_the_fix() {
    let home = Home::new();
    let said = home.run(["serve", "--set", "otlp_endpoint=https://collector"]).failed(2);
    assert!(said.contains("--set otlp_endpoint is \"https://collector\": it must start with http://"), "{said}");
}
