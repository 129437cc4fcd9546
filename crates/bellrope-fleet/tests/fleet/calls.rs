//! Calls of every style and size, from one server to another.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bellrope::{
    CallError, Server,
    client::{CallOptions, Metadata},
};
use bellrope_fleet::{FleetSettings, Order};

use bellrope_testkit::nats::{Nats, Way, eventually};

use crate::servers::{Member, Seen, builder, importing, join, offering, settings};

#[test]
fn every_style_of_call_is_answered_by_another_server_whatever_its_size() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let here = importing(&nats.url());
    let client = here.client();
    for len in [0, 1, 1000, 32_767, 32_768, 32_769, 300_000, 5_000_000] {
        let payload: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        assert_eq!(client.call("echo", &payload).unwrap(), payload, "{len}");
    }
    let error = client.call("fail", b"").unwrap_err();
    assert!(matches!(&error, CallError::Handler { code: 7, text } if text == "as asked"), "{error:?}");

    let counted = client.stream("count", b"5000").unwrap().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(counted, (0..5000_u32).map(|n| n.to_le_bytes().to_vec()).collect::<Vec<_>>());
    assert_eq!(client.stream("count", b"0").unwrap().count(), 0);

    let mut upload = client.client_stream("join", b"ding").unwrap();
    for _ in 0..1000 {
        assert!(upload.send(&[1; 1000]).unwrap());
    }
    assert_eq!(upload.finish().unwrap().len(), 1_000_004);
    assert_eq!(client.client_stream("join", b"dong").unwrap().finish().unwrap(), b"dong");

    let (mut sink, mut stream) = client.duplex("double", b"").unwrap();
    for n in 0..300_u32 {
        assert!(sink.send(&n.to_le_bytes()).unwrap());
        let doubled = stream.next().unwrap().unwrap();
        assert_eq!(doubled, [n.to_le_bytes(), n.to_le_bytes()].concat());
    }
    sink.finish();
    assert!(stream.next().is_none());
    drop(there);
}

#[test]
fn what_is_said_of_a_call_goes_with_it() {
    let Some(nats) = Nats::start() else { return };
    let _there = offering(&nats.url());
    let named = FleetSettings { import: vec!["*".into()], name: "desk".into(), ..settings(&nats.url()) };
    let here = join(named, |_| Server::builder()).unwrap();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let metadata = Metadata::new().trace(parent.parse().unwrap()).unwrap().session("window 3").unwrap();
    let options = CallOptions::new().metadata(metadata.caller("editor").unwrap());
    let said = here.client().call_with("said", b"", &options).unwrap();
    let expected = format!("Some(\"desk/editor\") Some(\"window 3\") Some({parent:?})");
    assert_eq!(String::from_utf8(said).unwrap(), expected);
}

#[test]
fn a_message_larger_than_the_nats_server_takes_travels_in_parts() {
    let Some(nats) = Nats::configured("max_payload: 8192") else { return };
    let _there = offering(&nats.url());
    let client = importing(&nats.url()).into_client();
    for len in [6000, 6143, 6144, 6145, 8191, 8192, 8193, 100_000] {
        assert_eq!(client.1.call("echo", &vec![5; len]).unwrap().len(), len);
    }
}

#[test]
fn the_local_server_comes_first_unless_the_fleet_alone_is_wanted() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    for (order, at_the_other) in [(Order::Local, 0), (Order::Only, 1)] {
        let both = FleetSettings { import: vec!["*".into()], order, ..settings(&nats.url()) };
        let here = join(both, builder).unwrap();
        let before = there.seen.began.load(Ordering::SeqCst);
        assert_eq!(here.client().call("echo", b"ding").unwrap(), b"ding");
        assert_eq!(there.seen.began.load(Ordering::SeqCst) - before, at_the_other, "{order:?}");
    }
}

#[test]
fn where_the_fleet_comes_first_this_server_answers_what_the_fleet_has_not_run() {
    let Some(nats) = Nats::start() else { return };
    let way = Way::to(nats.port);
    let first = FleetSettings { import: vec!["*".into()], order: Order::First, ..settings(&way.url()) };
    let here = join(first, builder).unwrap();
    let client = here.client();
    let began = |member: &Member| member.seen.began.load(Ordering::SeqCst);
    // All styles, wherever they are answered.
    let all_styles = || {
        assert_eq!(client.call("echo", b"ding").unwrap(), b"ding");
        let counted: Vec<_> = client.stream("count", b"3").unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(counted.len(), 3);
        let mut upload = client.client_stream("join", b"").unwrap();
        for chunk in [&b"a"[..], b"b"] {
            assert!(upload.send(chunk).unwrap());
        }
        assert_eq!(upload.finish().unwrap(), b"ab");
        let (mut sink, mut stream) = client.duplex("double", b"").unwrap();
        assert!(sink.send(b"c").unwrap());
        assert_eq!(stream.next().unwrap().unwrap(), b"cc");
    };
    // Nobody else is there.
    all_styles();
    let own = began(&here);
    assert!(own > 0);
    let there = offering(&nats.url());
    eventually("the fleet answers", || client.call("echo", b"").is_ok() && began(&there) > 0);
    let (own, theirs) = (began(&here), began(&there));
    all_styles();
    assert_eq!((began(&here), began(&there) > theirs), (own, true));
    // What may have run there is not run here.
    let mut endless = client.stream("endless", b"").unwrap();
    endless.next().unwrap().unwrap();
    drop(there);
    let ended = endless.find_map(Result::err);
    assert!(matches!(ended, Some(CallError::Unknown)), "{ended:?}");
    assert_eq!(began(&here), own);
    all_styles();
    assert!(began(&here) > own);
    // Nor is a link waited for.
    way.cut();
    eventually("the link is lost", || !here.fleet.is_linked());
    // Many times over, as each would wait for a second.
    let cut = Instant::now();
    (0..20).for_each(|_| all_styles());
    assert!(cut.elapsed() < Duration::from_secs(40), "{:?}", cut.elapsed());
}

#[test]
fn where_the_fleet_comes_first_this_server_answers_before_it_joins_and_if_it_never_does() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let first = FleetSettings { import: vec!["*".into()], order: Order::First, ..settings("nats://127.0.0.1:1") };
    let seen = Arc::<Seen>::default();
    let _server = bellrope_fleet::prepare(builder(&seen), &first).bind(&path).unwrap();
    let client = bellrope::Client::connect(&path).unwrap();
    assert_eq!(client.call("echo", b"ding").unwrap(), b"ding");
    assert_eq!(client.stream("count", b"3").unwrap().count(), 3);
}

#[test]
fn without_an_instance_a_call_is_not_executed_and_with_the_next_one_it_is_answered() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let here = importing(&nats.url());
    let client = here.client();
    assert!(client.call("echo", b"").is_ok());
    drop(there);
    let error = client.call("echo", b"").unwrap_err();
    assert!(matches!(error, CallError::NotExecuted), "{error:?}");
    assert!(matches!(client.stream("count", b"1").unwrap().next(), Some(Err(CallError::NotExecuted))));
    let _next = offering(&nats.url());
    eventually("the next instance answers", || client.call("echo", b"").is_ok());
}

#[test]
fn two_instances_share_the_calls() {
    let Some(nats) = Nats::start() else { return };
    let both = [offering(&nats.url()), offering(&nats.url())];
    let here = importing(&nats.url());
    let client = here.client();
    eventually("both have answered", || {
        client.call("echo", b"").unwrap();
        both.iter().all(|one| one.seen.began.load(Ordering::SeqCst) > 0)
    });
}

#[test]
fn a_stream_whose_reader_stops_holds_up_its_handler_and_nobody_else() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let here = importing(&nats.url());
    let client = here.client();
    let mut unread = client.stream("endless", b"").unwrap();
    unread.next().unwrap().unwrap();
    // It stands still when a hundred calls bring no further chunk.
    let mut chunks = 0;
    eventually("the handler waits for its reader", || {
        for _ in 0..100 {
            assert_eq!(client.call("echo", &[1; 100]).unwrap().len(), 100);
        }
        let before = std::mem::replace(&mut chunks, there.seen.chunks.load(Ordering::SeqCst));
        before == chunks
    });
    // Credit of three ways: the local one there, the fleet's, the local one here; a chunk has 1 KiB.
    assert!(chunks < 4096, "{chunks} chunks are under way");
    drop(unread);
    eventually("the handler ends", || there.seen.dropped.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_call_that_is_given_up_ends_where_it_runs() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let here = importing(&nats.url());
    let client = here.client();
    let error = client.call_within("never", b"", Duration::from_millis(300)).unwrap_err();
    assert!(matches!(error, CallError::DeadlineExceeded), "{error:?}");
    eventually("the handler ends", || there.seen.dropped.load(Ordering::SeqCst) == 1);
}

#[test]
fn an_instance_that_drains_loses_no_call() {
    let Some(nats) = Nats::start() else { return };
    let (first, _second) = (offering(&nats.url()), offering(&nats.url()));
    let here = importing(&nats.url());
    let client = Arc::new(here.client());
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let client = Arc::clone(&client);
            std::thread::spawn(move || {
                let until = Instant::now() + Duration::from_millis(1500);
                let mut calls = 0;
                while Instant::now() < until {
                    client.call("echo", &[3; 64]).unwrap();
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    eventually("it is at work", || first.seen.began.load(Ordering::SeqCst) > 20);
    assert!(first.fleet.drain(Duration::from_secs(10)));
    let at_drain = first.seen.began.load(Ordering::SeqCst);
    let calls: u32 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
    assert!(calls > 20);
    assert_eq!(first.seen.began.load(Ordering::SeqCst), at_drain, "a drained instance takes nothing");
}

impl Member {
    fn into_client(self) -> (Self, bellrope::Client) {
        let client = self.client();
        (self, client)
    }
}

#[test]
fn what_steers_a_server_is_never_offered() {
    let Some(nats) = Nats::start() else { return };
    let with_operator = |seen: &Arc<Seen>| builder(seen).operator();
    let _there = join(FleetSettings { offer: vec!["*".into()], ..settings(&nats.url()) }, with_operator).unwrap();
    let here = importing(&nats.url());
    let client = here.client();
    let names: Vec<_> = client.message_types().into_iter().map(|(name, _)| name).collect();
    for steering in bellrope::status::OPERATOR_TYPES {
        assert!(!names.iter().any(|name| name == steering), "{names:?}");
    }
}
