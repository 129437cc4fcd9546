//! Large requests: how they are let in, refused, put together and taken.

use super::{
    super::assembly::{Assembly, Unfinished},
    Announced, Request, ServerConnection,
};
use crate::{Reservation, Violation, failure::Failure, frame::Kind, kill_points::KillPoint};

impl<B: AsRef<[u8]>> ServerConnection<B> {
    /// The request that is being put together, if one is.
    #[must_use]
    pub fn unfinished(&self) -> Option<Unfinished> {
        self.assembly.as_ref().and_then(Assembly::unfinished)
    }

    /// Lets a large request in: it will be put together in `buffer`, which must be as long as the whole will be.
    ///
    /// # Panics
    /// If the buffer has another length, or another large request is on its way.
    pub fn accept_large(&mut self, announced: &Announced, buffer: Vec<u8>, reservation: Reservation) {
        assert!(buffer.len() as u64 == announced.size && self.assembly.is_none());
        self.assemble(Assembly::fill(announced.id, buffer, reservation));
        KillPoint::ServerPartsAccepted.reached();
    }

    /// Refuses a large request: it is answered with this failure, and what still comes of it is dropped.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    ///
    /// # Panics
    /// If another large request is on its way.
    pub fn refuse_large(&mut self, announced: &Announced, failure: Failure) -> Result<(), Violation> {
        assert!(self.assembly.is_none());
        self.assemble(Assembly::Discarding { id: announced.id });
        self.fail(announced.id, failure)
    }

    /// Takes the memory of a large request that is being put together away: it is answered with this failure, and what
    /// still comes of it is dropped. Answers whether there was one.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn revoke_large(&mut self, failure: Failure) -> Result<bool, Violation> {
        let Some(Unfinished { id, .. }) = self.unfinished() else { return Ok(false) };
        self.assemble(Assembly::Discarding { id });
        self.fail(id, failure)?;
        Ok(true)
    }

    /// Takes a request that came in parts, as [`Self::take`] does, and gives its payload out.
    ///
    /// # Errors
    /// [`Violation::PartialSize`] if the parts do not add up.
    pub fn take_large(&mut self, request: &Request) -> Result<(Vec<u8>, Reservation), Violation> {
        let Some(Assembly::Filling(filling)) = self.assembly.take() else {
            return Err(Violation::Form(Kind::Request as u8));
        };
        let whole = filling.last(&self.requests, &request.record, request.skip)?;
        self.wake |= self.requests.advance(&request.record);
        self.requests.admit();
        Ok(whole)
    }

    fn assemble(&mut self, assembly: Assembly) {
        self.outbox.special = true;
        self.assembly = Some(assembly);
    }
}
