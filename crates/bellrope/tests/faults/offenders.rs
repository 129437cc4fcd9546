//! Processes that break the protocol over and over.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    time::{Duration, Instant},
};

use bellrope::{Client, client::ConnectError, server::ServerConfig};
use bellrope_proto::{
    handshake::{HELLO_LEN, HandshakeError, HandshakeStatus, encode_refusal},
    layout::RECORDS,
};
use bellrope_shm::{
    View,
    socket::{Drained, Socket},
    sync::Ordering::AcqRel,
};

use bellrope_testkit::{
    raw,
    support::{TestServer, eventually, serve},
};

use super::processes::{path_of_role, role};

/// A header of no kind that there is.
const BROKEN: u64 = 0x00FF_0000_0000_0001;
const ALLOWANCE: u32 = 3;
const TURNED_AWAY: &str = "broke the protocol over and over; come back in";

/// Connects and breaks the protocol at once. The server has hung up when this returns.
fn offend(server: &TestServer) -> Result<(), HandshakeError> {
    let (socket, memory, welcome) = raw::try_to_shake_hands(&server.path, "offender")?;
    let requests: View = memory.view(welcome.terms.geometry.requests());
    let before = server.server.metrics().snapshot().violations;
    requests.swap(RECORDS, BROKEN, AcqRel);
    socket.ring();
    eventually("it is closed", || server.server.metrics().snapshot().violations > before && is_hung_up(&socket));
    Ok(())
}

fn say_nonsense(server: &TestServer) -> UnixStream {
    let mut stream = UnixStream::connect(&server.path).unwrap();
    // One that is turned away on the spot may have been before it could say anything.
    let _ = stream.write_all(&[0xA5; HELLO_LEN]);
    stream
}

/// What the server says before it hangs up.
fn answer_to(mut stream: UnixStream) -> String {
    let mut answer = Vec::new();
    // What lies unread when the server hangs up may come back as an error after its answer.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn is_hung_up(socket: &Socket) -> bool {
    !matches!(socket.drain(1 << 16), Ok(Drained::Rings(_)))
}

// Faults 1, 20.
#[test]
fn a_process_that_breaks_the_protocol_over_and_over_is_turned_away_and_others_are_not() {
    const TEST: &str = "offenders::a_process_that_breaks_the_protocol_over_and_over_is_turned_away_and_others_are_not";
    if let Some(path) = path_of_role() {
        let client = Client::connect(path).unwrap();
        assert_eq!(client.call("echo", b"honest").unwrap(), b"honest");
        return;
    }
    let mut config = ServerConfig::default();
    config.violation_allowance = ALLOWANCE;
    // So long that this test is over before anything is forgiven.
    config.violation_pause = Duration::from_millis(60_000);
    config.handshake_timeout = Duration::from_millis(200);
    let server = serve(config.clone());
    let honest = Client::connect(&server.path).unwrap();
    for _ in 0..=ALLOWANCE {
        offend(&server).expect("so much is overlooked");
    }
    let began = Instant::now();
    let error = offend(&server).unwrap_err();
    assert!(began.elapsed() >= Duration::from_millis(100), "it could have tried again and again meanwhile");
    let HandshakeError::Refused { status: HandshakeStatus::Paced, text } = &error else { panic!("{error}") };
    assert!(text.contains("over and over; come back in 5") && text.contains(" ms"), "{text}");
    let counts = server.server.metrics().snapshot();
    assert_eq!((counts.violations, counts.paced_handshakes, counts.refused_connections), (4, 1, 1));

    // What it has keeps its place, and whoever breaks no rule comes and goes.
    assert_eq!(honest.call("echo", b"still").unwrap(), b"still");
    role(TEST, &server.path).succeeds();
    assert_eq!(server.server.metrics().snapshot().paced_handshakes, 1);

    // Where nobody is to wait, nobody does.
    config.violation_pause = Duration::from_millis(0);
    server.server.reload(&config).unwrap();
    offend(&server).expect("nobody waits any more");
}

// Faults 1, 20.
#[test]
fn an_offender_waits_for_its_turn_and_is_served_then() {
    let mut config = ServerConfig::default();
    config.violation_allowance = 0;
    config.violation_pause = Duration::from_millis(50);
    let server = serve(config);
    let began = Instant::now();
    for _ in 0..5 {
        offend(&server).unwrap();
    }
    // The first is free, each of the others waits for what the one before broke, and is charged for coming, too.
    assert!(began.elapsed() >= Duration::from_millis(4 * 50));
    assert_eq!(server.server.metrics().snapshot().paced_handshakes, 4);
    let client = Client::connect(&server.path).unwrap();
    assert_eq!(client.call("echo", b"served").unwrap(), b"served");
}

// Faults 19, 20.
#[test]
fn hellos_that_are_no_hellos_are_charged_as_well() {
    let mut config = ServerConfig::default();
    config.violation_allowance = ALLOWANCE;
    config.violation_pause = Duration::from_millis(60_000);
    config.handshake_timeout = Duration::from_millis(200);
    let server = serve(config);
    for _ in 0..=ALLOWANCE {
        let told = answer_to(say_nonsense(&server));
        assert!(told.contains("does not speak Bellrope"), "{told}");
    }
    let told = answer_to(say_nonsense(&server));
    assert!(told.contains(TURNED_AWAY), "{told}");
}

// Faults 19, 20.
#[test]
fn offenders_without_end_take_no_place_of_anybody_else() {
    const TEST: &str = "offenders::offenders_without_end_take_no_place_of_anybody_else";
    const CROWD: usize = 40;
    if let Some(path) = path_of_role() {
        let clients: Vec<_> = (0..4).map(|_| Client::connect(&path).unwrap()).collect();
        clients.iter().for_each(|client| assert_eq!(client.call("echo", b"honest").unwrap(), b"honest"));
        return;
    }
    let mut config = ServerConfig::default();
    config.max_half_open = 4;
    config.violation_allowance = 0;
    config.violation_pause = Duration::from_millis(60_000);
    // So long that those who are to be turned away late are all there at once.
    config.handshake_timeout = Duration::from_millis(20_000);
    let server = serve(config);
    offend(&server).expect("the first is overlooked");
    let crowd: Vec<_> = (0..CROWD).map(|_| say_nonsense(&server)).collect();
    eventually("all have come", || server.server.metrics().snapshot().paced_handshakes == CROWD as u64);
    // Some wait, and those beyond that are turned away on the spot.
    assert_eq!(server.server.metrics().snapshot().refused_connections, CROWD as u64 - 4);
    role(TEST, &server.path).succeeds();
    let told: Vec<_> = crowd.into_iter().skip(4).map(answer_to).collect();
    assert!(told.iter().all(|told| told.contains(TURNED_AWAY)), "{told:?}");
}

// Fault 20.
#[test]
fn a_client_that_is_refused_before_it_said_anything_learns_why() {
    const TIMES: usize = 200;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("refuses.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let told: Vec<_> = std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..TIMES {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(&encode_refusal(HandshakeStatus::Paced, "come back later")).unwrap();
            }
        });
        (0..TIMES).map(|_| Client::connect(&path).unwrap_err()).collect()
    });
    for error in told {
        let ConnectError::Handshake(HandshakeError::Refused { status: HandshakeStatus::Paced, text }) = &error else {
            panic!("{error}")
        };
        assert_eq!(text, "come back later");
    }
}
