//! What went wrong with requests and streams over NATS elsewhere: `docs/reported.md` has the table.

use std::{
    net::TcpListener,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bellrope::{AsyncClient, CallError, Server, server::ServerConfig};
use bellrope_fleet::{FleetError, FleetSettings, instances};
use futures_util::StreamExt as _;

use bellrope_testkit::nats::{Nats, SOON, Way, eventually};

use crate::{
    hostile::{DownKind, written},
    servers::{Member, Seen, builder, importing, join, offering, runtime, settings},
};

const NOTHING: &[u8] = b"";

/// An importing server that knows the types of an instance which is gone.
pub(crate) fn importing_what_is_gone(url: &str) -> Member {
    let there = offering(url);
    let here = importing(url);
    here.client().call("echo", b"").unwrap();
    drop(there);
    here
}

/// Somebody who takes calls of `count` and says this of them: frames of an instance with the number 7, with bytes behind them.
pub(crate) async fn pretend(url: String, say: impl Fn() -> Vec<(DownKind, &'static [u8])> + Send) {
    let client = async_nats::connect(url).await.unwrap();
    let mut calls = client.queue_subscribe("bellrope.call.count", "bellrope".to_owned()).await.unwrap();
    client.flush().await.unwrap();
    while let Some(call) = calls.next().await {
        // `PREFIX.to.ID.down.CALL`
        let reply = call.reply.unwrap();
        let (inbox, number) = reply.rsplit_once('.').unwrap();
        let number = u64::from_str_radix(number, 16).unwrap();
        for (what, bytes) in say() {
            client.publish(inbox.to_owned(), written((7_u64, number, what), bytes).into()).await.unwrap();
        }
    }
}

#[test]
fn nobody_there_is_not_executed_and_silence_is_unknown_and_the_two_are_never_mixed() {
    let Some(nats) = Nats::start() else { return };
    let here = importing_what_is_gone(&nats.url());
    let client = here.client();
    assert!(matches!(client.stream("count", b"1").unwrap().next(), Some(Err(CallError::NotExecuted))));
    let runtime = runtime();
    let silent = runtime.spawn(pretend(nats.url(), Vec::new));
    // Until it listens, nobody is there.
    eventually("somebody listens and says nothing", || match client.stream("count", b"1").unwrap().next() {
        Some(Err(CallError::Unknown)) => true,
        Some(Err(CallError::NotExecuted)) => false,
        other => panic!("{other:?}"),
    });
    silent.abort();
}

#[test]
fn a_stream_is_whole_only_with_an_end_that_says_how_many_chunks_it_had() {
    let Some(nats) = Nats::start() else { return };
    let here = importing_what_is_gone(&nats.url());
    let client = here.client();
    let runtime = runtime();
    let end = |items| (DownKind::End(items), NOTHING);
    let ways = [
        ("no end", None, false),
        ("an end of too many", Some(2), false),
        ("an end of too few", Some(0), false),
        ("its end", Some(1), true),
    ];
    for (what, items, whole) in ways {
        let said = move || {
            let chunk = (DownKind::Data((0, 1), false), &b"x"[..]);
            [(DownKind::Taken, NOTHING), chunk].into_iter().chain(items.map(end)).collect()
        };
        let pretending = runtime.spawn(pretend(nats.url(), said));
        eventually(what, || {
            let chunks: Vec<_> = client.stream("count", b"1").unwrap().collect();
            match &chunks[..] {
                [Ok(chunk)] if whole => chunk == b"x",
                [Ok(chunk), Err(CallError::Unknown)] if !whole => chunk == b"x",
                // The one before is still there, or none is yet.
                [Err(CallError::NotExecuted | CallError::Unknown)] => false,
                other => panic!("{what}: {other:?}"),
            }
        });
        pretending.abort();
        runtime.block_on(async { drop(pretending.await) });
    }
}

#[test]
fn an_empty_chunk_is_a_chunk_and_a_pause_is_no_end() {
    let Some(nats) = Nats::start() else { return };
    let _there = offering(&nats.url());
    let here = importing(&nats.url());
    // Longer than silence may be: beats fill it.
    let chunks: Vec<_> = here.client().stream("pauses", b"1000").unwrap().map(Result::unwrap).collect();
    assert_eq!(chunks, [b"one"; 3]);
    let mut upload = here.client().client_stream("tally", b"").unwrap();
    for chunk in [&b""[..], b"ding", b"", b""] {
        assert!(upload.send(chunk).unwrap());
    }
    assert_eq!(upload.finish().unwrap(), [0, 4, 0, 0]);
}

#[test]
fn an_empty_chunk_of_an_answer_is_not_its_end() {
    let Some(nats) = Nats::start() else { return };
    let here = importing_what_is_gone(&nats.url());
    let client = here.client();
    let runtime = runtime();
    let said = || {
        let chunks = [(DownKind::Data((0, 0), false), NOTHING), (DownKind::Data((1, 1), false), &b"x"[..])];
        [(DownKind::Taken, NOTHING)].into_iter().chain(chunks).chain([(DownKind::End(2), NOTHING)]).collect()
    };
    let pretending = runtime.spawn(pretend(nats.url(), said));
    eventually("what comes after it is read", || {
        // A local server sends no chunk without bytes on.
        client.stream("count", b"1").unwrap().map(Result::ok).collect::<Vec<_>>() == [Some(b"x".to_vec())]
    });
    pretending.abort();
}

#[test]
fn a_message_that_the_instance_does_not_take_is_refused_with_its_size_and_its_neighbours_are_unharmed() {
    let Some(nats) = Nats::start() else { return };
    let small = |seen: &Arc<Seen>| builder(seen).config(ServerConfig::default().max_message_bytes(1024 * 1024));
    let _there = join(FleetSettings { offer: vec!["*".into()], ..settings(&nats.url()) }, small).unwrap();
    let here = importing(&nats.url());
    let client = here.client();
    let mut neighbour = client.stream("once", b"").unwrap();
    assert_eq!(neighbour.next().unwrap().unwrap(), b"one");
    let most = 1024 * 1024;
    for size in [most - 1, most] {
        assert_eq!(client.call("echo", &vec![1; size]).unwrap().len(), size);
    }
    let error = client.call("echo", &vec![1; most + 1]).unwrap_err();
    assert!(matches!(error, CallError::MessageTooLarge { size, .. } if size == most as u64 + 1), "{error:?}");
    assert_eq!(client.call("echo", b"ding").unwrap(), b"ding");
    drop(neighbour);
}

#[test]
fn one_time_out_harms_no_other_call() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let here = importing(&nats.url());
    let client = here.client();
    let mut stream = client.stream("pauses", b"300").unwrap();
    stream.next().unwrap().unwrap();
    let error = client.call_within("never", b"", Duration::from_millis(100)).unwrap_err();
    assert!(matches!(error, CallError::DeadlineExceeded), "{error:?}");
    assert_eq!(client.call("echo", b"ding").unwrap(), b"ding");
    assert_eq!(stream.map(Result::unwrap).count(), 2);
    assert_eq!(here.fleet.counters().links.load(Ordering::SeqCst), 1);
    drop(there);
}

#[test]
fn a_stream_that_runs_when_its_instance_drains_ends_whole() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let here = importing(&nats.url());
    let client = here.client();
    let mut stream = client.stream("pauses", b"200").unwrap();
    stream.next().unwrap().unwrap();
    assert!(there.fleet.drain(Duration::from_secs(10)));
    assert_eq!(stream.map(Result::unwrap).count(), 2);
    assert!(matches!(client.call("echo", b""), Err(CallError::NotExecuted | CallError::Rejected { .. })));
}

#[test]
fn statistics_are_what_was_called_and_a_stream_is_timed_to_its_end() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let here = importing(&nats.url());
    let client = here.client();
    (0..7).for_each(|_| drop(client.call("echo", b"").unwrap()));
    (0..3).for_each(|_| drop(client.call("fail", b"").unwrap_err()));
    assert_eq!(client.stream("pauses", b"100").unwrap().map(Result::unwrap).count(), 3);
    // Whose reader goes away has not failed.
    let gone = importing(&nats.url());
    let mut left = gone.client().stream("once", b"").unwrap();
    left.next().unwrap().unwrap();
    drop(gone);
    eventually("the handler ends", || there.seen.dropped.load(Ordering::SeqCst) == 1);
    drop(left);
    let mut counted = [(0, 0, Duration::ZERO); 4];
    // A call is counted when its handler has ended, which its caller may hear a moment before that.
    eventually("all are counted", || {
        let listed = instances(&settings(&nats.url()), Duration::from_millis(300)).unwrap();
        let types: Vec<_> = listed.into_iter().flat_map(|instance| instance.types).collect();
        counted = ["echo", "fail", "pauses", "once"].map(|name| {
            let found = types.iter().find(|one| one.name == name);
            found.map_or((0, 0, Duration::ZERO), |found| (found.requests, found.errors, found.average))
        });
        counted[..3].iter().map(|(requests, ..)| *requests).eq([7, 3, 1])
    });
    assert_eq!(counted.map(|(_, errors, _)| errors), [0, 3, 0, 0]);
    assert!(counted[2].2 >= Duration::from_millis(300), "{counted:?}");
}

#[test]
fn tls_on_one_side_alone_fails_by_name() {
    let Some(nats) = Nats::start() else { return };
    let fails = |settings: FleetSettings| match join(FleetSettings { import: vec!["*".into()], ..settings }, |_| {
        Server::builder()
    }) {
        Ok(_) => panic!("it joined"),
        Err(error) => error,
    };
    // This side begins with TLS, and NATS says something first.
    let error = fails(FleetSettings { tls_first: true, ..settings(&format!("tls://127.0.0.1:{}", nats.port)) });
    assert!(matches!(error, FleetError::Tls { .. }), "first {error:?}");
    assert!(error.to_string().contains("fleet.tls_first"), "{error}");
    // TLS is wanted, and NATS has none.
    let error = fails(settings(&format!("tls://127.0.0.1:{}", nats.port)));
    assert!(matches!(error, FleetError::Tls { .. }), "{error:?}");
    // A server that waits for TLS says nothing.
    let waits = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", waits.local_addr().unwrap());
    let error = instances(&settings(&url), Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("as one that waits for TLS first does"), "{error}");
}

#[test]
fn an_answer_that_comes_before_the_last_chunk_is_told_at_once() {
    let Some(nats) = Nats::start() else { return };
    let _there = offering(&nats.url());
    let here = importing(&nats.url());
    drop(here.client());
    let answer = runtime().block_on(async {
        let client = AsyncClient::connect(&here.path).await.unwrap();
        let (mut sink, answer) = client.client_stream("first", b"").await.unwrap().split();
        assert!(sink.send(b"ding").await.unwrap());
        // No further chunk, and no end.
        let answer = tokio::time::timeout(SOON, answer.wait()).await.expect("the answer waits for a chunk");
        drop(sink);
        answer.unwrap()
    });
    assert_eq!(answer, b"ding");
}

#[test]
fn a_session_comes_back_to_an_instance_that_had_to_connect_anew() {
    let Some(nats) = Nats::start() else { return };
    let ways = [(); 3].map(|()| Way::to(nats.port));
    let there = ways.each_ref().map(|way| offering(&way.url()));
    let here = importing(&nats.url());
    let client = here.client();
    let call = || {
        let metadata = bellrope::client::Metadata::new().session("window 3").unwrap();
        client.call_with("echo", b"", &bellrope::client::CallOptions::new().metadata(metadata))
    };
    let began = || there.each_ref().map(|member| member.seen.began.load(Ordering::SeqCst));
    let home = || {
        let before = began();
        call().ok()?;
        began().iter().zip(before).position(|(now, before)| *now > before)
    };
    let mut at = None;
    eventually("the session stays", || {
        at = home();
        at.is_some() && (0..40).all(|_| home() == at)
    });
    let at = at.unwrap();
    let links = || there[at].fleet.counters().links.load(Ordering::SeqCst);
    let (before, cut) = (links(), Instant::now());
    ways[at].cut();
    // Meanwhile somebody else answers, and does not keep the session.
    eventually("it is answered elsewhere", || home().is_some_and(|other| other != at));
    ways[at].heal();
    eventually("the instance has another link", || links() > before && there[at].fleet.is_linked());
    eventually("the session is back", || home() == Some(at) && (0..40).all(|_| home() == Some(at)));
    assert!(cut.elapsed() < SOON);
}
