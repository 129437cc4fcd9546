//! A client that breaks the protocol through its own mapping is disconnected with a typed, logged reason; another
//! client's calls in the same moment all succeed.

mod log;
mod raw;
mod support;

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use bellrope::{Client, ServerConfig};
use bellrope_proto::{
    connection::Terms,
    frame::{Header, Kind},
    layout::{CONSUMER_POSITION, RECORDS},
};
use bellrope_shm::{
    View,
    socket::{Drained, Socket},
    sync::Ordering,
    wait,
};
use log::Log;
use raw::shake_hands;
use support::{TestServer, eventually, serve};
use tracing_subscriber::filter::LevelFilter;

/// A client made of raw bytes and raw memory.
struct Adversary {
    socket: Socket,
    requests: View,
    responses: View,
}

impl Adversary {
    fn connect(server: &TestServer) -> Self {
        let (socket, memory, Terms { geometry, .. }) = shake_hands(&server.path, "adversary");
        Self { socket, requests: memory.view(geometry.requests()), responses: memory.view(geometry.responses()) }
    }

    /// Writes a header word where the server looks next, and rings.
    fn commit(&self, offset: usize, word: u64) {
        self.requests.store(RECORDS + offset, word, Ordering::Release);
        self.socket.ring();
    }

    /// Waits until the server has hung up.
    fn is_disconnected(&self) -> bool {
        for _ in 0..1000 {
            if wait::readable(&self.socket, Some(Duration::from_millis(10))).unwrap()
                && self.socket.drain(1 << 20).unwrap() == Drained::HungUp
            {
                return true;
            }
        }
        false
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn every_kind_of_violation_closes_its_connection_alone_with_a_logged_reason() {
    let log = Log::listen(LevelFilter::INFO);
    let server = serve(ServerConfig::default());

    let header = |len, kind, extended| Header { len, message_type: 1, kind, extended }.encode();
    type Attack = Box<dyn Fn(&Adversary)>;
    let attacks: Vec<(&str, Attack)> = vec![
        ("bad_header", Box::new(|peer| peer.commit(0, 0x00AA_0000_0000_0001))),
        ("bad_length", Box::new(move |peer| peer.commit(0, header(1 << 20, Kind::Request, false)))),
        ("bad_length", Box::new(move |peer| peer.commit(0, header(u32::MAX, Kind::Request, true)))),
        ("bad_pad", Box::new(|peer| peer.commit(0, Header::pad()))),
        ("bad_direction", Box::new(move |peer| peer.commit(0, header(0, Kind::Response, false)))),
        ("bad_form", Box::new(move |peer| peer.commit(0, header(8, Kind::Cancel, false)))),
        (
            "bad_position",
            Box::new(move |peer| {
                // The server looks at our position only when it lacks room: give it a reason to, and a lie.
                peer.responses.store(CONSUMER_POSITION, 1 << 40, Ordering::Release);
                let record = Header { len: 64, message_type: 1, kind: Kind::Request, extended: false };
                for call in 0..60 {
                    peer.requests.store(RECORDS + call * 80 + 80, 0, Relaxed);
                    peer.requests.store(RECORDS + call * 80, record.encode(), Ordering::Release);
                }
                peer.socket.ring();
            }),
        ),
        (
            "doorbell_flood",
            Box::new(|peer| {
                // Until the server has had enough; it may sleep in between, and then a ring is its due.
                for _ in 0..2_000_000 {
                    peer.socket.ring();
                    if peer.socket.drain(1 << 20).unwrap() == Drained::HungUp {
                        break;
                    }
                }
            }),
        ),
    ];

    let (stop, honest_calls) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let honest = scope.spawn(|| {
            let client = Client::connect(&server.path).unwrap();
            while !stop.load(Relaxed) {
                let call = honest_calls.fetch_add(1, Relaxed).to_le_bytes();
                assert_eq!(client.call("echo", &call).unwrap(), call);
            }
        });
        // However this ends, the honest client does, too.
        let stopping = StopOnDrop(&stop);
        for (round, (reason, attack)) in attacks.iter().enumerate() {
            let before = honest_calls.load(Relaxed);
            let adversary = Adversary::connect(&server);
            attack(&adversary);
            assert!(adversary.is_disconnected(), "{reason} goes unpunished");
            assert_eq!(server.server.metrics().snapshot().violations, round as u64 + 1);
            eventually("the reason is logged", || log.has(&[&format!("reason=\"{reason}\"")]));
            eventually("the honest client is served on", || honest_calls.load(Relaxed) > before + 10);
        }
        drop(stopping);
        honest.join().unwrap();
    });
    assert_eq!(server.dropped(), 0, "no handler was running");
    eventually("only the honest connection closed by itself", || server.server.metrics().active_connections() == 0);
}

#[test]
fn a_number_that_is_no_message_type_is_answered_with_known_names() {
    let server = serve(ServerConfig::default());
    let adversary = Adversary::connect(&server);
    adversary.commit(0, Header { len: 0, message_type: 999, kind: Kind::Request, extended: false }.encode());
    let answered = || adversary.responses.load(RECORDS, Ordering::Acquire) >> 48 & 0xFF == Kind::Error as u64;
    eventually("an error record", answered);
    let len = adversary.responses.load(RECORDS, Ordering::Acquire) as u32 as usize;
    let mut text = vec![0; len];
    adversary.responses.read(RECORDS + 16, &mut text);
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("no message type has the number 999; nearest known:"), "{text}");
}
