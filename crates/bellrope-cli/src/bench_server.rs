//! The server half of a measurement: a child process that serves what `bellrope serve` serves, with the health server
//! on, and answers bare ping-pongs on request.

use std::{io::BufRead, net::Ipv4Addr, path::PathBuf, sync::Arc};

use anyhow::{Context, bail};
use bellrope::{
    HealthServer, Server, ServerConfig, SpinPolicy,
    shm::{clock, process},
};
use bellrope_gateway::{Gateway, GatewaySettings};
use clap::Args;

use crate::{Outcome, bench, output, serve};

/// How to serve.
#[derive(Debug, Args)]
pub(crate) struct BenchServerArgs {
    #[arg(long)]
    socket: PathBuf,
    #[arg(long)]
    pin: bool,
    #[arg(long, value_parser = bench::spin_policy)]
    spin: SpinPolicy,
}

/// Serves until standard input ends.
pub(crate) fn run(args: &BenchServerArgs) -> Outcome {
    if args.pin {
        process::pin_to_cpu(1).context("pinning the server to a CPU")?;
    }
    let gateway = Gateway::from_settings(GatewaySettings::default())?;
    let mut config = ServerConfig::default();
    config.spin = args.spin;
    let builder = serve::register(Server::builder().config(config), Arc::new(gateway));
    let listening_us = clock::monotonic_us();
    let server = builder.bind(&args.socket)?;
    let health = HealthServer::start((Ipv4Addr::LOCALHOST, 0).into(), server.metrics()).context("serving health")?;
    serve::stay_small(server.metrics())?;
    output::line(format_args!("ready {} {listening_us}", health.local_addr()))?;
    for command in std::io::stdin().lock().lines() {
        obey(&command?)?;
    }
    drop(health);
    server.shutdown();
    Ok(())
}

fn obey(command: &str) -> Outcome {
    let ready = || {
        let _ = output::line(format_args!("ponging"));
    };
    match command.split(' ').collect::<Vec<_>>()[..] {
        ["pong", pid, fd, rounds] => bench::pong(pid.parse()?, fd.parse()?, rounds.parse()?, ready),
        ["sleeping-pong", pid, fd, rounds] => bench::sleeping_pong(pid.parse()?, fd.parse()?, rounds.parse()?, ready),
        ["cpu"] => output::line(format_args!("{}", process::cpu_time_us())),
        _ => bail!("unknown command {command:?}"),
    }
}
