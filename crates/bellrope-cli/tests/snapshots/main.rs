//! What users of the command see, frozen: help, exit codes, errors, tables, the shape of JSON, log lines, and the answers of
//! the two HTTP ports and of the Agent Client Protocol. A change of any of it fails here, and so is made on purpose.
//!
//! `cases/` holds the expected texts. After a change that is meant to be seen, write them anew, look at the difference, and
//! give it a line in CHANGELOG.md:
//!
//! ```sh
//! SNAPSHOTS=overwrite cargo test -p bellrope-cli --test snapshots -- --include-ignored
//! git diff crates/bellrope-cli/tests/snapshots/cases
//! ```
//!
//! What takes long in a debug build (the gateway's share, the demo, latency-torture) is compared only with
//! `-- --include-ignored`.
//!
//! A file of `cases/` holds command lines as they are typed, each with its exit code and what it printed. What differs from
//! run to run or from machine to machine stands in brackets, such as `[HOME]`, `[PID]` and `[TIME]`. Of values that are
//! measured only the shape is kept: which keys there are, and of which JSON type ([`shape`]).
//!
//! | module | what it holds |
//! |---|---|
//! | [`stage`] | a private folder, commands and servers in it, and nothing else of the environment around the test |
//! | [`text`] | what is put in place of what differs, and the comparison |
//! | [`shape`] | the keys and types of JSON |
//! | the others | the tests |

mod editor;
mod help;
mod log;
mod measuring;
mod ports;
mod serving;
mod settings;
mod shape;
mod stage;
mod text;
mod wrong;
