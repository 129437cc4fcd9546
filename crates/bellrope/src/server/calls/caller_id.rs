//! Who calls, as breakers tell callers apart.

use std::cell::OnceCell;

use bellrope_shm::proc;

use crate::breaker::Caller as BreakerCaller;

/// Who is at the other end of a connection. What that takes is asked of the system when a breaker first wants to know,
/// which of most connections it never does.
#[derive(Debug, Default)]
pub(crate) struct CallerId(OnceCell<BreakerCaller>);

impl CallerId {
    /// Of the connection with this number, from this process, 0 for an unknown one: the process, with the moment at which it
    /// started, for another one may have its number later. Where that is not known, as of a process in another PID namespace,
    /// the connection.
    #[cold]
    pub(crate) fn of(&self, pid: i32, serial: u64) -> BreakerCaller {
        *self.0.get_or_init(|| match u32::try_from(pid).ok().and_then(proc::started_at) {
            Some(started) => BreakerCaller::Process { pid, started },
            None => BreakerCaller::Connection(serial),
        })
    }
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
        for unknown in [0, -1, i32::MAX] {
            assert_eq!(CallerId::default().of(unknown, 7), BreakerCaller::Connection(7), "{unknown}");
        }
    }
}
