//! Servers that end by themselves.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bellrope::{
    Client, Server,
    server::{Ending, ServerBuilder, ServerConfig},
    status::{Health, LivenessProbe},
};
use bellrope_testkit::support::eventually;

use crate::parts::{Home, who};

const SHORT: Duration = Duration::from_millis(50);

/// What a server said when it ended.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Option<Ending>>>);

impl Said {
    fn get(&self) -> Option<Ending> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn server(home: &Home, idle: Duration) -> (Server, Said) {
    let said = Said::default();
    let telling = said.clone();
    let builder: ServerBuilder = Server::builder()
        .config(ServerConfig::new().exit_when_idle(idle))
        .in_place("echo", |_| Ok(()))
        .unary_async("later", |_| async {
            tokio::time::sleep(8 * SHORT).await;
            Ok(b"at last".to_vec())
        })
        .on_ending(move |ending| *telling.0.lock().unwrap() = Some(ending));
    (builder.bind(home.socket()).unwrap(), said)
}

#[test]
fn an_idle_server_ends_in_good_order_and_never_while_a_call_is_under_way() {
    let home = Home::new();
    let (server, said) = server(&home, SHORT);
    let client = Client::connect(home.socket()).unwrap();
    assert_eq!(client.call("later", b"").unwrap(), b"at last", "though that took longer than it may be idle");
    assert_eq!(said.get(), None);
    drop(client);
    server.wait();
    assert_eq!(said.get(), Some(Ending::Idle));
    assert_eq!(Client::connect(home.socket()).unwrap_err().to_string().split(' ').next(), Some("no"));
    drop(server);
    assert!(!home.socket().exists());
}

#[test]
fn an_idle_server_says_when_it_ends_and_work_that_comes_by_another_way_counts() {
    let home = Home::new();
    let (server, said) = server(&home, Duration::from_secs(3_600));
    let metrics = server.metrics();
    let health = || Health::new(&metrics, &metrics.condition_since(LivenessProbe::default()));
    eventually("an end in sight", || health().ends_in.is_some_and(|left| (3_000..=3_600).contains(&left.as_secs())));
    let working = metrics.activity().begin();
    eventually("no end in sight", || health().ends_in.is_none());
    server.reload(&ServerConfig::new().exit_when_idle(SHORT)).unwrap();
    // A turn of the acceptor that has the new setting, and one more.
    for _ in 0..2 {
        drop(Client::connect(home.socket()).unwrap());
    }
    assert_eq!(said.get(), None);
    drop(working);
    server.wait();
    assert_eq!(said.get(), Some(Ending::Idle));
}

#[test]
fn a_server_that_is_to_stay_has_no_end_in_sight() {
    let home = Home::new();
    let (server, _) = server(&home, Duration::ZERO);
    let client = Client::connect(home.socket()).unwrap();
    drop(client);
    eventually("no connection", || server.metrics().active_connections() == 0);
    assert_eq!(server.metrics().ends_in(), None);
}

#[test]
fn a_server_whose_socket_is_gone_serves_those_it_has_and_ends_with_the_last_of_them() {
    let home = Home::new();
    let (server, said) = server(&home, Duration::ZERO);
    let old = Client::connect(home.socket()).unwrap();
    std::fs::remove_file(home.socket()).unwrap();
    // The next one starts though the old one lives, and has the path.
    let spawn = home.spawn("");
    let new = Client::connect_or_spawn(home.config(), &spawn).unwrap();
    assert_ne!(who(&new)["pid"], std::process::id());
    assert_eq!(old.call("later", b"").unwrap(), b"at last");
    assert_eq!((said.get(), server.metrics().is_serving()), (None, false));
    old.close();
    server.wait();
    assert_eq!(said.get(), Some(Ending::SocketGone));
    drop(server);
    assert_eq!(new.call("echo", b"still here").unwrap(), b"still here");
}
