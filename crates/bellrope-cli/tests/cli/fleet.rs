//! The program as a member of a fleet, with a real NATS server.

use bellrope_testkit::nats::Nats;
use rustix::process::Signal;

use crate::support::{Home, Running, eventually, http};

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
    let _local = home.serve(["--fleet", &*nats.url(), "--import", "ai.*", "--set", "fleet.order=only"]);
    // One of three by chance would pass this once in seven hundred runs.
    for _ in 0..6 {
        let answer = home.run(["chat", "--resumable", "Who is there?"]).succeeded();
        assert_eq!(home.run(["chat", "--resume"]).succeeded(), answer);
    }
    assert_eq!(backends.iter().map(taken).sum::<u64>(), 12, "none was asked in vain");
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
