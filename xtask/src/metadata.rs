//! What cargo says about the workspace.

use std::{
    ffi::OsString,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// The packages of the workspace in this folder and what they depend on directly.
pub(crate) fn of_workspace(root: &Path) -> anyhow::Result<Value> {
    of(&root.join("Cargo.toml"))
}

/// The packages of the workspace that this manifest belongs to.
pub(crate) fn of(manifest: &Path) -> anyhow::Result<Value> {
    let mut command = cargo();
    command.args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"]).arg(manifest);
    serde_json::from_slice(&output(&mut command)?.stdout).context("cargo metadata prints JSON")
}

/// The list of packages in what [`of`] returned.
pub(crate) fn packages(metadata: &Value) -> anyhow::Result<&[Value]> {
    list(metadata, "packages")
}

/// What one of the packages depends on.
pub(crate) fn dependencies(package: &Value) -> anyhow::Result<&[Value]> {
    list(package, "dependencies")
}

fn list<'a>(value: &'a Value, key: &str) -> anyhow::Result<&'a [Value]> {
    Ok(value[key].as_array().with_context(|| format!("`{key}` is a list in {value}"))?)
}

/// The text of this key.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> anyhow::Result<&'a str> {
    value[key].as_str().with_context(|| format!("`{key}` is text in {value}"))
}

/// The lines of `cargo tree` about a package of the workspace, one for each crate and each time it is there.
pub(crate) fn tree(root: &Path, package: &str, further: &[&str]) -> anyhow::Result<String> {
    let mut command = cargo();
    command.args(["tree", "--locked", "--package", package, "--edges", "normal", "--prefix", "none"]).args(further);
    String::from_utf8(output(command.current_dir(root))?.stdout).context("cargo tree prints text")
}

/// The cargo that started this program, or else the one of the path.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

/// What a command prints.
///
/// # Errors
/// It cannot be started, or fails; then its own words are in the error.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<Output> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output)
}
