//! What strangers may send on the subjects of a fleet, for a fuzzer: each function takes bytes as they come, and panics where
//! what must hold does not.

use crate::{
    flow::{Assembly, Gathered},
    frame::{self, Down, DownKind, ItemPart, Up, UpKind},
    importing, offering,
};

/// Most bytes of an item that is put together here.
const MOST_ITEM: u64 = 1 << 20;

/// Messages one after the other, each behind its length in two bytes, to both sides of a fleet.
pub fn messages(input: &[u8]) {
    let (mut instance, mut importing) = (offering::OfferingSide::default(), importing::ImportingSide::default());
    let (mut assembly, mut items) = (Some(Assembly::default()), 0);
    let mut rest = input;
    while let [low, high, more @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(more.len());
        let (message, later) = more.split_at(len);
        rest = later;
        if let Ok((up, payload)) = frame::read::<Up<'_>>(message) {
            is_read_again(&up, payload);
            if let UpKind::Data(part) = up.what {
                put(&mut assembly, &mut items, part, payload);
            }
            instance.take(&up, message);
        }
        if let Ok((down, payload)) = frame::read::<Down<'_>>(message) {
            is_read_again_down(&down, payload);
            match down.what {
                DownKind::Chunks { .. } => {
                    let taken: usize = Gathered::items(payload).flatten().map(<[u8]>::len).sum();
                    assert!(taken <= payload.len(), "chunks have {taken} bytes of {}", payload.len());
                }
                DownKind::Holding => assert!(frame::numbers(payload).count() <= payload.len() / 8),
                DownKind::Data { part, .. } => put(&mut assembly, &mut items, part, payload),
                _ => {}
            }
            importing.take(&down);
        }
        importing.hear(message);
    }
}

fn is_read_again(up: &Up<'_>, payload: &[u8]) {
    assert_eq!(frame::read::<Up<'_>>(&frame::write(up, payload)), Ok((up.clone(), payload)));
}

fn is_read_again_down(down: &Down<'_>, payload: &[u8]) {
    assert_eq!(frame::read::<Down<'_>>(&frame::write(down, payload)), Ok((down.clone(), payload)));
}

/// No part makes more of an item than came, and none follows one that breaks the rules.
fn put(assembly: &mut Option<Assembly>, items: &mut u64, part: ItemPart, bytes: &[u8]) {
    let Some(open) = assembly else { return };
    if open.begins_large(part, bytes) && part.size > MOST_ITEM {
        *assembly = None;
        return;
    }
    match open.take(part, bytes) {
        Ok(Some(item)) => {
            assert_eq!(item.len() as u64, part.size);
            *items += 1;
        }
        Ok(None) => {}
        Err(_) => *assembly = None,
    }
}
