//! Which instance gets a call.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bellrope::{
    Client, Server,
    client::{CallOptions, Metadata},
};
use bellrope_fleet::{Choice, FleetSettings};

use bellrope_testkit::nats::{Nats, eventually};

use crate::servers::{Member, join, settings};

/// An instance that takes so long for a call and says its name.
fn named(url: &str, name: &'static str, takes: Duration) -> Member {
    let offering = FleetSettings { offer: vec!["*".into()], name: name.into(), ..settings(url) };
    let types = |seen: &Arc<crate::servers::Seen>| {
        let seen = Arc::clone(seen);
        Server::builder().unary_async("echo", move |_| {
            seen.began.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::time::sleep(takes).await;
                Ok(name.as_bytes().to_vec())
            }
        })
    };
    join(offering, types).unwrap()
}

fn importing(url: &str, choice: Choice) -> Member {
    join(FleetSettings { import: vec!["*".into()], choice, ..settings(url) }, |_| Server::builder()).unwrap()
}

#[test]
fn an_instance_that_is_ten_times_slower_gets_about_a_tenth() {
    const CALLS: usize = 800;
    let Some(nats) = Nats::start() else { return };
    let fast = named(&nats.url(), "fast", Duration::from_millis(10));
    let slow = named(&nats.url(), "slow", Duration::from_millis(100));
    // Two editors, of which neither knows what the other one sends.
    let here = [importing(&nats.url(), Choice::Least), importing(&nats.url(), Choice::Least)];
    let clients = here.each_ref().map(Member::client);
    std::thread::scope(|scope| {
        for client in &clients {
            for _ in 0..8 {
                scope.spawn(|| (0..CALLS / 16).for_each(|_| drop(client.call("echo", b"").unwrap())));
            }
        }
    });
    let [fast, slow] = [fast, slow].map(|member| member.seen.began.load(Ordering::SeqCst));
    assert_eq!(fast + slow, CALLS);
    // An eleventh, if nobody ever guessed; half of all where nobody looks.
    assert!((CALLS / 50..CALLS / 4).contains(&slow), "{slow} of {CALLS}");
}

fn in_session(client: &Client, session: &str) -> Vec<u8> {
    let options = CallOptions::new().metadata(Metadata::new().session(session).unwrap());
    client.call_with("echo", b"", &options).unwrap()
}

/// The instance that has a session, once that is always the same.
fn home(client: &Client, session: &str) -> Vec<u8> {
    let mut home = Vec::new();
    eventually("a session stays", || {
        home = in_session(client, session);
        (0..40).all(|_| in_session(client, session) == home)
    });
    home
}

#[test]
fn a_session_stays_until_its_instance_goes() {
    let Some(nats) = Nats::start() else { return };
    let names = ["one", "two", "three"];
    let mut there: Vec<_> = names.iter().map(|name| (*name, named(&nats.url(), name, Duration::ZERO))).collect();
    let here = importing(&nats.url(), Choice::Sticky);
    let client = here.client();
    let homes: Vec<_> = (0..40).map(|session| home(&client, &session.to_string())).collect();
    assert!(names.iter().all(|name| homes.iter().any(|home| home == name.as_bytes())), "{homes:?}");
    let gone = there.iter().position(|(name, _)| name.as_bytes() == homes[0]).unwrap();
    let (gone, member) = there.remove(gone);
    assert!(member.fleet.drain(Duration::from_secs(10)));
    drop(member);
    let next = in_session(&client, "0");
    assert_ne!(next, gone.as_bytes());
    let back = named(&nats.url(), gone, Duration::ZERO);
    let until = Instant::now() + bellrope_testkit::nats::SOON;
    while back.seen.began.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < until, "whoever comes back is never chosen");
        assert_eq!(in_session(&client, "0"), next);
        client.call("echo", b"").unwrap();
    }
    for (session, home) in homes.iter().enumerate().filter(|(_, home)| *home != gone.as_bytes()) {
        assert_eq!(in_session(&client, &session.to_string()), *home, "{session}");
    }
}

#[test]
fn who_leaves_it_to_nats_is_served_as_well() {
    let Some(nats) = Nats::start() else { return };
    let there = [named(&nats.url(), "one", Duration::ZERO), named(&nats.url(), "two", Duration::ZERO)];
    let here = importing(&nats.url(), Choice::Queue);
    let client = here.client();
    eventually("both have answered in one session", || {
        in_session(&client, "window 3");
        there.iter().all(|one| one.seen.began.load(Ordering::SeqCst) > 0)
    });
}
