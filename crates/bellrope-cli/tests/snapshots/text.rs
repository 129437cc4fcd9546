//! What is put in place of what differs from run to run, and the comparison with what is kept.

use std::path::{Path, PathBuf};

use snapbox::{
    Assert, Data,
    assert::{Action, DEFAULT_ACTION_ENV},
    data::DataFormat,
};

/// Where the expected texts are.
pub(crate) fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/cases")
}

fn assert() -> Assert {
    // Backslashes are what they are.
    Assert::new().action_env(DEFAULT_ACTION_ENV).normalize_paths(false)
}

/// Whether the expected texts are to be written anew.
pub(crate) fn overwrites() -> bool {
    assert().selected_action() == Action::Overwrite
}

/// Compares with the text that is kept under this name, to the last character.
#[track_caller]
pub(crate) fn freeze(name: &str, seen: &str) {
    // Raw: no character of what is kept stands for others.
    let kept = Data::read_from(&cases().join(name), Some(DataFormat::Text)).raw();
    assert().eq(Data::text(seen), kept);
}

/// Puts `[name]` in place of what stands after each `before` as far as `holds` does.
pub(crate) fn mask(text: &str, before: &str, holds: impl Fn(char) -> bool, name: &str) -> String {
    let mut masked = String::new();
    let mut pieces = text.split(before);
    masked.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        masked.push_str(before);
        let rest = piece.trim_start_matches(&holds);
        if rest.len() < piece.len() {
            masked.push_str(&format!("[{name}]"));
        }
        masked.push_str(rest);
    }
    masked
}

/// Puts `N` in place of every number, and one space in place of many: how wide a table is depends on its numbers.
pub(crate) fn without_numbers(text: &str) -> String {
    let mut plain = String::new();
    let mut before = ' ';
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            // A digit within a word, as in p99 and ai.v1, is part of it.
            _ if character.is_ascii_digit() && !before.is_alphanumeric() && before != '_' => {
                let within = |next: &char| next.is_ascii_digit() || ".,".contains(*next);
                let mut last = character;
                while let Some(next) = characters.next_if(within) {
                    last = next;
                }
                plain.push('N');
                // What ends the sentence is no part of the number.
                if !last.is_ascii_digit() {
                    plain.push(last);
                }
            }
            ' ' if plain.ends_with(' ') => {}
            _ => plain.push(character),
        }
        before = character;
    }
    plain.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Takes the unit off every time of a text [without numbers](without_numbers): which one is printed depends on the time. What
/// only begins like a unit, as in `N shm`, is a word.
pub(crate) fn without_units_of_time(text: &str) -> String {
    let mut plain = text.to_owned();
    for unit in ["N us", "N ms", "N s"] {
        let mut pieces = plain.split(unit);
        let mut joined = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let is_word = piece.starts_with(char::is_alphanumeric) || joined.ends_with(char::is_alphanumeric);
            joined.push_str(if is_word { unit } else { "N" });
            joined.push_str(piece);
        }
        plain = joined;
    }
    plain
}

/// Puts `[TIME]` in place of points in time as a log line has them.
pub(crate) fn without_times(text: &str) -> String {
    const FORM: &[u8] = b"0000-00-00T00:00:00.000000Z";
    let is_time = |bytes: &[u8]| {
        let same = |(form, byte): (&u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { form == byte };
        bytes.len() == FORM.len() && FORM.iter().zip(bytes).all(same)
    };
    let mut rest = text;
    let mut masked = String::new();
    while let Some(next) = rest.chars().next() {
        if rest.as_bytes().get(..FORM.len()).is_some_and(is_time) {
            masked.push_str("[TIME]");
            rest = &rest[FORM.len()..];
        } else {
            masked.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    masked
}

/// Puts `[MODULE]` in place of the modules below the crate that a log line comes from: where in a crate a line of code
/// stands is nobody's business, and `bellrope=debug` chooses by crates.
pub(crate) fn without_modules(text: &str) -> String {
    let word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut masked = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("bellrope") {
        let end = start + rest[start..].find(|character| !word(character)).unwrap_or(rest.len() - start);
        masked.push_str(&rest[..end]);
        rest = &rest[end..];
        let path = rest.find(|character| !word(character) && character != ':').unwrap_or(rest.len());
        // The colon after it is the line's.
        let path = rest[..path].trim_end_matches(':').len();
        if rest.starts_with("::") && path > 2 {
            masked.push_str("::[MODULE]");
            rest = &rest[path..];
        }
    }
    masked.push_str(rest);
    masked
}

/// Puts `[PORT]` in place of ports of the loopback address that the kernel chose: those have five digits, unlike any that
/// stand in texts.
pub(crate) fn without_ports(text: &str) -> String {
    let mut masked = String::new();
    let mut pieces = text.split("127.0.0.1:");
    masked.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let digits = piece.len() - piece.trim_start_matches(|character: char| character.is_ascii_digit()).len();
        let (port, rest) = piece.split_at(digits);
        masked.push_str("127.0.0.1:");
        masked.push_str(if port.len() == 5 { "[PORT]" } else { port });
        masked.push_str(rest);
    }
    masked
}

#[test]
fn what_differs_is_put_in_brackets_and_nothing_else_is() {
    let digit = |character: char| character.is_ascii_digit();
    assert_eq!(mask("pid=12 pid=x qid=3", "pid=", digit, "PID"), "pid=[PID] pid=x qid=3");
    assert_eq!(without_numbers("p99  1,234.5 us, a2 7.\n"), "p99 N us, a2 N.\n");
    assert_eq!(
        without_units_of_time("p50 N us, N ms (N shm, N stream), IN s, N s\n"),
        "p50 N, N (N shm, N stream), IN s, N\n"
    );
    assert_eq!(without_times("2026-11-29T17:34:32.123456Z WARN 2026-11-29"), "[TIME] WARN 2026-11-29");
    let line = "WARN bellrope_gateway::gateway::upstream: bellrope serves, bellrope: x, bellrope::server: y";
    let masked = "WARN bellrope_gateway::[MODULE]: bellrope serves, bellrope: x, bellrope::[MODULE]: y";
    assert_eq!(without_modules(line), masked);
    assert_eq!(without_ports("http://127.0.0.1:40123/ 127.0.0.1:9090"), "http://127.0.0.1:[PORT]/ 127.0.0.1:9090");
}
