//! Processes that are stopped, killed, or older than they seem.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::{net::UnixListener, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use bellrope::{CallError, Client, Server, client::Connection, server::ServerConfig};

use bellrope_testkit::support::{PATIENCE, builder, eventually, serve};

/// The variable that makes a further run of this program a role in a test: the path of the socket.
const ROLE: &str = "BELLROPE_FAULTS_ROLE";
const RESTARTS: u32 = 1_000;

/// A further process of this program. It dies with this at the latest.
pub(crate) struct Role {
    child: Child,
    path: PathBuf,
}

/// Starts another process that runs this test, and finds the path by [`path_of_role`].
pub(crate) fn role(test: &str, path: &Path) -> Role {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(ROLE, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Role { child, path: path.to_owned() }
}

/// The path that the other process of a test works with, in that process.
pub(crate) fn path_of_role() -> Option<PathBuf> {
    std::env::var_os(ROLE).map(PathBuf::from)
}

impl Role {
    /// Never returns, and ends with the test.
    pub(crate) fn wait_to_be_killed() -> ! {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0)
    }

    /// A client of the server that this is, once it listens.
    pub(crate) fn connect(&mut self) -> Client {
        let mut client = None;
        eventually("the server listens", || {
            assert_eq!(self.child.try_wait().unwrap(), None, "the server has ended");
            client = Client::connect(&self.path).ok();
            client.is_some()
        });
        client.unwrap()
    }

    /// Waits until it has ended well, having run its test.
    pub(crate) fn succeeds(&mut self) {
        let status = self.end();
        assert!(status.success(), "{status:?}");
        let mut said = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        // A run of a test that there is not ends well, too.
        assert!(said.contains("1 passed"), "{said}");
    }

    pub(crate) fn signal_that_ended_it(&mut self) -> Option<i32> {
        self.end().signal()
    }

    fn end(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Waits until it has printed this line.
    fn said(&mut self, line: &str) {
        let mut lines = BufReader::new(self.child.stdout.take().unwrap()).lines();
        assert!(lines.any(|said| said.unwrap().ends_with(line)), "{line} was not said");
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("/bin/sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Stops it, and returns when each of its threads has stopped.
    fn stop(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.child.id());
        eventually("every thread is stopped", || {
            fs::read_dir(&tasks).unwrap().all(|task| {
                let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
                stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
            })
        });
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // Both fail if it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// Faults 15, 35.
#[test]
fn a_stopped_server_costs_its_callers_no_more_than_their_deadline() {
    const TEST: &str = "processes::a_stopped_server_costs_its_callers_no_more_than_their_deadline";
    if let Some(path) = path_of_role() {
        let _server = builder(&Default::default()).bind(&path).unwrap();
        Role::wait_to_be_killed();
    }
    let home = tempfile::tempdir().unwrap();
    let mut server = role(TEST, &home.path().join("run").join("test.sock"));
    let client = server.connect();
    assert_eq!(client.call("echo", b"awake").unwrap(), b"awake");
    server.stop();
    let began = Instant::now();
    let error = client.call_within("echo", b"", Duration::from_millis(200)).unwrap_err();
    assert!(matches!(error, CallError::DeadlineExceeded), "{error}");
    assert!(began.elapsed() < PATIENCE / 4, "took {:?}", began.elapsed());
    server.signal("CONT");
    assert_eq!(client.call("echo", b"again").unwrap(), b"again");
}

// Faults 31, 35.
#[test]
fn a_stopped_client_with_answers_unread_is_closed_and_others_are_served_meanwhile() {
    const TEST: &str = "processes::a_stopped_client_with_answers_unread_is_closed_and_others_are_served_meanwhile";
    if let Some(path) = path_of_role() {
        let mut connection = Connection::connect(&path).unwrap();
        let grow = connection.message_type("grow").unwrap();
        for _ in 0..16 {
            connection.submit(grow, b"60000").unwrap();
        }
        std::io::stdout().write_all(b"\nasked\n").unwrap();
        Role::wait_to_be_killed();
    }
    let mut config = ServerConfig::default();
    // Long enough for it to ask for everything first.
    config.stall_timeout = Duration::from_millis(1_000);
    let server = serve(config);
    let mut client = role(TEST, &server.path);
    client.said("asked");
    client.stop();
    let other = Client::connect(&server.path).unwrap();
    let metrics = server.server.metrics();
    eventually("it is closed", || {
        assert_eq!(other.call_within("echo", b"fine", PATIENCE).unwrap(), b"fine");
        metrics.snapshot().stalled == 1
    });
    assert_eq!(metrics.active_connections(), 1);
}

// Fault 30.
#[test]
fn a_server_that_is_killed_a_thousand_times_starts_each_time() {
    const TEST: &str = "processes::a_server_that_is_killed_a_thousand_times_starts_each_time";
    if let Some(path) = path_of_role() {
        let server = Server::builder().unary("pid", |_, reply| {
            reply.put(&std::process::id().to_le_bytes());
            Ok(())
        });
        let _server = server.bind(&path).unwrap();
        Role::wait_to_be_killed();
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    for restart in 0..RESTARTS {
        let mut server = role(TEST, &path);
        let served_by = server.connect().call("pid", b"").unwrap();
        assert_eq!(served_by, server.child.id().to_le_bytes(), "restart {restart}");
        server.kill();
        let left: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.contains(&"test.sock".into()), "a killed server leaves its socket: {left:?}");
        assert!(left.iter().all(|name| name == "test.sock" || name == "test.sock.lock"), "{left:?}");
    }
}

// Fault 26.
#[test]
fn a_lock_file_that_names_a_living_process_keeps_nobody_from_starting() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("test.sock");
    // What a dead server leaves: its socket, and a lock file with a number that is another process's by now.
    drop(UnixListener::bind(&path).unwrap());
    fs::write(home.path().join("test.sock.lock"), format!("{}\n", std::process::id())).unwrap();
    let _server = builder(&Default::default()).bind(&path).unwrap();
    assert_eq!(Client::connect(&path).unwrap().call("echo", b"served").unwrap(), b"served");
}

// Faults 15, 30.
#[test]
fn a_server_that_is_killed_in_the_middle_of_a_message_leaves_no_half_of_it_as_a_whole() {
    const TEST: &str = "processes::a_server_that_is_killed_in_the_middle_of_a_message_leaves_no_half_of_it_as_a_whole";
    if let Some(path) = path_of_role() {
        let _server = Server::builder()
            .unary_reader("size", |_, request| {
                Ok(std::io::copy(request, &mut std::io::sink())?.to_string().into_bytes())
            })
            .unary_writer("endless", |_, reply| Ok(std::io::copy(&mut std::io::repeat(7), reply).map(drop)?))
            .bind(&path)
            .unwrap();
        Role::wait_to_be_killed();
    }
    let home = tempfile::tempdir().unwrap();
    let mut server = role(TEST, &home.path().join("run").join("test.sock"));
    let client = server.connect();
    let mut reply = client.call_reader("endless", b"").unwrap();
    let mut request = client.call_writer("size", b"").unwrap();
    reply.read_exact(&mut [0; 100_000]).unwrap();
    request.write_all(&[7; 1_000_000]).unwrap();
    server.kill();
    let error = reply.read_to_end(&mut Vec::new()).unwrap_err();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    assert!(matches!(inner, Some(CallError::Unknown)), "{error:?}");
    let error = loop {
        if let Err(error) = request.write_all(&[7; 1_000]) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error:?}");
    assert!(matches!(request.finish(), Err(CallError::Unknown)));
}
