//! The program as a member of a fleet, with a real NATS server.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    sync::Arc,
};

use bellrope_fleet::{Fleet, FleetSettings};
use bellrope_testkit::nats::{Nats, Way};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    resumable::{begun, handed},
    support::{Home, Running, eventually, health_of, http},
    terminal::Terminal,
    typed::both_codecs,
};

/// A backend that answers for the fleet.
fn backend(home: &Home, url: &str) -> Running {
    home.serve(["--fleet", url, "--offer", "ai.*", "--health", "127.0.0.1:0"])
}

fn taken(server: &Running) -> u64 {
    let metrics = http(server, "/metrics");
    let line = metrics.lines().find(|line| line.starts_with("ipc_fleet_taken_total "));
    line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap()
}

#[test]
fn an_unchanged_chat_is_answered_by_a_fleet_of_three_and_told_when_its_backend_is_killed() {
    let Some(nats) = Nats::start() else { return };
    let homes = [Home::new(), Home::new(), Home::new()];
    let mut backends: Vec<_> = homes.iter().map(|home| backend(home, &nats.url())).collect();
    let home = Home::new();
    let url = nats.url();
    let _local = home.serve(["--fleet", &*url, "--import", "ai.*", "--set", "fleet.order=only"]);
    let answer = home.run(["chat", "Who is there?"]).succeeded();
    assert!(answer.ends_with("You asked: Who is there?\n"), "{answer}");
    assert_eq!(backends.iter().map(taken).sum::<u64>(), 1);

    let mut chat = Running::start(&mut home.command(["chat", "/tokens 4000000000"]));
    let mut began = chat.stdout();
    let mut first = [0];
    std::io::Read::read_exact(&mut began, &mut first).unwrap();
    let mut before = 0;
    let at_work = |backend: &Running| taken(backend) > 0 && runs(backend);
    eventually("one backend is at work", || {
        before = backends.iter().position(at_work).unwrap_or(backends.len());
        before < backends.len()
    });
    backends.remove(before).signal(Signal::KILL);
    std::io::copy(&mut began, &mut std::io::sink()).unwrap();
    let finished = chat.finish();
    assert!(finished.stderr.contains("it may have run"), "{}", finished.stderr);
    // Two are left, and answer.
    home.run(["chat", "Who is there?"]).succeeded();
}

#[test]
fn an_answer_that_is_kept_is_resumed_from_the_instance_that_has_it() {
    let Some(nats) = Nats::start() else { return };
    let homes = [Home::new(), Home::new(), Home::new()];
    let backends: Vec<_> = homes.iter().map(|home| backend(home, &nats.url())).collect();
    let home = Home::new();
    let desk = || home.serve(["--fleet", &*nats.url(), "--import", "ai.*", "--set", "fleet.order=only"]);
    let mut local = desk();
    // One of three by chance would pass this once in seven hundred runs.
    for is_started_anew in [false, true, true, false, true, true] {
        let answer = home.run(["chat", "--resumable", "Who is there?"]).succeeded();
        if is_started_anew {
            // What it knew of sessions is gone. The id says where the answer is.
            local.signal(Signal::KILL);
            local.finish();
            local = desk();
        }
        assert_eq!(home.run(["chat", "--resume"]).succeeded(), answer);
    }
    drop(local);
    assert_eq!(backends.iter().map(taken).sum::<u64>(), 12, "none was asked in vain");
}

#[test]
fn an_answer_is_resumed_whole_after_its_reader_its_server_or_the_link_was_lost_in_mid_answer() {
    let Some(nats) = Nats::start() else { return };
    for lost in ["reader", "server", "link"] {
        let (home, there, (provider, hand, is_left)) = (Home::new(), Home::new(), handed());
        let way = Way::to(nats.port);
        let _instance = provider.serve(&there, &["--fleet", &*way.url(), "--offer", "ai.*"]);
        let desk = || home.serve(["--fleet", &*nats.url(), "--import", "ai.*", "--set", "fleet.order=only"]);
        let mut local = desk();
        let (chat, _stdout) = begun(&home, &hand);
        match lost {
            "reader" => chat.signal(Signal::KILL),
            "server" => {
                local.signal(Signal::KILL);
                local.finish();
                local = desk();
            }
            _ => {
                way.cut();
                // Until that is seen at both ends.
                chat.said("it may have run");
                way.heal();
                let client = bellrope::Client::connect(home.socket()).unwrap();
                eventually("the fleet is back", || client.call("ai.models", b"").is_ok());
            }
        }
        chat.finish();
        hand.send("two ".to_owned()).unwrap();
        let again = Running::start(&mut home.command(["chat", "--resume"]));
        hand.send("three".to_owned()).unwrap();
        drop(hand);
        let finished = again.finish();
        assert_eq!((finished.code, &*finished.stdout), (Some(0), "one two three\n"), "{lost} {finished:?}");
        assert!(!is_left.load(std::sync::atomic::Ordering::SeqCst), "{lost}");
        assert_eq!(provider.asked().len(), 1, "{lost}");
        drop(local);
    }
    // Who does not want it any more ends it.
    let (home, there, (provider, hand, is_left)) = (Home::new(), Home::new(), handed());
    let _instance = provider.serve(&there, &["--fleet", &*nats.url(), "--offer", "ai.*"]);
    let _local = home.serve(["--fleet", &*nats.url(), "--import", "ai.*", "--set", "fleet.order=only"]);
    let (chat, _stdout) = begun(&home, &hand);
    chat.signal(Signal::INT);
    chat.finish();
    eventually("the provider is left", || {
        let _ = hand.send("more ".to_owned());
        is_left.load(std::sync::atomic::Ordering::SeqCst)
    });
}

#[test]
fn a_typed_service_of_the_fleet_is_listed_called_and_generated_from_as_at_its_own_server() {
    let Some(nats) = Nats::start() else { return };
    let (home, there) = (Home::new(), Home::new());
    let offer = FleetSettings { servers: vec![nats.url()], offer: vec!["*".into()], ..FleetSettings::default() };
    let server = Arc::new(bellrope_fleet::prepare(both_codecs(), &offer).bind(there.socket()).unwrap());
    let fleet = Fleet::join(offer, &server, there.socket()).unwrap();
    let _local = home.serve(["--fleet", &*nats.url(), "--import", "Store.*,Names.*", "--set", "fleet.order=only"]);
    let client = bellrope::Client::connect(home.socket()).unwrap();
    eventually("the fleet's types are known", || {
        ["Store.get", "Names.echo"].iter().all(|name| client.message_type(name).is_ok())
    });
    let listed = |home: &Home| {
        let mut all: Value = serde_json::from_str(&home.run(["list", "--schema"]).succeeded()).unwrap();
        let methods = all.as_object_mut().unwrap();
        methods.retain(|name, _| name.starts_with("Store.") || name.starts_with("Names."));
        assert_eq!(methods.len(), 12, "{methods:?}");
        all
    };
    assert_eq!(listed(&home), listed(&there));
    for (args, expected) in [
        (["call", "Store.get", r#"{"key":"x","limit":3}"#], "{\"key\":\"x\",\"size\":3,\"data\":\"Af8=\"}\n"),
        (["call", "Names.get", r#"{"key":"x","limit":3}"#], "{\"key\":\"x\",\"size\":3,\"data\":\"Af8=\"}\n"),
    ] {
        assert_eq!(home.run(args).succeeded(), expected);
    }
    assert_eq!(home.run(["call", "Store.count"]).succeeded(), "18446744073709551615\n");
    for (language, service) in [("ts", "Names"), ("python", "Names"), ("markdown", "Store")] {
        let generated = |home: &Home| home.run(["generate", language, "--service", service]).succeeded();
        assert_eq!(generated(&home), generated(&there), "{language}");
    }
    drop(fleet);
}

#[test]
fn what_is_under_way_has_as_long_as_the_settings_say_when_an_instance_is_told_to_stop() {
    let Some(nats) = Nats::start() else { return };
    for (seconds, code) in [("1", false), ("30", true)] {
        let (home, there, (provider, hand, _)) = (Home::new(), Home::new(), handed());
        let drain = format!("drain_s={seconds}");
        let instance = provider.serve(&there, &["--fleet", &*nats.url(), "--offer", "ai.*", "--set", &*drain]);
        let _local = home.serve(["--fleet", &*nats.url(), "--import", "ai.*", "--set", "fleet.order=only"]);
        let (chat, _stdout) = begun(&home, &hand);
        let told = std::time::Instant::now();
        instance.signal(Signal::TERM);
        if code {
            // Longer than a server takes without the setting.
            while told.elapsed() < std::time::Duration::from_secs(6) {
                hand.send("more ".to_owned()).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            drop(hand);
        }
        let finished = chat.finish();
        assert_eq!(finished.code == Some(0), code, "{seconds} {finished:?}");
        instance.finish();
    }
}

#[test]
fn files_of_a_fleet_that_cannot_be_read_are_wrong_settings_each_with_its_place() {
    let home = Home::new();
    let config = home.config(
        "[fleet]\nservers = [\"nats://127.0.0.1:1\"]\nsigning_seed_file = \"/none/seed\"\nca_file = \"/none/ca.pem\"\n",
    );
    let config = config.to_str().unwrap();
    for args in [&["config", "check", config][..], &["serve", "--config", config]] {
        let wrong = home.run(args.iter().copied());
        assert_eq!(wrong.code, Some(2), "{wrong:?}");
        for said in
            ["bellrope.toml:3:1: fleet.signing_seed_file names /none/seed, which", "bellrope.toml:4:1: fleet.ca_file"]
        {
            assert!(wrong.stderr.contains(said), "{said}: {wrong:?}");
        }
    }
}

#[test]
fn sizes_that_no_fleet_has_are_refused_in_words() {
    let home = Home::new();
    for args in [
        ["--editors", "18446744073709551615"],
        ["--backends", "1000000001"],
        ["--types", "99999999999999999999"],
        ["--calls", "-1"],
        ["--streams", "inf"],
        ["--chunks", "NaN"],
    ] {
        let refused = home.run(["fleet", "model", &*args.join("=")]);
        assert!(refused.code == Some(2) && refused.stderr.contains(args[0]), "{refused:?}");
    }
    let most = home.run(["fleet", "model", "--editors", "1000000000", "--backends", "1000000000", "--calls", "1e9"]);
    assert!(most.succeeded().contains("1000000000000000000"));
}

#[test]
fn doctor_says_whether_the_fleet_can_be_reached_and_who_is_there() {
    let Some(nats) = Nats::start() else { return };
    let (home, url) = (Home::new(), nats.url());
    let doctor = || home.run(["doctor", "--fleet", &*url, "--import", "ai.*"]).succeeded();
    assert!(doctor().contains("NATS answers, and no instance of the prefix \"bellrope\""), "{}", doctor());
    let there = Home::new();
    let _backend = backend(&there, &url);
    eventually("doctor sees the instance", || doctor().contains("NATS answers; instances: 1"));
    assert!(doctor().contains("who asks here is not signed (fleet.signing_seed_file)"), "{}", doctor());
    drop(nats);
    let failed = home.run(["doctor", "--fleet", &*url, "--import", "ai.*"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stdout.contains("no NATS server answers at"), "{failed:?}");
}

/// Whether a backend has a chat under way.
fn runs(backend: &Running) -> bool {
    let metrics = http(backend, "/metrics");
    metrics.lines().any(|line| line.starts_with("ipc_running_calls{type=\"ai.chat_stream\"") && !line.ends_with(" 0"))
}

#[test]
fn a_faulty_section_is_said_by_its_key_and_wrong_credentials_end_the_start() {
    let home = Home::new();
    let failed = home.run(["serve", "--fleet", "nats://127.0.0.1:4222", "--set", "fleet.prefix=a.b"]).failed(2);
    assert!(failed.contains("fleet.prefix must be 1 to 64 letters"), "{failed}");
    let Some(nats) = Nats::configured("authorization: { user: me, password: secret }") else { return };
    let failed = home.run(["serve", "--fleet", &nats.url(), "--import", "*"]).failed(1);
    assert!(failed.contains("refuses the credentials"), "{failed}");
}

/// Two backends with names.
fn named(homes: &[Home; 2], url: &str) -> [Running; 2] {
    let start = |at: usize, name: &str| {
        let name = format!("fleet.name={name}");
        homes[at].serve(["--fleet", url, "--offer", "ai.*", "--set", &*name, "--health", "127.0.0.1:0"])
    };
    [start(0, "attic"), start(1, "cellar")]
}

#[test]
fn top_shows_the_instances_live_and_who_is_gone_and_list_says_what_they_have_done() {
    let Some(nats) = Nats::start() else { return };
    let (url, home) = (nats.url(), Home::new());
    let failed = home.run(["fleet", "top", "--fleet", &*url]).failed(1);
    assert!(failed.contains("fleet top needs a terminal; `bellrope fleet top --once`"), "{failed}");
    let homes = [Home::new(), Home::new()];
    let [attic, cellar] = named(&homes, &url);
    let _local = home.serve(["--fleet", &*url, "--import", "ai.*", "--set", "fleet.order=only"]);
    home.run(["chat", "Who is there?"]).succeeded();

    let list =
        || serde_json::from_str::<Value>(&home.run(["fleet", "list", "--fleet", &*url, "--json"]).succeeded()).unwrap();
    let listed = list();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["server"].as_str().unwrap()).collect();
    assert_eq!(names, ["attic", "cellar"]);
    let types = |one: &Value| one["types"].as_array().unwrap().clone();
    let chats: Vec<_> = listed.as_array().unwrap().iter().flat_map(types).filter(|row| row["requests"] == 1).collect();
    assert_eq!(chats.len(), 1, "{listed}");
    assert!(chats[0]["p50_us"].is_u64() && chats[0]["p99_us"] == chats[0]["p50_us"], "{listed}");
    assert!(listed[0]["links"] == 1 && listed[0]["answered_us"].is_u64() && listed[0]["draining"] == false, "{listed}");
    let table = home.run(["fleet", "list", "--fleet", &*url]).succeeded();
    assert!(table.lines().count() == 3 && table.contains("attic") && table.contains("serves"), "{table}");

    let mut terminal = Terminal::open(&home, &["fleet", "top", "--fleet", &*url, "--interval", "200"]);
    terminal.shows(&["\x1b[?1049h", "2 instances", "attic", "cellar", "q quits"]);
    attic.signal(Signal::KILL);
    terminal.shows(&["gone"]);
    terminal.press("q");
    terminal.shows(&["\x1b[?1049l"]);
    assert_eq!(terminal.finish().code, Some(0));

    let once = home.run(["fleet", "top", "--fleet", &*url, "--once", "--interval", "200", "--json"]).succeeded();
    let view: Value = serde_json::from_str(&once).unwrap();
    assert!(view["instances"][0]["server"] == "cellar" && view["instances"][0]["state"] == "serves", "{view}");
    let table = home.run(["fleet", "top", "--fleet", &*url, "--once", "--interval", "200"]).succeeded();
    assert!(table.contains("SERVER") && table.contains("cellar"), "{table}");
    drop((attic, cellar));
}

#[test]
fn metrics_and_the_page_show_the_instances_and_their_load() {
    let Some(nats) = Nats::start() else { return };
    let (url, home, homes) = (nats.url(), Home::new(), [Home::new(), Home::new()]);
    let backends = named(&homes, &url);
    let flags = ["--fleet", &*url, "--import", "ai.*", "--set", "fleet.order=only", "--health", "127.0.0.1:0"];
    let local = home.serve(flags);
    let chat = Running::start(&mut home.command(["chat", "/tokens 4000000000"]));
    let has = |server: &Running, line: &str| http(server, "/metrics").lines().any(|one| one == line);
    eventually("it is known who answers", || {
        let busy = |name| has(&local, &format!("ipc_fleet_instance_calls{{server=\"{name}\"}} 1"));
        has(&local, "ipc_fleet_instances 2")
            && has(&local, "ipc_fleet_under_way 1")
            && (busy("attic") || busy("cellar"))
    });
    assert!(has(&local, "ipc_fleet_linked 1"));
    assert!(backends.iter().any(|backend| has(backend, "ipc_fleet_running 1")));
    drop(chat);
    let panel = |server: &Running| {
        let health: Value = serde_json::from_str(&event(server)).unwrap();
        health["panels"].as_array().unwrap().iter().find(|panel| panel["title"] == "Fleet").unwrap().clone()
    };
    let shown = panel(&local);
    assert_eq!(shown["alarm"], "");
    let rows = shown["tables"][1]["rows"].as_array().unwrap();
    let mut names: Vec<_> = rows.iter().map(|row| row[0].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["attic", "cellar"], "{shown}");
    drop(nats);
    eventually("the page says that NATS is gone", || {
        panel(&local)["alarm"].as_str().unwrap().starts_with("There is no connection to NATS")
    });
}

/// What the live page is told first.
fn event(server: &Running) -> String {
    let address = health_of(server);
    let mut stream = TcpStream::connect(&address).unwrap();
    write!(stream, "GET /events HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines();
    lines.find_map(|line| line.unwrap().strip_prefix("data: ").map(str::to_owned)).unwrap()
}

#[test]
fn a_benchmark_beside_nats_alone_says_its_ratios_and_a_reader_that_stops_costs_no_memory() {
    if Nats::start().is_none() {
        return;
    }
    let home = Home::new();
    let mut command = home.command(["bench", "fleet", "--quick", "--json"]);
    // Where its NATS server is.
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    let report = Running::start(&mut command).finish().succeeded();
    let report: Value = serde_json::from_str(&report).unwrap();
    for place in ["/unary/ratio", "/unary/fleet/p50_us", "/stream/share", "/kills/next_max_ms"] {
        assert!(report.pointer(place).and_then(Value::as_f64).is_some_and(|figure| figure > 0.0), "{place}: {report}");
    }
    // Of an answer of 100 MB.
    for place in ["/memory/importing_more_kb", "/memory/instance_more_kb"] {
        assert!(report.pointer(place).and_then(Value::as_u64).is_some_and(|kib| kib <= 8 * 1024), "{place}: {report}");
    }
    let messages = |place| report.pointer(place).and_then(Value::as_f64).unwrap();
    // The call and its answer; beats and loads beside them.
    assert!((2.0..2.5).contains(&messages("/messages/per_call")), "{report}");
    // One, and credit now and then; fewer where chunks are there at once, which they may not be where everything is slow.
    assert!(messages("/messages/per_chunk") < 1.1, "{report}");
}

#[test]
fn the_budget_of_a_token_counts_whichever_server_of_the_fleet_asks_with_it() {
    let Some(nats) = Nats::start() else { return };
    let (url, there) = (nats.url(), Home::new());
    // One key for all of them.
    let seed = there.path("seed");
    std::fs::write(&seed, "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y\n").unwrap();
    let key = format!("fleet.signing_seed_file={}", seed.display());
    let budget = "[[budgets]]\nname = \"few\"\nwindow = \"month\"\ntoken = \"tool\"\nrequests = 2\n";
    let config = there.config(budget);
    let config = config.to_str().unwrap();
    let _backend = there.serve(["--config", config, "--fleet", &*url, "--offer", "ai.*", "--set", &*key]);
    let desks = [Home::new(), Home::new()];
    let tokens = desks.each_ref().map(|home| home.run(["token", "add", "tool"]).succeeded().trim().to_owned());
    let import = ["--fleet", &*url, "--import", "ai.*", "--set", "fleet.order=only", "--set", &*key];
    let _servers = desks.each_ref().map(|home| home.serve(import));
    let clients = desks.each_ref().map(|home| bellrope::Client::connect(home.socket()).unwrap());
    let ask = |desk: usize, token: Option<&str>| {
        let client = &clients[desk];
        eventually("the fleet's types are known", || client.message_type("ai.chat").is_ok());
        let said = bellrope::client::Metadata::new();
        let said = token.map_or(said.clone(), |token| said.token(token).unwrap());
        let options = bellrope::client::CallOptions::new().metadata(said);
        let options = if token.is_some() { options } else { bellrope::client::CallOptions::new() };
        client.call_with("ai.chat", br#"{"messages":[{"role":"user","content":"Hi"}]}"#, &options)
    };
    for desk in [0, 1] {
        ask(desk, Some(&tokens[desk])).unwrap();
    }
    for desk in [0, 1] {
        let refused = ask(desk, Some(&tokens[desk])).unwrap_err().to_string();
        assert!(refused.contains("the budget `few` allows no more"), "{refused}");
        // Another's token is none here.
        for token in [None, Some(&*tokens[1 - desk]), Some("brt_none")] {
            ask(desk, token).unwrap();
        }
    }
}

#[test]
fn a_fleet_that_is_asked_without_an_address_is_wrong_usage() {
    let error = Home::new().run(["fleet", "list"]).failed(2);
    assert!(error.contains("no NATS server is named; give --fleet, or set fleet.servers"), "{error}");
}
