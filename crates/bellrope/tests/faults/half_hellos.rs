//! Processes that begin handshakes without end, and finish none.

use std::{collections::VecDeque, time::Duration};

use bellrope::{Client, server::ServerConfig};
use bellrope_proto::handshake::{HELLO_LEN, Hello};
use bellrope_shm::socket::Socket;

use bellrope_testkit::support::{eventually, serve};

use super::processes::{path_of_role, role};

/// More than the server keeps half open, for each process that does this.
const HELD: usize = 400;
/// Honest clients at the least, and handshakes that came to nothing meanwhile.
const HONEST: usize = 40;

// Faults 19, 62.
#[test]
fn honest_clients_connect_at_the_first_try_beside_processes_that_send_half_a_hello_over_and_over() {
    const TEST: &str =
        "half_hellos::honest_clients_connect_at_the_first_try_beside_processes_that_send_half_a_hello_over_and_over";
    if let Some(path) = path_of_role() {
        let hello = Hello::default().encode();
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
            // Far more than there are places for, and still time for others on a machine of two CPUs.
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    let mut config = ServerConfig::default();
    // Time gives no place back within this test.
    config.handshake_timeout = Duration::from_secs(120);
    let server = serve(config);
    let _attackers = [role(TEST, &server.path), role(TEST, &server.path)];
    let counts = || server.server.metrics().snapshot();
    eventually("every place is taken, and some were put out", || counts().refused_connections > 0);
    // Those that wait long for being accepted have gone by then.
    let came_to_nothing = || counts().refused_connections + counts().unfinished_handshakes;
    let (mut honest, before) = (0, came_to_nothing());
    eventually("as many have connected, and as many other handshakes came to nothing", || {
        let client = Client::connect(&server.path).unwrap_or_else(|error| panic!("number {honest}: {error}"));
        assert_eq!(client.call("echo", b"honest").unwrap(), b"honest");
        honest += 1;
        honest >= HONEST && came_to_nothing() - before > HONEST as u64
    });
}
