//! Who calls, as breakers tell callers apart.

use std::cell::OnceCell;

use bellrope_shm::proc;

use crate::breaker::Caller as BreakerCaller;

/// Who is at the other end of a connection. What that takes is asked of the system when a breaker first wants to know,
/// which of most connections it never does.
#[derive(Debug)]
pub(crate) struct CallerId {
    pid: i32,
    serial: u64,
    who: OnceCell<BreakerCaller>,
}

impl CallerId {
    /// Of the connection with this number, from this process; 0 stands for an unknown one.
    pub(crate) fn new(pid: i32, serial: u64) -> Self {
        Self { pid, serial, who: OnceCell::new() }
    }

    /// Of a client of this name: see [`BreakerCaller::Remote`].
    pub(crate) fn named(pid: i32, serial: u64, name: &str) -> Self {
        let caller = Self::new(pid, serial);
        if let Some(remote) = BreakerCaller::acted_for(name).filter(|_| is_own(pid)) {
            let _ = caller.who.set(remote);
        }
        caller
    }

    /// Whoever is on another machine, if this is a connection that calls for somebody there.
    pub(crate) fn remote(&self) -> Option<BreakerCaller> {
        self.who.get().copied().filter(|who| matches!(who, BreakerCaller::Remote { .. }))
    }

    /// The process, with the moment at which it started: another one may have its number later. Where that is not
    /// known, as of a process in another PID namespace, the connection.
    #[cold]
    pub(crate) fn who(&self) -> BreakerCaller {
        *self.who.get_or_init(|| match u32::try_from(self.pid).ok().and_then(proc::started_at) {
            Some(started) => BreakerCaller::Process { pid: self.pid, started },
            None => BreakerCaller::Connection(self.serial),
        })
    }
}

/// Whether a process is the server's own, as the kernel says.
pub(crate) fn is_own(pid: i32) -> bool {
    u32::try_from(pid).is_ok_and(|pid| pid == std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_its_process_where_that_is_known_and_else_its_connection() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let (one, other) = (CallerId::new(pid, 1).who(), CallerId::new(pid, 2).who());
        assert_eq!(one, other);
        assert_eq!(one.to_string(), format!("process {pid}"));
        for unknown in [0, -1, i32::MAX] {
            assert_eq!(CallerId::new(unknown, 7).who(), BreakerCaller::Connection(7), "{unknown}");
        }
    }

    #[test]
    fn only_the_servers_own_process_calls_for_others() {
        let own = i32::try_from(std::process::id()).unwrap();
        let remote = BreakerCaller::Remote { server: 7, caller: 9 };
        let name = remote.acting_name().unwrap();
        let acting = CallerId::named(own, 1, &name);
        assert_eq!((acting.who(), acting.remote()), (remote, Some(remote)));
        for (pid, name) in [(0, name.as_str()), (1, name.as_str()), (own, "fleet"), (own, "")] {
            let caller = CallerId::named(pid, 1, name);
            assert_ne!(caller.who(), remote, "{pid} {name}");
            assert_eq!(caller.remote(), None);
        }
    }
}
