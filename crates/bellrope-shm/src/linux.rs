//! What is Linux's own: sealed memory, sockets that carry memory, waiting, the clock, the process and `/proc`.
//!
//! Another system would stand beside this folder with the same modules and types, and nothing above it would change.
//! No type of theirs names a descriptor in what it takes and returns. Those that an async runtime or the waiting below
//! has to watch implement [`AsFd`](std::os::fd::AsFd).

pub(crate) mod clock;
mod denied;
pub(crate) mod detach;
mod limits;
pub(crate) mod memory;
pub mod proc;
pub mod process;
pub mod socket;
mod tcp_peer;
pub mod wait;
