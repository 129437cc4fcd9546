//! What a server says that cannot join its fleet, and what others see of one that has.

use std::{process::Command, sync::Arc, time::Duration};

use bellrope::{CallError, Server};
use bellrope_fleet::{FleetError, FleetSettings};
use futures_util::StreamExt as _;

use bellrope_testkit::{
    nats::{Nats, eventually},
    skipped,
};

use crate::servers::{importing, join, offering, settings};

fn fails_to_join(settings: FleetSettings) -> FleetError {
    match join(FleetSettings { import: vec!["*".into()], ..settings }, |_| Server::builder()) {
        Ok(_) => panic!("it joined"),
        Err(error) => error,
    }
}

#[test]
fn wrong_credentials_are_said_to_be_wrong_and_right_ones_let_in() {
    let Some(nats) = Nats::configured("authorization: { user: me, password: secret }") else { return };
    let error = fails_to_join(settings(&nats.url()));
    assert!(matches!(error, FleetError::Credentials { .. }), "{error:?}");
    let file = nats.home().join("password");
    std::fs::write(&file, "secret\n").unwrap();
    let right = FleetSettings { user: Some("me".into()), password_file: Some(file), ..settings(&nats.url()) };
    let _there = join(FleetSettings { offer: vec!["*".into()], ..right.clone() }, crate::servers::builder).unwrap();
    let here = join(FleetSettings { import: vec!["*".into()], ..right }, |_| Server::builder()).unwrap();
    assert_eq!(here.client().call("echo", b"ding").unwrap(), b"ding");

    let error =
        fails_to_join(FleetSettings { nkey_seed_file: Some("/nobody/has/this".into()), ..settings(&nats.url()) });
    assert!(error.to_string().starts_with("fleet.nkey_seed_file names /nobody/has/this"), "{error}");
}

#[test]
fn who_may_not_listen_is_told_on_which_subject() {
    let user = "{ user: me, password: secret, permissions: { subscribe: { deny: \"bellrope.to.>\" } } }";
    let Some(nats) = Nats::configured(&format!("authorization: {{ users: [ {user} ] }}")) else { return };
    let error = fails_to_join(settings(&format!("nats://me:secret@127.0.0.1:{}", nats.port)));
    let FleetError::Denied { subject, .. } = &error else { panic!("{error:?}") };
    assert!(subject.starts_with("bellrope.to."), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn a_server_without_nats_serves_what_it_has_and_joins_when_nats_comes() {
    let Some(nats) = Nats::start() else { return };
    let way = bellrope_testkit::nats::Way::to(nats.port);
    way.cut();
    let here = join(FleetSettings { import: vec!["*".into()], ..settings(&way.url()) }, |_| {
        Server::builder().in_place("own", |_| Ok(()))
    });
    let here = here.unwrap();
    let client = bellrope::Client::connect(&here.path).unwrap();
    assert_eq!(client.call("own", b"ding").unwrap(), b"ding");
    assert!(!here.fleet.is_linked());
    let _there = offering(&nats.url());
    way.heal();
    eventually("it has joined", || here.fleet.is_linked());
    assert_eq!(here.client().call("echo", b"ding").unwrap(), b"ding");
}

#[test]
fn a_type_of_another_style_is_refused_by_its_instance_and_not_run() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let here = importing(&nats.url());
    let client = here.client();
    drop(there);
    let _other = join(FleetSettings { offer: vec!["*".into()], ..settings(&nats.url()) }, |_| {
        Server::builder().server_stream("echo", |_, _| async { Ok(()) })
    });
    let error = client.call_within("echo", b"", Duration::from_secs(5)).unwrap_err();
    assert!(matches!(error, CallError::NotExecuted), "{error:?}");
}

#[test]
fn whoever_asks_nats_for_services_sees_the_instances() {
    let Some(nats) = Nats::start() else { return };
    let _there = offering(&nats.url());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(nats.url()).await.unwrap();
        for (question, kind) in [("PING", "ping"), ("INFO.bellrope", "info"), ("STATS", "stats")] {
            let inbox = client.new_inbox();
            let mut answers = client.subscribe(inbox.clone()).await.unwrap();
            client.publish_with_reply(format!("$SRV.{question}"), inbox, "".into()).await.unwrap();
            let answer = tokio::time::timeout(bellrope_testkit::nats::SOON, answers.next()).await.unwrap().unwrap();
            let said: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
            assert_eq!(said["type"], format!("io.nats.micro.v1.{kind}_response"));
            assert_eq!(said["name"], "bellrope");
            if kind != "ping" {
                let endpoints = said["endpoints"].as_array().unwrap();
                let echo = endpoints.iter().find(|endpoint| endpoint["name"] == "echo").unwrap();
                assert_eq!(echo["subject"], "bellrope.call.echo");
            }
        }
    });
}

const PYTHON: &str = r#"
import asyncio, json, sys, nats
async def main():
    client = await nats.connect(sys.argv[1])
    answer = await client.request("$SRV.INFO.bellrope", b"", timeout=5)
    print(" ".join(sorted(endpoint["name"] for endpoint in json.loads(answer.data)["endpoints"])))
    await client.close()
asyncio.run(main())
"#;

#[test]
fn a_plain_program_of_nats_sees_the_instances() {
    let Some(nats) = Nats::start() else { return };
    let python = std::env::var("BELLROPE_NATS_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if !Command::new(&python).args(["-c", "import nats"]).output().is_ok_and(|output| output.status.success()) {
        return skipped("a test of fleets: there is no nats-py for python3 (BELLROPE_NATS_PYTHON names another)");
    }
    let _there = offering(&nats.url());
    let output = Command::new(&python).args(["-c", PYTHON, &nats.url()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.split_whitespace().any(|name| name == "echo"), "{said} {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn typed_services_keep_their_check_across_the_fleet() {
    use bellrope::service;

    #[service(codec = "postcard")]
    trait Greeter {
        fn greet(&self, name: String) -> String;
    }

    mod newer {
        #[bellrope::service(codec = "postcard")]
        pub(crate) trait Greeter {
            fn greet(&self, name: String, times: u32) -> String;
        }
    }

    struct Polite;

    #[service]
    impl Greeter for Polite {
        fn greet(&self, name: String) -> String {
            format!("good day, {name}")
        }
    }

    let Some(nats) = Nats::start() else { return };
    let types = |_: &Arc<_>| Server::builder().service(Polite).in_place("echo", |_| Ok(()));
    let _there = join(FleetSettings { offer: vec!["*".into()], ..settings(&nats.url()) }, types).unwrap();
    let here = importing(&nats.url());
    drop(here.client());
    let greeter = GreeterBlockingClient::connect(&here.path).unwrap();
    assert_eq!(greeter.greet("you".into()).unwrap(), "good day, you");
    let other = newer::GreeterBlockingClient::connect(&here.path).unwrap();
    let error = other.greet("you".into(), 2).unwrap_err();
    assert!(matches!(error, service::ServiceError::Call(CallError::Incompatible { .. })), "{error:?}");
}
