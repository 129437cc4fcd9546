//! Words that the sources and documents do not have, each with what stands in their place.

use std::path::{Path, PathBuf};

use crate::{documents, found::Found, sources};

/// What no comment and no document calls a process, a connection or a record.
const PEOPLE: [&str; 4] = ["he", "him", "himself", "his"];
/// Where there are sources.
const FOLDERS: [&str; 4] = ["crates", "fuzz", "linker", "xtask"];
/// How a test says that it was skipped, and the one file that says so for all: straight to the stream, as the harness shows
/// nothing that a test prints which passes.
const SKIPPED: [&str; 2] = ["\"SKIPPED", "\"skipped:"];
const SAYS_SKIPPED: &str = "crates/bellrope-testkit/src/skip.rs";
/// A program, whose report says what it left out.
const NO_TESTS: &str = "crates/bellrope-peers";

/// Looks at every comment in Rust, every document, and every line that may say that a test was skipped.
///
/// # Errors
/// A file cannot be read.
pub fn check(root: &Path) -> anyhow::Result<Found> {
    let mut faults = Vec::new();
    let (mut files, documents) = (Vec::new(), documents::all(root)?);
    for folder in FOLDERS.map(|folder| root.join(folder)).iter().filter(|folder| folder.is_dir()) {
        files.extend(sources::files(folder, "rs")?);
    }
    let within = |path: &PathBuf| path.strip_prefix(root).unwrap_or(path).to_owned();
    for path in &files {
        let (file, text) = (within(path), sources::text(path)?);
        let says_skipped = file.starts_with("crates") && !file.starts_with(NO_TESTS) && !file.ends_with(SAYS_SKIPPED);
        for (number, line) in text.lines().enumerate() {
            let place = format!("{}:{}", file.display(), number + 1);
            faults.extend(line.find("//").and_then(|at| person(&line[at..])).map(|word| fault(&place, word)));
            if says_skipped && SKIPPED.iter().any(|spelling| line.contains(spelling)) {
                faults.push(format!("{place}: say it by bellrope_testkit::skipped, which shows it of tests that pass"));
            }
        }
    }
    for path in &documents {
        for (number, line) in sources::text(path)?.lines().enumerate() {
            let place = format!("{}:{}", within(path).display(), number + 1);
            faults.extend(person(line).map(|word| fault(&place, word)));
        }
    }
    Ok(Found::new(format!("{} sources and {} documents", files.len(), documents.len()), faults))
}

fn fault(place: &str, word: &str) -> String {
    format!("{place}: `{word}`: a process, a connection and a record are `it`")
}

/// The first of [`PEOPLE`] in a line, unless it is quoted.
fn person(line: &str) -> Option<&str> {
    let is_between = |c: char| !c.is_alphanumeric() && c != '_';
    let mut before = ' ';
    line.split_inclusive(is_between).find_map(|piece| {
        let word = piece.trim_end_matches(is_between);
        let is_quoted = before == '"';
        before = piece.chars().next_back().unwrap_or(' ');
        (!is_quoted && PEOPLE.iter().any(|person| word.eq_ignore_ascii_case(person))).then_some(word)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn people_are_found_as_whole_words_that_are_not_quoted() {
        for (line, found) in [
            ("whoever may publish asks as often as he likes", Some("he")),
            ("His turn.", Some("His")),
            ("`him`", Some("him")),
            ("the others, here and there, hear this history: \"he\", `his_share`", None),
            ("", None),
        ] {
            assert_eq!(person(line), found, "{line}");
        }
    }

    #[test]
    fn each_place_is_named_and_the_one_that_may_is_not() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(SAYS_SKIPPED, "fn skipped() { write(\"SKIPPED: why\") }\n");
        write("crates/bellrope-peers/src/main.rs", "const WHY: &str = \"SKIPPED: no program\";\n");
        write("docs/a.md", "It says \"he\".\n");
        assert_eq!(check(root.path()).unwrap().faults, Vec::<String>::new());
        write("crates/a/tests/a.rs", "let he = 1; // Its.\n\neprintln!(\"SKIPPED: x\");\n");
        write("docs/b.md", "One.\nHe waits.\n");
        write("xtask/b.rs", &["fn b() {} /", "/ as he likes\n"].concat());
        let faults = check(root.path()).unwrap().faults;
        let starts = ["crates/a/tests/a.rs:3: say it", "xtask/b.rs:1: `he`", "docs/b.md:2: `He`"];
        assert_eq!(faults.len(), starts.len(), "{faults:?}");
        assert!(faults.iter().zip(starts).all(|(fault, start)| fault.starts_with(start)), "{faults:?}");
    }
}
