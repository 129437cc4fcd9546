//! What shared memory shows to whom, and when.

use std::{
    process::Command,
    sync::{Mutex, mpsc},
};

use bellrope::{Client, Server, server::ServerConfig};
use bellrope_proto::{
    frame::{Header, Kind},
    layout::{ASLEEP, RECORDS},
};
use bellrope_shm::sync::Ordering;

use bellrope_testkit::{
    raw::shake_hands,
    support::{PATIENCE, eventually, serve},
};

// Fault 12.
#[test]
fn a_connection_never_sees_what_another_has_left() {
    let server = serve(ServerConfig::default());
    for round in 0..20 {
        let (socket, memory, welcome) = shake_hands(&server.path, "heir");
        let geometry = welcome.terms.geometry;
        for (range, first_header) in [(geometry.requests(), ASLEEP), (geometry.responses(), 0)] {
            let view = memory.view(range);
            for at in (0..view.len()).step_by(8) {
                let word = view.load(at, Ordering::Relaxed);
                // The server may sleep on the first request already.
                assert!(word == 0 || (at == RECORDS && word == first_header), "round {round}: {word:#x} at {at}");
            }
        }
        // The server says that this breaks the rules, and closes the connection.
        for range in [geometry.responses(), geometry.requests()] {
            let view = memory.view(range);
            view.write(0, &vec![0x5A; view.len()]);
        }
        drop(socket);
        eventually("the connection is closed", || server.server.metrics().active_connections() == 0);
    }
}

// Fault 5.
#[test]
fn a_payload_that_changes_in_the_ring_does_not_change_for_its_handler() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let (enter, entered) = mpsc::channel();
    let (change, changed) = mpsc::channel::<()>();
    let changed = Mutex::new(changed);
    let _server = Server::builder()
        .unary("read_twice", move |call, reply| {
            let first = call.payload().to_vec();
            let _ = enter.send(());
            let _ = changed.lock().unwrap().recv_timeout(PATIENCE);
            reply.put(if call.payload() == first { b"the same" } else { b"changed!" });
            Ok(())
        })
        .bind(&path)
        .unwrap();
    for len in [8, 64, 4096, 60_000] {
        let (socket, memory, welcome) = shake_hands(&path, "changeable");
        let geometry = welcome.terms.geometry;
        let (requests, responses) = (memory.view(geometry.requests()), memory.view(geometry.responses()));
        requests.write(RECORDS + 16, &vec![1; len]);
        let header = Header { len: len as u32, message_type: 1, kind: Kind::Request, extended: false };
        requests.store(RECORDS, header.encode(), Ordering::Release);
        socket.ring();
        entered.recv_timeout(PATIENCE).unwrap();
        requests.write(RECORDS, &vec![2; len + 16]);
        change.send(()).unwrap();
        eventually("an answer", || responses.load(RECORDS, Ordering::Acquire) as u32 == 8);
        let mut answer = [0; 8];
        responses.read(RECORDS + 16, &mut answer);
        assert_eq!(&answer, b"the same", "of {len} bytes");
    }
}

// Fault 27.
#[test]
fn a_child_inherits_neither_descriptors_nor_memory_of_a_connection() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    assert_eq!(client.call("echo", b"connected").unwrap(), b"connected");
    // `sh` and what it starts have what any program has that is started here.
    let listed = Command::new("/bin/sh").args(["-c", "ls -l /proc/$$/fd"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains(" 1 -> "), "{listed}");
    for ours in ["memfd:bellrope", "anon_inode:[eventpoll]", "anon_inode:[eventfd]", "socket:["] {
        let inherited: Vec<_> = listed.lines().filter(|line| line.contains(ours)).collect();
        // The test itself may have been given a socket to write to.
        assert!(inherited.iter().all(|line| (0..3).any(|fd| line.contains(&format!(" {fd} -> ")))), "{inherited:#?}");
    }
    // A child that is forked, and starts no program, is another matter: the memory is marked as not for it.
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let rings: Vec<_> = maps.split_inclusive("VmFlags:").zip(maps.split("VmFlags:").skip(1)).collect();
    let rings = rings.iter().filter(|(mapping, _)| mapping.contains("memfd:bellrope"));
    let flags: Vec<_> = rings.map(|(_, flags)| flags.lines().next().unwrap()).collect();
    assert!(flags.len() >= 2, "one mapping for the server, one for the client");
    assert!(flags.iter().all(|flags| flags.split_whitespace().any(|flag| flag == "dc")), "{flags:?}");
}
