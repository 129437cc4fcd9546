//! Every dependency has its reason in CONTRIBUTING.md, and every reason its dependency.

use std::{collections::BTreeSet, path::Path};

use anyhow::Context as _;

use crate::{
    found::Found,
    metadata::{self, dependencies, packages, text},
    sources,
};

/// Fewer dependencies or reasons than this mean that this check no longer finds them.
const FEWEST: usize = 30;

/// Compares the dependencies with their reasons, and looks whether spans cost a program that has none.
///
/// # Errors
/// Cargo cannot be asked, or CONTRIBUTING.md has no such table.
pub fn check(root: &Path) -> anyhow::Result<Found> {
    let named = named_by_the_workspace(root)?;
    let mut faults = every_dependency_has_its_reason(root)?;
    faults.extend(without_spans_nothing_sends_them(root)?);
    Ok(Found::new(format!("{} crates from outside", named.len()), faults))
}

/// Each dependency has a row in CONTRIBUTING.md, and each row a dependency.
///
/// # Errors
/// Cargo cannot be asked, or CONTRIBUTING.md has no such table.
pub fn every_dependency_has_its_reason(root: &Path) -> anyhow::Result<Vec<String>> {
    let (named, reasons) = (named_by_the_workspace(root)?, reasons(root)?);
    let mut faults = Vec::new();
    if named.len() <= FEWEST || reasons.len() <= FEWEST {
        faults.push(format!("only {} dependencies and {} reasons were found", named.len(), reasons.len()));
    }
    let told: BTreeSet<String> = reasons.iter().map(|(name, _)| name.clone()).collect();
    if told.len() != reasons.len() {
        faults.push(format!("a crate has one row: {reasons:?}"));
    }
    let without: Vec<_> = named.difference(&told).collect();
    if !without.is_empty() {
        faults.push(format!("no reason in CONTRIBUTING.md for {without:?}: add a row, or do without the crate"));
    }
    let gone: Vec<_> = told.difference(&named).collect();
    if !gone.is_empty() {
        faults.push(format!("CONTRIBUTING.md has a row for {gone:?}, which nothing depends on: remove it"));
    }
    let empty = reasons.iter().filter(|(_, reason)| reason.split_whitespace().count() < 4);
    faults.extend(empty.map(|(name, reason)| format!("{name}: {reason:?} is no reason")));
    Ok(faults)
}

/// A program without the feature for spans has nothing of what sends them.
///
/// # Errors
/// Cargo cannot be asked.
pub fn without_spans_nothing_sends_them(root: &Path) -> anyhow::Result<Vec<String>> {
    let sends = |further: &[&str]| -> anyhow::Result<bool> {
        let tree = metadata::tree(root, "bellrope-cli", further)?;
        Ok(tree.contains("opentelemetry") || tree.contains("\nprost "))
    };
    let mut faults = Vec::new();
    if sends(&[])? {
        faults.push("the program sends no spans without the feature `otlp`, but has what sends them".to_owned());
    }
    if !sends(&["--features", "otlp"])? {
        faults.push("with the feature `otlp` the program has nothing that sends spans".to_owned());
    }
    Ok(faults)
}

/// The crates from outside that a crate of the workspace names, for whatever purpose.
fn named_by_the_workspace(root: &Path) -> anyhow::Result<BTreeSet<String>> {
    let metadata = metadata::of_workspace(root)?;
    let mut named = BTreeSet::new();
    for package in packages(&metadata)? {
        for dependency in dependencies(package)? {
            // What has no source is of this workspace.
            if !dependency["source"].is_null() {
                named.insert(text(dependency, "name")?.to_owned());
            }
        }
    }
    Ok(named)
}

/// The crates in the first column of the table, each with the reason of its row.
fn reasons(root: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let text = sources::text(&root.join("CONTRIBUTING.md"))?;
    let (_, section) = text.split_once("\n## Dependencies").context("CONTRIBUTING.md has a section Dependencies")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    // What stands apart from the workspace has a table of its own.
    let section = section.split("\n### ").next().unwrap_or_default();
    let mut reasons = Vec::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let columns: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [names, _, reason] = columns[..] else {
            anyhow::bail!("a row names crates, their users and the reason: {row}");
        };
        reasons.extend(names.split('`').skip(1).step_by(2).map(|name| (name.to_owned(), reason.to_owned())));
    }
    Ok(reasons)
}
