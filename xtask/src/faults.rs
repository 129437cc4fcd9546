//! Each fault on the list has a test that runs, and docs/faults.md says which. That document is made from the list and
//! from the marks above the tests.

mod list;
mod marks;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::Context as _;

use crate::{found::Found, sources};
use list::{Fault, GROUPS};

/// By fault: its tests, as name and file, from the root of the repository on.
type Tests = BTreeMap<u32, Vec<(String, String)>>;

const DOCUMENT: &str = "docs/faults.md";
const FIX: &str = "run `cargo xtask faults --write` and commit docs/faults.md";

/// Compares the list of faults with the marks above the tests, and docs/faults.md with both.
///
/// # Errors
/// A file cannot be read, or a mark is none.
pub fn check(root: &Path) -> anyhow::Result<Found> {
    let tests = tests(root)?;
    let mut faults = every_fault_has_a_test(root)?;
    faults.extend(the_document_is_up_to_date(root)?);
    let marks: usize = tests.values().map(Vec::len).sum();
    Ok(Found::new(format!("{} faults, {marks} marks above tests", self::faults().count()), faults))
}

/// Writes docs/faults.md anew.
///
/// # Errors
/// A file cannot be read or written, or a mark is none.
pub fn write(root: &Path) -> anyhow::Result<()> {
    let path = root.join(DOCUMENT);
    fs::write(&path, document(&tests(root)?)).with_context(|| format!("cannot write {}", path.display()))
}

/// Every fault has a test, and every number above a test is a fault.
///
/// # Errors
/// A file cannot be read, or a mark is none.
pub fn every_fault_has_a_test(root: &Path) -> anyhow::Result<Vec<String>> {
    let tests = tests(root)?;
    let mut found = Vec::new();
    let untested: Vec<_> = faults().filter(|(number, ..)| !tests.contains_key(number)).collect();
    if !untested.is_empty() {
        found.push(format!("no test has the comment `// Fault N.` for {untested:#?}"));
    }
    let numbers: Vec<_> = faults().map(|(number, ..)| *number).collect();
    if !numbers.is_sorted_by(|one, next| one < next) {
        found.push(format!("numbers rise, and none is given twice: {numbers:?}"));
    }
    let unknown: Vec<_> = tests.iter().filter(|(number, _)| !numbers.contains(number)).collect();
    if !unknown.is_empty() {
        found.push(format!("these tests are marked with numbers that list.rs does not have: {unknown:#?}"));
    }
    Ok(found)
}

/// The document names the tests that there are.
///
/// # Errors
/// A file cannot be read, or a mark is none.
pub fn the_document_is_up_to_date(root: &Path) -> anyhow::Result<Vec<String>> {
    let (made, path) = (document(&tests(root)?), root.join(DOCUMENT));
    let there = fs::read_to_string(path).unwrap_or_default();
    if made == there {
        return Ok(Vec::new());
    }
    let differing = made.lines().zip(there.lines()).find(|(made, there)| made != there);
    Ok(vec![format!("docs/faults.md is out of date; {FIX}. The first difference: {differing:#?}")])
}

fn faults() -> impl Iterator<Item = &'static Fault> {
    GROUPS.iter().flat_map(|(_, faults)| *faults)
}

/// Every test that is marked.
fn tests(root: &Path) -> anyhow::Result<Tests> {
    let mut tests = Tests::new();
    for file in sources::files(root, "rs")? {
        let path = file.strip_prefix(root).unwrap_or(&file);
        let found = marks::read(&sources::text(&file)?);
        let found = found.map_err(|fault| anyhow::anyhow!("{}, {fault}", path.display()))?;
        let name = path.to_str().with_context(|| format!("{} is no text", path.display()))?;
        for mark in found {
            for fault in mark.faults {
                tests.entry(fault).or_default().push((mark.test.clone(), name.to_owned()));
            }
        }
    }
    tests.values_mut().for_each(|of_one| of_one.sort());
    Ok(tests)
}

fn document(tests: &Tests) -> String {
    let mut text = String::from(
        "# Faults that Bellrope survives\n\n\
         Each fault has a number, a defence, and at least one test that shows it. This page is made of the\n\
         [list](../xtask/src/faults/list.rs) and of the comments `// Fault 7.` above the tests: `cargo xtask faults --write`\n\
         writes it. `cargo xtask faults` fails when the page is out of date, when a fault has no test, or when a test is gone.\n",
    );
    for (group, faults) in GROUPS {
        let _ = write!(text, "\n## {group}\n\n| no. | fault | defence | tests |\n|---|---|---|---|\n");
        for (number, fault, defence) in *faults {
            let links = tests.get(number).into_iter().flatten();
            let links: Vec<_> = links.map(|(test, file)| format!("[`{test}`](../{file})")).collect();
            let _ = writeln!(text, "| {number} | {fault} | {defence} | {} |", links.join(", "));
        }
    }
    text
}
