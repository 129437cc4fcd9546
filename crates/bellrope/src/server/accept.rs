//! How connections come in: the acceptor, how many connections there may be, and which processes have to wait.

pub(crate) mod acceptor;
pub(crate) mod by_process;
pub(crate) mod connection_limits;
pub(crate) mod half_open;
pub(crate) mod newcomers;
pub(crate) mod pages;
pub(crate) mod penalty;
pub(crate) mod retirement;
pub(crate) mod unfinished;
pub(crate) mod welcome;
