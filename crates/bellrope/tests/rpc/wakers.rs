//! A waker is anybody's code. Whatever it does when it is woken or dropped, it may use the client that it waits for.

use std::{
    future::{Future, pending},
    pin::pin,
    sync::{Arc, mpsc},
    task::{Context, Wake, Waker},
    thread,
};

use bellrope::{AsyncClient, Server, client::ConnectionState};
use bellrope_testkit::support::{PATIENCE, eventually};

/// Uses a client when it is woken, and when it is dropped.
struct Uses {
    client: AsyncClient,
    done: mpsc::Sender<&'static str>,
}

impl Uses {
    fn it(&self, when: &'static str) {
        let _state = self.client.state();
        let _ = self.done.send(when);
    }
}

impl Wake for Uses {
    fn wake(self: Arc<Self>) {
        self.it("woken");
    }
}

impl Drop for Uses {
    fn drop(&mut self) {
        self.it("dropped");
    }
}

/// A runtime, a server of a stream on which nothing comes, and a client.
fn scene() -> (tokio::runtime::Runtime, Server, AsyncClient, tempfile::TempDir) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("wakers.sock");
    let server = Server::builder().server_stream("silent", |_, _chunks| pending()).bind(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = runtime.block_on(AsyncClient::connect(&path)).unwrap();
    (runtime, server, client, home)
}

/// What a waker does in which nothing but a stream is left, until that is dropped. On a thread that may hang.
fn heard(close: bool) -> mpsc::Receiver<&'static str> {
    let (done, heard) = mpsc::channel();
    thread::spawn(move || {
        let (runtime, _server, client, _home) = scene();
        let mut stream = runtime.block_on(client.stream("silent", b"")).unwrap();
        let waker = Waker::from(Arc::new(Uses { client: client.clone(), done }));
        let is_pending = pin!(stream.next()).poll(&mut Context::from_waker(&waker)).is_pending();
        assert!(is_pending);
        drop(waker);
        if close {
            client.close();
        }
        drop(stream);
    });
    heard
}

#[track_caller]
fn hears(heard: &mpsc::Receiver<&'static str>, what: &str) {
    assert_eq!(heard.recv_timeout(PATIENCE), Ok(what), "the lock is not free");
}

#[test]
fn a_waker_that_is_woken_may_use_its_client() {
    let heard = heard(true);
    hears(&heard, "woken");
    hears(&heard, "dropped");
}

#[test]
fn a_waker_that_is_dropped_with_its_stream_may_use_its_client() {
    hears(&heard(false), "dropped");
}

#[test]
fn whoever_looks_at_the_state_of_a_connection_may_use_its_client_meanwhile() {
    let (done, heard) = mpsc::channel();
    thread::spawn(move || {
        let (runtime, server, client, _home) = scene();
        let mut changes = client.state_changes();
        {
            let seen = changes.borrow_and_update();
            assert_eq!(*seen, ConnectionState::Connected);
            drop(server);
            eventually("the client knows that its server is gone", || client.state() != *seen);
        }
        runtime.block_on(changes.changed()).unwrap();
        assert_eq!(*changes.borrow(), ConnectionState::Reconnecting);
        done.send("told").unwrap();
    });
    hears(&heard, "told");
}
