//! What Bellrope may cost: the bounds in budgets.toml, and what is there now.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    found::Found,
    metadata::{self, cargo, output},
    sources,
};

/// What is to be measured, beside the number of crates.
#[derive(Debug, Default, Clone)]
pub struct Measure {
    /// The program of a release build; else the one that cargo would build, if it is there.
    pub program: Option<PathBuf>,
    /// Whether what cannot be measured is a fault.
    pub require: bool,
    /// Whether a cold build is timed. That takes minutes.
    pub cold_build: bool,
}

/// budgets.toml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budgets {
    /// By package of the workspace: the crates in its tree, itself among them.
    crates: BTreeMap<String, u64>,
    program: Program,
    memory: Memory,
    instructions: Instructions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    stripped_bytes: u64,
}

/// Resident memory of a server's process, in KiB.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    idle_kib: u64,
    hundred_busy_connections_kib: u64,
    thousand_idle_connections_kib: u64,
    thousand_busy_connections_kib: u64,
}

/// Read by scripts/instructions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Instructions {
    worse_percent: u64,
}

/// A budget, and what it is held against.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    key: String,
    found: u64,
    at_most: u64,
}

impl Budgets {
    fn read(root: &Path) -> anyhow::Result<Self> {
        toml::from_str(&sources::text(&root.join("budgets.toml"))?).context("in budgets.toml")
    }
}

impl Held {
    fn line(&self) -> String {
        format!("{}: {}, at most {}", self.key, self.found, self.at_most)
    }

    fn fault(&self) -> Option<String> {
        (self.found > self.at_most).then(|| {
            format!(
                "{} is {}, over its budget of {}. Reduce it, or raise the budget in budgets.toml in a commit of its own \
                 that says why",
                self.key, self.found, self.at_most
            )
        })
    }
}

/// Holds everything that can be measured here against its budget.
///
/// # Errors
/// budgets.toml is wrong, or cargo or the program fails.
pub fn check(root: &Path, measure: &Measure) -> anyhow::Result<Found> {
    let budgets = Budgets::read(root)?;
    let mut held = held_crates(root, &budgets)?;
    let mut skipped = Vec::new();
    let program = program(root, measure)?;
    let is_built = program.is_some();
    match program {
        Some(program) => {
            match stripped_bytes(&program)? {
                Some(found) => {
                    let key = "program.stripped_bytes".to_owned();
                    held.push(Held { key, found, at_most: budgets.program.stripped_bytes });
                }
                None => skipped.push("size of the stripped program: there is no strip"),
            }
            held.extend(held_memory(&program, &budgets.memory)?);
        }
        None => skipped.push("size and memory of the program: there is no release build (cargo build --release)"),
    }
    let mut found = Found::new(format!("{} budgets", held.len()), held.iter().filter_map(Held::fault).collect());
    found.notes.extend(held.iter().map(Held::line));
    if !is_there("valgrind") {
        skipped.push("instructions of a call: there is no valgrind");
    } else if !is_built {
        skipped.push("instructions of a call: they need a release build, which this check does not begin");
    } else {
        let counted = Command::new(root.join("scripts/instructions")).current_dir(root).stdin(Stdio::null()).output();
        let counted = counted.context("cannot start scripts/instructions")?;
        found.notes.extend(String::from_utf8_lossy(&counted.stdout).lines().map(str::to_owned));
        if !counted.status.success() {
            let told = String::from_utf8_lossy(&counted.stderr);
            let percent = budgets.instructions.worse_percent;
            found
                .faults
                .push(format!("a step has over {percent} % more instructions; its line is above. {}", told.trim()));
        }
    }
    let skipped = skipped.into_iter().map(|what| format!("skipped: {what}"));
    let told = if measure.require { &mut found.faults } else { &mut found.notes };
    told.extend(skipped);
    if measure.cold_build {
        found.notes.push(format!("cold release build: {} s (no budget)", cold_build_seconds(root)?));
    }
    Ok(found)
}

/// The trees of crates, which need no build to be counted.
///
/// # Errors
/// budgets.toml is wrong, or cargo cannot be asked.
pub fn crates_within(root: &Path) -> anyhow::Result<Vec<String>> {
    let held = held_crates(root, &Budgets::read(root)?)?;
    Ok(held.iter().filter_map(Held::fault).collect())
}

fn held_crates(root: &Path, budgets: &Budgets) -> anyhow::Result<Vec<Held>> {
    let held = budgets.crates.iter().map(|(package, at_most)| {
        let found = crates_in(&metadata::tree(root, package, &[])?);
        Ok(Held { key: format!("crates.{package}"), found, at_most: *at_most })
    });
    held.collect()
}

/// How many crates lines of `cargo tree` name, each counted once.
fn crates_in(tree: &str) -> u64 {
    let names: BTreeSet<Vec<&str>> = tree.lines().map(|line| line.split(' ').take(2).collect()).collect();
    names.len() as u64
}

/// The program to measure, if there is one.
fn program(root: &Path, measure: &Measure) -> anyhow::Result<Option<PathBuf>> {
    if let Some(program) = &measure.program {
        anyhow::ensure!(program.is_file(), "there is no program {}", program.display());
        return Ok(Some(program.clone()));
    }
    let told = output(Command::new("rustc").arg("-vV"))?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let host = told.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names its host")?;
    let program = root.join("target").join(host).join("release/bellrope");
    Ok(program.is_file().then_some(program))
}

/// The size of a stripped copy; nothing where there is no `strip`.
fn stripped_bytes(program: &Path) -> anyhow::Result<Option<u64>> {
    if !is_there("strip") {
        return Ok(None);
    }
    let folder = Folder::new("strip")?;
    let copy = folder.0.join("bellrope");
    output(Command::new("strip").arg("-o").arg(&copy).arg(program))?;
    Ok(Some(fs::metadata(&copy).context("strip writes the copy")?.len()))
}

/// Asks the program's own benchmark, up to three times as long as something is over its budget, and answers with the least of each:
/// how much of the program's file the kernel maps around a page that is touched depends on how it has that file in memory.
fn held_memory(program: &Path, budget: &Memory) -> anyhow::Result<[Held; 4]> {
    let counts = ["--connections", "100", "--connections", "1000"];
    let measured = || {
        let printed = output(Command::new(program).args(["bench", "memory", "--quick", "--json"]).args(counts))?;
        let report: Value = serde_json::from_slice(&printed.stdout).context("bench memory prints JSON")?;
        memory_in(&report, budget)
    };
    let mut least = measured()?;
    for _ in 1..3 {
        if least.iter().all(|held| held.fault().is_none()) {
            break;
        }
        for (least, found) in least.iter_mut().zip(measured()?) {
            least.found = least.found.min(found.found);
        }
    }
    Ok(least)
}

fn memory_in(report: &Value, budget: &Memory) -> anyhow::Result<[Held; 4]> {
    let held = |key: &str, value: &Value, at_most| {
        let found = value["rss_kb"].as_u64().with_context(|| format!("no memory in {report}"))?;
        anyhow::Ok(Held { key: format!("memory.{key}_kib"), found, at_most })
    };
    let [hundred, thousand] = [0, 1].map(|row| &report["rows"][row]);
    Ok([
        held("idle", &report["without"], budget.idle_kib)?,
        held("hundred_busy_connections", &hundred["busy"], budget.hundred_busy_connections_kib)?,
        held("thousand_idle_connections", &thousand["idle"], budget.thousand_idle_connections_kib)?,
        held("thousand_busy_connections", &thousand["busy"], budget.thousand_busy_connections_kib)?,
    ])
}

fn cold_build_seconds(root: &Path) -> anyhow::Result<u64> {
    let folder = Folder::new("cold")?;
    let start = Instant::now();
    let mut command = cargo();
    command.args(["build", "--release", "--locked", "--quiet", "--target-dir"]).arg(&folder.0).current_dir(root);
    output(&mut command)?;
    Ok(start.elapsed().as_secs())
}

/// Whether this command can be started.
fn is_there(command: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(command).is_file())
}

/// A folder of this process's own that goes away with this.
struct Folder(PathBuf);

impl Folder {
    fn new(purpose: &str) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("bellrope-xtask-{purpose}-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_crate_is_counted_once_and_each_version_by_itself() {
        let tree = "a v1.0.0 (/path)\nb v1.0.0\nc v2.0.0 (proc-macro)\nb v1.0.0 (*)\nb v2.0.0\n";
        assert_eq!(crates_in(tree), 4);
    }

    #[test]
    fn what_is_over_its_budget_is_a_fault_that_says_what_to_do() {
        let held = |found| Held { key: "crates.bellrope".to_owned(), found, at_most: 38 };
        assert_eq!(held(38).fault(), None);
        let fault = held(39).fault().unwrap();
        assert!(
            fault.contains("crates.bellrope is 39, over its budget of 38") && fault.contains("says why"),
            "{fault}"
        );
    }

    #[test]
    fn memory_is_read_from_what_the_benchmark_prints() {
        let budget = Memory {
            idle_kib: 2_000,
            hundred_busy_connections_kib: 3_072,
            thousand_idle_connections_kib: 2_800,
            thousand_busy_connections_kib: 8_000,
        };
        let report = json!({
            "without": { "rss_kb": 1_900, "anon_kb": 1 },
            "rows": [
                { "connections": 100, "idle": { "rss_kb": 5 }, "busy": { "rss_kb": 3_100, "cpu_percent": 1.0 } },
                { "connections": 1_000, "idle": { "rss_kb": 2_700 }, "busy": { "rss_kb": 8_001, "cpu_percent": 1.0 } },
            ],
        });
        let [idle, busy, many_idle, many_busy] = memory_in(&report, &budget).unwrap();
        assert_eq!((idle.found, idle.fault()), (1_900, None));
        assert_eq!((busy.found, busy.fault().is_some()), (3_100, true));
        assert_eq!((many_idle.found, many_idle.fault()), (2_700, None));
        assert_eq!((many_busy.found, many_busy.fault().is_some()), (8_001, true));
        assert!(memory_in(&json!({}), &budget).is_err());
    }
}
