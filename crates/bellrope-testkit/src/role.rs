//! Further runs of a test program that play a part in one of its tests: attackers live in processes of their own.

use std::{
    ffi::{OsStr, OsString},
    io::{Read, Write},
    process::{Child, Command, Stdio},
};

/// The variables that make a further run of a program play a part: which, and where the server is.
const ROLE: &str = "BELLROPE_TEST_ROLE";
const PLACE: &str = "BELLROPE_TEST_ROLE_AT";

/// A further process of this program. It ends with whoever started it.
#[derive(Debug)]
pub struct Role(Child);

/// Has another process of this program, which runs this test, play a part there, with these further variables. It may be made
/// to give way to others.
///
/// # Panics
/// If it cannot be started.
#[must_use]
pub fn start(test: &str, role: &str, place: impl AsRef<OsStr>, more: &[(&str, String)], nice: bool) -> Role {
    let program = std::env::current_exe().unwrap();
    let mut command = if nice { Command::new("nice") } else { Command::new(&program) };
    if nice {
        command.args([OsStr::new("-n"), OsStr::new("10"), program.as_os_str()]);
    }
    let child = command
        .args([test, "--exact", "--nocapture"])
        .env(ROLE, role)
        .env(PLACE, place.as_ref())
        .envs(more.iter().map(|(name, value)| (name, value)))
        // Open until it has ended, so that it ends with us at the latest.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    Role(child)
}

impl Role {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Ends it at once.
    ///
    /// # Panics
    /// If the system does not let us.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Waits until it has ended, as it should. Answers what it said behind these words, at the beginning of a line.
    ///
    /// # Panics
    /// If it failed, or said nothing of the kind.
    #[must_use]
    pub fn end(mut self, words: &str) -> String {
        let input = self.0.stdin.take();
        let ended = self.0.wait_with_output().unwrap();
        drop(input);
        let said = String::from_utf8(ended.stdout).unwrap();
        assert!(ended.status.success(), "a process that had a part failed: {said}");
        let line = said.lines().find_map(|line| line.strip_prefix(words));
        line.unwrap_or_else(|| panic!("nothing of {words:?}: {said}")).to_owned()
    }
}

/// Where the server is, if this process has this part. From then on it ends with whoever started it.
#[must_use]
pub fn is_played_here(role: &str) -> Option<OsString> {
    if std::env::var_os(ROLE).is_none_or(|played| played != role) {
        return None;
    }
    std::thread::spawn(|| {
        // Nothing ever comes: that it ends means that whoever started us has.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    std::env::var_os(PLACE)
}

/// A number that this process was started with.
///
/// # Panics
/// If there is none of this name.
#[must_use]
pub fn number(name: &str) -> u64 {
    std::env::var(name).unwrap().parse().unwrap()
}

/// Says something on a line of its own, which [`Role::end`] finds.
///
/// # Panics
/// If nobody listens.
pub fn say(words: &str, what: impl std::fmt::Display) {
    std::io::stdout().write_all(format!("\n{words}{what}\n").as_bytes()).unwrap();
}
