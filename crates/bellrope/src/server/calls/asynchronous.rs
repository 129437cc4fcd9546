//! Calls that async handlers answer: how they begin, and how they end.

use std::{sync::Arc, time::Instant};

use bellrope_proto::{
    Violation,
    connection::{Failure, Request},
    frame::{ErrorCode, Rejection},
};

use super::{
    super::{
        claim::Reserve,
        dispatch::{Held, OpenCall, Port},
        inbox::LinkId,
        link::Link,
        span::CallSpan,
    },
    Service, draining, is_handlers_fault, open_breaker,
};
use crate::{
    KillPoint,
    handler::{Cancelled, ChunkSender, OwnedCall},
};

/// What a call costs beyond its payload, in bytes: its task and its bookkeeping, roughly.
const CALL_OVERHEAD: u64 = 1024;

impl Service {
    /// Notes how an open call ended that was answered through the inbox.
    pub(in crate::server) fn ended(&self, link: &Link, mut call: OpenCall, failed: Option<&Failure>) {
        let took = call.started.elapsed();
        call.held.span.ended(failed.map_or("ok", |failure| failure.code.name()));
        if let Some(permit) = call.held.permit.take() {
            // A deadline is its caller's choice: it counts against the handler only if that had a fair time.
            let slow = self.shared.breaker(call.message_type).slow_call();
            match failed {
                None => permit.succeed(Instant::now),
                Some(failure) if is_handlers_fault(failure) => permit.fail(Instant::now),
                Some(Failure { code: ErrorCode::DeadlineExceeded, .. }) if took >= slow => permit.fail(Instant::now),
                Some(_) => drop(permit),
            }
        }
        self.desk.note(&self.shared, call.message_type, link, failed);
        let shard = self.shared.metrics.shard(self.worker);
        shard.ended(call.message_type);
        shard.time(call.message_type, took.as_micros() as u64, 1);
    }

    /// Hands a call to its async handler, unless too many are open. Answers `false` if it has to wait for the budget.
    pub(super) fn start(&mut self, link: &mut Link, request: &Request) -> Result<bool, Violation> {
        let shared = Arc::clone(&self.shared);
        let Some(handler) = shared.registry.find(request.message_type) else { return Ok(true) };
        let style = handler.style();
        let may_run = shared.may_run(request.deadline_us, request.len);
        let mut refusal = (!may_run).then(|| shared.refusal(request.len));
        let (payload, reservation) = if request.large {
            let (payload, reservation) = link.connection.take_large(request)?;
            link.claim.came_whole();
            (payload, Some(reservation))
        } else {
            let streams = if style.streams() { ChunkSender::AHEAD as u64 } else { 0 };
            let uploads = if style.uploads() { u64::from(shared.terms.stream_window) } else { 0 };
            let reservation = match &refusal {
                Some(_) => None,
                None => match self.reserve(link, request.len as u64 + CALL_OVERHEAD + streams + uploads) {
                    Reserve::Granted(reservation) => Some(reservation),
                    Reserve::Wait => return Ok(false),
                    Reserve::Refused(failure) => {
                        refusal = Some(failure);
                        None
                    }
                },
            };
            let mut payload = vec![0; request.len];
            link.connection.take(request, &mut payload);
            (payload, reservation)
        };
        let breaker = shared.breaker(request.message_type);
        let permit = match (&refusal, breaker.acquire_owned(Instant::now)) {
            (None, Ok(permit)) => Some(permit),
            (None, Err(rejected)) => {
                refusal = Some(open_breaker(&rejected));
                None
            }
            (Some(_), _) => None,
        };
        if refusal.is_none() && !link.connection.open(request.id, style)? {
            let limit = shared.terms.max_in_flight;
            let text = format!("{limit} calls are open on this connection, the limit max_in_flight");
            refusal = Some(Failure::rejected(Rejection::Busy, text));
        }
        let (Some(reservation), Some(permit), None) = (reservation, permit, &refusal) else {
            let failure = refusal.unwrap_or_else(draining);
            self.desk.note(&shared, request.message_type, link, Some(&failure));
            link.connection.fail(request.id, failure)?;
            return Ok(true);
        };
        let runtime = shared.runtime.as_ref().expect("a server with async handlers has a runtime");
        let call = OwnedCall {
            payload,
            connection: link.serial,
            deadline_us: request.deadline_us,
            cancelled: Cancelled::default(),
        };
        let port = Port {
            inbox: Arc::clone(&self.inbox),
            link: LinkId { index: link.index, serial: link.serial },
            call: request.id,
            max_chunk: link.connection.max_record(),
        };
        link.open.start(
            runtime,
            handler,
            request.message_type,
            call,
            &port,
            Held {
                reservation: Some(reservation),
                permit: Some(permit),
                span: CallSpan::new(&shared, request.message_type, link.serial),
            },
        );
        shared.metrics.shard(self.worker).began(request.message_type);
        KillPoint::Started.reached();
        Ok(true)
    }

    /// Drops the handler of a call that its caller no longer wants.
    pub(super) fn cancelled(&self, link: &mut Link, call: u64) {
        if let Some(open) = link.open.close(call) {
            open.cancel();
            self.shared.metrics.shard(self.worker).ended(open.message_type);
            self.shared.metrics.shard(self.worker).count(open.message_type, Some(ErrorCode::Cancelled));
        }
    }

    /// Counts the calls of a client that is gone; their handlers go with its link.
    pub(in crate::server) fn abandoned(&self, link: &Link) {
        for open in link.open.iter() {
            open.cancel();
            self.shared.metrics.shard(self.worker).ended(open.message_type);
            self.shared.metrics.shard(self.worker).count(open.message_type, Some(ErrorCode::Cancelled));
        }
    }
}
