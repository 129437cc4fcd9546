//! What carries the records of a suite's clients.

use bellrope::client::Transport;
use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Over {
    Shm,
    Stream,
}

impl From<Over> for Transport {
    fn from(over: Over) -> Self {
        match over {
            Over::Shm => Self::Shm,
            Over::Stream => Self::Stream,
        }
    }
}
