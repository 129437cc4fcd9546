//! Documents that are to be read in one go stay as long as they are allowed to be.

use std::path::Path;

use crate::{found::Found, sources};

/// The documents with bounds, each with the lines and the characters that it may have: long lines are no way around the first.
const BOUNDS: [(&str, usize, usize); 3] =
    [("README.md", 180, 12_000), ("ARCHITECTURE.md", 250, 25_000), ("docs/plugins.md", 100, 6_000)];

/// Counts the lines and characters of each.
///
/// # Errors
/// One of them cannot be read.
pub fn check(root: &Path) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let mut lengths = Vec::new();
    for (document, most_lines, most_characters) in BOUNDS {
        let text = sources::text(&root.join(document))?;
        let (lines, characters) = (text.lines().count(), text.chars().count());
        lengths.push(format!("{document} {lines} of {most_lines} lines"));
        found.faults.extend(fault(document, "lines", lines, most_lines));
        found.faults.extend(fault(document, "characters", characters, most_characters));
    }
    found.summary = lengths.join(", ");
    Ok(found)
}

/// What is wrong with a document of `count` lines or characters that may have `most`.
fn fault(document: &str, unit: &str, count: usize, most: usize) -> Option<String> {
    (count > most).then(|| {
        format!("{document} has {count} {unit}, and may have {most}: shorten it, or put a part into a page of docs/")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_may_have_its_lines_and_characters_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("docs")).unwrap();
        let write = |document: &str, text: String| std::fs::write(folder.path().join(document), text).unwrap();
        // As many lines as there may be, of as many characters in all.
        let full = |lines: usize, characters: usize| "\n".repeat(lines - 1) + &"é".repeat(characters - lines + 1);
        for (document, lines, characters) in BOUNDS {
            write(document, full(lines, characters));
        }
        assert_eq!(check(folder.path()).unwrap().faults, Vec::<String>::new());
        for (document, lines, characters) in BOUNDS {
            for more in [full(lines + 1, characters), full(lines, characters + 1)] {
                write(document, more);
                let faults = check(folder.path()).unwrap().faults;
                assert!(matches!(&faults[..], [fault] if fault.starts_with(document)), "{faults:?}");
            }
            write(document, full(lines, characters));
        }
        std::fs::remove_file(folder.path().join("README.md")).unwrap();
        assert!(check(folder.path()).is_err(), "one that is gone is not passed over");
    }
}
