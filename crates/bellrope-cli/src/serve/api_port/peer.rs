//! Which user is at the other end of a connection.
//!
//! A Unix socket has a mode; a port of the loopback address is open to every user of the machine. The kernel's table of
//! TCP sockets names the user of each, so that the port serves whom the socket serves: its own user and root.

use std::net::SocketAddr;

use bellrope_shm::{proc, process};

/// Why a connection is not served that is over already: its client left, as those do that only look whether anybody listens.
pub(super) const GONE: &str = "no user of this machine owns the other end of it now";

/// Whether a connection from `theirs` to `ours` may be served. `Err` says why not.
pub(super) fn check(theirs: SocketAddr, ours: SocketAddr) -> Result<(), String> {
    let own = process::user_id();
    match proc::user_of_tcp_peer(theirs, ours) {
        Ok(Some(user)) if !process::names_user(user) => {
            Err(format!("user {user} stands for every user that this user namespace does not map"))
        }
        Ok(Some(user)) if user == own || user == 0 => Ok(()),
        Ok(Some(user)) => Err(format!("it comes from user {user}; only user {own} and root are served")),
        Ok(None) => Err(GONE.to_owned()),
        Err(error) => Err(format!("its user cannot be found out, as /proc/self/net/tcp cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 66.
    #[test]
    fn only_a_connection_whose_other_end_is_ours_now_is_served() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = listener.local_addr().unwrap();
        let stream = std::net::TcpStream::connect(ours).unwrap();
        let theirs = stream.local_addr().unwrap();
        assert_eq!(check(theirs, ours), Ok(()));
        // Nobody connects from a port that only root may take, at an address that nobody uses.
        let nobody = ([127, 91, 82, 73], 1).into();
        let unowned = Err(GONE.to_owned());
        assert_eq!((check(nobody, ours), check(theirs, nobody)), (unowned.clone(), unowned.clone()));
        drop(stream);
        assert_eq!(check(theirs, ours), unowned, "it is over, and its row says root");
    }
}
