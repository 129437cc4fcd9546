//! `bellrope serve`: the server, with the AI gateway behind it.

mod api_port;
#[cfg(feature = "fleet")]
mod fleet;
mod providers;
mod reload;
mod service_manager;

use std::{
    fmt::Write,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use bellrope::{LogFile, Server, server::inherited_listener, status::OPERATOR_TYPES};
use bellrope_books::{Bookkeeper, KeyHolder, Tokens};
use bellrope_gateway::{LiveGateway, MESSAGE_TYPES};
use bellrope_health::HealthServer;
use bellrope_measure::served::{register, stay_small};
use bellrope_shm::process;
use bellrope_terminal::{Outcome, output, signals, stderr};
use clap::Args;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
    low_level::signal_name,
};

pub(crate) use api_port::MOST_MEMORY as API_PORT_MEMORY;
use api_port::{ApiPort, Keys};
use reload::Reload;

use crate::{
    local_models, logging,
    settings::{Settings, SettingsArgs},
    socket::explain_bind,
};

/// How long the word that an answer ends here may take to go out.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long the last rows of the ledger may take.
const BOOKS: Duration = Duration::from_secs(2);
/// How long what is to be said at a terminal may take before the log goes to its file.
const FLUSH: Duration = Duration::from_secs(1);

/// Memory that has to be there before anything is begun: for settings, books and the first threads. What the server's own take
/// is asked for when it is known how many there are.
const LEAST_MEMORY: usize = 8 << 20;
/// What a thread takes with its stack, and what there has to be beside those that listen for all else, the first calls among it:
/// that a server can be started does not say that anything is left for it.
const OF_A_THREAD: usize = (2 << 20) + (64 << 10);
const BESIDE_THREADS: usize = 4 << 20;

const HELP: &str = r#"Examples:
  bellrope serve
  OPENAI_BASE_URL=http://127.0.0.1:8080 bellrope serve --provider openai --health 127.0.0.1:9090
  bellrope serve --api-port 8484
  bellrope serve --exit-when-idle 10m --log-file ~/.local/state/bellrope/bellrope.log

The configuration file is TOML, and every key of it has a default:
  socket = "/run/bellrope/bellrope.sock"
  health = "127.0.0.1:9090"
  api_port = 8484
  api_threads = 2                      # threads of the API port; 0 (default): one per CPU, at most four
  drain_s = 5                          # how long calls under way may take to end when the server is told to stop
  log = "info"
  log_file = "/var/log/bellrope.log"   # with FILE.1 never more than log_file_bytes, 16 MiB
  # otlp_endpoint = "http://127.0.0.1:4318"  for spans of calls, in a program built with --features otlp
  [server]
  max_connections = 2000
  exit_when_idle_ms = 600000
  [gateway]
  provider = "openai"
  [gateway.openai]
  base_url = "http://127.0.0.1:8080"
  [books]
  path = "/var/lib/bellrope/books.db"       # or "off"
  [[budgets]]
  name = "daily"
  window = "day"
  tokens = 2000000

Every key can also be set by a variable (BELLROPE_SERVER__MAX_CONNECTIONS=500, BELLROPE_LOG=debug) or by a flag
(--set server.max_connections=500). Flags override variables, variables override the file. BELLROPE_CONFIG names the
file; BELLROPE_PROVIDER, RUST_LOG, OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL are read, too.
`bellrope config show` prints every setting and where it comes from.

SIGHUP reloads the settings and the files with keys. These change at once: the log level, all of [gateway],
[server.breaker], prices and budgets, and the limits of [server] on connections, handshakes and waiting. An answer under
way keeps its provider. The log names everything else, which needs a restart. Settings with a fault change nothing.

A service manager may hand over the socket (LISTEN_FDS). It is told when the server is ready and when it stops
(NOTIFY_SOCKET), and the workers' own loops feed its watchdog (WATCHDOG_USEC).

With exit_when_idle_ms the server ends when it had no connection and no request at its API port for that time. It also
ends, after its last client, when its socket was removed or replaced.

SIGTERM and SIGINT stop the server gracefully: it takes nothing new, and calls under way have drain_s to end. A second
signal ends it at once, with exit code 143 or 130."#;

/// What to serve, and where.
#[derive(Debug, Default, Args)]
#[command(after_help = HELP)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

/// What knows the name of a token that a caller of the socket shows.
fn token_names(tokens: Option<Tokens>) -> impl Fn(&str) -> Option<String> + Send + Sync + 'static {
    move |shown| match tokens.as_ref()?.find(shown) {
        KeyHolder::Token(name) => Some(name),
        KeyHolder::Wrong | KeyHolder::Foreign => None,
    }
}

/// Serves until a signal comes.
pub(crate) fn run(args: &ServeArgs) -> Outcome {
    process::check_memory(LEAST_MEMORY).context("starting")?;
    let mut settings = Settings::load(&args.settings)?;
    // From here on nothing waits for whoever should read standard error.
    stderr::start().context("starting the thread that writes the log")?;
    signals::write_panics_in_turn();
    let spans = logging::serve(&settings.log, settings.log_format, settings.otlp_endpoint.as_deref())?;
    // Before anything is there that a signal would have to clean up.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("waiting for signals")?;
    signals::second_ends_at_once(&[SIGTERM, SIGINT]).context("waiting for signals")?;

    let found = local_models::look(&settings.gateway()?);
    local_models::add(&mut settings.gateway, &found);
    let tokens = settings.tokens();
    let books = Bookkeeper::start(settings.books(), tokens.clone());
    let gateway = settings.gateway()?.with_books(Arc::new(books.clone()));
    settings.tell_what_is_missing(&gateway);
    let names = token_names(tokens.clone());
    let keys = Keys::new(tokens, settings.needs_token());
    let provider = gateway.default_provider().name().to_owned();
    let gateway = LiveGateway::new(gateway);
    let mut reload = Reload::new(args.settings.clone(), &settings, gateway.clone(), books.clone(), found.clone());
    let log_file = open_log(&settings)?;
    #[cfg(feature = "fleet")]
    let settings_of_fleet = settings.fleet.clone();
    #[cfg(feature = "fleet")]
    let answers = settings.gateway.answers.clone();
    let Settings { socket, health, api_port, api_threads, drain, server, .. } = settings;
    let waiting = signals.handle();
    let builder = Server::builder().config(server).token_names(names);
    let builder = books.register(register(builder, gateway.clone()).operator());
    let builder = logging::adopt_traces(builder.on_ending(move |_| waiting.close()));
    #[cfg(feature = "fleet")]
    let builder = bellrope_fleet::prepare(builder, &settings_of_fleet);
    let (server, socket) = match inherited_listener()? {
        Some(listener) => {
            // Whoever opened it knows better than any setting where it is.
            let address = listener.local_addr().ok();
            let path = address.and_then(|address| address.as_pathname().map(Into::into)).unwrap_or(socket);
            (builder.serve_at(listener)?, path)
        }
        None => (builder.bind(&socket).map_err(explain_bind)?, socket),
    };
    let server = Arc::new(server);
    #[cfg(feature = "fleet")]
    let of_port = fleet::gateway_of_port(&settings_of_fleet, &socket, &books, &answers);
    #[cfg(not(feature = "fleet"))]
    let of_port = None;
    let of_port = of_port.map_or_else(|| gateway.clone(), LiveGateway::new);
    reload.ask_at_port(of_port.clone());
    #[cfg(feature = "fleet")]
    let fleet = fleet::join(settings_of_fleet, &server, &socket, gateway.answers())?;
    providers::watch(&server.metrics(), &gateway.current());
    gateway.answers().keep_awake(server.metrics().activity());
    of_port.answers().keep_awake(server.metrics().activity());
    books.watch(&server.metrics());
    let help =
        "Lines of the log that were lost, because the lines before them were not read or they could not be written.";
    server.metrics().watch_counter("ipc_log_lines_lost_total", help, stderr::lost());
    let listening = usize::from(health.is_some()) + api_port.map_or(0, |_| api_port::threads(api_threads));
    // And one that keeps the server small.
    process::check_memory(OF_A_THREAD * (listening + 1) + BESIDE_THREADS)
        .context("starting what listens, and serving")?;
    let health = health.map(|address| start_health(address, &server)).transpose()?;
    let start_api = |port| ApiPort::start(port, api_threads, of_port, keys, &server.metrics());
    let api_port = api_port.map(start_api).transpose()?;

    stay_small(server.metrics())?;
    // With `echo`, that of the books, and the one that says what the others take.
    let types = 3 + MESSAGE_TYPES.len() + OPERATOR_TYPES.len();
    let path = socket.display();
    let mut ready = format!("bellrope serves {types} message types on {path}, provider {provider}");
    if let Some(health) = &health {
        let _ = write!(ready, ", health on http://{}", health.local_addr());
    }
    if let Some(api_port) = &api_port {
        let _ = write!(ready, ", API port on http://{}", api_port.local_addr());
    }
    #[cfg(feature = "fleet")]
    ready.push_str(&fleet::in_words(fleet.as_ref()));
    if let Some((path, _)) = &log_file {
        let _ = write!(ready, ", log in {}", path.display());
    }
    output::note(format_args!("{ready}"));
    for server in found {
        let name = server.name;
        output::note(format_args!("{}; `bellrope serve --provider {name}` lets it answer", server.words()));
    }
    if let Some((_, log)) = log_file {
        stderr::write_elsewhere(log, FLUSH);
    }
    service_manager::feed_watchdog(server.metrics())?;
    service_manager::ready(&ready);
    for signal in signals.forever() {
        if signal == SIGHUP {
            service_manager::reloading();
            reload.run(&server);
            service_manager::ready(&ready);
            continue;
        }
        tracing::info!("stopping on {}", signal_name(signal).unwrap_or("a signal"));
        break;
    }
    service_manager::stopping();
    let deadline = Instant::now() + drain;
    gateway.current().begin_drain();
    api_port.iter().for_each(ApiPort::begin_drain);
    // Calls of others first: they end while this server still answers.
    #[cfg(feature = "fleet")]
    let left = fleet.as_ref().is_none_or(|fleet| fleet.drain(drain));
    #[cfg(not(feature = "fleet"))]
    let left = true;
    let drained = server.drain(deadline.saturating_duration_since(Instant::now())) && left;
    #[cfg(feature = "fleet")]
    drop(fleet);
    let has_answered = api_port.iter().all(|api_port| api_port.drained_by(deadline));
    if !has_answered {
        api_port.iter().for_each(|api_port| api_port.break_off(Instant::now() + FAREWELL));
    }
    if !has_answered || !drained {
        tracing::warn!("some answers were not done within {drain:?} and were cut off");
    }
    drop(health);
    // With it go the answers that were not done, so that the books have them.
    drop(api_port);
    books.close(BOOKS);
    // The next server may have the path, whatever is still to be sent.
    drop(server);
    spans.finish();
    Ok(())
}

/// Opens the log, if it is to be a file.
fn open_log(settings: &Settings) -> anyhow::Result<Option<(PathBuf, LogFile)>> {
    let Some(path) = settings.log_file.clone() else { return Ok(None) };
    let opened = LogFile::open(&path, settings.log_file_bytes.into());
    let log = opened
        .with_context(|| format!("the log {} cannot be written; choose another with --log-file", path.display()))?;
    Ok(Some((path, log)))
}

fn start_health(address: SocketAddr, server: &Server) -> anyhow::Result<HealthServer> {
    HealthServer::start(address, server.metrics())
        .with_context(|| format!("health cannot be served at {address}; choose another address with --health"))
}
