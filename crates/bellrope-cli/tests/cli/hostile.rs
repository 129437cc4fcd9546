//! Peers that do not speak the protocol harm nobody but themselves.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use bellrope::Client;

use crate::support::{Home, PATIENCE, eventually};

/// A proper hello of version 1.0 without a name.
fn hello() -> Vec<u8> {
    let mut hello = vec![0; 88];
    hello[..8].copy_from_slice(b"BELLROPE");
    hello[8] = 1;
    hello
}

fn hello_with(at: usize, value: u8) -> Vec<u8> {
    let mut hello = hello();
    hello[at] = value;
    hello
}

// Faults 19, 28.
#[test]
fn a_peer_that_does_not_speak_the_protocol_is_refused_and_all_calls_of_another_succeed() {
    let home = Home::new();
    let server = home.serve::<&str>([]);
    let (stop, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let client = Client::connect(home.socket()).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let payload = calls.load(Ordering::Relaxed).to_le_bytes();
                let answer = client.call("echo", &payload);
                // Whatever happens, the other half of the test must not wait for us.
                stop.fetch_or(answer.is_err(), Ordering::Relaxed);
                assert_eq!(answer.unwrap(), payload);
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
        let attacks = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for (first_bytes, status, words) in [
                (vec![b'x'; 88], 2, "does not speak Bellrope"),
                (b"GET /chat HTTP/1.1\r\nHost: bell\r\n\r\n".repeat(8), 2, "does not speak Bellrope"),
                (hello_with(8, 7), 1, "this server speaks version 1.1, the client 7.0"),
                (hello_with(12, 2), 2, "transport 2 is not supported"),
                (hello_with(14, 255), 2, "name_len"),
            ] {
                let before = calls.load(Ordering::Relaxed);
                refused(&home, &first_bytes, status, words);
                server.said(words);
                eventually("calls of the other", || {
                    calls.load(Ordering::Relaxed) > before || stop.load(Ordering::Relaxed)
                });
            }
            // One that says too little, and one that hangs up in the middle of it.
            refused(&home, &hello()[..40], 2, "no hello came within 1000 ms");
            drop(say(&home, &hello()[..40]));
        }));
        assert!(!stop.swap(true, Ordering::Relaxed), "a call of the other failed");
        attacks.unwrap();
    });
    assert!(calls.into_inner() >= 5);
    assert!(server.said("connection refused").contains("WARN"));
}

/// Sends these bytes and expects to be refused with this status and these words, and disconnected.
fn refused(home: &Home, first_bytes: &[u8], status: u16, words: &str) {
    let mut answer = Vec::new();
    let mut stream = say(home, first_bytes);
    // What lies unread when the server hangs up may come back as an error after the answer.
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(&answer[..8], b"BELLROPE");
    assert_eq!(u16::from_le_bytes([answer[12], answer[13]]), status);
    let body = String::from_utf8_lossy(&answer[56..]);
    assert!(body.contains(words), "{body}");
}

fn say(home: &Home, first_bytes: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(home.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(first_bytes).unwrap();
    stream
}
