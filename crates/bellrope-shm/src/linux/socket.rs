//! The Unix socket of a connection: its identity, its lifeline and its doorbell.

#![expect(
    unsafe_code,
    reason = "the kernel's credentials are read as they are: no safe wrapper takes a process id of 0"
)]

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    },
};

use super::{denied::named, memory::MemoryHandle};

/// Bytes of the longest path that a socket can have: `sockaddr_un` has room for these and a zero.
pub const LONGEST_PATH: usize = 107;

/// Who is at the other end, as the kernel recorded it when the connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process id at connect time, which may have been reused since. 0: the kernel has none for us, because the peer lives
    /// in a PID namespace that ours does not see, as in another container. Below 0: such a process, which is
    /// [told apart](Socket::peer_told_apart) from others.
    pub pid: i32,
    /// User id as our user namespace has it. [`process::names_user`](super::process::names_user) says whether it is one.
    pub uid: u32,
}

impl PeerCredentials {
    /// The user, where the kernel names no process: all that can be said of it then.
    ///
    /// ```
    /// # use bellrope_shm::socket::PeerCredentials;
    /// assert_eq!(PeerCredentials { pid: 0, uid: 1000 }.user_of_unnamed(), Some(1000));
    /// assert_eq!(PeerCredentials { pid: -5, uid: 1000 }.user_of_unnamed(), Some(1000));
    /// assert_eq!(PeerCredentials { pid: 7, uid: 1000 }.user_of_unnamed(), None);
    /// ```
    #[must_use]
    pub fn user_of_unnamed(self) -> Option<u32> {
        (self.pid <= 0).then_some(self.uid)
    }
}

/// What [`Socket::drain`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// This many doorbell bytes, possibly none; the peer is there.
    Rings(usize),
    /// The peer is gone, or closed its end.
    HungUp,
}

/// A connected Unix stream socket.
#[derive(Debug)]
pub struct Socket {
    stream: UnixStream,
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self { stream }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Socket {
    /// Connects to the listener at `path` without ever waiting. The socket is non-blocking.
    ///
    /// # Errors
    /// What the kernel says: nobody there, no permission; `WouldBlock` if so many wait there that one has to try again.
    pub fn connect(path: &std::path::Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(named("socket"))?;
        let address = SocketAddrUnix::new(path)?;
        retry(|| rustix::net::connect(&fd, &address)).map_err(named("connect"))?;
        Ok(Self { stream: fd.into() })
    }

    /// The same socket again, for a reactor that wants to own what it watches.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn try_clone(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    /// Hangs up, for every descriptor of this socket.
    pub fn shutdown(&self) {
        // The only failure is that the peer was faster.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Two connected sockets, for tests.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (left, right) = UnixStream::pair()?;
        Ok((left.into(), right.into()))
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// If the kernel has no credentials for this socket.
    pub fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        // rustix takes the id for one that is never 0, which makes an error of a peer in another PID namespace.
        let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let mut size = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the descriptor is open as long as `self` lives, and the kernel writes at most `size` bytes into a
        // struct of that size, of which every pattern of bits is a value.
        let failed = unsafe {
            libc::getsockopt(
                self.stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut credentials).cast(),
                &raw mut size,
            )
        };
        match failed {
            0 => Ok(PeerCredentials { pid: credentials.pid, uid: credentials.uid }),
            _ => {
                let error = io::Error::last_os_error();
                Err(Errno::from_io_error(&error).map_or(error, named("getsockopt")))
            }
        }
    }

    /// As [`Self::peer_credentials`], and a process that the kernel does not name gets a number below 0 of its own, the same for all
    /// of its connections. Before Linux 6.9 it cannot be told from others: then it is 0.
    ///
    /// # Errors
    /// As there.
    pub fn peer_told_apart(&self) -> io::Result<PeerCredentials> {
        let peer = self.peer_credentials()?;
        Ok(PeerCredentials { pid: if peer.pid == 0 { self.unnamed_process() } else { peer.pid }, ..peer })
    }

    /// A number below 0 for the process at the other end, or 0.
    fn unnamed_process(&self) -> i32 {
        /// Of the file system in which each process has an inode of its own, which none has later.
        const PIDFS: u64 = 0x5049_4446;
        let mut process: libc::c_int = -1;
        let mut size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the descriptor is open as long as `self` lives, and the kernel writes at most `size` bytes into a number of that
        // size.
        let failed = unsafe {
            libc::getsockopt(
                self.stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERPIDFD,
                (&raw mut process).cast(),
                &raw mut size,
            )
        };
        if failed != 0 || process < 0 {
            return 0;
        }
        // SAFETY: the kernel has made this descriptor for us just now, so nobody else has it.
        let process = unsafe { OwnedFd::from_raw_fd(process) };
        let of_its_own = rustix::fs::fstatfs(&process).is_ok_and(|system| u64::try_from(system.f_type) == Ok(PIDFS));
        match rustix::fs::fstat(&process) {
            Ok(status) if of_its_own => below_zero(status.st_ino),
            _ => 0,
        }
    }

    /// Whether connections can be accepted at all. Where a filter denies that, whoever connects waits in the kernel for a server
    /// that never hears of it.
    ///
    /// # Errors
    /// They cannot, or no socket is to be had.
    pub fn check_accepting() -> io::Result<()> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let silent = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match rustix::net::accept_with(&silent, SocketFlags::CLOEXEC) {
            Err(errno @ (Errno::PERM | Errno::NOSYS)) => Err(named("accept4")(errno)),
            // It does not listen, so that nobody comes.
            _ => Ok(()),
        }
    }

    /// Whether what is said over a socket can be sent and heard, and who says it is known. Where a filter denies that, nobody would be woken, and whoever
    /// is asleep sleeps on.
    ///
    /// # Errors
    /// It cannot.
    pub fn check_talking() -> io::Result<()> {
        // Who may not make a pair may have sockets of another kind.
        let Ok((one, other)) = Self::pair() else { return Ok(()) };
        one.peer_credentials()?;
        one.send(&[1])?;
        other.drain(1).map(drop)
    }

    /// Makes plain reads and writes fail with `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.stream.set_nonblocking(nonblocking)
    }

    /// Rings the peer's doorbell. Never blocks: if the socket is full, the peer has rings enough to read. A peer that
    /// is gone is found out by its hang-up, not here.
    #[inline]
    pub fn ring(&self) {
        let _ = rustix::net::send(&self.stream, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Takes the rings that have come in, at most `budget` bytes of them. Never blocks. Descriptors that a peer sends
    /// along are closed by the kernel, as no room for them is offered.
    ///
    /// # Errors
    /// Anything but "nothing there" and "peer gone".
    pub fn drain(&self, budget: usize) -> io::Result<Drained> {
        let mut bytes = [0_u8; 256];
        let mut rings = 0;
        while rings < budget {
            match rustix::net::recv(&self.stream, &mut bytes, RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::CONNRESET | Errno::PIPE) => return Ok(Drained::HungUp),
                Ok((count, _)) => {
                    rings += count;
                    if count < bytes.len() {
                        break;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(named("recvfrom")(errno)),
            }
        }
        Ok(Drained::Rings(rings))
    }

    /// Sends bytes alone.
    ///
    /// # Errors
    /// What the kernel says; `WouldBlock` if the socket is non-blocking and full.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        retry(|| rustix::net::send(&self.stream, bytes, SendFlags::NOSIGNAL)).map_err(named("sendto"))
    }

    /// Sends bytes with memory attached to the first of them.
    ///
    /// # Errors
    /// What the kernel says; `WouldBlock` if the socket is non-blocking and full.
    pub fn send_with_memory(&self, bytes: &[u8], memory: &MemoryHandle) -> io::Result<usize> {
        let fds = [memory.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fits = control.push(SendAncillaryMessage::ScmRights(&fds));
        debug_assert!(fits);
        Ok(retry(|| rustix::net::sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL))?)
    }

    /// Receives bytes; descriptors sent along are closed by the kernel.
    ///
    /// # Errors
    /// What the kernel says; `WouldBlock` if the socket is non-blocking and empty.
    pub fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        let received = retry(|| rustix::net::recv(&self.stream, &mut *into, RecvFlags::empty()));
        Ok(received.map_err(named("recvfrom"))?.0)
    }

    /// Receives bytes, as [`Self::receive`] does, and answers whether there may be more though fewer came than were asked for:
    /// receiving ends early where descriptors were sent along.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn receive_some(&self, into: &mut [u8]) -> io::Result<(usize, bool)> {
        let asked = into.len();
        let mut nothing = RecvAncillaryBuffer::default();
        let received = retry(|| {
            rustix::net::recvmsg(&self.stream, &mut [IoSliceMut::new(into)], &mut nothing, RecvFlags::CMSG_CLOEXEC)
        })
        .map_err(named("recvmsg"))?;
        Ok((received.bytes, received.bytes == asked || received.flags.contains(ReturnFlags::CTRUNC)))
    }

    /// Receives bytes and the first descriptor sent with them, if any, which is memory only if it can be mapped. More than
    /// one is never kept.
    ///
    /// # Errors
    /// What the kernel says; `WouldBlock` if the socket is non-blocking and empty.
    pub fn receive_with_memory(&self, into: &mut [u8]) -> io::Result<(usize, Option<MemoryHandle>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = retry(|| {
            rustix::net::recvmsg(&self.stream, &mut [IoSliceMut::new(into)], &mut control, RecvFlags::CMSG_CLOEXEC)
        })
        .map_err(named("recvmsg"))?;
        let fd = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            })
            .next();
        Ok((received.bytes, fd.map(MemoryHandle)))
    }
}

/// Repeats a call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// An inode as a number below 0. It would take two billion processes between two that live until they had the same.
fn below_zero(inode: u64) -> i32 {
    -1 - i32::try_from(inode % u64::from(i32::MAX.unsigned_abs())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SharedMemory;

    #[test]
    fn memory_travels_with_its_bytes() {
        let (left, right) = Socket::pair().unwrap();
        let (memory, handle) = SharedMemory::create(4096).unwrap();
        left.send_with_memory(b"take this", &handle).unwrap();
        let mut bytes = [0; 16];
        let (count, received) = right.receive_with_memory(&mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"take this");
        let theirs = SharedMemory::open(&received.unwrap(), 4096).unwrap();
        memory.view(0..8).write(0, b"shared!!");
        theirs.view(0..8).read(0, &mut bytes[..8]);
        assert_eq!(&bytes[..8], b"shared!!");
    }

    // Fault 21.
    #[test]
    fn unwanted_descriptors_are_closed_by_the_kernel() {
        let (left, right) = Socket::pair().unwrap();
        let (_memory, handle) = SharedMemory::create(4096).unwrap();
        left.send_with_memory(b"x", &handle).unwrap();
        left.send_with_memory(b"y", &handle).unwrap();
        let target = rustix::fs::fstat(&handle).unwrap().st_ino;
        // A read ends where descriptors were attached.
        assert_eq!(right.drain(1024).unwrap(), Drained::Rings(1));
        assert_eq!(right.drain(1024).unwrap(), Drained::Rings(1));
        // Other tests open descriptors of their own beside us, so count only those of this very memory.
        let ours = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::metadata(entry.ok()?.path()).ok())
            .filter(|metadata| std::os::unix::fs::MetadataExt::ino(metadata) == target)
            .count();
        assert_eq!(ours, 1);
    }

    // Fault 21.
    #[test]
    fn who_reads_to_the_end_is_not_stopped_by_descriptors() {
        let (left, right) = Socket::pair().unwrap();
        let (_memory, handle) = SharedMemory::create(4096).unwrap();
        left.send(b"a").unwrap();
        left.send_with_memory(b"b", &handle).unwrap();
        left.send_with_memory(b"c", &handle).unwrap();
        left.send(b"de").unwrap();
        let mut bytes = [0; 16];
        let (mut read, mut reads, mut more) = (Vec::new(), 0, true);
        while more {
            let (count, goes_on) = right.receive_some(&mut bytes).unwrap();
            read.extend_from_slice(&bytes[..count]);
            (reads, more) = (reads + 1, goes_on);
        }
        assert_eq!(read, b"abcde");
        assert!(reads > 1, "they were cut");
        left.send(&[7; 16]).unwrap();
        assert_eq!(right.receive_some(&mut bytes).unwrap(), (16, true), "as much as was asked for");
    }

    // Fault 16.
    #[test]
    fn rings_are_counted_and_a_hang_up_is_told_apart() {
        let (left, right) = Socket::pair().unwrap();
        assert_eq!(right.drain(64).unwrap(), Drained::Rings(0));
        left.ring();
        left.ring();
        assert_eq!(right.drain(64).unwrap(), Drained::Rings(2));
        drop(left);
        assert_eq!(right.drain(64).unwrap(), Drained::HungUp);
        right.ring();
    }

    // Fault 17.
    #[test]
    fn a_full_socket_never_blocks_the_ringer() {
        let (left, right) = Socket::pair().unwrap();
        for _ in 0..1_000_000 {
            left.ring();
        }
        assert!(matches!(right.drain(1).unwrap(), Drained::Rings(count) if count > 0));
    }

    // Fault 26.
    #[test]
    fn peers_are_known_by_their_credentials() {
        let (left, right) = Socket::pair().unwrap();
        let peer = left.peer_credentials().unwrap();
        assert_eq!(peer.uid, crate::process::user_id());
        assert_eq!(peer.pid, i32::try_from(std::process::id()).unwrap());
        assert_eq!(left.peer_told_apart().unwrap(), peer, "it has a name");
        let number = left.unnamed_process();
        assert!(number <= 0 && number == right.unnamed_process(), "the same process: {number}");
        assert_eq!([0, 1, (1 << 31) - 2, (1 << 31) - 1].map(below_zero), [-1, -2, i32::MIN + 1, -1]);
    }
}
