//! Each fault on the list has a test that runs, and docs/faults.md says which. That document is made from the list and
//! from the marks above the tests.

mod list;
mod marks;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use list::{Fault, GROUPS};

/// By fault: its tests, as name and file, from the root of the repository on.
type Tests = BTreeMap<u32, Vec<(String, String)>>;

const MEND: &str = "run `BELLROPE_WRITE_DOCS=1 cargo test -p bellrope-cli --test faults` and commit docs/faults.md";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn faults() -> impl Iterator<Item = &'static Fault> {
    GROUPS.iter().flat_map(|(_, faults)| *faults)
}

/// Every test that is marked.
fn tests() -> Tests {
    let mut tests = Tests::new();
    let crates = root().join("crates");
    for file in sources(&crates) {
        let name = Path::new("crates").join(file.strip_prefix(&crates).unwrap()).to_str().unwrap().to_owned();
        let found = marks::read(&fs::read_to_string(&file).unwrap()).unwrap_or_else(|fault| panic!("{name}, {fault}"));
        for mark in found {
            for fault in mark.faults {
                tests.entry(fault).or_default().push((mark.test.clone(), name.clone()));
            }
        }
    }
    tests.values_mut().for_each(|of_one| of_one.sort());
    tests
}

/// The Rust files below a folder, but for what was built there.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let kept = entries.filter(|path| path.file_name().is_some_and(|name| name != "target"));
    kept.flat_map(|path| {
        if path.is_dir() {
            sources(&path)
        } else {
            Vec::from_iter(path.extension().is_some_and(|extension| extension == "rs").then_some(path))
        }
    })
    .collect()
}

fn document(tests: &Tests) -> String {
    let mut text = String::from(
        "# Faults that Bellrope survives\n\n\
         Each fault has a number, a defence, and at least one test that shows it. This page is made of the\n\
         [list](../crates/bellrope-cli/tests/faults/list.rs) and of the comments `// Fault 7.` above the tests:\n\
         `BELLROPE_WRITE_DOCS=1 cargo test -p bellrope-cli --test faults` writes it, and without the variable the same\n\
         test fails when it is out of date, when a fault has no test, or when a test is gone.\n",
    );
    for (group, faults) in GROUPS {
        write!(text, "\n## {group}\n\n| no. | fault | defence | tests |\n|---|---|---|---|\n").unwrap();
        for (number, fault, defence) in *faults {
            let links = tests.get(number).into_iter().flatten();
            let links: Vec<_> = links.map(|(test, file)| format!("[`{test}`](../{file})")).collect();
            writeln!(text, "| {number} | {fault} | {defence} | {} |", links.join(", ")).unwrap();
        }
    }
    text
}

#[test]
fn every_fault_has_a_test_and_every_number_a_fault() {
    let tests = tests();
    let untested: Vec<_> = faults().filter(|(number, ..)| !tests.contains_key(number)).collect();
    assert!(untested.is_empty(), "no test has the comment `// Fault N.` for {untested:#?}");
    let numbers: Vec<_> = faults().map(|(number, ..)| *number).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "numbers rise, and none is given twice: {numbers:?}");
    let unknown: Vec<_> = tests.iter().filter(|(number, _)| !numbers.contains(number)).collect();
    assert!(unknown.is_empty(), "these tests are marked with numbers that list.rs does not have: {unknown:#?}");
}

#[test]
fn the_document_names_the_tests_that_there_are() {
    let (made, path) = (document(&tests()), root().join("docs/faults.md"));
    if std::env::var_os("BELLROPE_WRITE_DOCS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    let differing = made.lines().zip(there.lines()).find(|(made, there)| made != there);
    assert!(made == there, "docs/faults.md is out of date; {MEND}. The first difference: {differing:#?}");
}
