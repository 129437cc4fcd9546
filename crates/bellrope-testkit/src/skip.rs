//! What is said of a test that cannot run here.

use std::io::Write as _;

/// Says why a test was skipped. It goes straight to the stream: of a test that passes, the harness shows nothing that is
/// printed, and a test that was skipped passes.
///
/// # Panics
/// If nothing can be written there: a test that is skipped in silence has failed.
pub fn skipped(reason: &str) {
    // One write, so that no other test's line comes between.
    std::io::stderr().write_all(format!("SKIPPED: {reason}\n").as_bytes()).expect("somewhere to say what is skipped");
}
