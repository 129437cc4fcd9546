//! What the command `bellrope` and its measurements share: results on standard output, everything else on standard error,
//! progress bars, signals, and how a command ends.
//!
//! It knows no server, no call and no option of any command.
#![forbid(unsafe_code)]

mod apart;
mod exit;
mod outcome;
pub mod output;
mod progress;
pub mod signals;
pub mod stderr;

pub use apart::apart;
pub use exit::exit_code;
pub use outcome::{ApplicationError, Failed, Interrupted, Outcome, WrongSettings, in_words, is_closed_pipe};
pub use progress::ProgressBar;
