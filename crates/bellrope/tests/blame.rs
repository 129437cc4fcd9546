//! What goes wrong is told apart by blame: each kind has its level in the log, its metric, and its effect, which is never
//! on anybody else.

mod support;

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use bellrope::{Client, ServerConfig, Snapshot};
use bellrope_proto::{
    connection::{Answer, AnswerKind, ClientConnection},
    frame::ErrorCode,
    handshake::{ANSWER_HEAD_LEN, AnswerHead, Hello, Style},
};
use bellrope_shm::{SharedMemory, socket::Socket};
use support::{TestServer, eventually, serve};

/// A client that keeps to the protocol, and to no limit.
struct Unbounded {
    socket: Socket,
    connection: ClientConnection,
}

impl Unbounded {
    fn connect(server: &TestServer) -> Self {
        let socket = Socket::connect(&server.path).unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.send(&Hello { features: 0, class: 0, name: "un\nbounded".into() }.encode()).unwrap();
        let mut answer = vec![0; 16 * 1024];
        let (count, memory) = socket.receive_with_fd(&mut answer).unwrap();
        let (head, body) = answer[..count].split_first_chunk::<ANSWER_HEAD_LEN>().unwrap();
        let mut terms = AnswerHead::decode(head).unwrap().with_body(body).unwrap().terms;
        terms.max_message = 1 << 30;
        let memory = SharedMemory::open(&memory.unwrap(), terms.geometry.mapping_len()).unwrap();
        Self { socket, connection: ClientConnection::new(&memory, terms) }
    }

    /// The code of the error that a call is answered with, and its detail.
    fn fails(&mut self, message_type: u16, size: usize) -> (ErrorCode, u64) {
        self.connection.submit(message_type, Style::Unary, &vec![7; size], None).unwrap();
        let _ = self.connection.commit();
        self.socket.ring();
        let mut found: Option<Answer> = None;
        eventually("an answer", || {
            found = self.connection.next_answer().unwrap();
            found.is_some()
        });
        let answer = found.unwrap();
        self.connection.take(&answer, &mut vec![0; answer.len]);
        match answer.kind {
            AnswerKind::Error { code, detail } => (code, detail),
            other => panic!("{other:?}"),
        }
    }
}

/// Everything that is logged in this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Waits for a line of this level that has all of these texts.
    fn has(&self, level: &str, texts: &[&str]) {
        eventually(&format!("a line at {level} with {texts:?}"), || {
            let log = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
            log.lines().any(|line| line.contains(level) && texts.iter().all(|text| line.contains(text)))
        });
    }
}

fn counted(snapshot: &Snapshot, name: &str, outcome: &'static str) -> u64 {
    let row = snapshot.types.iter().find(|row| row.name == name).unwrap();
    row.outcomes.iter().find(|(of, _)| *of == outcome).unwrap().1
}

#[test]
fn each_kind_of_fault_has_its_level_its_metric_and_its_effect() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG);
    subscriber.with_writer(move || writer.clone()).with_ansi(false).init();
    let mut config = ServerConfig::default();
    config.max_message_bytes = 10_000;
    let server = serve(config);
    let metrics = server.server.metrics();
    let honest = Client::connect(&server.path).unwrap();
    let mut peer = Unbounded::connect(&server);
    let echo = 1;

    // A message too large: warned of with its size, counted, refused; the connection goes on.
    assert_eq!(peer.fails(echo, 10_001), (ErrorCode::MessageTooLarge, 10_001));
    log.has(" WARN ", &["message_too_large", "10001 bytes exceeds the limit of 10000 bytes"]);
    eventually("it is counted", || counted(&metrics.snapshot(), "echo", "message_too_large") == 1);

    // An unknown type: warned of, counted under one label for all of them, answered; the connection goes on.
    assert_eq!(peer.fails(999, 0).0, ErrorCode::UnknownMessageType);
    log.has(" WARN ", &["unknown_message_type", "no message type has the number 999"]);
    eventually("it is counted", || counted(&metrics.snapshot(), "unknown", "unknown_message_type") == 1);

    // A handler's panic: an error, counted, answered; the connection and the worker go on.
    let panics = 3;
    assert_eq!(honest.message_types()[panics - 1].0, "panic");
    assert_eq!(peer.fails(panics as u16, 0).0, ErrorCode::HandlerPanic);
    log.has("ERROR ", &["handler_panic", "message_type=\"panic\"", "on purpose"]);
    eventually("it is counted", || counted(&metrics.snapshot(), "panic", "handler_panic") == 1);

    // A handler's own error: the same, by its own name.
    assert_eq!(peer.fails(2, 0).0, ErrorCode::Handler);
    log.has("ERROR ", &["handler_error", "message_type=\"fail\"", "as asked"]);

    // A clean disconnect: nobody's fault, and so at debug. What the peer calls itself steers no terminal.
    drop(peer);
    log.has("DEBUG ", &["client disconnected", "unbounded"]);
    eventually("it is gone", || metrics.active_connections() == 1);

    // The rest, a broken protocol: warned of with the reason, counted, closed.
    let breaker = Unbounded::connect(&server);
    for _ in 0..2_000_000 {
        breaker.socket.ring();
        if metrics.snapshot().violations == 1 {
            break;
        }
    }
    log.has(" WARN ", &["connection closed", "reason=\"doorbell_flood\""]);

    assert_eq!(honest.call("echo", b"served all the while").unwrap(), b"served all the while");
    assert_eq!((metrics.active_connections(), server.dropped()), (1, 0));
}
