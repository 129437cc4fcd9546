//! How an exclusive connection sends calls, and waits for room.

use bellrope_proto::{connection::AnswerKind, handshake::Style};

use super::{
    super::{
        deadline::left,
        options::CallOptions,
        types::{MessageType, Target},
    },
    CallId, Completion, Connection, NO_OTHER_SERVER,
    limit::Limit,
};
use crate::error::CallError;

/// Payload bytes that are queued before they are sent: about what the server works on while as much again is written.
const SEND_EVERY: usize = 4096;

impl Connection {
    /// Sends a call without waiting for its answer. Waits for room in the ring if there is none. Answers that come
    /// meanwhile are kept until they are [polled](Self::poll) or [waited](Self::wait) for, so that two sides which both
    /// send much never wait for each other. They are held in memory, as many as calls may be under way; beyond that this
    /// fails as [`CallError::Rejected`]. [Example](Self).
    ///
    /// # Errors
    /// [`CallError`]; the call was not sent, and will not run.
    #[inline]
    pub fn submit<'a>(&mut self, message_type: impl Into<Target<'a>>, payload: &[u8]) -> Result<CallId, CallError> {
        let message_type = self.find(message_type.into())?;
        self.send(message_type, payload, &mut Limit::default())
    }

    /// As [`Self::submit`], with a time-out for the call. When it is over, the call ends as
    /// [`CallError::DeadlineExceeded`], as soon as it is [polled](Self::poll) or [waited](Self::wait) for.
    /// [Example](Self).
    ///
    /// # Errors
    /// As [`Self::submit`]; [`CallError::UnusableOption`] for a retry or a token.
    pub fn submit_with<'a>(
        &mut self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
        options: &CallOptions,
    ) -> Result<CallId, CallError> {
        let (message_type, mut limit) = self.prepare("submit", message_type.into(), options)?;
        let id = self.send(message_type, payload, &mut limit)?;
        self.keep_time(id, &limit);
        Ok(id)
    }

    /// Checks the options of a call that is not waited for.
    fn prepare<'a>(
        &mut self,
        form: &'static str,
        target: Target<'_>,
        options: &'a CallOptions,
    ) -> Result<(MessageType, Limit<'a>), CallError> {
        options.without_retry(form, NO_OTHER_SERVER)?;
        options.without_token(
            form,
            "no caller waits that could look at a token; use Connection::cancel with the call's id",
        )?;
        Ok((self.find(target)?, Limit::of(options)))
    }

    fn keep_time(&mut self, id: CallId, limit: &Limit<'_>) {
        if let Some(deadline) = limit.given {
            self.deadlines.note(deadline, id.0, self.link.connection.calls());
        }
    }

    /// Sends a call, as soon as there is room for it.
    #[inline(always)]
    pub(super) fn send(
        &mut self,
        message_type: MessageType,
        payload: &[u8],
        limit: &mut Limit<'_>,
    ) -> Result<CallId, CallError> {
        if payload.len() > self.link.connection.max_record_with(limit.said) {
            return self.send_large(message_type, payload, limit);
        }
        loop {
            if let Some(id) = self.link.submit_with(message_type, payload, left(limit.given), limit.said)? {
                self.link.commit();
                return Ok(CallId(id));
            }
            self.wait_for_room(limit)?;
        }
    }

    /// Sends a request in parts.
    fn send_large(
        &mut self,
        message_type: MessageType,
        payload: &[u8],
        limit: &mut Limit<'_>,
    ) -> Result<CallId, CallError> {
        let mut sending = loop {
            match self.link.begin_large(message_type.style, payload.len())? {
                Some(sending) => break sending,
                None => self.wait_for_room(limit)?,
            }
        };
        let id = CallId(sending.id);
        loop {
            let pushed = self.link.push_large(&mut sending, message_type, payload, left(limit.given), limit.said);
            match pushed.and_then(|all| if all { Ok(true) } else { self.wait_for_room(limit).map(|()| false) }) {
                Ok(true) => return Ok(id),
                Ok(false) => {}
                Err(error) => return Err(self.ended(id, error)),
            }
        }
    }

    /// Waits until there may be room, and takes the answers that come meanwhile: until they are taken, the server may
    /// have nowhere to put the next one, and takes no request before that.
    fn wait_for_room(&mut self, limit: &mut Limit<'_>) -> Result<(), CallError> {
        let most = self.link.connection.max_in_flight();
        if self.take_early()? {
            self.link.commit();
            return self.check(limit).map(drop).map_err(unsent);
        }
        // To wait while an answer is there that must not be taken would be to look at it for ever.
        if self.early.len() >= most as usize && self.link.connection.is_ready() {
            return Err(CallError::too_many_in_flight(most));
        }
        self.rest(None, true, limit).map_err(unsent)
    }

    /// Keeps the answers that have come, as many as there is room for. Answers whether that were any.
    fn take_early(&mut self) -> Result<bool, CallError> {
        let mut came = false;
        while self.early.len() < self.link.connection.max_in_flight() as usize {
            let Some(answer) = self.link.next_answer()? else { break };
            came = true;
            let mut reply = match answer.kind {
                AnswerKind::Part { size } if answer.at == 0 => {
                    let mut reply = Vec::new();
                    self.free_list.exchange(&mut reply, size);
                    reply
                }
                _ if answer.at > 0 => Vec::new(),
                _ => self.free_list.reply(),
            };
            if let Some(outcome) = self.accept(&answer, &mut reply) {
                self.early.push_back((Completion { id: CallId(answer.id), outcome }, reply));
            }
        }
        Ok(came)
    }

    /// Finds what is called.
    #[inline(always)]
    pub(super) fn find(&mut self, target: Target<'_>) -> Result<MessageType, CallError> {
        match self.link.types.find_styled(target, Style::Unary) {
            Ok(found) => Ok(found),
            Err(_) => self.find_again(target),
        }
    }

    /// The server may have changed its table since something was last taken.
    #[cold]
    fn find_again(&mut self, target: Target<'_>) -> Result<MessageType, CallError> {
        self.link.hear()?;
        self.take_early()?;
        self.link.commit();
        self.link.types.find_styled(target, Style::Unary)
    }

    /// Queues a call, to be sent together with others by the next [`Self::flush`], [`Self::poll`] or [`Self::wait`], or once
    /// they have come to a few KiB, on which the server can then work: many calls at once cost less than one by one. `None` if
    /// there is no room in the ring right now. A message that is too large for one record, a quarter of the ring, cannot be
    /// queued. [Example](Self).
    ///
    /// # Errors
    /// [`CallError`]; nothing was queued.
    #[inline(always)]
    pub fn queue<'a>(
        &mut self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
    ) -> Result<Option<CallId>, CallError> {
        let message_type = self.find(message_type.into())?;
        let queued = self.link.submit(message_type, payload, None)?.map(CallId);
        self.note_queued(payload.len());
        Ok(queued)
    }

    /// Sends what was queued when it takes longer to write than to send: the server is not to wait for all of it.
    #[inline(always)]
    fn note_queued(&mut self, len: usize) {
        self.queued += len;
        if self.queued >= SEND_EVERY {
            self.queued = 0;
            self.link.commit();
        }
    }

    /// As [`Self::queue`], with a time-out for the call, as [`Self::submit_with`]. [Example](Self).
    ///
    /// # Errors
    /// As [`Self::queue`]; [`CallError::UnusableOption`] for a retry or a token.
    pub fn queue_with<'a>(
        &mut self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
        options: &CallOptions,
    ) -> Result<Option<CallId>, CallError> {
        let (message_type, limit) = self.prepare("queue", message_type.into(), options)?;
        let id = self.link.submit_with(message_type, payload, options.timeout, options.said())?.map(CallId);
        self.note_queued(payload.len());
        id.into_iter().for_each(|id| self.keep_time(id, &limit));
        Ok(id)
    }
}

/// How a call ends that was not sent whole: it has not run, however the link ends.
fn unsent(error: CallError) -> CallError {
    match error {
        CallError::Unknown => CallError::NotExecuted,
        CallError::ClosedByServer { reason, .. } => CallError::ClosedByServer { reason, may_have_run: false },
        error => error,
    }
}
