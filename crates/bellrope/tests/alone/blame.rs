//! What goes wrong is told apart by blame: each kind has its level in the log, its metric, and its effect, which is never
//! on anybody else.

use bellrope::{Client, Server, server::ServerConfig, status::Snapshot};
use bellrope_proto::{
    connection::{Answer, AnswerKind, ClientConnection},
    frame::ErrorCode,
    handshake::Style,
};
use bellrope_shm::socket::Socket;
use bellrope_testkit::{
    alone::alone,
    log::Log,
    raw::shake_hands,
    support::{TestServer, eventually, serve},
};
use tracing_subscriber::filter::LevelFilter;

/// A client that keeps to the protocol, and to no limit.
struct Unbounded {
    socket: Socket,
    connection: ClientConnection,
}

impl Unbounded {
    fn connect(server: &TestServer) -> Self {
        let (socket, memory, welcome) = shake_hands(&server.path, "un\nbounded");
        let mut terms = welcome.terms;
        terms.max_message = 1 << 30;
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

fn counted(snapshot: &Snapshot, name: &str, outcome: &'static str) -> u64 {
    let row = snapshot.types.iter().find(|row| row.name == name).unwrap();
    row.outcomes.iter().find(|(of, _)| *of == outcome).unwrap().1
}

// Fault 47.
#[test]
fn each_kind_of_fault_has_its_level_its_metric_and_its_effect() {
    alone("blame::each_kind_of_fault_has_its_level_its_metric_and_its_effect", tell_faults_apart);
}

fn tell_faults_apart() {
    let log = Log::listen(LevelFilter::DEBUG);
    let logged = |level: &str, texts: &[&str]| {
        let all: Vec<_> = [level].iter().chain(texts).copied().collect();
        eventually(&format!("a line with {all:?}"), || log.has(&all));
    };
    let mut config = ServerConfig::default();
    config.max_message_bytes = 10_000;
    let server = serve(config);
    let metrics = server.server.metrics();
    let honest = Client::connect(&server.path).unwrap();
    let mut peer = Unbounded::connect(&server);
    let echo = 1;

    // A message too large: warned of with its size, counted, refused; the connection goes on.
    assert_eq!(peer.fails(echo, 10_001), (ErrorCode::MessageTooLarge, 10_001));
    logged(" WARN ", &["message_too_large", "10001 bytes exceeds the limit of 10000 bytes"]);
    eventually("it is counted", || counted(&metrics.snapshot(), "echo", "message_too_large") == 1);

    // An unknown type: warned of, counted under one label for all of them, answered; the connection goes on.
    assert_eq!(peer.fails(999, 0).0, ErrorCode::UnknownMessageType);
    logged(" WARN ", &["unknown_message_type", "no message type has the number 999"]);
    eventually("it is counted", || counted(&metrics.snapshot(), "unknown", "unknown_message_type") == 1);

    // A handler's panic: an error, counted, answered; the connection and the worker go on.
    let panics = 3;
    assert_eq!(honest.message_types()[panics - 1].0, "panic");
    assert_eq!(peer.fails(panics as u16, 0).0, ErrorCode::HandlerPanic);
    logged("ERROR ", &["handler_panic", "message_type=\"panic\"", "on purpose"]);
    eventually("it is counted", || counted(&metrics.snapshot(), "panic", "handler_panic") == 1);

    // A handler's own error: the same, by its own name.
    assert_eq!(peer.fails(2, 0).0, ErrorCode::Handler);
    logged("ERROR ", &["handler_error", "message_type=\"fail\"", "as asked"]);

    // A clean disconnect: nobody's fault, and so at debug. What the peer calls itself steers no terminal.
    drop(peer);
    logged("DEBUG ", &["client disconnected", "unbounded"]);
    eventually("it is gone", || metrics.active_connections() == 1);

    // The rest, a broken protocol: warned of with the reason, counted, closed.
    let breaker = Unbounded::connect(&server);
    eventually("it is closed", || {
        // Far more at once than any traffic needs, so that the server has no time to sleep in between.
        (0..10_000).for_each(|_| breaker.socket.ring());
        metrics.snapshot().violations == 1
    });
    logged(" WARN ", &["connection closed", "reason=\"doorbell_flood\""]);

    assert_eq!(honest.call("echo", b"served all the while").unwrap(), b"served all the while");
    assert_eq!((metrics.active_connections(), server.dropped()), (1, 0));
}

#[test]
fn the_log_names_the_types_that_a_client_without_pages_does_not_get_to_know() {
    alone("blame::the_log_names_the_types_that_a_client_without_pages_does_not_get_to_know", name_what_is_left_out);
}

fn name_what_is_left_out() {
    let log = Log::listen(LevelFilter::WARN);
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let names = (0..400).map(|number| format!("{number:0>240}"));
    let builder = names.fold(Server::builder(), |builder, name| builder.in_place(&name, |_| Ok(())));
    let _server = builder.bind(&path).unwrap();
    assert_eq!(Client::connect(&path).unwrap().message_types().len(), 400);
    assert!(!log.has(&["left_out"]), "a client that reads pages knows all");
    let (_socket, _memory, welcome) = shake_hands(&path, "old");
    let (known, left_out) = (welcome.types.len(), 400 - welcome.types.len());
    let first = format!("left out are {known:0>240}, ");
    eventually("the log says so", || log.has(&["client=\"old\"", &format!("left_out={left_out}"), &first, ", ..."]));
    assert!(!log.has(&[&format!("{:0>240}", known + 8)]), "it names a few");
}

// Fault 48.
#[test]
fn whoever_steers_a_breaker_without_end_does_not_fill_the_log() {
    alone("blame::whoever_steers_a_breaker_without_end_does_not_fill_the_log", steer_without_end);
}

fn steer_without_end() {
    const CALLS: usize = 1_000;

    let log = Log::listen(LevelFilter::WARN);
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let _server = Server::builder().in_place("echo", |_| Ok(())).operator().bind(&path).unwrap();
    let client = Client::connect(&path).unwrap();
    let began = std::time::Instant::now();
    for _ in 0..CALLS {
        client.call(bellrope::status::BREAKER, br#"{"name":"echo","action":"reset"}"#).unwrap();
    }
    let (lines, most) = (log.count(&["steered by hand"]), 51 + began.elapsed().as_millis() as usize / 200);
    assert!((50..=most).contains(&lines), "{lines} lines of {CALLS} calls, {most} at the most");
}
