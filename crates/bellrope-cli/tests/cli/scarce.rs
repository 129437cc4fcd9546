//! Commands where the system gives them too little of something, or does not say how much.

use rustix::process::Signal;

use crate::{
    confined::{FILTERED, become_filtered, by_architecture, filtered, run_filtered},
    support::{Home, Running},
};

// Fault 68.
#[test]
fn commands_with_too_little_memory_name_the_limit() {
    let home = Home::new();
    for command in
        ["chat --no-spawn hi", "list", "call echo x", "health", "config show", "top --once", "acp --no-spawn"]
    {
        for (option, name) in [("d", "(RLIMIT_DATA, ulimit -d)"), ("v", "(RLIMIT_AS, ulimit -v)")] {
            let mut refused = 0;
            for kib in (1..200).map(|times| times * 500) {
                let run = format!("ulimit -{option} {kib}; exec \"$BELLROPE\" {command}");
                let said = Running::start(&mut home.shell(&run)).finish();
                let in_words = said.code == Some(1) && said.stderr.contains(name);
                if refused > 0 && !in_words {
                    // From here on it has what it needs: it ends as it should, with no server there.
                    assert!(matches!(said.code, Some(0 | 1)), "{command}, {option} {kib}: {said:?}");
                    assert!(!said.stderr.contains("panicked"), "{command}, {option} {kib}: {said:?}");
                }
                refused += u32::from(in_words);
                if refused == 6 || said.code == Some(0) {
                    break;
                }
            }
            assert!(refused > 0, "{command}, {option}");
        }
    }
}

/// To how much data the process limits itself that is filtered, in bytes.
const DATA: &str = "BELLROPE_TEST_DATA";

// Fault 68.
#[test]
fn where_limits_cannot_be_asked_for_that_is_said() {
    const TEST: &str = "scarce::where_limits_cannot_be_asked_for_that_is_said";
    if std::env::var_os(FILTERED).is_some() {
        if let Some(bytes) = std::env::var(DATA).ok().and_then(|bytes| bytes.parse().ok()) {
            let limit = rustix::process::Rlimit { current: Some(bytes), maximum: Some(bytes) };
            rustix::process::setrlimit(rustix::process::Resource::Data, limit).unwrap();
        }
        become_filtered(env!("CARGO_BIN_EXE_bellrope"));
    }
    let home = Home::new();
    let prlimit64 = by_architecture(302, 261);
    let server = run_filtered(&home, TEST, prlimit64, "serve");
    server.said("bellrope serves ");
    let rung = run_filtered(&home, TEST, prlimit64, "call echo x").finish();
    assert!(rung.code == Some(0) && rung.stdout.ends_with('x'), "{rung:?}");
    server.signal(Signal::TERM);
    assert_eq!(server.finish().code, Some(0));
    let mut command = filtered(&home, TEST, prlimit64, "serve");
    let said = Running::start(command.env(DATA, (6 << 20).to_string())).finish();
    let named = "its limits cannot be asked for (prlimit64, which a sandbox must let through: ";
    assert!(said.code == Some(1) && said.stderr.contains(named), "{said:?}");
}
