//! A circuit breaker: stops calling what keeps failing, and finds out by a few probes when it works again.
//!
//! The breaker knows no message, no handler and no clock: it is told the time, and asks for it only where the time
//! matters. While it is closed a call costs one atomic load, and its success another one of the same word. Failures in
//! a row are counted in that word by compare-exchange; whatever changes the state does so under one lock, so that there
//! is never a probe too many.
//!
//! Where callers are told apart, failures are counted a caller, under that lock: see `breaker/callers.rs`.

mod admission;
mod caller;
mod callers;
mod config;
mod core;
mod now;
mod permit;
mod settling;
mod state;
mod window;
mod word;

pub use self::core::Breaker;
pub use caller::Caller;
pub use config::{BreakerConfig, BreakerSetting};
pub use now::Now;
pub use permit::Permit;
pub use state::{BreakerSnapshot, BreakerState, CallerSnapshot, Rejected};
