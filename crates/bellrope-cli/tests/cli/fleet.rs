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
