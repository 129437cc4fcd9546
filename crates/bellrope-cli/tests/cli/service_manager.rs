//! A service manager hands over the socket, is told what happens, and has its watchdog fed.

use std::{
    os::unix::net::{UnixDatagram, UnixListener},
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;

use crate::support::{Home, PATIENCE, Running};

#[test]
fn a_socket_that_is_handed_over_is_served_and_left_in_place() {
    let home = Home::new();
    let path = home.path("activated.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // A shell puts the descriptor where the protocol wants it, and has the id of the program that it becomes.
    let mut command = home.shell(r#"exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$BELLROPE" serve"#);
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener.try_clone().unwrap())));
    let server = Running::start(&mut command);
    let said = server.said("bellrope serves ");
    assert!(said.contains("activated.sock"), "{said}");
    let socket = path.to_str().unwrap();
    assert_eq!(home.run(["call", "--socket", socket, "echo", "ding"]).succeeded(), "ding");
    server.signal(Signal::TERM);
    assert_eq!(server.finish().code, Some(0));
    assert!(path.exists(), "it belongs to the service manager");
}

#[test]
fn a_descriptor_that_is_no_listener_is_refused_with_the_fix() {
    let home = Home::new();
    let mut command = home.shell(r#"exec 3</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$BELLROPE" serve"#);
    let error = Running::start(&mut command).finish().failed(1);
    assert!(
        error.contains("taking the socket of the service manager: it must hand over exactly one socket"),
        "{error}"
    );
}

#[test]
fn a_service_manager_that_is_gone_is_missed_in_the_log_and_costs_nothing_else() {
    let home = Home::new();
    let gone = home.path("gone.sock");
    let server = home.serve_with::<&str>([], &[("NOTIFY_SOCKET", gone.to_str().unwrap())]);
    server.said("the service manager was not told");
    assert_eq!(home.run(["call", "echo", "ding"]).succeeded(), "ding");
    server.signal(Signal::TERM);
    assert_eq!(server.finish().code, Some(0));
}

#[test]
fn a_service_manager_is_told_and_its_watchdog_is_fed() {
    let home = Home::new();
    let path = home.path("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut bytes = [0; 4096];
        let count = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    };
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "200000")];
    let server = home.serve_with::<&str>([], &variables);
    let mut seen = Vec::new();
    while !(seen.iter().any(|text: &String| text.contains("READY=1"))
        && seen.iter().filter(|text| text.contains("WATCHDOG=1")).count() >= 3)
    {
        seen.push(told());
    }
    assert!(seen.iter().any(|text| text.contains("STATUS=bellrope serves ")), "{seen:?}");
    server.signal(Signal::HUP);
    while !told().contains("RELOADING=1\nMONOTONIC_USEC=") {}
    while !told().contains("READY=1") {}
    server.signal(Signal::TERM);
    while !told().contains("STOPPING=1") {}
    assert_eq!(server.finish_within(Duration::from_secs(30)).code, Some(0));
}
