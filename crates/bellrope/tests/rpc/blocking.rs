//! Handlers that block hold nobody up but themselves; those that should not are named.

use std::{
    sync::{
        Arc, Barrier, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::current,
    time::Duration,
};

use bellrope::{
    CallError, Client, HandlerError, Server,
    client::{CallOptions, CancelToken, ClientConfig, Connection, Transport},
    server::{CpuList, ServerConfig},
};
use bellrope_testkit::support::{PATIENCE, eventually};
use tempfile::TempDir;

/// What blocks, until it is opened.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    inside: AtomicUsize,
    most: AtomicUsize,
    ran: AtomicUsize,
}

impl Gate {
    fn wait(&self) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        let open = self.open.lock().unwrap();
        let (_open, timeout) = self.opened.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap();
        assert!(!timeout.timed_out(), "nobody opens the gate");
        self.inside.fetch_sub(1, Ordering::SeqCst);
        self.ran.fetch_add(1, Ordering::SeqCst);
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

fn home() -> (TempDir, std::path::PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("blocking.sock");
    (home, path)
}

// Fault 64.
#[test]
fn blocking_handlers_have_a_bounded_pool_and_let_the_worker_and_async_handlers_go_on() {
    let gate = Arc::new(Gate::default());
    let (home, path) = home();
    let _server = Server::builder()
        .config(ServerConfig::new().workers(1).blocking_threads(2))
        .unary_blocking("block", {
            let gate = Arc::clone(&gate);
            move |call| {
                gate.wait();
                Ok(call.payload().to_ascii_uppercase())
            }
        })
        .unary_blocking("fail", |_| Err(HandlerError::with_code(7, "no")))
        .unary_blocking("panic", |_| panic!("a blocking handler fell"))
        .in_place("echo", |_| Ok(()))
        .unary_async("later", |call| async move { Ok(call.into_payload()) })
        .bind(&path)
        .unwrap();
    let client = Client::connect(&path).unwrap();
    let options = CallOptions::new().timeout(PATIENCE);
    let callers: Vec<_> = (0..5)
        .map(|_| {
            let (client, options) = (client.clone(), options.clone());
            std::thread::spawn(move || client.call_with("block", b"ding", &options))
        })
        .collect();
    eventually("two handlers are inside", || gate.inside.load(Ordering::SeqCst) == 2);
    // One more waits for its turn, is cancelled there, and never runs.
    let token = CancelToken::new();
    let cancelled = std::thread::spawn({
        let (client, options) = (client.clone(), options.clone().cancel(&token));
        move || client.call_with("block", b"dong", &options)
    });
    eventually("six calls are under way", || {
        _server.metrics().snapshot().types.iter().map(|row| row.running).sum::<u64>() == 6
    });
    token.cancel();
    assert!(matches!(cancelled.join().unwrap(), Err(CallError::Cancelled)));
    assert_eq!(client.call_with("echo", b"ding", &options).unwrap(), b"ding", "the worker goes on");
    assert_eq!(client.call_with("later", b"ding", &options).unwrap(), b"ding", "async handlers go on");
    gate.open();
    for caller in callers {
        assert_eq!(caller.join().unwrap().unwrap(), b"DING");
    }
    assert_eq!(gate.most.load(Ordering::SeqCst), 2, "as many as blocking_threads");
    assert!(matches!(client.call("fail", b""), Err(CallError::Handler { code: 7, .. })));
    let error = client.call("panic", b"").unwrap_err();
    assert!(matches!(&error, CallError::HandlerPanic { text } if text.contains("a blocking handler fell")), "{error}");
    // The cancelled call may still be on its way to be dropped, but its turn is over if another one has had its own.
    assert_eq!(client.call_with("block", b"", &options).unwrap(), b"");
    assert_eq!(gate.ran.load(Ordering::SeqCst), 6, "what is cancelled before its turn does not run");
    drop(home);
}

// Fault 65.
#[test]
fn a_call_waits_for_a_few_of_another_connections_thousand_that_block() {
    let gate = Arc::new(Gate::default());
    let order = Arc::new(Mutex::new(Vec::new()));
    let (_home, path) = home();
    let server = Server::builder()
        .config(ServerConfig::new().workers(1).blocking_threads(1).max_in_flight(1_024))
        .unary_blocking("block", {
            let (gate, order) = (Arc::clone(&gate), Arc::clone(&order));
            move |call| {
                gate.wait();
                order.lock().unwrap().push(call.payload()[0]);
                Ok(Vec::new())
            }
        })
        .bind(&path)
        .unwrap();
    let under_way = || server.metrics().snapshot().types.iter().map(|row| row.running).sum::<u64>();
    let mut greedy = Connection::connect(&path).unwrap();
    let block = greedy.message_type("block").unwrap();
    for _ in 0..1_000 {
        greedy.submit(block, b"g").unwrap();
    }
    greedy.flush();
    eventually("all of its calls are under way", || under_way() == 1_000);
    eventually("one of them has the thread", || gate.inside.load(Ordering::SeqCst) == 1);
    let modest = std::thread::spawn({
        let client = Client::connect(&path).unwrap();
        move || client.call_with("block", b"m", &CallOptions::new().timeout(PATIENCE))
    });
    eventually("so is another one's", || under_way() == 1_001);
    gate.open();
    modest.join().unwrap().unwrap();
    let place = order.lock().unwrap().iter().position(|name| *name == b'm');
    assert!(place.is_some_and(|place| place < 100), "{place:?}");
    drop(greedy);
}

// Fault 59.
#[test]
fn one_that_sends_nothing_keeps_its_thread_only_as_long_as_no_other_call_waits_for_it() {
    use std::io::Write as _;

    let stall = Duration::from_millis(50);
    for transport in [Transport::Shm, Transport::Stream] {
        let (_home, path) = home();
        let reading = Arc::new(AtomicUsize::new(0));
        let _server = Server::builder()
            .config(ServerConfig::new().blocking_threads(1).stall_timeout(stall))
            .unary_reader("length", {
                let reading = Arc::clone(&reading);
                move |_, request| {
                    reading.fetch_add(1, Ordering::SeqCst);
                    let mut whole = Vec::new();
                    std::io::Read::read_to_end(request, &mut whole)?;
                    Ok(whole.len().to_string().into_bytes())
                }
            })
            .unary_blocking("block", |call| Ok(call.payload().to_vec()))
            .bind(&path)
            .unwrap();
        let connect = || Client::with(ClientConfig::new(&path).transport(transport)).unwrap();
        let (slow, other) = (connect(), connect());
        let begin = |times: usize| {
            let mut request = slow.call_writer("length", b"").unwrap();
            request.write_all(b"ding").unwrap();
            request.flush().unwrap();
            eventually("it is being read", || reading.load(Ordering::SeqCst) == times);
            request
        };
        // As long as nobody else wants the thread.
        let mut request = begin(1);
        std::thread::sleep(4 * stall);
        request.write_all(b"dong").unwrap();
        assert_eq!(request.finish().unwrap(), b"8");
        let request = begin(2);
        assert_eq!(other.call_with("block", b"ding", &CallOptions::new().timeout(PATIENCE)).unwrap(), b"ding");
        let error = request.finish().unwrap_err().to_string();
        assert!(error.contains("stall_timeout_ms") && error.contains("blocking_threads"), "{error}");
    }
}

// Fault 59.
#[test]
fn one_that_reads_a_little_now_and_then_keeps_no_thread_that_another_call_waits_for() {
    use std::io::{Read as _, Write as _};

    for transport in [Transport::Shm, Transport::Stream] {
        let (_home, path) = home();
        let _server = Server::builder()
            .config(ServerConfig::new().blocking_threads(1).stall_timeout(Duration::from_millis(200)))
            .unary_writer("endless", |_, reply| {
                while reply.write_all(&[7; 4_096]).is_ok() {}
                reply.write_all(b"what comes behind a hole").unwrap_err();
                // It passes over the error, and its caller is told all the same.
                Ok(())
            })
            .unary_blocking("block", |call| Ok(call.payload().to_vec()))
            .bind(&path)
            .unwrap();
        let connect = || Client::with(ClientConfig::new(&path).transport(transport)).unwrap();
        let (slow, other) = (connect(), connect());
        let mut reply = slow.call_reader("endless", b"").unwrap();
        let mut part = [0; 8_192];
        reply.read_exact(&mut part).unwrap();
        let calling =
            std::thread::spawn(move || other.call_with("block", b"ding", &CallOptions::new().timeout(PATIENCE)));
        // Slowly, and never so slowly that nothing goes at all.
        let mut read = || reply.read_exact(&mut part).map(|()| assert_eq!(part, [7; 8_192]));
        let mut ended = Ok(());
        while ended.is_ok() && !calling.is_finished() {
            std::thread::sleep(Duration::from_millis(2));
            ended = read();
        }
        assert_eq!(calling.join().unwrap().unwrap(), b"ding", "{transport:?}");
        let error = ended.and_then(|()| reply.read_to_end(&mut Vec::new())).unwrap_err().to_string();
        assert!(error.contains("stall_timeout_ms"), "{error}");
    }
}

// Faults 34, 58.
#[test]
fn what_goes_on_although_its_call_was_cancelled_counts_in_the_budget_until_it_ends() {
    let gate = Arc::new(Gate::default());
    let (_home, path) = home();
    let server = Server::builder()
        .unary_blocking("block", {
            let gate = Arc::clone(&gate);
            move |call| {
                gate.wait();
                Ok(call.payload()[..1].to_vec())
            }
        })
        .unary_async("elsewhere", {
            let gate = Arc::clone(&gate);
            move |call| {
                let gate = Arc::clone(&gate);
                async move {
                    let work = tokio::task::spawn_blocking(move || {
                        gate.wait();
                        call.payload().len()
                    });
                    Ok(work.await.map_err(|error| HandlerError::new(error.to_string()))?.to_string().into_bytes())
                }
            }
        })
        .bind(&path)
        .unwrap();
    let client = Client::connect(&path).unwrap();
    let used = || server.metrics().snapshot().buffers.unwrap().0;
    let running = || server.metrics().snapshot().types.iter().map(|row| row.running).sum::<u64>();
    for (number, name) in ["block", "elsewhere"].into_iter().enumerate() {
        let token = CancelToken::new();
        let options = CallOptions::new().timeout(PATIENCE).cancel(&token);
        let calling = std::thread::spawn({
            let client = client.clone();
            move || client.call_with(name, &vec![7; 1_000_000], &options)
        });
        eventually("it is at work", || gate.inside.load(Ordering::SeqCst) == number + 1);
        token.cancel();
        assert!(matches!(calling.join().unwrap(), Err(CallError::Cancelled)));
        eventually("the server has forgotten the call", || running() == 0);
        assert!(used() >= 1_000_000 * (number as u64 + 1), "{name}: {}", used());
    }
    gate.open();
    eventually("all of it is given back", || used() == 0);
}

// Fault 34.
#[test]
fn a_reply_has_the_room_of_its_request_where_there_is_no_other() {
    let (_home, path) = home();
    let config = ServerConfig::new().max_message_bytes(1 << 20).buffer_budget_bytes(1_500_000).budget_wait(PATIENCE);
    let server = Server::builder()
        .config(config)
        .unary_async("later", |call| async move { Ok(call.payload().to_vec()) })
        .unary_blocking("block", |call| Ok(call.payload().to_vec()))
        .bind(&path)
        .unwrap();
    let client = Client::connect(&path).unwrap();
    for name in ["later", "block"] {
        for _ in 0..3 {
            assert_eq!(client.call(name, &vec![7; 1_000_000]).unwrap().len(), 1_000_000, "{name}");
        }
    }
    eventually("all of it is given back", || server.metrics().snapshot().buffers.unwrap().0 == 0);
}

#[test]
fn async_handlers_run_on_the_runtime_that_they_are_given() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("own").enable_all().build().unwrap();
    let (_home, path) = home();
    let server = Server::builder()
        .runtime(runtime.handle().clone())
        .unary_async("where", |_| async { Ok(current().name().unwrap_or_default().as_bytes().to_vec()) })
        .unary_blocking("where.blocking", |_| Ok(current().name().unwrap_or_default().as_bytes().to_vec()))
        .bind(&path)
        .unwrap();
    let client = Client::connect(&path).unwrap();
    assert_eq!(client.call("where", b"").unwrap(), b"own");
    assert_eq!(client.call("where.blocking", b"").unwrap(), b"own");
    server.shutdown();
    // It is its owner's still.
    assert_eq!(runtime.block_on(async { 7 }), 7);
}

#[test]
fn as_many_async_handlers_work_at_once_as_there_are_async_threads() {
    // Two that wait for each other without giving their threads up: with one thread neither would ever end.
    let meeting = Arc::new(Barrier::new(2));
    let (_home, path) = home();
    let _server = Server::builder()
        .config(ServerConfig::new().async_threads(2))
        .unary_async("meet", move |_| {
            let meeting = Arc::clone(&meeting);
            async move {
                meeting.wait();
                Ok(Vec::new())
            }
        })
        .bind(&path)
        .unwrap();
    let client = Client::connect(&path).unwrap();
    let options = CallOptions::new().timeout(PATIENCE);
    let callers = [(); 2].map(|()| {
        let (client, options) = (client.clone(), options.clone());
        std::thread::spawn(move || client.call_with("meet", b"", &options))
    });
    for caller in callers {
        caller.join().unwrap().unwrap();
    }
    for threads in [0, 1025] {
        let config = ServerConfig::new().async_threads(threads);
        let error = config.check().unwrap_err().to_string();
        assert_eq!(error, format!("the setting async_threads is {threads}, and must be from 1 to 1024"));
        ServerConfig::new().blocking_threads(threads).check().unwrap_err();
    }
}

/// Each worker runs on its CPU alone, and there are as many as CPUs were named; a CPU that there is not is refused.
#[test]
fn workers_stay_on_the_cpus_that_were_named() {
    let allowed = || {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        line.trim().to_owned()
    };
    let usable: CpuList = allowed().parse().unwrap();
    let (_home, path) = home();
    let server = Server::builder()
        .config(ServerConfig::new().worker_cpus(usable.clone()))
        .unary("where", move |_, reply| {
            reply.put(allowed().as_bytes());
            Ok(())
        })
        .bind(&path)
        .unwrap();
    // New connections go to the workers in turn.
    let clients: Vec<_> = usable.iter().map(|_| Client::connect(&path).unwrap()).collect();
    let mut seen: Vec<usize> = clients
        .iter()
        .map(|client| String::from_utf8(client.call("where", b"").unwrap()).unwrap().parse().unwrap())
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, usable.iter().collect::<Vec<_>>());
    server.shutdown();

    let last: CpuList = "1023".parse().unwrap();
    if usable.iter().all(|cpu| cpu != 1023) {
        let error = ServerConfig::new().worker_cpus(last).check().unwrap_err().to_string();
        assert!(error.starts_with("the setting worker_cpus is 1023, which is no CPU"), "{error}");
    }
}

// Fault 64.
#[test]
fn a_handler_that_holds_a_worker_or_an_async_thread_is_counted() {
    let hold = || std::thread::sleep(Duration::from_millis(11));
    let (_home, path) = home();
    let server = Server::builder()
        .unary("worker", move |_, _| {
            hold();
            Ok(())
        })
        .unary_async("polled", move |_| async move {
            tokio::task::yield_now().await;
            hold();
            Ok(Vec::new())
        })
        .unary_async("begun", move |_| {
            hold();
            async { Ok(Vec::new()) }
        })
        .bind(&path)
        .unwrap();
    let client = Client::connect(&path).unwrap();
    let held = |name: &str| {
        let snapshot = server.metrics().snapshot();
        snapshot.types.iter().find(|row| row.name == name).map(|row| row.held_threads)
    };
    assert_eq!(["worker", "polled", "begun"].map(held), [Some(0); 3]);
    for _ in 0..3 {
        client.call("worker", b"").unwrap();
        client.call("polled", b"").unwrap();
        client.call("begun", b"").unwrap();
    }
    for name in ["worker", "polled", "begun"] {
        eventually(name, || held(name).is_some_and(|count| count >= 3));
    }
}
