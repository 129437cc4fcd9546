//! Shared memory, Unix sockets and the system calls that wait and wake.
//!
//! This is the only crate of Bellrope with `unsafe` code. What leaves it is safe against a peer that writes anything
//! into the mapping at any time: no reference to shared bytes is ever formed, every access is bounds-checked, and a
//! mapping can neither shrink nor grow under its users (see [`SharedMemory`]).
//!
//! Under `--cfg loom` shared words are heap memory of loom's own atomics, so that the very ring that ships is the one
//! that is model-checked; the modules that talk to the kernel are left out then.
//!
//! What is Linux's own stands in `linux/`; nothing above that folder makes a system call or names a descriptor.
//!
//! **Absent on purpose**: this crate knows no record, no frame and no call.

pub mod kill_points;
pub mod sync;

#[cfg(not(loom))]
mod allocations;
#[cfg(not(loom))]
pub mod clock;
#[cfg(not(loom))]
mod copy;
#[cfg(not(loom))]
mod linux;
#[cfg(not(loom))]
mod map_error;
#[cfg(not(loom))]
mod memory;
#[cfg(not(loom))]
mod sealed;

#[cfg(loom)]
mod model;

#[cfg(not(loom))]
pub use allocations::CountingAllocator;
// The one place that says which system this is.
#[cfg(not(loom))]
use linux as system;
#[cfg(not(loom))]
pub use map_error::MapError;
#[cfg(not(loom))]
pub use memory::{SharedMemory, View};
#[cfg(loom)]
pub use model::{SharedMemory, View};
#[cfg(not(loom))]
pub use sealed::SealedBytes;
#[cfg(not(loom))]
pub use system::{detach::spawn_detached, memory::MemoryHandle, proc, process, socket, wait};

/// The example of this crate's README, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
