//! Reading JSON that others wrote: nothing that a string holds is lost, and no sender chooses how much memory it takes.
//!
//! JSON allows strings that Rust's cannot hold: half of a surrogate pair (`"\ud83d"`), which a writer that cuts text at
//! UTF-16 units sends. serde refuses the whole document for it. Every document of a client, an editor, a provider or a
//! file is therefore read by [`from_slice`] or [`from_str`]: half a pair becomes U+FFFD, like bytes that are not UTF-8. Of a
//! field that stands twice in its object, which serde refuses, too, the last counts.
//!
//! A stream of strings is more than that: a pair may be split over two of them. The translators read a `TextPiece` and
//! join pieces in a `Seam`.

mod lenient;
mod path;
mod piece;
mod repair;
mod scan;
mod twins;
mod words;

#[cfg(feature = "http")]
pub(crate) use lenient::{Few, amount, count, each, fields, fields_and, is_nothing, number, words};
#[cfg(feature = "http")]
pub(crate) use piece::{Seam, TextPiece};
#[cfg(feature = "http")]
pub(crate) use repair::raw;
pub use repair::{from_slice, from_str, repaired};
#[cfg(feature = "http")]
pub(crate) use scan::text_len;
pub(crate) use scan::{IN_LIST, MAX_DEPTH, MAX_TREE, Place, depth, end_of_string, weight};
pub(crate) use twins::without_twins;
pub(crate) use words::{place_of_fault, plain_words};
