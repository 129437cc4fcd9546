//! A ring of records between one producer and one consumer that do not trust each other.
//!
//! **Commit.** The producer writes everything of a record but its header word, stores *empty* into the header word that
//! will follow, and last swaps the header in. If the swap finds *asleep*, the consumer must be woken, else it need not
//! be: the wake-up decision rides on the word that carries the data, so none can be lost and none is made for nothing.
//! Records may be *staged* and committed together: only the first one's header word is held back then, since the
//! consumer cannot get past it.
//!
//! **Flow control.** A producer looks at the consumer's position only when it seems to lack room. If there is none, it
//! tags that position and may sleep; the consumer publishes its position by a swap and sees the tag.
//!
//! **Early wrap.** Once past the first window (one page), the producer starts over as soon as the start of the ring is
//! free. A consumer that keeps up never makes it touch more than a page; a backlog grows the window to the capacity.
//!
//! **Trust.** Each side keeps its own position in private memory and never reads it back. Whatever the other side
//! writes is loaded once, checked, and used from the copy; the first thing that cannot be is a [`Violation`].
//!
//! **Absent on purpose**: the ring knows no socket, no clock and no call. It says whether to wake, and wakes nobody.
//!
//! [`Violation`]: crate::Violation

mod consumer;
mod producer;
mod wake;

pub use consumer::{
    Armed, Consumer, Record, admitted,
    plain::{Front, PlainRecord},
};
pub use producer::{Draft, Producer, RecordClass};
pub use wake::Wake;
