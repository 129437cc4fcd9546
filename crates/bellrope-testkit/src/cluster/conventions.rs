//! What a test and the processes of its cluster agree on.

use std::{
    io::Read,
    time::{Duration, Instant},
};

/// Nothing that is waited for takes longer, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Which process this is, if it is not the test itself. The others are further runs of the same program.
pub(super) const ROLE: &str = "BELLROPE_HISTORY_ROLE";
pub(super) const SOCKET: &str = "BELLROPE_HISTORY_SOCKET";
pub(super) const JOURNAL: &str = "BELLROPE_HISTORY_JOURNAL";
pub(super) const NUMBER: &str = "BELLROPE_HISTORY_NUMBER";
/// Where a process is to kill itself, if it is, and for the how manieth time that it comes there.
pub(super) const KILL_AT: &str = "BELLROPE_KILL_AT";

/// A number from the environment.
///
/// # Panics
/// If it is set to something else.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Chunks that a stream of a call has.
pub(super) fn chunks_of(call: u64) -> u64 {
    call * 31 % 25
}

/// Waits until the test writes to our standard input or closes it, be it by dying. Answers whether it wrote.
pub(super) fn until_dismissed() -> bool {
    std::io::stdin().read(&mut [0]).is_ok_and(|count| count > 0)
}

/// Waits for a condition, which says what is in the way.
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(found) = holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}, but {found}");
        std::thread::sleep(Duration::from_micros(500));
    }
}
