//! Calls that async handlers answer: how they begin, what their handlers say, and how they end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bellrope_proto::{
    Reservation, Violation,
    connection::{Failure, InboundRequest},
    frame::{ErrorCode, Rejection},
    metadata::Metadata,
};
use bellrope_shm::clock;

use super::{
    budget_claim::Reserve,
    dispatch::{self, Held, OpenCall},
    failures::{draining, is_of_service, open_breaker},
    outcome,
};
use crate::{
    kill_points::KillPoint,
    server::{
        core::Core,
        handler::{
            context::CallContext,
            owned_call::{Cancelled, OwnedCall},
            port::Port,
            registry::Handler,
            streams::ChunkSender,
        },
        inbox::Inbox,
        message::{FromHandler, SessionId, WorkerMessage},
        span::CallSpan,
        worker::session::Session,
    },
    status::Shard,
};

/// What a call costs beyond its payload, in bytes: its task and its bookkeeping, roughly.
const CALL_OVERHEAD: u64 = 1024;

/// The calls of one worker's connections that async handlers answer.
pub(crate) struct AsyncCalls {
    core: Arc<Core>,
    counters: Arc<Shard>,
    /// The worker's, where handlers say what they have to say.
    inbox: Arc<Inbox<WorkerMessage>>,
}

impl AsyncCalls {
    pub(crate) fn new(core: &Arc<Core>, worker: usize, inbox: Arc<Inbox<WorkerMessage>>) -> Self {
        Self { core: Arc::clone(core), counters: Arc::clone(core.metrics.shard(worker)), inbox }
    }

    /// Hands a call to its async handler, unless too many are open. Answers `false` if it has to wait for the budget.
    pub(crate) fn start(
        &self,
        session: &mut Session,
        handler: &Handler,
        request: &InboundRequest,
        metadata: Option<Metadata>,
    ) -> Result<bool, Violation> {
        let core = &*self.core;
        let style = handler.style();
        let weight = core.registry.weight(request.message_type);
        let may_run = core.may_run(request.deadline_us, request.len);
        let mut refusal = (!may_run).then(|| core.refusal(request.len));
        let (payload, reservation) = if request.large {
            let (payload, mut reservation) = session.connection.take_large(request)?;
            session.budget_claim.came_whole();
            reservation.shrink_to(core.room_for(payload.len() as u64, weight));
            (payload, Some(reservation))
        } else {
            let streams = if style.streams() { ChunkSender::AHEAD as u64 } else { 0 };
            let uploads = if style.uploads() { u64::from(core.fixed.terms.stream_window) } else { 0 };
            let bytes = core.room_for(request.len as u64, weight) + CALL_OVERHEAD + streams + uploads;
            let reservation = match &refusal {
                Some(_) => None,
                None => match session.budget_claim.reserve(bytes, core.live.budget_wait()) {
                    Reserve::Granted(reservation) => Some(reservation),
                    Reserve::Wait { first } => {
                        core.waits_for_budget(first);
                        return Ok(false);
                    }
                    Reserve::Refused(failure) => {
                        refusal = Some(failure);
                        None
                    }
                },
            };
            let mut payload = vec![0; request.len];
            session.connection.take(request, &mut payload);
            (payload, reservation)
        };
        let breaker = core.breaker(request.message_type);
        let permit = match refusal.is_none().then(|| breaker.acquire_owned_for(|| session.caller(), Instant::now)) {
            // Who uploads decides how long that takes.
            Some(Ok(permit)) => Some(if style.uploads() { permit.untimed() } else { permit }),
            Some(Err(rejected)) => {
                refusal = Some(open_breaker(&rejected));
                None
            }
            None => None,
        };
        if refusal.is_none() && !session.connection.open(request.id, style)? {
            let limit = core.fixed.terms.max_in_flight;
            let text = format!("{limit} calls are open on this connection, the limit max_in_flight");
            refusal = Some(Failure::rejected(Rejection::Busy, text));
        }
        let (Some(mut reservation), Some(permit), None) = (reservation, permit, &refusal) else {
            let failure = refusal.unwrap_or_else(draining);
            outcome::note(core, &self.counters, session, request.message_type, Some(&failure));
            session.connection.fail(request.id, failure)?;
            return Ok(true);
        };
        let ahead = style.streams().then(|| reservation.split_off(reservation.bytes().min(ChunkSender::AHEAD as u64)));
        let room = Arc::new(reservation);
        let runtime = core.runtime.as_ref().expect("a server with async handlers has a runtime");
        let span = CallSpan::new(core, request.message_type, session.serial, metadata.as_ref());
        let shows_token = metadata.as_ref().is_some_and(|said| said.token_text().is_some());
        let call = OwnedCall {
            payload,
            remote: session.caller.remote(),
            token_names: core.token_names.clone().filter(|_| shows_token),
            metadata: metadata.map(Box::new),
            context: CallContext { connection: session.serial, deadline_us: request.deadline_us },
            cancelled: Cancelled::default(),
            pid: session.peer.pid,
            _room: Arc::clone(&room),
            user: session.peer.uid,
            holder: Arc::clone(session.budget_claim.holder()),
            patience: core.live.budget_wait(),
            stall_timeout: core.live.stall_timeout(),
            claims: Arc::clone(&core.claims),
        };
        let port = Port {
            inbox: Arc::clone(&self.inbox),
            session: SessionId { index: session.index as usize, serial: session.serial },
            call: request.id,
            max_chunk: session.connection.max_record(),
        };
        let held = Held { room: Some(room), ahead, permit: Some(permit), span };
        let turns = session.open.turns().are_of(session.budget_claim.holder(), runtime);
        let open = dispatch::start((runtime, turns), handler, request.message_type, call, &port, held);
        // What the handler does before its future is there, it does on the worker.
        core.held_thread(request.message_type, open.started.elapsed());
        session.open.insert(request.id, open);
        self.counters.began(request.message_type);
        KillPoint::Started.reached();
        Ok(true)
    }

    /// Does what the handler of a call asks for.
    pub(crate) fn deliver(&self, session: &mut Session, call: u64, what: FromHandler) -> Result<(), Violation> {
        match what {
            FromHandler::Chunk(body) => {
                session.open.began_to_answer(call, || session.caller.of(session.peer.pid, session.serial));
                session.connection.chunk(call, body)
            }
            FromHandler::Chunks(bodies) => {
                session.open.began_to_answer(call, || session.caller.of(session.peer.pid, session.serial));
                session.connection.chunks(call, bodies)
            }
            FromHandler::Consumed(sizes) => {
                sizes.into_iter().try_for_each(|len| session.connection.consumed(call, len))
            }
            FromHandler::Held(message_type, held) => {
                self.core.held_thread(message_type, held);
                Ok(())
            }
            FromHandler::Answered(outcome) => {
                let mut open = session.open.close(call);
                let of_call = open.as_mut().and_then(|open| open.held.room.take()).and_then(Arc::into_inner);
                let (outcome, of_reply) = match outcome {
                    Ok(reply) => (Ok(reply.bytes), reply.reservation),
                    Err(failure) => (Err(failure), None),
                };
                let mut reservation = of_call.into_iter().chain(of_reply).reduce(Reservation::joined);
                let alone = !session.connection.is_stalled();
                let outcome = outcome
                    .and_then(|reply| self.core.keep(reply, reservation.take(), alone, session.budget_claim.holder()));
                if let Some(open) = open {
                    self.ended(session, open, outcome.as_ref().err());
                }
                match outcome {
                    Ok(body) => session.connection.respond(call, Ok(body)),
                    Err(failure) => {
                        let (failure, room) =
                            self.core.keep_error(failure, reservation, alone, session.budget_claim.holder());
                        session.connection.fail_open(call, failure, room)
                    }
                }
            }
            FromHandler::Finished(outcome) => {
                if let Some(mut open) = session.open.close(call) {
                    // Its last chunks may wait for their reader for long.
                    if let Some(reservation) = open.held.ahead.take() {
                        session.connection.hold(call, reservation);
                    }
                    self.ended(session, open, outcome.as_ref().err());
                }
                session.connection.finish(call, outcome)
            }
        }
    }

    /// Ends the streams of a connection whose reader has read nothing of them for `patience`, whatever else it reads.
    /// To be called now and then. Answers whether there was one.
    pub(crate) fn end_unread(&self, session: &mut Session, patience: Duration) -> Result<bool, Violation> {
        let patience_us = u64::try_from(patience.as_micros()).unwrap_or(u64::MAX);
        let unread = session.connection.unread_streams(clock::monotonic_us(), patience_us);
        let any = !unread.is_empty();
        for call in unread {
            let text = format!(
                "nothing of this stream was read for {} ms, the limit stall_timeout_ms; what it had left was dropped",
                patience.as_millis()
            );
            let failure = Failure::new(ErrorCode::Exhausted, text);
            if let Some(mut open) = session.open.close(call) {
                // What says so waits for room, too.
                if let Some(room) = open.held.ahead.take() {
                    session.connection.hold(call, room);
                }
                open.cancel();
                self.counters.ended(open.message_type);
                outcome::note(&self.core, &self.counters, session, open.message_type, Some(&failure));
            }
            session.connection.abort(call, failure)?;
        }
        Ok(any)
    }

    /// Drops the handler of a call that its caller no longer wants, or leaves.
    pub(crate) fn cancelled(&self, session: &mut Session, call: u64, is_withdrawn: bool) {
        if let Some(open) = session.open.close(call) {
            if is_withdrawn {
                open.withdraw();
            } else {
                open.cancel();
            }
            self.counters.ended(open.message_type);
            self.counters.count(open.message_type, Some(ErrorCode::Cancelled));
        }
    }

    /// Counts the calls of a client that is gone; their handlers go with its session.
    pub(crate) fn abandoned(&self, session: &Session) {
        for open in session.open.iter() {
            open.cancel();
            self.counters.ended(open.message_type);
            self.counters.count(open.message_type, Some(ErrorCode::Cancelled));
        }
    }

    /// Notes how an open call ended that was answered through the inbox.
    fn ended(&self, session: &Session, mut call: OpenCall, failed: Option<&Failure>) {
        let took = call.started.elapsed();
        call.held.span.ended(failed.map_or("ok", |failure| failure.code.name()));
        if let Some(permit) = call.held.permit.take() {
            match failed {
                None => permit.succeed_for(|| session.caller(), Instant::now),
                Some(failure) if is_of_service(failure, call.deadline_us) => {
                    permit.fail_for(session.caller(), Instant::now);
                }
                Some(_) => drop(permit),
            }
        }
        outcome::note(&self.core, &self.counters, session, call.message_type, failed);
        self.counters.ended(call.message_type);
        self.counters.time(call.message_type, took.as_micros() as u64, 1);
    }
}
