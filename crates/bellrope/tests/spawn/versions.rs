//! Servers and clients of two versions on one machine.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    sync::atomic::Ordering,
};

use bellrope::{Client, client::SpawnError};
use bellrope_proto::handshake::{
    ANSWER_HEAD_LEN, AnswerHead, HELLO_LEN, HandshakeError, HandshakeStatus, Hello, VERSION, encode_refusal,
};
use bellrope_shm::socket::Socket;

use crate::parts::{Home, who};

/// Where a hello and an answer have the major version.
const MAJOR: std::ops::Range<usize> = 8..10;

#[test]
fn a_server_of_another_version_is_named_with_both_and_left_alone() {
    let home = Home::new();
    fs::create_dir(home.path("run")).unwrap();
    fs::set_permissions(home.path("run"), fs::Permissions::from_mode(0o700)).unwrap();
    let listener = UnixListener::bind(home.socket()).unwrap();
    let serving = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.read_exact(&mut [0; HELLO_LEN]).unwrap();
        let mut refusal = encode_refusal(HandshakeStatus::Version, "this server speaks version 2.0, the client 1.0");
        refusal[MAJOR].copy_from_slice(&2_u16.to_le_bytes());
        client.write_all(&refusal).unwrap();
        client
    });
    let error = Client::connect_or_spawn(home.config(), &home.spawn("")).unwrap_err();
    assert!(matches!(error, SpawnError::OtherVersion { .. }), "{error:?}");
    let text = error.to_string();
    for part in [
        home.socket().to_str().unwrap(),
        "version 2.0, the client 1.0",
        "bring both to one version and end that server",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(home.started.load(Ordering::SeqCst), 0);
    drop(serving.join().unwrap());
}

#[test]
fn clients_of_two_versions_that_alternate_leave_one_server_and_its_streams_whole() {
    let home = Home::new();
    let spawn = home.spawn("");
    let first = Client::connect_or_spawn(home.config(), &spawn).unwrap();
    let server = who(&first)["pid"].clone();
    let mut ticks = first.stream("ticks", b"").unwrap();
    for n in 0..20_u64 {
        // The other version's client, which would find a server of its own version, or start none.
        let newer = Socket::connect(&home.socket()).unwrap();
        newer.set_nonblocking(false).unwrap();
        let mut hello = Hello { name: "newer".into(), ..Hello::default() }.encode();
        hello[MAJOR].copy_from_slice(&2_u16.to_le_bytes());
        newer.send(&hello).unwrap();
        let mut head = [0; ANSWER_HEAD_LEN];
        assert_eq!(newer.receive(&mut head).unwrap(), ANSWER_HEAD_LEN);
        let head = AnswerHead::decode(&head).unwrap();
        let mut body = vec![0; head.body_len()];
        assert_eq!(newer.receive(&mut body).unwrap(), body.len());
        let Err(HandshakeError::Refused { status: HandshakeStatus::Version, text }) = head.with_body(&body) else {
            panic!("it was let in")
        };
        let (major, minor) = VERSION;
        assert_eq!(text, format!("this server speaks version {major}.{minor}, the client 2.{minor}"));
        let ours = Client::connect_or_spawn(home.config(), &spawn).unwrap();
        assert_eq!(who(&ours)["pid"], server);
        assert_eq!(ticks.next().unwrap().unwrap(), n.to_le_bytes());
    }
    assert_eq!(home.started.load(Ordering::SeqCst), 1);
}
