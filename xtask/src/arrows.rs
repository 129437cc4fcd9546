//! Keeps the shape of the workspace: which crate may import which, where unsafe code may stand,
//! how long a file may be, and that no crate is a drawer for everything. ARCHITECTURE.md has the
//! same table of crates in words.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    code::{code_only, counted_lines, words},
    found::Found,
    metadata::{self, dependencies, packages, text},
    sources,
};

/// What one crate may import.
struct Row {
    package: &'static str,
    /// Crates of this workspace; holds for tests and build scripts as well.
    imports: &'static [&'static str],
    /// Crates from outside; development dependencies are free.
    outside: Outside,
}

enum Outside {
    /// These and no others.
    Only(&'static [&'static str]),
    /// Any but the [`HEAVY`] ones.
    Light,
    /// Any.
    Free,
}

const TABLE: &[Row] = &[
    Row { package: "bellrope-shm", imports: &[], outside: Outside::Only(&["libc", "loom", "rustix"]) },
    Row { package: "bellrope-proto", imports: &["bellrope-shm"], outside: Outside::Only(&["thiserror"]) },
    Row { package: "bellrope-macros", imports: &[], outside: Outside::Only(&["proc-macro2", "quote", "syn"]) },
    Row {
        package: "bellrope",
        imports: &["bellrope-shm", "bellrope-proto", "bellrope-macros"],
        outside: Outside::Light,
    },
    Row { package: "bellrope-health", imports: &["bellrope-shm", "bellrope"], outside: Outside::Free },
    Row { package: "bellrope-gateway", imports: &["bellrope"], outside: Outside::Free },
    Row { package: "bellrope-books", imports: &["bellrope", "bellrope-gateway"], outside: Outside::Free },
    Row { package: "bellrope-fleet", imports: &["bellrope"], outside: Outside::Free },
    Row { package: "bellrope-terminal", imports: &["bellrope-shm"], outside: Outside::Free },
    Row {
        package: "bellrope-measure",
        imports: &[
            "bellrope-shm",
            "bellrope-proto",
            "bellrope",
            "bellrope-health",
            "bellrope-gateway",
            "bellrope-fleet",
            "bellrope-terminal",
        ],
        outside: Outside::Free,
    },
    Row {
        package: "bellrope-demo",
        imports: &["bellrope-shm", "bellrope-measure", "bellrope-terminal"],
        outside: Outside::Free,
    },
    Row {
        package: "bellrope-cli",
        imports: &[
            "bellrope-shm",
            "bellrope",
            "bellrope-health",
            "bellrope-gateway",
            "bellrope-books",
            "bellrope-fleet",
            "bellrope-measure",
            "bellrope-terminal",
        ],
        outside: Outside::Free,
    },
    Row {
        package: "bellrope-testkit",
        imports: &["bellrope-shm", "bellrope-proto", "bellrope", "bellrope-gateway"],
        outside: Outside::Free,
    },
    Row {
        package: "bellrope-fuzz-targets",
        imports: &["bellrope-shm", "bellrope-proto", "bellrope", "bellrope-gateway", "bellrope-fleet"],
        outside: Outside::Free,
    },
    Row { package: "xtask", imports: &[], outside: Outside::Free },
];

/// What the tests of every crate may import; nothing that ships does.
const FOR_TESTS: &str = "bellrope-testkit";

/// Crates beside the workspace, each with a lock file of its own, and what they may import of the workspace's.
const APART: &[(&str, &[&str])] = &[
    ("crates/bellrope-peers", &["bellrope", "bellrope-measure", "bellrope-shm"]),
    ("fuzz", &["bellrope-fuzz-targets"]),
];

/// HTTP, TLS and what only a program needs: crates that must not weigh on someone who wants local calls alone.
const HEAVY: &[&str] = &[
    "axum",
    "clap",
    "h2",
    "http-body-util",
    "hyper",
    "hyper-rustls",
    "hyper-tls",
    "hyper-util",
    "native-tls",
    "openssl",
    "quinn",
    "reqwest",
    "rustls",
    "tokio-rustls",
    "tonic",
    "tower",
    "tower-http",
    "tracing-subscriber",
    "ureq",
];

/// Lines a source file may have, its unit tests at the end not counted.
const LINES: usize = 500;

/// Files that may be longer, each with the reason why it is better whole: `("crates/.../file.rs", "reason")`.
const LONGER: &[(&str, &str)] = &[];

/// The only folder with unsafe code, seen from the workspace's root.
const UNSAFE_HOME: &str = "crates/bellrope-shm";

/// The only file of what ships that reads `/proc` and `/sys`, and what does not ship.
const READER: &str = "crates/bellrope-shm/src/linux/proc.rs";
const NEVER_SHIPS: [&str; 2] = ["crates/bellrope-peers", "crates/bellrope-testkit"];

/// All rules of this module.
///
/// # Errors
/// A file cannot be read, or cargo cannot be asked.
pub fn check(root: &Path) -> anyhow::Result<Found> {
    let rules: [Rule; 7] = [
        dependencies_follow_the_table,
        every_crate_has_a_row,
        what_stands_apart_keeps_apart,
        no_crate_is_a_drawer,
        unsafe_code_stays_at_home,
        one_file_reads_proc,
        no_file_outgrows_its_bound,
    ];
    let mut faults = Vec::new();
    for rule in rules {
        faults.extend(rule(root)?);
    }
    let summary = format!("{} crates, {} Rust files", TABLE.len(), sources::files(root, "rs")?.len());
    Ok(Found::new(summary, faults))
}

/// Looks at the repository in this folder, and says what breaks the rule.
type Rule = fn(&Path) -> anyhow::Result<Vec<String>>;

/// Every dependency is one that the table allows.
///
/// # Errors
/// Cargo cannot be asked.
pub fn dependencies_follow_the_table(root: &Path) -> anyhow::Result<Vec<String>> {
    broken_arrows(&metadata::of_workspace(root)?)
}

/// Every crate has a row in the table, and every row a crate.
///
/// # Errors
/// Cargo cannot be asked.
pub fn every_crate_has_a_row(root: &Path) -> anyhow::Result<Vec<String>> {
    let metadata = metadata::of_workspace(root)?;
    let crates = packages(&metadata)?.iter().map(|package| text(package, "name"));
    let crates = crates.collect::<anyhow::Result<Vec<&str>>>()?;
    let without_row = crates
        .iter()
        .filter(|name| row(name).is_none())
        .map(|name| format!("crate {name} has no row in TABLE ({}): add one there and in ARCHITECTURE.md", file!()));
    let without_crate = TABLE.iter().filter(|row| !crates.contains(&row.package)).map(|Row { package, .. }| {
        format!("TABLE ({}) has a row for {package}, which is no crate of the workspace: remove the row", file!())
    });
    Ok(without_row.chain(without_crate).collect())
}

/// What stands apart has a workspace of its own, and imports what it is about.
///
/// # Errors
/// Cargo cannot be asked.
pub fn what_stands_apart_keeps_apart(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for (folder, allowed) in APART {
        let folder_path = root.join(folder).canonicalize().with_context(|| format!("{folder} is on the list APART"))?;
        let apart = metadata::of(&folder_path.join("Cargo.toml"))?;
        if Path::new(text(&apart, "workspace_root")?) != folder_path {
            faults.push(format!(
                "{folder} has no workspace of its own, so a build of ours would compile what it compares with or needs"
            ));
        }
        for package in packages(&apart)? {
            if row(text(package, "name")?).is_some() {
                faults.push(format!("{folder} stands apart and has no row in TABLE"));
            }
            for dependency in dependencies(package)? {
                let target = text(dependency, "name")?;
                if row(target).is_some() && !allowed.contains(&target) {
                    faults.push(format!(
                        "{folder} -> {target}: of the workspace's crates it may import {}",
                        list(allowed)
                    ));
                }
            }
        }
    }
    Ok(faults)
}

/// No crate is called `common`, `utils` or `types`.
///
/// # Errors
/// Cargo cannot be asked.
pub fn no_crate_is_a_drawer(root: &Path) -> anyhow::Result<Vec<String>> {
    let metadata = metadata::of_workspace(root)?;
    let mut faults = Vec::new();
    for package in packages(&metadata)? {
        let name = text(package, "name")?;
        if name.split(['-', '_']).any(|part| matches!(part, "common" | "types" | "util" | "utils")) {
            faults.push(format!(
                "crate {name}: name a crate after the one thing it is, or move its parts to the crates that own them"
            ));
        }
    }
    Ok(faults)
}

/// Unsafe code stands in one crate. What is there to be refused by the compiler is no code.
///
/// # Errors
/// A file cannot be read.
pub fn unsafe_code_stays_at_home(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for (path, source) in rust_files(root)? {
        if path.starts_with(UNSAFE_HOME) || path.parent().is_some_and(|folder| folder.ends_with("tests/refused")) {
            continue;
        }
        for (index, line) in code_only(&source).lines().enumerate() {
            if words(line).any(|word| word == "unsafe") {
                let place = format!("{}:{}", path.display(), index + 1);
                faults
                    .push(format!("{place}: unsafe code outside {UNSAFE_HOME}; move it there behind a safe function"));
            }
        }
    }
    Ok(faults)
}

/// What the kernel tells in files is read in one of ours, so that another system has one to stand in for. Tests look for
/// themselves.
///
/// # Errors
/// A file cannot be read.
pub fn one_file_reads_proc(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for (path, source) in rust_files(root)? {
        let ships = path.starts_with("crates") && path.iter().any(|folder| folder == "src");
        let is_test = path.file_name().is_some_and(|name| name == "tests.rs");
        if !ships || is_test || path == Path::new(READER) || NEVER_SHIPS.iter().any(|apart| path.starts_with(apart)) {
            continue;
        }
        for (index, line) in source.lines().take(counted_lines(&source)).enumerate() {
            if ["\"/proc/", "\"/sys/"].iter().any(|start| line.contains(start)) {
                faults.push(format!(
                    "{}:{}: only {READER} reads there; add a function to it",
                    path.display(),
                    index + 1
                ));
            }
        }
    }
    Ok(faults)
}

/// No file is longer than it may be.
///
/// # Errors
/// A file cannot be read.
pub fn no_file_outgrows_its_bound(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for (path, source) in rust_files(root)? {
        let lines = counted_lines(&source);
        let excused = LONGER.iter().any(|(longer, _)| path == Path::new(longer));
        let fault = match (lines > LINES, excused) {
            (true, false) => "split it along who owns the state, or add it to LONGER with the reason",
            (false, true) => "it is short enough: take it off LONGER",
            (true, true) | (false, false) => continue,
        };
        faults.push(format!("{}: {lines} lines without its unit tests, bound {LINES}; {fault}", path.display()));
    }
    Ok(faults)
}

/// One line for every dependency that the table does not allow: the arrow, the rule, what to do.
fn broken_arrows(metadata: &Value) -> anyhow::Result<Vec<String>> {
    let names = packages(metadata)?.iter().map(|package| text(package, "name"));
    let names = names.collect::<anyhow::Result<Vec<&str>>>()?;
    let mut broken = Vec::new();
    for package in packages(metadata)? {
        let Some(row) = row(text(package, "name")?) else {
            continue; // a rule of its own finds it
        };
        for dependency in dependencies(package)? {
            let target = text(dependency, "name")?;
            let fault = match target {
                FOR_TESTS if dependency["kind"] == "dev" => None,
                _ if names.contains(&target) => fault_inside(row, target),
                _ => fault_outside(row, target, dependency),
            };
            broken.extend(fault.map(|fault| format!("{} -> {target}: {fault}", row.package)));
        }
    }
    Ok(broken)
}

fn fault_inside(row: &Row, target: &str) -> Option<String> {
    if row.imports.contains(&target) {
        return None;
    }
    Some(format!(
        "of the workspace's crates it may import {}. A lower crate knows nothing of a higher one: \
         move the code up, or hand the value in as an argument",
        list(row.imports)
    ))
}

fn fault_outside(row: &Row, target: &str, dependency: &Value) -> Option<String> {
    if dependency["kind"] == "dev" {
        return None;
    }
    if target == "loom" && dependency["target"] != "cfg(loom)" {
        return Some("it never ships: put it under [target.'cfg(loom)'.dependencies]".to_owned());
    }
    match row.outside {
        Outside::Free => None,
        Outside::Only(allowed) => (!allowed.contains(&target)).then(|| {
            format!("from outside it may import {}. Move the code that needs it to a crate above", list(allowed))
        }),
        Outside::Light => {
            HEAVY.contains(&target).then(|| "it belongs in a crate above: move the code there".to_owned())
        }
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn row(package: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.package == package)
}

/// Every Rust file of the repository with its text; paths are relative to its root.
fn rust_files(root: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let paths = sources::files(root, "rs")?;
    ensure!(paths.contains(&root.join(file!())), "the search under {} does not even find {}", root.display(), file!());
    let read = |path: PathBuf| {
        let source = sources::text(&path)?;
        Ok((path.strip_prefix(root).unwrap_or(&path).to_owned(), source))
    };
    paths.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Metadata of a workspace with all the crates of the table, in which `package` has one more dependency.
    fn workspace_with(package: &str, dependency: &Value) -> Value {
        let packages: Vec<Value> = TABLE
            .iter()
            .map(|row| {
                let dependencies = if row.package == package { vec![dependency.clone()] } else { Vec::new() };
                json!({ "name": row.package, "dependencies": dependencies })
            })
            .collect();
        json!({ "packages": packages })
    }

    fn normal(name: &str) -> Value {
        json!({ "name": name, "kind": null, "optional": false, "target": null })
    }

    #[test]
    fn a_forbidden_arrow_is_named_with_what_to_do() {
        for (package, dependency, expected) in [
            ("bellrope-shm", normal("bellrope-proto"), "bellrope-shm -> bellrope-proto: of the workspace's"),
            ("bellrope", normal("bellrope-gateway"), "may import bellrope-shm, bellrope-proto, bellrope-macros."),
            ("bellrope-gateway", normal("bellrope-shm"), "may import bellrope."),
            ("bellrope-proto", normal("tokio"), "from outside it may import thiserror."),
            ("bellrope-shm", normal("loom"), "put it under [target.'cfg(loom)'.dependencies]"),
            ("bellrope", normal("reqwest"), "bellrope -> reqwest: it belongs in a crate above"),
            ("bellrope", normal("hyper"), "bellrope -> hyper: it belongs in a crate above"),
            (
                "bellrope",
                json!({ "name": "hyper", "kind": null, "optional": true }),
                "bellrope -> hyper: it belongs in a crate above",
            ),
            ("bellrope-proto", json!({ "name": "cc", "kind": "build" }), "bellrope-proto -> cc:"),
            ("bellrope-shm", json!({ "name": "bellrope", "kind": "dev" }), "bellrope-shm -> bellrope:"),
        ] {
            let broken = broken_arrows(&workspace_with(package, &dependency)).unwrap();
            assert_eq!(broken.len(), 1, "{broken:?}");
            assert!(broken[0].contains(expected), "{} lacks: {expected}", broken[0]);
        }
    }

    #[test]
    fn an_allowed_arrow_is_left_alone() {
        for (package, dependency) in [
            ("bellrope-proto", normal("bellrope-shm")),
            ("bellrope-proto", json!({ "name": "proptest", "kind": "dev" })),
            ("bellrope-shm", json!({ "name": "loom", "kind": null, "target": "cfg(loom)" })),
            ("bellrope", normal("tracing")),
            ("bellrope-health", normal("hyper")),
            ("bellrope-proto", json!({ "name": "bellrope-testkit", "kind": "dev" })),
            ("bellrope-gateway", normal("reqwest")),
            ("bellrope-cli", normal("clap")),
        ] {
            let broken = broken_arrows(&workspace_with(package, &dependency)).unwrap();
            assert!(broken.is_empty(), "{broken:?}");
        }
    }
}
