//! Circles of files within a crate: a file that names what another one defines, which names, perhaps through others, what
//! the first one defines.
//!
//! Every path is followed to the file that defines the item: through imports, globs, renames and re-exports, and from
//! names written out in full. What only tests use does not count; everything else does, whatever feature it needs. A call
//! of a method names nothing: the type that has the method was named before.

mod modules;
mod naming;
mod resolve;
mod scope;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::found::Found;
use modules::Crate;
use naming::Arrows;
use scope::FileId;

/// Files each of which leads to each other one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circle {
    /// The root file of the crate.
    pub root: PathBuf,
    /// The files.
    pub files: Vec<PathBuf>,
    /// The arrows between them.
    pub arrows: Vec<Arrow>,
}

/// One file names what another one defines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrow {
    /// The file that names.
    pub from: PathBuf,
    /// The file that defines.
    pub to: PathBuf,
    /// What it names, each with the line where it does so first.
    pub names: BTreeMap<String, usize>,
}

/// What there is in one crate.
#[derive(Debug, Default)]
pub struct Looked {
    /// How many files it has.
    pub files: usize,
    /// All arrows between them.
    pub arrows: Vec<Arrow>,
    /// The circles among them.
    pub circles: Vec<Circle>,
    /// Paths that lead nowhere, with file and line: this check has a gap there.
    pub lost: Vec<String>,
}

/// Looks for circles in every crate below `root`.
///
/// # Errors
/// A file cannot be read or is not Rust.
pub fn check(root: &Path) -> anyhow::Result<Found> {
    let roots = crate_roots(root)?;
    let mut found = Found::default();
    let (mut files, mut arrows) = (0, 0);
    for path in &roots {
        let looked = look(path).with_context(|| format!("in the crate of {}", path.display()))?;
        files += looked.files;
        arrows += looked.arrows.len();
        found.faults.extend(looked.circles.iter().map(|circle| describe(circle, root)));
        found.faults.extend(looked.lost.iter().map(|lost| format!("cannot tell what this path names: {lost}")));
    }
    found.summary = format!("{} crates, {files} files, {arrows} arrows between files", roots.len());
    Ok(found)
}

/// Looks for circles in the crate of this root file.
///
/// # Errors
/// A file cannot be read or is not Rust.
pub fn look(root: &Path) -> anyhow::Result<Looked> {
    let read = Crate::read(root)?;
    let found = naming::names(&read);
    let arrow = |(from, to): (FileId, FileId)| Arrow {
        from: read.files[from].clone(),
        to: read.files[to].clone(),
        names: found.arrows[&(from, to)].clone(),
    };
    let circles = circles(read.files.len(), &found.arrows).into_iter().map(|files| {
        let inside = found.arrows.keys().filter(|(from, to)| files.contains(from) && files.contains(to));
        Circle {
            root: root.to_owned(),
            arrows: inside.copied().map(arrow).collect(),
            files: files.iter().map(|file| read.files[*file].clone()).collect(),
        }
    });
    let lost = found.lost.iter().map(|(file, line, path)| format!("{}:{line}: {path}", read.files[*file].display()));
    Ok(Looked {
        files: read.files.len(),
        arrows: found.arrows.keys().copied().map(arrow).collect(),
        circles: circles.collect(),
        lost: lost.collect(),
    })
}

/// The groups of more than one file in which each leads to each other.
fn circles(files: usize, arrows: &Arrows) -> Vec<BTreeSet<FileId>> {
    let reached: Vec<BTreeSet<FileId>> = (0..files).map(|file| reached_from(file, arrows)).collect();
    let mut found: Vec<BTreeSet<FileId>> = Vec::new();
    for file in 0..files {
        if reached[file].contains(&file) && !found.iter().any(|circle| circle.contains(&file)) {
            found.push(reached[file].iter().copied().filter(|&other| reached[other].contains(&file)).collect());
        }
    }
    found
}

/// Every file that arrows lead to from `start`; itself only if one leads back.
fn reached_from(start: FileId, arrows: &Arrows) -> BTreeSet<FileId> {
    let mut reached = BTreeSet::new();
    let mut open = vec![start];
    while let Some(file) = open.pop() {
        for (_, to) in arrows.range((file, 0)..=(file, FileId::MAX)).map(|(arrow, _)| *arrow) {
            if reached.insert(to) {
                open.push(to);
            }
        }
    }
    reached
}

/// A circle file by file, for people.
fn describe(circle: &Circle, root: &Path) -> String {
    let short = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
    let mut text = format!("a circle of {} files in the crate of {}:", circle.files.len(), short(&circle.root));
    for file in &circle.files {
        write!(text, "\n  {}", short(file)).expect("text can be written to a string");
        for arrow in circle.arrows.iter().filter(|arrow| arrow.from == *file) {
            let names = arrow.names.iter().map(|(name, line)| format!("{name} (line {line})"));
            let names: Vec<_> = names.collect();
            write!(text, "\n    -> {}: {}", short(&arrow.to), names.join(", "))
                .expect("text can be written to a string");
        }
    }
    text
}

/// The root files of all crates below a folder: libraries and programs, but no tests and examples.
fn crate_roots(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut roots = BTreeSet::new();
    for manifest in crate::sources::files(root, "toml")?.iter().filter(|path| path.ends_with("Cargo.toml")) {
        let text = fs::read_to_string(manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
        let read: toml::Table = text.parse().with_context(|| format!("in {}", manifest.display()))?;
        if !read.contains_key("package") {
            continue;
        }
        let folder = manifest.parent().unwrap_or(root);
        let lib = read.get("lib").and_then(|lib| lib.get("path")).and_then(toml::Value::as_str);
        let programs = read.get("bin").and_then(toml::Value::as_array).into_iter().flatten();
        let programs = programs.filter_map(|program| program.get("path")).filter_map(toml::Value::as_str);
        let named = ["src/lib.rs", "src/main.rs"].into_iter().chain(lib).chain(programs);
        roots.extend(named.map(|path| modules::normal(&folder.join(path))).filter(|path| path.exists()));
        if let Ok(entries) = fs::read_dir(folder.join("src/bin")) {
            for entry in entries {
                let path = entry?.path();
                let main = path.join("main.rs");
                roots.extend(
                    [path, main]
                        .into_iter()
                        .filter(|path| path.extension().is_some_and(|end| end == "rs") && path.is_file()),
                );
            }
        }
    }
    Ok(roots.into_iter().collect())
}
