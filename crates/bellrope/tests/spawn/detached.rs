//! What a server has of the process that started it: nothing.

use std::{
    io::Read as _,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use bellrope::Client;
use bellrope_testkit::{program::Running, support::eventually};

use crate::parts::{Home, signal, who, written};

#[test]
fn a_server_runs_in_the_root_directory_in_a_session_of_its_own() {
    let home = Home::new();
    let gone = home.path("worktree");
    std::fs::create_dir(&gone).unwrap();
    let out = home.path("out");
    assert!(home.client(&out, "").current_dir(&gone).status().unwrap().success());
    let server = written(&out);
    assert_eq!(server["directory"], "/");
    let stat = server["stat"].as_str().unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let pid = server["pid"].to_string();
    assert_eq!((fields[2], fields[3], fields[4]), (&*pid, &*pid, "0"), "group, session, terminal: {stat}");
    // The directory of its starter may go.
    std::fs::remove_dir(&gone).unwrap();
    assert_eq!(who(&Client::connect(home.socket()).unwrap())["pid"].to_string(), pid);
}

#[test]
fn a_server_has_the_listed_variables_of_its_starter_and_no_others() {
    let home = Home::new();
    let out = home.path("out");
    let mut starter = home.client(&out, "");
    starter.envs([
        ("HOME", "/h"),
        ("LC_ALL", "C"),
        ("https_proxy", "p"),
        ("KEY_OF_A_PROVIDER", "k"),
        ("XDG_DATA_HOME", "/d"),
    ]);
    starter.envs([
        ("SECRET", "s"),
        ("TMPDIR", "/t"),
        ("LD_LIBRARY_PATH", "/l"),
        ("NOTIFY_SOCKET", "/n"),
        ("PWD", "/p"),
    ]);
    assert!(starter.status().unwrap().success());
    let server = written(&out);
    let mut names: Vec<_> = server["variables"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let of_tests = ["BELLROPE_TEST_", "LLVM_PROFILE_", "__LLVM_PROFILE_"];
    names.retain(|name| !of_tests.iter().any(|start| name.starts_with(start)));
    names.sort_unstable();
    assert_eq!(names, ["HOME", "KEY_OF_A_PROVIDER", "LC_ALL", "XDG_DATA_HOME", "https_proxy"]);
}

#[test]
fn a_server_holds_no_descriptor_of_its_starter_so_whoever_reads_its_output_sees_the_end() {
    let home = Home::new();
    let (out, marker) = (home.path("out"), home.path("marker"));
    std::fs::write(&marker, "").unwrap();
    let starter = home.client(&out, "");
    let mut shell = Command::new("sh");
    let opened: String = (3..=9).map(|fd| format!(" {fd}<\"$MARKER\"")).collect();
    shell
        .arg("-c")
        .arg(format!("exec{opened}; exec \"$0\" \"$@\" 2>&1"))
        .arg(starter.get_program())
        .args(starter.get_args());
    shell.env_clear().envs(starter.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("MARKER", &marker);
    let mut child = shell.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = Vec::new();
    // It would wait for ever if the server held the other end, as that lives on.
    child.stdout.take().unwrap().read_to_end(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    let server = written(&out);
    assert!(home.server().is_some());
    let descriptors: Vec<_> =
        server["descriptors"].as_array().unwrap().iter().map(|target| target.as_str().unwrap()).collect();
    assert!(
        !descriptors.iter().any(|target| *target == marker.to_str().unwrap() || target.starts_with("pipe:")),
        "{descriptors:?}"
    );
    assert!(descriptors.contains(&home.path("log").to_str().unwrap()), "{descriptors:?}");
}

/// The same program, which heeds signals also where this one was started to ignore them, as a shell's background jobs are.
fn heeding_signals(command: &Command) -> Command {
    let mut env = Command::new("/usr/bin/env");
    env.arg("--default-signal=INT,HUP").arg(command.get_program()).args(command.get_args());
    env.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    env
}

#[test]
fn signals_to_its_starters_group_do_not_reach_a_server_and_streams_of_others_go_on() {
    for (name, ends) in [("INT", true), ("HUP", true), ("TSTP", false)] {
        let home = Home::new();
        let out = home.path("out");
        let client = home.client(&out, "");
        let mut starter = Running::start(heeding_signals(&client).env("BELLROPE_TEST_STAY", "1").process_group(0));
        let server = written(&out)["pid"].clone();
        let other = Client::connect(home.socket()).unwrap();
        let mut ticks = other.stream("ticks", b"").unwrap();
        assert_eq!(ticks.next().unwrap().unwrap(), 0_u64.to_le_bytes());
        signal(name, format_args!("-{}", starter.id()));
        if ends {
            eventually("the end of the starter", || starter.ended().is_some());
        }
        // More of them than the stream's window and the ring hold, so the server has sent some since.
        for n in 1..100_000_u64 {
            assert_eq!(ticks.next().unwrap().unwrap(), n.to_le_bytes());
        }
        assert_eq!(who(&other)["pid"], server);
        signal("CONT", format_args!("-{}", starter.id()));
    }
}
