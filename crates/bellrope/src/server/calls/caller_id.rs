//! Who calls, as breakers tell callers apart.

use std::cell::OnceCell;

use bellrope_shm::proc;

use crate::breaker::Caller as BreakerCaller;

/// Who is at the other end of a connection. What that takes is asked of the system when a breaker first wants to know,
/// which of most connections it never does.
#[derive(Debug, Default)]
pub(crate) struct CallerId(OnceCell<Box<BreakerCaller>>);

impl CallerId {
    /// Of a client of this name, of this process: see [`BreakerCaller::Remote`].
    pub(crate) fn named(pid: i32, name: &str) -> Self {
        let remote = BreakerCaller::acted_for(name).filter(|_| is_own(pid));
        Self(remote.map_or_else(OnceCell::new, |remote| Box::new(remote).into()))
    }

    /// Whoever is on another machine, if this is a connection that calls for somebody there.
    #[cfg(feature = "tokio")]
    pub(crate) fn remote(&self) -> Option<BreakerCaller> {
        self.0.get().map(|who| **who).filter(|who| matches!(who, BreakerCaller::Remote { .. }))
    }

    /// Of the connection with this number, from this process, 0 for an unknown one: the process, with the moment at which it
    /// started, for another one may have its number later, which none below 0 has. Where that is not known, the connection.
    #[cold]
    pub(crate) fn of(&self, pid: i32, serial: u64) -> BreakerCaller {
        **self.0.get_or_init(|| {
            let started = if pid < 0 { Some(0) } else { u32::try_from(pid).ok().and_then(proc::started_at) };
            Box::new(match started {
                Some(started) => BreakerCaller::Process { pid, started },
                None => BreakerCaller::Connection(serial),
            })
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
        let (one, other) = (CallerId::default().of(pid, 1), CallerId::default().of(pid, 2));
        assert_eq!(one, other);
        assert_eq!(one.to_string(), format!("process {pid}"));
        let unnamed = BreakerCaller::Process { pid: -5, started: 0 };
        assert_eq!([1, 2].map(|serial| CallerId::default().of(-5, serial)), [unnamed; 2]);
        for unknown in [0, i32::MAX] {
            assert_eq!(CallerId::default().of(unknown, 7), BreakerCaller::Connection(7), "{unknown}");
        }
    }

    #[test]
    fn only_the_servers_own_process_calls_for_others() {
        let own = i32::try_from(std::process::id()).unwrap();
        let remote = BreakerCaller::Remote { server: 7, caller: 9 };
        let name = remote.acting_name().unwrap();
        let acting = CallerId::named(own, &name);
        assert_eq!((acting.of(own, 1), acting.remote()), (remote, Some(remote)));
        for (pid, name) in [(0, name.as_str()), (1, name.as_str()), (own, "fleet"), (own, "")] {
            let caller = CallerId::named(pid, name);
            assert_ne!(caller.of(pid, 1), remote, "{pid} {name}");
            assert_eq!(caller.remote(), None);
        }
    }
}
