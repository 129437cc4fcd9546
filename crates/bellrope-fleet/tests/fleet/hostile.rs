//! Messages that are made to do harm, one kind after the other, and more of them than anybody asks for.

use std::sync::atomic::Ordering;

use futures_util::StreamExt as _;
use serde::Serialize;

use bellrope_testkit::nats::{Nats, SOON, eventually};

use crate::servers::{importing, offering, runtime};

/// As `frame.rs` has it: a stranger knows how our messages look.
#[derive(Serialize)]
struct Up<'a> {
    from: u64,
    call: u64,
    what: UpKind<'a>,
}

#[derive(Serialize)]
enum UpKind<'a> {
    Call(Head<'a>),
    Data(u64, u64),
    Finish,
    Credit(u32),
    Cancel,
    Beat(u64, u64),
}

#[derive(Serialize)]
struct Head<'a> {
    name: &'a str,
    style: u8,
    codec: u8,
    schema: u64,
    begin_by_us: u64,
    deadline_us: Option<u64>,
    caller: &'a str,
    session: &'a str,
    trace: &'a str,
    size: u64,
}

#[derive(Serialize)]
pub(crate) enum DownKind {
    Taken,
    Data((u64, u64), bool),
    End(u64),
    Failed(u16, u64, &'static str),
    Refused(u16, u64, &'static str),
    Credit(u32),
    Ask(u64),
    Holding,
    Load(u64),
    Leaving,
    Chunks(u64),
}

pub(crate) fn written(message: impl Serialize, payload: &[u8]) -> Vec<u8> {
    let mut bytes = postcard::to_extend(&message, vec![1]).unwrap();
    bytes.extend_from_slice(payload);
    bytes
}

fn up(from: u64, what: UpKind<'_>) -> Vec<u8> {
    written(Up { from, call: 1, what }, b"ding")
}

fn down(from: u64, what: DownKind) -> Vec<u8> {
    written((from, 1_u64, what), &[])
}

fn head(name: &str) -> Head<'_> {
    let (begin_by_us, deadline_us) = (u64::MAX, None);
    Head { name, style: 0, codec: 0, schema: 0, begin_by_us, deadline_us, caller: "", session: "", trace: "", size: 4 }
}

fn call(from: u64, name: &str) -> Vec<u8> {
    up(from, UpKind::Call(head(name)))
}

/// What is sent where, of an instance and an importing server with these numbers.
fn table(instance: u64, importing: u64) -> Vec<(String, Vec<u8>)> {
    let overlong = [&[1][..], &[0xFF; 20]].concat();
    let endless_name = [&[1, 1, 1, 0][..], &[0xFF; 9], &[1]].concat();
    let nothing = [Vec::new(), vec![1], vec![2; 40], vec![0], overlong, endless_name];
    let calls = ["bellrope.call.echo".to_owned(), format!("bellrope.at.{instance:016x}.echo")];
    let (to_instance, to_importing) =
        (format!("bellrope.to.{instance:016x}.up"), format!("bellrope.to.{importing:016x}.down"));
    let mut table = Vec::new();
    let mut put = |subject: &str, payload: Vec<u8>| table.push((subject.to_owned(), payload));
    for subject in calls.iter().chain([&to_instance, &to_importing, &"bellrope.load".to_owned()]) {
        nothing.iter().for_each(|payload| put(subject, payload.clone()));
    }
    for subject in &calls {
        // Of one whose clock is known it would begin at once.
        [9, importing].into_iter().for_each(|from| put(subject, call(from, "never")));
        put(subject, call(9, "nobody has this"));
        put(subject, up(9, UpKind::Call(Head { style: 9, ..head("echo") })));
        put(subject, up(9, UpKind::Call(Head { size: u64::MAX, ..head("echo") })));
        put(subject, up(9, UpKind::Cancel));
    }
    for from in [9, importing] {
        let what = [UpKind::Data(u64::MAX, u64::MAX), UpKind::Finish, UpKind::Credit(u32::MAX), UpKind::Cancel];
        what.into_iter().for_each(|what| put(&to_instance, up(from, what)));
        put(&to_instance, up(from, UpKind::Beat(u64::MAX, 0)));
        put(&to_instance, call(from, "never"));
    }
    for from in [9, instance] {
        let what = [
            DownKind::Taken,
            DownKind::Data((u64::MAX, u64::MAX), true),
            DownKind::End(u64::MAX),
            DownKind::Failed(u16::MAX, u64::MAX, "\u{1b}[2J"),
            DownKind::Refused(u16::MAX, u64::MAX, ""),
            DownKind::Credit(u32::MAX),
            DownKind::Ask(u64::MAX),
            DownKind::Load(u64::MAX),
            DownKind::Chunks(u64::MAX),
        ];
        what.into_iter().for_each(|what| put(&to_importing, down(from, what)));
        put(&to_importing, [down(from, DownKind::Holding), vec![7; 900_001]].concat());
        put(&to_importing, [down(from, DownKind::Chunks(0)), vec![0; 900_001]].concat());
        put("bellrope.load", down(from, DownKind::Load(u64::MAX)));
        put("bellrope.load", down(from, DownKind::Leaving));
        put("bellrope.load", down(from, DownKind::Ask(1)));
    }
    for info in ["", "{}", "[]", "null", "{\"type\":1}", &"[".repeat(100_000)] {
        put(&format!("bellrope.to.{importing:016x}.info"), info.as_bytes().to_vec());
    }
    put("bellrope.news", vec![0; 1000]);
    table
}

#[test]
fn no_message_of_a_stranger_runs_what_is_not_offered_there_or_stops_the_service() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let here = importing(&nats.url());
    let client = here.client();
    let runtime = runtime();
    let stranger = runtime.block_on(async_nats::connect(nats.url())).unwrap();
    let mut heard = runtime.block_on(stranger.subscribe("bellrope.*.>")).unwrap();
    // Once this comes back, NATS knows who listens.
    runtime.block_on(stranger.publish("bellrope.probe.heard", "".into())).unwrap();
    runtime.block_on(async {
        while tokio::time::timeout(SOON, heard.next()).await.unwrap().unwrap().subject.as_str()
            != "bellrope.probe.heard"
        {}
    });
    client.call("echo", b"").unwrap();
    let listened = runtime.block_on(async {
        loop {
            let message = tokio::time::timeout(SOON, heard.next()).await.unwrap().unwrap();
            if let Some(reply) = message.reply {
                return reply;
            }
        }
    });
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let importing = number(listened.split('.').nth(2).unwrap());
    let ping = stranger.request("$SRV.PING.bellrope", "".into());
    let ping = runtime.block_on(ping).unwrap();
    let said: serde_json::Value = serde_json::from_slice(&ping.payload).unwrap();
    let instance = number(said["id"].as_str().unwrap());
    drop(heard);
    for (subject, payload) in table(instance, importing) {
        let shown = format!("{subject} {:?}", &payload[..payload.len().min(40)]);
        runtime.block_on(stranger.publish(subject, payload.into())).unwrap();
        runtime.block_on(stranger.flush()).unwrap();
        eventually(&shown, || client.call("echo", b"ding").is_ok_and(|answer| answer == b"ding"));
    }
    assert_eq!(there.seen.never_began.load(Ordering::SeqCst), 0, "a call came where another type is called");
    let foreign = [&there, &here].map(|member| member.fleet.counters().foreign.load(Ordering::SeqCst));
    assert!(foreign.iter().all(|count| *count >= 10), "{foreign:?}");
    assert!(there.fleet.is_linked() && here.fleet.is_linked());
}

#[test]
fn a_flood_of_calls_from_importing_servers_that_never_answer_is_refused_and_the_service_goes_on() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let here = importing(&nats.url());
    let client = here.client();
    client.call("echo", b"").unwrap();
    let runtime = runtime();
    let stranger = runtime.block_on(async_nats::connect(nats.url())).unwrap();
    for from in 0..20_000 {
        let subject = if from % 2 == 0 { "bellrope.call.never" } else { "bellrope.call.echo" };
        let payload = call(1_000 + from, subject.rsplit('.').next().unwrap());
        runtime.block_on(stranger.publish(subject, payload.into())).unwrap();
        if from % 1000 == 0 {
            runtime.block_on(stranger.flush()).unwrap();
            // It may be refused or lost meanwhile; it ends.
            let _ = client.call("echo", b"ding");
        }
    }
    runtime.block_on(stranger.flush()).unwrap();
    eventually("calls are answered as ever", || client.call("echo", b"ding").is_ok_and(|answer| answer == b"ding"));
    let refused = || there.fleet.counters().refused.load(Ordering::SeqCst);
    eventually("what nobody stands for is refused", || refused() >= 1024);
    assert_eq!(there.seen.never_began.load(Ordering::SeqCst), 0, "the clock of who asked was never known");
}

#[test]
fn a_call_that_waits_for_its_callers_clock_does_not_run_once_it_is_cancelled() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let here = importing(&nats.url());
    here.client().call("echo", b"").unwrap();
    let runtime = runtime();
    runtime.block_on(async {
        let stranger = async_nats::connect(nats.url()).await.unwrap();
        let mut heard = stranger.subscribe(format!("bellrope.to.{:016x}.down", 9)).await.unwrap();
        stranger.publish("bellrope.call.never", call(9, "never").into()).await.unwrap();
        let asked = tokio::time::timeout(SOON, heard.next()).await.unwrap().unwrap();
        // From whom, of no call, `Ask`, by this number.
        let (instance, _, kind, nonce): (u64, u64, u32, u64) = postcard::from_bytes(&asked.payload[1..]).unwrap();
        assert_eq!(kind, 6);
        let to_instance = format!("bellrope.to.{instance:016x}.up");
        for what in [UpKind::Cancel, UpKind::Beat(1, nonce)] {
            stranger.publish(to_instance.clone(), up(9, what).into()).await.unwrap();
        }
        // One that comes after that runs.
        let second = Up { from: 9, call: 2, what: UpKind::Call(head("echo")) };
        stranger.flush().await.unwrap();
        stranger.publish("bellrope.call.echo", written(second, b"ding").into()).await.unwrap();
        loop {
            let message = tokio::time::timeout(SOON, heard.next()).await.unwrap().unwrap();
            if message.payload.ends_with(b"ding") {
                break;
            }
        }
    });
    assert_eq!(there.seen.never_began.load(Ordering::SeqCst), 0, "it was cancelled before it could begin");
}

/// Resident memory of this process, in KiB.
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn what_strangers_have_us_answer_is_bounded_however_much_of_it_comes() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let here = importing(&nats.url());
    let client = here.client();
    client.call("echo", b"").unwrap();
    let runtime = runtime();
    let stranger = runtime.block_on(async_nats::connect(nats.url())).unwrap();
    let mut calls = runtime.block_on(stranger.subscribe("bellrope.at.*.echo")).unwrap();
    runtime.block_on(stranger.flush()).unwrap();
    client.call("echo", b"").unwrap();
    let heard = runtime.block_on(async { tokio::time::timeout(SOON, calls.next()).await.unwrap().unwrap() });
    let importing = heard.reply.unwrap().split('.').nth(2).unwrap().to_owned();
    let before = resident_kb();
    // 32 MiB that say of four million calls that they are held, of which there are none, and a hundred thousand questions.
    let mut number = 0_u64;
    let mut held = || -> Vec<u8> {
        (0..4096)
            .flat_map(|_| {
                number += 1;
                number.to_le_bytes()
            })
            .collect()
    };
    let subject = format!("bellrope.to.{importing}.down");
    runtime.block_on(async {
        for round in 0..1000_u64 {
            let holding = [down(9 + round, DownKind::Holding), held()].concat();
            stranger.publish(subject.clone(), holding.into()).await.unwrap();
            for question in 0..100 {
                stranger.publish(subject.clone(), down(9, DownKind::Ask(question)).into()).await.unwrap();
            }
        }
        stranger.flush().await.unwrap();
    });
    eventually("calls are answered as ever", || client.call("echo", b"ding").is_ok_and(|answer| answer == b"ding"));
    let more = resident_kb().saturating_sub(before);
    // Other tests take something meanwhile; without bounds it was 864 MB.
    assert!(more < 384 * 1024, "{more} KiB more");
    assert!(there.fleet.is_linked() && here.fleet.is_linked());
}
