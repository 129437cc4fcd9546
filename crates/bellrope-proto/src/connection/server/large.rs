//! Large requests: how they are let in, refused, put together and taken.

use super::{
    super::assembly::{Assembly, Unfinished},
    Announced, InboundRequest, ServerConnection,
};
use crate::{Reservation, Violation, failure::Failure, frame::Kind, kill_points::KillPoint};

impl<B: AsRef<[u8]>> ServerConnection<B> {
    /// The request that is being put together, if one is.
    #[must_use]
    pub fn unfinished(&self) -> Option<Unfinished> {
        self.assembly.as_ref().and_then(Assembly::unfinished)
    }

    /// Lets a large request in: it will be put together in `buffer`, which must have room for the whole. What is in the buffer
    /// is overwritten, and no more of it is touched than comes.
    ///
    /// # Panics
    /// If the buffer has less room, or another large request is on its way.
    pub fn accept_large(&mut self, announced: &Announced, buffer: Vec<u8>, reservation: Reservation) {
        assert!(buffer.capacity() as u64 >= announced.size && self.assembly.is_none());
        self.assemble(Assembly::fill(announced.id, announced.size as usize, buffer, reservation));
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
    pub fn take_large(&mut self, request: &InboundRequest) -> Result<(Vec<u8>, Reservation), Violation> {
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

#[cfg(test)]
mod tests {
    use bellrope_shm::SharedMemory;

    use super::*;
    use crate::{
        BufferBudget,
        connection::{Inbound, Terms, pair},
        layout::Geometry,
        style::Style,
    };

    /// Bytes that requests are announced with.
    const SIZE: usize = 10 << 20;
    const TIMES: usize = 100;

    // Fault 58.
    #[test]
    fn a_request_that_is_announced_and_cancelled_costs_what_came_of_it_and_not_its_size() {
        let geometry = Geometry { capacity: 128 * 1024, window: 3840, compact: false };
        let terms = Terms { geometry, max_message: SIZE as u32, max_in_flight: 64, stream_window: 2048 };
        let memory = SharedMemory::anonymous(terms.geometry.mapping_len());
        let (mut client, mut server) = pair::<Vec<u8>>(&memory, terms);
        let (budget, payload) = (BufferBudget::new(SIZE as u64), vec![7; SIZE]);
        let (mut touched, mut came) = (0, 0);
        for _ in 0..TIMES {
            let mut sending = client.begin_large(Style::Unary, SIZE).unwrap();
            // As much as the ring takes.
            assert!(!client.push_large(&mut sending, 1, &payload, None).unwrap());
            let _ = client.commit();
            while let Some(inbound) = server.next_inbound().unwrap() {
                if let Inbound::Large(announced) = inbound {
                    let room = budget.reserve(announced.size).unwrap();
                    server.accept_large(&announced, Vec::with_capacity(SIZE), room);
                }
            }
            let Some(Assembly::Filling(filling)) = &server.assembly else { panic!("one is on its way") };
            (touched, came) = (touched + filling.touched(), came + server.unfinished().unwrap().filled as usize);
            assert!(client.cancel(sending.id).unwrap());
            let _ = client.commit();
            while server.next_inbound().unwrap().is_some() {}
            assert!(server.assembly.is_none() && budget.used() == 0);
            let _ = server.commit();
            while client.next_answer().unwrap().is_some() {}
        }
        assert!(0 < came && came < TIMES * SIZE / 10, "{came} bytes came");
        assert_eq!(touched, came, "bytes of memory that were cleared or written");
    }
}
