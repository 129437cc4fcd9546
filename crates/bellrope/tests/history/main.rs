//! Real processes and real kills. A server and its clients are killed with SIGKILL at random moments, again and again,
//! and started anew at once. What they noted before they died is put together, and must keep every rule of the ledger.
//!
//! A run says its seed. `BELLROPE_KILL_SEED=n` kills in the same order again, though not to the microsecond;
//! `BELLROPE_KILLS=n` asks for at least so many kills of the server and of clients each.

mod client;
mod journal;
#[path = "../../../bellrope-proto/tests/ledger/mod.rs"]
mod ledger;
#[path = "../../../bellrope-proto/tests/simulation/payload.rs"]
mod payload;
mod processes;
mod server;

use std::{io::Read, path::PathBuf, time::Duration};

use processes::Town;

/// Nothing that is waited for takes longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const KILLS: u32 = 120;
/// Which process this is, if it is not the test itself. The others are further runs of the same program.
const ROLE: &str = "BELLROPE_HISTORY_ROLE";
const SOCKET: &str = "BELLROPE_HISTORY_SOCKET";
const JOURNAL: &str = "BELLROPE_HISTORY_JOURNAL";
const NUMBER: &str = "BELLROPE_HISTORY_NUMBER";
const SEED: &str = "BELLROPE_KILL_SEED";
/// This test's name.
const TEST: &str = "after_any_kill_every_call_has_one_outcome_and_it_is_true";

#[test]
fn after_any_kill_every_call_has_one_outcome_and_it_is_true() {
    let role = std::env::var(ROLE).unwrap_or_default();
    let path = |name| PathBuf::from(std::env::var_os(name).expect("set by the test"));
    match role.as_str() {
        "server" => server::run(&path(SOCKET), &path(JOURNAL)),
        "client" => {
            let number = number(NUMBER).expect("set by the test");
            client::run(number, number.wrapping_mul(7919), &path(SOCKET), &path(JOURNAL));
        }
        _ => {
            let seed = number(SEED).unwrap_or_else(|| fastrand::u64(..));
            let kills = number("BELLROPE_KILLS").map_or(KILLS, |kills| kills as u32);
            Town::found(seed).live(kills);
        }
    }
}

/// Chunks that a stream of a call has.
fn chunks_of(call: u64) -> u64 {
    call * 31 % 40
}

/// Waits until the test closes our standard input, be it by dying.
fn until_dismissed() {
    let _ = std::io::stdin().read(&mut [0]);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}
