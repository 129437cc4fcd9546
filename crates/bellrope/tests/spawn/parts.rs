//! The parts that this program plays in processes of its own, and the home of each test. No process outlives its test.

#![expect(clippy::print_stderr, reason = "what a server says as it fails is what its starter is told")]

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bellrope::{
    Client, Server,
    client::{ClientConfig, Spawn},
    server::ServerConfig,
};
use bellrope_testkit::{program::COVERAGE, support::eventually};
use serde_json::{Value, json};

/// The socket of a server, which makes a process one.
const SERVER: &str = "BELLROPE_TEST_SERVER";
/// What is special about it.
const HOW: &str = "BELLROPE_TEST_HOW";
/// When it ends, in milliseconds without a client.
const IDLE: &str = "BELLROPE_TEST_IDLE";
/// The socket of a client's server, which makes a process one.
const CLIENT: &str = "BELLROPE_TEST_CLIENT";

/// Where a test has its files. The servers that it started end with it.
pub(crate) struct Home {
    directory: tempfile::TempDir,
    /// Servers that were started here by this process.
    pub(crate) started: Arc<AtomicUsize>,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), started: Arc::default() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run").join("bell.sock")
    }

    pub(crate) fn config(&self) -> ClientConfig {
        ClientConfig::new(self.socket())
    }

    /// How to start a server here that is special in this way, and ends half a minute after its last client.
    pub(crate) fn spawn(&self, how: &str) -> Spawn {
        self.spawn_for(how, Duration::from_secs(30))
    }

    pub(crate) fn spawn_for(&self, how: &str, idle: Duration) -> Spawn {
        let started = Arc::clone(&self.started);
        spawn_at(&self.socket(), how).env(IDLE, idle.as_millis().to_string()).on_start(move |_| {
            started.fetch_add(1, Ordering::SeqCst);
        })
    }

    /// A process that finds or starts a server here, writes what that is into `file`, and stays until it is killed.
    pub(crate) fn client(&self, file: &Path, how: &str) -> Command {
        let mut command = part("parts::the_client", CLIENT, &self.socket());
        command.env("BELLROPE_TEST_OUT", file).env(HOW, how);
        command
    }

    /// The server that is here, if one is.
    pub(crate) fn server(&self) -> Option<u32> {
        let holder = std::fs::read_to_string(self.path("run").join("bell.sock.lock")).ok()?;
        holder.trim().parse().ok().filter(|pid| is_server_of(*pid, &self.socket()))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(pid) = self.server() {
            signal("KILL", pid);
            eventually("the end of the server", || !is_server_of(pid, &self.socket()));
        }
    }
}

fn spawn_at(socket: &Path, how: &str) -> Spawn {
    let log = socket.parent().unwrap().with_file_name("log");
    let spawn = Spawn::program(std::env::current_exe().unwrap())
        .args(["parts::the_server", "--exact", "--nocapture"])
        .env(SERVER, socket)
        .env(HOW, how)
        .inherit(COVERAGE)
        .inherit("KEY_OF_A_PROVIDER");
    spawn.log(Some(log))
}

/// This program, as a process that plays one part.
fn part(test: &str, variable: &str, value: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env_clear().env(variable, value);
    command.envs(std::env::var_os(COVERAGE).map(|place| (COVERAGE, place))).stdout(Stdio::null());
    command
}

/// Whether a process is a server at this socket, and has not ended.
fn is_server_of(pid: u32, socket: &Path) -> bool {
    let variable = [SERVER.as_bytes(), b"=", socket.as_os_str().as_encoded_bytes()].concat();
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|known| known == variable)
}

pub(crate) fn signal(name: &str, pid: impl std::fmt::Display) {
    // Of a process that has just ended it says that there is none.
    let _ = Command::new("kill").args([&format!("-{name}"), "--", &pid.to_string()]).output().unwrap();
}

/// What a server says of itself.
pub(crate) fn who(client: &Client) -> Value {
    serde_json::from_slice(&client.call("who", b"").unwrap()).unwrap()
}

/// Not a test by itself: the server of the others.
#[test]
fn the_server() {
    let Some(socket) = std::env::var_os(SERVER).map(PathBuf::from) else { return };
    let how = std::env::var(HOW).unwrap();
    let near = |name: &str| socket.parent().unwrap().with_file_name(name);
    match &*how {
        "broken" => {
            eprintln!("reading the settings\nthe licence has expired\n");
            std::process::exit(3);
        }
        "stuck" => {
            eprintln!("waiting for nothing");
            std::thread::sleep(Duration::from_secs(600));
        }
        "slow" => {
            std::fs::write(near("slow"), std::process::id().to_string()).unwrap();
            eventually("leave to begin", || near("go").exists());
        }
        _ => {}
    }
    let idle = std::env::var(IDLE).map_or(30_000, |idle| idle.parse().unwrap());
    let server = Server::builder()
        .config(ServerConfig::new().exit_when_idle(Duration::from_millis(idle)))
        .in_place("echo", |_| Ok(()))
        .unary("who", |_, reply| {
            serde_json::to_writer(reply, &myself()).map_err(std::io::Error::from)?;
            Ok(())
        })
        .server_stream("ticks", |_, mut chunks| async move {
            for n in 0_u64.. {
                chunks.send(n.to_le_bytes()).await?;
            }
            Ok(())
        })
        .bind(&socket);
    match server {
        Ok(server) => server.wait(),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}

fn myself() -> Value {
    let names = |variables: std::env::VarsOs| variables.map(|(name, _)| text(&name)).collect::<Vec<_>>();
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets =
        descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).map(|path| text(path.as_os_str()));
    json!({
        "pid": std::process::id(),
        "directory": std::env::current_dir().unwrap(),
        "variables": names(std::env::vars_os()),
        "descriptors": targets.collect::<Vec<_>>(),
        "stat": std::fs::read_to_string("/proc/self/stat").unwrap(),
    })
}

fn text(value: &OsStr) -> String {
    value.to_string_lossy().into_owned()
}

/// Not a test by itself: a client of the others.
#[test]
fn the_client() {
    let Some(socket) = std::env::var_os(CLIENT).map(PathBuf::from) else { return };
    let mut spawn = spawn_at(&socket, &std::env::var(HOW).unwrap());
    if std::env::var_os("BELLROPE_TEST_LOG").is_some() {
        spawn = spawn.log(None);
    }
    let client = Client::connect_or_spawn(ClientConfig::new(&socket), &spawn).unwrap();
    let out = PathBuf::from(std::env::var_os("BELLROPE_TEST_OUT").unwrap());
    std::fs::write(out.with_extension("part"), who(&client).to_string()).unwrap();
    std::fs::rename(out.with_extension("part"), out).unwrap();
    if std::env::var_os("BELLROPE_TEST_STAY").is_some() {
        std::thread::sleep(Duration::from_secs(600));
    }
}

/// What a client process has written.
pub(crate) fn written(file: &Path) -> Value {
    let mut found = None;
    eventually("what the client found", || {
        found = std::fs::read(file).ok();
        found.is_some()
    });
    serde_json::from_slice(&found.unwrap()).unwrap()
}
