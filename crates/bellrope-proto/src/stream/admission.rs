//! Which of a client's requests its server may have taken, for what is said of them when it is lost.
//!
//! Over shared memory the server notes that itself, in the admitted word of the request ring. Here the client's own end
//! keeps this word: a request may have been taken once its last byte was sent, and how many were, a server says that ends
//! the connection.

use std::collections::VecDeque;

use bellrope_shm::{View, sync::Ordering};

use crate::{Violation, frame::Kind, layout::ADMITTED};

/// Requests that were sent of which the place is remembered, the latest: those before them count as taken.
const REMEMBERED: usize = 4096;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Admission {
    /// The request ring.
    view: View,
    /// Requests that were sent whole.
    sent: u64,
    /// Where the last of them end in the ring.
    ends: VecDeque<u64>,
}

impl Admission {
    pub(super) fn new(view: View) -> Self {
        Self { view, sent: 0, ends: VecDeque::new() }
    }

    /// A request was sent whole that ends here in the ring.
    pub(super) fn sent(&mut self, position: u64) {
        self.sent += 1;
        if self.ends.len() == REMEMBERED {
            self.ends.pop_front();
        }
        self.ends.push_back(position);
        self.note(position);
    }

    /// The server has said how many it took.
    pub(super) fn settle(&self, taken: u64) -> Result<(), Violation> {
        let unknown = self.sent.checked_sub(taken).ok_or(Violation::Form(Kind::Admitted as u8))?;
        let kept = usize::try_from(unknown).ok().and_then(|unknown| self.ends.len().checked_sub(unknown));
        match (kept, self.ends.front()) {
            (Some(kept @ 1..), _) => self.note(self.ends[kept - 1]),
            // The first that is remembered was not taken, nor any after it.
            (_, Some(first)) => self.note(first - 1),
            (_, None) => {}
        }
        Ok(())
    }

    fn note(&self, position: u64) {
        self.view.store(ADMITTED, position, Ordering::Release);
    }
}
