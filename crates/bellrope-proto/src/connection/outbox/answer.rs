//! How a call is answered on the spot.

use super::{super::reply::Reply, Outbox};
use crate::{Violation, failure::Failure, frame::Kind, ring::RecordClass};

/// A reply that was not sent at once: bytes of it, and what its handler says.
#[derive(Debug)]
#[must_use = "its caller still waits for an answer"]
pub struct Unsent {
    outcome: Result<(), Box<Failure>>,
    len: usize,
}

impl<B: AsRef<[u8]>> Outbox<B> {
    /// The common case of [`ServerConnection::answer`](super::ServerConnection::answer). What it did not send is for
    /// [`Self::answer_late`].
    #[inline(always)]
    pub(in crate::connection) fn answer(
        &mut self,
        id: u64,
        hint: usize,
        spill: &mut Vec<u8>,
        fill: impl FnOnce(&mut Reply<'_>) -> Result<(), Box<Failure>>,
    ) -> Result<Option<Unsent>, Violation> {
        let limit = self.max_message as usize;
        debug_assert!(spill.is_empty(), "whoever fills it empties it");
        let draft = match hint as u64 <= self.responses.max_payload() {
            true => self.responses.begin(RecordClass::Bulk, false, hint)?,
            false => None,
        };
        let mut reply = Reply { draft, spill, len: 0, limit };
        let outcome = fill(&mut reply);
        if outcome.is_ok() {
            if let Reply { draft: Some(draft), .. } = reply {
                let len = draft.len();
                // What fits into the ring may still be more than a message may be.
                if len <= limit {
                    draft.stage(Kind::Response, 0, id, 0);
                    return Ok(None);
                }
                return Ok(Some(Unsent { len, outcome }));
            }
        }
        Ok(Some(Unsent { len: reply.len(), outcome }))
    }

    /// Answers a call whose handler failed, or whose reply found no room in the ring.
    #[cold]
    #[inline(never)]
    pub(in crate::connection) fn answer_late(
        &mut self,
        id: u64,
        Unsent { outcome, len }: Unsent,
        spill: &mut Vec<u8>,
        keep: impl FnOnce(Vec<u8>) -> Result<B, Failure>,
    ) -> Result<Option<Box<Failure>>, Violation> {
        let limit = self.terms.max_message as usize;
        let kept = match outcome {
            Ok(()) if len <= limit => keep(std::mem::take(spill)).map_err(Box::new),
            Ok(()) => Err(Box::new(Failure::too_large("reply", len as u64, limit as u64))),
            Err(failure) => Err(failure),
        };
        spill.clear();
        let failed = kept.as_ref().err().cloned();
        self.respond(id, kept.map_err(|failure| *failure))?;
        Ok(failed)
    }
}
