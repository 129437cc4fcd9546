//! Where every place is taken, newcomers wait for one in turns by process, and no process fills the room that there is for them.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, mpsc},
    time::Duration,
};

use bellrope::{
    Client, Server,
    client::{CallOptions, Connection},
    server::ServerConfig,
};
use bellrope_proto::handshake::Hello;
use bellrope_shm::socket::Socket;
use bellrope_testkit::{
    raw::{be_welcomed, try_to_shake_hands},
    role,
    support::{PATIENCE, eventually},
};

const DID: &str = "what came of it: ";
/// Of these one is the test's own.
const PLACES: u32 = 9;
/// How many newcomers may wait.
const ROOM: u32 = 4;

fn marked(path: &Path, mark: &str) -> PathBuf {
    path.with_extension(mark)
}

fn says_hello(path: &Path) -> Socket {
    let socket = Socket::connect(path).unwrap();
    socket.set_nonblocking(false).unwrap();
    socket.send(&Hello::default().encode()).unwrap();
    socket
}

// Fault 62.
#[test]
fn a_process_whose_newcomers_fill_the_room_for_those_that_wait_keeps_no_other_one_out() {
    const TEST: &str = "newcomers::a_process_whose_newcomers_fill_the_room_for_those_that_wait_keeps_no_other_one_out";
    if let Some(path) = role::is_played_here("holder") {
        let path = Path::new(&path);
        let held: Vec<_> = (1..PLACES).map(|_| Connection::connect(path).unwrap()).collect();
        std::fs::write(marked(path, "held"), "").unwrap();
        eventually("the others are done", || marked(path, "done").exists());
        drop(held);
        return role::say(DID, "held");
    }
    if let Some(path) = role::is_played_here("crowd") {
        let path = Path::new(&path);
        let waiting: Vec<_> = (0..ROOM).map(|_| says_hello(path)).collect();
        // Theirs come first. One more has no room: no process has more of those that wait than its own.
        be_welcomed(&says_hello(path)).unwrap_err();
        std::fs::write(marked(path, "crowded"), "").unwrap();
        let gave_way = be_welcomed(&waiting[waiting.len() - 1]).unwrap_err();
        std::fs::write(marked(path, "gave-way"), "").unwrap();
        eventually("the others are done", || marked(path, "done").exists());
        return role::say(DID, gave_way);
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("newcomers.sock");
    let mut config = ServerConfig::new().workers(1).max_connections(PLACES).max_half_open(ROOM);
    config.handshake_timeout = Duration::from_secs(60);
    let ((open, opened), (began, begun)) = (mpsc::channel::<()>(), mpsc::channel());
    let opened = Mutex::new(opened);
    let _server = Server::builder()
        .config(config)
        .unary("hold", move |_, _| {
            began.send(()).unwrap();
            let _ = opened.lock().unwrap().recv();
            Ok(())
        })
        .bind(&path)
        .unwrap();
    let client = Client::connect(&path).unwrap();
    let holder = role::start(TEST, "holder", &path, &[], false);
    eventually("every place is taken", || marked(&path, "held").exists());
    // As long as the worker is at work none of them is given up.
    let holding =
        std::thread::spawn(move || client.call_with("hold", b"", &CallOptions::new().timeout(2 * PATIENCE)).unwrap());
    begun.recv_timeout(PATIENCE).unwrap();
    let crowd = role::start(TEST, "crowd", &path, &[], false);
    eventually("newcomers of one process have all the room", || marked(&path, "crowded").exists());
    let honest = std::thread::spawn({
        let path = path.clone();
        move || try_to_shake_hands(&path, "honest").map(drop)
    });
    eventually("one of them gives way", || marked(&path, "gave-way").exists() || honest.is_finished());
    drop(open);
    honest.join().unwrap().expect("there was room for it to wait, and then a place");
    std::fs::write(marked(&path, "done"), "").unwrap();
    holding.join().unwrap();
    let told = crowd.end(DID);
    assert!(told.contains("9 connections are open, the limit max_connections"), "{told}");
    assert_eq!(holder.end(DID), "held");
}
