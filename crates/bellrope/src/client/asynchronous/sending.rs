//! How the async client sends calls, and waits for room and for a connection.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bellrope_proto::{connection::Sending, handshake::Style};
use tokio::time::timeout_at;

use super::{
    super::{
        config::ConnectionState,
        deadline::{from_now, left},
        mailboxes::Ticket,
        options::{CallOptions, CancelToken},
        shared::{Begun, State},
        types::{MessageType, Target},
    },
    AsyncClient,
    apart::apart,
    driver::settle,
    pending::Pending,
    place::Place,
};
use crate::error::{CallError, ConnectError};

impl AsyncClient {
    /// Sends a call whose answer may take any time, but which is to be on its way within the configuration's
    /// `call_timeout`.
    pub(super) async fn begin(
        &self,
        target: Target<'_>,
        style: Style,
        payload: &[u8],
        deadline: Option<Instant>,
        options: &CallOptions,
    ) -> Result<Pending, CallError> {
        let sent_by = deadline.unwrap_or_else(|| from_now(self.shared.config.call_timeout));
        let start = self.start(target, style, payload, deadline, options);
        timeout_at(sent_by.into(), start).await.unwrap_or(Err(CallError::DeadlineExceeded))
    }

    /// Sends a call, over a new connection if the old one is lost, or ends it as cancelled.
    pub(super) async fn start(
        &self,
        target: Target<'_>,
        style: Style,
        payload: &[u8],
        deadline: Option<Instant>,
        options: &CallOptions,
    ) -> Result<Pending, CallError> {
        if options.is_cancelled() {
            return Err(CallError::Cancelled);
        }
        CancelToken::guard(options.cancel.as_ref(), self.send(target, style, payload, deadline, options)).await
    }

    async fn send(
        &self,
        target: Target<'_>,
        style: Style,
        payload: &[u8],
        deadline: Option<Instant>,
        options: &CallOptions,
    ) -> Result<Pending, CallError> {
        loop {
            self.await_link().await?;
            let mut place = Place::for_room(&self.shared);
            let begun =
                poll_fn(|context| self.poll_begin(context, &mut place, target, style, payload, deadline, options))
                    .await?;
            let Some((ticket, parts)) = begun else { continue };
            let registration = options.cancel.as_ref().map(|token| token.register(&self.shared, ticket));
            let pending = Pending::new(&self.shared, ticket, registration);
            if let Some((message_type, mut sending)) = parts {
                poll_fn(|context| {
                    self.poll_room(context, &mut place, |state| {
                        state.push(ticket, &mut sending, message_type, payload, left(deadline), options.said())
                    })
                })
                .await?;
            }
            return Ok(pending);
        }
    }

    /// Sends a call as soon as there is room. `None`: the link is lost.
    #[expect(clippy::type_complexity, reason = "a call, and what is left to send of it")]
    #[expect(clippy::too_many_arguments, reason = "all of it is what `send` knows of the call")]
    fn poll_begin(
        &self,
        context: &Context<'_>,
        place: &mut Place<'_>,
        target: Target<'_>,
        style: Style,
        payload: &[u8],
        deadline: Option<Instant>,
        options: &CallOptions,
    ) -> Poll<Result<Option<(Ticket, Option<(MessageType, Sending)>)>, CallError>> {
        let mut begun = None;
        let polled = self.poll_room(context, place, |state| {
            let Some(link) = &state.link else { return Ok(true) };
            let message_type = match link.types.find_styled(target, style) {
                Ok(found) => found,
                Err(_) => {
                    self.shared.catch_up(state);
                    let Some(link) = &state.link else { return Ok(true) };
                    link.types.find_styled(target, style)?
                }
            };
            begun = match state.begin(message_type, payload, left(deadline), options.said())? {
                Begun::NoRoom => return Ok(false),
                Begun::Whole(ticket) => Some((ticket, None)),
                Begun::Partly(ticket, sending) => Some((ticket, Some((message_type, sending)))),
            };
            Ok(true)
        });
        polled.map_ok(|()| begun)
    }

    /// Tries something that needs room in the request ring, until it succeeds.
    fn poll_room(
        &self,
        context: &Context<'_>,
        place: &mut Place<'_>,
        mut attempt: impl FnMut(&mut State) -> Result<bool, CallError>,
    ) -> Poll<Result<(), CallError>> {
        let mut state = self.shared.lock();
        match attempt(&mut state) {
            Ok(true) => return Poll::Ready(Ok(())),
            Ok(false) => place.wait(&mut state, context),
            Err(error) => {
                settle(&self.shared, &mut state);
                return Poll::Ready(Err(error));
            }
        }
        settle(&self.shared, &mut state);
        Poll::Pending
    }

    /// Waits for the reconnector to find the server again.
    pub(super) async fn await_link(&self) -> Result<(), CallError> {
        let mut place = Place::for_link(&self.shared);
        let found = poll_fn(|context| {
            let mut state = self.shared.lock();
            match state.connection_state() {
                ConnectionState::Connected => Poll::Ready(Ok(())),
                ConnectionState::Closed => Poll::Ready(Err(CallError::Closed)),
                ConnectionState::Reconnecting => {
                    place.wait(&mut state, context);
                    Poll::Pending
                }
            }
        });
        match tokio::time::timeout(self.shared.config.reconnect_timeout, found).await {
            Ok(found) => found,
            // Either this succeeds after all, or its error says why not.
            Err(_) => Ok(self.connect_once().await?),
        }
    }

    pub(super) async fn connect_once(&self) -> Result<(), ConnectError> {
        let shared = Arc::clone(&self.shared);
        match apart(move || shared.connect()).await {
            Ok(connected) => connected,
            Err(source) => Err(ConnectError::Io { path: self.shared.config.path.clone(), source }),
        }
    }
}
