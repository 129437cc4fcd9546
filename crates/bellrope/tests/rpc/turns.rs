//! Whatever one connection has sent, the others have their turns in between.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};

use bellrope::{
    Client, Server,
    client::{ClientConfig, Connection},
    server::{OwnedCall, ServerConfig},
};

use bellrope_testkit::support::{PATIENCE, eventually};

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
            std::thread::sleep(Duration::from_millis(5));
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

/// A handler's future that could go on at any time: notes each of its polls, of which the first of all stops at the gate.
/// Ends after so many.
async fn busy(order: Arc<Order>, who: u8, mut polls: usize) {
    std::future::poll_fn(move |context| {
        order.note(who);
        order.wait_at_the_gate();
        polls -= 1;
        if polls == 0 {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// While one connection has a thousand calls of `hostile` that could all go on, another has one of `honest`. Answers how
/// often the thousand were polled before each poll of that one.
fn polls_before_each_of_the_others(hostile: &str, honest: &str) -> Vec<usize> {
    const CALLS: usize = 1_000;
    const POLLS: usize = 10;
    let order = Arc::new(Order::default());
    let [of_call, of_stream] = [(); 2].map(|()| Arc::clone(&order));
    let whose = |call: &OwnedCall| if call.payload() == [HONEST] { (HONEST, POLLS) } else { (HOSTILE, usize::MAX) };
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let server = Server::builder()
        .unary_async("call", move |call| {
            let (who, polls) = whose(&call);
            let busy = busy(Arc::clone(&of_call), who, polls);
            async move {
                busy.await;
                Ok(Vec::new())
            }
        })
        .server_stream("stream", move |call, mut chunks| {
            let (who, polls) = whose(&call);
            let busy = busy(Arc::clone(&of_stream), who, polls);
            async move {
                chunks.send(b"begins").await?;
                busy.await;
                Ok(())
            }
        })
        .bind(&path)
        .unwrap();
    let running = |calls: u64| {
        let snapshot = server.metrics().snapshot();
        snapshot.types.iter().map(|row| row.running).sum::<u64>() == calls
    };
    let mut crowd = Connection::connect(&path).unwrap();
    let [streaming, client] = [(); 2].map(|()| Client::connect(&path).unwrap());
    std::thread::scope(|scope| {
        let mut streams = Vec::new();
        if hostile == "call" {
            let call = crowd.message_type("call").unwrap();
            (0..CALLS).for_each(|_| assert!(crowd.queue(call, &[HOSTILE]).unwrap().is_some()));
            crowd.flush();
        } else {
            streams.extend((0..CALLS).map(|_| streaming.stream("stream", &[HOSTILE]).unwrap()));
        }
        eventually("all of them have begun", || running(CALLS as u64));
        order.wait_for_the_first();
        let asked = scope.spawn(|| match honest {
            "call" => client.call("call", &[HONEST]).map(drop),
            _ => client.stream("stream", &[HONEST]).unwrap().try_for_each(|chunk| chunk.map(drop)),
        });
        eventually("the other has begun as well", || running(CALLS as u64 + 1));
        order.open_the_gate();
        asked.join().unwrap().unwrap();
        drop(streams);
    });
    let order = order.ran.lock().unwrap();
    let mut waits: Vec<_> = order.split(|who| *who == HONEST).map(<[_]>::len).collect();
    assert_eq!(waits.len(), POLLS + 1);
    // What came after the last of its polls.
    waits.pop();
    waits
}

// Fault 65.
#[test]
fn a_call_waits_for_a_few_polls_of_another_connections_thousand() {
    for hostile in ["call", "stream"] {
        for honest in ["call", "stream"] {
            let waits = polls_before_each_of_the_others(hostile, honest);
            let bounded = waits.iter().all(|polls| *polls <= 64);
            assert!(bounded, "a {honest} beside {hostile}s: polls of the others before each of its own: {waits:?}");
        }
    }
}

// Fault 63.
#[test]
fn many_others_have_their_turns_between_slow_calls_of_those_with_priority() {
    const URGENT: usize = 8;
    const OTHERS: u64 = 30;
    const TRIES: usize = 20;
    let slow = Arc::new(AtomicU64::new(0));
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("turns.sock");
    let _server = Server::builder()
        .config(ServerConfig::new().workers(1))
        .unary("slow", {
            let slow = Arc::clone(&slow);
            move |_, _| {
                slow.fetch_add(1, SeqCst);
                std::thread::sleep(Duration::from_millis(2));
                Ok(())
            }
        })
        .in_place("echo", |_| Ok(()))
        .bind(&path)
        .unwrap();
    let config = ClientConfig::new(&path).priority(true);
    let urgent: Vec<_> = (0..URGENT)
        .map(|_| {
            let mut urgent = Connection::with(&config).unwrap();
            let slow = urgent.message_type("slow").unwrap();
            // More than all tries could need.
            (0..1_000).for_each(|_| assert!(urgent.queue(slow, b"").unwrap().is_some()));
            urgent.flush();
            urgent
        })
        .collect();
    let mut others: Vec<_> = (0..OTHERS).map(|_| Connection::connect(&path).unwrap()).collect();
    let echo = others[0].message_type("echo").unwrap();
    eventually("those with priority are at work", || slow.load(SeqCst) > 0);
    let mut slow_meanwhile = || {
        let before = slow.load(SeqCst);
        for other in &mut others {
            assert!(other.queue(echo, b"ding").unwrap().is_some());
            other.flush();
        }
        for other in &mut others {
            other.wait(&mut Vec::new()).unwrap().outcome.unwrap();
        }
        slow.load(SeqCst) - before
    };
    // With each of them in between there are eight for each of the others. On a busy machine some run before the others have come.
    assert!((0..TRIES).any(|_| slow_meanwhile() < 3 * OTHERS), "they always wait for all of those with priority");
    drop(urgent);
}
