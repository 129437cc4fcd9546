//! Tests that look at their whole process, and so need one of their own.

use std::process::Command;

/// The variable that is set in a process that runs one test alone.
const ALONE: &str = "BELLROPE_TEST_ALONE";

/// Runs a test in a process of its own, where no other test runs. `test` is its full name in the test program.
///
/// # Panics
/// If the test fails there, with all that it printed.
pub fn alone(test: &str, run: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return run();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let ended = command.args([test, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{stdout}{stderr}");
    assert!(stdout.contains("1 passed"), "this program has no test {test}: {stdout}");
}
