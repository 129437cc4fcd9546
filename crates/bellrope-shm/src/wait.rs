//! Sleeping until a descriptor has something to say.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll},
    io::Errno,
};

/// Waits until `fd` is readable or hung up, at most `timeout`. Answers whether it is; a signal counts as "no".
///
/// # Errors
/// What the kernel says.
pub fn readable(fd: impl AsFd, timeout: Option<Duration>) -> io::Result<bool> {
    let fd = fd.as_fd();
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    match rustix::event::poll(&mut fds, timeout.map(timespec).as_ref()) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits until one of two descriptors is readable or hung up, at most `timeout`. Answers whether the second is; a signal
/// counts as "no".
///
/// # Errors
/// What the kernel says.
pub fn either_readable(first: impl AsFd, second: impl AsFd, timeout: Option<Duration>) -> io::Result<bool> {
    let (first, second) = (first.as_fd(), second.as_fd());
    let mut fds = [PollFd::from_borrowed_fd(first, PollFlags::IN), PollFd::from_borrowed_fd(second, PollFlags::IN)];
    match rustix::event::poll(&mut fds, timeout.map(timespec).as_ref()) {
        Ok(_) => Ok(!fds[1].revents().is_empty()),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// One thing that happened to a descriptor of an [`Epoll`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The key the descriptor was added with.
    pub key: u64,
    /// Whether the other end hung up (there may still be bytes to read).
    pub hung_up: bool,
}

/// Events taken from the kernel at once.
const EVENTS: usize = 128;

/// A level-triggered epoll set for readability and hang-ups.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<Event>,
}

impl Epoll {
    /// An empty set.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self { fd: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::new() })
    }

    /// Watches `fd` under `key`.
    ///
    /// # Errors
    /// What the kernel says: already added, out of watches.
    pub fn add(&self, fd: impl AsFd, key: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        Ok(epoll::add(&self.fd, fd, epoll::EventData::new_u64(key), flags)?)
    }

    /// Watches under `key` for the other end of `fd` to hang up, and for nothing else.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_for_hang_up(&self, fd: impl AsFd, key: u64) -> io::Result<()> {
        Ok(epoll::add(&self.fd, fd, epoll::EventData::new_u64(key), epoll::EventFlags::RDHUP)?)
    }

    /// Stops watching `fd`.
    ///
    /// # Errors
    /// If it was not watched.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.fd, fd)?)
    }

    /// Waits at most `timeout` (`None`: for ever) and returns what happened. A signal ends the wait with nothing.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<&[Event]> {
        let mut buffer = [MaybeUninit::uninit(); EVENTS];
        let timeout = timeout.map(timespec);
        self.events.clear();
        match epoll::wait(&self.fd, &mut buffer, timeout.as_ref()) {
            Ok((seen, _)) => self.events.extend(seen.iter().map(|event| {
                let flags = event.flags;
                let gone = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
                Event { key: event.data.u64(), hung_up: flags.intersects(gone) }
            })),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(&self.events)
    }
}

/// A descriptor that one thread of this process makes readable to wake another. Never shared with a peer.
#[derive(Debug)]
pub struct WakeFd {
    fd: OwnedFd,
}

impl AsFd for WakeFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl WakeFd {
    /// A descriptor that is not readable yet.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self { fd: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Makes the descriptor readable.
    pub fn wake(&self) {
        // The only possible failure is a counter at its maximum, which is readable already.
        let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
    }

    /// Makes it unreadable again.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.fd, &mut [0_u8; 8]);
    }
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::Socket;

    #[test]
    fn readable_waits_for_a_ring_or_the_timeout() {
        let (left, right) = Socket::pair().unwrap();
        assert!(!readable(&right, Some(Duration::ZERO)).unwrap());
        left.ring();
        assert!(readable(&right, Some(Duration::from_secs(10))).unwrap());
    }

    #[test]
    fn the_second_of_two_descriptors_ends_the_wait_too() {
        let (left, right) = Socket::pair().unwrap();
        let wake = WakeFd::new().unwrap();
        assert!(!either_readable(&right, &wake, Some(Duration::ZERO)).unwrap());
        left.ring();
        assert!(!either_readable(&right, &wake, None).unwrap(), "the first");
        wake.wake();
        assert!(either_readable(&right, &wake, None).unwrap(), "the second");
    }

    #[test]
    fn who_watches_for_a_hang_up_hears_no_rings() {
        let (left, right) = Socket::pair().unwrap();
        let mut epoll = Epoll::new().unwrap();
        epoll.add_for_hang_up(&right, 3).unwrap();
        left.ring();
        assert_eq!(epoll.wait(Some(Duration::ZERO)).unwrap(), []);
        left.shutdown();
        assert_eq!(epoll.wait(None).unwrap(), [Event { key: 3, hung_up: true }]);
    }

    #[test]
    fn epoll_reports_rings_hang_ups_and_wakes_under_their_keys() {
        let (left, right) = Socket::pair().unwrap();
        let wake = WakeFd::new().unwrap();
        let mut epoll = Epoll::new().unwrap();
        epoll.add(&right, 7).unwrap();
        epoll.add(&wake, 9).unwrap();
        assert_eq!(epoll.wait(Some(Duration::ZERO)).unwrap(), []);

        left.ring();
        assert_eq!(epoll.wait(None).unwrap(), [Event { key: 7, hung_up: false }]);
        right.drain(16).unwrap();

        wake.wake();
        assert_eq!(epoll.wait(None).unwrap(), [Event { key: 9, hung_up: false }]);
        wake.clear();

        drop(left);
        assert_eq!(epoll.wait(None).unwrap(), [Event { key: 7, hung_up: true }]);
        epoll.remove(&right).unwrap();
        assert_eq!(epoll.wait(Some(Duration::ZERO)).unwrap(), []);
    }
}
