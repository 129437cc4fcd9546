//! The server half of a measurement: a child process that serves `echo`, and answers bare ping-pongs on request.

use std::{io::BufRead, path::Path};

use anyhow::{Context, bail};
use bellrope::{Server, shm::process};

use crate::{Outcome, bench, output};

/// Serves until standard input ends.
pub(crate) fn run(socket: &Path, pin: bool) -> Outcome {
    if pin {
        process::pin_to_cpu(1).context("pinning the server to a CPU")?;
    }
    let server = Server::builder()
        .unary("echo", |call, reply| {
            reply.write(call.payload());
            Ok(())
        })
        .bind(socket)?;
    output::line(format_args!("ready -"))?;
    for command in std::io::stdin().lock().lines() {
        obey(&command?)?;
    }
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
