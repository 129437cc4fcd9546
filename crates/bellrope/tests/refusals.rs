//! What the compiler says of an implementation that no server can run: at the author's own lines, in words that name the cause.
//!
//! The words are the compiler's, so they are compared with the version of it that this workspace is built with and with no
//! other. After an intended change: `TRYBUILD=overwrite cargo test -p bellrope --features service --test refusals`.

use std::process::Command;

/// The compiler whose words are kept.
const KEPT: &str = "rustc 1.95.";

#[test]
fn handlers_that_no_server_can_run_are_shown_in_their_own_lines() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().expect("a compiler").stdout;
    if !String::from_utf8_lossy(&version).starts_with(KEPT) {
        return bellrope_testkit::skipped(&format!("what the compiler says is kept as {KEPT}x says it"));
    }
    trybuild::TestCases::new().compile_fail("tests/refused/*.rs");
}
