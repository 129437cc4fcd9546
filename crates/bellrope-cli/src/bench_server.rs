//! The server half of a measurement: a child process that serves what `bellrope serve` serves, with the health server
//! on, and answers bare ping-pongs on request.

use std::{io::BufRead, net::Ipv4Addr, path::Path, sync::Arc};

use anyhow::{Context, bail};
use bellrope::{HealthServer, Server, shm::process};
use bellrope_gateway::{Gateway, GatewaySettings};

use crate::{Outcome, bench, output, serve};

/// Serves until standard input ends.
pub(crate) fn run(socket: &Path, pin: bool) -> Outcome {
    if pin {
        process::pin_to_cpu(1).context("pinning the server to a CPU")?;
    }
    let gateway = Gateway::from_settings(GatewaySettings::default())?;
    let server = serve::register(Server::builder(), Arc::new(gateway)).bind(socket)?;
    let health = HealthServer::start((Ipv4Addr::LOCALHOST, 0).into(), server.metrics()).context("serving health")?;
    serve::stay_small(server.metrics())?;
    output::line(format_args!("ready {}", health.local_addr()))?;
    for command in std::io::stdin().lock().lines() {
        obey(&command?)?;
    }
    drop(health);
    server.shutdown();
    Ok(())
}

fn obey(command: &str) -> Outcome {
    let words: Vec<_> = command.split(' ').collect();
    let ["pong", pid, fd, rounds] = words[..] else { bail!("unknown command {command:?}") };
    let ready = || {
        let _ = output::line(format_args!("ponging"));
    };
    bench::pong(pid.parse()?, fd.parse()?, rounds.parse()?, ready)
}
