//! What `bellrope serve` is told: flags before the environment, before the configuration file, before the defaults.
//!
//! Every value keeps its [`Origin`], so that an error, and `bellrope config show`, can name the place to change.

pub(crate) mod check;
mod checks;
mod document;
mod fleet;
mod gathered;
mod given;
mod layers;
mod schema;

use std::{
    cell::RefCell,
    ffi::{OsStr, OsString},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use bellrope::{default_socket_path, server::ServerConfig};
use bellrope_books::{BookSettings, Budget, Tokens, default_books_path, default_tokens_path};
use bellrope_gateway::{ConfigError, Gateway, GatewaySettings, ProviderConfig};
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use toml::Table;

use document::{Document, TokenSettings};
pub(crate) use fleet::FleetArgs;
pub(crate) use gathered::Faults;
use gathered::{Fault, gather};
use given::{address, address_text, assignment, time};
use layers::Layers;
pub(crate) use layers::{CONFIG, LOCAL_MODELS, NO_SPAWN, Origin, Origins, ours as variables};
use schema::{Key, flatten, parts, shown};

use crate::{
    logging::LogFormat,
    serve::API_PORT_MEMORY,
    socket::{SocketArg, VARIABLE},
    state,
};

/// The path of a ledger that there is not.
const OFF: &str = "off";

/// Where settings come from, apart from the environment.
#[derive(Debug, Default, Clone, Args)]
pub(crate) struct SettingsArgs {
    #[command(flatten)]
    pub(crate) server: SocketArg,
    /// The AI provider for requests that name no provider [default: embedded].
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
    /// Serve health and metrics over HTTP at this address [default: not at all].
    #[arg(long, value_name = "HOST:PORT", value_parser = address_text)]
    pub(crate) health: Option<String>,
    /// Serve the formats of OpenAI and Anthropic to programs of this machine on this port; 0 for any free one [default: not
    /// at all].
    #[arg(long, visible_alias = "openai-port", value_name = "PORT")]
    pub(crate) api_port: Option<u16>,
    /// Connections open at once [default: 2000].
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_connections: Option<u32>,
    /// Worker threads; 0: one per four CPUs [default: 0].
    #[arg(long, value_name = "COUNT")]
    pub(crate) workers: Option<u32>,
    /// The log level: error, warn, info, debug, trace, or pairs such as bellrope=debug [default: info].
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log: Option<String>,
    /// The form of the log [default: pretty].
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// Log into this file instead of standard error, once the server is ready; a full one is moved to FILE.1 [default: not
    /// at all].
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
    /// End when there was no connection and no request at the API port for this time: 90s, 10m, 2h [default: never].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) exit_when_idle: Option<Duration>,
    /// Any other key of the configuration, as in `server.max_in_flight=64`. May be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<(String, String)>,
    /// A configuration file.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) fleet: Box<FleetArgs>,
}

/// All that a server needs to know.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) socket: PathBuf,
    /// Where to serve health; absent for not at all.
    pub(crate) health: Option<SocketAddr>,
    /// The API port on the loopback address; absent for not at all.
    pub(crate) api_port: Option<u16>,
    /// The threads that serve it; 0 for one for each CPU, up to four.
    pub(crate) api_threads: u32,
    /// How long what is under way may take to end when the server is told to.
    pub(crate) drain: Duration,
    /// How much is logged; valid, since it was read once before.
    pub(crate) log: String,
    pub(crate) log_format: LogFormat,
    /// Where it is logged once the server is ready; absent for standard error.
    pub(crate) log_file: Option<PathBuf>,
    /// The most that this file and the one before it may have together.
    pub(crate) log_file_bytes: u32,
    /// The OpenTelemetry collector that spans are sent to; absent for none.
    pub(crate) otlp_endpoint: Option<String>,
    pub(crate) server: ServerConfig,
    pub(crate) gateway: GatewaySettings,
    #[cfg(feature = "fleet")]
    pub(crate) fleet: bellrope_fleet::FleetSettings,
    /// With prices and budgets, and the path of the ledger as it stands in the settings.
    books: BookSettings,
    tokens: TokenSettings,
    pub(crate) origins: Origins,
    /// All of it, as the configuration file would say it.
    document: Value,
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

    fn resolve(args: &SettingsArgs, vars: &[(OsString, OsString)]) -> Result<Self, Faults> {
        let var = |name: &str| vars.iter().find(|(other, value)| other == name && !value.is_empty());
        let mut layers = Layers::new();
        let path = args.config.clone().or_else(|| var(CONFIG).map(|(_, path)| path.into()));
        if let Some(path) = &path {
            layers.file(path);
        }
        layers.variables(vars);
        args.add_to(&mut layers);
        let Layers { values, origins, faults, .. } = layers;
        let look = |values: &Table| {
            let document = checks::read(values, &origins)?;
            let faults = checks::document(&document, &origins);
            if faults.is_empty() { Ok(document) } else { Err(faults) }
        };
        let document = gather(values, &origins, faults, look)?;
        let raw_socket = args.server.socket.clone().or_else(|| var(VARIABLE).map(|(_, path)| path.into()));
        let socket = raw_socket.or_else(|| document.socket.clone()).unwrap_or_else(default_socket_path);
        Ok(Self::of(document, socket, origins))
    }

    /// Of a document that was checked.
    fn of(document: Document, socket: PathBuf, origins: Origins) -> Self {
        // Plain structs with text keys: writing them cannot fail.
        let mut written = serde_json::to_value(&document).unwrap_or_default();
        written["socket"] = socket.to_string_lossy().into();
        let books = document.books();
        let Document { api_port, api_threads, drain_s, log, log_format, log_file, log_file_bytes, .. } = document;
        let Document { health, otlp_endpoint, server, gateway, tokens, .. } = document;
        Self {
            socket,
            // It is one, by the check above.
            health: health.and_then(|text| address(&text).ok()),
            api_port,
            api_threads,
            drain: Duration::from_secs(drain_s.into()),
            log,
            log_format,
            // An absolute path is one in every directory.
            log_file: log_file.map(|path| std::path::absolute(&path).unwrap_or(path)),
            log_file_bytes,
            otlp_endpoint,
            server,
            #[cfg(feature = "fleet")]
            fleet: document.fleet,
            gateway,
            books,
            tokens,
            origins,
            document: written,
        }
    }

    /// The providers that these settings describe, each with the key that it needs to be asked as they say. Makes no
    /// connection.
    pub(crate) fn gateway(&self) -> Result<Gateway, Faults> {
        let gateway = self.providers()?;
        self.check_keys(&gateway).map(|()| gateway)
    }

    /// Whether everybody has a key who is asked without being named in a request, and every variable of a key is set. Of
    /// the other providers some may be for other machines.
    pub(crate) fn check_keys(&self, gateway: &Gateway) -> Result<(), Faults> {
        self.none_of(&self.key_faults(gateway))
    }

    fn none_of(&self, faults: &[Fault]) -> Result<(), Faults> {
        gather(
            Table::new(),
            &self.origins,
            Vec::new(),
            |_| {
                if faults.is_empty() { Ok(()) } else { Err(faults.to_vec()) }
            },
        )
    }

    fn key_faults(&self, gateway: &Gateway) -> Vec<Fault> {
        let mut faults = Vec::new();
        let settings = &self.gateway;
        let short = settings.openai.iter().map(|openai| (parts("gateway.openai"), openai));
        let long = settings.providers.iter().map(|(name, config)| {
            let section = ["gateway", "providers", name].map(str::to_owned);
            (section.to_vec(), config)
        });
        for (section, config) in short.chain(long) {
            let is_set = |name: &String| std::env::var(name).is_ok_and(|value| !value.trim().is_empty());
            let unset = config.api_key_variable.as_ref().filter(|name| !is_set(name) && config.api_key_file.is_none());
            if let Some(variable) = unset {
                let key = [section, vec!["api_key".to_owned()]].concat();
                let name = self.origins.naming(&key);
                let fix = "set it, or name a file that holds the key with `api_key_file`";
                let words = format!("{name} names the variable {variable}, which is not set; {fix}");
                faults.push(Fault::of(key, words));
            }
        }
        let named = std::iter::once(("gateway.provider", &settings.provider));
        let named = named.chain(settings.fallback.iter().map(|name| ("gateway.fallback", name)));
        for (key, name) in named {
            let key = parts(key);
            if let Some(missing) = gateway.missing(name) {
                let words = format!("{}: {missing}", self.origins.naming(&key));
                faults.push(Fault { provider: Some(name.clone()), ..Fault::of(key, words) });
            }
        }
        faults
    }

    /// Whether each budget is for a token that there is, and goes over to a model of a provider that is set up.
    pub(crate) fn check_budgets(&self, gateway: &Gateway) -> Result<(), Faults> {
        self.none_of(&self.budget_faults(gateway))
    }

    fn budget_faults(&self, gateway: &Gateway) -> Vec<Fault> {
        // Where the file of tokens cannot be read, whoever asks for one is told.
        let tokens = self.tokens().and_then(|tokens| tokens.list().ok()).unwrap_or_default();
        #[cfg(feature = "fleet")]
        let asks_others = self.fleet.leaves_to_fleet("ai.chat_stream");
        #[cfg(not(feature = "fleet"))]
        let asks_others = false;
        checks::budgets(&self.books.budgets, &tokens, gateway, asks_others, &self.origins)
    }

    /// Which budgets of money do not count requests to the providers' own models, each with its place and a fix.
    fn unpriced(&self, gateway: &Gateway) -> Vec<String> {
        let models = gateway.own_models();
        let budgets = self.books.budgets.iter().enumerate();
        let told = budgets.filter_map(|(at, budget)| {
            let key = vec!["budgets".to_owned(), layers::row(at)];
            Some(format!("{}: budgets {}", self.origins.of(&key), self.books.unpriced(budget, &models)?))
        });
        told.collect()
    }

    /// What is to be said of a budget of a token that counts nothing, as there is no price.
    pub(crate) fn unpriced_budget(&self, budget: &Budget) -> Option<String> {
        self.books.unpriced(budget, &[])
    }

    /// Says what of these settings will keep requests from being answered as they ask: which providers lack a key or a model, and
    /// which budgets are for nobody.
    pub(crate) fn tell_what_is_missing(&self, gateway: &Gateway) {
        self.tell_missing_keys(gateway);
        let provider = gateway.default_provider();
        if let Some(missing) = provider.missing_model() {
            let name = provider.name();
            tracing::warn!(target: "bellrope::settings", "the provider {name} has no model of its own: {missing}");
        }
        let faults = self.check_budgets(gateway).err().map(|faults| faults.0).unwrap_or_default();
        for fault in faults.into_iter().chain(self.unpriced(gateway)) {
            tracing::warn!(target: "bellrope::settings", "{fault}");
        }
    }

    /// Says which providers of these settings lack a key: of those that are asked only if a request names them.
    fn tell_missing_keys(&self, gateway: &Gateway) {
        let names = self.gateway.providers.keys().map(String::as_str);
        for name in names.chain(self.gateway.openai.iter().map(|_| "openai")) {
            if let Some(missing) = gateway.missing(name) {
                tracing::warn!(target: "bellrope::settings", "the provider {name} cannot answer: {missing}");
            }
        }
    }

    /// The providers that these settings describe, whether or not they have a key. Makes no connection.
    pub(crate) fn providers(&self) -> Result<Gateway, Faults> {
        self.built().map_err(|fault| Faults(vec![fault.words]))
    }

    fn built(&self) -> Result<Gateway, Fault> {
        Gateway::from_settings(with_kept_keys(self.gateway.clone())).map_err(|error| {
            let (key, provider) = match &error {
                ConfigError::UnknownProvider { name, .. } => ("gateway.provider".to_owned(), Some(name.to_string())),
                ConfigError::Invalid { key, .. } | ConfigError::KeyFile { key, .. } => (key.to_string(), None),
                _ => return Fault::of(Key::new(), error.to_string()),
            };
            let mut key = parts(&key);
            // What stands in the short section is called by its long name.
            if self.gateway.openai.is_some() && key.starts_with(&parts("gateway.providers.openai")) {
                key.remove(1);
            }
            let words = match self.origins.of(&key) {
                Origin::Default => error.to_string(),
                origin => format!("{origin}: {error}"),
            };
            Fault { provider, ..Fault::of(key, words) }
        })
    }

    /// What a server with these settings may come to hold at the very most, in bytes, beside a constant.
    pub(crate) fn memory_bound(&self) -> u64 {
        let of_port = self.api_port.map_or(0, |_| API_PORT_MEMORY);
        self.server.memory_bound().saturating_add(self.gateway.answers.keep_bytes).saturating_add(of_port)
    }

    /// What the books are told.
    pub(crate) fn books(&self) -> BookSettings {
        let path = match &self.books.path {
            None => default_books_path(),
            Some(path) if path.as_os_str() == OFF => None,
            Some(path) => Some(path.clone()),
        };
        BookSettings { path, ..self.books.clone() }
    }

    /// The tokens of tools. `None`: there is no place for them.
    pub(crate) fn tokens(&self) -> Option<Tokens> {
        self.tokens.path.clone().or_else(default_tokens_path).map(Tokens::at)
    }

    /// Whether the API port asks for a token.
    pub(crate) fn needs_token(&self) -> bool {
        self.tokens.required
    }

    /// Where the value of a key came from.
    pub(crate) fn origin(&self, key: &str) -> Origin {
        self.origins.of(&parts(key))
    }

    /// The variables that the providers take something from, their keys among it.
    pub(crate) fn provider_variables(&self) -> Vec<String> {
        let asked = RefCell::new(Vec::new());
        // Whatever is wrong with the providers, they have been asked.
        let _ = Gateway::from_settings_and_vars(self.gateway.clone(), |name: &str| {
            asked.borrow_mut().push(name.to_owned());
            None
        });
        asked.into_inner()
    }

    /// Files that are named as they are found from the current directory, with the keys of the settings.
    pub(crate) fn relative_files(&self) -> Vec<(String, String)> {
        let is_file = |key: &str| key.ends_with(".api_key_file") || ["books.path", "tokens.path"].contains(&key);
        let entries = self.entries().into_iter().filter(|entry| is_file(&entry.key) && entry.value != OFF);
        let named = entries.filter_map(|entry| Some((entry.key, entry.value.as_str()?.to_owned())));
        named.filter(|(_, file)| std::path::Path::new(file).is_relative()).collect()
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

    /// What becomes of requests in each provider's own format: where no setting says so, by its address.
    pub(crate) fn pass_through(&self) -> Vec<Entry> {
        let gateway = Gateway::from_settings(self.gateway.clone()).ok();
        let all = gateway.iter().flat_map(|gateway| gateway.names().iter().map(move |name| (gateway, name.clone())));
        let known = all.filter_map(|(gateway, name)| Some((gateway.pass_through(&name)?, name)));
        let entry = |(way, name): (_, String)| {
            let is_short = name == "openai" && self.gateway.openai.is_some();
            let section = if is_short { parts("gateway") } else { parts("gateway.providers") };
            let key: Key = section.into_iter().chain([name, "pass_through".to_owned()]).collect();
            let value = serde_json::to_value(way).unwrap_or_default();
            Entry { origin: self.origins.of(&key), key: shown(&key), value }
        };
        known.map(entry).collect()
    }

    /// What the providers take from variables of their own, such as `OPENAI_BASE_URL`, which come before all of this. Of
    /// a key only where it comes from.
    pub(crate) fn providers_own(&self, var: impl Fn(&str) -> Option<String>) -> Vec<Entry> {
        let gateway = Gateway::from_settings_and_vars(self.gateway.clone(), &var);
        let mut entries = Vec::new();
        for name in gateway.map(|gateway| gateway.names().to_vec()).unwrap_or_default() {
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
        let millis = |time: Duration| time.as_millis().to_string();
        let flags: [(&str, &[&str], Option<OsString>); 10] = [
            ("--socket", &["socket"], self.server.socket.as_ref().map(|path| path.as_os_str().to_owned())),
            ("--provider", &["gateway", "provider"], self.provider.as_ref().map(OsString::from)),
            ("--health", &["health"], self.health.as_ref().map(OsString::from)),
            ("--api-port", &["api_port"], number(self.api_port.map(u32::from)).map(OsString::from)),
            ("--max-connections", &["server", "max_connections"], number(self.max_connections).map(OsString::from)),
            ("--workers", &["server", "workers"], number(self.workers).map(OsString::from)),
            ("--log", &["log"], self.log.as_ref().map(OsString::from)),
            ("--log-format", &["log_format"], self.log_format.map(|format| format.name().into())),
            ("--log-file", &["log_file"], self.log_file.as_ref().map(|path| path.as_os_str().to_owned())),
            (
                "--exit-when-idle",
                &["server", "exit_when_idle_ms"],
                self.exit_when_idle.map(|time| OsString::from(millis(time))),
            ),
        ];
        for (key, value) in &self.set {
            let key: Vec<_> = key.split('.').collect();
            layers.flag(layers::SET, &key, OsStr::new(value));
        }
        self.fleet.add_to(layers);
        for (name, key, value) in flags {
            if let Some(value) = value {
                layers.flag(name, key, &value);
            }
        }
    }
}

/// Where the key of a provider is, or would be, that its user has set in a terminal.
pub(crate) fn kept_key(provider: &str) -> Option<PathBuf> {
    state::file("keys").map(|folder| folder.join(provider))
}

/// These settings with the keys that their user has set in a terminal. Whatever else names a key comes before them.
fn with_kept_keys(mut settings: GatewaySettings) -> GatewaySettings {
    let files = state::file("keys").and_then(|folder| std::fs::read_dir(folder).ok());
    for file in files.into_iter().flatten().flatten() {
        let Ok(name) = file.file_name().into_string() else { continue };
        if name.contains('.') {
            continue;
        }
        let short = settings.openai.as_mut().filter(|_| name == "openai");
        let config = short.unwrap_or_else(|| settings.providers.entry(name).or_default());
        if config.api_key_variable.is_none() && config.api_key_file.is_none() {
            config.api_key_file = Some(file.path());
        }
    }
    settings
}

#[cfg(test)]
mod tests;
