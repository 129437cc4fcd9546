//! Documents that are to be read in one go stay as long as they are allowed to be.

use std::path::Path;

use crate::{found::Found, sources};

/// The documents with a bound, each with the lines that it may have.
const BOUNDS: [(&str, usize); 3] = [("README.md", 180), ("ARCHITECTURE.md", 250), ("docs/plugins.md", 100)];

/// Counts the lines of each.
///
/// # Errors
/// One of them cannot be read.
pub fn check(root: &Path) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let mut lengths = Vec::new();
    for (document, most) in BOUNDS {
        let lines = sources::text(&root.join(document))?.lines().count();
        lengths.push(format!("{document} {lines} of {most} lines"));
        found.faults.extend(fault(document, lines, most));
    }
    found.summary = lengths.join(", ");
    Ok(found)
}

/// What is wrong with a document of so many lines that may have `most`.
fn fault(document: &str, lines: usize, most: usize) -> Option<String> {
    (lines > most).then(|| {
        format!("{document} has {lines} lines, and may have {most}: shorten it, or put a part into a page of docs/")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_may_have_its_lines_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("docs")).unwrap();
        let write = |document: &str, lines: usize| {
            std::fs::write(folder.path().join(document), "a line\n".repeat(lines)).unwrap();
        };
        for (document, most) in BOUNDS {
            write(document, most);
        }
        assert_eq!(check(folder.path()).unwrap().faults, Vec::<String>::new());
        for (document, most) in BOUNDS {
            write(document, most + 1);
            let faults = check(folder.path()).unwrap().faults;
            assert!(matches!(&faults[..], [fault] if fault.starts_with(document)), "{faults:?}");
            write(document, most);
        }
        std::fs::remove_file(folder.path().join("README.md")).unwrap();
        assert!(check(folder.path()).is_err(), "one that is gone is not passed over");
    }
}
