//! What a figure depends on beside the code: the machine, the compiler, the versions of the peers.

use std::process::Command;

use serde::Serialize;

/// Peers whose versions are told, as Cargo.lock has them.
const PEERS: [&str; 6] = ["iceoryx2", "tokio", "tonic", "tarpc", "ipc-channel", "shmipc"];

/// Where and with what was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) kernel: String,
    pub(crate) rustc: &'static str,
    /// Cargo's profile.
    pub(crate) profile: &'static str,
    pub(crate) static_libc: bool,
    pub(crate) versions: Vec<(&'static str, String)>,
    /// Version of Node, where there is one.
    pub(crate) node: Option<String>,
}

impl Machine {
    pub(crate) fn here() -> Self {
        Self {
            date: said_by("date", &["-u", "+%Y-%m-%d"]),
            commit: said_by("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]),
            cpu: cpu_model(),
            cpus: bellrope_shm::process::online_cpus(),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            rustc: env!("BUILT_WITH"),
            profile: env!("BUILT_AS"),
            static_libc: cfg!(target_feature = "crt-static"),
            versions: PEERS.into_iter().map(|peer| (peer, locked(peer))).collect(),
            node: crate::pair::node_version(),
        }
    }
}

fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':')).map_or("unknown CPU", |(_, name)| name.trim()).to_owned()
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
    output.map_or_else(|| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The version of a package in Cargo.lock.
fn locked(package: &str) -> String {
    let lock = include_str!("../Cargo.lock");
    let name = format!("name = \"{package}\"\nversion = \"");
    let version = lock.find(&name).and_then(|at| lock[at + name.len()..].split('"').next());
    version.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_a_version() {
        for peer in PEERS {
            assert_ne!(locked(peer), "unknown", "{peer}");
        }
    }
}
