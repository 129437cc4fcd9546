//! The logs of all answers that are kept, behind one lock: what each holds, who reads it, and who makes room.

use std::any::Any;
use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::settings::AnswerSettings;

/// The most answers that are kept, whatever they hold.
pub(super) const MAX_KEPT: usize = 256;
/// Of those, the most that one owner may have under way: they make room for nobody.
pub(super) const MAX_UNDER_WAY: usize = MAX_KEPT / 2;
/// One answer's pieces may take one part in so many of all bytes, and what is kept beside them half.
pub(super) const SHARE: u64 = 4;
/// What an answer takes beside what it holds, and a piece beside its bytes.
pub(super) const ANSWER: u64 = 512;
pub(super) const PIECE: u64 = 64;

/// Whose an answer is: nobody else can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A user of this machine.
    User(u32),
    /// Whoever has a token, as a number that stands for it.
    Token(u128),
}

/// What is kept beside the pieces of an answer.
pub type Beside = Arc<dyn Any + Send + Sync>;

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) settings: AnswerSettings,
    pub(super) answers: HashMap<u128, Entry>,
    /// Of all of them.
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) owner: Owner,
    pub(super) beside: Option<Beside>,
    /// Whether it goes on to its end though nobody reads.
    pub(super) goes_on_unread: bool,
    pub(super) pieces: VecDeque<Bytes>,
    /// The number of the first of them.
    pub(super) first: u64,
    /// What the pieces take, and what is held beside them.
    pub(super) bytes: u64,
    pub(super) held: u64,
    pub(super) is_over: bool,
    pub(super) is_cancelled: bool,
    /// Who reads it, and the number of the piece that it takes next.
    pub(super) reader: Option<(u64, u64)>,
    pub(super) readers: u64,
    /// Since when nobody reads it, or since its end if that was later.
    pub(super) unread_since: Instant,
    pub(super) changed: Arc<Notify>,
}

/// What came of a piece that is to be kept.
pub(super) enum Push {
    Done,
    Full,
    TooLarge(u64),
    /// The answer is not kept any more.
    Gone,
}

impl Kept {
    /// Keeps a piece, if there is room. Older answers that are over make room first, then pieces of the same answer that
    /// were read.
    pub(super) fn push(&mut self, id: u128, piece: &Bytes) -> Push {
        let (limit, cost) = (self.settings.keep_bytes, piece.len() as u64 + PIECE);
        let share = limit / SHARE;
        loop {
            let all = self.bytes;
            let Some(entry) = self.answers.get_mut(&id).filter(|entry| !entry.is_over) else { return Push::Gone };
            if cost + ANSWER > share {
                return Push::TooLarge(share);
            }
            let has_share = entry.bytes + cost <= share;
            if has_share && all + cost <= limit {
                entry.pieces.push_back(piece.clone());
                entry.bytes += cost;
                self.bytes += cost;
                return Push::Done;
            }
            if has_share && self.forget_one(id) {
                continue;
            }
            let freed = self.answers.get_mut(&id).and_then(Entry::forget_first);
            match freed {
                Some(freed) => self.bytes -= freed,
                None => return Push::Full,
            }
        }
    }

    /// Forgets an answer that is over and unread, but for this one: of the owner who has most answers kept, that which has
    /// been so for longest.
    pub(super) fn forget_one(&mut self, but: u128) -> bool {
        let mut of_owner = HashMap::<Owner, usize>::new();
        self.answers.values().for_each(|entry| *of_owner.entry(entry.owner).or_default() += 1);
        let over = self.answers.iter().filter(|(id, entry)| **id != but && entry.is_over && entry.reader.is_none());
        let first = over.min_by_key(|(_, entry)| (Reverse(of_owner.get(&entry.owner)), entry.unread_since));
        first.map(|(id, _)| *id).is_some_and(|id| self.remove(id))
    }

    /// How many answers of this owner are not over.
    pub(super) fn under_way(&self, owner: Owner) -> usize {
        self.answers.values().filter(|entry| entry.owner == owner && !entry.is_over).count()
    }

    /// Whether this owner has half of what those of others leave, so that there is always room for one more owner.
    pub(super) fn takes_too_many(&self, owner: Owner) -> bool {
        let (own, all) = (self.under_way(owner), self.answers.values().filter(|entry| !entry.is_over).count());
        own >= MAX_KEPT.saturating_sub(all - own).div_ceil(2)
    }

    pub(super) fn remove(&mut self, id: u128) -> bool {
        let Some(entry) = self.answers.remove(&id) else { return false };
        self.bytes -= entry.bytes + entry.held;
        entry.changed.notify_waiters();
        true
    }
}

impl Entry {
    /// The number of the piece that comes next.
    pub(super) fn end(&self) -> u64 {
        self.first + self.pieces.len() as u64
    }

    pub(super) fn is_read_by(&self, serial: u64) -> bool {
        self.reader.is_some_and(|(reader, _)| reader == serial)
    }

    /// Forgets the first piece, if it was read or need not be. The bytes that this frees.
    pub(super) fn forget_first(&mut self) -> Option<u64> {
        let was_read = self.reader.is_some_and(|(_, next)| self.first < next);
        if !was_read && !self.goes_on_unread {
            return None;
        }
        let freed = self.pieces.pop_front()?.len() as u64 + PIECE;
        self.first += 1;
        self.bytes -= freed;
        Some(freed)
    }
}
