//! The public surface of the libraries, one path a line, in docs/api.txt: a change of it shows in review.
//!
//! It is read from the sources, with every feature on. What macros make is not seen, such as setters, which have the names
//! of fields. `scripts/semver` compares types as well.

pub(crate) mod surface;

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Context as _;

use crate::{found::Found, sources};

/// The libraries that others may depend on, but for `bellrope-macros`, which has one macro.
pub(crate) const LIBRARIES: [&str; 7] = [
    "bellrope-shm",
    "bellrope-proto",
    "bellrope",
    "bellrope-health",
    "bellrope-gateway",
    "bellrope-books",
    "bellrope-fleet",
];
const DOCUMENT: &str = "docs/api.txt";
const FIX: &str =
    "if that is meant, run `cargo xtask api --write`, commit docs/api.txt, and tell users in CHANGELOG.md";
/// Differences that are printed.
const SHOWN: usize = 20;

/// Compares docs/api.txt with the sources.
///
/// # Errors
/// A file cannot be read or is not Rust.
pub fn check(root: &Path) -> anyhow::Result<Found> {
    let now = lines(root)?;
    let written = sources::text(&root.join(DOCUMENT)).unwrap_or_default();
    let written: BTreeSet<String> = written.lines().map(str::to_owned).collect();
    let gone = written.difference(&now).map(|path| format!("- {path}"));
    let new = now.difference(&written).map(|path| format!("+ {path}"));
    let mut differences: Vec<_> = gone.chain(new).collect();
    let more = differences.len().saturating_sub(SHOWN);
    differences.truncate(SHOWN);
    let mut found = Found::new(format!("{} public paths", now.len()), Vec::new());
    if !differences.is_empty() {
        let more = if more > 0 { format!("\nand {more} more") } else { String::new() };
        found.faults.push(format!("{DOCUMENT} is not what is public; {FIX}:\n{}{more}", differences.join("\n")));
    }
    Ok(found)
}

/// Writes docs/api.txt anew.
///
/// # Errors
/// A file cannot be read or written, or is not Rust.
pub fn write(root: &Path) -> anyhow::Result<()> {
    let mut text = lines(root)?.into_iter().collect::<Vec<_>>().join("\n");
    text.push('\n');
    let path = root.join(DOCUMENT);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn lines(root: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut lines = BTreeSet::new();
    for library in LIBRARIES {
        let file = root.join("crates").join(library).join("src/lib.rs");
        lines.extend(surface::paths(&library.replace('-', "_"), &file)?);
    }
    Ok(lines)
}
