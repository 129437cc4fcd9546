//! What a request takes of the buffer budget before it is read.

use bellrope::{
    HandlerError,
    server::{ClaimedRoom, OwnedCall},
};

use super::refused::without_thread;
use crate::apart::{LARGE, apart};
use crate::json;

/// How often a request counts in the server's buffer budget: what is read out of it, what is sent to the provider, and a
/// part of that on its way from the one to the other.
pub(super) const WEIGHT: u32 = 3;

/// What a request under way takes beside all that, in bytes: its connection to the provider, and the pieces on their way.
const UNDER_WAY: u64 = 24 * 1024;

/// A call, and the room for what is made of it beside that which it holds for itself, in which it is read and sent on.
pub(super) async fn weighed(call: OwnedCall, text: json::Place) -> Result<(OwnedCall, ClaimedRoom), HandlerError> {
    let size = call.payload().len();
    let weigh = move |call: OwnedCall| (json::weight(call.payload(), text), call);
    let (weight, call) =
        if size > LARGE { apart(move || weigh(call)).await.map_err(without_thread)? } else { weigh(call) };
    // What the call holds for itself is enough for most.
    let more = weight.saturating_sub(u64::from(WEIGHT - 1) * size as u64);
    let room = call.claim(more + UNDER_WAY).await?;
    Ok((call, room))
}
