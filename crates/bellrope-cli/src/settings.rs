//! What `bellrope serve` is told: flags before the environment, before the configuration file, before the defaults.

use std::{
    ffi::OsString,
    net::{SocketAddr, ToSocketAddrs},
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, ensure};
use bellrope::{ServerConfig, default_socket_path};
use bellrope_gateway::{GatewaySettings, MAX_CHUNK};
use serde::Deserialize;

use crate::{
    serve::ServeArgs,
    socket::{self, environment},
};

/// The rings have to hold the gateway's chunks, which have at most a quarter of one.
const MIN_RING_BYTES: usize = 4 * MAX_CHUNK;

/// All that a server needs to know.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) socket: PathBuf,
    /// Where to serve health; absent for not at all.
    pub(crate) health: Option<SocketAddr>,
    /// The port of OpenAI's API on the loopback address; absent for not at all.
    pub(crate) openai_port: Option<u16>,
    pub(crate) server: ServerConfig,
    pub(crate) gateway: GatewaySettings,
    /// What named the default provider, for an error about it.
    pub(crate) provider_from: String,
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    socket: Option<PathBuf>,
    health: Option<String>,
    openai_port: Option<u16>,
    server: ServerConfig,
    gateway: GatewaySettings,
}

impl Settings {
    /// Reads the environment and the configuration file, if there is one.
    pub(crate) fn load(args: &ServeArgs) -> anyhow::Result<Self> {
        Self::resolve(args, environment)
    }

    fn resolve(args: &ServeArgs, vars: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<Self> {
        let path = args.config.clone().or_else(|| vars("BELLROPE_CONFIG").map(PathBuf::from));
        let File { socket, health, openai_port, server, mut gateway } = match &path {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let in_file = |key: &str| path.as_ref().map_or(key.to_owned(), |path| format!("{}: {key}", path.display()));

        let mut provider_from = in_file("gateway.provider");
        if let Some(name) = &args.provider {
            (gateway.provider, provider_from) = (name.clone(), "--provider".to_owned());
        } else if let Some(name) = vars("BELLROPE_PROVIDER") {
            let name = name.into_string().map_err(|name| anyhow!("BELLROPE_PROVIDER is {name:?}, which is no text"))?;
            (gateway.provider, provider_from) = (name, "BELLROPE_PROVIDER".to_owned());
        }

        let health = match (args.health, vars("BELLROPE_HEALTH"), health) {
            (Some(address), ..) => Some(address),
            (None, Some(text), _) => Some(named_address("BELLROPE_HEALTH", &text.to_string_lossy())?),
            (None, None, Some(text)) => Some(named_address(&in_file("health"), &text)?),
            (None, None, None) => None,
        };

        let openai_port = match (args.openai_port, vars("BELLROPE_OPENAI_PORT")) {
            (Some(port), _) => Some(port),
            (None, Some(text)) => {
                let port = text.to_str().and_then(|text| text.parse().ok());
                Some(port.ok_or_else(|| anyhow!("BELLROPE_OPENAI_PORT is {text:?}; give a port, as in 8080"))?)
            }
            (None, None) => openai_port,
        };

        let flag = args.server.socket.clone();
        let socket = flag.or_else(|| vars(socket::VARIABLE).map(PathBuf::from)).or(socket);

        let ring_bytes = server.ring_bytes;
        ensure!(
            ring_bytes as usize >= MIN_RING_BYTES,
            "{} is {ring_bytes}; the AI gateway needs at least {MIN_RING_BYTES}",
            in_file("server.ring_bytes")
        );
        let socket = socket.unwrap_or_else(default_socket_path);
        Ok(Self { socket, health, openai_port, server, gateway, provider_from })
    }
}

/// An address to listen at, given as `HOST:PORT`.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let fault = match text.to_socket_addrs() {
        Ok(mut addresses) => match addresses.next() {
            Some(address) => return Ok(address),
            None => "the host has no address".to_owned(),
        },
        Err(error) => error.to_string(),
    };
    Err(format!("{fault}; give HOST:PORT, as in 127.0.0.1:9090"))
}

fn named_address(key: &str, text: &str) -> anyhow::Result<SocketAddr> {
    address(text).map_err(|fault| anyhow!("{key} is {text:?}: {fault}"))
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
    toml::from_str(&text).map_err(|error| {
        // Not the error's own form, which quotes the line: a key that does not belong there may stand in it.
        let at = error.span().map(|span| place(&text, &span)).unwrap_or_default();
        anyhow!("{}{at}: {}", path.display(), error.message())
    })
}

/// Line and column where `span` starts, counted from 1.
fn place(text: &str, span: &Range<usize>) -> String {
    let before = &text.as_bytes()[..span.start.min(text.len())];
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    let column = 1 + before.iter().rev().take_while(|byte| **byte != b'\n').count();
    format!(":{line}:{column}")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::socket::SocketArg;

    /// Settings from a file with this text, and from these variables.
    fn resolve(text: &str, vars: &[(&str, &str)], mut args: ServeArgs) -> anyhow::Result<Settings> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        args.config = Some(file.path().to_owned());
        let set = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        Settings::resolve(&args, set)
    }

    fn error(text: &str) -> String {
        format!("{:#}", resolve(text, &[], ServeArgs::default()).unwrap_err())
    }

    const FILE: &str = r#"
        socket = "/file.sock"
        health = "127.0.0.1:1"
        openai_port = 1
        [server]
        max_connections = 7
        [gateway]
        provider = "file"
        [gateway.embedded]
        tokens_per_second = 9
    "#;
    const VARS: &[(&str, &str)] = &[
        ("BELLROPE_SOCKET", "/env.sock"),
        ("BELLROPE_HEALTH", "127.0.0.1:2"),
        ("BELLROPE_PROVIDER", "env"),
        ("BELLROPE_OPENAI_PORT", "2"),
    ];

    #[test]
    fn flags_come_before_the_environment_before_the_file_before_the_defaults() {
        let flags = ServeArgs {
            server: SocketArg { socket: Some("/flag.sock".into()) },
            provider: Some("flag".into()),
            health: Some(([127, 0, 0, 1], 3).into()),
            openai_port: Some(3),
            config: None,
        };
        let seen = [
            (resolve("", &[], ServeArgs::default()), default_socket_path(), None, "embedded"),
            (resolve(FILE, &[], ServeArgs::default()), "/file.sock".into(), Some(1), "file"),
            (resolve(FILE, VARS, ServeArgs::default()), "/env.sock".into(), Some(2), "env"),
            (resolve(FILE, VARS, flags), "/flag.sock".into(), Some(3), "flag"),
        ];
        for (settings, socket, port, provider) in seen {
            let settings = settings.unwrap();
            assert_eq!(settings.socket, socket);
            assert_eq!(settings.health.map(|address| address.port()), port);
            assert_eq!(settings.openai_port, port);
            assert_eq!(settings.gateway.provider, provider);
        }
    }

    #[test]
    fn the_sections_are_those_of_server_and_gateway() {
        let settings = resolve(FILE, &[], ServeArgs::default()).unwrap();
        assert_eq!(settings.server.max_connections, 7);
        assert_eq!(settings.gateway.embedded.tokens_per_second, 9);
        assert!(settings.provider_from.ends_with(": gateway.provider"), "{}", settings.provider_from);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place_and_the_known_ones() {
        let text = error("[server]\nmax_conections = 3\n");
        assert!(text.contains(":2:1: unknown field `max_conections`, expected one of"), "{text}");
        assert!(text.contains("`max_connections`"), "{text}");
        let text = error("privider = \"x\"");
        assert!(text.contains(":1:1: unknown field `privider`") && text.contains("`gateway`"), "{text}");
    }

    #[test]
    fn a_key_of_a_provider_in_the_file_is_refused_and_not_shown() {
        let text = error("[gateway.openai]\napi_key = \"sk-123456\"\n");
        assert!(
            text.contains("`api_key` must name an environment variable") && text.contains("`api_key_file`"),
            "{text}"
        );
        assert!(!text.contains("123456"), "{text}");
    }

    #[test]
    fn settings_that_cannot_work_are_named_with_the_mend() {
        let text = error("health = \"nowhere\"");
        assert!(text.contains("health is \"nowhere\"") && text.contains("as in 127.0.0.1:9090"), "{text}");
        let vars = [("BELLROPE_OPENAI_PORT", "http")];
        let text = resolve("", &vars, ServeArgs::default()).unwrap_err().to_string();
        assert_eq!(text, "BELLROPE_OPENAI_PORT is \"http\"; give a port, as in 8080");
        let text = error("[server]\nring_bytes = 4096\n");
        assert!(text.ends_with("server.ring_bytes is 4096; the AI gateway needs at least 65536"), "{text}");
        let args = ServeArgs { config: Some("/nowhere/bell.toml".into()), ..ServeArgs::default() };
        let text = format!("{:#}", Settings::resolve(&args, |_| None).unwrap_err());
        assert!(text.starts_with("cannot read the configuration file /nowhere/bell.toml: No such file"), "{text}");
    }
}
