//! The protocol of Bellrope, free of any system: ring, frames, handshake and the two ends of a connection.
//!
//! Nothing here reads a clock, makes a system call, knows a socket or a runtime. The ring says *whether* the peer must
//! be woken and never wakes it; a connection is told what time it is; both ends can run in one thread of a test.
//!
//! Read from the bottom up: [`layout`] is the picture of a mapping, [`frame`] what a record means, [`ring`] how records
//! travel, [`connection`] what calls and streams are made of, [`stream`] how records travel where no memory is shared,
//! [`handshake`] how two ends agree to talk, [`table`] what a server then offers. The words that these share lie below them: [`Terms`], [`Style`],
//! [`Transport`], [`Failure`], [`Violation`].
#![forbid(unsafe_code)]

mod budget;
pub mod connection;
mod failure;
pub mod frame;
pub mod handshake;
mod kill_points;
pub mod layout;
pub mod metadata;
pub mod ring;
pub mod stream;
mod style;
pub mod table;
mod terms;
mod transport;
mod violation;

pub use budget::{BudgetWaiter, BufferBudget, Holder, Reservation, keeps_for};
pub use failure::{Failure, MAX_ERROR_TEXT};
pub use style::Style;
pub use terms::{PART, Terms};
pub use transport::Transport;
pub use violation::Violation;

/// For tests of this repository: it follows no version.
#[cfg(feature = "kill-points")]
#[doc(hidden)]
pub mod internal {
    pub use crate::kill_points::KillPoint;
}
