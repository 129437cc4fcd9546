//! A server that has run out of descriptors, and one that is somebody else's.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixStream,
        process::CommandExt,
    },
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bellrope::{Client, client::ConnectError};
use bellrope_testkit::skipped;

use crate::{
    api_port,
    support::{Home, Running, eventually},
};

/// The user `nobody` of most systems.
const NOBODY: u32 = 65_534;
/// Clock ticks a second in `/proc`.
const TICKS: f64 = 100.0;

/// Seconds of CPU time that a process has used.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name may have blanks, and ends with the last parenthesis; user and system time are the 14th and 15th field.
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS
}

// Faults 22, 68.
#[test]
fn a_server_without_a_descriptor_left_rests_says_so_and_goes_on_later() {
    let home = Home::new();
    let server = Running::start(&mut home.shell("ulimit -n 48; exec \"$BELLROPE\" serve"));
    server.said("bellrope serves ");
    let mut held = Vec::new();
    let error = loop {
        assert!(held.len() < 48, "the limit is not there");
        match Client::connect(home.socket()) {
            Ok(client) => held.push(client),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("the server has no descriptor left; raise its limit on open files"), "{error}");

    // The last descriptor goes to one who says nothing, and then there is none for the next.
    let mut silent: Vec<_> = (0..4).map(|_| UnixStream::connect(home.socket()).unwrap()).collect();
    server.said("accepting failed");
    let (began, used) = (Instant::now(), cpu_seconds(server.id()));
    while began.elapsed() < Duration::from_millis(500) {
        assert_eq!(held[0].call("echo", b"served on").unwrap(), b"served on");
        silent.push(UnixStream::connect(home.socket()).unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    let share = (cpu_seconds(server.id()) - used) / began.elapsed().as_secs_f64();
    assert!(share < 0.5, "accepting in vain takes {:.0} % of a processor", share * 100.0);

    drop(silent);
    held.truncate(1);
    eventually("newcomers are let in again", || Client::connect(home.socket()).is_ok());
    assert_eq!(held[0].call("echo", b"still there").unwrap(), b"still there");
}

// Fault 25.
#[test]
fn a_client_trusts_no_server_of_another_user() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can start a server of another user");
    }
    let home = Home::new();
    let theirs = home.path("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::set_permissions(home.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = home.command(["serve"]);
    command.env("XDG_RUNTIME_DIR", &theirs).current_dir("/").uid(NOBODY).gid(NOBODY);
    let may_run = home.shell("test -x \"$BELLROPE\"").current_dir("/").uid(NOBODY).gid(NOBODY).status().unwrap();
    if !may_run.success() {
        return skipped("the other user may not run the program where it was built");
    }
    let server = Running::start(&mut command);
    server.said("bellrope serves ");
    let socket = theirs.join("bellrope").join("bellrope.sock");
    let error = Client::connect(&socket).unwrap_err();
    assert!(matches!(error, ConnectError::ForeignServer { uid: NOBODY, .. }), "{error}");
    let said = home.run(["call".as_ref(), "--socket".as_ref(), socket.as_os_str(), "echo".as_ref(), "x".as_ref()]);
    assert!(said.failed(1).contains("65534"));
}

#[test]
fn openais_api_serves_no_other_user() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can connect as another user");
    }
    let home = Home::new();
    let server = home.serve(["--api-port", "0"]);
    let address = api_port::address(&server);
    let (host, port) = address.rsplit_once(':').unwrap();
    let ask = |user: u32| {
        let head = format!("GET /v1/models HTTP/1.1\\r\\nHost: {address}\\r\\nConnection: close\\r\\n\\r\\n");
        let script = format!("exec 3<>/dev/tcp/{host}/{port} && printf '{head}' >&3 && cat <&3");
        let mut shell = Command::new("bash");
        shell.args(["-c", &script]).current_dir("/").uid(user).gid(user);
        shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Running::start(&mut shell).finish().stdout
    };
    let served = ask(0);
    assert!(served.starts_with("HTTP/1.1 200 "), "{served}");
    assert_eq!(ask(NOBODY), "");
    let said = server.said("a connection to the API port was closed: ");
    assert!(said.contains("it comes from user 65534; only user 0 and root are served"), "{said}");
}
