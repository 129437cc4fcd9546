//! Where the server lives, whether it is there, and whom it asks.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    time::Duration,
};

use bellrope::{Client, ClientConfig, ConnectError, shm::process};
use bellrope_gateway::{Gateway, HealthReport};

use super::Finding;
use crate::{operator::STATS, settings::Settings};

/// How long a running server may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long providers may take; a server asks all of them at once.
const PROVIDERS_PATIENCE: Duration = Duration::from_secs(20);

/// The directory of the socket: whoever can write there can put something else in its place.
pub(super) fn directory(socket: &Path) -> Finding {
    let check = "directory";
    let directory = match socket.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let shown = directory.display();
    let safe = "use a directory that belongs to you alone (mode 0700), or another --socket";
    let metadata = match fs::symlink_metadata(directory) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return match directory.parent().map(fs::metadata) {
                Some(Ok(parent)) if parent.is_dir() => {
                    Finding::ok(check, format!("{shown} is not there; a server makes it, with mode 0700"))
                }
                _ => Finding::fail(check, format!("{shown} is not there, nor the one above it"), "make that one first"),
            };
        }
        Err(error) => return Finding::fail(check, format!("{shown}: {error}"), safe),
    };
    let fault = if metadata.file_type().is_symlink() || !metadata.is_dir() {
        "is no directory"
    } else if metadata.uid() != process::user_id() {
        "belongs to another user"
    } else if metadata.mode() & 0o022 != 0 {
        "can be written by others"
    } else {
        return Finding::ok(check, format!("{shown} has mode {:04o} and is yours", metadata.mode() & 0o7777));
    };
    Finding::fail(check, format!("{shown} {fault}"), safe)
}

/// What is at the socket's path: nothing, a stale file, or a server, and then how that is.
pub(super) fn server(socket: &Path) -> Vec<Finding> {
    let (check, shown) = ("server", socket.display());
    match fs::symlink_metadata(socket) {
        Err(_) => return vec![Finding::ok(check, format!("none at {shown}; start one with `bellrope serve`"))],
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let mend = "remove it, or use another --socket";
            return vec![Finding::fail(check, format!("{shown} exists and is no socket"), mend)];
        }
        Ok(_) => {}
    }
    let mut config = ClientConfig::new(socket);
    config.call_timeout = PATIENCE;
    match Client::with(config) {
        Ok(client) => running(&client, socket),
        Err(ConnectError::NoServer { .. }) => vec![Finding::warn(
            check,
            format!("nobody listens at {shown}: a server that was killed left it"),
            "nothing to do: the next server clears it away",
        )],
        Err(error) => {
            vec![Finding::fail(check, error.to_string(), "see its log; a second server needs another --socket")]
        }
    }
}

fn running(client: &Client, socket: &Path) -> Vec<Finding> {
    let (check, shown) = ("server", socket.display());
    let types = client.message_types();
    let offers = |name: &str| types.iter().any(|(known, _)| known == name);
    if !offers(STATS) {
        let found = format!("it answers at {shown} with {} message types, and offers no {STATS}", types.len());
        return vec![Finding::warn(check, found, "start it anew with this version of `bellrope serve`")];
    }
    let health = client.call(STATS, b"").map_err(|error| error.to_string()).and_then(|answer| {
        let answer: serde_json::Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        let text = |key: &str| answer["health"][key].as_str().map(|text| text.escape_debug().to_string());
        Ok((text("status").unwrap_or_default(), text("reason")))
    });
    let mut findings = vec![match health {
        Ok((status, _)) if status == "healthy" => {
            Finding::ok(check, format!("healthy at {shown}, with {} message types", types.len()))
        }
        Ok((status, reason)) => {
            let reason = reason.unwrap_or_default();
            Finding::fail(check, format!("{status} at {shown}: {reason}"), "docs/operations.md has a table of these")
        }
        Err(error) => Finding::fail(check, format!("at {shown}: {error}"), "see its log; restart it if it stays so"),
    }];
    if offers("ai.health") {
        let answer = client.call_within("ai.health", b"", PROVIDERS_PATIENCE).map_err(|error| error.to_string());
        let report = answer.and_then(|answer| serde_json::from_slice(&answer).map_err(|error| error.to_string()));
        match report {
            Ok(report) => findings.extend(reported(&report)),
            Err(error) => findings.push(Finding::warn("providers", error, "see the server's log")),
        }
    }
    findings
}

/// Asks the providers that are set up here, without a server.
pub(super) fn providers(settings: &Settings) -> Vec<Finding> {
    let check = "providers";
    // What is wrong with the settings has been said.
    let Ok(gateway) = settings.gateway() else { return Vec::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = runtime.map(|runtime| {
        runtime.block_on(async { tokio::time::timeout(PROVIDERS_PATIENCE, Gateway::health(&gateway)).await })
    });
    match asked {
        Ok(Ok(report)) => reported(&report),
        Ok(Err(_)) => {
            vec![Finding::warn(check, format!("no answer within {PROVIDERS_PATIENCE:?}"), "look at the network")]
        }
        Err(error) => vec![Finding::warn(check, error.to_string(), "free some memory or descriptors")],
    }
}

/// Only the default provider must be there: others may merely be set up.
fn reported(report: &HealthReport) -> Vec<Finding> {
    let one = |provider: &bellrope_gateway::ProviderHealth| {
        let name = provider.provider.escape_debug();
        let Some(error) = provider.error.as_ref().filter(|_| !provider.healthy) else {
            return Finding::ok("provider", format!("{name} answers, in {} ms", provider.latency_ms));
        };
        let (found, mend) =
            (format!("{name}: {}", error.message.escape_debug()), "mend that, or choose another --provider");
        match provider.provider == report.default_provider {
            true => Finding::fail("provider", found, mend),
            false => Finding::warn("provider", found, "nothing, unless it is to be used"),
        }
    };
    report.providers.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::PermissionsExt, net::UnixListener};

    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_directory_that_others_can_write_and_a_stale_socket_are_found() {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("run").join("bell.sock");
        assert_eq!(directory(&socket).level, Level::Ok, "a server makes it");
        assert_eq!(directory(&home.path().join("no").join("run").join("bell.sock")).level, Level::Fail);
        fs::create_dir(home.path().join("run")).unwrap();
        fs::set_permissions(home.path().join("run"), fs::Permissions::from_mode(0o777)).unwrap();
        let finding = directory(&socket);
        assert!(finding.level == Level::Fail && finding.found.contains("can be written by others"), "{finding:?}");
        assert_eq!(server(&socket)[0].level, Level::Ok, "there is none");
        drop(UnixListener::bind(&socket).unwrap());
        let finding = &server(&socket)[0];
        assert!(finding.level == Level::Warn && finding.found.contains("nobody listens"), "{finding:?}");
        fs::remove_file(&socket).unwrap();
        fs::write(&socket, "precious").unwrap();
        assert_eq!(server(&socket)[0].level, Level::Fail);
    }
}
