//! A server made of raw bytes and raw memory, and what clients make of it.

use std::{
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bellrope::{
    CallError, Client,
    client::{ClientConfig, Connection, SpinPolicy},
    server::ServerConfig,
};
use bellrope_proto::{
    connection::Terms,
    frame::{ErrorCode, Header, Kind},
    handshake::{HELLO_LEN, Style, TypeEntry, Welcome},
    layout::{ADMITTED, ASLEEP, CONSUMER_POSITION, EMPTY, Geometry, RECORDS},
};
use bellrope_shm::{MemoryHandle, SharedMemory, View, clock, socket::Socket, sync::Ordering};
use tempfile::TempDir;

use bellrope_testkit::{
    raw::shake_hands,
    support::{PATIENCE, eventually, serve},
};

/// Where fake servers listen.
pub(crate) struct Address {
    pub(crate) path: PathBuf,
    pub(crate) listener: UnixListener,
    _home: TempDir,
}

impl Address {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("fake_server.sock");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { path, listener, _home: home }
    }

    /// The next one who knocks. Nothing is read yet.
    pub(crate) fn open(&self) -> UnixStream {
        let mut found = None;
        eventually("somebody knocks", || {
            found = self.listener.accept().ok();
            found.is_some()
        });
        let (stream, _) = found.unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The next client, whose hello has come.
    pub(crate) fn accept(&self) -> Socket {
        let socket = self.open().into();
        hear_hello(&socket);
        socket
    }

    /// Lets a client in.
    pub(crate) fn meet<C: Send>(&self, connect: impl FnOnce(&Path) -> C + Send) -> (FakeServer, C) {
        std::thread::scope(|scope| {
            let connecting = scope.spawn(|| connect(&self.path));
            let fake_server = FakeServer::welcome(self.accept());
            (fake_server, connecting.join().unwrap())
        })
    }
}

fn hear_hello(socket: &Socket) {
    let mut hello = [0; HELLO_LEN];
    assert_eq!(socket.receive(&mut hello).unwrap(), HELLO_LEN);
}

pub(crate) struct FakeServer {
    pub(crate) socket: Socket,
    pub(crate) requests: View,
    pub(crate) responses: View,
    /// Where the next request will be, and where the next answer goes.
    pub(crate) next_request: usize,
    next_answer: usize,
}

impl FakeServer {
    /// A server with one client.
    pub(crate) fn meet(config: impl FnOnce(&mut ClientConfig) + Send + 'static) -> (Self, Client) {
        Self::meet_as(|path| {
            let mut client = ClientConfig::new(path);
            config(&mut client);
            Client::with(client).unwrap()
        })
    }

    /// As [`Self::meet`], with another kind of client.
    pub(crate) fn meet_as<C: Send>(connect: impl FnOnce(&Path) -> C + Send) -> (Self, C) {
        Address::new().meet(connect)
    }

    /// Says welcome to a client.
    pub(crate) fn welcome(socket: Socket) -> Self {
        let (welcome, fd, fake_server) = Self::prepare(socket);
        // A client that is gone by now is a client that is gone.
        let _ = fake_server.socket.send_with_memory(&welcome, &fd);
        fake_server
    }

    /// A server for this client, and the welcome with its memory that is still to be sent.
    pub(crate) fn prepare(socket: Socket) -> (Vec<u8>, MemoryHandle, Self) {
        let geometry = Geometry::new(64 * 1024).unwrap();
        let (memory, fd) = SharedMemory::create(geometry.mapping_len()).unwrap();
        let entry = |message_type, style, name: &str| TypeEntry {
            message_type,
            style,
            name: name.to_owned(),
            schema: Default::default(),
        };
        let welcome = Welcome {
            features: 0,
            connection: 1,
            terms: Terms { geometry, max_message: 1 << 20, max_in_flight: 16, stream_window: 4096 },
            clock_us: clock::monotonic_us(),
            types: vec![
                entry(1, Style::Unary, "ask"),
                entry(2, Style::ServerStream, "listen"),
                entry(3, Style::Duplex, "talk"),
            ],
        };
        let (requests, responses) = (memory.view(geometry.requests()), memory.view(geometry.responses()));
        let (next_request, next_answer) = (RECORDS, RECORDS);
        (welcome.encode(), fd, Self { socket, requests, responses, next_request, next_answer })
    }

    /// Waits for the first record of whatever kind and size.
    pub(crate) fn something_comes(&self) {
        let waiting = |word| word == EMPTY || word == ASLEEP;
        eventually("something comes", || !waiting(self.requests.load(RECORDS, Ordering::Acquire)));
    }

    /// Waits until the client sleeps.
    pub(crate) fn client_sleeps(&self) {
        eventually("the client sleeps", || self.responses.load(self.next_answer, Ordering::Acquire) == ASLEEP);
    }

    /// Claims to have read what was never written, and rings.
    pub(crate) fn claim_the_impossible(&self) {
        self.requests.store(CONSUMER_POSITION, 1 << 40, Ordering::Release);
        self.socket.ring();
    }

    /// Waits for the next request, which has no payload. Answers with its id.
    pub(crate) fn request(&mut self) -> u64 {
        let waiting = |word| word == EMPTY || word == ASLEEP;
        eventually("a request", || !waiting(self.requests.load(self.next_request, Ordering::Acquire)));
        let extended = self.requests.load(self.next_request, Ordering::Acquire) >> 56;
        let id = self.requests.load(self.next_request + 8, Ordering::Relaxed);
        self.next_request += 16 + 8 * extended as usize;
        id
    }

    /// Writes a record, and does not ring.
    pub(crate) fn write(&mut self, kind: Kind, id: u64, extension: Option<u64>, payload: &[u8]) {
        self.write_as(0, kind, id, extension, payload);
    }

    /// Answers, and rings.
    pub(crate) fn answer(&mut self, id: u64, payload: &[u8]) {
        self.write(Kind::Response, id, None, payload);
        self.socket.ring();
    }

    fn write_as(&mut self, message_type: u16, kind: Kind, id: u64, extension: Option<u64>, payload: &[u8]) {
        let header = Header { len: payload.len() as u32, message_type, kind, extended: extension.is_some() };
        let at = self.next_answer;
        self.responses.store(at + 8, id, Ordering::Relaxed);
        if let Some(extension) = extension {
            self.responses.store(at + 16, extension, Ordering::Relaxed);
        }
        self.responses.write(at + if extension.is_some() { 24 } else { 16 }, payload);
        self.next_answer += header.record_size() as usize;
        self.responses.store(at, header.encode(), Ordering::Release);
    }
}

// Fault 37.
#[test]
fn of_many_calls_under_way_each_ends_once_and_as_its_own_when_the_server_is_lost() {
    let (mut server, mut connection) = FakeServer::meet_as(|path| Connection::connect(path).unwrap());
    let asked = connection.message_type("ask").unwrap();
    let ids = [(); 4].map(|()| connection.submit(asked, b"").unwrap());
    let answered = server.request();
    server.write(Kind::Response, answered, None, b"answer");
    let _ = server.request();
    // The server takes two of them, answers one, and dies.
    server.requests.store(ADMITTED, (server.next_request - RECORDS) as u64, Ordering::Release);
    server.socket.shutdown();

    let mut reply = Vec::new();
    let mut ends = Vec::new();
    let over = loop {
        match connection.wait(&mut reply) {
            Ok(completion) => ends.push((completion.id, completion.outcome)),
            Err(error) => break error,
        }
    };
    assert!(matches!(over, CallError::Unknown), "{over}");
    assert_eq!(connection.in_flight(), 0);
    let end_of = |id| {
        let mut ended = ends.iter().filter(|(ended, _)| *ended == id);
        let (_, outcome) = ended.next().expect("it has ended");
        assert!(ended.next().is_none(), "it ended twice");
        outcome
    };
    assert_eq!(reply, b"answer");
    assert!(matches!(end_of(ids[0]), Ok(())), "{:?}", end_of(ids[0]));
    assert!(matches!(end_of(ids[1]), Err(CallError::Unknown)), "{:?}", end_of(ids[1]));
    for id in &ids[2..] {
        assert!(matches!(end_of(*id), Err(CallError::NotExecuted)), "{:?}", end_of(*id));
    }
}

/// Calls, in a thread of its own.
pub(crate) fn ask(client: &Client) -> JoinHandle<Result<Vec<u8>, CallError>> {
    let client = client.clone();
    std::thread::spawn(move || client.call("ask", b""))
}

// Faults 38, 39.
#[test]
fn of_forged_double_and_late_answers_none_reaches_a_caller() {
    let (mut server, client) = FakeServer::meet(|_| {});
    let first = ask(&client);
    let id = server.request();
    for forged in [id + 1, id + (1 << 32), u64::MAX, 0] {
        server.write(Kind::Response, forged, None, b"forged");
    }
    server.write(Kind::Response, id, None, b"the first");
    server.write(Kind::Response, id, None, b"the second");
    server.socket.ring();
    assert_eq!(first.join().unwrap().unwrap(), b"the first");

    // One that its caller has given up is answered late, and its successor in time.
    let error = client.call_within("ask", b"", Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, CallError::DeadlineExceeded), "{error}");
    let late = server.request();
    let cancelled = server.request();
    assert_eq!(cancelled, late, "the server is told");
    let next = ask(&client);
    let id = server.request();
    assert!(id != late);
    server.write(Kind::Response, late, None, b"too late");
    server.write(Kind::Response, id, None, b"in time");
    server.socket.ring();
    assert_eq!(next.join().unwrap().unwrap(), b"in time");
}

// Fault 39.
#[test]
fn a_stream_has_one_end_whatever_follows_it() {
    let (mut server, client) = FakeServer::meet(|_| {});
    let stream = client.stream("listen", b"").unwrap();
    let id = server.request();
    server.write(Kind::Chunk, id, Some(0), b"one");
    server.write(Kind::End, id, Some(1), b"");
    server.write(Kind::End, id, Some(1), b"");
    server.write(Kind::Chunk, id, Some(1), b"two");
    server.write(Kind::Error, id, None, b"and a failure");
    server.socket.ring();
    let chunks: Vec<_> = stream.map(Result::unwrap).collect();
    assert_eq!(chunks, [b"one"]);
    let next = ask(&client);
    let id = server.request();
    server.write(Kind::Response, id, None, b"on it goes");
    server.socket.ring();
    assert_eq!(next.join().unwrap().unwrap(), b"on it goes");
}

#[test]
fn a_failure_is_told_as_what_the_server_calls_it() {
    let (mut server, client) = FakeServer::meet(|_| {});
    for (code, told) in [
        (ErrorCode::Cancelled, "the call was cancelled"),
        (ErrorCode::DeadlineExceeded, "the deadline passed"),
        (ErrorCode::Upstream, "handler_error: in words"),
        (ErrorCode::Exhausted, "exhausted: in words"),
        (ErrorCode::NotExecuted, "the server went away before it took the call"),
        (ErrorCode::Unknown, "the server went away while the call was under way"),
    ] {
        let call = ask(&client);
        let id = server.request();
        server.write_as(code.to_bits(), Kind::Error, id, None, b"in words");
        server.socket.ring();
        let error = call.join().unwrap().unwrap_err();
        assert!(error.to_string().starts_with(told), "{error}");
        assert_eq!(matches!(error, CallError::Cancelled), code == ErrorCode::Cancelled);
    }
}

// Fault 14.
#[test]
fn a_ring_without_an_answer_wakes_a_client_for_nothing_and_no_more() {
    let (mut server, client) = FakeServer::meet(|config| config.spin = SpinPolicy::Never);
    let call = ask(&client);
    let id = server.request();
    for _ in 0..200 {
        server.socket.ring();
        // It looks, finds nothing, and sleeps again.
        server.client_sleeps();
        assert!(!call.is_finished());
    }
    server.write(Kind::Response, id, None, b"at last");
    server.socket.ring();
    assert_eq!(call.join().unwrap().unwrap(), b"at last");
}

// Fault 15.
#[test]
fn a_server_that_never_rings_delays_an_answer_and_a_call_without_one_ends_at_its_deadline() {
    let (mut server, client) = FakeServer::meet(|config| config.spin = SpinPolicy::Never);
    let call = ask(&client);
    let id = server.request();
    server.client_sleeps();
    server.write(Kind::Response, id, None, b"without a ring");
    assert_eq!(call.join().unwrap().unwrap(), b"without a ring");
    let began = Instant::now();
    let error = client.call_within("ask", b"", Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, CallError::DeadlineExceeded), "{error}");
    assert!(began.elapsed() < PATIENCE / 4);
}

// Fault 15.
#[test]
fn a_request_that_nobody_rings_for_waits_alone_and_holds_nothing() {
    let server = serve(ServerConfig::default());
    let (socket, memory, welcome) = shake_hands(&server.path, "mute");
    let requests = memory.view(welcome.terms.geometry.requests());
    eventually("the server sleeps", || requests.load(RECORDS, Ordering::Acquire) == ASLEEP);
    let echo = Header { len: 0, message_type: 1, kind: Kind::Request, extended: false };
    requests.store(RECORDS, echo.encode(), Ordering::Release);
    let other = Client::connect(&server.path).unwrap();
    for _ in 0..1_000 {
        assert_eq!(other.call("echo", b"fine").unwrap(), b"fine");
    }
    drop(socket);
    eventually("its place is free again", || server.server.metrics().active_connections() == 1);
}
