//! Server and client where the system gives them less than they are used to: namespaces of their own, filters and limits.
//! Each works, or says in words what is in the way.

use std::{
    fs,
    io::Write,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bellrope::Client;
use bellrope_testkit::skipped;
use rustix::process::Signal;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::support::{Finished, Home, PATIENCE, Running, eventually};

/// Whether a program may be run with these namespaces of its own.
pub(crate) fn may_unshare(flags: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("unshare {flags} true")]).stdout(Stdio::null()).stderr(Stdio::null());
    let may = command.status().is_ok_and(|status| status.success());
    if !may {
        skipped(&format!("unshare {flags} is not allowed here"));
    }
    may
}

/// Starts a server behind what `before` does, in the shell.
pub(crate) fn serve_behind(home: &Home, before: &str, arguments: &str) -> Running {
    let server = Running::start(&mut home.shell(&format!("{before} \"$BELLROPE\" serve {arguments}")));
    server.said("bellrope serves ");
    server
}

/// Runs a command of the program behind what `before` does.
fn run_behind(home: &Home, before: &str, arguments: &str) -> Finished {
    Running::start(&mut home.shell(&format!("{before} \"$BELLROPE\" {arguments}"))).finish()
}

/// Namespaces of their own, as containers have them. The last program of each is killed with `unshare`.
const CONTAINERS: [&str; 5] = [
    "exec unshare -pf --kill-child --mount-proc",
    "exec unshare -pmn -f --kill-child --mount-proc",
    "exec unshare -Tf --monotonic 100000 --boottime 100000 --kill-child",
    // As the first, and what /proc has belongs to another namespace, or nothing is there.
    "exec unshare -pmf --kill-child sh -c 'mount -t tmpfs none /proc; exec \"$0\" \"$@\"'",
    // Nothing can be written but the directory of the socket, and shared memory by name is 64 KiB.
    "exec unshare -pmf --kill-child sh -c 'mount --bind \"$XDG_RUNTIME_DIR\" \"$XDG_RUNTIME_DIR\" && mount -o remount,bind,ro / \
     && mount -t tmpfs -o size=64k none /dev/shm && exec \"$0\" \"$@\"'",
];

// Fault 56.
#[test]
fn server_and_client_work_together_from_different_namespaces() {
    for inside in CONTAINERS {
        let flags = inside.strip_prefix("exec unshare ").unwrap();
        let flags = flags.split(" sh -c").next().unwrap();
        if !may_unshare(flags) {
            continue;
        }
        let home = Home::new();
        for (server, client) in [(inside, "exec"), ("exec", inside), (inside, inside)] {
            let serving = serve_behind(&home, server, "");
            let rung = run_behind(&home, client, "call echo 'from far away'");
            assert_eq!(rung.succeeded(), "from far away", "server: {server}, client: {client}");
            let health = run_behind(&home, client, "health");
            assert!(health.succeeded().contains("healthy"), "server: {server}, client: {client}");
            drop(serving);
            // The one inside dies a moment after `unshare` does.
            eventually("the end of the server", || Client::connect(home.socket()).is_err());
        }
    }
}

// Faults 56, 57.
#[test]
fn a_user_whom_a_namespace_does_not_map_is_refused_in_words_on_both_sides() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only as root is it known which of both sides refuses");
    }
    if !may_unshare("-U") {
        return;
    }
    let home = Home::new();
    let server = serve_behind(&home, "exec", "");
    let said = run_behind(&home, "exec unshare -U", "call echo x").failed(1);
    assert!(said.contains("runs as user 65534, neither you nor root; it was not trusted"), "{said}");
    assert!(said.contains("run both sides in one"), "{said}");
    drop(server);

    let server = serve_behind(&home, "exec unshare -U", "");
    let said = run_behind(&home, "exec", "call echo x").failed(1);
    assert!(said.contains("user 65534 stands for every user that the server's user namespace does not map"), "{said}");
    let logged = server.said("connection refused: ");
    assert!(logged.contains("user 65534 stands for") && logged.contains("forbidden"), "{logged}");
}

// Fault 61.
#[test]
fn a_log_that_nobody_reads_holds_up_no_call_no_probe_and_no_signal() {
    let home = Home::new();
    let mut command = home.command(["serve", "--log", "trace"]);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut unread = child.stderr.take().unwrap();
    eventually("the server", || Client::connect(home.socket()).is_ok());
    let client = Client::connect(home.socket()).unwrap();
    // Far more than a pipe and the queue take: every call leaves a line.
    let ended = || {
        let status = client.call("bellrope.stats", b"").unwrap();
        let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
        status["health"]["total_requests"].as_u64().unwrap()
    };
    for _ in 0..20_000 {
        assert_eq!(client.call("echo", b"ding").unwrap(), b"ding");
    }
    assert!(ended() >= 20_000);
    for _ in 0..10 {
        assert_eq!(Client::connect(home.socket()).unwrap().call("echo", b"new").unwrap(), b"new");
    }
    // Told to stop, it stops, and waits no longer than a moment for whoever should read what is left.
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.expect("it hangs").success());
    let mut said = String::new();
    std::io::Read::read_to_string(&mut unread, &mut said).unwrap();
    assert!(said.contains("bellrope serves "), "what was said before the pipe was full is there");
}

/// A user who has no other process on this machine, with a home.
struct Stranger {
    user: u32,
    home: Home,
}

impl Stranger {
    /// The number is this one plus our process id. `None`: the program cannot be run so, which was said.
    fn new(first: u32) -> Option<Self> {
        let stranger = Self { user: first + std::process::id(), home: Home::new() };
        fs::set_permissions(stranger.home.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(stranger.theirs()).unwrap();
        chown(stranger.theirs(), Some(stranger.user), Some(stranger.user)).unwrap();
        let may_run = Running::start(&mut stranger.shell("test -x \"$BELLROPE\"")).finish();
        if may_run.code != Some(0) {
            skipped("another user may not run the program where it was built");
            return None;
        }
        Some(stranger)
    }

    fn theirs(&self) -> std::path::PathBuf {
        self.home.path("theirs")
    }

    /// A shell of this user.
    fn shell(&self, script: &str) -> Command {
        let mut shell = self.home.shell(script);
        self.become_them(&mut shell);
        shell
    }

    fn become_them(&self, command: &mut Command) {
        command.env("XDG_RUNTIME_DIR", self.theirs()).current_dir("/").uid(self.user).gid(self.user);
    }
}

/// Set in the process that keeps descriptors in flight.
const IN_FLIGHT: &str = "BELLROPE_TEST_IN_FLIGHT";

// Faults 57, 68.
#[test]
fn descriptors_in_flight_of_the_same_user_are_named_to_both_sides() {
    use std::io::{BufRead as _, BufReader, Read as _};

    use bellrope_shm::{SharedMemory, socket::Socket};

    const TEST: &str = "confined::descriptors_in_flight_of_the_same_user_are_named_to_both_sides";
    if std::env::var_os(IN_FLIGHT).is_some() {
        let (left, _right) = Socket::pair().unwrap();
        let (_memory, handle) = SharedMemory::create(4096).unwrap();
        (0..100).for_each(|_| assert_eq!(left.send_with_memory(&[1], &handle).unwrap(), 1));
        std::io::stdout().write_all(b"\nin flight\n").unwrap();
        let _ = std::io::stdin().read(&mut [0]);
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can start programs as a user without other processes");
    }
    let Some(stranger) = Stranger::new(3_500_000_000) else { return };
    let server = Running::start(&mut stranger.shell("ulimit -n 64; exec \"$BELLROPE\" serve"));
    server.said("bellrope serves ");
    let call =
        |options| Running::start(&mut stranger.shell(&format!("exec \"$BELLROPE\" call {options}echo x"))).finish();
    let shared = "--transport shm ";
    assert_eq!(call(shared).succeeded(), "x");

    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([TEST, "--exact", "--nocapture"]).env(IN_FLIGHT, "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    stranger.become_them(&mut command);
    let Ok(mut holder) = command.spawn() else {
        return skipped("another user may not run this test where it was built");
    };
    let mut said = BufReader::new(holder.stdout.take().unwrap()).lines();
    let holds = said.any(|line| line.is_ok_and(|line| line == "in flight"));
    let (refused, fell_back) = (call(shared), call(""));
    let _ = holder.kill();
    let _ = holder.wait();
    assert!(holds, "it could not send its descriptors");
    let reason =
        format!("more descriptors of user {} are in flight than its limit on open files allows", stranger.user);
    assert!(refused.failed(1).contains(&reason));
    server.said(&reason);
    // Whoever may do without shared memory is served, and told as well.
    assert!(fell_back.code == Some(0) && fell_back.stdout == "x", "{fell_back:?}");
    assert!(fell_back.stderr.contains(&reason), "{fell_back:?}");
    eventually("the server is as it was", || call(shared).code == Some(0));
}

/// Says which test is to filter its system calls and then become the program.
pub(crate) const FILTERED: &str = "BELLROPE_TEST_FILTERED";

/// And which system call is denied it.
const DENIED: &str = "BELLROPE_TEST_DENIED";

/// Becomes the program, where a system call is denied.
pub(crate) fn become_filtered(program: &str) -> ! {
    let number = std::env::var(DENIED).unwrap().parse().unwrap();
    let denied = SeccompFilter::new(
        [(number, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(1),
        TargetArch::try_from(std::env::consts::ARCH).unwrap(),
    );
    let denied: BpfProgram = denied.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&denied).unwrap();
    let arguments = std::env::var(FILTERED).unwrap();
    panic!("{}", Command::new(program).args(arguments.split(' ')).env_remove(FILTERED).env_remove(DENIED).exec())
}

/// Runs a command of the program in this home where a system call is denied, through this test, which becomes it.
pub(crate) fn run_filtered(home: &Home, test: &str, denied: i64, arguments: &str) -> Running {
    Running::start(&mut filtered(home, test, denied, arguments))
}

pub(crate) fn filtered(home: &Home, test: &str, denied: i64, arguments: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env_clear().env("XDG_RUNTIME_DIR", home.path(""));
    command.env(FILTERED, arguments).env(DENIED, denied.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The number of a system call, by architecture.
pub(crate) fn by_architecture(x86_64: i64, others: i64) -> i64 {
    if cfg!(target_arch = "x86_64") { x86_64 } else { others }
}

// Fault 68.
#[test]
fn where_a_sandbox_denies_what_nobody_can_do_without_it_is_named_on_both_sides() {
    const TEST: &str = "confined::where_a_sandbox_denies_what_nobody_can_do_without_it_is_named_on_both_sides";
    if std::env::var_os(FILTERED).is_some() {
        become_filtered(env!("CARGO_BIN_EXE_bellrope"));
    }
    let home = Home::new();
    let calls = [
        ("accept4", by_architecture(288, 242), true, false),
        ("eventfd2", by_architecture(290, 19), true, true),
        ("epoll_create1", by_architecture(291, 20), true, true),
        ("epoll_ctl", by_architecture(233, 21), true, true),
        ("epoll_wait", by_architecture(232, 22), true, false),
        ("epoll_pwait", by_architecture(281, 22), true, false),
        ("sendto", by_architecture(44, 206), true, true),
        ("recvfrom", by_architecture(45, 207), true, true),
        ("connect", by_architecture(42, 203), false, true),
        ("getsockopt", by_architecture(55, 209), true, true),
        ("recvmsg", by_architecture(47, 212), false, true),
    ];
    for (name, number, of_server, _) in calls {
        if of_server {
            let said = run_filtered(&home, TEST, number, "serve").finish();
            let named = format!("{name}, which a sandbox must let through: Operation not permitted");
            assert!(said.code == Some(1) && said.stderr.contains(&named), "{name}: {said:?}");
            let refused = run_behind(&home, "exec", "call echo x").failed(1);
            assert!(refused.contains("no server listens at "), "{name}: {refused}");
        }
    }
    let _server = home.serve::<&str>([]);
    for (name, number, _, of_client) in calls {
        let rung = run_filtered(&home, TEST, number, "call echo x").finish();
        let named = format!("{name}, which a sandbox must let through: Operation not permitted");
        assert!(
            if of_client { rung.code == Some(1) && rung.stderr.contains(&named) } else { rung.stdout.ends_with('x') },
            "{name}: {rung:?}"
        );
    }
}

// Fault 68.
#[test]
fn where_a_sandbox_denies_shared_memory_a_server_serves_over_the_socket_and_doctor_says_why() {
    const TEST: &str =
        "confined::where_a_sandbox_denies_shared_memory_a_server_serves_over_the_socket_and_doctor_says_why";
    if std::env::var_os(FILTERED).is_some() {
        become_filtered(env!("CARGO_BIN_EXE_bellrope"));
    }
    let home = Home::new();
    // memfd_create.
    let run = |arguments: &str| run_filtered(&home, TEST, by_architecture(319, 279), arguments);
    let server = run("serve");
    let warned = server.said("making the shared memory that every connection needs");
    assert!(warned.contains("WARN") && warned.contains("Operation not permitted"), "{warned}");
    assert!(warned.contains("connections go over the socket alone"), "{warned}");
    server.said("bellrope serves ");
    for options in ["", "--transport auto ", "--transport stream "] {
        let rung = run_behind(&home, "exec", &format!("call {options}echo ding"));
        assert_eq!(rung.stdout, "ding", "{rung:?}");
        let fell_back = rung.stderr.contains("no shared memory for this connection");
        assert_eq!(fell_back, options != "--transport stream ", "{rung:?}");
    }
    let refused = run_behind(&home, "exec", "call --transport shm echo ding").failed(1);
    assert!(refused.contains("the server could not make the memory of the connection"), "{refused}");
    server.signal(Signal::TERM);
    assert_eq!(server.finish().code, Some(0));

    let said = run("serve --set server.stream_transport=false").finish();
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("making the shared memory that every connection needs"), "{said:?}");
    assert!(said.stderr.contains("memfd_create") && said.stderr.contains("Operation not permitted"), "{said:?}");
    assert!(!said.stderr.contains("bellrope serves "), "{said:?}");
    let said = run("doctor").finish();
    assert!(said.stdout.contains("let memfd_create through where a sandbox filters system calls"), "{said:?}");
    assert!(said.stdout.contains("connections go over the socket alone"), "{said:?}");
}

// Fault 68.
#[test]
fn a_client_without_a_descriptor_for_shared_memory_calls_over_the_socket_and_says_so() {
    let home = Home::new();
    let _server = serve_behind(&home, "exec", "");
    // With ever more descriptors, until it can call at all.
    let mut rungs = (4..64).map(|limit| run_behind(&home, &format!("ulimit -n {limit}; exec"), "call echo ding"));
    let rung = rungs.find(|rung| rung.code == Some(0)).expect("64 descriptors are enough");
    assert_eq!(rung.stdout, "ding");
    assert!(rung.stderr.contains("no shared memory for this connection"), "{rung:?}");
}

// Fault 68.
#[test]
fn a_limit_on_the_size_of_files_refuses_the_start_or_loses_lines_and_ends_nothing() {
    let home = Home::new();
    // In blocks of 512 bytes: less than the rings of a connection.
    let said = run_behind(&home, "ulimit -f 100; exec", "serve --set server.stream_transport=false").failed(1);
    assert!(said.contains("making the shared memory that every connection needs"), "{said}");
    assert!(said.contains("the limit on the size of files, 51200 bytes (RLIMIT_FSIZE, ulimit -f)"), "{said}");

    // As much as the rings need, and a log that is as large already.
    let log = home.path("log");
    fs::File::create(&log).unwrap().set_len(1_100 * 512).unwrap();
    let script = format!("ulimit -f 1100; exec \"$BELLROPE\" serve --health 127.0.0.1:0 2>>'{}'", log.display());
    let server = Running::start(&mut home.shell(&script));
    eventually("the server", || Client::connect(home.socket()).is_ok());
    let client = Client::connect(home.socket()).unwrap();
    assert_eq!(client.call("echo", b"without a log").unwrap(), b"without a log");
    assert_eq!(fs::metadata(&log).unwrap().len(), 1_100 * 512);
    server.signal(Signal::TERM);
    assert_eq!(server.finish().code, Some(0));
}

// Fault 68.
#[test]
fn a_limit_on_data_refuses_the_call_that_does_not_fit_and_serves_all_others() {
    const MIB: usize = 1024 * 1024;
    let home = Home::new();
    // In KiB: enough for the program and small calls, not for a message of the largest size.
    let server = serve_behind(
        &home,
        "ulimit -d 40000; exec",
        "--set server.max_message_bytes=67108864 --set server.buffer_budget_bytes=80000000",
    );
    let mut config = bellrope::client::ClientConfig::new(home.socket());
    config.max_message_bytes = 64 * MIB as u32;
    let client = Client::with(config).unwrap();
    let error = client.call("echo", &vec![1; 60 * MIB]).unwrap_err().to_string();
    assert!(error.contains("the system gives the server no 62914560 bytes of memory"), "{error}");
    assert!(error.contains("the call has not run"), "{error}");
    server.said("the system gives the server no 62914560 bytes of memory");
    assert_eq!(client.call("echo", b"small").unwrap(), b"small");
    assert_eq!(client.call("echo", &vec![1; MIB]).unwrap().len(), MIB);
}

// Fault 68.
#[test]
fn with_too_little_memory_a_server_does_not_start_and_says_which_limit_is_in_the_way() {
    let home = Home::new();
    for (option, name) in [("d", "(RLIMIT_DATA, ulimit -d)"), ("v", "(RLIMIT_AS, ulimit -v)")] {
        let mut refused = 0;
        // In KiB, from the first of these with which the program can be loaded, up to less than it asks for before anything else.
        for kib in (1..400).map(|times| times * 1_000) {
            let server = Running::start(&mut home.shell(&format!("ulimit -{option} {kib}; exec \"$BELLROPE\" serve")));
            let said = server.finish();
            let in_words = said.code == Some(1) && said.stderr.starts_with("error: ") && said.stderr.contains(name);
            assert!(in_words || refused == 0, "{option} {kib}: {said:?}");
            refused += u32::from(in_words);
            if refused == 6 {
                break;
            }
        }
        assert_eq!(refused, 6, "{option}");
    }
}

// Fault 68.
#[test]
fn where_no_thread_can_be_started_the_server_says_so_and_does_not_panic() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can start a program as a user without other processes");
    }
    let Some(stranger) = Stranger::new(3_000_000_000) else { return };
    let run = |script: &str| Running::start(&mut stranger.shell(script)).finish();
    // `timeout` is one process and the program another: from not even the thread of the log to all that there are.
    let mut refused = 0;
    for most in 2..=10 {
        // It asks two servers for models, each on a thread of its own; nobody listens there.
        let said = run(&format!(
            "BELLROPE_LOCAL_MODELS=ollama=1,llamacpp=1 exec timeout 1 prlimit --nproc={most} \"$BELLROPE\" serve"
        ));
        assert!(!said.stderr.contains("panicked"), "with {most}: {said:?}");
        if said.code == Some(1) {
            assert!(said.stderr.contains("error: starting "), "with {most}: {said:?}");
            assert!(said.stderr.contains("Resource temporarily unavailable"), "with {most}: {said:?}");
            refused += 1;
        }
    }
    assert!(refused > 0, "the limit is not there");
}

#[test]
fn a_socket_path_that_is_too_long_is_refused_with_its_limit_and_the_option() {
    let home = Home::new();
    let long = home.path(&"x".repeat(120));
    for arguments in ["serve", "call echo x", "list", "stop", "health"] {
        let mut command = home.command(arguments.split(' '));
        let said = Running::start(command.env("XDG_RUNTIME_DIR", &long)).finish().failed(1);
        assert!(
            said.contains("is longer than 107 bytes, the most that a socket's may have; choose another (--socket)"),
            "{said}"
        );
        assert_eq!(said.matches("107").count(), 1, "{said}");
        assert!(!said.contains("SUN_LEN"), "{said}");
    }
}

// Fault 15.
#[test]
fn a_stopped_server_costs_a_command_no_more_than_its_time() {
    let home = Home::new();
    let server = home.serve::<&str>([]);
    server.signal(Signal::STOP);
    for (arguments, says) in [
        ("call --timeout 1 echo x", "within 1 s"),
        ("call --timeout 1 ai.chat_stream x", "within 1 s"),
        ("health", "no answer came in time"),
        ("breaker list", "no answer came in time"),
        ("top --once", "no answer came in time"),
    ] {
        // Five seconds is what connecting may take where nothing else is said. A busy machine may be slow, not each time.
        let in_time = (0..5).any(|_| {
            let began = Instant::now();
            let said = home.run(arguments.split(' ')).failed(1);
            assert!(said.contains(says), "{arguments}: {said}");
            began.elapsed() < Duration::from_millis(4_900)
        });
        assert!(in_time, "{arguments} takes as long as if it knew no time");
    }
    server.signal(Signal::CONT);
}
