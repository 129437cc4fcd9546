//! Every dependency has its reason in CONTRIBUTING.md, and every reason its dependency.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The crates from outside that a crate of the workspace names, for whatever purpose.
fn named_by_the_workspace() -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let dependencies = packages.iter().flat_map(|package| package["dependencies"].as_array().expect("a list"));
    // What has no source is of this workspace.
    dependencies.filter(|one| !one["source"].is_null()).map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

/// The crates in the first column of the table, each with the reason of its row.
fn reasons() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let section = text.split_once("\n## Dependencies").unwrap().1.split_once("\n## ").unwrap().0;
    // What stands apart from the workspace has a table of its own.
    let section = section.split("\n### ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.flat_map(|row| {
        let columns: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(columns.len(), 3, "a row names crates, their users and the reason: {row}");
        let names = columns[0].split('`').skip(1).step_by(2).map(str::to_owned);
        names.map(|name| (name, columns[2].to_owned())).collect::<Vec<_>>()
    })
    .collect()
}

#[test]
fn every_dependency_has_its_reason_and_every_reason_its_dependency() {
    let (named, reasons) = (named_by_the_workspace(), reasons());
    assert!(named.len() > 30 && reasons.len() > 30, "{named:?} {reasons:?}");
    let told: BTreeSet<String> = reasons.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(told.len(), reasons.len(), "a crate has one row: {reasons:?}");
    let without: Vec<_> = named.difference(&told).collect();
    assert!(without.is_empty(), "no reason in CONTRIBUTING.md for {without:?}: add a row, or do without the crate");
    let gone: Vec<_> = told.difference(&named).collect();
    assert!(gone.is_empty(), "CONTRIBUTING.md has a row for {gone:?}, which nothing depends on: remove it");
    for (name, reason) in reasons {
        assert!(reason.split_whitespace().count() >= 4, "{name}: {reason:?} is no reason");
    }
}

#[test]
fn a_program_without_spans_has_nothing_of_what_sends_them() {
    let crates = |features: &[&str]| {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--package", "bellrope-cli", "--edges", "normal", "--prefix", "none"])
            .args(features)
            .current_dir(root())
            .output()
            .expect("cargo can be started");
        assert!(output.status.success(), "cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let sends = |tree: &str| tree.contains("opentelemetry") || tree.contains("\nprost ");
    assert!(!sends(&crates(&[])));
    assert!(sends(&crates(&["--features", "otlp"])));
}
