use std::fmt;

/// How the name of a client begins that calls for somebody of a fleet.
const ACTING: &str = "fleet ";

/// Who makes a call, as far as a breaker tells callers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Caller {
    /// A process, with all its connections. Its number may be used again, its number and start together are not.
    Process {
        /// Its number. Below 0: one that the kernel gave us no number for, because it lives in a PID namespace that ours does not
        /// see.
        pid: i32,
        /// When it started, in whatever unit.
        started: u64,
    },
    /// A connection whose process is not known.
    Connection(u64),
    /// Somebody on another machine, for whom a part of the server's own process calls.
    Remote {
        /// Who says that it is this caller: another server. Of the callers that must meet a failure for a breaker to open for
        /// all, those of one server are one, because it may invent them.
        server: u64,
        /// Which of that server's callers.
        caller: u64,
    },
}

impl Caller {
    /// Who stands for this caller: nobody else can invent it.
    pub(super) fn origin(self) -> Self {
        match self {
            Self::Remote { server, .. } => Self::Remote { server, caller: 0 },
            own => own,
        }
    }

    /// The name of the client that calls for it, if it is on another machine: [`ClientConfig::name`] of a client in the
    /// server's own process. The server believes it of no other process.
    ///
    /// [`ClientConfig::name`]: crate::client::ClientConfig::name
    ///
    /// ```
    /// use bellrope::breaker::Caller;
    ///
    /// let caller = Caller::Remote { server: 1, caller: 2 };
    /// assert_eq!(caller.acting_name().unwrap(), "fleet 0000000000000001 0000000000000002");
    /// assert_eq!(Caller::Connection(7).acting_name(), None);
    /// ```
    #[must_use]
    pub fn acting_name(self) -> Option<String> {
        match self {
            Self::Remote { server, caller } => Some(format!("{ACTING}{server:016x} {caller:016x}")),
            Self::Process { .. } | Self::Connection(_) => None,
        }
    }

    /// For whom a client of this name calls.
    #[cfg(feature = "server")]
    pub(crate) fn acted_for(name: &str) -> Option<Self> {
        let (server, caller) = name.strip_prefix(ACTING)?.split_once(' ')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(Self::Remote { server: number(server)?, caller: number(caller)? })
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid: pid @ ..0, .. } => write!(f, "process {} of other namespaces", pid.unsigned_abs()),
            Self::Process { pid, .. } => write!(f, "process {pid}"),
            Self::Connection(serial) => write!(f, "connection {serial}"),
            Self::Remote { server, caller } => write!(f, "caller {caller:016x} of server {server:016x} of the fleet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_client_says_for_whom_it_calls() {
        let remote = Caller::Remote { server: 7, caller: u64::MAX };
        assert_eq!(Caller::acted_for(&remote.acting_name().unwrap()), Some(remote));
        for other in ["fleet", "fleet 7", "fleet x y", "editor", ""] {
            assert_eq!(Caller::acted_for(other), None, "{other}");
        }
        assert_eq!(Caller::Connection(1).acting_name(), None);
        let unnamed = Caller::Process { pid: -7, started: 0 };
        assert_eq!(unnamed.to_string(), "process 7 of other namespaces");
    }
}
