//! Keeps the shape of the workspace: which crate may import which, where unsafe code may stand,
//! how long a file may be, and that no crate is a drawer for everything. ARCHITECTURE.md has the
//! same table of crates in words.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

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
    /// Any but the [`HEAVY`] ones; of those the named ones, and only as optional dependencies.
    LightAndOptional(&'static [&'static str]),
    /// Any.
    Free,
}

const TABLE: &[Row] = &[
    Row { package: "bellrope-shm", imports: &[], outside: Outside::Only(&["libc", "loom", "rustix"]) },
    Row { package: "bellrope-proto", imports: &["bellrope-shm"], outside: Outside::Only(&["thiserror"]) },
    Row {
        package: "bellrope",
        imports: &["bellrope-shm", "bellrope-proto"],
        outside: Outside::LightAndOptional(&["http-body-util", "hyper", "hyper-util"]),
    },
    Row { package: "bellrope-gateway", imports: &["bellrope"], outside: Outside::Free },
    Row {
        package: "bellrope-cli",
        imports: &["bellrope-shm", "bellrope-proto", "bellrope", "bellrope-gateway"],
        outside: Outside::Free,
    },
    Row {
        package: "bellrope-fuzz-targets",
        imports: &["bellrope-shm", "bellrope-proto", "bellrope", "bellrope-gateway"],
        outside: Outside::Free,
    },
];

/// Crates beside the workspace, each with a lock file of its own, and what they may import of the workspace's.
const APART: &[(&str, &[&str])] = &[("crates/bellrope-bench", &["bellrope"]), ("fuzz", &["bellrope-fuzz-targets"])];

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

#[test]
fn every_dependency_follows_the_table_of_arrows() {
    let broken = broken_arrows(&metadata());
    assert!(broken.is_empty(), "{} arrow(s) broken:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn every_crate_has_a_row_and_every_row_a_crate() {
    let metadata = metadata();
    let crates: Vec<&str> = packages(&metadata).map(|package| text(package, "name")).collect();
    for name in &crates {
        assert!(
            row(name).is_some(),
            "crate {name} has no row in TABLE ({}): add one there and in ARCHITECTURE.md",
            file!()
        );
    }
    for Row { package, .. } in TABLE {
        assert!(
            crates.contains(package),
            "TABLE ({}) has a row for {package}, which is no crate of the workspace: remove the row",
            file!()
        );
    }
}

#[test]
fn what_stands_apart_imports_what_it_is_about_and_is_built_by_nobody_else() {
    let ours = metadata();
    for (folder, allowed) in APART {
        let manifest = Path::new(text(&ours, "workspace_root")).join(folder).join("Cargo.toml");
        let apart = metadata_of(&manifest);
        assert_eq!(
            Path::new(text(&apart, "workspace_root")),
            manifest.parent().expect("a file has a folder"),
            "{folder} has no workspace of its own, so a build of ours would compile what it compares with or needs"
        );
        for package in packages(&apart) {
            assert!(row(text(package, "name")).is_none(), "{folder} stands apart and has no row in TABLE");
            for dependency in package["dependencies"].as_array().expect("a list of dependencies") {
                let target = text(dependency, "name");
                assert!(
                    row(target).is_none() || allowed.contains(&target),
                    "{folder} -> {target}: of the workspace's crates it may import {}",
                    list(allowed)
                );
            }
        }
    }
}

#[test]
fn no_crate_is_a_drawer_for_everything() {
    for package in packages(&metadata()) {
        let name = text(package, "name");
        assert!(
            !name.split(['-', '_']).any(|part| matches!(part, "common" | "types" | "util" | "utils")),
            "crate {name}: name a crate after the one thing it is, or move its parts to the crates that own them"
        );
    }
}

// Fault 6.
#[test]
fn unsafe_code_stands_in_the_shared_memory_crate_alone() {
    let mut found = Vec::new();
    for (path, source) in sources() {
        if path.starts_with(UNSAFE_HOME) {
            continue;
        }
        for (index, line) in code_only(&source).lines().enumerate() {
            if words(line).any(|word| word == "unsafe") {
                found.push(format!("{}:{}", path.display(), index + 1));
            }
        }
    }
    assert!(
        found.is_empty(),
        "unsafe code outside {UNSAFE_HOME}; move it there behind a safe function:\n{}",
        found.join("\n")
    );
}

#[test]
fn no_file_outgrows_its_bound() {
    let mut wrong = Vec::new();
    for (path, source) in sources() {
        let lines = counted_lines(&source);
        let excused = LONGER.iter().any(|(longer, _)| path == Path::new(longer));
        let fault = match (lines > LINES, excused) {
            (true, false) => "split it along who owns the state, or add it to LONGER with the reason",
            (false, true) => "it is short enough: take it off LONGER",
            (true, true) | (false, false) => continue,
        };
        wrong.push(format!("{}: {lines} lines without its unit tests, bound {LINES}; {fault}", path.display()));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One line for every dependency that the table does not allow: the arrow, the rule, what to do.
fn broken_arrows(metadata: &Value) -> Vec<String> {
    let names: Vec<&str> = packages(metadata).map(|package| text(package, "name")).collect();
    let mut broken = Vec::new();
    for package in packages(metadata) {
        let Some(row) = row(text(package, "name")) else {
            continue; // a test of its own finds it
        };
        for dependency in package["dependencies"].as_array().expect("a list of dependencies") {
            let target = text(dependency, "name");
            let fault =
                if names.contains(&target) { fault_inside(row, target) } else { fault_outside(row, dependency) };
            broken.extend(fault.map(|fault| format!("{} -> {target}: {fault}", row.package)));
        }
    }
    broken
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

fn fault_outside(row: &Row, dependency: &Value) -> Option<String> {
    if dependency["kind"] == "dev" {
        return None;
    }
    let target = text(dependency, "name");
    if target == "loom" && dependency["target"] != "cfg(loom)" {
        return Some("it never ships: put it under [target.'cfg(loom)'.dependencies]".to_owned());
    }
    match row.outside {
        Outside::Free => None,
        Outside::Only(allowed) => (!allowed.contains(&target)).then(|| {
            format!("from outside it may import {}. Move the code that needs it to a crate above", list(allowed))
        }),
        Outside::LightAndOptional(optional) => {
            if !HEAVY.contains(&target) {
                None
            } else if !optional.contains(&target) {
                Some("it belongs in the gateway or the command line: move the code there".to_owned())
            } else if dependency["optional"] != true {
                Some("it must be optional here: put it behind a feature".to_owned())
            } else {
                None
            }
        }
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn row(package: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.package == package)
}

fn metadata() -> Value {
    metadata_of(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")))
}

fn metadata_of(manifest: &Path) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .arg("--manifest-path")
        .arg(manifest)
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().expect("a list of packages").iter()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("`{key}` is text in {value}"))
}

/// Every Rust file of the workspace with its text; paths are relative to the workspace's root.
fn sources() -> Vec<(PathBuf, String)> {
    let metadata = metadata();
    let root = Path::new(text(&metadata, "workspace_root"));
    let mut paths = Vec::new();
    collect_rust_files(root, Path::new(text(&metadata, "target_directory")), &mut paths);
    paths.sort();
    assert!(
        paths.iter().any(|path| path.ends_with("bellrope-cli/tests/arrows.rs")),
        "the search under {} does not even find this file",
        root.display()
    );
    let read = |path: PathBuf| {
        let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path.strip_prefix(root).expect("a path under the root").to_owned(), source)
    };
    paths.into_iter().map(read).collect()
}

/// Leaves out hidden folders and build output: `target_directory`, and any `target` beside a `Cargo.toml`.
fn collect_rust_files(folder: &Path, target_directory: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let entry = entry.expect("a readable folder");
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().expect("a file type").is_dir() {
            let hidden = name.to_string_lossy().starts_with('.');
            let built = path == target_directory || (name == "target" && folder.join("Cargo.toml").exists());
            if !hidden && !built {
                collect_rust_files(&path, target_directory, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The lines of a file without the `#[cfg(test)] mod tests { ... }` at its end.
fn counted_lines(source: &str) -> usize {
    let code = code_only(source);
    let tests = code.match_indices("#[cfg(").map(|(start, _)| start).find(|&start| {
        let (attribute, after) = split_attribute(&code[start..]);
        words(attribute).any(|word| word == "test") && skip_attributes(after).starts_with("mod tests {")
    });
    code[..tests.unwrap_or(code.len())].lines().count()
}

fn skip_attributes(code: &str) -> &str {
    let code = code.trim_start();
    if code.starts_with("#[") { skip_attributes(split_attribute(code).1) } else { code }
}

/// Cuts `#[...]` off the front of `code`.
fn split_attribute(code: &str) -> (&str, &str) {
    let mut depth = 0_usize;
    let close = code.find(|c| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        c == ']' && depth == 0
    });
    code.split_at(close.map_or(code.len(), |close| close + 1))
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !is_word(c)).filter(|word| !word.is_empty())
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// `source` with comments and literals blanked out; line breaks stay, so a line keeps its number.
fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while !rest.is_empty() {
        let (length, is_code) = next_piece(rest);
        let (piece, after) = rest.split_at(length);
        if is_code {
            code.push_str(piece);
        } else {
            code.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = after;
    }
    code
}

/// The length in bytes of the comment, literal, word or single character that `rest` starts with, and whether it is
/// code.
fn next_piece(rest: &str) -> (usize, bool) {
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), false);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), false);
    }
    let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    if word > 0 {
        let raw = matches!(&rest[..word], "r" | "br" | "cr").then(|| raw_string(&rest[word..])).flatten();
        return raw.map_or((word, true), |length| (word + length, false));
    }
    let mut chars = rest.chars();
    match (chars.next(), chars.next(), chars.next()) {
        (Some('"'), ..) => (quoted(rest, '"'), false),
        (Some('\''), Some('\\'), _) => (quoted(rest, '\''), false),
        (Some('\''), Some(only), Some('\'')) => (only.len_utf8() + 2, false),
        (first, ..) => (first.map_or(0, char::len_utf8), true),
    }
}

/// The length of a block comment; Rust's may contain others.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of a raw string from its first `#` or `"` on; nothing if this is not one.
fn raw_string(rest: &str) -> Option<usize> {
    let hashes = rest.find(|c| c != '#')?;
    let body = rest[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(body.find(&end).map_or(rest.len(), |close| hashes + 1 + close + end.len()))
}

/// The length of a literal in `quote`s, both included; a backslash hides the character after it.
fn quoted(rest: &str, quote: char) -> usize {
    let mut hidden = false;
    let close = rest.char_indices().skip(1).find(|&(_, c)| {
        let closes = c == quote && !hidden;
        hidden = c == '\\' && !hidden;
        closes
    });
    close.map_or(rest.len(), |(close, _)| close + 1)
}

/// Unit tests of the checks themselves.
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
            ("bellrope", normal("bellrope-gateway"), "may import bellrope-shm, bellrope-proto."),
            ("bellrope-gateway", normal("bellrope-shm"), "may import bellrope."),
            ("bellrope-proto", normal("tokio"), "from outside it may import thiserror."),
            ("bellrope-shm", normal("loom"), "put it under [target.'cfg(loom)'.dependencies]"),
            ("bellrope", normal("reqwest"), "bellrope -> reqwest: it belongs in the gateway"),
            ("bellrope", normal("hyper"), "bellrope -> hyper: it must be optional"),
            ("bellrope-proto", json!({ "name": "cc", "kind": "build" }), "bellrope-proto -> cc:"),
            ("bellrope-shm", json!({ "name": "bellrope", "kind": "dev" }), "bellrope-shm -> bellrope:"),
        ] {
            let broken = broken_arrows(&workspace_with(package, &dependency));
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
            ("bellrope", json!({ "name": "hyper", "kind": null, "optional": true })),
            ("bellrope", normal("tracing")),
            ("bellrope-gateway", normal("reqwest")),
            ("bellrope-cli", normal("clap")),
        ] {
            let broken = broken_arrows(&workspace_with(package, &dependency));
            assert!(broken.is_empty(), "{broken:?}");
        }
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        for (source, expected) in [
            ("a // unsafe\nb", "a b"),
            ("a /* unsafe /* in */ unsafe */ b", "a b"),
            (r#"f("unsafe \" unsafe", x)"#, "f x"),
            ("r#\"unsafe \" \"# y", "y"),
            (r"['\'', '\\', 'u', '\u{7b}'] z", "z"),
            ("fn f<'a>(x: &'a str)", "fn f a x a str"),
            ("#![forbid(unsafe_code)]", "forbid unsafe_code"),
            ("unsafe { f() }", "unsafe f"),
        ] {
            let code = code_only(source);
            assert_eq!(words(&code).collect::<Vec<_>>().join(" "), expected, "{source}");
            assert_eq!(code.lines().count(), source.lines().count(), "{source}");
        }
    }

    #[test]
    fn unit_tests_at_the_end_do_not_count() {
        let tests = "mod tests {\n    #[test]\n    fn t() {}\n}\n";
        assert_eq!(counted_lines("a\nb\n"), 2);
        assert_eq!(counted_lines(&format!("a\n\n#[cfg(test)]\n{tests}")), 2);
        assert_eq!(
            counted_lines(&format!("a\n#[cfg(all(test, not(loom)))]\n#[expect(x, reason = \"]\")]\n{tests}")),
            1
        );
        assert_eq!(counted_lines("#[cfg(test)]\nmod tests;\na\n"), 3);
        assert_eq!(counted_lines(&format!("// #[cfg(test)]\n{tests}")), 5);
    }
}
