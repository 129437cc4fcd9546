//! Processes that begin handshakes without end, and finish none.

use std::{collections::VecDeque, time::Duration};

use bellrope::{Client, server::ServerConfig};
use bellrope_proto::handshake::{HELLO_LEN, Hello};
use bellrope_shm::socket::Socket;

use bellrope_testkit::support::{eventually, serve};

use super::processes::{path_of_role, role};

/// More than the server keeps half open, for each process that does this.
const HELD: usize = 400;
const HONEST: usize = 60;

// Faults 19, 62.
#[test]
fn honest_clients_connect_at_the_first_try_beside_processes_that_send_half_a_hello_over_and_over() {
    const TEST: &str =
        "half_hellos::honest_clients_connect_at_the_first_try_beside_processes_that_send_half_a_hello_over_and_over";
    if let Some(path) = path_of_role() {
        let hello = Hello { features: 0, class: 0, name: String::new() }.encode();
        let mut held = VecDeque::new();
        loop {
            let Ok(socket) = Socket::connect(&path) else {
                // As many wait as the kernel lets wait; or the test is over, and we are killed.
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            let _ = socket.send(&hello[..HELLO_LEN / 2]);
            held.push_back(socket);
            if held.len() > HELD {
                held.pop_front();
            }
        }
    }
    let mut config = ServerConfig::default();
    // Time gives no place back within this test.
    config.handshake_timeout = Duration::from_secs(120);
    let server = serve(config);
    let _attackers = [role(TEST, &server.path), role(TEST, &server.path)];
    let refused = || server.server.metrics().snapshot().refused_connections;
    eventually("every place is taken, and some were put out", || refused() > 0);
    for number in 0..HONEST {
        let client = Client::connect(&server.path).unwrap_or_else(|error| panic!("number {number}: {error}"));
        assert_eq!(client.call("echo", b"honest").unwrap(), b"honest");
    }
    assert!(refused() > HONEST as u64, "it was quiet meanwhile");
}
