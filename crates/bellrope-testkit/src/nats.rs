//! A real `nats-server` for a test, and a way to it that can be cut.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long anything in these tests may take that takes no time.
pub const SOON: Duration = Duration::from_secs(20);

/// A server on a port of its own, ended with the test.
#[derive(Debug)]
pub struct Nats {
    child: Child,
    /// Where it listens on the loopback address.
    pub port: u16,
    home: TempDir,
}

impl Nats {
    /// Starts one, or says why the test is skipped.
    ///
    /// # Panics
    /// If it is there and does not start.
    pub fn start() -> Option<Self> {
        Self::configured("")
    }

    /// Starts one with these lines in its configuration.
    ///
    /// # Panics
    /// If it is there and does not start.
    pub fn configured(lines: &str) -> Option<Self> {
        if !is_there() {
            return None;
        }
        Some(Self::started(Command::new("nats-server"), "127.0.0.1", lines))
    }

    /// Starts one in a network namespace, at all its addresses.
    ///
    /// # Panics
    /// If it is there and does not start.
    pub fn in_namespace(namespace: &str) -> Option<Self> {
        if !is_there() {
            return None;
        }
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, "nats-server"]);
        Some(Self::started(command, "0.0.0.0", ""))
    }

    fn started(mut command: Command, host: &str, lines: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("nats.conf");
        std::fs::write(&config, format!("host: {host}\nport: -1\n{lines}\n")).unwrap();
        command.arg("-c").arg(&config).arg("--ports_file_dir").arg(home.path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let port = port_in(home.path(), "nats");
        Self { child, port, home }
    }

    /// Starts so many that form a cluster.
    ///
    /// # Panics
    /// If they do not start.
    #[must_use]
    pub fn cluster(nodes: usize) -> Option<Vec<Self>> {
        let mut cluster = Vec::<Self>::new();
        for node in 0..nodes {
            let routes: Vec<_> = cluster.iter().map(Self::cluster_port).collect();
            let routes: Vec<_> = routes.into_iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
            let lines = format!(
                "server_name: n{node}\ncluster {{ name: fleet, listen: \"127.0.0.1:-1\", routes: [{}] }}",
                routes.join(", ")
            );
            cluster.push(Self::configured(&lines)?);
        }
        Some(cluster)
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where other nodes of its cluster find it.
    ///
    /// # Panics
    /// If its configuration names no cluster.
    #[must_use]
    pub fn cluster_port(&self) -> u16 {
        port_in(self.home(), "cluster")
    }

    /// What it says at a path of its monitoring, which `http: "127.0.0.1:-1"` in its configuration turns on.
    ///
    /// # Panics
    /// If it says nothing.
    #[must_use]
    pub fn monitoring(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port_in(self.home(), "monitoring"))).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// Where a test may keep files.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Sends it a [signal](signal).
    ///
    /// # Panics
    /// If it has ended.
    pub fn signal(&self, signal: Signal) {
        self::signal(&self.child, signal);
    }
}

/// Sends a process a signal. Returns after [`Signal::STOP`] when all its threads stand still: until the one that gets the signal
/// has run, the others go on.
///
/// # Panics
/// If it has ended.
pub fn signal(process: &Child, signal: Signal) {
    kill_process(Pid::from_child(process), signal).unwrap();
    if signal == Signal::STOP {
        let threads = format!("/proc/{}/task", process.id());
        let stands_still = |stat: String| stat.rsplit(") ").next().is_some_and(|state| state.starts_with('T'));
        eventually("the process stands still", || {
            let mut stats = std::fs::read_dir(&threads).unwrap().flatten().map(|task| task.path().join("stat"));
            stats.all(|stat| std::fs::read_to_string(stat).is_ok_and(stands_still))
        });
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether there is a NATS server; says so if not.
fn is_there() -> bool {
    let is_there = Command::new("nats-server").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !is_there {
        crate::skipped("a test of fleets: there is no nats-server (Debian's package of that name)");
    }
    is_there
}

/// The port that a server has written down for this purpose.
fn port_in(home: &Path, purpose: &str) -> u16 {
    let mut port = None;
    eventually("the NATS server says its port", || {
        let files = std::fs::read_dir(home).unwrap().flatten();
        let ports = files.filter(|file| file.path().extension().is_some_and(|end| end == "ports"));
        port = ports.flat_map(|file| std::fs::read_to_string(file.path())).find_map(|text| {
            // `"nats": ["nats://127.0.0.1:4222"]`
            let text = &text[text.find(&format!("\"{purpose}\""))?..];
            text.split('"').nth(3)?.rsplit(':').next()?.parse().ok()
        });
        port.is_some()
    });
    port.unwrap()
}

/// Waits until something holds.
///
/// # Panics
/// If it does not come to hold.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < until, "not in {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Carries bytes to a NATS server until it is cut.
#[derive(Debug)]
pub struct Way {
    /// Where it begins on the loopback address.
    pub port: u16,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    cut: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Way {
    /// A way to this port.
    ///
    /// # Panics
    /// If the system has no port left.
    #[must_use]
    pub fn to(port: u16) -> Self {
        Self::slow(port, Duration::ZERO)
    }

    /// A way to this port on which everything takes so long, in each direction.
    ///
    /// # Panics
    /// If the system has no port left.
    #[must_use]
    pub fn slow(port: u16, takes: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(there) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))) else { continue };
                let mut streams = shared.streams.lock().unwrap();
                // The cut may have come meanwhile.
                if shared.cut.load(Ordering::SeqCst) {
                    continue;
                }
                for (from, to) in [(&stream, &there), (&there, &stream)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || carry(from, to, takes));
                }
                streams.extend([stream, there]);
            }
        });
        Self { port: own, state }
    }

    /// The address of its beginning.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends all connections, and lets none through until [`Self::heal`].
    ///
    /// # Panics
    /// Never, but with the thread that carries.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
        for stream in self.state.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets connections through again.
    pub fn heal(&self) {
        self.state.cut.store(false, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, takes: Duration) {
    let mut buffer = vec![0; 64 * 1024];
    if takes.is_zero() {
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
    } else {
        let (sender, under_way) = mpsc::channel::<(Instant, Vec<u8>)>();
        let (ended, mut there) = (to.try_clone(), to);
        let arriving = std::thread::spawn(move || {
            for (due, bytes) in under_way {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if there.write_all(&bytes).is_err() {
                    break;
                }
            }
        });
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if sender.send((Instant::now() + takes, buffer[..read].to_vec())).is_err() {
                break;
            }
        }
        drop(sender);
        let _ = arriving.join();
        let Ok(there) = ended else { return };
        to = there;
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
