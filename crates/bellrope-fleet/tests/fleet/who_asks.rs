//! Who asks, on the way to another machine: signed, and counted there as somebody; forged or sent again, never.

use std::{path::PathBuf, sync::atomic::Ordering};

use async_nats::{HeaderMap, Message};
use bellrope::{
    CallError, Client, Server,
    breaker::{BreakerConfig, Caller},
    client::{CallOptions, ClientConfig, Metadata, Rejection},
    server::ServerConfig,
};
use bellrope_fleet::FleetSettings;
use futures_util::StreamExt as _;
use nkeys::KeyPair;
use rustix::process::Signal;

use bellrope_testkit::nats::{Nats, SOON, eventually, signal};

use crate::servers::{Member, Process, builder, join, runtime, settings};

/// A key, and a file with its seed.
struct Key {
    public: String,
    seed: PathBuf,
}

fn key(nats: &Nats, name: &str) -> Key {
    key_of(nats.home().join(name), &KeyPair::new_user())
}

fn key_of(seed: PathBuf, pair: &KeyPair) -> Key {
    std::fs::write(&seed, pair.seed().unwrap()).unwrap();
    Key { public: pair.public_key(), seed }
}

/// An instance that trusts these keys.
fn trusting(url: &str, keys: &[&Key]) -> Member {
    let trust = keys.iter().map(|key| key.public.clone()).collect();
    join(FleetSettings { offer: vec!["*".into()], trust, ..settings(url) }, builder).unwrap()
}

/// An importing server that signs with this key, and looks at no failures itself.
fn desk(url: &str, name: &str, key: Option<&Key>) -> Member {
    let signing_seed_file = key.map(|key| key.seed.clone());
    let all = FleetSettings { import: vec!["*".into()], name: name.into(), signing_seed_file, ..settings(url) };
    let blind = BreakerConfig::default().enabled(false);
    join(all, |_| {
        let named = |shown: &str| shown.strip_prefix("brt_").map(str::to_owned);
        Server::builder().token_names(named).config(ServerConfig::default().breaker(blind.clone()))
    })
    .unwrap()
}

impl Member {
    /// A client that this server takes for another process.
    fn process(&self, number: u64) -> Client {
        let name = Caller::Remote { server: 1, caller: number }.acting_name().unwrap();
        let client = Client::with(ClientConfig::new(&self.path).name(name)).unwrap();
        eventually("the types of the fleet are known", || client.message_type("who").is_ok());
        client
    }
}

fn who(client: &Client, metadata: Metadata) -> String {
    let metadata = metadata.caller("editor").unwrap();
    let said = client.call_with("who", b"", &CallOptions::new().metadata(metadata)).unwrap();
    String::from_utf8(said).unwrap()
}

#[test]
fn who_asks_is_known_where_its_server_is_trusted_and_else_it_is_the_fleet() {
    let Some(nats) = Nats::start() else { return };
    let [own, strange] = ["own", "strange"].map(|name| key(&nats, name));
    let there = trusting(&nats.url(), &[&own]);
    let signed = desk(&nats.url(), "desk", Some(&own));
    let client = signed.process(1);
    assert_eq!(who(&client, Metadata::new()), "Some(Named(\"desk/editor\")) true");
    assert_eq!(who(&client, Metadata::new().token("brt_tool").unwrap()), "Some(Token(\"tool\")) true");
    assert_eq!(who(&client, Metadata::new().token("mistyped").unwrap()), "Some(Named(\"desk/editor\")) true");
    // Without the token's name nobody's budget would have the call.
    for name in ["brt_ tool", "brt_tool "] {
        let options = CallOptions::new().metadata(Metadata::new().token(name).unwrap());
        let refused = client.call_with("who", b"", &options);
        assert!(
            matches!(&refused, Err(CallError::InvalidRequest { text }) if text.contains("does not fit")),
            "{refused:?}"
        );
    }
    // What a caller says of itself does not count, and no caller's name is taken for a token.
    let unnamed = desk(&nats.url(), "", Some(&own));
    let posing = CallOptions::new().metadata(Metadata::new().caller("token tool").unwrap());
    let said = unnamed.process(1).call_with("who", b"", &posing).unwrap();
    assert_eq!(String::from_utf8(said).unwrap(), "Some(Named(\"caller token tool\")) true");
    assert_eq!(there.fleet.counters().signed.load(Ordering::SeqCst), 4);
    for (name, key) in [("none", None), ("strange", Some(&strange))] {
        let other = desk(&nats.url(), name, key);
        assert_eq!(
            who(&other.process(1), Metadata::new().token("brt_tool").unwrap()),
            "Some(Named(\"fleet\")) false",
            "{name}"
        );
    }
    assert_eq!(there.fleet.counters().signed.load(Ordering::SeqCst), 4);
    assert_eq!(there.fleet.counters().forged.load(Ordering::SeqCst), 0);
}

#[test]
fn the_nkey_by_which_nats_lets_a_server_in_signs_for_it() {
    let pairs = [(); 2].map(|()| KeyPair::new_user());
    let users: Vec<_> = pairs.iter().map(|pair| format!("{{ nkey: {} }}", pair.public_key())).collect();
    let Some(nats) = Nats::configured(&format!("authorization: {{ users: [ {} ] }}", users.join(", "))) else { return };
    let [here, there] = ["here", "there"].map(|name| nats.home().join(name));
    let (here, there) = (key_of(here, &pairs[0]), key_of(there, &pairs[1]));
    let with = |key: &Key| FleetSettings { nkey_seed_file: Some(key.seed.clone()), ..settings(&nats.url()) };
    let offering = FleetSettings { offer: vec!["*".into()], trust: vec![here.public.clone()], ..with(&there) };
    let _there = join(offering, builder).unwrap();
    let desk = FleetSettings { import: vec!["*".into()], name: "desk".into(), ..with(&here) };
    let desk = join(desk, |_| Server::builder()).unwrap();
    assert_eq!(who(&desk.process(1), Metadata::new()), "Some(Named(\"desk/editor\")) true");
}

#[test]
fn callers_of_other_machines_have_breakers_of_their_own_and_one_server_opens_none_for_all() {
    let Some(nats) = Nats::start() else { return };
    let [one, other] = ["one", "other"].map(|name| key(&nats, name));
    let _there = trusting(&nats.url(), &[&one, &other]);
    let desks = [desk(&nats.url(), "one", Some(&one)), desk(&nats.url(), "other", Some(&other))];
    let breaks = |client: &Client, payload: &[u8]| client.call("breaks", payload);
    let is_open = |client: &Client| {
        matches!(breaks(client, b"good"), Err(CallError::Rejected { reason: Rejection::Breaker, .. }))
    };
    let callers = [1, 2, 3].map(|number| desks[0].process(number));
    for caller in &callers[..2] {
        for _ in 0..5 {
            let broken = breaks(caller, b"bad");
            assert!(matches!(broken, Err(CallError::Handler { .. })), "{broken:?}");
        }
        assert!(is_open(caller));
    }
    let elsewhere = desks[1].process(1);
    assert!(breaks(&callers[2], b"good").is_ok() && breaks(&elsewhere, b"good").is_ok());
    assert!(callers[..2].iter().all(is_open), "and so they stay");
    // Those of two servers do.
    for _ in 0..4 {
        assert!(breaks(&callers[2], b"bad").is_err() && breaks(&elsewhere, b"bad").is_err());
    }
    let third = desks[1].process(2);
    assert!(is_open(&third));
}

#[test]
fn one_server_has_at_most_half_of_the_calls_that_an_instance_may_have() {
    let Some(nats) = Nats::start() else { return };
    let [one, other] = ["one", "other"].map(|name| key(&nats, name));
    let trust = vec![one.public.clone(), other.public.clone()];
    let offering = FleetSettings { offer: vec!["*".into()], trust, max_in_flight: 4, ..settings(&nats.url()) };
    let there = join(offering, builder).unwrap();
    let desks = [desk(&nats.url(), "one", Some(&one)), desk(&nats.url(), "other", Some(&other))];
    let client = desks[0].process(1);
    assert!(client.call("echo", b"").is_ok());
    let _held: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = client.stream("once", b"").unwrap();
            stream.next().unwrap().unwrap();
            stream
        })
        .collect();
    let more = desks[0].process(2).call("echo", b"");
    assert!(matches!(more, Err(CallError::Rejected { reason: Rejection::Busy, .. })), "{more:?}");
    assert!(desks[1].process(1).call("echo", b"").is_ok());
    assert_eq!(there.fleet.counters().forged.load(Ordering::SeqCst), 0);
}

/// A signed call of `echo`, as somebody sees it who listens to everything.
async fn overheard(client: &async_nats::Client, call: impl FnOnce() + Send + 'static) -> Message {
    let mut heard = client.subscribe("bellrope.at.>").await.unwrap();
    // Once this comes back, NATS knows who listens.
    client.publish("bellrope.at.probe", "".into()).await.unwrap();
    tokio::time::timeout(SOON, heard.next()).await.unwrap().unwrap();
    let calling = tokio::task::spawn_blocking(call);
    let message = tokio::time::timeout(SOON, heard.next()).await.unwrap().unwrap();
    calling.await.unwrap();
    message
}

#[test]
fn what_is_forged_or_sent_again_is_dropped_or_counts_as_the_fleet() {
    let Some(nats) = Nats::start() else { return };
    let own = key(&nats, "own");
    let there = trusting(&nats.url(), &[&own]);
    let desk = desk(&nats.url(), "desk", Some(&own));
    let client = std::sync::Arc::new(desk.process(1));
    // So that the instance knows whose link it is.
    client.call("echo", b"").unwrap();
    let runtime = runtime();
    let stranger = runtime.block_on(async_nats::connect(nats.url())).unwrap();
    let caller = std::sync::Arc::clone(&client);
    let signed = runtime.block_on(overheard(&stranger, move || drop(caller.call("echo", b"ding").unwrap())));
    let headers = signed.headers.clone().unwrap();
    // What comes again after its time is refused for that.
    let counters = there.fleet.counters();
    let dropped = || counters.forged.load(Ordering::SeqCst) + counters.refused.load(Ordering::SeqCst);
    let mut expected = 0;
    let mut send = |what: &str, subject: &str, headers: &HeaderMap, payload: Vec<u8>| {
        let sent = stranger.publish_with_headers(subject.to_owned(), headers.clone(), payload.into());
        runtime.block_on(async {
            sent.await.unwrap();
            stranger.flush().await.unwrap();
        });
        expected += 1;
        eventually(what, || dropped() == expected);
    };
    let began = || there.seen.began.load(Ordering::SeqCst);
    let before = began();
    let with = |name: &str, value: &str| {
        let mut headers = headers.clone();
        headers.insert(name, value);
        headers
    };
    send("sent again", &signed.subject, &headers, signed.payload.to_vec());
    send("where NATS draws", "bellrope.call.echo", &headers, signed.payload.to_vec());
    send("with a token", &signed.subject, &with("Bellrope-Token", "tool"), signed.payload.to_vec());
    send("of another caller", &signed.subject, &with("Bellrope-Caller", "0000000000000001"), signed.payload.to_vec());
    // Another request, of the same length.
    let mut changed = signed.payload.to_vec();
    *changed.last_mut().unwrap() = b'!';
    send("with other bytes", &signed.subject, &headers, changed);
    assert_eq!(began(), before, "none of them ran");
    // Without what is signed it is nobody's in particular, as any message of a stranger.
    runtime.block_on(async {
        stranger.publish(signed.subject.clone(), signed.payload.clone()).await.unwrap();
        stranger.flush().await.unwrap();
    });
    let signed_calls = || counters.signed.load(Ordering::SeqCst);
    let before = signed_calls();
    client.call("echo", b"").unwrap();
    assert_eq!(signed_calls(), before + 1, "calls of the one that it pretended to be are well");
}

#[test]
fn names_of_servers_and_callers_leave_room_for_what_is_sent() {
    let Some(nats) = Nats::configured("max_payload: 8192") else { return };
    let own = key(&nats, "own");
    let _there = trusting(&nats.url(), &[&own]);
    let desk = desk(&nats.url(), &"d".repeat(64), Some(&own));
    let client = desk.process(1);
    let texts = Metadata::new().token(&format!("brt_{}", "t".repeat(64))).unwrap();
    let options = CallOptions::new().metadata(texts.session(&"s".repeat(128)).unwrap());
    for len in [6000, 6143, 6144, 6145, 8191, 8192, 8193, 100_000] {
        assert_eq!(client.call_with("echo", &vec![5; len], &options).unwrap().len(), len);
    }
}

#[test]
fn a_copy_of_a_signed_call_does_not_run_also_if_its_signature_was_taken_off_or_broken() {
    let Some(nats) = Nats::start() else { return };
    let own = key(&nats, "own");
    let there = [trusting(&nats.url(), &[&own]), trusting(&nats.url(), &[&own])];
    let desk = desk(&nats.url(), "desk", Some(&own));
    let client = desk.process(1);
    let mut ids = Vec::new();
    eventually("both are known", || {
        let listed = bellrope_fleet::instances(&settings(&nats.url()), std::time::Duration::from_millis(300)).unwrap();
        ids = listed.into_iter().map(|listed| listed.id).collect();
        ids.len() == 2
    });
    let runtime = runtime();
    let stranger = runtime.block_on(async_nats::connect(nats.url())).unwrap();
    let mut heard = runtime.block_on(stranger.subscribe("bellrope.at.*.echo")).unwrap();
    runtime.block_on(stranger.flush()).unwrap();
    let began = || there.iter().map(|member| member.seen.began.load(Ordering::SeqCst)).sum::<usize>();
    let before = began();
    let mut copies = 0;
    for call in 0..10_u8 {
        assert_eq!(client.call("echo", &[call]).unwrap(), [call]);
        let message = runtime.block_on(async { tokio::time::timeout(SOON, heard.next()).await.unwrap().unwrap() });
        let (reply, mut broken) = (message.reply.unwrap(), message.headers.unwrap());
        broken.insert("Bellrope-Signature", "A".repeat(85) + "!");
        let at = ids.iter().map(|id| format!("bellrope.at.{id}.echo"));
        for subject in at.chain(["bellrope.call.echo".to_owned()]) {
            for headers in [None, Some(broken.clone())] {
                let (subject, reply, payload) = (subject.clone(), reply.clone(), message.payload.clone());
                runtime.block_on(async {
                    match headers {
                        None => stranger.publish_with_reply(subject, reply, payload).await.unwrap(),
                        Some(headers) => {
                            stranger.publish_with_reply_and_headers(subject, reply, headers, payload).await.unwrap();
                        }
                    }
                    stranger.flush().await.unwrap();
                    copies += 1;
                });
            }
        }
        // The copies on subjects of an instance are heard as well.
        for _ in 0..4 {
            runtime.block_on(async { tokio::time::timeout(SOON, heard.next()).await.unwrap().unwrap() });
        }
    }
    // One that came too late was refused before anybody looked at its signature.
    let dropped = |member: &Member| {
        let counters = member.fleet.counters();
        counters.forged.load(Ordering::SeqCst) + counters.refused.load(Ordering::SeqCst)
    };
    eventually("all copies are dropped", || there.iter().map(dropped).sum::<u64>() >= copies);
    assert_eq!(began() - before, 10);
}

#[test]
fn after_a_lost_call_no_call_goes_without_a_name_and_its_instance_has_them_again_as_soon_as_it_is_back() {
    let Some(nats) = Nats::start() else { return };
    let own = key(&nats, "own");
    let there = Process::start("offer", &nats.url(), nats.home(), "there");
    let desk = desk(&nats.url(), "desk", Some(&own));
    let client = Client::connect(&desk.path).unwrap();
    eventually("the types of the fleet are known", || client.message_type("echo").is_ok());
    let runtime = runtime();
    let stranger = runtime.block_on(async_nats::connect(nats.url())).unwrap();
    let mut drawn = runtime.block_on(stranger.subscribe("bellrope.call.>")).unwrap();
    runtime.block_on(stranger.flush()).unwrap();
    let options = CallOptions::new().metadata(Metadata::new().token("brt_tool").unwrap());
    let call = || client.call_with("echo", &[7; 8], &options);
    call().unwrap();
    signal(&there.child, Signal::STOP);
    let lost = call();
    assert!(matches!(lost, Err(CallError::Unknown)), "{lost:?}");
    signal(&there.child, Signal::CONT);
    eventually("it has calls again", || call().is_ok());
    for _ in 0..20 {
        call().unwrap();
    }
    // All that was sent before is here when this is.
    runtime.block_on(stranger.publish("bellrope.call.end", "".into())).unwrap();
    let first = runtime.block_on(async { tokio::time::timeout(SOON, drawn.next()).await.unwrap().unwrap() });
    assert_eq!(first.subject.as_str(), "bellrope.call.end", "NATS drew for a call with a name");
}
