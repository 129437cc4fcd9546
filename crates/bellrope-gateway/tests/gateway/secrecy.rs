//! Nothing the gateway writes holds a key: not a log line at any level, an error, an event or a counter.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, OnceLock};

use bellrope_gateway::{ChatRequest, Gateway, GatewaySettings, ProviderConfig};
use futures_util::StreamExt;
use tokio::net::TcpListener;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

use crate::fake::{Fake, soon};
use crate::for_each_format;
use crate::script::Format;

/// What must not be seen anywhere.
const CANARY: &str = "sk-canary-4f9a1c77e0";

/// Every event and span of this process at every level, as text. All crates write here: the HTTP client's, too.
#[derive(Clone)]
struct Log(Arc<Mutex<String>>);

impl Log {
    /// The log of all tests in this file.
    fn installed() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Self(Arc::default());
            tracing::subscriber::set_global_default(log.clone()).expect("nobody else logs in this process");
            log::set_boxed_logger(Box::new(log.clone())).expect("nobody else logs in this process");
            log::set_max_level(log::LevelFilter::Trace);
            log
        })
        .clone()
    }

    fn write(&self, record: impl FnOnce(&mut Line<'_>)) {
        let mut text = self.0.lock().unwrap();
        record(&mut Line(&mut text));
        text.push('\n');
    }
}

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        self.write(|line| span.record(line));
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        self.write(|line| values.record(line));
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        self.write(|line| event.record(line));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.write(|line| write!(line.0, "{} {}", record.target(), record.args()).unwrap());
    }

    fn flush(&self) {}
}

/// Everything the gateway says while it is asked for all it can be asked for.
async fn said(format: Format, base_url: String) -> String {
    let config = ProviderConfig {
        kind: Some(format.kind()),
        base_url,
        api_key_variable: Some("CANARY".to_owned()),
        model: Some("m".to_owned()),
        max_retries: 1,
        retry_delay: std::time::Duration::from_millis(1),
        idle_timeout: std::time::Duration::from_millis(200),
        first_byte_timeout: std::time::Duration::from_millis(200),
        ..ProviderConfig::default()
    };
    let settings = GatewaySettings {
        provider: "leaky".to_owned(),
        fallback: vec!["embedded".to_owned()],
        providers: [("leaky".to_owned(), config)].into(),
        ..GatewaySettings::default()
    };
    let mut said = format!("{settings:?} {}", serde_json::to_string(&settings).unwrap());
    let gateway =
        Gateway::from_settings_and_vars(settings, |name| (name == "CANARY").then(|| CANARY.to_owned())).unwrap();
    let pinned = ChatRequest { provider: Some("leaky".to_owned()), ..ChatRequest::user("Hello") };
    for request in [ChatRequest::user("Hello"), pinned.clone()] {
        let pieces: Vec<_> = soon(gateway.chat_stream(request).collect()).await;
        for piece in pieces {
            write!(said, "{piece:?} {}", serde_json::to_string(&piece).unwrap()).unwrap();
        }
    }
    write!(said, "{:?}", soon(gateway.chat(pinned)).await).unwrap();
    write!(said, "{:?} {:?}", soon(gateway.models()).await, soon(gateway.health()).await).unwrap();
    write!(said, "{gateway:?} {}", serde_json::to_string(&gateway.snapshot()).unwrap()).unwrap();
    said
}

for_each_format! {
    // Fault 55.
    async fn no_key_stands_in_any_log_error_event_or_counter(format: Format) {
        let log = Log::installed();
        let echo = format!("your key is {CANARY}, yes {CANARY}");
        let json = "content-type: application/json\r\n";
        let mut fakes = vec![
            Fake::replying("401 Unauthorized", json, &format.error("authentication_error", &echo)).await,
            Fake::replying("404 Not Found", json, &format.error(CANARY, &echo)).await,
            Fake::replying("429 Too Many Requests", &format!("retry-after: {CANARY}\r\n"), &echo).await,
            Fake::replying("500 Oops", "", &echo).await,
            Fake::replying("302 Found", &format!("location: http://host/{CANARY}\r\n"), "").await,
            Fake::replying("200 OK", &format!("content-type: text/{CANARY}\r\n"), &echo).await,
            Fake::replying("200 OK", json, &format.error("x", &echo)).await,
            Fake::replying("200 OK", &format!("content-encoding: {CANARY}\r\n"), &echo).await,
            Fake::streaming([&format.script().text("a").fail("server_error", &echo).out]).await,
            Fake::streaming([&format.script().text("a").fail(CANARY, &echo).out]).await,
            Fake::streaming([&format.script().text("a").raw(&format!("data: {{{CANARY}\n\n")).out]).await,
            Fake::streaming([&format!("event: error\ndata: {echo}\n\n")]).await,
            Fake::streaming([&format.half("a")]).await,
            Fake::streaming([&format.answer("all is well")]).await,
            Fake::start(|_, mut peer| async move { peer.closed().await }).await,
            Fake::start(|_, peer| async move { peer.reset() }).await,
            Fake::start(|_, mut peer| async move { peer.send(format!("HTTP/1.1 {CANARY}\r\n\r\n")).await }).await,
        ];
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut addresses: Vec<_> = fakes.iter().map(Fake::url).collect();
        addresses.push(format!("http://{nobody}/v1"));
        for (number, address) in addresses.into_iter().enumerate() {
            let said = said(format, address).await;
            assert!(!said.contains(CANARY), "case {number} of {format:?} says the key: {said}");
            assert!(said.contains("[secret]") || !said.contains("your key is"), "case {number}: {said}");
        }
        fakes.retain(|fake| !fake.requests().is_empty());
        assert!(fakes.iter().all(|fake| fake.requests().iter().all(|request| request.head.contains(CANARY))));
        let logged = log.0.lock().unwrap();
        assert!(logged.contains("an answer failed") && logged.contains("starting new connection"), "{logged}");
        let leak = logged.lines().find(|line| line.contains(CANARY));
        assert!(leak.is_none(), "a log line holds the key: {leak:?}");
    }
}
