//! `bellrope serve`: the server, with the AI gateway behind it.

mod api_port;
mod reload;
mod service_manager;

use std::{
    fmt::Write,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use bellrope::{
    Server,
    server::{ServerBuilder, inherited_listener},
    status::{Metrics, OPERATOR_TYPES},
};
use bellrope_gateway::{LiveGateway, MESSAGE_TYPES};
use bellrope_health::HealthServer;
use bellrope_shm::process;
use bellrope_terminal::{Outcome, output, signals};
use clap::Args;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
    low_level::signal_name,
};

use api_port::ApiPort;
use reload::Reload;

use crate::{
    logging,
    settings::{Settings, SettingsArgs},
};

/// How long answers under way may take to end after a signal.
const DRAIN: Duration = Duration::from_secs(5);
/// See [`stay_small`].
const QUIET_LOOKS: u32 = 2;
/// See [`stay_small`].
const TRIM_EVERY: Duration = Duration::from_secs(1);

const HELP: &str = r#"Examples:
  bellrope serve
  OPENAI_BASE_URL=http://127.0.0.1:8080 bellrope serve --provider openai --health 127.0.0.1:9090
  bellrope serve --openai-port 8484

The configuration file is TOML, and every key of it has a default:
  socket = "/run/bellrope/bellrope.sock"
  health = "127.0.0.1:9090"
  openai_port = 8484
  log = "info"
  otlp_endpoint = "http://127.0.0.1:4318"   # where spans of calls go, in a program built with --features otlp
  [server]
  max_connections = 10000
  [gateway]
  provider = "openai"
  [gateway.openai]
  base_url = "http://127.0.0.1:8080"

Every key may also stand in the environment, as in BELLROPE_SERVER__MAX_CONNECTIONS=500 or BELLROPE_LOG=debug, and be
given as in --set server.max_connections=500. Flags come before the environment (BELLROPE_CONFIG names the file; there are
also BELLROPE_PROVIDER, RUST_LOG, OPENAI_BASE_URL, OPENAI_API_KEY, OPENAI_MODEL), and that comes before the file.
`bellrope config show` prints every setting and where it comes from.

SIGHUP reads all of it again, files with keys too. At once change: how much is logged, all of [gateway], [server.breaker],
and of [server] what limits connections, handshakes and waiting; an answer under way keeps its provider. Of everything
else the log says that it needs a restart. Settings with a fault in them change nothing.

A service manager may hand over the socket (LISTEN_FDS), is told when the server is ready and when it stops
(NOTIFY_SOCKET), and has its watchdog fed by the workers' own loops (WATCHDOG_USEC).

SIGTERM and SIGINT stop the server: nothing new is taken, and what is under way has 5 seconds to end. A second one ends
it at once, with 143 or 130."#;

/// What to serve, and where.
#[derive(Debug, Default, Args)]
#[command(after_help = HELP)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

/// Serves until a signal comes.
pub(crate) fn run(args: &ServeArgs) -> Outcome {
    let settings = Settings::load(&args.settings)?;
    let spans = logging::serve(&settings.log, settings.log_format, settings.otlp_endpoint.as_deref())?;
    // Before anything is there that a signal would have to clean up.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("waiting for signals")?;
    signals::second_ends_at_once(&[SIGTERM, SIGINT]).context("waiting for signals")?;

    let gateway = settings.gateway()?;
    let provider = gateway.default_provider().name().to_owned();
    let gateway = LiveGateway::new(gateway);
    let mut reload = Reload::new(args.settings.clone(), &settings, gateway.clone());
    let Settings { socket, health, openai_port, server, .. } = settings;
    let builder = register(Server::builder().config(server), gateway.clone()).operator();
    let (server, socket) = match inherited_listener()? {
        Some(listener) => {
            // Whoever opened it knows better than any setting where it is.
            let address = listener.local_addr().ok();
            let path = address.and_then(|address| address.as_pathname().map(Into::into)).unwrap_or(socket);
            (builder.serve_at(listener)?, path)
        }
        None => (builder.bind(&socket)?, socket),
    };
    let health = health.map(|address| start_health(address, &server)).transpose()?;
    let api_port = openai_port.map(|port| ApiPort::start(port, gateway)).transpose()?;

    stay_small(server.metrics())?;
    let types = 1 + MESSAGE_TYPES.len() + OPERATOR_TYPES.len();
    let path = socket.display();
    let mut ready = format!("bellrope serves {types} message types on {path}, provider {provider}");
    if let Some(health) = &health {
        let _ = write!(ready, ", health on http://{}", health.local_addr());
    }
    if let Some(api_port) = &api_port {
        let _ = write!(ready, ", OpenAI's API on http://{}/v1", api_port.local_addr());
    }
    output::note(format_args!("{ready}"));
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
    let deadline = Instant::now() + DRAIN;
    api_port.iter().for_each(ApiPort::begin_drain);
    let drained = server.drain(DRAIN);
    if !api_port.iter().all(|api_port| api_port.drained_by(deadline)) || !drained {
        tracing::warn!("some answers were not done within {DRAIN:?} and were cut off");
    }
    drop(health);
    spans.finish();
    Ok(())
}

/// Registers everything that `bellrope serve` offers.
pub(crate) fn register(builder: ServerBuilder, gateway: LiveGateway) -> ServerBuilder {
    // What came is the reply as it stands.
    let builder = builder.in_place("echo", |_| Ok(()));
    bellrope_gateway::register(builder, gateway)
}

/// Keeps resident what is in use: once after starting up, and then after every second in which calls were answered,
/// gives back the program's pages. Those in use come back at some 20 us a second; what a rare call needed does not stay.
/// In the second second without an answer the workers have let go of what they keep for the next call, and what is
/// free of the heap is given back too.
pub(crate) fn stay_small(metrics: Arc<Metrics>) -> Outcome {
    let trim = move || {
        let mut seen = u64::MAX;
        let mut quiet = 0_u32;
        loop {
            let answered = metrics.snapshot().total_requests();
            if answered != seen {
                process::drop_program_pages();
                seen = answered;
                quiet = 0;
            } else {
                quiet = quiet.saturating_add(1);
            }
            if quiet == QUIET_LOOKS {
                process::trim_heap();
            }
            std::thread::sleep(TRIM_EVERY);
        }
    };
    let thread = std::thread::Builder::new().name("bellrope-trim".to_owned()).stack_size(64 * 1024).spawn(trim);
    thread.map(drop).context("starting a thread")
}

fn start_health(address: SocketAddr, server: &Server) -> anyhow::Result<HealthServer> {
    HealthServer::start(address, server.metrics())
        .with_context(|| format!("health cannot be served at {address}; choose another address with --health"))
}
