//! Whatever one connection has sent, the others have their turns in between.

use std::sync::{Arc, Condvar, Mutex};

use bellrope::{Server, client::Connection, server::ServerConfig};

use bellrope_testkit::support::PATIENCE;

/// What ran, in order, and a gate that the first one waits at.
#[derive(Default)]
struct Order {
    ran: Mutex<Vec<u8>>,
    changed: Condvar,
    open: Mutex<bool>,
    opened: Condvar,
}

impl Order {
    fn note(&self, who: u8) {
        self.ran.lock().unwrap().push(who);
        self.changed.notify_all();
    }

    /// Waits until something has run.
    fn wait_for_the_first(&self) {
        let (ran, timeout) =
            self.changed.wait_timeout_while(self.ran.lock().unwrap(), PATIENCE, |ran| ran.is_empty()).unwrap();
        assert!(!timeout.timed_out() && !ran.is_empty());
    }

    fn wait_at_the_gate(&self) {
        let (_open, timeout) =
            self.opened.wait_timeout_while(self.open.lock().unwrap(), PATIENCE, |open| !*open).unwrap();
        assert!(!timeout.timed_out(), "nobody opens the gate");
    }

    fn open_the_gate(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

const HOSTILE: u8 = 0;
const HONEST: u8 = 1;

// Fault 63.
#[test]
fn a_connection_with_many_slow_calls_lets_one_that_slept_have_its_turn() {
    let order = Arc::new(Order::default());
    let (slow, quick) = (Arc::clone(&order), Arc::clone(&order));
    let mut config = ServerConfig::default();
    config.workers = 1;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let _server = Server::builder()
        .unary("slow", move |_, _| {
            slow.note(HOSTILE);
            slow.wait_at_the_gate();
            // Longer than a turn may last.
            std::thread::sleep(std::time::Duration::from_millis(5));
            Ok(())
        })
        .unary("quick", move |_, _| {
            quick.note(HONEST);
            Ok(())
        })
        .config(config)
        .bind(&path)
        .unwrap();
    let mut honest: Vec<_> = (0..6).map(|_| Connection::connect(&path).unwrap()).collect();
    let mut hostile = Connection::connect(&path).unwrap();
    let [slow, quick] = ["slow", "quick"].map(|name| hostile.message_type(name).unwrap());
    const CALLS: usize = 40;
    (0..CALLS).for_each(|_| assert!(hostile.queue(slow, b"").unwrap().is_some()));
    hostile.flush();
    // The worker is at the first of them now, and finds what the others send when that has ended.
    order.wait_for_the_first();
    for connection in &mut honest {
        assert!(connection.queue(quick, b"").unwrap().is_some());
        connection.flush();
    }
    order.open_the_gate();
    for connection in &mut honest {
        connection.wait(&mut Vec::new()).unwrap().outcome.unwrap();
    }
    let ran = order.ran.lock().unwrap().clone();
    let last = ran.iter().rposition(|ran| *ran == HONEST).unwrap();
    let slow_before = ran[..last].iter().filter(|ran| **ran == HOSTILE).count();
    assert!(slow_before <= 3, "{slow_before} slow calls ran before those of the others: {ran:?}");
    for _ in 0..CALLS {
        hostile.wait(&mut Vec::new()).unwrap().outcome.unwrap();
    }
}
