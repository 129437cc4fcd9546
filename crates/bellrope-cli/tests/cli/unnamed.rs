//! Processes that the kernel does not name to the server, because they live in PID namespaces that its own does not see, as those
//! of two containers.

use bellrope::client::Connection;
use bellrope_shm::proc;
use bellrope_testkit::skipped;

use crate::{
    confined::{may_unshare, serve_behind},
    support::Home,
};

const CONTAINER: &str = "-pf --kill-child --mount-proc";

/// Whether the kernel tells them apart.
fn are_told_apart() -> bool {
    let release = proc::kernel_release().unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    let may = (numbers.next(), numbers.next()) >= (Some(6), Some(9));
    if !may {
        skipped(&format!("Linux {release} has one inode for all processes; 6.9 has one for each"));
    }
    may
}

// Faults 56, 62.
#[test]
fn of_two_processes_that_the_server_does_not_see_none_keeps_the_other_out() {
    if !(may_unshare(CONTAINER) && are_told_apart()) {
        return;
    }
    let home = Home::new();
    let server =
        serve_behind(&home, &format!("exec unshare {CONTAINER}"), "--set server.max_connections=4 --log debug");
    let held: Vec<_> = (0..4).map(|_| Connection::connect(home.socket()).unwrap()).collect();
    assert!(server.said("client connected").contains("pid=-"));
    // Another process, of the same user.
    assert_eq!(home.run(["call", "echo", "x"]).succeeded(), "x");
    assert!(server.said("connection closed: its process had 4 of 4 connections (max_connections)").contains("pid=-"));
    drop(held);
}
