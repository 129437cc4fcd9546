//! Tables of promises, and of what was reported and how it ends, name tests that are there, each in the file or folder that it
//! links to.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::{documents, found::Found, sources};

/// How the heads of such tables end.
const HEAD: &str = " | test |";
/// Fewer promised tests than this mean that a table is no longer found.
const FEWEST: usize = 40;

/// Reads every table of promises.
///
/// # Errors
/// A file cannot be read.
pub fn check(root: &Path) -> anyhow::Result<Found> {
    let mut faults = Vec::new();
    let mut checked = 0;
    for document in documents::all(root)? {
        let text = sources::text(&document)?;
        let mut in_table = false;
        for line in text.lines() {
            let is_head = line.starts_with("| ") && line.ends_with(HEAD);
            in_table = is_head || in_table && line.starts_with('|');
            if in_table && !is_head && !line.starts_with("|--") {
                checked += check_row(&document, &text, line, &mut faults)?;
            }
        }
    }
    if checked <= FEWEST {
        faults.push(format!("only {checked} tests were found in tables whose heads end with `{HEAD}`"));
    }
    Ok(Found::new(format!("{checked} promised tests"), faults))
}

/// Checks a row like ``| promise | `one`, `two` in [file](path), `three` in [other][label] |``. Returns how many tests it
/// names.
fn check_row(document: &Path, text: &str, row: &str, faults: &mut Vec<String>) -> anyhow::Result<usize> {
    let Some((_, tests)) = row.trim_end_matches(" |").rsplit_once(" | ") else {
        faults.push(format!("a promise has no second column: {row}"));
        return Ok(0);
    };
    let mut checked = 0;
    let mut names: Vec<&str> = Vec::new();
    for (index, piece) in tests.split('`').enumerate() {
        if index % 2 == 1 {
            names.push(piece);
        } else if let Some(target) = target(text, piece) {
            let Some(target) = target else {
                faults.push(format!("{piece:?} leads nowhere: {row}"));
                names.clear();
                continue;
            };
            let path = document.parent().unwrap_or(Path::new("")).join(target);
            let text: String = texts(&path)?;
            for name in names.drain(..) {
                if !has_test(&text, name) {
                    faults.push(format!("{} has no test {name}: {row}", path.display()));
                }
                checked += 1;
            }
        }
    }
    if !names.is_empty() {
        faults.push(format!("no file is named for {names:?}: {row}"));
    }
    Ok(checked)
}

/// Whether a text has a test of this name, as Rust, Python and Node write them.
fn has_test(text: &str, name: &str) -> bool {
    [format!("fn {name}("), format!("def {name}("), format!("test('{name}',")].iter().any(|test| text.contains(test))
}

/// Where the first link in a piece of text leads; `Some(None)` if its label is defined nowhere.
fn target<'a>(text: &'a str, piece: &'a str) -> Option<Option<&'a str>> {
    let rest = &piece[piece.find("](").or_else(|| piece.find("]["))? + 1..];
    if let Some(rest) = rest.strip_prefix('(') {
        return Some(rest.split_once(')').map(|(target, _)| target));
    }
    let label = rest[1..].split(']').next()?;
    let definition = format!("\n[{label}]: ");
    Some(text.split_once(&definition).and_then(|(_, rest)| rest.lines().next()))
}

/// The text of a file, or of every Rust file of a folder.
fn texts(path: &Path) -> anyhow::Result<String> {
    let files: Vec<PathBuf> = if path.is_dir() { sources::files(path, "rs")? } else { vec![path.to_owned()] };
    files.iter().map(|file| sources::text(file)).collect::<anyhow::Result<String>>().context("a promise links to it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_whose_test_or_link_is_missing_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("one.rs"), "#[test]\nfn kept() {}\n").unwrap();
        std::fs::write(folder.path().join("one.py"), "    def test_kept(self) -> None:\n").unwrap();
        std::fs::write(folder.path().join("one.js"), "test('a promise is kept', options, async (t) => {\n").unwrap();
        let document = folder.path().join("README.md");
        let text = "\n[one]: one.rs\n";
        for (row, tests, fault) in [
            ("| p | `kept` in [one](one.rs) |", 1, None),
            ("| p | `kept` in [one][one] |", 1, None),
            ("| p | `test_kept` in [one](one.py), `a promise is kept` in [one](one.js) |", 2, None),
            ("| p | `a promise` in [one](one.js) |", 1, Some("has no test a promise")),
            ("| p | `kept`, `gone` in [one](one.rs) |", 2, Some("has no test gone")),
            ("| p | `kept` in [one][two] |", 0, Some("leads nowhere")),
            ("| p | `kept` |", 0, Some("no file is named")),
        ] {
            let mut faults = Vec::new();
            assert_eq!(check_row(&document, text, row, &mut faults).unwrap(), tests, "{row}");
            assert_eq!(faults.len(), usize::from(fault.is_some()), "{row}: {faults:?}");
            assert!(faults.iter().all(|found| found.contains(fault.unwrap())), "{row}: {faults:?}");
        }
    }
}
