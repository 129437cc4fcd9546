//! The README's table of promises names tests that are there, each in the file that it links to.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The sources at a path: the file, or every file of the folder.
fn sources(path: &Path) -> Vec<PathBuf> {
    match fs::read_dir(path) {
        Ok(entries) => entries.flat_map(|entry| sources(&entry.unwrap().path())).collect(),
        Err(_) => vec![path.to_owned()],
    }
}

#[test]
fn every_promise_names_a_test_in_the_file_it_links_to() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let table = readme.split_once("\n## What is promised").unwrap().1.split_once("\n## ").unwrap().0;
    let target = |label: &str| {
        let definition = format!("\n[{label}]: ");
        let (_, rest) = readme.split_once(&definition).unwrap_or_else(|| panic!("[{label}] leads nowhere"));
        root.join(rest.lines().next().unwrap())
    };
    let mut checked = 0;
    for row in table.lines().filter(|line| line.starts_with("| ") && line.contains("][")) {
        let tests = row.trim_end_matches(" |").rsplit_once(" | ").unwrap().1;
        // `one`, `two` in [file][label], `three` in [other][label]
        let mut names: Vec<&str> = Vec::new();
        for (index, piece) in tests.split('`').enumerate() {
            if index % 2 == 1 {
                names.push(piece);
            } else if let Some((_, label)) = piece.split_once("][") {
                let path = target(label.split_once(']').unwrap().0);
                let text: String = sources(&path).iter().map(|file| fs::read_to_string(file).unwrap()).collect();
                for name in names.drain(..) {
                    assert!(text.contains(&format!("fn {name}(")), "{} has no test {name}: {row}", path.display());
                    checked += 1;
                }
            }
        }
        assert!(names.is_empty(), "no file is named for {names:?}: {row}");
    }
    assert!(checked > 40, "only {checked} tests were found in the table");
}
