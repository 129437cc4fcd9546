//! The user of one TCP connection, asked of the kernel's socket monitor (sock_diag(7)) rather than looked for in a table of
//! all connections: some microseconds, however many there are.

use std::net::{IpAddr, SocketAddr};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::{SOCK_DIAG, SocketAddrNetlink},
    recv, sendto, socket_with,
};

/// `SOCK_DIAG_BY_FAMILY`, and `NLM_F_REQUEST` without any flag that asks for more than one answer.
const BY_FAMILY: u16 = 20;
const REQUEST: u16 = 1;
/// `IPPROTO_TCP`, and the state of a connection that is neither opened nor closed at the moment.
const TCP: u8 = 6;
const ESTABLISHED: u8 = 1;
/// The families of addresses, as the messages have them.
const INET: u8 = 2;
const INET6: u8 = 10;

/// Lengths: of a message's head, of a request behind it (`inet_diag_req_v2`), and of an answer (`inet_diag_msg`).
const HEAD: usize = 16;
const ASKED: usize = 56;
const ANSWER: usize = 72;

/// The user who owns the end `theirs` of a connection to `ours`, while it is established. `None`: the kernel does not say so
/// here, which need not mean that there is none.
pub(super) fn user_of(theirs: SocketAddr, ours: SocketAddr) -> Option<u32> {
    let monitor = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(SOCK_DIAG)).ok()?;
    sendto(&monitor, &request(theirs, ours), SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).ok()?;
    // The kernel has answered when it has taken the question.
    let mut answer = [0; 512];
    let (_, length) = recv(&monitor, &mut answer, RecvFlags::DONTWAIT).ok()?;
    user_in(answer.get(..length)?, theirs, ours)
}

/// The question for one connection.
fn request(theirs: SocketAddr, ours: SocketAddr) -> [u8; HEAD + ASKED] {
    let mut message = [0; HEAD + ASKED];
    let mut put = |at: usize, bytes: &[u8]| message[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &((HEAD + ASKED) as u32).to_ne_bytes());
    put(4, &BY_FAMILY.to_ne_bytes());
    put(6, &REQUEST.to_ne_bytes());
    let is_v4 = theirs.ip().to_canonical().is_ipv4();
    put(HEAD, &[if is_v4 { INET } else { INET6 }, TCP]);
    put(HEAD + 4, &u32::MAX.to_ne_bytes());
    put(HEAD + 8, &theirs.port().to_be_bytes());
    put(HEAD + 10, &ours.port().to_be_bytes());
    for (at, ip) in [(HEAD + 12, theirs.ip()), (HEAD + 28, ours.ip())] {
        match ip.to_canonical() {
            IpAddr::V4(ip) => put(at, &ip.octets()),
            IpAddr::V6(ip) => put(at, &ip.octets()),
        }
    }
    // Whichever socket has these addresses, by no cookie of the kernel's.
    put(HEAD + 48, &[0xff; 8]);
    message
}

/// The user in an answer, if it is about this connection and that is established and has a socket.
fn user_in(answer: &[u8], theirs: SocketAddr, ours: SocketAddr) -> Option<u32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let found = answer.get(HEAD..HEAD + ANSWER).filter(|_| kind == BY_FAMILY)?;
    let number = |at: usize| Some(u32::from_ne_bytes(found.get(at..at + 4)?.try_into().ok()?));
    let (family, state) = (found[0], found[1]);
    let is_ip = |at: usize, ip: IpAddr| match (family, ip.to_canonical()) {
        (INET, IpAddr::V4(ip)) => found[at..at + 4] == ip.octets(),
        (INET6, IpAddr::V4(ip)) => found[at..at + 16] == ip.to_ipv6_mapped().octets(),
        (INET6, IpAddr::V6(ip)) => found[at..at + 16] == ip.octets(),
        _ => false,
    };
    let is_it = found[4..6] == theirs.port().to_be_bytes()
        && found[6..8] == ours.port().to_be_bytes()
        && is_ip(8, theirs.ip())
        && is_ip(24, ours.ip());
    let (user, inode) = (number(64)?, number(68)?);
    (is_it && state == ESTABLISHED && inode != 0).then_some(user)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn answer(theirs: SocketAddr, ours: SocketAddr, state: u8, user: u32, inode: u32) -> Vec<u8> {
        let asked = request(theirs, ours);
        let mut message = vec![0; HEAD + ANSWER];
        message[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        message[HEAD] = asked[HEAD];
        message[HEAD + 1] = state;
        message[HEAD + 4..HEAD + 52].copy_from_slice(&asked[HEAD + 8..HEAD + 56]);
        message[HEAD + 64..HEAD + 68].copy_from_slice(&user.to_ne_bytes());
        message[HEAD + 68..HEAD + 72].copy_from_slice(&inode.to_ne_bytes());
        message
    }

    // Fault 66.
    #[test]
    fn only_an_answer_about_this_connection_while_it_is_established_names_its_user() {
        let v4 = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let v6 = |port| SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        for (theirs, ours) in [(v4(50_000), v4(8_080)), (v6(50_000), v6(8_080))] {
            let good = answer(theirs, ours, ESTABLISHED, 1002, 7);
            assert_eq!(user_in(&good, theirs, ours), Some(1002));
            assert_eq!(user_in(&good, ours, theirs), None, "another connection");
            for (state, inode) in [(6, 7), (10, 7), (ESTABLISHED, 0)] {
                assert_eq!(user_in(&answer(theirs, ours, state, 0, inode), theirs, ours), None);
            }
            for length in 0..good.len() {
                assert_eq!(user_in(&good[..length], theirs, ours), None, "cut at {length}");
            }
            let mut error = good;
            error[4..6].copy_from_slice(&2_u16.to_ne_bytes());
            assert_eq!(user_in(&error, theirs, ours), None);
        }
    }

    // Fault 66.
    #[test]
    fn the_kernel_says_the_same_as_its_table_where_it_answers() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = listener.local_addr().unwrap();
        // Before there is a connection: the listening socket is none.
        assert_eq!(user_of(ours, ours), None);
        let stream = std::net::TcpStream::connect(ours).unwrap();
        let theirs = stream.local_addr().unwrap();
        let own = super::super::process::user_id();
        let said = user_of(theirs, ours);
        assert!(said.is_none_or(|user| user == own), "{said:?}");
        drop(stream);
        assert_eq!(user_of(theirs, ours), None);
    }
}
