//! Idle means no CPU.

use std::time::{Duration, Instant};

use bellrope::{Client, Server};
use bellrope_testkit::alone::alone;

#[test]
fn an_idle_server_and_its_idle_clients_use_no_cpu() {
    alone("idle::an_idle_server_and_its_idle_clients_use_no_cpu", come_to_rest);
}

fn come_to_rest() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let echo = Server::builder().unary("echo", |call, reply| {
        reply.put(call.payload());
        Ok(())
    });
    let _server = echo.bind(&path).unwrap();
    let clients: Vec<_> = (0..100).map(|_| Client::connect(&path).unwrap()).collect();
    for client in &clients {
        client.call("echo", b"").unwrap();
    }
    // Everybody has gone to sleep when a stretch of time passes with next to no CPU time of this process.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let before = bellrope_shm::process::cpu_time();
        std::thread::sleep(Duration::from_millis(200));
        if bellrope_shm::process::cpu_time() - before < Duration::from_millis(2) {
            break;
        }
        assert!(Instant::now() < deadline, "it does not come to rest");
    }
    assert_eq!(clients[0].call("echo", b"awake").unwrap(), b"awake");
}
