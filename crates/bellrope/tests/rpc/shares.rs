//! What one client holds of the buffer budget and leaves lying is no reason why others are not served.

use std::time::Duration;

use bellrope::{
    CallError, Client,
    client::{ChunkStream, Upload},
    server::ServerConfig,
};

use bellrope_testkit::support::{TestServer, eventually, serve};

const BUDGET: u64 = 4 << 20;
const LARGEST: u32 = 1 << 20;
/// A request that travels in one piece.
const PROMPT: usize = 60_000;
/// No other limit is to end what a test holds.
const NEVER: Duration = Duration::from_secs(600);

/// A server with little room, for which others wait patiently.
fn tight() -> TestServer {
    let mut config = ServerConfig::default();
    config.max_message_bytes = LARGEST;
    config.buffer_budget_bytes = BUDGET;
    config.budget_wait = Duration::from_millis(60_000);
    config.budget_grace = Duration::from_millis(50);
    config.stall_timeout = NEVER;
    serve(config)
}

fn used(server: &TestServer) -> u64 {
    server.server.metrics().snapshot().buffers.unwrap().0
}

fn stalled(server: &TestServer) -> u64 {
    server.server.metrics().snapshot().stalled
}

/// Begins calls, one after the other, until so much of the budget is held.
fn fill<T>(server: &TestServer, enough: u64, mut begin: impl FnMut() -> T) -> Vec<T> {
    let mut held = Vec::new();
    while used(server) < enough {
        let before = used(server);
        held.push(begin());
        eventually("it holds room", || used(server) > before);
    }
    held
}

/// Twenty others call, each with more than the room that is left.
fn others_are_served(server: &TestServer) {
    let payload = vec![7; LARGEST as usize];
    for _ in 0..20 {
        let honest = Client::connect(&server.path).unwrap();
        let reply = honest.call_within("later", &payload, Duration::from_secs(60));
        assert!(reply.unwrap() == payload);
    }
}

// Fault 59.
#[test]
fn one_that_reads_nothing_of_many_streams_is_put_out_when_others_need_the_room() {
    let server = tight();
    let hostile = Client::connect(&server.path).unwrap();
    let prompt = vec![1; PROMPT];
    let streams: Vec<ChunkStream> =
        fill(&server, BUDGET - u64::from(LARGEST), || hostile.stream("endless", &prompt).unwrap());
    assert_eq!((server.dropped(), stalled(&server)), (0, 0), "nobody minds as long as nobody waits");
    others_are_served(&server);
    assert_eq!(stalled(&server), 1, "it was enough to put one out");
    eventually("its handlers are dropped", || server.dropped() == streams.len());
    drop(streams);
    eventually("its room is given back", || used(&server) == 0);
}

// Fault 59.
#[test]
fn one_that_sends_nothing_on_many_streams_is_put_out_when_others_need_the_room() {
    let server = tight();
    let hostile = Client::connect(&server.path).unwrap();
    let prompt = vec![1; PROMPT];
    let uploads: Vec<Upload> =
        fill(&server, BUDGET - u64::from(LARGEST), || hostile.client_stream("total", &prompt).unwrap());
    others_are_served(&server);
    assert_eq!(stalled(&server), 1);
    drop(uploads);
    eventually("its room is given back", || used(&server) == 0);
}

// Fault 59.
#[test]
fn the_one_that_holds_most_is_put_out_and_whoever_holds_little_reads_on() {
    let server = tight();
    let (hostile, slow) = (Client::connect(&server.path).unwrap(), Client::connect(&server.path).unwrap());
    // It has less than its share, whatever others hold.
    let mut of_slow = slow.stream("endless", b"").unwrap();
    let prompt = vec![1; PROMPT];
    let _streams: Vec<ChunkStream> =
        fill(&server, BUDGET - u64::from(LARGEST), || hostile.stream("endless", &prompt).unwrap());
    others_are_served(&server);
    assert_eq!(stalled(&server), 1);
    for _ in 0..1_000 {
        assert_eq!(of_slow.next().unwrap().unwrap(), [7; 1000]);
    }
}

// Fault 59.
#[test]
fn calls_that_their_handlers_never_answer_leave_room_for_others() {
    let server = tight();
    let hostile = Client::connect(&server.path).unwrap();
    let payload = vec![1; PROMPT];
    let token = bellrope::client::CancelToken::new();
    let options = bellrope::client::CallOptions::new().cancel(&token).timeout(Duration::from_secs(60));
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| hostile.call_with("never", &payload, &options).unwrap_err());
        }
        eventually("it has what one may have", || used(&server) > BUDGET - BUDGET / 8 - 2 * PROMPT as u64);
        for _ in 0..20 {
            let honest = Client::connect(&server.path).unwrap();
            assert!(honest.call("later", &payload).unwrap() == payload, "at once, without any wait");
        }
        assert!(used(&server) <= BUDGET - BUDGET / 8);
        token.cancel();
    });
    assert_eq!(stalled(&server), 0);
}

// Fault 59.
#[test]
fn streams_that_nobody_reads_show_in_the_counters_and_end_their_connection() {
    let mut config = ServerConfig::default();
    config.stall_timeout = NEVER;
    let server = serve(config.clone());
    let metrics = server.server.metrics();
    let hostile = Client::connect(&server.path).unwrap();
    let streams: Vec<_> = (0..8).map(|_| hostile.stream("endless", b"").unwrap()).collect();
    eventually("it is seen", || metrics.snapshot().unread_connections == 1);
    config.stall_timeout = Duration::from_millis(50);
    server.server.reload(&config).unwrap();
    let other = Client::connect(&server.path).unwrap();
    eventually("it is closed", || {
        assert_eq!(other.call("echo", b"fine").unwrap(), b"fine");
        stalled(&server) == 1
    });
    eventually("its handlers are dropped", || server.dropped() == streams.len());
    eventually("nobody reads nothing any more", || metrics.snapshot().unread_connections == 0);
    assert!(metrics.snapshot().errors().any(|error| error == ("connection_stalled", 1)));
}

// Fault 59.
#[test]
fn one_stream_that_is_forgotten_ends_alone_where_its_connection_is_read() {
    let mut config = ServerConfig::default();
    config.stall_timeout = Duration::from_millis(3_000);
    let server = serve(config);
    let client = Client::connect(&server.path).unwrap();
    let forgotten = client.stream("endless", b"").unwrap();
    eventually("it ends", || {
        // Whoever calls takes everything out of the ring, but what is left in the stream's mailbox gives no credit.
        assert_eq!(client.call("echo", b"fine").unwrap(), b"fine");
        server.dropped() == 1
    });
    assert_eq!(stalled(&server), 0, "the connection goes on");
    let error = forgotten.map(|chunk| chunk.map(drop)).find_map(Result::err).unwrap();
    let told = matches!(&error, CallError::Exhausted { text } if text.contains("stall_timeout_ms"));
    assert!(told, "{error}");
}
