//! Which user is at the other end of a connection.
//!
//! A Unix socket has a mode; a port of the loopback address is open to every user of the machine. The kernel's table of
//! TCP sockets names the user of each, so that the port serves whom the socket serves: its own user and root.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt,
};

/// The tables of one network namespace. Programs that open IPv6 sockets for everything stand in the second.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// Whether a connection from `peer` may be served. `Err` says why not.
pub(super) fn check(peer: SocketAddr) -> Result<(), String> {
    let own = fs::metadata("/proc/self").map_err(|error| format!("our own user is not known: {error}"))?.uid();
    match user_of(peer) {
        Ok(Some(user)) if user == own || user == 0 => Ok(()),
        Ok(Some(user)) => Err(format!("it comes from user {user}; only user {own} and root are served")),
        Ok(None) => Err("the kernel knows no such connection".to_owned()),
        Err(error) => Err(format!("its user cannot be found out: {error}")),
    }
}

/// The user who owns the socket with this local address.
fn user_of(local: SocketAddr) -> io::Result<Option<u32>> {
    for table in TABLES {
        let text = match fs::read_to_string(table) {
            Ok(text) => text,
            // A machine without IPv6 has no table of it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if let Some(user) = find(&text, local) {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

/// The user in the row of a table whose local address this is.
fn find(table: &str, local: SocketAddr) -> Option<u32> {
    let names = names(local);
    let mut rows = table.lines().skip(1).map(|row| row.split_ascii_whitespace());
    rows.find_map(|mut row| {
        let address = row.nth(1)?;
        // After the address: peer, state, queues, timer, retransmissions, user.
        names.iter().any(|name| name == address).then(|| row.nth(5)?.parse().ok())?
    })
}

/// How the tables write an address: 32 bits at a time as the machine reads them, then the port.
fn names(address: SocketAddr) -> [String; 2] {
    let port = address.port();
    let word = |bytes: &[u8]| format!("{:08X}", u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    let wide = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let wide: String = wide.chunks(4).map(word).collect();
    let narrow = match address.ip() {
        IpAddr::V4(ip) => word(&ip.octets()),
        IpAddr::V6(_) => wide.clone(),
    };
    [format!("{narrow}:{port:04X}"), format!("{wide}:{port:04X}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_user_stands_in_the_row_of_the_local_address() {
        let narrow = format!(
            "{HEAD}   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 x\n   \
             1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 02:000002DE 00000000  1001        0 2 2 x\n"
        );
        let of = |table: &str, port: u16| find(table, ([127, 0, 0, 1], port).into());
        assert_eq!((of(&narrow, 8080), of(&narrow, 50000), of(&narrow, 50001)), (Some(1000), Some(1001), None));
        let wide = format!(
            "{HEAD}   0: 0000000000000000FFFF00000100007F:C350 0000000000000000FFFF00000100007F:1F90 01 \
             00000000:00000000 00:00000000 00000000  1002        0 3 3 x\n"
        );
        assert_eq!(of(&wide, 50000), Some(1002));
        assert_eq!((of("", 1), of(&format!("{HEAD}nonsense\n\n 1: 0100007F:0001"), 1)), (None, None));
    }

    #[test]
    fn a_connection_of_our_own_is_found_in_the_tables_of_this_machine() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let own = fs::metadata("/proc/self").unwrap().uid();
        let address = stream.local_addr().unwrap();
        assert_eq!(user_of(address).unwrap(), Some(own));
        assert_eq!(check(address), Ok(()));
        // Nobody connects from a port that only root may take, at an address that nobody uses.
        let nobody = ([127, 91, 82, 73], 1).into();
        assert_eq!(user_of(nobody).unwrap(), None);
        assert_eq!(check(nobody), Err("the kernel knows no such connection".to_owned()));
    }
}
