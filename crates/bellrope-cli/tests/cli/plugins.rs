//! docs/plugins.md: its commands and its programs, as they stand there. That of Rust is compiled by `bellrope-testkit`.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Home, Running};

const PAGE: &str = include_str!("../../../../docs/plugins.md");

/// The only block of the page in this language.
fn block(language: &str) -> &'static str {
    let begin = format!("```{language}\n");
    let mut blocks = PAGE.split(&begin).skip(1).map(|rest| rest.split("\n```").next().unwrap_or_default());
    let block = blocks.next().unwrap_or_else(|| panic!("there is no block of {language}"));
    assert_eq!(blocks.next(), None, "another block of {language}");
    block
}

fn client(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients").join(language).canonicalize().unwrap()
}

/// A shell in this home that finds the program by its name.
fn shell(home: &Home, script: &str) -> Command {
    let mut command = home.shell(&format!("PATH=\"$(dirname \"$BELLROPE\"):$PATH\"; export PATH; {script}"));
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).current_dir(home.path(""));
    command
}

/// What a program says, if it is there; if not, that is said.
fn answer_of(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(ran) if ran.status.success() => Some(String::from_utf8_lossy(&ran.stdout).trim().to_owned()),
        _ => {
            bellrope_testkit::skipped(&format!("there is no {program}"));
            None
        }
    }
}

/// Runs a program of the page, which starts a server, and sees that it did all that the page says.
#[track_caller]
fn does_all(home: &Home, script: &str) {
    let finished = Running::start(&mut shell(home, script)).finish();
    assert!(home.holder().is_some(), "{finished:?}");
    let said = finished.succeeded();
    let (chat, rest) = said.split_once('\n').unwrap();
    assert!(chat.ends_with("You asked: Who is there?"), "{said}");
    let (again, completed) = rest.split_once(" chunks again\n").unwrap_or_else(|| panic!("{said}"));
    assert!(again.parse::<u32>().unwrap() > 10, "{said}");
    // Of the completion came a first chunk, and after it was cancelled at most what was on its way.
    assert!(completed.contains("text"), "{said}");
    home.run(["stop"]).succeeded();
}

#[test]
fn the_commands_for_a_plugin_do_what_the_page_says() {
    let home = Home::new();
    // The server of the page's first line is waited for by the second: a chat of this home starts none.
    let script =
        block("sh").replace("\nbellrope chat", "\nuntil bellrope list >list 2>&1; do sleep 0.05; done\nbellrope chat");
    let said = Running::start(&mut shell(&home, &script)).finish().succeeded();
    assert!(said.contains("You asked: Who is there?") && said.trim_end().ends_with("has ended"), "{said}");
    assert_eq!(home.holder(), None);
}

#[test]
fn the_plugin_in_python_does_all_that_the_page_says() {
    // Itself, and not what may stand in its place in a shell and wants more of the environment.
    if let Some(python) = answer_of("python3", &["-c", "import sys; print(sys.executable)"]) {
        let home = Home::spawning();
        fs::write(home.path("plugin.py"), block("python")).unwrap();
        let source = client("python").join("src");
        does_all(&home, &format!("PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={source:?} exec {python:?} plugin.py"));
    }
}

#[test]
fn the_plugin_in_node_does_all_that_the_page_says() {
    if answer_of("node", &["--version"]).and(answer_of("flock", &["--version"])).is_some() {
        let home = Home::spawning();
        fs::create_dir(home.path("node_modules")).unwrap();
        symlink(client("node"), home.path("node_modules/bellrope")).unwrap();
        fs::write(home.path("plugin.mjs"), block("js")).unwrap();
        does_all(&home, "exec node plugin.mjs");
    }
}
