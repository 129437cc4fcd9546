//! One direction of a call: items in parts, with credit from the reader.
//!
//! It knows no NATS: what sends a part is handed in.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::frame::ItemPart;

/// Bytes that one direction of a call may be ahead of its reader.
pub(crate) const WINDOW: usize = 256 * 1024;
/// Most bytes of a part.
pub(crate) const MOST_PART: usize = 32 * 1024;
/// A smaller part costs as much credit as one of this size.
const LEAST: usize = 64;
/// Credit that is given back at once.
const GIVE_BACK: usize = WINDOW / 4;

/// What a part costs.
pub(crate) fn cost(len: usize) -> usize {
    len.clamp(LEAST, MOST_PART)
}

/// Credit that was given, and may be used.
#[derive(Debug, Clone)]
pub(crate) struct Credit(Arc<Semaphore>);

impl Credit {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(WINDOW)))
    }

    /// The reader gives back so much. `false` if that is more than it ever had.
    #[must_use]
    pub(crate) fn add(&self, bytes: u32) -> bool {
        let fits = self.0.available_permits() + bytes as usize <= WINDOW;
        if fits {
            self.0.add_permits(bytes as usize);
        }
        fits
    }

    /// Waits for the credit of a part.
    pub(crate) async fn take(&self, len: usize) {
        // Nobody closes it.
        if let Ok(permits) = self.0.acquire_many(cost(len) as u32).await {
            permits.forget();
        }
    }
}

/// Cuts items into numbered parts.
#[derive(Debug)]
pub(crate) struct Cutter {
    seq: u64,
    part: usize,
}

impl Cutter {
    /// `part` is the most bytes of a part.
    pub(crate) fn new(part: usize) -> Self {
        Self { seq: 0, part }
    }

    /// The number of a message that holds several items.
    pub(crate) fn number(&mut self) -> u64 {
        self.seq += 1;
        self.seq - 1
    }

    /// The first part of an item, or the next after `from` bytes of it: its description and its bytes.
    pub(crate) fn cut<'a>(&mut self, item: &'a [u8], from: usize) -> (ItemPart, &'a [u8]) {
        let bytes = &item[from..item.len().min(from + self.part)];
        let part = ItemPart { seq: self.seq, size: item.len() as u64 };
        self.seq += 1;
        (part, bytes)
    }
}

/// Small items that travel in one message, each behind its length in four bytes.
#[derive(Debug, Default)]
pub(crate) struct Gathered(Vec<u8>);

impl Gathered {
    /// Whether a message of at most so many bytes has room for this item, too.
    pub(crate) fn has_room(&self, item: &[u8], most: usize) -> bool {
        self.0.len().saturating_add(item.len()).saturating_add(4) <= most
    }

    /// Adds an item that it has room for.
    pub(crate) fn add(&mut self, item: &[u8]) {
        let len = u32::try_from(item.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&len.to_le_bytes());
        self.0.extend_from_slice(item);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was gathered.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        // The next message is as large, most likely.
        let next = Vec::with_capacity(self.0.len());
        std::mem::replace(&mut self.0, next)
    }

    /// The items of a message.
    pub(crate) fn items(mut message: &[u8]) -> impl Iterator<Item = Result<&[u8], BrokenPart>> {
        std::iter::from_fn(move || {
            if message.is_empty() {
                return None;
            }
            let item = message.split_first_chunk::<4>().and_then(|(len, rest)| {
                let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
                rest.split_at_checked(len)
            });
            message = item.map_or(&[][..], |(_, rest)| rest);
            Some(item.map(|(item, _)| item).ok_or(BrokenPart::Size))
        })
    }
}

/// What is wrong with a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BrokenPart {
    #[error("part {due} of the stream is missing: {came} came")]
    Gap { due: u64, came: u64 },
    #[error("parts of an item do not agree on its size")]
    Size,
}

/// Puts parts together again.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    seq: u64,
    /// Bytes of the item that is under way, of which some are there.
    size: Option<u64>,
    item: Vec<u8>,
}

impl Assembly {
    /// Whether this part begins an item that needs more parts.
    pub(crate) fn begins_large(&self, part: ItemPart, bytes: &[u8]) -> bool {
        self.size.is_none() && part.size > bytes.len() as u64
    }

    /// Takes a message that holds several items.
    pub(crate) fn take_gathered(&mut self, seq: u64) -> Result<(), BrokenPart> {
        if seq != self.seq {
            return Err(BrokenPart::Gap { due: self.seq, came: seq });
        }
        self.seq += 1;
        if self.size.is_some() { Err(BrokenPart::Size) } else { Ok(()) }
    }

    /// Takes a part. Answers with the item if that is whole.
    pub(crate) fn take(&mut self, part: ItemPart, bytes: &[u8]) -> Result<Option<Vec<u8>>, BrokenPart> {
        if part.seq != self.seq {
            return Err(BrokenPart::Gap { due: self.seq, came: part.seq });
        }
        self.seq += 1;
        let have = self.item.len() as u64 + bytes.len() as u64;
        if have > part.size || self.size.is_some_and(|size| size != part.size || bytes.is_empty()) {
            return Err(BrokenPart::Size);
        }
        self.item.extend_from_slice(bytes);
        if have < part.size {
            if bytes.is_empty() {
                return Err(BrokenPart::Size);
            }
            self.size = Some(part.size);
            return Ok(None);
        }
        self.size = None;
        Ok(Some(std::mem::take(&mut self.item)))
    }
}

/// Credit that a reader owes its writer.
#[derive(Debug, Default)]
pub(crate) struct Owed(usize);

impl Owed {
    /// The reader is done with a part of so many bytes. Answers with what is to be given back now.
    pub(crate) fn add(&mut self, len: usize) -> Option<u32> {
        self.0 += cost(len);
        (self.0 >= GIVE_BACK).then(|| std::mem::take(&mut self.0) as u32)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn items_arrive_as_they_were_cut(sizes in proptest::collection::vec(0_usize..200, 0..20), part in 1_usize..64) {
            let (mut cutter, mut assembly) = (Cutter::new(part), Assembly::default());
            for size in sizes {
                let item: Vec<u8> = (0..size).map(|at| at as u8).collect();
                let (mut from, mut whole) = (0, None);
                while whole.is_none() {
                    let (described, bytes) = cutter.cut(&item, from);
                    from += bytes.len();
                    whole = assembly.take(described, bytes).unwrap();
                }
                prop_assert_eq!(whole.unwrap(), item);
            }
        }

        #[test]
        fn small_items_arrive_as_they_were_gathered(sizes in proptest::collection::vec(0_usize..40, 0..20), most in 4_usize..99) {
            let items: Vec<Vec<u8>> = sizes.into_iter().map(|size| vec![size as u8; size]).collect();
            let (mut gathered, mut messages) = (Gathered::default(), Vec::new());
            for item in items.iter().filter(|item| item.len() + 4 <= most) {
                if !gathered.has_room(item, most) {
                    messages.push(gathered.take());
                }
                gathered.add(item);
            }
            messages.push(gathered.take());
            prop_assert!(messages.iter().all(|message| message.len() <= most));
            let came: Vec<_> = messages.iter().flat_map(|message| Gathered::items(message)).map(Result::unwrap).collect();
            let sent: Vec<_> = items.iter().filter(|item| item.len() + 4 <= most).collect();
            prop_assert_eq!(came, sent);
        }

        #[test]
        fn foreign_bytes_are_items_or_an_error_at_their_end(bytes in proptest::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..99)) {
            let items: Vec<_> = Gathered::items(&bytes).collect();
            prop_assert!(items.len() <= bytes.len().div_ceil(4));
            prop_assert!(items.iter().rev().skip(1).all(Result::is_ok));
        }

        #[test]
        fn no_part_makes_more_of_an_item_than_came(parts in proptest::collection::vec((0_u64..3, 0_u64..9, 0_usize..9), 0..9)) {
            let mut assembly = Assembly::default();
            let mut came = 0;
            for (seq, size, len) in parts {
                came += len;
                match assembly.take(ItemPart { seq, size }, &vec![1; len]) {
                    Ok(Some(item)) => prop_assert!(item.len() <= came && item.len() as u64 == size),
                    Ok(None) => prop_assert!(assembly.item.len() <= came),
                    Err(_) => break,
                }
            }
        }
    }

    #[test]
    fn a_gap_is_an_error_and_so_is_credit_that_nobody_used() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.take(ItemPart { seq: 1, size: 1 }, b"x"), Err(BrokenPart::Gap { due: 0, came: 1 }));
        assert_eq!(Assembly::default().take_gathered(1), Err(BrokenPart::Gap { due: 0, came: 1 }));
        let mut half = Assembly::default();
        assert_eq!(half.take(ItemPart { seq: 0, size: 2 }, b"x"), Ok(None));
        assert_eq!(half.take_gathered(1), Err(BrokenPart::Size), "in the middle of an item");
        let credit = Credit::new();
        assert!(!credit.add(1));
    }
}
