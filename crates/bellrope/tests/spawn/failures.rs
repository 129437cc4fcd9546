//! What a client says that has no server in the end.

use std::{
    fs,
    io::Write as _,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    time::Duration,
};

use bellrope::{
    Client,
    client::{ConnectError, Spawn, SpawnError},
};

use crate::parts::Home;

fn error(home: &Home, spawn: &Spawn) -> SpawnError {
    Client::connect_or_spawn(home.config(), spawn).unwrap_err()
}

#[test]
fn a_server_that_cannot_start_is_told_by_its_exit_code_and_its_last_line() {
    let home = Home::new();
    fs::write(home.path("log"), "a line of yesterday\n").unwrap();
    let error = error(&home, &home.spawn("broken"));
    let text = error.to_string();
    let SpawnError::Ended { status, last_line, log, .. } = error else { panic!("{text}") };
    assert_eq!((status.code(), last_line.as_deref()), (Some(3), Some("the licence has expired")));
    assert_eq!(log, Some(home.path("log")));
    assert!(text.contains("(exit status: 3); it said: the licence has expired (its log is /"), "{text}");
    // Behind an error may stand hints.
    let script = "printf 'error: no such option\n\nFor more information, try --help.\n'; exit 2";
    let hinting = Spawn::program("/bin/sh").args(["-c", script]).log(Some(home.path("log")));
    let text = Client::connect_or_spawn(home.config(), &hinting).unwrap_err().to_string();
    assert!(text.contains("(exit status: 2); it said: error: no such option (its log is /"), "{text}");
    // A server that says nothing has said nothing, whatever stands in the log before.
    let silent = Spawn::program("false").log(Some(home.path("log")));
    let text = Client::connect_or_spawn(home.config(), &silent).unwrap_err().to_string();
    assert!(text.contains("(exit status: 1) (its log is /"), "{text}");
}

#[test]
fn a_program_that_is_none_is_named() {
    let home = Home::new();
    let file = home.path("text");
    fs::write(&file, "no program").unwrap();
    for (program, what) in [
        (home.path("nothing"), "No such file or directory"),
        (file, "Permission denied"),
        ("no-program-has-this-name".into(), "No such file or directory"),
    ] {
        let spawn = Spawn::program(&program).log(Some(home.path("log")));
        let error = error(&home, &spawn);
        assert!(matches!(error, SpawnError::Start { .. }), "{error:?}");
        assert!(
            error.to_string().starts_with(&format!("{} cannot be started as a server: {what}", program.display())),
            "{error}"
        );
    }
}

#[test]
fn a_server_that_never_answers_is_ended_when_its_time_is_over() {
    let home = Home::new();
    let pid = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let noted = std::sync::Arc::clone(&pid);
    let spawn = home.spawn("stuck").timeout(Duration::from_millis(500));
    let spawn = spawn.on_start(move |started| noted.store(started.pid, std::sync::atomic::Ordering::SeqCst));
    let error = error(&home, &spawn);
    let text = error.to_string();
    assert!(matches!(error, SpawnError::TimedOut { .. }), "{text}");
    assert!(text.starts_with(&format!("no server answered at {} within 500ms", home.socket().display())), "{text}");
    let pid = pid.load(std::sync::atomic::Ordering::SeqCst);
    assert!(pid > 0 && !fs::exists(format!("/proc/{pid}")).unwrap(), "it is ended, and waited for");
}

#[test]
fn a_place_where_no_server_could_be_is_refused_before_anything_is_started() {
    let home = Home::new();
    let directory = home.path("run");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    let error = error(&home, &home.spawn(""));
    assert!(matches!(error, SpawnError::Directory { fault: "can be written by others", .. }), "{error}");
    assert_eq!(home.started.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[test]
fn what_is_there_and_is_no_server_is_left_alone() {
    let home = Home::new();
    fs::create_dir(home.path("run")).unwrap();
    fs::set_permissions(home.path("run"), fs::Permissions::from_mode(0o700)).unwrap();
    let listener = UnixListener::bind(home.socket()).unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stranger, _) = listener.accept().unwrap();
        stranger.write_all(&[b'x'; 64]).unwrap();
        // Held until the client has read it.
        let _ = std::io::Read::read(&mut stranger, &mut [0; 1024]);
        stranger
    });
    let error = error(&home, &home.spawn(""));
    assert!(matches!(error, SpawnError::Connect(ConnectError::Handshake(_))), "{error:?}");
    assert_eq!(home.started.load(std::sync::atomic::Ordering::SeqCst), 0);
    drop(answering.join().unwrap());
}

#[test]
fn where_no_log_can_be_written_a_server_starts_all_the_same_unless_one_was_asked_for() {
    let home = Home::new();
    fs::write(home.path("file"), "").unwrap();
    let asked = home.spawn("").log(Some(home.path("file").join("log")));
    let error = error(&home, &asked);
    assert!(matches!(error, SpawnError::Io { what: "opening the log", .. }), "{error}");
    // By default it lies beside the socket, where the user's own place for logs cannot be written to.
    let mut starter = home.client(&home.path("out"), "");
    starter.env("BELLROPE_TEST_LOG", "by default").env("HOME", home.path("file"));
    assert!(starter.status().unwrap().success());
    let said = fs::read_to_string(home.path("run").join("bell.sock.log")).unwrap();
    assert!(said.contains("running 1 test"), "{said}");
}
