//! A call of the async client that is under way.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use super::{
    super::{
        deadline::from_now,
        mailboxes::{Arrival, Ticket, Waiter},
        options::{CallOptions, Registration},
        shared::SharedClient,
    },
    driver::settle,
};
use crate::error::CallError;

/// A call under way. Dropping it cancels the call.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) shared: Arc<SharedClient>,
    /// `None` once the call has ended.
    pub(super) ticket: Option<Ticket>,
    registrations: Vec<Registration>,
}

impl Pending {
    pub(super) fn new(shared: &Arc<SharedClient>, ticket: Ticket, registration: Option<Registration>) -> Self {
        Self { shared: Arc::clone(shared), ticket: Some(ticket), registrations: registration.into_iter().collect() }
    }

    /// Has the call cancelled with another token, too.
    pub(super) fn register(&mut self, options: &CallOptions) {
        if let (Some(token), Some(ticket)) = (&options.cancel, self.ticket) {
            self.registrations.push(token.register(&self.shared, ticket));
        }
    }

    pub(super) async fn response(&mut self) -> Result<Vec<u8>, CallError> {
        match poll_fn(|context| self.poll_event(context)).await {
            Arrival::Response(payload) => Ok(payload),
            Arrival::Failed(error) => Err(error),
            Arrival::Chunk(_) | Arrival::End => unreachable!("the connection checks the style of every answer"),
        }
    }

    pub(super) fn poll_event(&mut self, context: &Context<'_>) -> Poll<Arrival> {
        let Some(ticket) = self.ticket else { return Poll::Ready(Arrival::End) };
        let mut state = self.shared.lock();
        let mut event = state.take_event(ticket);
        if event.is_none() {
            settle(&self.shared, &mut state);
            event = state.take_event(ticket);
        }
        match event {
            Some(event) => {
                if !matches!(event, Arrival::Chunk(_)) {
                    self.ticket = None;
                }
                Poll::Ready(event)
            }
            None => {
                state.wait_for(ticket, Waiter::Reader, context.waker());
                Poll::Pending
            }
        }
    }

    /// Gives the call up, if it has not ended.
    pub(super) fn abandon(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.shared.lock().abandon(ticket);
        }
    }

    /// Leaves the call, if it has not ended.
    pub(super) fn leave(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.shared.lock().leave_call(ticket);
        }
    }

    /// When an answer must be in that has no deadline of its own.
    pub(super) fn patience(&self) -> Instant {
        from_now(self.shared.config.call_timeout)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.abandon();
    }
}
