//! From the editor's credit to the provider's socket: a reader that stops, one that cancels, one that is killed.
//!
//! The whole chain is there: a provider on loopback, the gateway, a server, shared memory, a client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bellrope::{AsyncClient, Client, Server};
use bellrope_gateway::{
    ChatRequest, Chunk, Gateway, HttpProvider, ProviderConfig, SequencedChunk, StopReason, register,
};
use tempfile::TempDir;

/// The text of one event.
const EVENT: usize = 16 * 1024;

/// The whole answer: 100 MB and more.
const EVENTS: usize = 6_400;

/// How long anything may take that the tests wait for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tells a test run as an editor's process which server to ask.
const EDITOR: &str = "BELLROPE_TEST_EDITOR_SOCKET";

/// A provider whose answer has `events` events. It takes what its client takes, and counts.
struct Source {
    address: SocketAddr,
    /// Bytes that its sockets took.
    sent: Arc<AtomicUsize>,
    /// When its client's connections ended, in nanoseconds after the start; 0 for none yet.
    closed_after: Arc<AtomicU64>,
    started: Instant,
}

impl Source {
    fn start(events: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sent, closed_after, started) = (Arc::default(), Arc::default(), Instant::now());
        let source = Self { address, sent, closed_after, started };
        let (sent, closed_after) = (Arc::clone(&source.sent), Arc::clone(&source.closed_after));
        // It ends with the test's process, in which no second test asks it.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(&stream.unwrap(), events, &sent);
                closed_after.store(started.elapsed().as_nanos().try_into().unwrap(), Ordering::SeqCst);
            }
        });
        source
    }

    /// How long after `since` the connection ended. Waits for it.
    fn closed_since(&self, since: Instant) -> Duration {
        let deadline = Instant::now() + PATIENCE;
        while self.closed_after.load(Ordering::SeqCst) == 0 {
            assert!(Instant::now() < deadline, "the provider's socket was not closed");
            std::thread::sleep(Duration::from_millis(1));
        }
        let closed = self.started + Duration::from_nanos(self.closed_after.load(Ordering::SeqCst));
        closed.saturating_duration_since(since)
    }

    /// The bytes that were taken when no more were, at a reader that does not read. (Should it only seem so, the test
    /// merely proves less.)
    fn halted(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        let mut before = 0;
        loop {
            std::thread::sleep(Duration::from_millis(300));
            let now = self.sent.load(Ordering::Relaxed);
            if now == before && now > 0 {
                return now;
            }
            assert!(Instant::now() < deadline, "the provider never came to a halt");
            before = now;
        }
    }

    /// A server with a gateway that asks this provider.
    fn serve(&self) -> Served {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run").join("ai.sock");
        let base_url = format!("http://{}", self.address);
        let provider = HttpProvider::new(ProviderConfig { base_url, ..ProviderConfig::default() }).unwrap();
        let gateway = Arc::new(Gateway::new(Arc::new(provider)));
        let server = register(Server::builder(), Arc::clone(&gateway)).bind(&path).unwrap();
        Served { gateway, path, _server: server, _home: home }
    }
}

struct Served {
    gateway: Arc<Gateway>,
    path: PathBuf,
    _server: Server,
    _home: TempDir,
}

impl Served {
    /// Waits until the gateway knows that its answer was not waited for.
    fn counted_as_cancelled(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.gateway.snapshot().providers[0].cancelled != 1 {
            assert!(Instant::now() < deadline, "{:?}", self.gateway.snapshot());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Answers one request with `events` events and waits until the client is gone.
fn answer(mut stream: &TcpStream, events: usize, sent: &AtomicUsize) {
    let mut request = Vec::new();
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(taken) => request.extend_from_slice(&bytes[..taken]),
        }
    }
    let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "x".repeat(EVENT));
    let mut send = |bytes: &[u8]| {
        let taken = stream.write_all(bytes).is_ok();
        sent.fetch_add(if taken { bytes.len() } else { 0 }, Ordering::Relaxed);
        taken
    };
    if !send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        || !(0..events).all(|_| send(event.as_bytes()))
    {
        return;
    }
    if events == EVENTS {
        send(b"data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n");
        return;
    }
    // What may still come of the request's body is of no interest.
    while stream.read(&mut [0; 4096]).is_ok_and(|taken| taken > 0) {}
}

fn question() -> Vec<u8> {
    serde_json::to_vec(&ChatRequest::user("Hello")).unwrap()
}

/// Straight to the stream: what a passing test prints is not shown, and the other process has no other way to speak.
fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").unwrap();
}

/// A line of /proc/self/status in bytes.
fn memory(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_takes_a_part_of_a_hundred_megabytes_and_little_memory_and_then_gets_all_of_it() {
    let source = Source::start(EVENTS);
    let served = source.serve();
    let client = AsyncClient::connect(&served.path).await.unwrap();
    let total = EVENT * EVENTS;
    let before = memory("VmRSS");

    let mut stream = client.stream("ai.chat_stream", &question()).await.unwrap();
    let (mut text, mut seq) = (0, 0);
    let mut take_in = |bytes: Vec<u8>| {
        let piece: SequencedChunk = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(piece.seq, seq);
        seq += 1;
        match piece.chunk {
            Chunk::Text { text: more } => text += more.len(),
            Chunk::Done { stop_reason: StopReason::EndTurn } => return (text, true),
            other => panic!("{other:?}"),
        }
        (text, false)
    };
    for _ in 0..100 {
        take_in(stream.next().await.unwrap().unwrap());
    }
    let halted_at = source.halted();
    let grown = memory("VmRSS").saturating_sub(before);
    say(&format!(
        "read 100 chunks and stopped: {halted_at} of {total} bytes taken from the provider, {grown} bytes more memory"
    ));
    // Most of it lies in the two buffers of the provider's socket, which the kernel sizes.
    assert!(halted_at < total / 2, "{halted_at} of {total} bytes were taken for a reader that stopped");
    assert!(grown < 16 << 20, "{grown} bytes of memory for a reader that stopped");

    let came = loop {
        if let (came, true) = take_in(stream.next().await.unwrap().unwrap()) {
            break came;
        }
    };
    assert_eq!(came, total);
    assert!(stream.next().await.is_none());
    let grown = memory("VmHWM").saturating_sub(before);
    say(&format!("read all: at most {grown} bytes more memory"));
    assert!(grown < 32 << 20, "{grown} bytes of memory for an answer that was read as it came");
}

// Fault 54.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_closes_the_providers_socket() {
    // The handler waits for its reader, or for its provider.
    for events in [EVENTS - 1, 1] {
        let source = Source::start(events);
        let served = source.serve();
        let client = AsyncClient::connect(&served.path).await.unwrap();
        let mut stream = client.stream("ai.chat_stream", &question()).await.unwrap();
        stream.next().await.unwrap().unwrap();
        let cancelled = Instant::now();
        drop(stream);
        let took = tokio::task::spawn_blocking(move || source.closed_since(cancelled)).await.unwrap();
        say(&format!("cancelled: the provider's socket was closed after {took:?}"));
        served.counted_as_cancelled();
    }
}

// Fault 54.
#[test]
fn a_killed_editor_closes_the_providers_socket() {
    for events in [EVENTS - 1, 1] {
        let source = Source::start(events);
        let served = source.serve();
        let mut editor = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "an_editor_that_waits_to_be_killed"])
            .env(EDITOR, &served.path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(editor.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("answering")), "the editor got no answer");
        let killed = Instant::now();
        editor.kill().unwrap();
        editor.wait().unwrap();
        let took = source.closed_since(killed);
        say(&format!("killed: the provider's socket was closed after {took:?}"));
        served.counted_as_cancelled();
    }
}

/// The other process of the test above.
#[test]
#[ignore = "is started by a_killed_editor_closes_the_providers_socket, with a server to ask"]
fn an_editor_that_waits_to_be_killed() {
    let path = std::env::var_os(EDITOR).unwrap_or_else(|| panic!("{EDITOR} must name a socket"));
    let client = Client::connect(Path::new(&path)).unwrap();
    let mut stream = client.stream("ai.chat_stream", &question()).unwrap();
    stream.next().unwrap().unwrap();
    say("answering");
    std::thread::sleep(PATIENCE);
}
