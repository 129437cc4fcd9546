//! Instances, importing servers and NATS servers that die, stop, or cannot be reached.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bellrope::{
    CallError, Server,
    client::Client,
    server::{Cancelled, OwnedCall},
};
use bellrope_fleet::FleetSettings;
use rustix::process::Signal;

use bellrope_testkit::nats::{Nats, SOON, Way, eventually};

use crate::servers::{Process, Seen, builder, importing, join, offering, settings, socket};

/// Who is gone is known within a second; twice that on a machine with other work.
const KNOWN: Duration = Duration::from_secs(2);

#[test]
fn a_killed_instance_leaves_its_calls_unknown_and_the_next_call_to_others() {
    let Some(nats) = Nats::start() else { return };
    let mut there = Process::start("offer", &nats.url(), nats.home(), "one");
    let here = importing(&nats.url());
    let client = here.client();
    let mut stream = client.stream("count", &[0; 8]).unwrap();
    stream.next().unwrap().unwrap();
    let second = offering(&nats.url());
    there.kill();
    // What was sent before may still be whole.
    let ended = stream.find_map(Result::err);
    assert!(matches!(ended, None | Some(CallError::Unknown)), "{ended:?}");
    let began = Instant::now();
    eventually("the other one answers", || client.call("echo", &[0; 8]).is_ok());
    assert!(began.elapsed() < KNOWN, "{:?}", began.elapsed());
    drop(second);
}

#[test]
fn a_link_that_is_cut_under_a_call_leaves_it_unknown_and_one_that_was_cut_before_not_executed() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let way = Way::to(nats.port);
    let here = importing(&way.url());
    let client = here.client();
    std::thread::scope(|scope| {
        let calling = scope.spawn(|| client.call("never", b""));
        eventually("it runs", || there.seen.began.load(Ordering::SeqCst) == 1);
        let cut = Instant::now();
        way.cut();
        let ended = calling.join().unwrap();
        assert!(matches!(ended, Err(CallError::Unknown)), "{ended:?}");
        assert!(cut.elapsed() < KNOWN, "{:?}", cut.elapsed());
    });
    eventually("the handler, whom nobody waits for, ends", || there.seen.dropped.load(Ordering::SeqCst) == 1);
    let ended = client.call("echo", b"");
    assert!(matches!(ended, Err(CallError::NotExecuted)), "{ended:?}");
    way.heal();
    eventually("the next link is made", || client.call("echo", b"").is_ok());
}

/// Notes how the call of a handler ended.
struct Noting(Cancelled, Arc<[AtomicUsize; 2]>);

impl Drop for Noting {
    fn drop(&mut self) {
        self.1[usize::from(self.0.is_withdrawn())].fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_stream_that_speaks_while_its_link_is_lost_is_left_and_not_withdrawn() {
    const STREAMS: usize = 8;
    let Some(nats) = Nats::start() else { return };
    let way = Way::to(nats.port);
    let ended = Arc::<[AtomicUsize; 2]>::default();
    let speaking = |seen: &Arc<Seen>| {
        let ended = Arc::clone(&ended);
        builder(seen).server_stream("speaks", move |call: OwnedCall, mut chunks| {
            let noting = Noting(call.cancelled(), Arc::clone(&ended));
            async move {
                let _noting = noting;
                loop {
                    chunks.send([7; 100]).await?;
                    tokio::task::yield_now().await;
                }
            }
        })
    };
    let _there = join(FleetSettings { offer: vec!["*".into()], ..settings(&way.url()) }, speaking).unwrap();
    let here = importing(&nats.url());
    let client = here.client();
    for round in 1..=4 {
        let mut streams: Vec<_> = (0..STREAMS).map(|_| client.stream("speaks", b"").unwrap()).collect();
        streams.iter_mut().for_each(|stream| drop(stream.next().unwrap().unwrap()));
        std::thread::scope(|scope| {
            for mut stream in streams.drain(..) {
                scope.spawn(move || while stream.next().is_some_and(|chunk| chunk.is_ok()) {});
            }
            way.cut();
        });
        eventually("the handlers end", || {
            ended.iter().map(|ended| ended.load(Ordering::SeqCst)).sum::<usize>() == round * STREAMS
        });
        assert_eq!(ended[1].load(Ordering::SeqCst), 0, "withdrawn in round {round}");
        way.heal();
        eventually("it is back", || client.call("echo", b"").is_ok());
    }
}

#[test]
fn an_instance_that_is_cut_off_ends_what_runs_there() {
    let Some(nats) = Nats::start() else { return };
    let way = Way::to(nats.port);
    let there = offering(&way.url());
    let here = importing(&nats.url());
    let client = here.client();
    let mut stream = client.stream("once", b"").unwrap();
    assert_eq!(stream.next().unwrap().unwrap(), b"one");
    let cut = Instant::now();
    way.cut();
    let ended = stream.next();
    assert!(matches!(ended, Some(Err(CallError::Unknown))), "{ended:?}");
    assert!(cut.elapsed() < KNOWN, "{:?}", cut.elapsed());
    eventually("the handler ends", || there.seen.dropped.load(Ordering::SeqCst) == 1);
    way.heal();
    eventually("it is back", || client.call("echo", b"").is_ok());
}

#[test]
fn a_killed_importing_server_leaves_no_handler_at_work() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let mut here = Process::start("import", &nats.url(), nats.home(), "here");
    let path = socket(nats.home(), "here");
    let mut client = None;
    eventually("it serves", || {
        client = Client::connect(&path).ok().filter(|client| client.message_type("endless").is_ok());
        client.is_some()
    });
    let client = client.unwrap();
    let mut stream = client.stream("endless", b"").unwrap();
    stream.next().unwrap().unwrap();
    here.kill();
    let killed = Instant::now();
    eventually("the handler ends", || there.seen.dropped.load(Ordering::SeqCst) == 1);
    assert!(killed.elapsed() < KNOWN, "{:?}", killed.elapsed());
}

#[test]
fn a_nats_server_that_stands_still_runs_nothing_that_was_given_up() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let here = importing(&nats.url());
    let client = here.client();
    assert!(client.call("echo", b"").is_ok());
    nats.signal(Signal::STOP);
    let error = client.call_within("never", b"", Duration::from_millis(500)).unwrap_err();
    assert!(matches!(error, CallError::DeadlineExceeded | CallError::Unknown), "{error:?}");
    let error = client.call_within("never", b"", Duration::from_secs(5)).unwrap_err();
    assert!(matches!(error, CallError::Unknown), "{error:?}");
    nats.signal(Signal::CONT);
    eventually("calls are answered again", || client.call("echo", b"last").is_ok());
    // Refused, or gone with a link that had to be made anew because NATS stood still for too long.
    let (instance, importing) = (there.fleet.counters(), here.fleet.counters());
    let links = || instance.links.load(Ordering::SeqCst) + importing.links.load(Ordering::SeqCst);
    let refused = || instance.refused.load(Ordering::SeqCst);
    let until = Instant::now() + KNOWN;
    while refused() < 2 && links() <= 2 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
    // What came before the last call was sent before it, on the same way. So the instance has it, and after a drain nothing that
    // it has begins any more. A handler that ran would hold the drain up.
    let counts = format!("refused {}, taken {}, links {}", refused(), instance.taken.load(Ordering::SeqCst), links());
    let drained = there.fleet.drain(Duration::from_secs(10));
    assert_eq!(there.seen.never_began.load(Ordering::SeqCst), 0, "given up, and run: {counts}");
    assert!(drained, "{counts}");
}

#[test]
fn a_cluster_whose_nodes_are_killed_one_by_one_serves_on_and_runs_nothing_twice() {
    let Some(mut nodes) = Nats::cluster(3) else { return };
    let settings = FleetSettings { servers: nodes.iter().map(Nats::url).collect(), ..FleetSettings::default() };
    let offering = FleetSettings { offer: vec!["echo".into()], ..settings.clone() };
    let there = [0, 1].map(|_| join(offering.clone(), builder).unwrap());
    let here = join(FleetSettings { import: vec!["*".into()], ..settings }, |_| Server::builder()).unwrap();
    let client = here.client();
    let (stop, [answered, unknown]) = (AtomicBool::new(false), [(); 2].map(|()| AtomicUsize::new(0)));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let began = Instant::now();
                while !stop.load(Ordering::SeqCst) && began.elapsed() < 4 * SOON {
                    match client.call("echo", &[5; 100]) {
                        Ok(_) => drop(answered.fetch_add(1, Ordering::SeqCst)),
                        Err(CallError::Unknown) => drop(unknown.fetch_add(1, Ordering::SeqCst)),
                        Err(CallError::NotExecuted) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            });
        }
        let more = |what: &str| {
            let before = answered.load(Ordering::SeqCst);
            eventually(what, || answered.load(Ordering::SeqCst) >= before + 100);
        };
        more("calls are answered");
        while nodes.len() > 1 {
            // Killed, not ended.
            drop(nodes.remove(0));
            more("calls are answered by way of those that are left");
        }
        stop.store(true, Ordering::SeqCst);
    });
    let began: usize = there.iter().map(|member| member.seen.began.load(Ordering::SeqCst)).sum();
    let (answered, unknown) = (answered.into_inner(), unknown.into_inner());
    assert!((answered..=answered + unknown).contains(&began), "{answered} answered, {unknown} unknown, {began} began");
}
