use std::fmt;

/// Who makes a call, as far as a breaker tells callers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Caller {
    /// A process, with all its connections. Its number may be used again, its number and start together are not.
    Process {
        /// Its number.
        pid: i32,
        /// When it started, in whatever unit.
        started: u64,
    },
    /// A connection whose process is not known.
    Connection(u64),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, .. } => write!(f, "process {pid}"),
            Self::Connection(serial) => write!(f, "connection {serial}"),
        }
    }
}
