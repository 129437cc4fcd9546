//! Handlers that panic in the worst of ways.

use std::panic::panic_any;

use bellrope::{CallError, Client, Server};

use super::processes::{Role, path_of_role, role};

/// A payload of a panic that panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped")
    }
}

/// One of which the panic's payload panics in turn.
struct BombOfBombs;

impl Drop for BombOfBombs {
    fn drop(&mut self) {
        panic_any(Bomb)
    }
}

// Fault 42.
#[test]
fn a_panic_whose_payload_panics_when_dropped_is_told_to_its_caller_and_harms_nobody() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let _server = Server::builder()
        .unary("echo", |call, reply| {
            reply.put(call.payload());
            Ok(())
        })
        .unary("bomb", |_, _| panic_any(Bomb))
        .unary("bombs", |_, _| panic_any(BombOfBombs))
        .unary_async("bomb_later", |_| async {
            tokio::task::yield_now().await;
            panic_any(Bomb)
        })
        .bind(&path)
        .unwrap();
    let (client, other) = (Client::connect(&path).unwrap(), Client::connect(&path).unwrap());
    for round in 0..4 {
        for name in ["bomb", "bombs", "bomb_later"] {
            let error = client.call(name, b"").unwrap_err();
            assert!(matches!(error, CallError::HandlerPanic { .. }), "{name}, round {round}: {error}");
            assert_eq!(client.call("echo", b"same").unwrap(), b"same");
            assert_eq!(other.call("echo", b"other").unwrap(), b"other");
        }
    }
}

/// Panics when it is dropped, and so while another panic unwinds.
struct Unlucky;

impl Drop for Unlucky {
    fn drop(&mut self) {
        panic!("while a panic is under way")
    }
}

// Fault 42.
#[test]
fn a_panic_within_the_drop_of_a_panic_ends_the_process_and_its_callers_learn_it() {
    const TEST: &str = "panics::a_panic_within_the_drop_of_a_panic_ends_the_process_and_its_callers_learn_it";
    if let Some(path) = path_of_role() {
        let _server = Server::builder()
            .unary("unlucky", |_, _| {
                let _unlucky = Unlucky;
                panic!("the first")
            })
            .bind(&path)
            .unwrap();
        Role::wait_to_be_killed();
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let mut server = role(TEST, &path);
    let error = server.connect().call("unlucky", b"").unwrap_err();
    assert!(matches!(error, CallError::Unknown), "it may have run, and did: {error}");
    assert_eq!(server.signal_that_ended_it(), Some(6), "SIGABRT");
}
