//! `bellrope stop`: ends a server in good order, whoever started it.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bellrope_shm::socket::Socket;
use bellrope_terminal::{Outcome, output};
use clap::Args;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde_json::json;

use crate::{logging, socket::SocketArg};

const HELP: &str = "\
Examples:
  bellrope stop
  bellrope stop --socket /run/user/1000/bellrope/test.sock --now

The server takes nothing new, ends what is under way within its drain_s (5 seconds), and the command waits until it is gone. It also ends
servers that `bellrope chat`, `bellrope acp` or an editor's plugin has started. Programs that are still there start the next one
with their next call. A server of a service manager is stopped there: by `systemctl --user stop bellrope`, for instance.

Exit codes: 0 the server is gone, or there was none; 1 it is still there.";

/// Between two signals that are to end a server at once.
const AGAIN: Duration = Duration::from_millis(50);

/// Which server, and how long to wait for its end.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    server: SocketArg,
    /// Most seconds until the server must be gone.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: u32,
    /// Wait for no call: those under way end as after a crash.
    #[arg(long)]
    now: bool,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Ends the server, and waits until it is gone.
pub(crate) fn run(args: &StopArgs) -> Outcome {
    logging::init("warn")?;
    let path = args.server.path();
    let Some(server) = Running::at(&path)? else {
        if args.json {
            return output::json(&json!({ "stopped": false, "pid": null }));
        }
        output::note(format_args!("no server listens at {}", path.display()));
        return Ok(());
    };
    let is_gone = server.end(Duration::from_secs(args.timeout.into()), args.now)?;
    let pid = server.pid.as_raw_pid();
    ensure!(
        is_gone,
        "the server (process {pid}) is still there after {} s; `bellrope stop --now` waits for none of its calls",
        args.timeout
    );
    if args.json {
        return output::json(&json!({ "stopped": true, "pid": pid }));
    }
    output::line(format_args!("the server at {} (process {pid}) has ended", path.display()))
}

/// A server that listens.
struct Running {
    pid: Pid,
    /// It and no other process, whatever becomes of its number.
    process: OwnedFd,
}

impl Running {
    /// The server that listens at this path, if one does.
    ///
    /// # Errors
    /// It cannot be told which process that is, or it is none to be ended here.
    fn at(path: &Path) -> anyhow::Result<Option<Self>> {
        let connected = |path: &Path| match Socket::connect(path) {
            Ok(socket) => Ok(Some(socket)),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
                Some(Errno::NAMETOOLONG) => bail!(
                    "the socket path {} is longer than 107 bytes, the most that a socket's may have; choose another (--socket)",
                    path.display()
                ),
                _ => Err(error).with_context(|| format!("connecting to {}", path.display())),
            },
        };
        let Some(socket) = connected(path)? else { return Ok(None) };
        let listener = socket.peer_credentials().context("asking who listens")?.pid;
        let written = lock_of(path);
        // The kernel names whoever made the socket: of one that a service manager hands over, the service manager.
        if listener == 0 || written != Some(listener) {
            bail!(
                "the process that listens at {} has not made its socket by itself, or not on this system: end it where it was \
                 started, as by `systemctl stop` or in its container",
                path.display()
            );
        }
        let pid = Pid::from_raw(listener).context("the process that listens has no number")?;
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error).context("taking hold of the process that listens"),
        };
        // If it still listens now that it is held, it is the one.
        let Some(again) = connected(path)? else { return Ok(None) };
        let is_same = again.peer_credentials().is_ok_and(|peer| peer.pid == listener);
        ensure!(is_same, "another server has just come to {}; try again", path.display());
        Ok(Some(Self { pid, process }))
    }

    /// Ends it. Whether it is gone within this time.
    fn end(&self, time: Duration, now: bool) -> anyhow::Result<bool> {
        self.ask_to_end()?;
        let until = Instant::now() + time;
        // A second signal ends it at once, if it does not come together with the first.
        while now && Instant::now() + AGAIN < until {
            if self.ends_within(AGAIN)? {
                return Ok(true);
            }
            self.ask_to_end()?;
        }
        self.ends_within(until.saturating_duration_since(Instant::now()))
    }

    fn ask_to_end(&self) -> Outcome {
        match pidfd_send_signal(&self.process, Signal::TERM) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(Errno::PERM) => bail!("the server (process {}) belongs to another user", self.pid.as_raw_pid()),
            Err(error) => Err(error).context("sending SIGTERM"),
        }
    }

    /// Whether it is gone within this time.
    fn ends_within(&self, time: Duration) -> anyhow::Result<bool> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            // It is readable once the process has ended.
            match poll(&mut [PollFd::new(&self.process, PollFlags::IN)], Some(&left)) {
                Ok(found) => return Ok(found > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting for the end of the server"),
            }
        }
    }
}

/// The number of the process that a server has written into its lock file.
fn lock_of(path: &Path) -> Option<i32> {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let (lock, mut holder) = (PathBuf::from(lock), String::new());
    // Whatever else somebody put there may never end.
    if !lock.metadata().ok()?.is_file() {
        return None;
    }
    std::fs::File::open(lock).ok()?.take(32).read_to_string(&mut holder).ok()?;
    holder.trim().parse().ok()
}
