//! A library that brings its own server: the programs that use it share one, which the first of them starts and which ends
//! when none is left. `cargo run --release -p bellrope --example own_server`, as often and as many at once as you like.
#![allow(dead_code, reason = "a test takes it in without `main`")]
#![allow(clippy::print_stdout, reason = "its user reads what it prints")]

use std::{
    error::Error,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bellrope::{
    Client, Server,
    client::{ClientConfig, Spawn},
    default_socket_path,
    server::ServerConfig,
};

/// How long the server waits for the next program that uses it.
const IDLE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    // The program is its own server.
    let spawn = Spawn::program(std::env::current_exe()?);
    run(std::env::args_os().skip(1), spawn)
}

/// `own_server [SOCKET]` takes a ticket; `own_server serve SOCKET` is the server.
pub fn run(arguments: impl Iterator<Item = OsString>, spawn: Spawn) -> Result<(), Box<dyn Error>> {
    match &arguments.collect::<Vec<_>>()[..] {
        [command, socket] if command == "serve" => serve(Path::new(socket)),
        given => {
            let socket = given.first().map_or_else(default, PathBuf::from);
            println!("ticket {} of this user", take_ticket(&socket, spawn)?);
            Ok(())
        }
    }
}

fn default() -> PathBuf {
    default_socket_path().with_file_name("tickets.sock")
}

/// What programs call that use the library. They know nothing of a server.
pub fn take_ticket(socket: &Path, spawn: Spawn) -> Result<u64, Box<dyn Error>> {
    // The server runs in another directory.
    let socket = std::path::absolute(socket)?;
    let spawn = spawn.arg("serve").arg(&socket);
    let client = Client::connect_or_spawn(ClientConfig::new(socket), &spawn)?;
    Ok(String::from_utf8(client.call("ticket", b"")?)?.parse()?)
}

/// The server. What it writes to standard error is found in its log.
fn serve(socket: &Path) -> Result<(), Box<dyn Error>> {
    use std::io::Write as _;
    let next = AtomicU64::new(1);
    let server = Server::builder()
        .config(ServerConfig::new().exit_when_idle(IDLE))
        .unary("ticket", move |_, reply| Ok(write!(reply, "{}", next.fetch_add(1, Ordering::Relaxed))?))
        .bind(socket)?;
    server.wait();
    Ok(())
}
