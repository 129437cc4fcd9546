//! Where the server lives, whether it is there, and whom it asks.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    time::Duration,
};

use bellrope::{
    Client,
    client::{ClientConfig, ConnectError},
    status::STATS,
};
use bellrope_gateway::{Gateway, HealthReport};
use bellrope_shm::process;

use super::finding::Finding;

/// How long a running server may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long providers may take; all of them are asked at once.
pub(super) const PROVIDERS_PATIENCE: Duration = Duration::from_secs(20);

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
            let fix = "use another --socket";
            return vec![Finding::fail(check, format!("{shown} exists and is no socket"), fix)];
        }
        Ok(_) => {}
    }
    let mut config = ClientConfig::new(socket);
    (config.connect_timeout, config.call_timeout) = (PATIENCE, PATIENCE);
    match Client::with(config) {
        Ok(client) => running(&client, socket),
        Err(ConnectError::NoServer { .. }) => vec![Finding::warn(
            check,
            format!("no server listens at {shown}: a server that was killed left it"),
            "nothing to do: the next server clears it away",
        )],
        Err(error) => {
            vec![Finding::fail(check, error.to_string(), "see its log; a second server needs another --socket")]
        }
    }
}

/// What to do about a server that says nothing of itself.
const NO_STATS: &str =
    "a program of your own says how it is with `ServerBuilder::operator`; an older `bellrope serve`: start it anew";

fn running(client: &Client, socket: &Path) -> Vec<Finding> {
    let (check, shown) = ("server", socket.display());
    let types = client.message_types();
    let offers = |name: &str| types.iter().any(|(known, _)| known == name);
    if !offers(STATS) {
        let found = format!("it answers at {shown} with {} message types, and offers no {STATS}", types.len());
        return vec![Finding::warn(check, found, NO_STATS)];
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
pub(super) fn providers(gateway: &Gateway, patience: Duration) -> Vec<Finding> {
    let check = "providers";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked =
        runtime.map(|runtime| runtime.block_on(async { tokio::time::timeout(patience, gateway.health()).await }));
    match asked {
        Ok(Ok(report)) => reported(&report),
        Ok(Err(_)) => {
            vec![Finding::warn(check, format!("no answer within {patience:?}"), "look at the network")]
        }
        Err(error) => vec![Finding::warn(check, error.to_string(), "free some memory or descriptors")],
    }
}

/// Only the default provider must be there: others may merely be set up.
fn reported(report: &HealthReport) -> Vec<Finding> {
    let one = |provider: &bellrope_gateway::ProviderHealth| {
        let name = provider.provider.escape_debug();
        let Some(error) = provider.error.as_ref().filter(|_| !provider.healthy) else {
            return Finding::ok("provider", format!("{name} answers, in {} ms", provider.latency.as_millis()));
        };
        let (found, fix) =
            (format!("{name}: {}", error.message.escape_debug()), "fix that, or choose another --provider");
        match provider.provider == report.default_provider {
            true => Finding::fail("provider", found, fix),
            false => Finding::warn("provider", found, "nothing, unless it is to be used"),
        }
    };
    report.providers.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::PermissionsExt, net::UnixListener};

    use bellrope::server::ServerBuilder;
    use bellrope_gateway::GatewaySettings;
    use bellrope_testkit::local_server::LocalServer;

    use super::super::finding::Level;
    use super::*;

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
        assert!(finding.level == Level::Warn && finding.found.contains("no server listens"), "{finding:?}");
        fs::remove_file(&socket).unwrap();
        fs::write(&socket, "precious").unwrap();
        assert_eq!(server(&socket)[0].level, Level::Fail);
    }

    #[test]
    fn a_place_that_is_no_directory_is_a_failure_and_a_bare_name_is_about_the_directory_one_is_in() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        let finding = directory(&file.join("bell.sock"));
        assert_eq!((finding.level, finding.found), (Level::Fail, format!("{} is no directory", file.display())));
        let finding = directory(&file.join("run").join("bell.sock"));
        assert!(
            finding.level == Level::Fail && finding.found.ends_with("Not a directory (os error 20)"),
            "{finding:?}"
        );
        let finding = directory(Path::new("bell.sock"));
        assert!(finding.found.starts_with(". ") && finding.found.contains(" mode "), "{finding:?}");
    }

    #[test]
    fn a_server_that_hangs_up_or_is_none_of_ours_is_told_of() {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("bell.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let found = std::thread::scope(|scope| {
            scope.spawn(|| drop(listener.accept()));
            server(&socket)
        });
        let [finding] = &found[..] else { panic!("{found:?}") };
        let begin = format!("the handshake with {} failed: ", socket.display());
        assert!(finding.level == Level::Fail && finding.found.starts_with(&begin), "{finding:?}");

        let other = LocalServer::echo();
        let found = server(&other.socket());
        let says = format!("it answers at {} with 1 message types, and offers no {STATS}", other.socket().display());
        assert_eq!(found, [Finding::warn("server", says, NO_STATS)]);
    }

    #[test]
    fn what_a_server_says_of_itself_and_of_its_providers_is_told_with_a_fix() {
        let answering = |health: &'static str, providers: &'static str| {
            let saying = |builder: ServerBuilder, name, text: &'static str| {
                builder.unary(name, move |_, reply| {
                    reply.put(text.as_bytes());
                    Ok(())
                })
            };
            let server = LocalServer::start(|builder| saying(saying(builder, STATS, health), "ai.health", providers));
            let found = super::server(&server.socket());
            let shown = server.socket().display().to_string();
            found.into_iter().map(|it| (it.level, it.check, it.found.replace(&shown, "HERE"))).collect::<Vec<_>>()
        };
        let full = r#"{"health": {"status": "full", "reason": "no place is left"}}"#;
        let lame = r#"{"version": 1, "default_provider": "a", "providers": [
            {"provider": "a", "healthy": false, "latency_ms": 1, "error": {"code": "upstream", "message": "deaf", "retryable": false}},
            {"provider": "b", "healthy": false, "latency_ms": 1, "error": {"code": "upstream", "message": "dumb", "retryable": false}},
            {"provider": "c", "healthy": true, "latency_ms": 7}]}"#;
        assert_eq!(
            answering(full, lame),
            [
                (Level::Fail, "server", "full at HERE: no place is left".to_owned()),
                (Level::Fail, "provider", "a: deaf".to_owned()),
                (Level::Warn, "provider", "b: dumb".to_owned()),
                (Level::Ok, "provider", "c answers, in 7 ms".to_owned()),
            ]
        );
        let odd = "expected ident at line 1 column 2".to_owned();
        assert_eq!(
            answering("none", "none"),
            [(Level::Fail, "server", format!("at HERE: {odd}")), (Level::Warn, "providers", odd)]
        );
    }

    #[test]
    fn a_provider_that_does_not_answer_is_not_waited_for_without_end() {
        // It takes connections, and nobody reads them.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", silent.local_addr().unwrap());
        let settings = serde_json::json!({"provider": "openai", "openai": {"base_url": url}});
        let settings: GatewaySettings = serde_json::from_value(settings).unwrap();
        let gateway = Gateway::from_settings_and_vars(settings, |_| None).unwrap();
        let found = providers(&gateway, Duration::from_millis(20));
        assert_eq!(found, [Finding::warn("providers", "no answer within 20ms", "look at the network")]);
    }
}
