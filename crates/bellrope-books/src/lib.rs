//! What AI answers cost: a ledger of requests, prices, budgets, and the tokens of tools.
//!
//! A [`Bookkeeper`] is told of every request before it is sent and when it is over ([`bellrope_gateway::account`]). It
//! never waits: what it counts is in memory, and a thread of its own writes the ledger. A full disk, a locked or a broken
//! file costs rows of the ledger, which is said, and never an answer.
//!
//! | module | what it holds |
//! |---|---|
//! | `bookkeeper` | [`Bookkeeper`]: who is asked and told; what runs, and what an operator sees of it |
//! | `budget`, `reserve` | what may be spent in a window; what is reserved, held and settled of it. Told the time; knows no file |
//! | `price` | what tokens cost at a date |
//! | `calendar` | days and windows, in UTC |
//! | `ledger` | the queue of rows and the thread that writes them; `ledger/store`: the SQLite file |
//! | `usage` | what is read out of the ledger, and erased |
//! | `token` | the tokens of tools: names and hashes in a file |
//! | `settings` | what all of these are told |
//!
//! No text of a request or an answer is kept anywhere: docs/privacy.md.
#![forbid(unsafe_code)]

mod bookkeeper;
mod budget;
mod calendar;
mod exhibit;
mod ledger;
mod place;
mod price;
mod reserve;
mod row;
mod settings;
mod tally;
mod token;
mod usage;

pub use bookkeeper::{Bookkeeper, FLUSH, FLUSH_WITHIN, Moment, WallClock};
pub use budget::{Action, Budget};
pub use calendar::Window;
pub use ledger::store::StoreError;
pub use price::Price;
pub use settings::{BookSettings, SettingFault};
pub use token::{KeyHolder, NewToken, TokenError, TokenRow, Tokens, holds_token};
pub use usage::{By, Forget, UsageQuery, UsageReport, UsageRow, forget, usage};

pub use calendar::day_of;
pub use place::{default_books_path, default_tokens_path};

/// The example of this crate's README, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
