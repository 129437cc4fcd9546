//! The problems of `cases.rs` once more, each in another form.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bellrope::{CallError, Client, Server, server::HandlerError};
use bellrope_fleet::FleetSettings;
use futures_util::StreamExt as _;
use rustix::process::Signal;

use bellrope_testkit::nats::{Nats, SOON, Way, eventually, signal};

use crate::{
    cases::{importing_what_is_gone, pretend},
    hostile::DownKind,
    servers::{Process, importing, join, notes, offering, runtime, settings, socket},
};

/// Who is gone is known within a second; twice that on a machine with other work.
const KNOWN: Duration = Duration::from_secs(2);

/// Somebody who overhears these subjects and sends each message of them once more.
async fn repeat(url: String, subject: &'static str, listens: Arc<AtomicBool>) {
    let client = async_nats::connect(url).await.unwrap();
    let mut heard = client.subscribe(subject).await.unwrap();
    client.flush().await.unwrap();
    listens.store(true, Ordering::SeqCst);
    let mut said = HashSet::new();
    while let Some(message) = heard.next().await {
        if said.insert(message.payload.clone()) {
            match message.reply {
                Some(reply) => client.publish_with_reply(message.subject, reply, message.payload).await.unwrap(),
                None => client.publish(message.subject, message.payload).await.unwrap(),
            }
        }
    }
}

/// Repeats what is sent on these subjects, as long as it is there.
fn overhearing(nats: &Nats, subjects: [&'static str; 2]) -> tokio::runtime::Runtime {
    let runtime = runtime();
    for subject in subjects {
        let listens = Arc::<AtomicBool>::default();
        runtime.spawn(repeat(nats.url(), subject, Arc::clone(&listens)));
        eventually("it listens", || listens.load(Ordering::SeqCst));
    }
    runtime
}

#[test]
fn a_call_that_somebody_overhears_and_sends_again_runs_once() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let here = importing(&nats.url());
    let client = here.client();
    let _overhears = overhearing(&nats, ["bellrope.call.*", "bellrope.at.*.*"]);
    let (before, began) = (there.seen.began.load(Ordering::SeqCst), || there.seen.began.load(Ordering::SeqCst));
    for call in 0..50_u32 {
        assert_eq!(client.call("echo", &call.to_le_bytes()).unwrap(), call.to_le_bytes());
    }
    let forged = || there.fleet.counters().forged.load(Ordering::SeqCst);
    eventually("all of them have come once more", || forged() >= 50);
    assert_eq!(began() - before, 50);
}

#[test]
fn what_comes_twice_on_its_way_back_or_up_is_never_taken_for_more_of_it() {
    let Some(nats) = Nats::start() else { return };
    let _there = offering(&nats.url());
    let here = importing(&nats.url());
    let client = here.client();
    let _overhears = overhearing(&nats, ["bellrope.to.*.down", "bellrope.to.*.up"]);
    for _ in 0..20 {
        assert_eq!(client.call("echo", b"ding").unwrap(), b"ding");
        let chunks: Vec<_> = client.stream("count", b"3000").unwrap().collect();
        let whole: Vec<_> = chunks.iter().map_while(|chunk| chunk.as_ref().ok()).collect();
        assert!(whole.iter().zip(0_u32..).all(|(chunk, n)| **chunk == n.to_le_bytes()));
        match chunks.last() {
            Some(Err(error)) => assert!(matches!(error, CallError::Unknown), "{error:?}"),
            _ => assert_eq!(whole.len(), 3000),
        }
        let mut upload = client.client_stream("tally", b"").unwrap();
        (1..=9).for_each(|len| drop(upload.send(&vec![1; len])));
        match upload.finish() {
            Ok(sizes) => assert_eq!(sizes, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
            Err(error) => assert!(matches!(error, CallError::Unknown), "{error:?}"),
        }
    }
}

#[test]
fn chunks_that_overtake_each_other_are_no_answer_and_a_second_answer_is_not_heard() {
    let Some(nats) = Nats::start() else { return };
    let here = importing_what_is_gone(&nats.url());
    let client = here.client();
    let runtime = runtime();
    let chunk = |seq, text: &'static [u8]| (DownKind::Data((seq, text.len() as u64), false), text);
    let (taken, end) = (|| (DownKind::Taken, &b""[..]), |items| (DownKind::End(items), &b""[..]));
    let overtaken = runtime.spawn(pretend(nats.url(), move || vec![taken(), chunk(1, b"b"), chunk(0, b"a"), end(2)]));
    eventually("it is no answer", || match &client.stream("count", b"1").unwrap().collect::<Vec<_>>()[..] {
        [Err(CallError::Unknown)] => true,
        [Err(CallError::NotExecuted)] => false,
        other => panic!("{other:?}"),
    });
    overtaken.abort();
    runtime.block_on(async { drop(overtaken.await) });
    let twice = move || vec![taken(), chunk(0, b"a"), end(1), chunk(1, b"b"), end(2), taken(), chunk(0, b"c"), end(1)];
    let _twice = runtime.spawn(pretend(nats.url(), twice));
    eventually("it is the first answer", || match &client.stream("count", b"1").unwrap().collect::<Vec<_>>()[..] {
        [Ok(chunk)] => chunk == b"a",
        [Err(CallError::Unknown | CallError::NotExecuted)] => false,
        other => panic!("{other:?}"),
    });
}

#[test]
fn nodes_of_a_cluster_that_take_messages_of_different_sizes_bring_all_sizes_both_ways() {
    let Some(large) = Nats::configured(&node("large", "", 1024 * 1024)) else { return };
    let route = format!("\"nats://127.0.0.1:{}\"", large.cluster_port());
    let small = Nats::configured(&node("small", &route, 8192)).unwrap();
    for (there, here) in [(&large, &small), (&small, &large)] {
        let _there = offering(&there.url());
        let here = importing(&here.url());
        let client = here.client();
        for len in [6143, 6144, 6145, 8192, 32_768, 32_769, 300_000] {
            let payload: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            assert_eq!(client.call("echo", &payload).unwrap(), payload, "{len}");
            let mut upload = client.client_stream("join", b"").unwrap();
            assert!(payload.chunks(4096).all(|chunk| upload.send(chunk).unwrap()));
            assert_eq!(upload.finish().unwrap(), payload, "{len}");
        }
    }
}

fn node(name: &str, route: &str, max_payload: usize) -> String {
    format!(
        "server_name: {name}\nmax_payload: {max_payload}\n\
         cluster {{ name: fleet, listen: \"127.0.0.1:-1\", routes: [{route}] }}"
    )
}

#[test]
fn names_with_what_nats_takes_for_its_own_reach_their_own_handlers_and_no_others() {
    let Some(nats) = Nats::start() else { return };
    let names =
        ["*", ">", "a.*", "a.>", "a.b", "a", "a b", "a..b", ".", "%2A", "%", "ünï", "$SRV.PING", "A", "x\u{a0}y"];
    let there = join(FleetSettings { offer: vec!["*".into()], ..settings(&nats.url()) }, |_| {
        names.iter().fold(Server::builder(), |builder, name| {
            let own = name.as_bytes();
            builder.unary_async(name, move |_| async move { Ok::<_, HandlerError>(own.to_vec()) })
        })
    })
    .unwrap();
    let here = importing(&nats.url());
    let client = Client::connect(&here.path).unwrap();
    for name in names {
        eventually(name, || client.message_type(name).is_ok());
        assert_eq!(client.call(name, b"").unwrap(), name.as_bytes());
    }
    assert_eq!(there.fleet.counters().foreign.load(Ordering::SeqCst), 0);
}

#[test]
fn credentials_that_nats_takes_back_end_what_is_under_way_and_new_ones_bring_the_fleet_back() {
    let user = |password: &str| format!("authorization {{ users: [{{ user: desk, password: {password} }}] }}");
    let Some(nats) = Nats::configured(&user("before")) else { return };
    let home = tempfile::tempdir().unwrap();
    let password = home.path().join("password");
    std::fs::write(&password, "before").unwrap();
    let known =
        || FleetSettings { user: Some("desk".into()), password_file: Some(password.clone()), ..settings(&nats.url()) };
    let there = join(FleetSettings { offer: vec!["*".into()], ..known() }, crate::servers::builder).unwrap();
    let here = join(FleetSettings { import: vec!["*".into()], ..known() }, |_| Server::builder()).unwrap();
    let client = here.client();
    let mut stream = client.stream("once", b"").unwrap();
    stream.next().unwrap().unwrap();
    let config = format!("host: 127.0.0.1\nport: {}\n{}\n", nats.port, user("after"));
    std::fs::write(nats.home().join("nats.conf"), config).unwrap();
    let taken_back = Instant::now();
    nats.signal(Signal::HUP);
    let ended = stream.next();
    assert!(matches!(ended, Some(Err(CallError::Unknown))), "{ended:?}");
    assert!(taken_back.elapsed() < KNOWN, "{:?}", taken_back.elapsed());
    let ended = client.call("echo", b"");
    assert!(matches!(ended, Err(CallError::NotExecuted)), "{ended:?}");
    eventually("nothing runs on", || there.seen.dropped.load(Ordering::SeqCst) == 1);
    // Read anew with each try.
    std::fs::write(&password, "after").unwrap();
    eventually("both are back", || client.call("echo", b"ding").is_ok_and(|answer| answer == b"ding"));
}

#[test]
fn an_instance_that_stands_still_in_mid_stream_is_lost_and_harms_nothing_when_it_goes_on() {
    let Some(nats) = Nats::start() else { return };
    let there = Process::start("offer", &nats.url(), nats.home(), "stands");
    let here = importing(&nats.url());
    let client = here.client();
    let stream = || client.stream("count", &[0; 8]).unwrap().collect::<Result<Vec<_>, _>>();
    assert_eq!(stream().unwrap().len(), 50);
    signal(&there.child, Signal::STOP);
    let stopped = Instant::now();
    let ended = stream();
    assert!(matches!(ended, Err(CallError::Unknown)), "{ended:?}");
    assert!(stopped.elapsed() < KNOWN, "{:?}", stopped.elapsed());
    signal(&there.child, Signal::CONT);
    eventually("it answers again, whole", || {
        stream().is_ok_and(|chunks| chunks.iter().zip(0_u32..).all(|(chunk, n)| *chunk == n.to_le_bytes()))
    });
}

/// As one that is paused, moved or starved.
#[test]
fn a_machine_that_stands_still_with_all_of_its_fleet_loses_no_call() {
    let Some(nats) = Nats::start() else { return };
    let there = Process::start("offer", &nats.url(), nats.home(), "there");
    let here = Process::start("import", &nats.url(), nats.home(), "here");
    let path = socket(nats.home(), "here");
    let mut client = None;
    eventually("it serves", || {
        client = Client::connect(&path).ok().filter(|client| client.message_type("waits").is_ok());
        client.is_some()
    });
    let client = client.unwrap();
    std::thread::scope(|scope| {
        let calling = scope.spawn(|| client.call("waits", &[7; 8]));
        eventually("it runs", || std::fs::read(notes(nats.home(), "there")).is_ok_and(|noted| noted == [7; 8]));
        let all = |what| {
            nats.signal(what);
            [&there, &here].into_iter().for_each(|member| signal(&member.child, what));
        };
        all(Signal::STOP);
        std::thread::sleep(Duration::from_millis(1_200));
        all(Signal::CONT);
        assert_eq!(calling.join().unwrap().unwrap(), [7; 8]);
    });
}

#[test]
fn a_storm_of_lost_links_leaves_one_connection_each_and_runs_nothing_twice() {
    let Some(nats) = Nats::configured("http: \"127.0.0.1:-1\"") else { return };
    let ways = [(); 2].map(|()| Way::to(nats.port));
    let there = offering(&ways[0].url());
    let here = importing(&ways[1].url());
    let client = here.client();
    let (stop, [answered, unknown]) = (AtomicBool::new(false), [(); 2].map(|()| AtomicUsize::new(0)));
    let before = there.seen.began.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let began = Instant::now();
                while !stop.load(Ordering::SeqCst) && began.elapsed() < 4 * SOON {
                    match client.call_within("echo", &[5; 100], SOON) {
                        Ok(_) => drop(answered.fetch_add(1, Ordering::SeqCst)),
                        Err(CallError::Unknown) => drop(unknown.fetch_add(1, Ordering::SeqCst)),
                        Err(CallError::NotExecuted | CallError::Rejected { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            });
        }
        for round in 0..20 {
            let way = &ways[round % 2];
            way.cut();
            way.heal();
            let now = answered.load(Ordering::SeqCst);
            eventually("calls are answered again", || answered.load(Ordering::SeqCst) > now + 5);
        }
        stop.store(true, Ordering::SeqCst);
    });
    let began = there.seen.began.load(Ordering::SeqCst) - before;
    let (answered, unknown) = (answered.into_inner(), unknown.into_inner());
    assert!((answered..=answered + unknown).contains(&began), "{answered} answered, {unknown} unknown, {began} began");
    eventually("the links that were lost are gone", || {
        let said: serde_json::Value = serde_json::from_str(&nats.monitoring("/varz")).unwrap();
        said["connections"] == 2
    });
}

#[test]
fn what_runs_both_ways_when_its_instance_drains_ends_whole() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let here = importing(&nats.url());
    let client = here.client();
    let mut upload = client.client_stream("tally", b"").unwrap();
    assert!(upload.send(b"a").unwrap());
    let (mut sink, mut stream) = client.duplex("double", b"").unwrap();
    assert!(sink.send(b"a").unwrap());
    assert_eq!(stream.next().unwrap().unwrap(), b"aa");
    std::thread::scope(|scope| {
        let draining = scope.spawn(|| there.fleet.drain(Duration::from_secs(20)));
        eventually("it takes nothing new", || client.call("echo", b"").is_err());
        for _ in 0..100 {
            assert!(upload.send(b"bc").unwrap());
            assert!(sink.send(b"b").unwrap());
            assert_eq!(stream.next().unwrap().unwrap(), b"bb");
        }
        sink.finish();
        assert!(stream.next().is_none());
        assert_eq!(upload.finish().unwrap().len(), 101);
        assert!(draining.join().unwrap());
    });
}

#[test]
fn two_fleets_at_one_nats_and_two_that_do_not_know_each_other_are_apart() {
    let Some(nats) = Nats::start() else { return };
    let Some(other) = Nats::start() else { return };
    let in_fleet = |url: &str, prefix: &str| FleetSettings { prefix: prefix.into(), ..settings(url) };
    let places = [(nats.url(), "one"), (nats.url(), "two"), (other.url(), "one")];
    let all = places.map(|(url, prefix)| {
        let there = join(FleetSettings { offer: vec!["*".into()], ..in_fleet(&url, prefix) }, crate::servers::builder);
        let here = join(FleetSettings { import: vec!["*".into()], ..in_fleet(&url, prefix) }, |_| Server::builder());
        (there.unwrap(), here.unwrap())
    });
    for (place, (there, here)) in all.iter().enumerate() {
        let client = here.client();
        let before = all.each_ref().map(|(there, _)| there.seen.began.load(Ordering::SeqCst));
        (0..20).for_each(|_| drop(client.call("echo", b"").unwrap()));
        let now = all.each_ref().map(|(there, _)| there.seen.began.load(Ordering::SeqCst));
        for (at, (now, before)) in now.iter().zip(before).enumerate() {
            assert_eq!(now - before, if at == place { 20 } else { 0 });
        }
        assert!(there.fleet.is_linked());
    }
}
