//! Which user is at the other end of a connection.
//!
//! A Unix socket has a mode; a port of the loopback address is open to every user of the machine. The kernel's table of
//! TCP sockets names the user of each, so that the port serves whom the socket serves: its own user and root.

use std::net::SocketAddr;

use bellrope_shm::proc;

/// Whether a connection from `peer` may be served. `Err` says why not.
pub(super) fn check(peer: SocketAddr) -> Result<(), String> {
    let own = proc::own_user().map_err(|error| format!("our own user is not known: {error}"))?;
    match proc::user_of_tcp_socket(peer) {
        Ok(Some(user)) if user == own || user == 0 => Ok(()),
        Ok(Some(user)) => Err(format!("it comes from user {user}; only user {own} and root are served")),
        Ok(None) => Err("the kernel knows no such connection".to_owned()),
        Err(error) => Err(format!("its user cannot be found out: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_of_our_own_is_found_in_the_tables_of_this_machine() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let own = proc::own_user().unwrap();
        let address = stream.local_addr().unwrap();
        assert_eq!(proc::user_of_tcp_socket(address).unwrap(), Some(own));
        assert_eq!(check(address), Ok(()));
        // Nobody connects from a port that only root may take, at an address that nobody uses.
        let nobody = ([127, 91, 82, 73], 1).into();
        assert_eq!(proc::user_of_tcp_socket(nobody).unwrap(), None);
        assert_eq!(check(nobody), Err("the kernel knows no such connection".to_owned()));
    }
}
