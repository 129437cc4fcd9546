//! What `bellrope serve` is told: flags before the environment, before the configuration file, before the defaults.
//!
//! Every value keeps its [`Origin`], so that an error, and `bellrope config show`, can name the place to change.

mod layers;
mod schema;

use std::{
    cell::RefCell,
    ffi::{OsStr, OsString},
    fmt, io,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
};

use bellrope::{BindError, BreakerSetting, ServerConfig, default_socket_path};
use bellrope_gateway::{ConfigError, Gateway, GatewaySettings, MAX_CHUNK, ProviderConfig};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use layers::Layers;
pub(crate) use layers::{Origin, Origins};
use schema::{Key, flatten, shown};

use crate::{
    logging::{self, LogFormat},
    socket::{SocketArg, VARIABLE},
};

/// The rings have to hold the gateway's chunks, which have at most a quarter of one.
const MIN_RING_BYTES: usize = 4 * MAX_CHUNK;

/// Where settings come from, apart from the environment.
#[derive(Debug, Default, Clone, Args)]
pub(crate) struct SettingsArgs {
    #[command(flatten)]
    pub(crate) server: SocketArg,
    /// The AI provider that answers requests which name none [default: embedded].
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
    /// Serve health and metrics over HTTP at this address [default: not at all].
    #[arg(long, value_name = "HOST:PORT", value_parser = address_text)]
    pub(crate) health: Option<String>,
    /// Serve OpenAI's chat completions to programs of this machine on this port; 0 for any free one [default: not at all].
    #[arg(long, value_name = "PORT")]
    pub(crate) openai_port: Option<u16>,
    /// Connections open at once [default: 10000].
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_connections: Option<u32>,
    /// Worker threads; 0 for one for every four CPUs [default: 0].
    #[arg(long, value_name = "COUNT")]
    pub(crate) workers: Option<u32>,
    /// How much is logged: error, warn, info, debug, trace, or pairs such as bellrope=debug [default: info].
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log: Option<String>,
    /// How it is logged [default: pretty].
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// Any other key of the configuration, as in `server.max_in_flight=64`. May be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<(String, String)>,
    /// A configuration file.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// All that a server needs to know.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) socket: PathBuf,
    /// Where to serve health; absent for not at all.
    pub(crate) health: Option<SocketAddr>,
    /// The port of OpenAI's API on the loopback address; absent for not at all.
    pub(crate) openai_port: Option<u16>,
    /// How much is logged. It can be.
    pub(crate) log: String,
    pub(crate) log_format: LogFormat,
    /// The OpenTelemetry collector that spans are sent to; absent for none.
    pub(crate) otlp_endpoint: Option<String>,
    pub(crate) server: ServerConfig,
    pub(crate) gateway: GatewaySettings,
    pub(crate) origins: Origins,
    /// All of it, as the configuration file would say it.
    document: Value,
}

/// The configuration file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Document {
    socket: Option<PathBuf>,
    health: Option<String>,
    openai_port: Option<u16>,
    log: String,
    log_format: LogFormat,
    otlp_endpoint: Option<String>,
    server: ServerConfig,
    gateway: GatewaySettings,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            socket: None,
            health: None,
            openai_port: None,
            log: "info".to_owned(),
            log_format: LogFormat::default(),
            otlp_endpoint: None,
            server: ServerConfig::default(),
            gateway: GatewaySettings::default(),
        }
    }
}

/// Everything that is wrong with the settings, each with its place and its mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Faults(pub(crate) Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// A setting with its origin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

impl Settings {
    /// Reads the environment and the configuration file, if there is one.
    pub(crate) fn load(args: &SettingsArgs) -> Result<Self, Faults> {
        Self::resolve(args, &std::env::vars_os().collect::<Vec<_>>())
    }

    /// Reads a configuration file alone, as if nothing else said anything.
    pub(crate) fn of_file(path: PathBuf) -> Result<Self, Faults> {
        Self::resolve(&SettingsArgs { config: Some(path), ..SettingsArgs::default() }, &[])
    }

    fn resolve(args: &SettingsArgs, vars: &[(OsString, OsString)]) -> Result<Self, Faults> {
        let var = |name: &str| vars.iter().find(|(other, value)| other == name && !value.is_empty());
        let mut layers = Layers::new();
        let path = args.config.clone().or_else(|| var(layers::CONFIG).map(|(_, path)| path.into()));
        if let Some(path) = &path {
            layers.file(path);
        }
        layers.variables(vars);
        args.add_to(&mut layers);
        let Layers { values, origins, faults, .. } = layers;
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        let document: Document = serde_path_to_error::deserialize(toml::Value::Table(values)).map_err(|error| {
            let key = error.path().iter().map(|segment| segment.to_string()).collect::<Vec<_>>();
            Faults(vec![format!("{}: {}", origins.naming(&key), error.inner().message())])
        })?;
        let raw_socket = args.server.socket.clone().or_else(|| var(VARIABLE).map(|(_, path)| path.into()));
        let socket = raw_socket.or_else(|| document.socket.clone()).unwrap_or_else(default_socket_path);
        Self::checked(document, socket, origins)
    }

    fn checked(document: Document, socket: PathBuf, origins: Origins) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        let naming = |key: &str| origins.naming(&key.split('.').map(str::to_owned).collect::<Vec<_>>());
        let health = document.health.as_deref().and_then(|text| match address(text) {
            Ok(address) => Some(address),
            Err(fault) => {
                faults.push(format!("{} is {text:?}: {fault}", naming("health")));
                None
            }
        });
        if let Err(mend) = logging::filter(&document.log) {
            faults.push(format!("{} is {:?}; {mend}", naming("log"), document.log));
        }
        if let Some(endpoint) = &document.otlp_endpoint
            && let Err(fault) = logging::check_collector(endpoint)
        {
            faults.push(format!("{} is {endpoint:?}: {fault}", naming("otlp_endpoint")));
        }
        let ring_bytes = document.server.ring_bytes;
        if let Err(BreakerSetting { key, value, expected }) = document.server.breaker.check() {
            faults.push(format!("{} is {value}, {expected}", naming(&format!("server.breaker.{key}"))));
        }
        match document.server.check() {
            // Said already.
            Err(_) if !faults.is_empty() => {}
            Err(BindError::Setting { key, value, expected }) => {
                faults.push(format!("{} is {value}, {expected}", naming(&format!("server.{key}"))));
            }
            Err(error) => faults.push(error.to_string()),
            Ok(()) if (ring_bytes as usize) < MIN_RING_BYTES => {
                let key = naming("server.ring_bytes");
                faults.push(format!("{key} is {ring_bytes}; the AI gateway needs at least {MIN_RING_BYTES}"));
            }
            Ok(()) => {}
        }
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        // Plain structs with text keys: writing them cannot fail.
        let mut written = serde_json::to_value(&document).unwrap_or_default();
        written["socket"] = socket.to_string_lossy().into();
        let Document { openai_port, log, log_format, otlp_endpoint, server, gateway, .. } = document;
        Ok(Self {
            socket,
            health,
            openai_port,
            log,
            log_format,
            otlp_endpoint,
            server,
            gateway,
            origins,
            document: written,
        })
    }

    /// The providers that these settings describe. Makes no connection.
    pub(crate) fn gateway(&self) -> Result<Gateway, Faults> {
        Gateway::from_settings(self.gateway.clone()).map_err(|error| {
            let key = match &error {
                ConfigError::UnknownProvider { .. } => "gateway.provider".to_owned(),
                ConfigError::Invalid { key, .. } => key.to_string(),
                _ => return Faults(vec![error.to_string()]),
            };
            let key: Key = key.split('.').map(str::to_owned).collect();
            match self.origins.of(&key) {
                Origin::Default => Faults(vec![error.to_string()]),
                Origin::File { .. } if matches!(error, ConfigError::UnknownProvider { .. }) => {
                    Faults(vec![format!("{}: {error}", self.origins.naming(&key))])
                }
                origin => Faults(vec![format!("{origin}: {error}")]),
            }
        })
    }

    /// Every setting with its origin, in the order of the sections. What is absent is null.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        flatten(&self.document, &mut Key::new(), &mut |key, value| {
            // The short section of a provider that is not there.
            if key != ["gateway", "openai"] {
                entries.push(Entry { key: shown(key), value: value.clone(), origin: self.origins.of(key) });
            }
        });
        // Simple keys first, then the sections.
        entries.sort_by_key(|entry| entry.key.contains('.'));
        entries
    }

    /// What the providers take from variables of their own, such as `OPENAI_BASE_URL`, which come before all of this. Of
    /// a key only where it comes from.
    pub(crate) fn providers_own(&self, var: impl Fn(&str) -> Option<String>) -> Vec<Entry> {
        let gateway = Gateway::from_settings_and_vars(self.gateway.clone(), &var);
        let mut entries = Vec::new();
        for name in gateway.map(|gateway| gateway.names()).unwrap_or_default() {
            let short = self.gateway.openai.as_ref().filter(|_| name == "openai");
            let plain = short.or_else(|| self.gateway.providers.get(&name)).cloned().unwrap_or_default();
            let asked = RefCell::new(Vec::new());
            let _ = plain.clone().with_vars(&name, |variable| {
                asked.borrow_mut().push(variable.to_owned());
                var(variable)
            });
            let written = |config: &ProviderConfig| serde_json::to_value(config).unwrap_or_default();
            for variable in asked.into_inner() {
                // What this one alone changes.
                let changed = plain.clone().with_vars(&name, |other| var(other).filter(|_| other == variable));
                let entry = |key: &str, value: Value| {
                    let section = if short.is_some() { &["gateway"][..] } else { &["gateway", "providers"] };
                    let key: Key = section.iter().chain([&*name, key].iter()).map(|part| (*part).to_owned()).collect();
                    Entry { key: shown(&key), value, origin: Origin::Variable { name: variable.clone() } }
                };
                if changed.api_key.is_some() {
                    entries.push(entry("api_key", "(hidden)".into()));
                }
                let (before, after) = (written(&plain), written(&changed));
                let fields = after.as_object().into_iter().flatten();
                entries.extend(
                    fields.filter(|(key, value)| before[*key] != **value).map(|(key, value)| entry(key, value.clone())),
                );
            }
        }
        entries
    }
}

impl SettingsArgs {
    fn add_to(&self, layers: &mut Layers) {
        let number = |number: Option<u32>| number.map(|number| number.to_string());
        let flags: [(&str, &[&str], Option<OsString>); 8] = [
            ("--socket", &["socket"], self.server.socket.as_ref().map(|path| path.as_os_str().to_owned())),
            ("--provider", &["gateway", "provider"], self.provider.as_ref().map(OsString::from)),
            ("--health", &["health"], self.health.as_ref().map(OsString::from)),
            ("--openai-port", &["openai_port"], number(self.openai_port.map(u32::from)).map(OsString::from)),
            ("--max-connections", &["server", "max_connections"], number(self.max_connections).map(OsString::from)),
            ("--workers", &["server", "workers"], number(self.workers).map(OsString::from)),
            ("--log", &["log"], self.log.as_ref().map(OsString::from)),
            ("--log-format", &["log_format"], self.log_format.map(|format| format.name().into())),
        ];
        for (key, value) in &self.set {
            let key: Vec<_> = key.split('.').collect();
            layers.flag("--set", &key, OsStr::new(value));
        }
        for (name, key, value) in flags {
            if let Some(value) = value {
                layers.flag(name, key, &value);
            }
        }
    }
}

/// An address to listen at, given as `HOST:PORT`.
fn address(text: &str) -> Result<SocketAddr, String> {
    let resolved = text.to_socket_addrs();
    let first = resolved.and_then(|mut all| all.next().ok_or_else(|| io::Error::other("the host has no address")));
    first.map_err(|error| format!("{error}; give HOST:PORT, as in 127.0.0.1:9090"))
}

fn address_text(text: &str) -> Result<String, String> {
    address(text).map(|_| text.to_owned())
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("give KEY=VALUE, as in server.max_in_flight=64")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::ffi::OsStringExt};

    use super::*;

    /// Settings from a file with this text, and from these variables.
    fn resolve(text: &str, vars: &[(&str, &str)], mut args: SettingsArgs) -> Result<Settings, Faults> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        args.config = Some(file.path().to_owned());
        let vars: Vec<_> = vars.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Settings::resolve(&args, &vars)
    }

    fn error(text: &str) -> String {
        resolve(text, &[], SettingsArgs::default()).unwrap_err().to_string()
    }

    fn error_of(vars: &[(&str, &str)]) -> String {
        resolve("", vars, SettingsArgs::default()).unwrap_err().to_string()
    }

    const FILE: &str = r#"
        socket = "/file.sock"
        health = "127.0.0.1:1"
        openai_port = 1
        log = "warn"
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
        ("BELLROPE_LOG", "debug"),
        ("BELLROPE_SERVER__MAX_CONNECTIONS", "8"),
    ];

    fn flags() -> SettingsArgs {
        SettingsArgs {
            server: SocketArg { socket: Some("/flag.sock".into()) },
            provider: Some("flag".into()),
            health: Some("127.0.0.1:3".into()),
            openai_port: Some(3),
            max_connections: Some(9),
            log: Some("error".into()),
            log_format: Some(LogFormat::Pretty),
            set: vec![("server.workers".into(), "2".into()), ("gateway.fallback".into(), "a,b".into())],
            ..SettingsArgs::default()
        }
    }

    #[test]
    fn flags_come_before_the_environment_before_the_file_before_the_defaults() {
        let none = SettingsArgs::default;
        let seen = [
            (resolve("", &[], none()), default_socket_path(), None, "embedded", 10_000, "info"),
            (resolve(FILE, &[], none()), "/file.sock".into(), Some(1), "file", 7, "warn"),
            (resolve(FILE, VARS, none()), "/env.sock".into(), Some(2), "env", 8, "debug"),
            (resolve(FILE, VARS, flags()), "/flag.sock".into(), Some(3), "flag", 9, "error"),
        ];
        for (settings, socket, port, provider, connections, log) in seen {
            let settings = settings.unwrap();
            assert_eq!(settings.socket, socket);
            assert_eq!(settings.health.map(|address| address.port()), port);
            assert_eq!(settings.openai_port, port);
            assert_eq!(settings.gateway.provider, provider);
            assert_eq!(settings.server.max_connections, connections);
            assert_eq!(settings.log, log);
        }
    }

    #[test]
    fn every_value_knows_where_it_came_from() {
        let settings = resolve(FILE, &VARS[3..], flags()).unwrap();
        let entries = settings.entries();
        let entry = |key: &str| entries.iter().find(|entry| entry.key == key).unwrap_or_else(|| panic!("no {key}"));
        let origin = |key: &str| entry(key).origin.to_string();
        assert_eq!(origin("openai_port"), "--openai-port");
        assert_eq!((origin("log_format"), &entry("log_format").value), ("--log-format".to_owned(), &"pretty".into()));
        assert_eq!(origin("server.workers"), "--set");
        assert_eq!(origin("server.breaker.timeout_ms"), "default");
        assert!(origin("gateway.embedded.tokens_per_second").ends_with(":11:9"));
        assert_eq!(entry("gateway.fallback").value, serde_json::json!(["a", "b"]));
        assert_eq!(entry("server.max_connections").value, 9);
        let settings = resolve(FILE, VARS, SettingsArgs::default()).unwrap();
        let entries = settings.entries();
        let origin = |key: &str| entries.iter().find(|entry| entry.key == key).unwrap().origin.to_string();
        assert_eq!(origin("server.max_connections"), "BELLROPE_SERVER__MAX_CONNECTIONS");
        assert_eq!(origin("gateway.provider"), "BELLROPE_PROVIDER");
    }

    #[test]
    fn every_key_can_be_set_by_the_environment() {
        let vars = [
            ("BELLROPE_SERVER__BREAKER__TIMEOUT_MS", "5"),
            ("BELLROPE_SERVER__SPIN", "never"),
            ("BELLROPE_GATEWAY__PROVIDERS__WORK__MODEL", "7"),
            ("BELLROPE_GATEWAY__PROVIDERS__WORK__KIND", "anthropic"),
            ("BELLROPE_GATEWAY__EMBEDDED__TOKENS", "3"),
            ("BELLROPE_GATEWAY__EMBEDDED__SCRIPT", r#"[{ kind = "text", text = "x" }]"#),
            ("BELLROPE_LOG_FORMAT", "json"),
            ("RUST_LOG", "trace"),
            ("BELLROPE_HEALTH", " "),
        ];
        let settings = resolve("[gateway.providers.work]\nmax_retries = 1", &vars, SettingsArgs::default()).unwrap();
        assert_eq!(settings.server.breaker.timeout_ms, 5);
        assert_eq!(settings.gateway.providers["work"].model.as_deref(), Some("7"));
        assert_eq!(settings.gateway.providers["work"].max_retries, 1);
        assert_eq!(settings.gateway.embedded.tokens, Some(3));
        assert_eq!(settings.gateway.embedded.script.len(), 1);
        assert_eq!((settings.log_format, &*settings.log), (LogFormat::Json, "trace"));
    }

    #[test]
    fn unknown_keys_are_refused_all_at_once_with_their_place_and_what_was_meant() {
        let text = error("privider = \"x\"\n[server]\nmax_conections = 3\n");
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].contains(":1:1: unknown key `privider`; known: "), "{text}");
        assert!(lines[1].ends_with(":3:1: unknown key `server.max_conections`; did you mean `max_connections`?"));
        assert_eq!(
            error_of(&[("BELLROPE_SERVER__MAX_CONECTIONS", "1"), ("BELLROPE_HELTH", "x")]),
            "BELLROPE_SERVER__MAX_CONECTIONS: unknown key `server.max_conections`; did you mean `max_connections`?\n\
             BELLROPE_HELTH is no setting; did you mean BELLROPE_HEALTH?"
        );
        assert_eq!(
            error_of(&[("BELLROPE_SERVER_MAX_CONNECTIONS", "1")]),
            "BELLROPE_SERVER_MAX_CONNECTIONS is no setting; did you mean BELLROPE_SERVER__MAX_CONNECTIONS?"
        );
        let args = SettingsArgs { set: vec![("server.worker".into(), "1".into())], ..SettingsArgs::default() };
        let text = resolve("", &[], args).unwrap_err().to_string();
        assert_eq!(text, "--set: unknown key `server.worker`; did you mean `workers`?");
        // What Kubernetes sets for a service of this name is nobody's misspelling.
        let vars = [("BELLROPE_PORT", "tcp://10.0.0.1:9090"), ("BELLROPE_SERVICE_HOST", "10.0.0.1")];
        resolve("", &vars, SettingsArgs::default()).unwrap();
    }

    #[test]
    fn a_key_of_a_provider_in_the_file_is_refused_and_not_shown() {
        for text in [
            error("[gateway.openai]\napi_key = \"sk-123456\"\n"),
            error_of(&[("BELLROPE_GATEWAY__OPENAI__API_KEY", "sk-123456")]),
            error("sk-123456"),
        ] {
            assert!(!text.contains("123456"), "{text}");
        }
        let text = error("[gateway.openai]\napi_key = \"sk-123456\"\n");
        assert!(text.contains(":2:1: gateway.openai.api_key: `api_key` must name an environment variable"), "{text}");
    }

    #[test]
    fn settings_that_cannot_work_are_named_with_their_place_and_the_mend() {
        let text = error("health = \"nowhere\"");
        assert!(text.contains(":1:1: health is \"nowhere\"") && text.contains("as in 127.0.0.1:9090"), "{text}");
        let text = error_of(&[("BELLROPE_OPENAI_PORT", "http")]);
        assert_eq!(text, "BELLROPE_OPENAI_PORT is \"http\"; give a port, as in 8080");
        let text = error("[server]\nring_bytes = 4096\n");
        assert!(text.ends_with(":2:1: server.ring_bytes is 4096; the AI gateway needs at least 65536"), "{text}");
        let text = error("[server]\nmax_connections = \"many\"\n");
        assert!(text.contains(":2:1: server.max_connections: invalid type: string \"many\", expected u32"), "{text}");
        let text = error_of(&[("BELLROPE_SERVER__WORKERS", "all")]);
        assert_eq!(text, "BELLROPE_SERVER__WORKERS is \"all\"; give a number, as in 100");
        let text = error_of(&[("BELLROPE_SERVER__BREAKER__FAILURE_THRESHOLD", "0")]);
        assert_eq!(text, "BELLROPE_SERVER__BREAKER__FAILURE_THRESHOLD is 0, and must be at least 1");
        let text = error("[server]\nmax_in_flight = 0\n");
        assert!(text.ends_with(":2:1: server.max_in_flight is 0, and must be at least 1"), "{text}");
        let text = error_of(&[("RUST_LOG", "bellrope=loud")]);
        assert!(text.starts_with("RUST_LOG is \"bellrope=loud\"; set it to error, warn,"), "{text}");
        let args = SettingsArgs { config: Some("/nowhere/bell.toml".into()), ..SettingsArgs::default() };
        let text = Settings::resolve(&args, &[]).unwrap_err().to_string();
        assert!(text.starts_with("cannot read the configuration file /nowhere/bell.toml: No such file"), "{text}");
    }

    #[test]
    fn a_default_that_does_not_go_with_what_was_set_is_named_by_its_key() {
        let text = error("[server.breaker]\ntimeout_ms = 4000000000\n");
        let longest = ServerConfig::default().breaker.max_timeout_ms;
        assert_eq!(text, format!("server.breaker.max_timeout_ms is {longest}, and must be at least timeout_ms"));
    }

    #[test]
    fn a_section_where_a_value_stands_is_refused_whatever_source_has_it() {
        let vars = [("BELLROPE_SERVER__WORKERS", "1")];
        for vars in [&[][..], &vars] {
            let text = resolve("server = 3\n", vars, SettingsArgs::default()).unwrap_err().to_string();
            assert!(text.ends_with(":1:1: server is a section; give keys below [server]"), "{text}");
        }
        let text = error_of(&[("BELLROPE_SERVER", "3")]);
        assert_eq!(text, "BELLROPE_SERVER names a section; add __ and a key of it");
        let args = SettingsArgs { set: vec![("server.breaker".into(), "3".into())], ..SettingsArgs::default() };
        let text = resolve("", &[], args).unwrap_err().to_string();
        assert_eq!(text, "--set: server.breaker is a section; name a key of it");
        let text = error("\"a key\" = 1\n");
        assert!(text.contains(":1:1: unknown key `\"a key\"`; known: socket, "), "{text}");
    }

    #[test]
    fn a_path_may_hold_any_bytes_and_everything_else_is_text() {
        let odd = OsString::from_vec(b"/run/\xff.sock".to_vec());
        let from = |name: &str| Settings::resolve(&SettingsArgs::default(), &[(name.into(), odd.clone())]);
        let settings = from("BELLROPE_SOCKET").unwrap();
        assert_eq!(settings.socket, PathBuf::from(&odd));
        let entries = settings.entries();
        let socket = entries.iter().find(|entry| entry.key == "socket").unwrap();
        assert_eq!((&socket.value, &*socket.origin.to_string()), (&"/run/\u{fffd}.sock".into(), "BELLROPE_SOCKET"));
        let text = from("BELLROPE_LOG").unwrap_err().to_string();
        assert_eq!(text, "BELLROPE_LOG is \"/run/\\xFF.sock\", which is no text");
    }

    #[test]
    #[cfg(not(feature = "otlp"))]
    fn a_collector_is_refused_by_a_program_that_cannot_send_spans() {
        let text = error("otlp_endpoint = \"http://127.0.0.1:4318\"\n");
        let expected = ":1:1: otlp_endpoint is \"http://127.0.0.1:4318\": this program cannot send spans; build it with \
                        `--features otlp`, or leave the setting out";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn what_providers_take_from_variables_of_their_own_is_known_and_no_key_is_shown() {
        let settings = resolve("[gateway.providers.anthropic]\nmodel = \"m\"", &[], SettingsArgs::default()).unwrap();
        let vars =
            [("OPENAI_BASE_URL", "http://127.0.0.1:1"), ("ANTHROPIC_API_KEY", "sk-123456"), ("ANTHROPIC_MODEL", "n")];
        let own = settings.providers_own(|name| {
            vars.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        });
        let rows: Vec<_> = own
            .iter()
            .map(|entry| format!("{} = {} from {}", entry.key, entry.value.as_str().unwrap(), entry.origin))
            .collect();
        assert_eq!(
            rows,
            [
                "gateway.providers.anthropic.api_key = (hidden) from ANTHROPIC_API_KEY",
                "gateway.providers.anthropic.model = n from ANTHROPIC_MODEL",
                "gateway.providers.openai.base_url = http://127.0.0.1:1 from OPENAI_BASE_URL",
            ]
        );
    }

    #[test]
    fn a_provider_that_does_not_exist_is_named_with_what_chose_it() {
        let text = |text: &str, vars: &[(&str, &str)]| {
            resolve(text, vars, SettingsArgs::default()).unwrap().gateway().unwrap_err().to_string()
        };
        let told = text("", &[("BELLROPE_PROVIDER", "delphi")]);
        assert!(told.starts_with("BELLROPE_PROVIDER: ") && told.contains("`delphi`"), "{told}");
        let told = text("[gateway]\nprovider = \"delphi\"", &[]);
        assert!(told.contains(":2:1: gateway.provider: "), "{told}");
        let told = text("[gateway]\nfallback = [\"delphi\"]", &[]);
        assert!(told.contains(":2:1: gateway.fallback names `delphi`"), "{told}");
    }
}
